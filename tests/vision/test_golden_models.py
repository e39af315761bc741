"""Converted models against their original runtimes; see tests/golden/PROVENANCE.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facedex.errors import WeightsUnavailable
from facedex.models import weights
from facedex.vision.detectors import MTCNN, load_detector
from facedex.vision.embedders import load_embedder

pytestmark = pytest.mark.weights

GOLDEN = Path(__file__).parent.parent / "golden"
SAMPLES = GOLDEN.parent.parent / "samples"
FACES = json.loads((GOLDEN / "mtcnn" / "faces.json").read_text("utf-8"))


def pulled(name: str) -> str:
    try:
        weights.pull([name], accept_unstated_licence=True)
    except WeightsUnavailable as error:
        pytest.skip(f"no weights: {error.message}")
    return name


@pytest.mark.parametrize("name", ["dlib-resnet", "facenet"])
def test_a_converted_embedder_answers_as_its_original_runtime_does(name: str) -> None:
    expected = json.loads((GOLDEN / name / "embeddings.json").read_text("utf-8"))
    crops = np.stack([np.asarray(Image.open(GOLDEN / name / f"{stem}.png")) for stem in expected])
    theirs = np.array(list(expected.values()))
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    ours = load_embedder(pulled(name)).embed(crops)
    assert ours.shape == theirs.shape
    assert abs(ours - theirs).max() < 2e-6


@pytest.fixture(scope="module")
def mtcnn() -> MTCNN:
    detector = load_detector(pulled("mtcnn"))
    assert isinstance(detector, MTCNN)
    return detector


@pytest.mark.parametrize("name", FACES, ids=lambda name: Path(name).stem)
def test_mtcnn_finds_the_faces_that_facenet_pytorch_finds(
    name: str, mtcnn: MTCNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mtcnn, "bound", 5000)  # theirs does not shrink the photo
    with Image.open(SAMPLES / name) as picture:
        (ours,) = mtcnn.detect([np.asarray(picture.convert("RGB"))])
    assert len(ours) == len(FACES[name]) > 0
    for face, expected in zip(ours, sorted(FACES[name], key=area, reverse=True), strict=True):
        np.testing.assert_allclose(face.box, expected["box"], atol=0.01)
        np.testing.assert_allclose(face.landmarks, expected["landmarks"], atol=0.01)
        assert face.detection_score == pytest.approx(expected["score"], abs=1e-5)


def area(face: dict[str, list[float]]) -> float:
    x1, y1, x2, y2 = face["box"]
    return (x2 - x1) * (y2 - y1)


def test_mtcnn_finds_every_face_of_a_photo_in_its_own_pixels(mtcnn: MTCNN) -> None:
    with Image.open(SAMPLES / "probes" / "eileen_collins_not_enrolled.png") as picture:
        one = np.asarray(picture.convert("RGB"))
    large = np.kron(one, np.ones((2, 2, 1), np.uint8))  # 2048 wide side by side: shrunk to 1280 before detection
    (faces,) = mtcnn.detect([np.concatenate([large, large], axis=1)])
    ((alone,),) = mtcnn.detect([one])
    assert len(faces) == 2
    for face, left in zip(sorted(faces, key=lambda face: face.box.x1), (0, 1024), strict=True):
        # MTCNN is not exact about size: 12 % of the face's width.
        near = 0.12 * 2 * alone.box.width
        np.testing.assert_allclose(face.box, np.array(alone.box) * 2 + [left, 0, left, 0], atol=near)
        np.testing.assert_allclose(face.landmarks, alone.landmarks * 2 + [left, 0], atol=near)


@pytest.mark.parametrize("size", [(1, 1), (3, 30000), (30000, 3), (19, 400), (64, 64)], ids=str)
def test_mtcnn_finds_no_face_where_there_is_none(size: tuple[int, int], mtcnn: MTCNN) -> None:
    assert mtcnn.detect([np.full((*size, 3), 128, np.uint8)]) == [[]]
