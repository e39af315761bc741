"""A gallery's content from one place to another: copied in bounded memory, resumable, verified by a digest.

The digest of a gallery does not depend on order, ids or store: it is the sum (mod 2²⁵⁶) of the SHA-256 of every
template (all of its fields and its time of enrollment) and of every photo that is known to show no face. Two galleries
with one digest hold the same.

Copying adds, it never changes or deletes. What the target has already stays as it is, so a copy that was interrupted
goes on when it is called again, and a target with other content is merged into.
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, pairwise
from typing import Any, Final

import numpy as np

from facedex.errors import ArgumentInvalid, TransferMismatch
from facedex.stores.checks import check_space
from facedex.stores.contract import EPOCH, MICROSECOND, PhotoRecord, Store
from facedex.types import EmbeddingSpace, StoredTemplate, Template

__all__ = ["Digest", "Source", "StoreSource", "Transfer", "digest", "records", "transfer"]

PAGE: Final = 4096
"""Templates, or photos without a face, that travel together."""

_ENCODER: Final = json.JSONEncoder(sort_keys=True)

_NUMBERS: Final = struct.Struct("<5d")

Told = Callable[[int, int], None]
"""Is called with how much is done and of how much, after each page, which is then safe in the target."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a copy, export or import did.

    templates  of the source, all of which the target holds.
    faceless   photos without a face among what travelled.
    new        templates that the target did not have.
    digest     of the source, hexadecimal.
    """

    templates: int
    faceless: int
    new: int
    digest: str
    seconds: float


class Digest:
    """Adds up to the digest of what it is shown, in any order."""

    def __init__(self) -> None:
        self._sum = 0

    def template(self, template: Template, enrolled_at: datetime) -> None:
        """Count in a template: every field, from which its content id follows."""
        texts = (
            template.photo_digest,
            template.space_id,
            "-" if template.label is None else f"+{template.label}",
            "-" if template.link is None else f"+{template.link}",
            _exact(template.metadata) if template.metadata else "",
            str((enrolled_at - EPOCH) // MICROSECOND),
            "",
        )
        content = hashlib.sha256("\0".join(texts).encode())  # no text of a template holds a NUL
        content.update(_NUMBERS.pack(*template.box, template.detection_score))
        content.update(np.ascontiguousarray(template.landmarks, "<f4").data)
        content.update(np.ascontiguousarray(template.embedding, "<f4").data)
        self._count(content.digest())

    def faceless(self, photo_digest: str) -> None:
        """Count in a photo without a face."""
        self._count(hashlib.sha256(f"faceless\0{photo_digest}".encode()).digest())

    def page(self, photos: Sequence[PhotoRecord]) -> None:
        """Count in a page of a source."""
        for photo in photos:
            for template in photo.templates:
                assert photo.enrolled_at is not None
                self.template(template, photo.enrolled_at)
            if not photo.templates:
                self.faceless(photo.digest)

    def __str__(self) -> str:
        return f"{self._sum:064x}"

    def _count(self, part: bytes) -> None:
        self._sum = (self._sum + int.from_bytes(part, "big")) % 2**256


class Source(ABC):
    """Where content comes from."""

    name: str
    """For messages."""

    @abstractmethod
    def space(self) -> EmbeddingSpace | None:
        """Of its embeddings; None when it holds nothing."""

    @abstractmethod
    def total(self) -> int:
        """How many templates it holds, about; for progress."""

    @abstractmethod
    def pages(self) -> Iterator[list[PhotoRecord]]:
        """All of it, templates first, in bounded memory; each record with its time of enrollment."""

    @abstractmethod
    def check_unchanged(self) -> None:
        """Raise TransferMismatch when it is not what it was when it was opened."""


class StoreSource(Source):
    """A gallery as a source."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sequence = store.sequence()
        self.name = store.url

    def space(self) -> EmbeddingSpace | None:
        return self._store.space()

    def total(self) -> int:
        return self._store.count()

    def pages(self) -> Iterator[list[PhotoRecord]]:
        templates = self._store.scan()
        while page := list(islice(templates, PAGE)):
            yield records(page)
        after = ""
        while photos := self._store.faceless(after, PAGE):
            yield [PhotoRecord(photo) for photo in photos]
            after = photos[-1]

    def check_unchanged(self) -> None:
        now = self._store.sequence()
        if now != self._sequence:
            raise TransferMismatch(
                f"{self.name} was changed while it was copied (change {self._sequence} was its last, now it is {now}). "
                "What was copied is in the target; the same call again copies the rest.",
                source=self.name,
            )


def records(templates: Sequence[StoredTemplate]) -> list[PhotoRecord]:
    """Templates in order, those of one photo and time together where they are neighbours."""
    if not templates:
        return []
    bounds = [0, *(n for n in range(1, len(templates)) if not _together(templates[n - 1], templates[n]))]
    return [
        PhotoRecord(
            templates[start].template.photo_digest,
            tuple(stored.template for stored in templates[start:end]),
            templates[start].enrolled_at,
        )
        for start, end in pairwise([*bounds, len(templates)])
    ]


def _together(one: StoredTemplate, other: StoredTemplate) -> bool:
    return one.template.photo_digest == other.template.photo_digest and one.enrolled_at == other.enrolled_at


def digest(store: Store) -> str:
    """The digest of a gallery; reads all of it."""
    total = Digest()
    for page in StoreSource(store).pages():
        total.page(page)
    return str(total)


def transfer(source: Source, target: Store, progress: Told | None = None) -> Transfer:
    """Add everything a source holds to a gallery, and see that it is there.

    Where the target then holds nothing else, the digests of both are compared; in a merge, each template with what
    the target keeps under the same content.

    Raises  SpaceMismatch before anything is written; TransferMismatch when a template of the source is in the target
            with another label, link, metadata, time or embedding, which the target keeps, or when the source was
            changed meanwhile; StoreError.
    """
    started = time.perf_counter()
    space = source.space()
    if space is None:
        return Transfer(0, 0, 0, str(Digest()), time.perf_counter() - started)
    check_space(space, target.space())
    total, read = source.total(), Digest()
    templates = faceless = new = 0
    for page in source.pages():
        read.page(page)
        added = target.add(page, space)
        new += sum(each.new for some in added for each in some)
        templates += sum(len(photo.templates) for photo in page)
        faceless += sum(not photo.templates for photo in page)
        if progress is not None:
            progress(templates, max(total, templates))
    source.check_unchanged()
    if target.count() != templates or digest(target) != str(read):
        _compare(source, target, space)
    return Transfer(templates, faceless, new, str(read), time.perf_counter() - started)


def _compare(source: Source, target: Store, space: EmbeddingSpace) -> None:
    """Each template of the source with the target's of the same content.

    Raises  TransferMismatch with the first that differs, and how many do.
    """
    first, differing = "", 0
    for page in source.pages():
        added = target.add(page, space)  # writes nothing, for all of it is there; tells the ids
        ids = [each.id for some in added for each in some]
        kept = {stored.id: stored for stored in target.get(ids)}
        ours = [(template, photo.enrolled_at) for photo in page for template in photo.templates]
        for (template, enrolled_at), number in zip(ours, ids, strict=True):
            difference = _difference(template, enrolled_at, kept.get(number))
            if difference:
                differing += 1
                first = first or (
                    f"the face at {[round(v) for v in template.box]} of photo {template.photo_digest[:12]}… "
                    f"({template.link or 'no link'}) {difference}"
                )
        missing = [photo.digest for photo in page if not photo.templates]
        missing = [photo for photo in missing if photo not in target.known(missing)]
        if missing:
            differing += len(missing)
            first = first or f"photo {missing[0][:12]}…, which shows no face, is not known there"
    if differing:
        raise TransferMismatch(
            f"{target.url} does not hold what {source.name} does: {first}; {differing} differ in all. The rest is "
            "there. The target keeps what it had: relabel or delete that, or copy into an empty gallery.",
            source=source.name,
            target=target.url,
            differing=differing,
            first=first,
        )


def _difference(template: Template, enrolled_at: datetime | None, kept: StoredTemplate | None) -> str:
    """What is another in the target, in words; empty when nothing is."""
    if kept is None:
        return "is not there"
    theirs = kept.template
    for field in ("label", "link", "metadata", "box", "detection_score"):
        ours, other = getattr(template, field), getattr(theirs, field)
        if _exact(ours) != _exact(other):
            return f"has {field} {ours!r}, there {other!r}"
    if enrolled_at != kept.enrolled_at:
        return f"was enrolled at {enrolled_at}, there at {kept.enrolled_at}"
    for field in ("landmarks", "embedding"):
        if getattr(template, field).tobytes() != getattr(theirs, field).tobytes():
            return f"has another {field.removesuffix('s')} there"
    return ""


def _exact(value: Any) -> str:
    """A value by which 1, 1.0 and True differ, but not the order of keys."""
    return _ENCODER.encode(dict(value) if isinstance(value, Mapping) else value)


def copy(source: Store, target: Store, progress: Told | None = None) -> Transfer:
    """``transfer`` from gallery to gallery.

    Raises  ArgumentInvalid when both are the same one; otherwise as ``transfer``.
    """
    if source is target or (source.url == target.url and source.capabilities.durable):
        raise ArgumentInvalid(f"source and target are both {source.url}; expected two galleries.", url=source.url)
    return transfer(StoreSource(source), target, progress)
