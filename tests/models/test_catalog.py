"""Model cards."""

from __future__ import annotations

import re

import pytest

from facedex.errors import ArgumentInvalid, ModelUnknown
from facedex.models.catalog import CARDS, ModelCard, card
from facedex.models.convert import RECIPES


def test_an_unknown_model_is_answered_with_those_there_are() -> None:
    with pytest.raises(ModelUnknown, match=r"'arcface'.*yunet, sface") as caught:
        card("arcface")
    assert caught.value.known == ["yunet", "sface"]


@pytest.mark.parametrize("known", CARDS, ids=lambda c: c.name)
def test_every_card_pins_its_files_and_names_the_licence_of_the_weights(known: ModelCard) -> None:
    assert card(known.name) is known
    assert re.fullmatch(r"[0-9a-f]{64}", known.source_sha256)
    assert re.fullmatch(r"[0-9a-f]{64}", known.converted_sha256)
    assert known.conversion in RECIPES
    assert known.licence in {"MIT", "Apache-2.0"}
    assert known.licence_source.startswith("https://")
    assert known.file_name == f"{known.name}-{known.converted_sha256[:12]}.onnx"


def test_an_embedding_space_is_named_by_the_published_file() -> None:
    space = card("sface").space
    assert space.weights_sha256 == card("sface").source_sha256
    assert (space.model, space.dimension) == ("sface", 128)


def test_the_space_of_sface_never_changes_by_accident() -> None:
    # Galleries hold this id: whoever changes it makes every one of them unreadable by the new version.
    assert card("sface").space.id == "4e74067312d0e76c4b536773122e3da3"


def test_a_detector_has_no_embedding_space() -> None:
    with pytest.raises(ArgumentInvalid, match="yunet"):
        _ = card("yunet").space
