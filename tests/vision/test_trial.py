"""A user's own model: tried before it is taken in, used by its name, and gone when removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import facedex
from drawn import ANN, BOB, Draw
from facedex import cli
from facedex.errors import ArgumentInvalid, ModelInvalid, ModelUnknown, SpaceMismatch, WeightsCorrupt, WeightsMissing
from facedex.models import added, weights
from facedex.models.catalog import SFACE, read_card
from facedex.models.synthetic import SyntheticDetector
from facedex.settings import Settings
from facedex.vision.embedders import load_embedder
from facedex.vision.pipeline import FacePipeline
from facedex.vision.trial import add_model

SIDE, DIMENSION = 16, 24
CARD = f"""
name = "mine"
task = "embed"

[licence]
weights = "for research only"
stated = "https://example.org/licence"

[input]
size = {SIDE}
alignment = "arcface"
mean = [127.5, 127.5, 127.5]
std = [128.0, 128.0, 128.0]

[output]
dimension = {DIMENSION}
"""


def network(batch: int | str = "n", dimension: int = DIMENSION, seed: int = 0, weight: float = 1.0) -> Any:
    """A linear embedder of 16×16 crops."""
    matrix = np.random.default_rng(seed).normal(size=(3 * SIDE * SIDE, dimension)).astype(np.float32) * weight
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["photo"], ["flat"]),
            helper.make_node("MatMul", ["flat", "matrix"], ["embedding"]),
        ],
        "mine",
        [helper.make_tensor_value_info("photo", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, dimension])],
        [numpy_helper.from_array(matrix, "matrix")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


Files = Callable[..., tuple[Path, Path]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """``files(model, card)``: both, written somewhere."""

    def write(model: Any = None, card: str = CARD) -> tuple[Path, Path]:
        model_path, card_path = tmp_path / "some.onnx", tmp_path / "some.toml"
        if isinstance(model, bytes):
            model_path.write_bytes(model)
        else:
            onnx.save(model or network(), model_path)
        card_path.write_text(card)
        return model_path, card_path

    return write


def test_a_model_is_copied_by_content_and_used_by_its_name(files: Files, place: Path) -> None:
    model, card_file = files()
    card = add_model(model, card_file, place)
    assert sorted(path.suffix for path in place.iterdir()) == [".checked", ".onnx", ".toml"]
    assert (place / card.file_name).read_bytes() == model.read_bytes()
    assert added.find("mine", place) == card
    model.unlink()
    embedder = load_embedder("mine", place)
    assert (embedder.size, embedder.alignment, embedder.space) == (SIDE, "arcface", card.space)
    assert embedder.embed(np.zeros((3, SIDE, SIDE, 3), np.uint8)).shape == (3, DIMENSION)


def test_pixels_reach_the_network_as_the_card_says(files: Files, place: Path) -> None:
    matrix = numpy_helper.to_array(network().graph.initializer[0])
    add_model(*files(card=CARD.replace("[output]", 'colour = "bgr"\n\n[output]')), place)
    crop = np.random.default_rng(1).integers(0, 256, (1, SIDE, SIDE, 3)).astype(np.uint8)
    expected = ((crop[0, ..., ::-1].transpose(2, 0, 1).reshape(-1) - 127.5) / 128) @ matrix
    (row,) = load_embedder("mine", place).embed(crop)
    np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_network_for_a_fixed_number_of_faces_takes_any_number(batch: int, files: Files, place: Path) -> None:
    add_model(*files(network(batch)), place)
    crops = np.random.default_rng(1).integers(0, 256, (7, SIDE, SIDE, 3)).astype(np.uint8)
    together = load_embedder("mine", place).embed(crops)
    add_model(*files(network()), place)
    np.testing.assert_allclose(together, load_embedder("mine", place).embed(crops), atol=1e-6)


def test_the_embedding_space_is_the_file_and_the_preprocessing_not_the_name(files: Files, place: Path) -> None:
    one = add_model(*files(), place).space
    assert add_model(*files(card=CARD.replace('"mine"', '"other"')), place).space == one
    assert add_model(*files(card=CARD.replace("128.0, 128.0, 128.0", "127.5, 127.5, 127.5")), place).space != one
    assert add_model(*files(network(seed=1)), place).space != one


def test_a_card_is_kept_as_it_was_understood(files: Files, place: Path) -> None:
    card = add_model(*files(), place)
    assert read_card(added.as_toml(card), "again") == card
    assert (card.licence, card.added, card.version) == ("for research only", True, "")


def test_adding_again_replaces_the_model_and_leaves_no_old_file(files: Files, place: Path) -> None:
    add_model(*files(), place)
    card = add_model(*files(network(seed=2)), place)
    assert [path.name for path in place.glob("*.onnx")] == [card.file_name]


def test_a_removed_model_is_unknown_and_its_files_are_gone(files: Files, place: Path) -> None:
    add_model(*files(), place)
    added.remove("mine", place)
    assert list(place.iterdir()) == []
    with pytest.raises(ModelUnknown, match="facedex models add"):
        load_embedder("mine", place)


def test_models_of_the_catalog_are_neither_replaced_nor_removed(files: Files, place: Path) -> None:
    with pytest.raises(ArgumentInvalid, match="catalog"):
        add_model(*files(card=CARD.replace('"mine"', '"sface"')), place)
    with pytest.raises(ArgumentInvalid, match="catalog"):
        added.remove("sface", place)
    assert not place.exists()


def test_a_damaged_copy_is_noticed(files: Files, place: Path) -> None:
    card = add_model(*files(), place)
    (place / card.file_name).write_bytes(b"junk")
    with pytest.raises(WeightsCorrupt, match="facedex models add"):
        load_embedder("mine", place)
    (place / card.file_name).unlink()
    with pytest.raises(WeightsMissing, match="facedex models add"):
        load_embedder("mine", place)
    (row,) = [row for row in weights.status(place) if row.card == card]
    assert row.state is weights.State.MISSING


def test_a_name_is_no_way_out_of_the_folder(place: Path) -> None:
    for name in ("../mine", "/etc/passwd", "..\\mine", ""):
        with pytest.raises(ModelUnknown):
            added.find(name, place)


# What is refused, and nothing written


def foreign_operator() -> Any:
    model = network()
    model.graph.node.append(helper.make_node("Magic", ["embedding"], ["more"], domain="com.example"))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def weights_outside() -> Any:
    model = network()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return model


def weights_outside_in_a_branch() -> Any:
    """Outside weights in a constant inside an ``If``."""
    model, branch = network(), network()
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.zeros(1, np.float32)))
    constant.attribute[0].t.data_location = TensorProto.EXTERNAL
    constant.attribute[0].t.external_data.add(key="location", value="inner.bin")
    branch.graph.node.append(constant)
    model.graph.node.append(
        helper.make_node("If", ["cond"], ["more"], then_branch=branch.graph, else_branch=branch.graph)
    )
    return model


def two_inputs() -> Any:
    model = network()
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    return model


@pytest.mark.parametrize(
    ("model", "card", "told"),
    [
        (None, CARD.replace(f"dimension = {DIMENSION}", "dimension = 512"), r"gives .*24.*512"),
        (None, CARD.replace(f"size = {SIDE}", "size = 112"), r"takes .*16.*112"),
        (None, CARD.replace("[output]", 'layout = "nhwc"\n[output]'), "16×16×3"),
        (None, CARD.replace("[output]", 'colour = "blue"\n[output]'), "colour"),
        (None, CARD.replace('"arcface"', '"passport"'), "alignment"),
        (None, CARD.replace("mean = [127.5, 127.5, 127.5]", "mean = [1.0]"), "mean"),
        (None, CARD.replace("std = [128.0, 128.0, 128.0]", "std = [0, 0, 0]"), "std"),
        (None, CARD.replace("std = [128.0, 128.0, 128.0]", "std = [1e-42, 1, 1]"), "std"),
        (None, CARD.replace('"mine"', '"../mine"'), "name"),
        (None, CARD.replace('"embed"', '"dance"'), "dance"),
        (None, CARD.replace('"embed"', '"detect"'), "detect"),
        (None, CARD.replace('"embed"', '"detect"\nadapter = "yunet"'), "not YuNet"),
        (None, CARD.replace("dimension = ", "dim = "), "output"),
        (None, 'needs = ["sface"]\n' + CARD, "needs"),
        (None, "name = ", "TOML|card"),
        (None, "", "'name' is missing"),
        (b"", CARD, "ONNX"),
        (b"PK\x03\x04 not a model", CARD, "ONNX"),
        (network().SerializeToString()[:5000], CARD, "ONNX|run"),
        (network(weight=np.nan), CARD, "finite"),
        (network(weight=0), CARD, "finite|zero"),
        (foreign_operator(), CARD, "com.example"),
        (weights_outside(), CARD, r"weights\.bin"),
        (weights_outside_in_a_branch(), CARD, r"inner\.bin"),
        (two_inputs(), CARD, "takes"),
    ],
    ids=[
        "a lie about the dimension", "another size", "another layout", "no colour", "no alignment",
        "one mean for three", "division by zero", "a scale beyond floats", "a name that climbs", "no task of ours",
        "a detector of unknown kind", "no YuNet", "no dimension", "another beside it", "no TOML",
        "an empty card", "an empty file",
        "no ONNX", "half a file", "NaN in the weights", "zeros for weights", "foreign operators", "weights outside",
        "weights outside, deep inside", "two inputs",
    ],
)  # fmt: skip
def test_what_is_not_as_the_card_says_is_refused_and_nothing_is_written(
    model: Any, card: str, told: str, files: Files, place: Path
) -> None:
    with pytest.raises(ModelInvalid, match=told):
        add_model(*files(model, card), place)
    assert not place.exists()


def test_another_file_than_the_card_pins_is_refused(files: Files, place: Path) -> None:
    with pytest.raises(WeightsCorrupt, match="0000"):
        add_model(*files(card=f'{CARD}\n[source]\nsha256 = "{"0" * 64}"\n'), place)
    assert not place.exists()


def test_files_that_are_not_there_are_named(files: Files, place: Path, tmp_path: Path) -> None:
    model, card = files()
    with pytest.raises(ModelInvalid, match=r"gone\.onnx"):
        add_model(tmp_path / "gone.onnx", card, place)
    with pytest.raises(ModelInvalid, match=r"gone\.toml"):
        add_model(model, tmp_path / "gone.toml", place)


# By name


@pytest.fixture
def mine(files: Files, place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The model added, with a detector that finds drawn faces."""
    add_model(*files(), place)
    monkeypatch.setattr("facedex.vision.pipeline.load_detector", lambda *args, **options: SyntheticDetector())
    monkeypatch.setenv("FACEDEX_MODELS_DIR", str(place))
    facedex._engine.cache_clear()
    return "mine"


def test_without_measured_thresholds_a_search_gives_similarities_and_says_so(mine: str, draw: Draw) -> None:
    photo = draw("ann.jpg", ANN)
    gallery = facedex.open("memory://", embedder=mine)
    gallery.enroll(photo, label="Ann")
    gallery.enroll(draw("bob.jpg", BOB), label="Bob")
    ((found),) = gallery.search(photo)
    assert [c.label for c in found.candidates] == ["Ann", "Bob"]
    assert found.candidates[0].similarity == pytest.approx(1, abs=1e-5)
    assert {(c.confidence, c.verdict) for c in found.candidates} == {(None, facedex.Verdict.NOT_CALIBRATED)}
    assert str(found.candidates[1]).count("not calibrated") == 1
    assert "operating_point" not in gallery.info()


def test_a_verification_without_thresholds_decides_nothing(mine: str, draw: Draw) -> None:
    result = facedex.Engine(embedder=mine).verify(draw("a.jpg", ANN), draw("b.jpg", BOB))
    assert (result.verified, result.threshold, result.confidence) == (None, None, None)
    assert result.verdict is facedex.Verdict.NOT_CALIBRATED


def test_a_gallery_of_another_model_is_not_searched(
    mine: str, draw: Draw, engine: facedex.Engine, tmp_path: Path
) -> None:
    photo = draw("ann.jpg", ANN)
    with engine.open(tmp_path / "faces.db") as gallery:
        gallery.enroll(photo)
    with pytest.raises(SpaceMismatch, match="--embedder"):
        facedex.open(tmp_path / "faces.db", embedder=mine).search(photo)


def test_names_are_checked_before_anything_is_loaded(place: Path) -> None:
    settings = Settings(models_dir=place)
    with pytest.raises(ModelUnknown, match="nobody"):
        facedex.Engine(embedder="nobody", settings=settings)
    with pytest.raises(ArgumentInvalid, match="'embed'"):
        facedex.Engine(embedder="yunet", settings=settings)
    with pytest.raises(ArgumentInvalid, match="'detect'"):
        facedex.Engine(detector="sface", settings=settings)


def test_the_settings_choose_models_too(mine: str) -> None:
    engine = facedex.Engine(settings=Settings.from_environment({"FACEDEX_EMBEDDER": mine}))
    assert engine.settings.embedder == mine
    pipeline = FacePipeline.load(Settings(embedder=mine, models_dir=weights.files.folder()))
    assert pipeline.space.dimension == DIMENSION


@pytest.mark.weights
def test_a_real_embedder_added_under_another_name_gives_the_same_embeddings(
    place: Path, tmp_path: Path, pipeline: FacePipeline
) -> None:
    (tmp_path / "card.toml").write_text(
        'name = "my-sface"\ntask = "embed"\n[input]\nsize = 112\nalignment = "arcface"\n[output]\ndimension = 128\n'
    )
    add_model(weights.ensure(SFACE), tmp_path / "card.toml", place)
    crops = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3)).astype(np.uint8)
    added_one = load_embedder("my-sface", place)
    np.testing.assert_array_equal(added_one.embed(crops), pipeline.embedder.embed(crops))
    assert added_one.space != pipeline.space


def test_the_command_line_adds_uses_and_removes(
    mine: str, files: Files, place: Path, draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, code: int = 0) -> Any:
        result = CliRunner().invoke(cli.main, [*(str(a) for a in arguments), "--models-dir", str(place), "--json"])
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    model, card = files(card=CARD.replace('"mine"', '"second"'))
    told = run("models", "add", model, "--card", card)
    assert told["space_id"] == added.find("second", place).space.id
    assert {"mine", "second"} <= {row["card"]["name"] for row in run("models", "list")}
    assert set(run("models", "verify", "second")) == {"second"}
    photo, other = draw("ann.jpg", ANN), draw("bob.jpg", BOB)
    told = run("verify", photo, other, "--embedder", "second")
    assert (told["verdict"], told["verified"], told["operating_point"]) == ("not calibrated", None, None)
    run("enroll", photo, "--gallery", "second.db", "--embedder", "second")
    (told,) = run(
        "search", photo, "--gallery", "second.db", "--embedder", "second", "--page", "p.html", "--picture", "p.png"
    )
    assert told["found"][0]["candidates"][0]["verdict"] == "not calibrated"
    assert "No thresholds were measured" in Path("p.html").read_text("utf-8")
    run("models", "remove", "second")
    assert run("verify", photo, other, "--embedder", "second", code=1)["error"]["code"] == "model_unknown"
