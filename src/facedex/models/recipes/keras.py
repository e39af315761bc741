"""Networks saved by Keras as one HDF5 file: their layers are JSON inside it, their weights arrays.

A ``Lambda`` layer holds marshalled Python bytecode. It is never looked at: the Lambdas of the published networks
multiply by their argument ``scale``, and only such are accepted; the golden numbers show that this is what they do.
"""

from __future__ import annotations

import io
import json
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from facedex.models.recipes.network import Network

_Floats = npt.NDArray[np.float32]
_LINEAR: Final = frozenset({"BatchNormalization", "Lambda"})


def facenet(published: bytes) -> Any:
    """(N, 3, 160, 160) RGB 0…255 → (N, 128), not normalized: FaceNet (Inception-ResNet v1), pictures prewhitened.

    Prewhitening (each picture to mean 0 and deviation 1) is part of the converted network.

    Source  Schroff et al. 2015, doi:10.1109/CVPR.2015.7298682; prewhitening as the project FaceNet publishes it.
    Raises  ValueError or KeyError when the file is another network.
    """
    layers, weights = read(published)
    net, side = Network("facenet"), 160
    x = net.input("data", ("batch", 3, side, side))
    centred = net.add("Sub", x, net.add("ReduceMean", x, axes=[1, 2, 3]))
    variance = net.add("ReduceMean", net.add("Mul", centred, centred), axes=[1, 2, 3])
    # A flat picture would be divided by 0: its deviation counts as at least one over the root of its values.
    least = np.array(1 / np.sqrt(side * side * 3), np.float32)
    whitened = net.add("Div", centred, net.add("Max", net.add("Sqrt", variance), least))
    return translate(net, layers, weights, whitened, "embedding").model({"embedding": ("batch", 128)})


def read(published: bytes) -> tuple[list[dict[str, Any]], dict[str, list[_Floats]]]:
    """The layers of a functional model in order, and the weights of each by its name.

    Raises  ValueError or KeyError for a file that is no such model.
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(published), "r") as file:
            layers = json.loads(file.attrs["model_config"])["config"]["layers"]
            groups = file["model_weights"]
            weights = {
                layer["name"]: [
                    np.asarray(groups[layer["name"]][name]) for name in groups[layer["name"]].attrs["weight_names"]
                ]
                for layer in layers
            }
    except OSError as error:  # what h5py raises for bytes that are no HDF5
        raise ValueError(f"not an HDF5 file: {error}") from error
    return layers, weights


def translate(
    net: Network, layers: list[dict[str, Any]], weights: dict[str, list[_Floats]], x: str, output: str
) -> Network:
    """Add the layers to ``net``: the first takes ``x``, the last gives ``output``.

    Normalizations and scalings right behind a convolution or dense layer become part of its weights.
    """
    by_name = {layer["name"]: layer for layer in layers}
    followers: dict[str, list[str]] = {layer["name"]: [] for layer in layers}
    sources = {layer["name"]: [entry[0] for node in layer["inbound_nodes"] for entry in node] for layer in layers}
    for name, before in sources.items():
        for source in before:
            followers[source].append(name)
    values: dict[str, str] = {}
    for layer in layers:
        name, kind, config = layer["name"], layer["class_name"], layer["config"]
        if name in values:  # folded into the layer before
            continue
        given = [values[source] for source in sources[name]]
        chain = [name]
        if kind in ("Conv2D", "Dense"):
            while len(after := followers[chain[-1]]) == 1 and by_name[after[0]]["class_name"] in _LINEAR:
                chain.append(after[0])
            weight, bias = _folded([by_name[each] for each in chain], weights)
            named = None if followers[chain[-1]] else output
            result = _linear(net, kind, config, given[0], weight, bias, named)
        else:
            result = x if kind == "InputLayer" else _other(net, kind, config, given)
        values |= dict.fromkeys(chain, result)
    return net


def _folded(chain: list[dict[str, Any]], weights: dict[str, list[_Floats]]) -> tuple[_Floats, _Floats]:
    """Kernel and bias of a layer with the normalizations and scalings behind it; output channels last."""
    kernel, *rest = weights[chain[0]["name"]]
    bias = rest[0] if rest else np.zeros(kernel.shape[-1], np.float32)
    if chain[0]["config"]["activation"] != "linear":
        raise ValueError(f"{chain[0]['name']} has an activation of its own")
    for layer in chain[1:]:
        config = layer["config"]
        if layer["class_name"] == "Lambda":
            factor = np.float32(config["arguments"]["scale"])
            if len(config["arguments"]) != 1:
                raise ValueError(f"{layer['name']} does more than to scale")
            kernel, bias = kernel * factor, bias * factor
            continue
        arrays = iter(weights[layer["name"]])
        gamma = next(arrays) if config["scale"] else np.float32(1)
        beta = next(arrays) if config["center"] else np.float32(0)
        mean, variance = arrays
        factor = gamma / np.sqrt(variance + np.float32(config["epsilon"]))
        kernel, bias = kernel * factor, (bias - mean) * factor + beta
    return kernel, bias


def _linear(
    net: Network, kind: str, config: dict[str, Any], x: str, weight: _Floats, bias: _Floats, output: str | None
) -> str:
    if kind == "Dense":
        return net.add("Gemm", x, weight, bias, output=output)
    (stride, other), (height, width) = config["strides"], config["kernel_size"]
    same = config["padding"] == "same"
    if stride != other or config["dilation_rate"] != [1, 1] or config["groups"] != 1 or (same and stride != 1):
        raise ValueError(f"{config['name']} is a convolution of a kind no published network has")
    down, right = (height - 1, width - 1) if same else (0, 0)
    pads = [down // 2, right // 2, down - down // 2, right - right // 2]
    return net.convolution(x, weight.transpose(3, 2, 0, 1), bias, stride, pads)


def _other(net: Network, kind: str, config: dict[str, Any], given: list[str]) -> str:
    if kind == "Activation" and config["activation"] == "relu":
        return net.add("Relu", *given)
    if kind == "MaxPooling2D" and config["padding"] == "valid":
        return net.add("MaxPool", *given, kernel_shape=config["pool_size"], strides=config["strides"])
    if kind == "Concatenate" and config["axis"] == 3:
        return net.add("Concat", *given, axis=1)
    if kind == "Add":
        return net.add("Add", *given)
    if kind == "GlobalAveragePooling2D":
        return net.add("Flatten", net.add("GlobalAveragePool", *given))
    if kind == "Dropout" or (kind == "Activation" and config["activation"] == "linear"):
        return given[0]
    raise ValueError(f"a layer {kind} {config['name']!r} that no published network has")
