"""Enrollment stopped at any moment, by ``kill -9`` or Ctrl-C: what was acknowledged stays, the rest comes next time."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import facedex
from drawn import Draw
from facedex.models.synthetic import draw_photo

ENROLLER = Path(__file__).with_name("enroller.py")
PEOPLE, PHOTOS = 6, 20


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for person in range(PEOPLE):
        (folder / f"person {person}").mkdir()
        for number in range(PHOTOS):
            pixels = draw_photo((person,), size=(160, 120), variation=0.5, seed=number)
            Image.fromarray(pixels).save(folder / f"person {person}" / f"{number}.png")
    return folder


def enroll(gallery: Path, photos: Path, stop: int | None, after: float) -> list[tuple[int, int]]:
    """What the process acknowledged before it was stopped."""
    command = [sys.executable, str(ENROLLER), str(gallery), str(photos)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if stop is not None:
            time.sleep(after)
            process.send_signal(stop)
        told = process.stdout.read().splitlines(keepends=True)
    return [(int(done), int(enrolled)) for done, enrolled in (line.split() for line in told if line.endswith("\n"))]


def check(engine: facedex.Engine, path: Path, photos: Path, at_least: int) -> int:
    """Every stored face is whole and right, and no fewer are there than were acknowledged."""
    with engine.open(path) as gallery:
        assert gallery.store.check() == ()
        stored = list(gallery.store.scan())
        assert len(stored) == gallery.count() >= at_least
        assert len({each.template.link for each in stored}) == len(stored)
        for each in stored[-3:]:
            link = Path(str(each.template.link))
            (face,) = engine.embed(link)
            assert each.template.label == link.parent.name
            assert face.embedding is not None
            assert each.template.embedding.tobytes() == face.embedding.tobytes()
        return len(stored)


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_stopped_again_and_again_it_ends_with_every_face_once(
    stop: signal.Signals, engine: facedex.Engine, photos: Path, tmp_path: Path
) -> None:
    chance, path, there, stops = random.Random(int(stop)), tmp_path / "faces.db", 0, 0
    while there < PEOPLE * PHOTOS and stops < 60:
        told = enroll(path, photos, stop, chance.uniform(0, 0.12))
        stops += 1
        there = check(engine, path, photos, at_least=there + (told[-1][1] if told else 0))
    assert stops >= 3, "it was hardly ever stopped; make the photos more or the pauses shorter"
    last = enroll(path, photos, None, 0)
    assert last[-1][0] == PEOPLE * PHOTOS
    assert check(engine, path, photos, at_least=PEOPLE * PHOTOS) == PEOPLE * PHOTOS


def test_ctrl_c_on_the_command_line_says_that_the_same_command_goes_on(
    photos: Path, tmp_path: Path, draw: Draw
) -> None:
    script = f"""
import sys; sys.path.insert(0, {str(ENROLLER.parent)!r})
import enroller, facedex.engine
from facedex import cli
from facedex.vision.pipeline import FacePipeline
from facedex.models.synthetic import SyntheticDetector, SyntheticEmbedder
pipeline = FacePipeline(SyntheticDetector(), SyntheticEmbedder())
FacePipeline.load = staticmethod(lambda settings: pipeline)
facedex.engine.DEFAULT_SPACE = pipeline.space
facedex.engine._PHOTOS_AT_ONCE = 1
print("ready", flush=True)
cli.main(["enroll", {str(photos)!r}, "--label", "folder", "--gallery", {str(tmp_path / "faces.db")!r}])
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.15)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert "the same command goes on" in said
    assert "Traceback" not in said
