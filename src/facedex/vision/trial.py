"""Try a user's own model before it is taken in: does the file do what its card says?"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from facedex.errors import EmbeddingInvalid, ModelInvalid, WeightsCorrupt
from facedex.models import added, catalog, convert
from facedex.models.catalog import ModelCard
from facedex.models.runtime import Model
from facedex.vision.detectors import YuNet
from facedex.vision.embedders import OnnxEmbedder

KNOWN_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operator sets that ONNX Runtime brings; any other is code somebody would have to load."""
LARGEST: Final = 2**31 - 1
"""Bytes of the largest ONNX file: a limit of its format, protobuf."""


def add_model(
    file: str | os.PathLike[str],
    card_file: str | os.PathLike[str],
    models_dir: str | os.PathLike[str] | None = None,
) -> ModelCard:
    """Take an ONNX file into the folder of the weights, usable by the name its card gives it from then on.

    The network is loaded from a copy and run on noise: its input and its answers must be those of the card. Nothing is
    written when it fails.

    file       an embedder of aligned crops, or a YuNet export.
    card_file  TOML, as docs/models.md describes it.
    Returns    the card with the file's digest; its embedding space follows from digest and preprocessing.
    Raises     ModelInvalid     a file or card that is none, or a file that is not what the card says.
               WeightsCorrupt   the card has a digest, and the file another one.
               ArgumentInvalid  the name of a model of the catalog.
               WeightsUnavailable  the folder cannot be written.
    """
    card = catalog.read_card(_read(card_file, "card").decode("utf-8", "replace"), str(card_file))
    if not card.added:
        raise ModelInvalid(
            f"{card_file} is a card of the catalog: it names a package. A card of your own has no source.package.",
            path=str(card_file),
        )
    data = _read(file, "model")
    digest = hashlib.sha256(data).hexdigest()
    if card.source_sha256 not in ("", digest):
        raise WeightsCorrupt(
            f"{file} has SHA-256 {digest[:16]}…, its card expects {card.source_sha256[:16]}…; it is damaged or another "
            "file. Fetch it again, or correct source.sha256 in the card.",
            path=str(file),
            expected=card.source_sha256,
            found=digest,
        )
    _inspect(data, Path(file))
    card = replace(
        card,
        source_sha256=digest,
        converted_sha256=digest,
        converted_bytes=len(data),
        member=Path(file).name,
    )
    _try(card, data, Path(file))
    added.keep(card, data, models_dir)
    return card


def _read(path: str | os.PathLike[str], what: str) -> bytes:
    try:
        if Path(path).stat().st_size > LARGEST:
            raise ModelInvalid(f"{path} is larger than an ONNX file can be (2 GiB)", path=str(path))
        return Path(path).read_bytes()
    except OSError as error:
        raise ModelInvalid(f"cannot read the {what} {path}: {error.strerror or error}", path=str(path)) from error


def _inspect(data: bytes, path: Path) -> None:
    """Raise ModelInvalid unless the file is an ONNX model that is complete and needs no code of others."""
    model = convert.parse(data)
    nodes = list(_nodes(model.graph))
    foreign = sorted({node.domain for node in nodes} - KNOWN_DOMAINS - {own.domain for own in model.functions})
    if foreign:
        raise ModelInvalid(
            f"{path.name} uses operators of {', '.join(foreign)}, which ONNX Runtime does not have. Export it with "
            "standard operators only.",
            path=str(path),
            domains=foreign,
        )
    tensors = [*model.graph.initializer, *(t for node in nodes for a in node.attribute for t in _tensors(a))]
    outside = sorted({_location(tensor) for tensor in tensors if tensor.data_location == tensor.EXTERNAL})
    if outside:
        raise ModelInvalid(
            f"{path.name} keeps its weights in other files ({', '.join(outside[:3])}). Save it as one file: "
            "`onnx.save(onnx.load(FILE), ONE_FILE)`.",
            path=str(path),
            files=outside,
        )


def _nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph, and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _tensors(attribute: Any) -> Iterator[Any]:
    """What an attribute holds of weights, itself or in a graph of its own."""
    yield attribute.t
    yield from attribute.tensors
    for inner in (attribute.g, *attribute.graphs):
        yield from inner.initializer


def _location(tensor: Any) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")


def _try(card: ModelCard, data: bytes, file: Path) -> None:
    """Run the network from a copy that stands alone, on noise.

    Raises  ModelInvalid.
    """
    with tempfile.TemporaryDirectory(prefix="facedex-") as folder:
        copy = Path(folder) / file.name
        copy.write_bytes(data)
        try:
            model = Model.load(copy)
        except ModelInvalid as error:
            raise ModelInvalid(f"{file} cannot be run: {error.reason}", path=str(file), reason=error.reason) from error
        if card.task == "embed" and card.adapter == "onnx":
            _try_embedder(OnnxEmbedder(model, card), file)
        elif card.task == "detect" and card.adapter == "yunet":
            YuNet(model).detect([_noise(64, 1)[0]])
        else:
            raise ModelInvalid(
                f'a model of task {card.task!r} with adapter {card.adapter!r} cannot be added; expected task "embed" '
                'with adapter "onnx", or task "detect" with adapter "yunet"',
                task=card.task,
                adapter=card.adapter,
            )


def _try_embedder(embedder: OnnxEmbedder, file: Path) -> None:
    try:
        one, other, again = embedder.embed(_noise(embedder.size, 2)[[0, 1, 0]])
    except EmbeddingInvalid as error:
        raise ModelInvalid(
            f"{file.name} gives embeddings that are not finite or zero on noise; mean and std in the card may be "
            "wrong, or the weights damaged",
            path=str(file),
        ) from error
    if np.abs(one - again).max() > 1e-3:
        raise ModelInvalid(
            f"{file.name} gives one picture two embeddings: it was exported for training, or mixes the pictures of a "
            "batch. Export it for inference.",
            path=str(file),
        )
    if np.abs(one - other).max() < 1e-6:
        raise ModelInvalid(f"{file.name} gives different pictures the same embedding", path=str(file))


def _noise(size: int, count: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)
