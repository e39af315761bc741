"""Rewrite published weights, once, into files ONNX Runtime runs well. Same function, other operators.

Each step takes a model and returns a new one; none changes what the network computes beyond float rounding:

``fold_dequantization``  block-quantized weights to float32. ONNX Runtime refuses the SFace file as published: its
                         weights are listed as graph inputs and one block-quantized tensor is a bias.
``rewrite_prelu``        PReLU(x) = a·x + (1 − a)·relu(x), as two depthwise 1×1 convolutions. ONNX Runtime has no fast
                         PReLU kernel and leaves its blocked layout around each one: more than half the time of SFace.
``free_dimensions``      a fixed batch, height or width to any.

Weights published in formats that are no ONNX are read and written as a network by ``recipes``, one module a format.

The bytes of a conversion are the same on every machine: elementwise IEEE float32 arithmetic only, and protobuf fields
in order. So the result has a digest that the catalog pins. ``onnx`` is imported only when converting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, ModelInvalid
from facedex.models.recipes import dlib, emotion, keras, quantize, torch

_Array = npt.NDArray[Any]
IR_VERSION: Final = 10  # of ONNX 1.16, the one that goes with opset 21; every supported ONNX Runtime reads it


def convert(recipe: str, published: bytes) -> bytes:
    """Convert a published file by the recipe its card names.

    published  the bytes of the published file.
    Returns    the bytes of the converted ONNX file; equal input gives equal bytes.
    Raises     ArgumentInvalid for a recipe that does not exist, ModelInvalid for bytes that are not such a model.
    """
    try:
        steps = RECIPES[recipe]
    except KeyError:
        raise ArgumentInvalid(
            f"no conversion is called {recipe!r}; there are {', '.join(RECIPES)}", recipe=recipe
        ) from None
    try:
        return serialize(steps(published))
    except (KeyError, IndexError, ValueError, StopIteration) as error:
        raise ModelInvalid(
            f"the file is not the model that the conversion {recipe!r} is for ({error!r}); "
            "use the published file the catalog names",
            recipe=recipe,
        ) from error


def parse(data: bytes) -> Any:
    """An ``onnx.ModelProto`` from bytes.

    Raises  ModelInvalid when they are not ONNX.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own class, or another one, by its version
        raise ModelInvalid(f"not an ONNX file ({len(data)} bytes): {error}", bytes=len(data)) from error
    if not model.graph.node:
        raise ModelInvalid(f"an ONNX file without a graph ({len(data)} bytes)", bytes=len(data))
    return model


def serialize(model: Any) -> bytes:
    """The bytes of a model, the same for equal models on every machine."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def fold_dequantization(model: Any) -> Any:
    """Turn constant ``DequantizeLinear`` nodes, and reshapes of their results, into float32 weights.

    Also drops what inference has no use for: ``Dropout`` nodes, and weights listed as graph inputs, which ONNX Runtime
    would ask the caller for, or at least not fold.
    """
    from onnx import numpy_helper

    result = _copy(model)
    graph = result.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    folded: dict[str, _Array] = {}
    renamed: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and all(name in stored for name in node.input):
            tensors = [numpy_helper.to_array(stored[name]) for name in node.input]
            folded[node.output[0]] = _dequantize(*tensors, axis=_integer(node, "axis", 1), block=_block(node))
        elif node.op_type == "Reshape" and node.input[0] in folded:
            shape = numpy_helper.to_array(stored[node.input[1]])
            folded[node.output[0]] = folded[node.input[0]].reshape([int(side) for side in shape])
        elif node.op_type == "Dropout":
            renamed[node.output[0]] = renamed.get(node.input[0], node.input[0])
        else:
            nodes.append(node)
    for node in nodes:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
    read = {name for node in nodes for name in node.input}
    nodes = [node for node in nodes if node.op_type != "Constant" or node.output[0] in read]
    weights = [tensor for tensor in graph.initializer if tensor.name in read]
    weights += [numpy_helper.from_array(value, name) for name, value in folded.items() if name in read]
    inputs = [entry for entry in graph.input if entry.name in read - folded.keys() - stored.keys()]
    _replace(graph.input, inputs)
    return _rebuilt(result, nodes, weights)


def rewrite_prelu(model: Any) -> Any:
    """Write each ``PRelu`` with one slope per channel as a·x + (1 − a)·relu(x), by depthwise 1×1 convolutions.

    x is (N, C, H, W); a PRelu whose slope is not C constants is left alone.
    """
    from onnx import helper, numpy_helper

    result = _copy(model)
    graph = result.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    slopes = []
    for node in graph.node:
        slope = numpy_helper.to_array(stored[node.input[1]]) if node.op_type == "PRelu" else None
        if slope is None or slope.ndim != 3 or slope.shape[1:] != (1, 1):
            nodes.append(node)
            continue
        x, y = node.input[0], node.output[0]
        channels = slope.shape[0]
        a = slope.astype(np.float32).reshape(channels, 1, 1, 1)
        slopes += [
            numpy_helper.from_array(a, f"{y}_slope"),
            numpy_helper.from_array(np.float32(1) - a, f"{y}_one_minus_slope"),
        ]
        depthwise = {"group": channels, "kernel_shape": [1, 1]}
        nodes += [
            helper.make_node("Relu", [x], [f"{y}_positive"]),
            helper.make_node("Conv", [x, f"{y}_slope"], [f"{y}_linear"], **depthwise),
            helper.make_node("Conv", [f"{y}_positive", f"{y}_one_minus_slope"], [f"{y}_bend"], **depthwise),
            helper.make_node("Add", [f"{y}_linear", f"{y}_bend"], [y]),
        ]
    read = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in read] + slopes
    return _rebuilt(result, nodes, weights)


def free_dimensions(model: Any, names: Mapping[int, str]) -> Any:
    """Make axes of the one input any size; the batch axis (0) of the outputs follows.

    names  axis of the input → name of the now free dimension, such as ``{0: "batch"}``.

    A ``Reshape`` to constant (1, …) becomes one to (0, …), which ONNX reads as "this axis as it was". The other axes
    of the outputs lose their fixed size when height or width is freed.
    """
    from onnx import numpy_helper

    result = _copy(model)
    graph = result.graph
    (entry,) = graph.input
    for axis, name in names.items():
        entry.type.tensor_type.shape.dim[axis].dim_param = name
    spatial = any(axis > 1 for axis in names)
    for output in graph.output:
        dimensions = output.type.tensor_type.shape.dim
        dimensions[0].dim_param = names.get(0, "batch")
        if spatial:
            dimensions[1].dim_param = f"{output.name}_anchors"
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    weights = []
    for tensor in graph.initializer:
        if tensor.name in shapes:
            shape = numpy_helper.to_array(tensor).copy()
            if shape[0] == 1:
                shape[0] = 0
            weights.append(numpy_helper.from_array(shape, tensor.name))
        else:
            weights.append(tensor)
    return _rebuilt(result, list(graph.node), weights)


def _yunet(published: bytes) -> Any:
    return free_dimensions(parse(published), {0: "batch", 2: "height", 3: "width"})


def _sface(published: bytes) -> Any:
    return free_dimensions(rewrite_prelu(fold_dequantization(parse(published))), {0: "batch"})


def sface_folded(published: bytes) -> Any:
    """SFace for rounding: with its PReLU nodes, which OpenVINO has in 8 bits, and no normalization of its own."""
    return quantize.fold_batch_normalization(free_dimensions(fold_dequantization(parse(published)), {0: "batch"}))


def _sface_int8(published: bytes) -> Any:
    return quantize.quantize(sface_folded(published), quantize.ranges("sface-int8"))


def _dlib_int8(published: bytes) -> Any:
    return quantize.quantize(dlib.resnet(published), quantize.ranges("dlib-resnet-int8"))


RECIPES: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "yunet": _yunet,
    "sface": _sface,
    "sface-int8": _sface_int8,
    "dlib-resnet": dlib.resnet,
    "dlib-resnet-int8": _dlib_int8,
    "facenet": keras.facenet,
    "mtcnn": lambda published: rewrite_prelu(torch.output(published)),
    "mtcnn-proposal": lambda published: rewrite_prelu(torch.proposal(published)),
    "mtcnn-refinement": lambda published: rewrite_prelu(torch.refinement(published)),
    "fer-emotion": emotion.mini_xception,
    "as-published": parse,
}
"""Name of a recipe → published bytes to the converted ``onnx.ModelProto``."""


def _dequantize(quantized: _Array, scales: _Array, zeros: _Array | None = None, *, axis: int, block: int) -> _Array:
    """(q − zero) · scale, one scale per ``block`` values along ``axis`` (ONNX DequantizeLinear-21)."""
    if block == 0 and scales.ndim == 1 and quantized.ndim > 1:
        raise ValueError("per-axis dequantization is not part of any published file")
    size = quantized.shape[axis] if quantized.ndim else 1

    def spread(values: _Array) -> _Array:
        if block == 0:
            return values
        return np.take(np.repeat(values, block, axis=axis), np.arange(size), axis=axis)

    steps = quantized.astype(np.float32)
    if zeros is not None:
        steps = steps - spread(zeros).astype(np.float32)
    return np.asarray(steps * spread(scales).astype(np.float32), dtype=np.float32)


def _integer(node: Any, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def _block(node: Any) -> int:
    return _integer(node, "block_size", 0)


def _copy(model: Any) -> Any:
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def _replace(field: Any, values: list[Any]) -> None:
    copies = [type(value).FromString(value.SerializeToString(deterministic=True)) for value in values]
    del field[:]
    field.extend(copies)


def _rebuilt(model: Any, nodes: list[Any], weights: list[Any]) -> Any:
    """The model with these nodes and weights; intermediate shapes are dropped, since they name the old sizes."""
    _replace(model.graph.node, nodes)
    _replace(model.graph.initializer, weights)
    del model.graph.value_info[:]
    model.ir_version = max(int(model.ir_version), IR_VERSION)
    model.producer_name = "facedex"
    model.producer_version = "1"
    return model
