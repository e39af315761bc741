"""A float32 network → its convolutions in 8 bits: smaller numbers, almost the same function.

Weights become integers when the file is converted, one scale for each filter. What flows between the layers is rounded
to 256 steps as it runs; between which bounds, ``ranges.json`` says for each tensor: they were measured once
(``benchmarks/quantization.py``) and are shipped, so every machine makes the same file, with a digest a card can pin.

Weights use 7 of the 8 bits. Processors without VNNI add two products of bytes in 16 bits and cut off what does not fit;
with 7 bits it fits, so that a face has one embedding on all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ranges = Mapping[str, tuple[float, float]]

MOST: Final = 63
"""Of a weight, either side of zero."""
QUANTIZED: Final = ("Conv", "Gemm")


def ranges(recipe: str) -> Ranges:
    """Bounds of each tensor that is rounded, of the network of that recipe.

    Raises  KeyError when none were measured.
    """
    return _all_ranges()[recipe]


@cache
def _all_ranges() -> Mapping[str, Ranges]:
    text = resources.files("facedex.models.recipes").joinpath("ranges.json").read_text("utf-8")
    plain: dict[str, dict[str, list[float]]] = json.loads(text)
    return {recipe: {name: (low, high) for name, (low, high) in tensors.items()} for recipe, tensors in plain.items()}


def fold_batch_normalization(model: Any) -> Any:
    """Scale and shift of a normalization that follows a convolution, within the convolution's weights."""
    from onnx import helper, numpy_helper

    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    convolutions = {node.output[0]: node for node in model.graph.node if node.op_type == "Conv"}
    kept = []
    for node in model.graph.node:
        convolution = convolutions.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if convolution is None:
            kept.append(node)
            continue
        gamma, beta, mean, variance = (weights[name] for name in node.input[1:5])
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        scale = gamma / np.sqrt(variance + np.float32(epsilon))
        filters = weights[convolution.input[1]]
        bias = weights[convolution.input[2]] if len(convolution.input) > 2 else np.zeros(len(filters), np.float32)
        name = node.output[0]
        weights[f"{name}_filters"] = filters * scale[:, None, None, None]
        weights[f"{name}_bias"] = (bias - mean) * scale + beta
        attributes = {a.name: helper.get_attribute_value(a) for a in convolution.attribute}
        kept.remove(convolution)
        inputs = [convolution.input[0], f"{name}_filters", f"{name}_bias"]
        kept.append(helper.make_node("Conv", inputs, [name], name=name, **attributes))
    return _with(model, kept, weights)


def quantize(model: Any, bounds: Ranges) -> Any:
    """Round what goes into each convolution and matrix product, and their weights.

    bounds  low and high of each tensor that goes into one; see ``inputs_of``.
    Raises  KeyError for a tensor without bounds.
    """
    from onnx import helper, numpy_helper

    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes: list[Any] = []
    rounded: dict[str, str] = {}
    copy = type(model)()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if node.op_type in QUANTIZED:
            x, w = node.input[0], node.input[1]
            if x not in rounded:
                rounded[x] = f"{x}_rounded"
                low, high = min(0.0, bounds[x][0]), max(0.0, bounds[x][1])
                step = np.float32((high - low) / 255)
                weights[f"{x}_step"], weights[f"{x}_zero"] = step, np.uint8(round(-low / float(step)))
                scale = [f"{x}_step", f"{x}_zero"]
                nodes.append(helper.make_node("QuantizeLinear", [x, *scale], [f"{x}_code"]))
                nodes.append(helper.make_node("DequantizeLinear", [f"{x}_code", *scale], [rounded[x]]))
            codes, steps = _codes(weights[w])
            weights[f"{w}_code"], weights[f"{w}_step"] = codes, steps
            weights[f"{w}_zero"] = np.zeros(len(steps), np.int8)
            names = [f"{w}_code", f"{w}_step", f"{w}_zero"]
            nodes.append(helper.make_node("DequantizeLinear", names, [f"{w}_rounded"], axis=0))
            node.input[0], node.input[1] = rounded[x], f"{w}_rounded"
        nodes.append(node)
    return _with(model, nodes, weights)


def inputs_of(model: Any) -> list[str]:
    """The tensors that need bounds, each once, in order."""
    return list(dict.fromkeys(node.input[0] for node in model.graph.node if node.op_type in QUANTIZED))


def _codes(filters: Array) -> tuple[Array, Array]:
    """Integers and the step of each filter (axis 0)."""
    greatest = np.abs(filters).reshape(len(filters), -1).max(axis=1)
    steps = (np.maximum(greatest, np.float32(1e-20)) / np.float32(MOST)).astype(np.float32)
    scaled = filters / steps.reshape(-1, *[1] * (filters.ndim - 1))
    return np.clip(np.rint(scaled), -MOST, MOST).astype(np.int8), steps


def _with(model: Any, nodes: list[Any], weights: Mapping[str, Any]) -> Any:
    """The model with these nodes, and those of the weights that they read."""
    from onnx import numpy_helper

    result = type(model)()
    result.CopyFrom(model)
    read = {name for node in nodes for name in node.input}
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    del result.graph.initializer[:]
    result.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items() if name in read
    )
    del result.graph.value_info[:]
    return result
