"""People, photos and galleries without weights: drawn faces that the synthetic models recognise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import facedex
from drawn import POLICY, Draw
from facedex.models.synthetic import SyntheticDetector, SyntheticEmbedder, draw_photo
from facedex.settings import Settings
from facedex.vision.pipeline import FacePipeline

pytest_plugins = ["servers.fixtures"]


@pytest.fixture(autouse=True, scope="session")
def nobodys_calibration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the developer calibrated for themselves decides nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEDEX_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """``draw("Ann/1.jpg", ANN)``: a photo of these people, below the test's folder."""

    def to_file(path: str, *people: int, variation: float = 0.0, seed: int = 0, **drawing: Any) -> Path:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_photo(people, variation=variation, seed=seed, **drawing)).save(target, quality=92)
        return target

    return to_file


@pytest.fixture
def engine() -> facedex.Engine:
    return facedex.Engine(FacePipeline(SyntheticDetector(), SyntheticEmbedder()), policy=POLICY, settings=Settings())


@pytest.fixture(params=["memory", "sqlite"])
def gallery(request: pytest.FixtureRequest, engine: facedex.Engine, tmp_path: Path) -> Iterator[facedex.Gallery]:
    with engine.open("memory://" if request.param == "memory" else tmp_path / "faces.db") as opened:
        yield opened
