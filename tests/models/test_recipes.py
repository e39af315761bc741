"""Readers of published weights: what they read, and what they refuse. Golden numbers are in tests/vision."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest

from facedex.errors import LicenceUnstated, ModelInvalid
from facedex.models import catalog, convert, files, weights
from facedex.models.recipes import dlib, keras, torch
from facedex.models.recipes.network import Network
from facedex.models.runtime import Model


def run(net: Network, shape: tuple[int | str, ...], feed: np.ndarray, folder: Path) -> np.ndarray:
    model = net.model({"out": shape})
    onnx.checker.check_model(model, full_check=True)
    (folder / "net.onnx").write_bytes(convert.serialize(model))
    return Model.load(folder / "net.onnx", threads=1).run({"data": feed})["out"]


@pytest.mark.parametrize(
    "recipe",
    ["dlib-resnet", "facenet", "mtcnn", "mtcnn-proposal", "mtcnn-refinement"],
)
@pytest.mark.parametrize(
    "junk", [b"", b"junk" * 100, b"\x00" * 1000, pickle.dumps([1, 2])], ids=["empty", "text", "zeros", "pickle"]
)
def test_what_is_not_the_published_file_is_refused(recipe: str, junk: bytes) -> None:
    with pytest.raises(ModelInvalid, match=recipe):
        convert.convert(recipe, junk)


# dlib


def test_integers_of_a_dat_file() -> None:
    file = dlib.DatFile(bytes([1, 7, 2, 0x80, 0x12, 0x81, 5, 1, 0]))
    assert [file.integer() for _ in range(4)] == [7, 0x1280, -5, 0]


def test_a_tensor_of_a_dat_file_follows_its_sizes() -> None:
    data = b"\x01\x03con" + bytes([1, 2, 1, 1, 1, 2, 1, 1, 1, 1]) + struct.pack("<2f", 1.5, -2)
    file = dlib.DatFile(data)
    file.find("con")
    assert file.tensor().tolist() == [1.5, -2]


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x09\x00", b"\x71\x00"], ids=["end", "cut", "nine bytes", "text"])
def test_what_is_no_integer_is_an_error(data: bytes) -> None:
    file = dlib.DatFile(data)
    with pytest.raises((ValueError, IndexError)):
        _ = file.integer(), file.integer()


# PyTorch


def pt_file(*pickles: Any, behind: bytes = b"") -> bytes:
    head = [torch.MAGIC, torch.FORMAT, {"little_endian": True}]
    return b"".join(pickle.dumps(each, 2) for each in [*head, *pickles]) + behind


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_calls_functions_is_refused_and_calls_none(tmp_path: Path) -> None:
    bait = tmp_path / "touched"
    with pytest.raises(ValueError, match=r"asks for \w+\.mkdir"):
        torch.read(pt_file(OrderedDict(a=Harmful(bait)), []))
    assert not bait.exists()


def test_a_file_without_tensors_is_an_empty_dictionary() -> None:
    assert torch.read(pt_file(OrderedDict(), [])) == {}


@pytest.mark.parametrize(
    "data", [pt_file(), pt_file(OrderedDict(), ["key"]), pickle.dumps(5)], ids=["cut", "a lost storage", "a number"]
)
def test_half_a_file_of_tensors_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        torch.read(data)


def test_a_tensor_that_reaches_beyond_its_bytes_is_refused() -> None:
    storage = {"0": np.arange(6, dtype=np.float32)}
    assert torch._Tensor("0", 0, (2, 3), (1, 2)).array(storage).tolist() == [[0, 2, 4], [1, 3, 5]]
    for offset, size, stride in (
        (1, (2, 3), (3, 1)),
        (0, (7,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (0,), (1,)),
    ):
        with pytest.raises(ValueError, match="beyond"):
            torch._Tensor("0", offset, size, stride).array(storage)


# Keras


def layer(kind: str, name: str, *before: str, **config: Any) -> dict[str, Any]:
    return {
        "class_name": kind,
        "name": name,
        "config": {"name": name, **config},
        "inbound_nodes": [[[source, 0, 0, {}] for source in before]] if before else [],
    }


CONVOLUTION = {"strides": [1, 1], "kernel_size": [3, 3], "padding": "same", "dilation_rate": [1, 1], "groups": 1}
LINEAR = {"activation": "linear"}
NORM = {"epsilon": 0.001, "scale": False, "center": True}


def test_layers_of_keras_give_the_same_numbers_as_their_definition(tmp_path: Path) -> None:
    """A convolution, normalized and scaled; beside it the way straight on; added, bent, averaged, multiplied."""
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(3, 3, 2, 2)).astype(np.float32), rng.normal(size=2).astype(np.float32)
    beta, mean, variance = (rng.uniform(0.5, 1, 2).astype(np.float32) for _ in range(3))
    dense = rng.normal(size=(2, 4)).astype(np.float32)
    layers = [
        layer("InputLayer", "in"),
        layer("Conv2D", "conv", "in", **CONVOLUTION, **LINEAR),
        layer("BatchNormalization", "norm", "conv", **NORM),
        layer("Lambda", "scaled", "norm", arguments={"scale": 0.5}),
        layer("Add", "sum", "in", "scaled"),
        layer("Activation", "relu", "sum", activation="relu"),
        layer("GlobalAveragePooling2D", "mean", "relu"),
        layer("Dropout", "drop", "mean"),
        layer("Dense", "dense", "drop", **LINEAR),
    ]
    given = {"conv": [kernel, bias], "norm": [beta, mean, variance], "dense": [dense]}
    net = Network("net")
    keras.translate(net, layers, given, net.input("data", ("n", 2, 5, 6)), "out")
    x = rng.normal(size=(3, 2, 5, 6)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    convolved = np.zeros((3, 2, 5, 6))
    for row in range(3):
        for column in range(3):
            convolved += np.einsum(
                "nchw,cd->ndhw", padded[:, :, row : row + 5, column : column + 6], kernel[row, column]
            )
    normal = (convolved + bias[:, None, None] - mean[:, None, None]) / np.sqrt(variance + 0.001)[:, None, None]
    bent = np.maximum(x + 0.5 * (normal + beta[:, None, None]), 0)
    np.testing.assert_allclose(run(net, ("n", 4), x, tmp_path), bent.mean(axis=(2, 3)) @ dense, atol=1e-5)


@pytest.mark.parametrize(
    "strange",
    [
        layer("Lambda", "code", "in", arguments={"scale": 2.0}),
        layer("LSTM", "memory", "in"),
        layer("Conv2D", "conv", "in", **(CONVOLUTION | {"strides": [2, 2]}), **LINEAR),
        layer("Conv2D", "conv", "in", **CONVOLUTION, activation="gelu"),
    ],
    ids=["code by itself", "another layer", "padding while striding", "an activation inside"],
)
def test_layers_that_no_published_network_has_are_refused(strange: dict[str, Any]) -> None:
    net = Network("net")
    kernel = {strange["name"]: [np.zeros((3, 3, 2, 2), np.float32)]}
    with pytest.raises(ValueError, match=strange["name"]):
        keras.translate(net, [layer("InputLayer", "in"), strange], kernel, net.input("data", ("n", 2, 5, 5)), "out")


def test_an_hdf5_file_of_something_else_is_refused() -> None:
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        file.attrs["model_config"] = json.dumps({"config": {"layers": []}})
    with pytest.raises(ModelInvalid, match="facenet"):
        convert.convert("facenet", data.getvalue())


# Licences


def test_weights_without_a_stated_licence_are_fetched_for_nobody_who_did_not_accept_it(
    tmp_path: Path, no_registry: Path
) -> None:
    with pytest.raises(LicenceUnstated, match="--accept-unstated-licence"):
        weights.pull(["facenet"], tmp_path / "models")
    assert not list((tmp_path / "models").glob("*.onnx"))


def test_all_models_means_those_with_a_stated_licence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr(weights, "ensure", lambda card, *_, **__: asked.append(card.name) or tmp_path)
    weights.pull(models_dir=tmp_path)
    assert set(asked) == {card.name for card in catalog.CARDS if card.licence != catalog.UNSTATED}
    assert "facenet" not in asked


def test_a_model_brings_those_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "ensure", lambda card, *_, **__: files.folder(tmp_path) / card.name)
    assert set(weights.pull(["mtcnn"], tmp_path)) == {"mtcnn", "mtcnn-proposal", "mtcnn-refinement"}
