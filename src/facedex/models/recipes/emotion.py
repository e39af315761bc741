"""The emotion network of the package ``fer``, a small Xception, from the HDF5 file Keras saved it in.

Two convolutions, four blocks of separable convolutions beside a convolution of stride 2, and a mean over the picture;
each convolution has a batch normalization behind it, which becomes part of its weights.

Source  Arriaga, Plöger, Valdenegro 2017, arXiv:1710.07557 (mini-Xception), trained on FER-2013.
"""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from facedex.models.recipes.network import Network

SIZE: Final = 64
_EPSILON: Final = np.float32(1e-3)
_CLASSES: Final = 7
_BLOCKS: Final = ((1, 3, 3), (3, 4, 6), (5, 5, 9), (7, 6, 12))
"""Numbers in Keras' names: of the block's first separable convolution, the convolution beside it, and the normalization
of the latter, behind which those of the former follow."""

_Floats = npt.NDArray[np.float32]


def mini_xception(published: bytes) -> Any:
    """(N, 1, 64, 64) gray −1…1 → (N, 7) probabilities.

    Raises  KeyError or ValueError when the file is another network.
    """
    weights, net = _arrays(published), Network("fer-emotion")
    x = net.input("data", ("batch", 1, SIZE, SIZE))
    side = SIZE
    for number in (1, 2):
        weight, bias = _normalized(weights, _kernel(weights[f"conv2d_{number}"]["kernel"]), number)
        x, side = net.add("Relu", net.convolution(x, weight, bias)), side - 2
    for separable, beside, normalization in _BLOCKS:
        weight, bias = _normalized(weights, _kernel(weights[f"conv2d_{beside}"]["kernel"]), normalization)
        straight = net.convolution(x, weight, bias, stride=2)
        x = net.add("Relu", _separable(net, weights, x, separable, normalization + 1))
        x = _separable(net, weights, x, separable + 1, normalization + 2)
        before = side % 2  # Keras' "same" for a stride of 2: an even side is padded behind only
        x = net.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[before, before, 1, 1])
        x, side = net.add("Add", x, straight), -(-side // 2)
    last = weights["conv2d_7"]
    x = net.convolution(x, _kernel(last["kernel"]), last["bias"], pads=1)
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    net.add("Softmax", x, output="probabilities", axis=1)
    return net.model({"probabilities": ("batch", _CLASSES)})


def _arrays(published: bytes) -> dict[str, dict[str, _Floats]]:
    """Layer → name → array. Only arrays are read; code that a model saved by Keras may hold is never looked at."""
    import h5py

    found: dict[str, dict[str, _Floats]] = {}

    def keep(path: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset):
            layer, *_, name = path.split("/")
            found.setdefault(layer, {})[name.removesuffix(":0")] = np.asarray(entry, np.float32)

    try:
        with h5py.File(io.BytesIO(published), "r") as file:
            file["model_weights"].visititems(keep)
    except OSError as error:  # what h5py raises for bytes that are no HDF5
        raise ValueError(f"not an HDF5 file: {error}") from error
    return found


def _kernel(kernel: _Floats) -> _Floats:
    """Keras' (height, width, in, out) as ONNX has it: (out, in, height, width)."""
    return kernel.transpose(3, 2, 0, 1)


def _normalized(weights: dict[str, dict[str, _Floats]], kernel: _Floats, number: int) -> tuple[_Floats, _Floats]:
    """Weight and bias of a convolution without bias and the batch normalization behind it."""
    entry = weights[f"batch_normalization_{number}"]
    factor = entry["gamma"] / np.sqrt(entry["moving_variance"] + _EPSILON)
    return kernel * factor[:, None, None, None], entry["beta"] - entry["moving_mean"] * factor


def _separable(net: Network, weights: dict[str, dict[str, _Floats]], x: str, number: int, normalization: int) -> str:
    """A convolution of each channel by itself, and one across them."""
    entry = weights[f"separable_conv2d_{number}"]
    depthwise = entry["depthwise_kernel"].transpose(2, 3, 0, 1)
    x = net.add("Conv", x, depthwise, group=len(depthwise), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    weight, bias = _normalized(weights, _kernel(entry["pointwise_kernel"]), normalization)
    return net.convolution(x, weight, bias)
