"""dlib's face recognition network (ResNet-34 with half the filters, 29 convolutions), from its ``.dat`` file.

The file is dlib's own serialization: the layers from the input outwards, each with its name, its sizes and its weights.
An integer is one byte with the number of bytes that follow (bit 7: the sign), least significant first; text is a length
and bytes; a tensor is a version, four sizes and little-endian float32. What lies between the layers' weights (learning
rates, empty gradients) is passed over by looking for the next layer's name.

Source  dlib's documented example ``dnn_face_recognition_ex``; He et al. 2016, doi:10.1109/CVPR.2016.90.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from facedex.models.recipes.network import Network

SIZE: Final = 150
MEAN: Final = (122.782, 117.001, 104.298)  # of red, green and blue in dlib's ``input_rgb_image_sized``
BLOCKS: Final = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
"""Filters, number of residual blocks, and whether the first of them halves height and width."""

_Floats = npt.NDArray[np.float32]


class DatFile:
    """Reads a ``.dat`` from its start to its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def find(self, layer: str) -> None:
        """Move behind the next occurrence of a layer's name.

        Raises  ValueError when there is none.
        """
        name = bytes([1, len(layer)]) + layer.encode()
        self._at = self._data.index(name, self._at) + len(name)

    def integer(self) -> int:
        """The next integer."""
        control = self._data[self._at]
        size = control & 0x0F
        if control & 0x70 or not 0 < size <= 8:
            raise ValueError(f"no integer at byte {self._at}")
        value = int.from_bytes(self._data[self._at + 1 : self._at + 1 + size], "little")
        self._at += 1 + size
        return -value if control & 0x80 else value

    def tensor(self) -> _Floats:
        """The next tensor, flat."""
        version, *sizes = (self.integer() for _ in range(5))
        count = math.prod(sizes)
        if version != 2 or not 0 < count <= len(self._data) // 4:
            raise ValueError(f"no tensor at byte {self._at}")
        values = np.frombuffer(self._data, "<f4", count, self._at)
        self._at += 4 * count
        return values

    def convolution(self, channels: int) -> tuple[_Floats, _Floats, int, int]:
        """The next convolution with the affine layer behind it, as one.

        channels  of its input.
        Returns   weight (out, in, height, width), bias (out,), stride, padding.
        """
        self.find("con_4")
        values = self.tensor()
        filters, height, width, stride, _, padding, _ = (self.integer() for _ in range(7))
        weight = values[:-filters].reshape(filters, channels, height, width)
        bias = values[-filters:]
        self.find("affine_")
        gamma, beta = self.tensor().reshape(2, filters)
        return weight * gamma[:, None, None, None], bias * gamma + beta, stride, padding


def resnet(published: bytes) -> Any:
    """(N, 3, 150, 150) RGB 0…255 → (N, 128), not normalized: what dlib's network makes of an aligned chip.

    Raises  ValueError when the file is another network.
    """
    file, net = DatFile(published), Network("dlib-resnet")
    x = net.input("data", ("batch", 3, SIZE, SIZE))
    centred = net.add("Sub", x, np.array(MEAN, np.float32).reshape(1, 3, 1, 1))
    weight, bias, stride, padding = file.convolution(3)
    x = net.convolution(centred, weight / np.float32(256), bias, stride, padding)  # dlib divides by 256: exact
    x = net.add("MaxPool", net.add("Relu", x), kernel_shape=[3, 3], strides=[2, 2])
    channels, side = 32, ((SIZE - 7) // 2 + 1 - 3) // 2 + 1
    for filters, blocks, halves in BLOCKS:
        for block in range(blocks):
            x, side = _residual(net, file, x, channels, filters, side, halves and block == 0)
            channels = filters
    pooled = net.add("Flatten", net.add("GlobalAveragePool", x))
    file.find("fc_2")
    outputs, inputs = file.integer(), file.integer()
    net.add("MatMul", pooled, file.tensor().reshape(inputs, outputs), output="embedding")
    return net.model({"embedding": ("batch", outputs)})


def _residual(
    net: Network, file: DatFile, x: str, channels: int, filters: int, side: int, halve: bool
) -> tuple[str, int]:
    """Two convolutions beside the way straight on, added; the side of the result.

    Where a block halves the picture, the way straight on is an average over 2×2, and of different sizes dlib takes
    the larger for the sum and lets the smaller one be zero beyond its edge, in channels as in pixels.
    """
    weight, bias, stride, padding = file.convolution(channels)
    if stride != 1 + halve:
        raise ValueError(f"a convolution of stride {stride} where {1 + halve} was expected")
    y = net.add("Relu", net.convolution(x, weight, bias, stride, padding))
    weight, bias, _, padding_after = file.convolution(filters)
    y = net.convolution(y, weight, bias, 1, padding_after)
    if halve:
        straight, convolved = side // 2, (side + 2 * padding - 3) // 2 + 1
        x = net.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
        side = max(straight, convolved)
        x = _padded(net, x, filters - channels, side - straight)
        y = _padded(net, y, 0, side - convolved)
    return net.add("Relu", net.add("Add", x, y)), side


def _padded(net: Network, x: str, channels: int, pixels: int) -> str:
    """Zeros behind the last channel, and below and right of the last pixel."""
    if not channels and not pixels:
        return x
    return net.add("Pad", x, np.array([0, 0, 0, 0, 0, channels, pixels, pixels], np.int64))
