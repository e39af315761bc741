"""The one door to the inference runtime."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as driver

from facedex.errors import (
    ArgumentInvalid,
    ModelFailed,
    ModelInvalid,
    ModelOutOfMemory,
    RuntimeUnavailable,
    WeightsMissing,
)
from facedex.models.runtime import PROVIDERS, RUNTIMES, Model, Port, Runtime, share_cores

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
    with pytest.raises(ModelFailed, match="from the driver"):
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


# A thread to itself, memory that runs out, a device that vanishes


class Scripted:
    """In a runtime's place: doubles its input, and does as told before."""

    inputs = (Port("data", (None, 2), "tensor(float)"),)
    outputs = (Port("out", (None, 2), "tensor(float)"),)

    def __init__(self, threads: int, most: int = 1000) -> None:
        self.threads, self.most = threads, most
        self.asked: list[int] = []

    def run(self, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        (x,) = feed.values()
        self.asked.append(len(x))
        if len(x) > self.most:
            raise MemoryError("Failed to allocate memory for requested buffer of size 123")
        return [x * 2]


def test_a_batch_that_does_not_fit_into_memory_is_split_and_loses_nothing() -> None:
    session = Scripted(2, most=3)
    x = np.arange(22, dtype=np.float32).reshape(11, 2)
    np.testing.assert_array_equal(Model(lambda _: session, Path("m.onnx"), 2).run({"data": x})["out"], x * 2)
    assert session.asked == [11, 5, 2, 3, 6, 3, 3]


def test_one_face_that_does_not_fit_into_memory_is_an_error_of_ours() -> None:
    with pytest.raises(ModelOutOfMemory, match="more memory than there is"):
        Model(lambda _: Scripted(1, most=0), Path("m.onnx"), 1).run({"data": np.zeros((4, 2), np.float32)})


def test_a_batch_of_a_network_with_a_fixed_one_is_not_split() -> None:
    session = Scripted(1, most=0)
    session.inputs = (Port("data", (4, 2), "tensor(float)"),)  # type: ignore[assignment]
    with pytest.raises(ModelOutOfMemory):
        Model(lambda _: session, Path("m.onnx"), 1).run({"data": np.zeros((4, 2), np.float32)})
    assert session.asked == [4]


MEMORY_SCRIPT = """
import resource, sys
import numpy as np
from facedex.errors import ModelOutOfMemory
from facedex.models.runtime import Model, Runtime
model = Model.load(sys.argv[1], 1, runtime=Runtime(sys.argv[2]))
x = np.random.default_rng(0).random((32, 32, 96, 96), np.float32)
want = np.concatenate([model.run({"data": part})["out"] for part in np.split(x, 32)])
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
# room for half of what lies between two layers
resource.setrlimit(resource.RLIMIT_AS, (used + x.nbytes, -1))
try:
    got = model.run({"data": x})["out"]
except ModelOutOfMemory as error:
    print(error.code)
else:
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    assert np.allclose(got, want, atol=1e-5)
    print("split and right")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to know how much memory is in use")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_real_runtime_without_memory_for_a_batch_splits_it_or_says_so(tmp_path: Path, runtime: str) -> None:
    """OpenVINO does not recover once memory ran out: then an error of ours, never fewer rows."""
    wide = tmp_path / "wide.onnx"
    wide.write_bytes(convolutions(channels=32, layers=4))
    command = [sys.executable, "-c", MEMORY_SCRIPT, str(wide), runtime]
    done = subprocess.run(command, capture_output=True, text=True)
    said = {"split and right"} if runtime == "onnxruntime" else {"split and right", "model_out_of_memory"}
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in said


def convolutions(channels: int, layers: int) -> bytes:
    """A chain of 1×1 convolutions of any number of pictures, that ends in a mean."""
    weight = numpy_helper.from_array(np.eye(channels, dtype=np.float32)[..., None, None], "w")
    nodes = [
        helper.make_node("Conv", ["data" if i == 0 else f"x{i}", "w"], [f"x{i + 1}"], kernel_shape=[1, 1])
        for i in range(layers)
    ]
    nodes.append(helper.make_node("GlobalAveragePool", [f"x{layers}"], ["out"]))
    sides = ["n", channels, "h", "w"]
    data, out = (helper.make_tensor_value_info(n, 1, s) for n, s in (("data", sides), ("out", ["n", channels, 1, 1])))
    graph = helper.make_graph(nodes, "chain", [data], [out], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def test_a_thread_that_shares_the_cores_runs_networks_on_itself_alone() -> None:
    opened: list[Scripted] = []

    def open_session(threads: int) -> Scripted:
        opened.append(Scripted(threads))
        return opened[-1]

    model = Model(open_session, Path("m.onnx"), 4)
    x = {"data": np.zeros((1, 2), np.float32)}
    model.run(x)
    with ThreadPoolExecutor(3, initializer=share_cores) as pool:
        list(pool.map(lambda _: model.run(x), range(20)))
    model.run(x)
    assert [(session.threads, len(session.asked)) for session in opened] == [(4, 2), (1, 20)]


def test_a_device_that_vanishes_is_a_failed_model_with_a_way_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.load(path)

    def vanish(*_: object) -> None:
        raise driver.EPFail("CUDA failure 719: unspecified launch failure")

    monkeypatch.setattr(model._sessions[model.threads], "run", vanish)
    with pytest.raises(ModelFailed, match=r"stopped working.*719.*FACEDEX_PROVIDERS=cpu"):
        model.run({"data": np.zeros((1, 2, 3, 3), np.float32)})


# Runtimes and providers


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_runtime_gives_the_same_numbers_and_refuses_the_same(path: Path, runtime: str) -> None:
    model = Model.load(path, 1, runtime=Runtime(runtime))
    assert model.inputs == (Port("data", (1, 2, 3, 3), "tensor(float)"),)
    x = np.full((1, 2, 3, 3), -2, np.float32)
    assert model.run({"data": x})["out"][0, :, 0, 0].tolist() == [-0.5, 1.0]
    for wrong in ({}, {"other": x}, {"data": x[:, :1]}, {"data": x.astype(np.float64)}, {"data": "text"}):
        with pytest.raises(ModelInvalid, match="'data'"):
            model.run(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("junk", [b"", b"text", b"\x00" * 1000], ids=["empty", "text", "zeros"])
def test_openvino_refuses_what_is_no_model(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(junk)
    with pytest.raises(ModelInvalid, match=r"junk\.onnx"):
        Model.load(path, runtime=Runtime("openvino"))


def test_a_runtime_that_is_not_installed_says_how_to_get_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeUnavailable, match=r"facedex\[openvino\]"):
        Model.load(path, runtime=Runtime("openvino"))


def test_a_provider_that_is_not_there_is_named_and_nothing_else_is_used_instead(path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"no provider cuda; it has .*cpu"):
        Model.load(path, runtime=Runtime(providers=("cuda", "cpu")))


def test_a_provider_without_its_device_is_named_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
    session = SimpleNamespace(get_providers=lambda: [PROVIDERS["cpu"]])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: session)  # falls back, as the real one does
    with pytest.raises(RuntimeUnavailable, match="could not use the provider cuda"):
        Model.load(path, runtime=Runtime(providers=("cuda", "cpu")))


@pytest.mark.parametrize("wrong", [{"name": "torch"}, {"providers": ()}, {"providers": ("cpu", "gpu")}], ids=str)
def test_runtimes_and_providers_of_other_names_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentInvalid):
        Runtime(**wrong)
