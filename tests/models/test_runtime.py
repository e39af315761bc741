"""The one door to the inference runtime."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as driver

from facedex.errors import ArgumentInvalid, ModelFailed, ModelInvalid, WeightsMissing
from facedex.models.runtime import PROVIDERS, Model, Port

DRIVER_ERRORS = sorted(
    (value for value in vars(driver).values() if isinstance(value, type) and issubclass(value, Exception)),
    key=lambda error: error.__name__,
)


@pytest.fixture
def path(network: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(network)
    return path


def test_a_model_says_what_it_takes_and_gives(path: Path) -> None:
    model = Model.load(path)
    assert model.inputs == (Port("data", (1, 2, 3, 3), "tensor(float)"),)
    assert model.outputs == (Port("out", (1, 2, 3, 3), "tensor(float)"),)
    assert model.threads >= 1


def test_arrays_go_in_and_come_out_by_name(path: Path) -> None:
    x = np.full((1, 2, 3, 3), -2, np.float32)
    out = Model.load(path, threads=1).run({"data": x})["out"]
    assert out[0, :, 0, 0].tolist() == [-0.5, 1.0]


@pytest.mark.parametrize(
    "feed",
    [
        {},
        {"other": np.zeros((1, 2, 3, 3), np.float32)},
        {"data": np.zeros((1, 2, 3, 4), np.float32)},
        {"data": np.zeros((1, 2, 3, 3), np.float64)},
        {"data": "text"},
    ],
    ids=["nothing", "another name", "another shape", "another dtype", "not an array"],
)
def test_a_model_given_other_inputs_says_which_it_has(path: Path, feed: dict[str, Any]) -> None:
    with pytest.raises(ModelInvalid, match="'data'"):
        Model.load(path, threads=1).run(feed)


@pytest.mark.parametrize("junk", [b"", b"text", b"\x00" * 1000], ids=["empty", "text", "zeros"])
def test_a_file_that_is_no_model_is_refused_in_silence(
    tmp_path: Path, junk: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(junk)
    with pytest.raises(ModelInvalid, match=r"junk\.onnx"):
        Model.load(path)
    assert capfd.readouterr() == ("", "")


def test_half_a_model_is_refused(tmp_path: Path, network: bytes) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(network[: len(network) // 2])
    with pytest.raises(ModelInvalid):
        Model.load(path)


def test_a_missing_file_is_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing):
        Model.load(tmp_path / "none.onnx")


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_than_one_thread_is_refused(path: Path, threads: int) -> None:
    with pytest.raises(ArgumentInvalid, match=str(threads)):
        Model.load(path, threads=threads)


def test_the_driver_has_errors_to_map() -> None:
    assert len(DRIVER_ERRORS) >= 5


@pytest.mark.parametrize("error", DRIVER_ERRORS, ids=lambda error: error.__name__)
def test_no_driver_error_leaks(error: type[Exception], path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("from the driver")

    session = SimpleNamespace(run=fail, get_inputs=list, get_outputs=list, get_providers=lambda: [PROVIDERS["cpu"]])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: session)
    refused = error.__name__ == "InvalidArgument"
    with pytest.raises(ModelInvalid if refused else ModelFailed, match="from the driver"):
        Model.load(path).run({})
    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(ModelInvalid, match="from the driver"):
        Model.load(path)


def test_many_threads_may_share_a_model(path: Path) -> None:
    model = Model.load(path, threads=1)

    def answer(number: int) -> bool:
        x = np.full((1, 2, 3, 3), number, np.float32)
        return bool((model.run({"data": x})["out"] == x).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(answer, range(200)))
