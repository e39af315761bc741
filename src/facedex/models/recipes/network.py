"""Write a network as ONNX, node by node: for published weights in formats that are none."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
OPSET: Final = 17
IR_VERSION: Final = 10


class Network:
    """An ONNX graph under construction: each call adds a node and returns the name of its result.

    Weights are float32 and laid out as ONNX wants them: (out, in, height, width) for convolutions.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._inputs: list[Any] = []
        self._count = 0

    def input(self, name: str, shape: tuple[int | str, ...]) -> str:
        """Declare an input; a string in the shape is an axis of any size."""
        self._inputs.append(_port(name, shape))
        return name

    def constant(self, value: Array) -> str:
        """Keep an array as a weight; float64 becomes float32."""
        from onnx import numpy_helper

        if value.dtype == np.float64:
            value = value.astype(np.float32)
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, *inputs: str | Array, output: str | None = None, **attributes: Any) -> str:
        """Any operator with one result; arrays among the inputs become weights."""
        from onnx import helper

        names = [self.constant(entry) if isinstance(entry, np.ndarray) else entry for entry in inputs]
        name = output or f"{operator.lower()}{self._count}"
        self._count += 1
        self._nodes.append(helper.make_node(operator, names, [name], name=name, **attributes))
        return name

    def convolution(self, x: str, weight: Array, bias: Array, stride: int = 1, pads: int | list[int] = 0) -> str:
        """A convolution; ``pads`` the same on all sides, or top, left, bottom, right."""
        around = [pads] * 4 if isinstance(pads, int) else pads
        kernel = list(weight.shape[2:])
        return self.add("Conv", x, weight, bias, kernel_shape=kernel, strides=[stride, stride], pads=around)

    def model(self, outputs: dict[str, tuple[int | str, ...]]) -> Any:
        """The finished model.

        outputs  name → shape; results of ``add`` that were named by ``output``.
        """
        from onnx import helper

        graph = helper.make_graph(
            self._nodes,
            self.name,
            self._inputs,
            [_port(name, shape) for name, shape in outputs.items()],
            self._weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model.producer_name, model.producer_version = "facedex", "1"
        return model


def _port(name: str, shape: tuple[int | str, ...]) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
