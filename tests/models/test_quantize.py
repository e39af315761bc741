"""Networks in 8 bits: what is rounded, by how much at most, and that faces stay who they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, checker, helper, numpy_helper
from PIL import Image

from facedex.errors import ModelInvalid, WeightsUnavailable
from facedex.models import convert
from facedex.models.catalog import card
from facedex.models.recipes import quantize
from facedex.models.runtime import RUNTIMES, Model, Runtime
from facedex.settings import Settings
from facedex.vision.pipeline import FacePipeline

SAMPLES = Path(__file__).parent.parent.parent / "samples"


def network() -> object:
    """Convolution, normalization, PReLU, convolution; (N, 3, 6, 6) → (N, 2, 6, 6)."""
    rng = np.random.default_rng(5)
    weights = {
        "w1": rng.normal(size=(4, 3, 3, 3)), "gamma": rng.uniform(0.5, 2, 4), "beta": rng.normal(size=4),
        "mean": rng.normal(size=4), "variance": rng.uniform(0.5, 2, 4), "slope": np.full((4, 1, 1), 0.25),
        "w2": rng.normal(size=(2, 4, 1, 1)), "b2": rng.normal(size=2),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["data", "w1"], ["c1"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c1", "gamma", "beta", "mean", "variance"], ["n1"]),
        helper.make_node("PRelu", ["n1", "slope"], ["p1"]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["out"], kernel_shape=[1, 1]),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, 6, 6])
        for name, channels in (("data", 3), ("out", 2))
    ]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "small", ports[:1], ports[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(model: object, x: np.ndarray, folder: Path, runtime: str = "onnxruntime") -> np.ndarray:
    checker.check_model(model, full_check=True)
    (folder / "model.onnx").write_bytes(convert.serialize(model))
    return Model.load(folder / "model.onnx", 1, runtime=Runtime(runtime)).run({"data": x})["out"]


X = np.random.default_rng(6).normal(size=(5, 3, 6, 6)).astype(np.float32)


def test_a_normalization_disappears_into_the_convolution_before_it(tmp_path: Path) -> None:
    model = network()
    folded = quantize.fold_batch_normalization(model)
    assert [node.op_type for node in folded.graph.node] == ["Conv", "PRelu", "Conv"]
    np.testing.assert_allclose(run(folded, X, tmp_path), run(model, X, tmp_path), atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_network_in_8_bits_says_nearly_the_same(tmp_path: Path, runtime: str) -> None:
    folded = quantize.fold_batch_normalization(network())
    assert quantize.inputs_of(folded) == ["data", "p1"]
    rounded = quantize.quantize(folded, {"data": (-4.0, 4.0), "p1": (-4.0, 30.0)})
    assert [t.data_type for t in rounded.graph.initializer if t.name.endswith("_code")] == [TensorProto.INT8] * 2
    want, got = run(folded, X, tmp_path), run(rounded, X, tmp_path, runtime)
    assert abs(got - want).max() < 0.05 * abs(want).max()
    assert abs(got - want).max() > 0


@given(arrays.arrays(np.float32, (3, 2, 2, 2), elements=st.floats(-1e6, 1e6, width=32)))
def test_a_weight_is_off_by_half_a_step_at_most_and_two_products_fit_16_bits(filters: np.ndarray) -> None:
    codes, steps = quantize._codes(filters)
    back = codes.astype(np.float64) * steps[:, None, None, None]
    assert (abs(back - filters) <= steps[:, None, None, None] * 0.5001).all()
    assert 2 * 255 * int(abs(codes.astype(int)).max()) <= 32767


def test_equal_networks_give_equal_bytes_and_missing_bounds_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    folded = quantize.fold_batch_normalization(network())
    bounds = {"data": (-4.0, 4.0), "p1": (-4.0, 30.0)}
    first, again = (convert.serialize(quantize.quantize(folded, bounds)) for _ in range(2))
    assert hashlib.sha256(first).digest() == hashlib.sha256(again).digest()
    with pytest.raises(KeyError, match="p1"):
        quantize.quantize(folded, {"data": (-4.0, 4.0)})
    monkeypatch.setattr(convert, "RECIPES", {"none": lambda _: quantize.ranges("none")})
    with pytest.raises(ModelInvalid, match="none"):
        convert.convert("none", b"")


def test_8_bits_are_another_space_than_float32() -> None:
    spaces = {card(name).space.id for name in ("sface", "sface-int8", "dlib-resnet", "dlib-resnet-int8")}
    assert len(spaces) == 4


@pytest.mark.weights
@pytest.mark.parametrize("name", ["sface", "dlib-resnet"])
def test_a_face_in_8_bits_is_the_same_in_both_runtimes_and_near_itself_in_float32(name: str) -> None:
    with Image.open(SAMPLES / "enroll" / "Grace Hopper" / "official_portrait_1984.jpg") as picture:
        photo = np.asarray(picture.convert("RGB"))
    try:
        whole = FacePipeline.load(Settings(embedder=name)).faces([photo])[0][0]
        rows = [
            FacePipeline.load(Settings(embedder=f"{name}-int8", runtime=runtime)).faces([photo])[0][0]
            for runtime in RUNTIMES
        ]
    except WeightsUnavailable as error:
        pytest.skip(f"no weights: {error.message}")
    embeddings = [face.embedding for face in (whole, *rows)]
    assert float(embeddings[1] @ embeddings[2]) > 0.995
    assert float(embeddings[0] @ embeddings[1]) > 0.93
