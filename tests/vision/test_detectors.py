"""YuNet: decoding on planted outputs, then the real network on real photos and odd sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facedex.errors import ArgumentInvalid, ModelInvalid, PhotoArrayInvalid
from facedex.models.contract import Detector
from facedex.models.runtime import Port
from facedex.types import Box, RgbImage
from facedex.vision.detectors import YuNet, suppress
from facedex.vision.pipeline import FacePipeline, largest
from facedex.vision.scaling import shrink

KINDS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}


class PlantedYuNet:
    """In the network's place: says what was planted, and remembers what it was asked."""

    path = Path("planted.onnx")
    inputs = (Port("input", (None, 3, None, None), "tensor(float)"),)
    outputs = tuple(
        Port(f"{kind}_{stride}", (None, None, size), "tensor(float)")
        for kind, size in KINDS.items()
        for stride in (8, 16, 32)
    )

    def __init__(self) -> None:
        self.asked: list[np.ndarray] = []
        self.faces: list[tuple[int, int, int, float]] = []  # stride, column, row, score

    def run(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (blob,) = feed.values()
        self.asked.append(blob)
        count, _, height, width = blob.shape
        found = {
            f"{kind}_{stride}": np.zeros((count, (height // stride) * (width // stride), size), np.float32)
            for kind, size in KINDS.items()
            for stride in (8, 16, 32)
        }
        for stride, column, row, score in self.faces:
            cell = row * (width // stride) + column
            found[f"cls_{stride}"][:, cell] = found[f"obj_{stride}"][:, cell] = score
            found[f"bbox_{stride}"][:, cell] = 0.5, 0.25, np.log(4), np.log(5)
            found[f"kps_{stride}"][:, cell] = np.arange(10) / 10
        return found


def planted(**options: Any) -> tuple[YuNet, PlantedYuNet]:
    network = PlantedYuNet()
    return YuNet(network, **options), network  # type: ignore[arg-type]


def gray(width: int, height: int) -> RgbImage:
    return np.full((height, width, 3), 128, np.uint8)


def overlap(one: Box, other: Box) -> float:
    wide = min(one.x2, other.x2) - max(one.x1, other.x1)
    high = min(one.y2, other.y2) - max(one.y1, other.y1)
    shared = max(0.0, wide) * max(0.0, high)
    return shared / (one.area + other.area - shared)


# Decoding


def test_an_anchor_becomes_a_box_and_landmarks_in_pixels() -> None:
    detector, network = planted()
    network.faces = [(16, 3, 2, 0.9)]
    ((face,),) = detector.detect([gray(96, 64)])
    assert face.detection_score == pytest.approx(0.9)
    assert face.box == pytest.approx(((3.5 - 2) * 16, (2.25 - 2.5) * 16, (3.5 + 2) * 16, (2.25 + 2.5) * 16), abs=1e-4)
    expected = (np.arange(10).reshape(5, 2) / 10 + [3, 2]) * 16
    np.testing.assert_allclose(face.landmarks, expected, rtol=1e-6)
    assert face.landmarks.dtype == np.float32
    assert face.embedding is None


def test_a_shrunk_photo_gives_boxes_in_its_own_pixels() -> None:
    detector, network = planted(bound=64)
    network.faces = [(8, 1, 1, 0.9)]
    ((small,),), ((large,),) = detector.detect([gray(64, 32)]), detector.detect([gray(640, 320)])
    np.testing.assert_allclose(large.box, np.multiply(small.box, 10), rtol=1e-5)
    np.testing.assert_allclose(large.landmarks, small.landmarks * 10, rtol=1e-5)


def test_a_photo_is_never_enlarged_only_padded_below_and_to_the_right() -> None:
    detector, network = planted()
    image = np.arange(33 * 20 * 3, dtype=np.uint8).reshape(20, 33, 3)
    detector.detect([image])
    (blob,) = network.asked
    assert blob.shape == (1, 3, 32, 64)
    np.testing.assert_array_equal(blob[0, :, :20, :33], image[..., ::-1].transpose(2, 0, 1))
    assert not blob[0, :, 20:].any()
    assert not blob[0, :, :, 33:].any()


def test_photos_of_one_network_size_run_together_and_keep_their_places() -> None:
    detector, network = planted()
    network.faces = [(8, 1, 1, 0.9)]
    found = detector.detect([gray(64, 64), gray(96, 64), gray(60, 50), gray(96, 33)])
    assert [blob.shape for blob in network.asked] == [(2, 3, 64, 64), (2, 3, 64, 96)]
    assert [len(faces) for faces in found] == [1, 1, 1, 1]


def test_a_long_batch_is_cut_into_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, network = planted()
    monkeypatch.setattr(YuNet, "BATCH_PIXELS", 3 * 64 * 64)
    assert len(detector.detect([gray(64, 64)] * 7)) == 7
    assert [len(blob) for blob in network.asked] == [3, 3, 1]


def test_faces_below_the_threshold_are_left_out_and_one_at_it_stays() -> None:
    detector, network = planted(threshold=0.5)
    network.faces = [(8, 0, 0, 0.49), (32, 1, 1, 0.5)]
    ((face,),) = detector.detect([gray(64, 64)])
    assert face.detection_score == pytest.approx(0.5)


def test_of_overlapping_boxes_the_best_stays_and_the_largest_comes_first() -> None:
    detector, network = planted()
    network.faces = [(8, 2, 2, 0.8), (8, 3, 2, 0.95), (32, 5, 5, 0.75)]
    ((first, second),) = detector.detect([gray(256, 256)])
    assert (first.detection_score, second.detection_score) == pytest.approx((0.75, 0.95))
    assert first.box.area > second.box.area


def test_an_anchor_that_is_not_finite_is_no_face() -> None:
    detector, network = planted()
    network.faces = [(8, 2, 2, 0.9)]
    run = network.run
    network.run = lambda feed: run(feed) | {"bbox_8": np.full((1, 64, 4), np.nan, np.float32)}  # type: ignore[method-assign]
    assert detector.detect([gray(64, 64)]) == [[]]


def test_suppression_keeps_what_overlaps_no_better_box() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [0, 0, 0, 0]], np.float32)
    assert suppress(boxes, np.array([0.8, 0.9, 0.7, 0.6], np.float32), 0.3) == [1, 2, 3]
    assert suppress(boxes, np.array([0.8, 0.9, 0.7, 0.6], np.float32), 1.0) == [1, 0, 2, 3]
    assert suppress(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.3) == []


def test_shrinking_bounds_the_longer_side_and_keeps_at_least_a_pixel() -> None:
    assert shrink(gray(1000, 500), 640).shape == (320, 640, 3)
    assert shrink(gray(30000, 3), 640).shape == (1, 640, 3)
    small = gray(640, 640)
    assert shrink(small, 640) is small


# What is refused


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((5, 5, 3), np.float32),
        np.full((5, 5, 3), np.nan),
        np.zeros((0, 5, 3), np.uint8),
        "photo.jpg",
    ],
    ids=["gray", "alpha", "floats", "nan", "empty", "a path"],
)
def test_images_of_another_kind_are_refused_by_position(image: Any) -> None:
    detector, _ = planted()
    with pytest.raises(PhotoArrayInvalid, match="image 1"):
        detector.detect([gray(32, 32), image])


@pytest.mark.parametrize("options", [{"threshold": 0.0}, {"threshold": 1.0}, {"nms": 0.0}, {"bound": 31}])
def test_parameters_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ArgumentInvalid, match=next(iter(options))):
        planted(**options)


def test_another_network_is_not_taken_for_yunet() -> None:
    network = PlantedYuNet()
    network.inputs = (Port("input", (1, 3, 640, 640), "tensor(float)"),)
    with pytest.raises(ModelInvalid, match="YuNet"):
        YuNet(network)  # type: ignore[arg-type]


# The real network


@pytest.fixture(scope="session")
def yunet(pipeline: FacePipeline) -> YuNet:
    assert isinstance(pipeline.detector, YuNet)
    assert isinstance(pipeline.detector, Detector)
    return pipeline.detector


@pytest.mark.weights
@pytest.mark.parametrize("size", [(1, 1), (3, 30000), (30000, 3), (31, 33), (640, 640), (641, 639)], ids=str)
def test_a_photo_of_any_size_is_searched(yunet: YuNet, size: tuple[int, int]) -> None:
    assert yunet.detect([gray(*size)]) == [[]]


@pytest.mark.weights
def test_no_photos_give_no_faces(yunet: YuNet) -> None:
    assert yunet.detect([]) == []


@pytest.mark.weights
def test_noise_shows_no_face(yunet: YuNet) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3)).astype(np.uint8)
    assert yunet.detect([noise]) == [[]]


@pytest.mark.weights
def test_a_batch_finds_what_each_photo_gives_alone(yunet: YuNet, photos: list[RgbImage]) -> None:
    together = yunet.detect(photos)
    for image, faces in zip(photos, together, strict=True):
        (alone,) = yunet.detect([image])
        assert [face.box for face in faces] == [face.box for face in alone]
        for one, other in zip(faces, alone, strict=True):
            np.testing.assert_array_equal(one.landmarks, other.landmarks)


@pytest.mark.weights
def test_the_image_left_eye_comes_first(yunet: YuNet, photo: RgbImage) -> None:
    face = largest(yunet.detect([photo])[0])
    assert face is not None
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def turned(image: RgbImage, degrees: float) -> RgbImage:
    return np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR))


@pytest.mark.weights
def test_the_mirrored_photo_shows_the_mirrored_face(yunet: YuNet, photo: RgbImage) -> None:
    face, mirrored = (largest(faces) for faces in yunet.detect([photo, np.ascontiguousarray(photo[:, ::-1])]))
    assert face is not None
    assert mirrored is not None
    width = photo.shape[1]
    back = Box(width - mirrored.box.x2, mirrored.box.y1, width - mirrored.box.x1, mirrored.box.y2)
    assert overlap(face.box, back) > 0.85
    swapped = mirrored.landmarks[[1, 0, 2, 4, 3]] * [-1, 1] + [width, 0]
    assert abs(swapped - face.landmarks).max() < 0.1 * face.box.width


@pytest.mark.weights
@pytest.mark.parametrize("factor", [0.5, 0.8, 1.5])
def test_the_scaled_photo_shows_the_scaled_face(yunet: YuNet, photo: RgbImage, factor: float) -> None:
    size = (round(photo.shape[1] * factor), round(photo.shape[0] * factor))
    scaled = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BILINEAR))
    face, other = (largest(faces) for faces in yunet.detect([photo, scaled]))
    assert face is not None
    assert other is not None
    assert overlap(face.box, Box(*(v / factor for v in other.box))) > 0.85


@pytest.mark.weights
def test_the_gray_photo_shows_the_same_face(yunet: YuNet, photo: RgbImage) -> None:
    gray_photo = np.asarray(Image.fromarray(photo).convert("L").convert("RGB"))
    face, other = (largest(faces) for faces in yunet.detect([photo, gray_photo]))
    assert face is not None
    assert other is not None
    assert overlap(face.box, other.box) > 0.85


@pytest.mark.weights
@pytest.mark.parametrize("degrees", [-20, -10, 10, 20])
def test_the_turned_photo_shows_the_turned_face(yunet: YuNet, photo: RgbImage, degrees: float) -> None:
    face, other = (largest(faces) for faces in yunet.detect([photo, turned(photo, degrees)]))
    assert face is not None
    assert other is not None
    centre = np.array([photo.shape[1], photo.shape[0]]) / 2
    angle = np.deg2rad(-degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = (face.landmarks - centre) @ matrix.T + centre
    # YuNet turns landmarks less than the face turns; OpenCV's gives the same.
    assert np.linalg.norm(expected - other.landmarks, axis=1).mean() < 0.12 * face.box.width
