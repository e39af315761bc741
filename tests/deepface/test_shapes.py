"""Answers have the keys and types of DeepFace's own, recorded from it (golden/PROVENANCE.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drawn import ANN, BOB, Draw
from facedex import DeepFace
from tests.deepface.golden.shapes import answers, parameters

GOLDEN = json.loads((Path(__file__).parent / "golden" / "deepface-0.0.103.json").read_text("utf-8"))

# Ours are plain Python numbers and strings where DeepFace's are, in places, NumPy's.
PLAIN = {"float64": "float", "int64": "int", "str_": "str"}

OTHER_DEFAULTS = {"model_name", "detector_backend", "database_type", "actions"}
"""Parameters whose default differs; docs/deepface.md says why."""


def plain(shape: Any) -> Any:
    if isinstance(shape, dict):
        if set(shape) & {"DataFrame", "ndarray"}:
            return shape
        return {key: plain(value) for key, value in shape.items()}
    return PLAIN.get(shape, shape) if isinstance(shape, str) else shape


def test_answers_have_deepfaces_keys_and_types(draw: Draw) -> None:
    pytest.importorskip("faiss", reason="the extra facedex[ann] is not installed")
    one, two, other = (str(draw(f"{n}.jpg", who, variation=0.5, seed=n)) for n, who in enumerate((ANN, ANN, BOB), 1))
    ours = answers(DeepFace, one, two, other)
    where = ours["identify"]["facial_areas"]
    assert where.pop("img2") == dict.fromkeys("xywh", "int"), "DeepFace has None here; we know where the face was"
    theirs = GOLDEN | {
        "identify": {**GOLDEN["identify"], "facial_areas": {"img1": GOLDEN["represent"]["list"]["facial_area"]}}
    }
    for name, shape in ours.items():
        assert plain(shape) == plain(theirs[name]), name


@pytest.mark.parametrize("name", [name for name in GOLDEN["parameters"] if hasattr(DeepFace, name)])
def test_parameters_come_in_deepfaces_order_with_its_defaults(name: str) -> None:
    theirs = GOLDEN["parameters"][name]
    ours = parameters(DeepFace)[name]
    assert [each[0] for each in ours[: len(theirs)]] == [each[0] for each in theirs]
    differing = {mine[0] for mine, yours in zip(ours, theirs, strict=False) if mine[1] != yours[1]}
    assert differing <= OTHER_DEFAULTS
    assert all(default is not None for _, default in ours[len(theirs) :]), "what is added may be left out"


def test_distances_are_deepfaces() -> None:
    for metric, distance in GOLDEN["find_distance"].items():
        assert DeepFace.find_distance([1.0, 2.0, 3.0], [3.0, 1.0, -1.0], metric) == distance
