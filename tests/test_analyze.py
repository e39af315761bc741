"""Quality on the way into a gallery, and what a search says of its probe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import facedex
from drawn import ANN, BOB, Draw
from facedex.errors import ArgumentInvalid
from facedex.models.synthetic import draw_photo


@pytest.fixture
def burnt(tmp_path: Path) -> Callable[..., Path]:
    """``burnt("Ann/1.png", ANN)``: a photo with hardly any contrast and far too much light, but for the frame that the
    drawn detector looks for."""

    def to_file(path: str, *people: int, seed: int = 0) -> Path:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        photo = draw_photo(people, seed=seed)
        frame = (photo == (255, 0, 255)).all(axis=2)
        faded = np.where(frame[..., None], photo, 253 + photo // 128)
        Image.fromarray(faded.astype(np.uint8)).save(target)
        return target

    return to_file


def test_a_face_of_low_quality_is_not_enrolled_and_the_report_says_why(
    gallery: facedex.Gallery, draw: Draw, burnt: Callable[..., Path]
) -> None:
    good, poor = draw("photos/Ann/1.jpg", ANN), burnt("photos/Bob/1.png", BOB)
    report = gallery.enroll(good.parent.parent, label="folder", min_quality=0.5)
    assert (report.photos, report.enrolled, report.already, report.faceless) == (2, 1, 0, ())
    (left_out,) = report.low_quality
    assert left_out.photo == str(poor)
    assert left_out.code == "low_quality"
    assert "below 0.5: " in left_out.message
    assert "overexposed" in left_out.message
    assert [person.label for person in gallery.people()] == ["Ann"]


def test_what_was_left_out_is_enrolled_when_less_is_asked(gallery: facedex.Gallery, burnt: Callable[..., Path]) -> None:
    photo = burnt("Bob/1.png", BOB)
    assert gallery.enroll(photo, label="Bob", min_quality=0.5).enrolled == 0
    assert gallery.count() == 0
    assert gallery.enroll(photo, label="Bob").enrolled == 1


def test_without_a_minimum_every_face_is_enrolled(gallery: facedex.Gallery, burnt: Callable[..., Path]) -> None:
    report = gallery.enroll(burnt("Bob/1.png", BOB), label="Bob")
    assert (report.enrolled, report.low_quality) == (1, ())


def test_a_search_takes_any_probe_and_tells_its_quality(
    gallery: facedex.Gallery, draw: Draw, burnt: Callable[..., Path]
) -> None:
    gallery.enroll(draw("Ann/1.jpg", ANN), label="Ann", min_quality=0.5)
    (clear,), (poor,) = gallery.search(draw("probe.jpg", ANN, seed=1)), gallery.search(burnt("burnt.png", BOB))
    assert clear.face.quality is not None
    assert poor.face.quality is not None
    assert clear.face.quality.score > 0.5 > poor.face.quality.score
    assert "overexposed" in poor.face.quality.faults
    assert len(poor.candidates) == 1


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_a_minimum_outside_0_to_1_is_refused(gallery: facedex.Gallery, draw: Draw, wrong: float) -> None:
    with pytest.raises(ArgumentInvalid, match="expected 0 to 1"):
        gallery.enroll(draw("Ann/1.jpg", ANN), min_quality=wrong)
    assert gallery.count() == 0
