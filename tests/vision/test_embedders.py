"""SFace on planted outputs, then the real network; and the pipeline that feeds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facedex.errors import EmbeddingInvalid, ModelInvalid, PhotoArrayInvalid
from facedex.models.catalog import SFACE
from facedex.models.contract import Embedder
from facedex.models.runtime import Port
from facedex.models.synthetic import SyntheticDetector, SyntheticEmbedder, draw_photo
from facedex.types import Box, Face, RgbImage
from facedex.vision.embedders import SFace
from facedex.vision.pipeline import FacePipeline, largest


class PlantedSFace:
    """In the network's place: row i is (mean of the crop's red, green, blue, 0, …), unless planted otherwise."""

    path = Path("planted.onnx")
    inputs = (Port("data", (None, 3, 112, 112), "tensor(float)"),)
    outputs = (Port("fc1", (None, 128), "tensor(float)"),)

    def __init__(self, planted: float | None = None) -> None:
        self.planted = planted
        self.asked: list[int] = []

    def run(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        blob = feed["data"]
        assert blob.dtype == np.float32
        self.asked.append(len(blob))
        rows = np.zeros((len(blob), 128), np.float32)
        rows[:, :3] = blob.mean(axis=(2, 3)) if self.planted is None else self.planted
        return {"fc1": rows}


def planted(value: float | None = None) -> tuple[SFace, PlantedSFace]:
    network = PlantedSFace(value)
    return SFace(network), network  # type: ignore[arg-type]


def test_rows_have_length_one_and_channels_are_red_green_blue() -> None:
    embedder, _ = planted()
    crops = np.zeros((1, 112, 112, 3), np.uint8)
    crops[:] = (30, 0, 40)
    (row,) = embedder.embed(crops)
    assert row.dtype == np.float32
    assert row[:4].tolist() == pytest.approx([0.6, 0, 0.8, 0])


def test_many_crops_run_in_batches_and_come_back_in_order() -> None:
    embedder, network = planted()
    crops = np.zeros((37, 112, 112, 3), np.uint8)
    crops[..., 0] = np.arange(37)[:, None, None]
    crops[..., 1] = 10
    rows = embedder.embed(crops)
    assert network.asked == [16, 16, 5]
    assert (np.diff(rows[:, 0]) > 0).all()


def test_no_crops_give_no_embeddings() -> None:
    embedder, network = planted()
    assert embedder.embed(np.zeros((0, 112, 112, 3), np.uint8)).shape == (0, 128)
    assert network.asked == []


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_an_answer_without_direction_is_an_error_and_no_embedding(value: float) -> None:
    embedder, _ = planted(value)
    with pytest.raises(EmbeddingInvalid, match="face 0 of 2"):
        embedder.embed(np.zeros((2, 112, 112, 3), np.uint8))


@pytest.mark.parametrize(
    "crops",
    [np.zeros((112, 112, 3), np.uint8), np.zeros((1, 96, 96, 3), np.uint8), np.zeros((1, 112, 112, 3), np.float32)],
    ids=["one without a batch", "another size", "floats"],
)
def test_crops_of_another_kind_are_refused(crops: np.ndarray) -> None:
    with pytest.raises(PhotoArrayInvalid, match="align_face"):
        planted()[0].embed(crops)


def test_another_network_is_not_taken_for_sface() -> None:
    network = PlantedSFace()
    network.inputs = (Port("data", (None, 3, 96, 96), "tensor(float)"),)
    with pytest.raises(ModelInvalid, match="facedex models pull sface"):
        SFace(network)  # type: ignore[arg-type]


def test_the_space_is_that_of_the_card() -> None:
    embedder, _ = planted()
    assert embedder.space == SFACE.space
    assert embedder.size == 112
    assert isinstance(embedder, Embedder)


# The pipeline


def test_a_photo_without_a_face_has_no_embedding() -> None:
    pipeline = FacePipeline(SyntheticDetector(), SyntheticEmbedder())
    assert pipeline.faces([draw_photo([])]) == [[]]
    assert pipeline.faces([]) == []


def test_faces_of_several_photos_keep_to_their_photo_and_order() -> None:
    pipeline = FacePipeline(SyntheticDetector(), SyntheticEmbedder())
    photos = [draw_photo([1, 2]), draw_photo([]), draw_photo([3])]
    found = pipeline.faces(photos)
    assert [len(faces) for faces in found] == [2, 0, 1]
    assert [[f.box for f in faces] for faces in found] == [[f.box for f in faces] for faces in pipeline.detect(photos)]
    assert all(f.embedding is not None for faces in found for f in faces)


def test_a_face_that_cannot_be_aligned_is_left_out_and_the_others_stay() -> None:
    class WithABadFace(SyntheticDetector):
        def detect(self, images: Any) -> list[list[Face]]:
            bad = Face(Box(0, 0, 300, 300), np.zeros((5, 2), np.float32), 0.9)
            return [[bad, *faces] for faces in super().detect(images)]

    pipeline = FacePipeline(WithABadFace(), SyntheticEmbedder())
    photos = [draw_photo([1]), draw_photo([])]
    assert [len(faces) for faces in pipeline.detect(photos)] == [2, 1]
    assert [len(faces) for faces in pipeline.faces(photos)] == [1, 0]


def test_the_largest_face_is_chosen_by_area() -> None:
    small, large = (Face(Box(0, 0, s, s), np.zeros((5, 2), np.float32), 1 - s / 100) for s in (5, 9))
    assert largest([small, large]) is large
    assert largest([]) is None


# The real network


def embedded(pipeline: FacePipeline, *images: RgbImage) -> list[np.ndarray]:
    chosen = [largest(faces) for faces in pipeline.faces(images)]
    assert all(face is not None and face.embedding is not None for face in chosen)
    return [face.embedding for face in chosen if face is not None and face.embedding is not None]


@pytest.mark.weights
def test_the_same_photo_gives_the_same_embedding_alone_and_in_a_batch(
    pipeline: FacePipeline, photos: list[RgbImage]
) -> None:
    together = embedded(pipeline, *photos)
    alone = [embedded(pipeline, photo)[0] for photo in photos]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


@pytest.mark.weights
@pytest.mark.parametrize("change", ["mirrored", "gray", "half size", "turned by 10°", "JPEG of quality 40"])
def test_a_changed_photo_still_shows_the_same_person(
    pipeline: FacePipeline, photo: RgbImage, change: str, tmp_path: Path
) -> None:
    picture = Image.fromarray(photo)
    if change == "mirrored":
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    elif change == "gray":
        picture = picture.convert("L").convert("RGB")
    elif change == "half size":
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BILINEAR)
    elif change == "turned by 10°":
        picture = picture.rotate(10, Image.Resampling.BILINEAR)
    else:
        picture.save(tmp_path / "again.jpg", quality=40)
        picture = Image.open(tmp_path / "again.jpg").convert("RGB")
    one, other = embedded(pipeline, photo, np.asarray(picture))
    assert float(one @ other) > 0.7
