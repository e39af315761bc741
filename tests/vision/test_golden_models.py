"""Converted models against their original runtimes; see tests/golden/PROVENANCE.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facedex.errors import WeightsUnavailable
from facedex.vision.embedders import OnnxEmbedder, load_embedder

pytestmark = pytest.mark.weights

GOLDEN = Path(__file__).parent.parent / "golden"


def embedder(name: str) -> OnnxEmbedder:
    try:
        return load_embedder(name)
    except WeightsUnavailable as error:
        pytest.skip(f"no weights: {error.message}")


@pytest.mark.parametrize("name", ["dlib-resnet"])
def test_a_converted_embedder_answers_as_its_original_runtime_does(name: str) -> None:
    expected = json.loads((GOLDEN / name / "embeddings.json").read_text("utf-8"))
    crops = np.stack([np.asarray(Image.open(GOLDEN / name / f"{stem}.png")) for stem in expected])
    theirs = np.array(list(expected.values()))
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    ours = embedder(name).embed(crops)
    assert ours.shape == theirs.shape
    assert abs(ours - theirs).max() < 2e-6
