"""What every store checks before it writes, so that all of them refuse the same things with the same words."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, DimensionMismatch, EmbeddingInvalid, SpaceMismatch
from facedex.stores.contract import EPOCH, MICROSECOND, PhotoRecord
from facedex.types import EmbeddingSpace, Metadata, Template, Where

__all__ = [
    "LABEL_LIMIT",
    "LINK_LIMIT",
    "METADATA_LIMIT",
    "NORM_TOLERANCE",
    "Batch",
    "check_batch",
    "check_label",
    "check_limit",
    "check_space",
    "check_where",
    "encode_metadata",
    "storable_ids",
    "storable_text",
]

NORM_TOLERANCE = 1e-3
"""How far an embedding's L2 norm may be from 1."""

LABEL_LIMIT = 512
"""Characters; at four bytes each it still fits the index entries of every database we know."""

LINK_LIMIT = 8192
"""Characters; longer than any path or URL that works elsewhere."""

METADATA_LIMIT = 65_536
"""Bytes of the metadata of one template as compact JSON."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_LARGEST = 2**63 - 1


def storable_text(text: object) -> bool:
    """Whether every database can keep this string: valid Unicode without NUL."""
    if not isinstance(text, str) or "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def storable_ids(ids: Iterable[int]) -> list[int]:
    """The ids that a store can have given, in order: whole numbers of 1…2⁶³−1. NumPy's become Python's."""
    return [n for n in map(int, ids) if 0 < n <= _LARGEST]


def check_label(label: object) -> None:
    """A label is None or 1…512 characters of text; other spaces than its own are kept as they are.

    Raises  ArgumentInvalid.
    """
    if label is None:
        return
    if not isinstance(label, str) or not label or len(label) > LABEL_LIMIT or not storable_text(label):
        shown = repr(label) if len(repr(label)) <= 60 else repr(label)[:60] + "…"
        raise ArgumentInvalid(
            f"label is {shown}; expected None or text of 1 to {LABEL_LIMIT} characters without NUL. "
            "Use None for a face without a name.",
            parameter="label",
            value=shown,
        )


def check_limit(limit: int | None) -> None:
    """At least 1, or None for all.

    Raises  ArgumentInvalid.
    """
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ArgumentInvalid(f"limit is {limit!r}; expected at least 1.", parameter="limit", value=limit)


def encode_metadata(metadata: Metadata) -> str:
    """Metadata as compact JSON, one spelling for each value.

    Raises  ArgumentInvalid when not flat, not JSON, or larger than 64 KiB.
    """
    if not metadata:
        return "{}"
    plain: dict[str, Any] = {}
    for key, value in metadata.items():
        if not storable_text(key) or not key:
            raise ArgumentInvalid(
                f"metadata key {key!r} is not text; expected a non-empty string without NUL.",
                parameter="metadata",
                key=repr(key),
            )
        kind = type(value)
        good = value is None or kind is bool
        good = good or (kind is int and -_LARGEST - 1 <= value <= _LARGEST)  # type: ignore[operator]
        good = good or (kind is float and math.isfinite(value))  # type: ignore[arg-type]
        good = good or (kind is str and storable_text(value))
        if not good:
            raise ArgumentInvalid(
                f"metadata {key!r} is {_short(value)} of type {kind.__name__}; expected a plain str, 64-bit int, "
                "finite float, bool or None. Turn NumPy scalars into plain ones with .item(); flatten lists and dicts.",
                parameter="metadata",
                key=key,
                type=kind.__name__,
            )
        plain[key] = value + 0.0 if kind is float else value  # type: ignore[operator]  # -0.0 becomes 0.0, its equal
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) > METADATA_LIMIT:
        raise ArgumentInvalid(
            f"metadata take {len(text.encode())} bytes as JSON; the limit is {METADATA_LIMIT}. "
            "Keep a key to them instead.",
            parameter="metadata",
            bytes=len(text.encode()),
            limit=METADATA_LIMIT,
        )
    return text


def check_space(space: EmbeddingSpace, held: EmbeddingSpace | None) -> None:
    """The offered space is sound and is the gallery's, if it has one.

    Raises  SpaceMismatch, ArgumentInvalid.
    """
    texts = (space.model, space.version, space.weights_sha256, space.preprocessing)
    if (
        not all(storable_text(t) for t in texts)
        or type(space.dimension) is not int
        or not 1 <= space.dimension <= 65_536
    ):
        raise ArgumentInvalid(
            f"embedding space {space!r} is malformed; expected text without NUL and a dimension of 1 to 65536.",
            parameter="space",
        )
    if held is not None and held.id != space.id:
        raise SpaceMismatch(
            f"embeddings are from {space}, the gallery holds {held}. "
            "Enroll and search with the same model, or create a new gallery.",
            offered=space.id,
            held=held.id,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A checked batch: N templates in order, and their values as arrays ready to be written.

    metadata    compact JSON of each.
    embeddings  (N, D) float32.
    boxes       (N, 4) float64 pixels.
    landmarks   (N, 5, 2) float32 pixels.
    scores      (N,) float64.
    enrolled    of each, in microseconds since 1970, UTC.
    """

    templates: list[Template]
    metadata: list[str]
    embeddings: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float64]
    landmarks: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float64]
    enrolled: list[int]


def check_batch(photos: Sequence[PhotoRecord], space: EmbeddingSpace, held: EmbeddingSpace | None) -> Batch:
    """Check a batch for ``Store.add``; nothing is written when this raises.

    held    the gallery's space, None when it has none yet.
    Raises  SpaceMismatch, DimensionMismatch, EmbeddingInvalid, ArgumentInvalid.
    """
    check_space(space, held)
    space_id, dimension = space.id, space.dimension
    templates: list[Template] = []
    enrolled: list[int] = []
    now = datetime.now(UTC)
    for photo in photos:
        if not isinstance(photo.digest, str) or not _DIGEST.fullmatch(photo.digest):
            raise ArgumentInvalid(
                f"photo digest {_short(photo.digest)} is not a SHA-256 in 64 lower-case hex digits.",
                parameter="photos",
                digest=str(photo.digest),
            )
        if photo.enrolled_at is not None:
            _check_moment("enrolled_at", photo.enrolled_at)
        moment = now if photo.enrolled_at is None else photo.enrolled_at
        enrolled += [(moment - EPOCH) // MICROSECOND] * len(photo.templates)
        for template in photo.templates:
            if template.photo_digest != photo.digest:
                raise ArgumentInvalid(
                    f"a template of photo {photo.digest[:12]}… names photo {_short(template.photo_digest)}. "
                    "Put each template under its own photo.",
                    parameter="photos",
                    digest=photo.digest,
                    template_digest=str(template.photo_digest),
                )
            if template.space_id != space_id:
                raise SpaceMismatch(
                    f"a template of photo {photo.digest[:12]}… is from space {_short(template.space_id)}, "
                    f"the batch is from {space} with id {space_id}. Embed all of them with one model.",
                    offered=str(template.space_id),
                    held=space_id,
                )
            templates.append(template)
    for label in {template.label for template in templates}:
        check_label(label)
    for template in templates:
        if template.link is not None and (not storable_text(template.link) or len(template.link) > LINK_LIMIT):
            raise ArgumentInvalid(
                f"link {_short(template.link)} cannot be kept; expected None or at most {LINK_LIMIT} characters of "
                "valid Unicode without NUL. Percent-encode a path whose bytes are not UTF-8.",
                parameter="link",
                link=_short(template.link),
            )
    metadata = [encode_metadata(template.metadata) for template in templates]
    boxes = _numbers(templates, "box", (4,), np.float64, "four finite numbers x1, y1, x2, y2")
    landmarks = _numbers(templates, "landmarks", (5, 2), np.float32, "a finite float32 array of shape (5, 2)")
    scores = _numbers(templates, "detection_score", (), np.float64, "a number from 0 to 1")
    wrong = np.flatnonzero((scores < 0.0) | (scores > 1.0))
    if wrong.size:
        raise _geometry_wrong(templates[wrong[0]], "detection_score", "a number from 0 to 1")
    return Batch(templates, metadata, _embeddings(templates, dimension), boxes, landmarks, scores, enrolled)


def check_where(where: Where) -> None:
    """A condition that can be asked: sets of labels and digests, times with a zone, plain metadata.

    Raises  ArgumentInvalid.
    """
    for name in ("labels", "not_labels", "photos"):
        values = getattr(where, name)
        if values is not None and (
            not isinstance(values, (frozenset, set))
            or not all(isinstance(v, str) or (v is None and name != "photos") for v in values)
        ):
            raise ArgumentInvalid(
                f"where.{name} is {_short(values)}; expected a frozenset of strings"
                + ("." if name == "photos" else " (None for no label)."),
                parameter=name,
            )
    for name in ("enrolled_after", "enrolled_before"):
        moment = getattr(where, name)
        if moment is not None:
            _check_moment(f"where.{name}", moment)
    encode_metadata(where.metadata)


def _check_moment(name: str, moment: object) -> None:
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise ArgumentInvalid(
            f"{name} is {_short(moment)}; expected a datetime with a time zone, such as datetime.now(UTC).",
            parameter=name.rpartition(".")[2],
        )


def _embeddings(templates: list[Template], dimension: int) -> npt.NDArray[np.float32]:
    for template in templates:
        embedding: object = template.embedding
        if not isinstance(embedding, np.ndarray) or embedding.dtype != np.float32 or embedding.ndim != 1:
            seen = (
                f"{embedding.dtype} of shape {embedding.shape}"
                if isinstance(embedding, np.ndarray)
                else type(embedding).__name__
            )
            raise EmbeddingInvalid(f"embedding is {seen}; expected a float32 array of shape ({dimension},).", seen=seen)
        if embedding.shape[0] != dimension:
            raise DimensionMismatch(
                f"embedding has shape {embedding.shape}, its embedding space has ({dimension},). "
                "Enroll and search with the same model, or create a new gallery.",
                shape=embedding.shape,
                expected=(dimension,),
            )
    embeddings = np.empty((len(templates), dimension), np.float32)
    for row, template in zip(embeddings, templates, strict=True):
        row[:] = template.embedding
    norms = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64))
    wrong = np.flatnonzero(~(np.abs(norms - 1.0) <= NORM_TOLERANCE))  # a NaN is wrong too
    if wrong.size:
        norm = float(norms[wrong[0]])
        raise EmbeddingInvalid(
            f"embedding of photo {templates[wrong[0]].photo_digest[:12]}… has norm {norm:.6g}; expected finite values "
            f"of L2 norm 1 (± {NORM_TOLERANCE}). Divide it by its norm.",
            norm=norm,
            tolerance=NORM_TOLERANCE,
        )
    return embeddings


def _numbers(
    templates: list[Template], name: str, shape: tuple[int, ...], dtype: type[np.floating[Any]], expected: str
) -> npt.NDArray[Any]:
    """One numeric field of all templates as an array; one by one this would be half the cost of an enrollment."""
    values = [getattr(template, name) for template in templates]
    if not values:
        return np.empty((0, *shape), dtype)
    array = None
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        array = np.array(values)
    exact = array is not None and (array.dtype == dtype or (dtype is np.float64 and array.dtype.kind in "fiu"))
    if array is None or not exact or array.shape != (len(values), *shape) or not np.isfinite(array).all():
        for template in templates:  # say which
            one = None
            with contextlib.suppress(ValueError, TypeError, OverflowError):
                one = np.array(getattr(template, name))
            good = one is not None and (one.dtype == dtype or (dtype is np.float64 and one.dtype.kind in "fiu"))
            if one is None or not good or one.shape != shape or not np.isfinite(one).all():
                raise _geometry_wrong(template, name, expected)
        raise _geometry_wrong(templates[0], name, expected)
    return array.astype(dtype, copy=False)


def _geometry_wrong(template: Template, name: str, expected: str) -> ArgumentInvalid:
    value = _short(getattr(template, name))
    return ArgumentInvalid(
        f"{name} of a face in photo {template.photo_digest[:12]}… is {value}; expected {expected}.",
        parameter=name,
        value=value,
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"
