"""Stand-ins behave as the real detector and embedder do, so what passes with them is worth something."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from facedex.errors import ArgumentInvalid, EmbeddingInvalid, PhotoArrayInvalid
from facedex.models.contract import Detector, Embedder
from facedex.models.synthetic import SyntheticDetector, SyntheticEmbedder, draw_photo
from facedex.types import RgbImage
from facedex.vision.pipeline import FacePipeline

ANN, BOB = 1, 2


@pytest.fixture(scope="module")
def pipeline() -> FacePipeline:
    return FacePipeline(SyntheticDetector(), SyntheticEmbedder())


def as_jpeg(photo: RgbImage, quality: int = 90) -> RgbImage:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def test_the_stand_ins_keep_the_protocols() -> None:
    assert isinstance(SyntheticDetector(), Detector)
    assert isinstance(SyntheticEmbedder(), Embedder)


def test_a_drawing_is_the_same_each_time() -> None:
    np.testing.assert_array_equal(draw_photo([ANN, BOB], variation=3), draw_photo([ANN, BOB], variation=3))
    assert (draw_photo([ANN]) != draw_photo([ANN], seed=1)).any()


@pytest.mark.parametrize("count", [0, 1, 2, 5, 12])
def test_every_face_is_found_and_the_first_is_the_largest(pipeline: FacePipeline, count: int) -> None:
    photo = draw_photo(range(count), size=(640, 480), seed=count)
    (faces,) = pipeline.faces([as_jpeg(photo)])
    assert len(faces) == count
    if count:
        first = pipeline.faces([draw_photo([0])])[0][0].embedding
        assert float(faces[0].embedding @ first) > 0.99
    for face in faces:
        assert face.box.x1 >= 0
        assert face.box.y2 <= 480
        assert (face.landmarks > [face.box.x1, face.box.y1]).all()
        assert (face.landmarks < [face.box.x2, face.box.y2]).all()
        assert 0.7 <= face.detection_score <= 1


def test_one_person_is_alike_on_every_occasion_and_others_are_not(pipeline: FacePipeline) -> None:
    people, occasions = range(25), range(4)
    photos = [
        as_jpeg(draw_photo([person], variation=occasion, seed=person, face_size=60 + 20 * occasion))
        for person in people
        for occasion in occasions
    ]
    embeddings = np.stack([faces[0].embedding for faces in pipeline.faces(photos)])
    similarity = embeddings @ embeddings.T
    owner = np.repeat(people, len(occasions))
    genuine = (owner[:, None] == owner) & ~np.eye(len(owner), dtype=bool)
    impostor = owner[:, None] != owner
    assert similarity[genuine].min() > 0.68
    assert similarity[genuine].max() < 0.92
    assert abs(similarity[impostor]).max() < 0.4
    assert abs(similarity[impostor].mean()) < 0.02


def test_the_seed_alone_makes_another_occasion_of_a_varied_photo(pipeline: FacePipeline) -> None:
    one, other = pipeline.faces([draw_photo([ANN], variation=0.5, seed=1), draw_photo([ANN], variation=0.5, seed=2)])
    assert 0.6 < float(one[0].embedding @ other[0].embedding) < 0.95


def test_a_shrunk_photo_shows_the_same_person(pipeline: FacePipeline) -> None:
    large = draw_photo([ANN], size=(1200, 900), face_size=140)
    small = np.asarray(Image.fromarray(large).resize((600, 450)))
    one, other = pipeline.faces([large, small])
    assert float(one[0].embedding @ other[0].embedding) > 0.98


def test_people_beyond_the_first_block_of_codes_are_strangers_too(pipeline: FacePipeline) -> None:
    photos = [draw_photo([person]) for person in (0, 127, 254, 5000)]
    embeddings = np.stack([faces[0].embedding for faces in pipeline.faces(photos)])
    assert abs(embeddings @ embeddings.T - np.eye(4)).max() < 0.5


def test_spaces_of_other_names_are_other_spaces() -> None:
    assert SyntheticEmbedder().space.id == SyntheticEmbedder().space.id
    assert SyntheticEmbedder().space.id != SyntheticEmbedder("other").space.id


def test_a_crop_without_any_light_in_it_has_no_embedding() -> None:
    gray = np.full((1, 112, 112, 3), 127, np.uint8)
    gray[:, ::2] = 128
    with pytest.raises(EmbeddingInvalid):
        SyntheticEmbedder().embed(gray)


@pytest.mark.parametrize("people", [[-1], list(range(200))], ids=["a negative identity", "a crowd"])
def test_what_cannot_be_drawn_is_refused(people: list[int]) -> None:
    with pytest.raises(ArgumentInvalid):
        draw_photo(people)


def test_wrong_arrays_are_refused_as_by_the_real_ones() -> None:
    with pytest.raises(PhotoArrayInvalid):
        SyntheticDetector().detect([np.zeros((4, 4), np.uint8)])
    with pytest.raises(PhotoArrayInvalid):
        SyntheticEmbedder().embed(np.zeros((1, 64, 64, 3), np.uint8))
