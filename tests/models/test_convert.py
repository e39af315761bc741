"""Conversions change the operators of a network, not its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from facedex.errors import ArgumentInvalid, ModelInvalid
from facedex.models import convert, weights
from facedex.models.catalog import CARDS, ModelCard
from facedex.models.runtime import Model


def run(model: Any, folder: Path, **feed: np.ndarray) -> dict[str, np.ndarray]:
    path = folder / "model.onnx"
    path.write_bytes(convert.serialize(model))
    return Model.load(path, threads=1).run(feed)


def operators(model: Any) -> list[str]:
    return sorted({node.op_type for node in model.graph.node})


def prelu_network(channels: int, rng: np.random.Generator) -> Any:
    weight = rng.normal(size=(channels, 3, 3, 3)).astype(np.float32)
    slope = rng.uniform(-0.5, 1.5, (channels, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["data", "weight"], ["mixed"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            helper.make_node("PRelu", ["mixed", "slope"], ["out"]),
        ],
        "prelu",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, channels, 8, 8])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(slope, "slope")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def quantized_network(rng: np.random.Generator, block: int = 4) -> Any:
    """data (1, 8) · W (8, 6), W in blocks of ``block`` along axis 0, the last one partial."""
    rows, columns = 8, 6
    blocks = -(-rows // block)
    stored = {
        "q": rng.integers(-128, 128, (columns, rows)).astype(np.int8),
        "scale": rng.uniform(0.01, 0.1, (columns, blocks)).astype(np.float32),
        "zero": rng.integers(-5, 5, (columns, blocks)).astype(np.int8),
        "shape": np.array([columns, rows], np.int64),
    }
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=1, block_size=block),
            helper.make_node("Reshape", ["w", "shape"], ["weight"]),
            helper.make_node("Dropout", ["data"], ["kept"]),
            helper.make_node("Gemm", ["kept", "weight"], ["out"], transB=1),
        ],
        "quantized",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, rows])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, columns])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("channels", [1, 2, 16, 33])
def test_a_prelu_written_as_convolutions_gives_the_same_numbers(channels: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(channels)
    network = prelu_network(channels, rng)
    rewritten = convert.rewrite_prelu(network)
    x = rng.normal(size=(1, 3, 8, 8)).astype(np.float32)
    onnx.checker.check_model(rewritten, full_check=True)
    assert "PRelu" not in operators(rewritten)
    np.testing.assert_allclose(
        run(rewritten, tmp_path, data=x)["out"], run(network, tmp_path, data=x)["out"], rtol=1e-5, atol=2e-6
    )


def test_block_quantized_weights_folded_to_floats_give_the_same_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    network = quantized_network(rng)
    folded = convert.fold_dequantization(network)
    x = rng.normal(size=(1, 8)).astype(np.float32)
    onnx.checker.check_model(folded, full_check=True)
    assert operators(folded) == ["Gemm"]
    np.testing.assert_allclose(
        run(folded, tmp_path, data=x)["out"], run(network, tmp_path, data=x)["out"], rtol=1e-5, atol=1e-5
    )


def test_a_partial_last_block_uses_its_own_scale() -> None:
    stored = convert.fold_dequantization(quantized_network(np.random.default_rng(4), block=5)).graph.initializer
    network = {
        t.name: numpy_helper.to_array(t) for t in quantized_network(np.random.default_rng(4), block=5).graph.initializer
    }
    steps = network["q"].astype(np.float32)
    expected = np.concatenate(
        [
            (steps[:, cut] - network["zero"][:, [b]]) * network["scale"][:, [b]]
            for b, cut in enumerate((slice(0, 5), slice(5, 8)))
        ],
        axis=1,
    )
    np.testing.assert_array_equal(numpy_helper.to_array(stored[0]), expected)


def test_weights_listed_as_inputs_are_asked_of_nobody() -> None:
    network = quantized_network(np.random.default_rng(5))
    for name, shape in (("q", [6, 8]), ("weight", [6, 8])):
        network.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    assert [entry.name for entry in convert.fold_dequantization(network).graph.input] == ["data"]


def test_a_freed_batch_takes_any_number_of_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    network = prelu_network(4, rng)
    freed = convert.free_dimensions(network, {0: "batch"})
    x = rng.normal(size=(5, 3, 8, 8)).astype(np.float32)
    together = run(freed, tmp_path, data=x)["out"]
    one_by_one = [run(network, tmp_path, data=row[None])["out"] for row in x]
    np.testing.assert_allclose(together, np.concatenate(one_by_one), atol=1e-6)


def test_a_conversion_leaves_its_argument_as_it_was(network: bytes) -> None:
    model = convert.parse(network)
    for step in (
        convert.fold_dequantization,
        convert.rewrite_prelu,
        lambda m: convert.free_dimensions(m, {0: "batch"}),
    ):
        step(model)
    assert convert.serialize(model) == network


def test_the_same_file_always_converts_to_the_same_bytes(network: bytes) -> None:
    assert convert.convert("sface", network) == convert.convert("sface", network)


@pytest.mark.parametrize("junk", [b"", b"not a model", b"\x00" * 100, b"\x08\x07"])
def test_what_is_not_onnx_is_refused(junk: bytes) -> None:
    with pytest.raises(ModelInvalid):
        convert.convert("sface", junk)


def test_a_model_the_recipe_is_not_for_is_refused() -> None:
    network = prelu_network(2, np.random.default_rng(0))
    network.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    with pytest.raises(ModelInvalid, match="yunet"):
        convert.convert("yunet", convert.serialize(network))


def test_an_unknown_recipe_is_refused(network: bytes) -> None:
    with pytest.raises(ArgumentInvalid, match="yunet, sface"):
        convert.convert("resnet", network)


@pytest.mark.weights
@pytest.mark.parametrize("card", CARDS, ids=lambda c: c.name)
def test_converting_the_published_weights_gives_the_pinned_bytes(card: ModelCard, ready: dict[str, Path]) -> None:
    assert weights.verify([card.name])[card.name] == ready[card.name]
    assert ready[card.name].stat().st_size == card.converted_bytes
