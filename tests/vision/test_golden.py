"""On real photos: what OpenCV's own FaceDetectorYN and FaceRecognizerSF give on the same published weights.

Theirs runs the published files in OpenCV's network engine, ours the converted ones in ONNX Runtime. Detection is
compared twice: on one shrunk photo given to both, where only the networks and decoding differ, and from the whole
photo, where each shrinks it in its own way. Alignment and embedding are compared for one set of landmarks.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from facedex.types import Box, Face, RgbImage
from facedex.vision.alignment import align_face
from facedex.vision.pipeline import FacePipeline
from facedex.vision.scaling import shrink

pytestmark = pytest.mark.weights

BOUND = 640


def opencv_faces(detector: Any, image: RgbImage) -> np.ndarray:
    """(N, 15): x, y, width, height, five points, score; best score first."""
    detector.setInputSize((image.shape[1], image.shape[0]))
    _, rows = detector.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return np.zeros((0, 15), np.float32) if rows is None else rows


def overlap(one: Box, other: Box) -> float:
    wide = min(one.x2, other.x2) - max(one.x1, other.x1)
    high = min(one.y2, other.y2) - max(one.y1, other.y1)
    shared = max(0.0, wide) * max(0.0, high)
    return shared / (one.area + other.area - shared)


def pairs(ours: list[Face], theirs: np.ndarray) -> list[tuple[Face, np.ndarray]]:
    """Each of our faces with theirs of the nearest centre."""
    assert len(ours) == len(theirs) > 0

    def nearest(face: Face) -> np.ndarray:
        centre = [(face.box.x1 + face.box.x2) / 2, (face.box.y1 + face.box.y2) / 2]
        row: np.ndarray = min(theirs, key=lambda r: float(np.hypot(*(r[:2] + r[2:4] / 2 - centre))))
        return row

    return [(face, nearest(face)) for face in ours]


def compare(ours: list[Face], theirs: np.ndarray, iou: float, pixels: float) -> None:
    for face, row in pairs(ours, theirs):
        x, y, width, height = row[:4]
        assert overlap(face.box, Box(x, y, x + width, y + height)) >= iou
        assert abs(face.landmarks - row[4:14].reshape(5, 2)).max() <= pixels
        assert face.detection_score == pytest.approx(row[14], abs=0.02)


def test_on_one_shrunk_photo_the_faces_are_those_of_opencv(
    pipeline: FacePipeline, opencv_detector: Any, photo: RgbImage
) -> None:
    small = shrink(photo, BOUND)
    compare(pipeline.detect([small])[0], opencv_faces(opencv_detector, small), iou=0.999, pixels=0.01)


def test_from_the_whole_photo_boxes_and_landmarks_are_those_of_opencv(
    pipeline: FacePipeline, opencv_detector: Any, photo: RgbImage
) -> None:
    small = shrink(photo, BOUND)
    height, width = small.shape[:2]
    theirs = opencv_faces(opencv_detector, cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA))
    factor = np.array([width / photo.shape[1], height / photo.shape[0]], np.float32)
    ours = [
        Face(Box(*(float(v) for v in face.box * np.tile(factor, 2))), face.landmarks * factor, face.detection_score)
        for face in pipeline.detect([photo])[0]
    ]
    compare(ours, theirs, iou=0.95, pixels=1.0)


def test_the_embedding_is_that_of_opencv(pipeline: FacePipeline, opencv_recognizer: Any, photo: RgbImage) -> None:
    bgr = cv2.cvtColor(photo, cv2.COLOR_RGB2BGR)
    (faces,) = pipeline.faces([photo])
    assert faces
    for face in faces:
        box = [face.box.x1, face.box.y1, face.box.width, face.box.height]
        row = np.array([*box, *face.landmarks.reshape(-1), face.detection_score], np.float32)
        crop = opencv_recognizer.alignCrop(bgr, row)
        theirs = opencv_recognizer.feature(crop)[0]
        assert abs(align_face(photo, face.landmarks).astype(int) - crop[..., ::-1]).mean() < 0.5
        assert face.embedding is not None
        assert float(face.embedding @ theirs) / float(np.linalg.norm(theirs)) >= 0.999


def test_an_aligned_crop_gives_the_embedding_of_opencv_to_a_hair(
    pipeline: FacePipeline, opencv_recognizer: Any, photo: RgbImage
) -> None:
    crop = align_face(photo, pipeline.detect([photo])[0][0].landmarks)
    (ours,) = pipeline.embedder.embed(crop[None])
    theirs = opencv_recognizer.feature(cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))[0]
    np.testing.assert_allclose(ours, theirs / np.linalg.norm(theirs), atol=2e-5)
