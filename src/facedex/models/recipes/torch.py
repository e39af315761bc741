"""MTCNN's three small networks, from the ``.pt`` files that the wheel facenet-pytorch carries.

Such a file is a series of pickles and, behind them, the bytes of the weights. A pickle may call any function it names;
here it may name two: an ordered dictionary, and a tensor made of its bytes. Whatever else it asks for is refused.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from facedex.models.recipes.network import Network

MAGIC: Final = 0x1950A86A20F9469CFC6C
FORMAT: Final = 1001

_Weights = dict[str, npt.NDArray[Any]]


def proposal(published: bytes) -> Any:
    """P-Net: (N, 3, H, W) RGB 0…255 → at each stride of 2 pixels, ``face`` (N, 1, h, w) and ``shift`` (N, 4, h, w)."""
    weights, net = read(published), Network("mtcnn-proposal")
    x = _prelu(net, weights, 1, _entry(net, weights, ("height", "width")))
    x = _pool(net, x, 2)
    for layer in (2, 3):
        x = _prelu(net, weights, layer, _convolution(net, weights, f"conv{layer}", x))
    both = net.add("Softmax", _convolution(net, weights, "conv4_1", x), axis=1)
    net.add("Slice", both, _one(1), _one(2), _one(1), output="face")
    net.add("Identity", _convolution(net, weights, "conv4_2", x), output="shift")
    return net.model({"face": ("batch", 1, "rows", "columns"), "shift": ("batch", 4, "rows", "columns")})


def refinement(published: bytes) -> Any:
    """R-Net: (N, 3, 24, 24) RGB 0…255 → ``face`` (N, 1), ``shift`` (N, 4)."""
    weights, net = read(published), Network("mtcnn-refinement")
    x = _pool(net, _prelu(net, weights, 1, _entry(net, weights, (24, 24))), 3)
    x = _pool(net, _prelu(net, weights, 2, _convolution(net, weights, "conv2", x)), 3)
    x = _prelu(net, weights, 3, _convolution(net, weights, "conv3", x))
    x = _flat(net, weights, "dense4", "prelu4", x)
    return _answers(net, weights, x, {"face": "dense5_1", "shift": "dense5_2"})


def output(published: bytes) -> Any:
    """O-Net: (N, 3, 48, 48) RGB 0…255 → ``face`` (N, 1), ``shift`` (N, 4), ``points`` (N, 10): five x, then five y."""
    weights, net = read(published), Network("mtcnn")
    x = _pool(net, _prelu(net, weights, 1, _entry(net, weights, (48, 48))), 3)
    x = _pool(net, _prelu(net, weights, 2, _convolution(net, weights, "conv2", x)), 3)
    x = _pool(net, _prelu(net, weights, 3, _convolution(net, weights, "conv3", x)), 2)
    x = _prelu(net, weights, 4, _convolution(net, weights, "conv4", x))
    x = _flat(net, weights, "dense5", "prelu5", x)
    return _answers(net, weights, x, {"face": "dense6_1", "shift": "dense6_2", "points": "dense6_3"})


def read(published: bytes) -> _Weights:
    """Name → array of a file that PyTorch wrote before version 1.6.

    Raises  ValueError for another format, or a pickle that wants more than tensors.
    """
    file = io.BytesIO(published)
    try:
        if _Reader(file).load() != MAGIC or _Reader(file).load() != FORMAT:
            raise ValueError("not a file that PyTorch wrote before version 1.6")
        _Reader(file).load()  # what machine wrote it
        reader = _Reader(file)
        tensors = reader.load()
        for key in _Reader(file).load():
            kind, count = reader.storages[key]
            if int.from_bytes(file.read(8), "little") != count:
                raise ValueError(f"storage {key} has another length than its tensors say")
            reader.arrays[key] = np.frombuffer(file.read(count * kind.itemsize), kind)
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError) as error:
        raise ValueError(f"not a file of weights: {error}") from error
    return {name: tensor.array(reader.arrays) for name, tensor in tensors.items()}


class _Tensor:
    """A tensor before its bytes are read."""

    def __init__(self, key: str, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> None:
        self.key, self.offset, self.size, self.stride = key, offset, size, stride

    def array(self, storages: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        storage = storages[self.key]
        steps = [(side - 1) * step for side, step in zip(self.size, self.stride, strict=True)]
        if min((*self.size, *self.stride, self.offset + 1)) < 1 or self.offset + sum(steps) >= len(storage):
            raise ValueError(f"a tensor of {self.size} reaches beyond its bytes")
        strides = [step * storage.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(storage[self.offset :], self.size, strides).copy()


class _Reader(pickle.Unpickler):
    """Unpickles dictionaries of tensors and nothing else."""

    ALLOWED: Final[dict[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
        ("torch", "FloatStorage"): np.dtype("<f4"),
        ("torch", "LongStorage"): np.dtype("<i8"),
    }

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, tuple[np.dtype[Any], int]] = {}
        self.arrays: dict[str, npt.NDArray[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            self._refuse(f"the pickle asks for {module}.{name}")

    def persistent_load(self, told: Any) -> str:
        kind, dtype, key, _, count, view = told
        if kind != "storage" or view is not None:
            self._refuse(f"the pickle asks for a {kind!r}")
        self.storages[key] = (dtype, count)
        return str(key)

    @staticmethod
    def _refuse(what: str) -> NoReturn:
        raise pickle.UnpicklingError(f"{what}, which weights do not need")


def _entry(net: Network, weights: _Weights, size: tuple[int | str, int | str]) -> str:
    """The input, scaled to −1…1 by the first convolution: (x − 127.5) / 128, an exact division."""
    x = net.add("Sub", net.input("data", ("batch", 3, *size)), np.array(127.5, np.float32))
    return net.convolution(x, weights["conv1.weight"] / np.float32(128), weights["conv1.bias"])


def _convolution(net: Network, weights: _Weights, name: str, x: str) -> str:
    return net.convolution(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _prelu(net: Network, weights: _Weights, layer: int, x: str) -> str:
    return net.add("PRelu", x, weights[f"prelu{layer}.weight"].reshape(-1, 1, 1))


def _pool(net: Network, x: str, side: int) -> str:
    return net.add("MaxPool", x, kernel_shape=[side, side], strides=[2, 2], ceil_mode=1)


def _flat(net: Network, weights: _Weights, dense: str, prelu: str, x: str) -> str:
    """A dense layer on a picture read column by column, as the original framework laid it out."""
    flat = net.add("Flatten", net.add("Transpose", x, perm=[0, 3, 2, 1]))
    return net.add("PRelu", _dense(net, weights, dense, flat), weights[f"{prelu}.weight"])


def _dense(net: Network, weights: _Weights, name: str, x: str, named: str | None = None) -> str:
    return net.add("Gemm", x, weights[f"{name}.weight"], weights[f"{name}.bias"], transB=1, output=named)


def _answers(net: Network, weights: _Weights, x: str, layers: dict[str, str]) -> Any:
    """The last layers: of the two probabilities of ``face``, the second."""
    sizes: dict[str, tuple[int | str, ...]] = {}
    for name, layer in layers.items():
        if name == "face":
            both = net.add("Softmax", _dense(net, weights, layer, x), axis=1)
            net.add("Slice", both, _one(1), _one(2), _one(1), output=name)
        else:
            _dense(net, weights, layer, x, name)
        sizes[name] = ("batch", 1 if name == "face" else len(weights[f"{layer}.bias"]))
    return net.model(sizes)


def _one(value: int) -> npt.NDArray[np.int64]:
    return np.array([value], np.int64)
