"""DeepFace's calls with drawn people, without weights, and nothing of them left open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import facedex
from drawn import POLICY
from facedex.deepface import database, models
from facedex.models.synthetic import SyntheticDetector, SyntheticEmbedder
from facedex.settings import DeepFaceSettings
from facedex.vision.pipeline import FacePipeline


@pytest.fixture(autouse=True)
def synthetic_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    detector, embedder = SyntheticDetector(), SyntheticEmbedder()

    def make(embedder_name: str, detector_name: str) -> facedex.Engine:
        finds = models.WholePhoto() if detector_name == "skip" else detector
        return facedex.Engine(FacePipeline(finds, embedder), policy=POLICY)

    monkeypatch.setattr(models, "_make", make)
    monkeypatch.setattr(models, "_engines", {})
    monkeypatch.setattr(database, "_open", {})
    for variable in ("DEEPFACE_DATABASE_TYPE", "DEEPFACE_CONNECTION_DETAILS", *DeepFaceSettings.VARIABLES.values()):
        monkeypatch.delenv(variable, raising=False)
    yield
    database._close()
