"""How a template lies in a server: its fields as plain values, and back."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facedex.errors import StoreCorrupt
from facedex.stores.checks import Batch, encode_metadata
from facedex.stores.contract import EPOCH, MICROSECOND
from facedex.stores.packed import FLOAT32, GEOMETRY, pack_geometry, unpack_geometry
from facedex.types import EmbeddingSpace, Metadata, StoredTemplate, Template

__all__ = [
    "Row",
    "body_of",
    "damaged",
    "faults",
    "label_token",
    "matrix",
    "metadata_tokens",
    "read_space",
    "row_of",
    "rows_of",
    "stored",
    "write_space",
]

_SPACE_FIELDS = ("model", "version", "weights_sha256", "dimension", "preprocessing")


@dataclass(frozen=True, slots=True)
class Row:
    """A template as values any database can keep.

    content    its content id.
    photo      its photo's digest.
    geometry   box, landmarks, detection score, as ``packed`` has them.
    embedding  little-endian float32; empty where it was not asked for.
    metadata   compact JSON.
    enrolled   microseconds since 1970, UTC.
    sequence   of its last change.
    """

    id: int
    content: str
    photo: str
    label: str | None
    geometry: bytes
    embedding: bytes
    link: str | None
    metadata: str
    enrolled: int
    sequence: int = 0


def rows_of(batch: Batch) -> Iterator[Row]:
    """A checked batch as rows; the ids are still 0."""
    places, place = pack_geometry(batch), GEOMETRY.itemsize
    embeddings = batch.embeddings.astype(FLOAT32, copy=False)
    for n, template in enumerate(batch.templates):
        yield Row(
            0,
            template.content_id,
            template.photo_digest,
            template.label,
            places[n * place : (n + 1) * place],
            embeddings[n].tobytes(),
            template.link,
            batch.metadata[n],
            batch.enrolled[n],
        )


def stored(row: Row, space: EmbeddingSpace, url: str) -> StoredTemplate:
    """The template of a row.

    Raises  StoreCorrupt when it is not what ``rows_of`` wrote.
    """
    try:
        box, landmarks, score = unpack_geometry(row.geometry)
        embedding = np.frombuffer(row.embedding, FLOAT32).astype(np.float32, copy=False)
        if embedding.shape != (space.dimension,):
            raise ValueError(f"its embedding has {len(embedding)} numbers")
        metadata = json.loads(row.metadata)
        if not isinstance(metadata, dict) or not isinstance(row.photo, str):
            raise ValueError("its metadata or its photo's digest is of another type")
        template = Template(
            photo_digest=row.photo,
            box=box,
            landmarks=landmarks,
            detection_score=score,
            embedding=embedding,
            space_id=space.id,
            link=row.link,
            label=row.label,
            metadata=metadata,
        )
        return StoredTemplate(row.id, template, EPOCH + row.enrolled * MICROSECOND)
    except (struct.error, ValueError, TypeError, OverflowError) as error:
        raise damaged(url, f"template {row.id} cannot be read ({error})") from error


def faults(row: Row, space: EmbeddingSpace, url: str) -> str | None:
    """What is wrong with a row that was read, for ``Store.check``."""
    try:
        template = stored(row, space, url).template
    except StoreCorrupt as error:
        return str(error.details["reason"])
    if template.content_id != row.content:
        return f"template {row.id} is not the face its content id says"
    norm = float(np.linalg.norm(template.embedding.astype(np.float64)))
    return None if abs(norm - 1.0) <= 2e-3 else f"template {row.id} has an embedding of norm {norm:.6g}"


def body_of(row: Row) -> str:
    """What an engine keeps of a row and never looks into, as one text."""
    geometry = base64.b64encode(row.geometry).decode()
    return json.dumps([row.label, row.sequence, row.link, row.metadata, row.enrolled, geometry], ensure_ascii=False)


def row_of(number: int, content: str, photo: str, body: str, embedding: bytes, url: str) -> Row:
    """A row of what an engine kept.

    Raises  StoreCorrupt when the body is not what ``body_of`` made.
    """
    try:
        label, sequence, link, metadata, enrolled, geometry = json.loads(body)
        packed = base64.b64decode(geometry)
        return Row(number, content, photo, label, packed, embedding, link, metadata, enrolled, sequence)
    except (ValueError, TypeError) as error:
        raise damaged(url, f"template {number} cannot be read ({error})") from error


def metadata_tokens(metadata: Metadata) -> list[str]:
    """One short token for each key with its value and type: what databases filter metadata by.

    A hash, since keys and values may be longer than any index allows.
    """
    return [hashlib.sha256(encode_metadata({key: value}).encode()).hexdigest()[:32] for key, value in metadata.items()]


def label_token(label: str | None) -> str:
    """A short token for each label, and one for none: what databases filter labels by that trim or fold text."""
    return "-" if label is None else hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def write_space(space: EmbeddingSpace) -> str:
    """A space as JSON text."""
    return json.dumps({name: getattr(space, name) for name in _SPACE_FIELDS} | {"id": space.id})


def read_space(text: str, url: str) -> EmbeddingSpace:
    """What ``write_space`` wrote.

    Raises  StoreCorrupt.
    """
    try:
        facts: dict[str, Any] = json.loads(text)
        space = EmbeddingSpace(**{name: facts[name] for name in _SPACE_FIELDS})
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(url, f"its embedding space cannot be read ({error!r})") from error
    if space.id != facts.get("id"):
        raise damaged(url, "its embedding space does not have the id it says")
    return space


def matrix(
    ids: Iterable[int], embeddings: Iterable[bytes], dimension: int, url: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """``(n,)`` int64 and ``(n, D)`` float32 of stored ids and embeddings.

    Raises  StoreCorrupt when one is of another size.
    """
    numbers = np.array(list(ids), np.int64)
    try:
        values = np.frombuffer(b"".join(embeddings), FLOAT32).reshape(len(numbers), dimension)
    except (ValueError, TypeError) as error:
        raise damaged(url, f"an embedding does not have {dimension} numbers") from error
    return numbers, values.astype(np.float32, copy=False)


def damaged(url: str, what: str) -> StoreCorrupt:
    return StoreCorrupt(f"gallery {url} is damaged: {what}. Restore it from a copy.", url=url, reason=what)
