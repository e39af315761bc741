"""A gallery in memory: the obvious reading of the contract, and the reference for every other store."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Self

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, StoreClosed
from facedex.stores.checks import Batch, check_batch, check_label, check_limit, check_where, storable_ids
from facedex.stores.contract import EPOCH, MICROSECOND, Added, Capabilities, Change, ChangeKind, PhotoRecord, Store
from facedex.types import Box, EmbeddingSpace, Person, StoredTemplate, Template, Where

__all__ = ["MemoryStore"]


class MemoryStore(Store):
    """A gallery that ends with its process: for tests, trials and throw-away searches."""

    capabilities = Capabilities(durable=False, shared=False, scrubs_deleted=True)

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._closed = False
        self._space: EmbeddingSpace | None = None
        self._stored: dict[int, StoredTemplate] = {}  # by rising id, as dicts keep their order
        self._by_content: dict[str, int] = {}
        self._by_photo: defaultdict[str, set[int]] = defaultdict(set)
        self._listed: set[str] = set()
        self._changes: dict[int, Change] = {}  # the last of each template, by rising sequence
        self._changed_at: dict[int, int] = {}  # template id → its key in _changes
        self._sequence = 0

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Self:  # noqa: ARG003 - there is nothing to find
        """A new, empty gallery: ``memory://`` names nothing that could be opened twice."""
        if url.partition("://")[2]:
            raise ArgumentInvalid(
                f"{url!r} names something after memory://, but a gallery in memory has no name. Say 'memory://'.",
                parameter="url",
                url=url,
            )
        return cls()

    @property
    def url(self) -> str:
        return "memory://"

    def space(self) -> EmbeddingSpace | None:
        with self._open():
            return self._space

    def add(self, photos: Sequence[PhotoRecord], space: EmbeddingSpace) -> list[list[Added]]:
        with self._open():
            batch = check_batch(photos, space, self._space)
            if not photos:
                return []
            self._space = space
            row, answer = 0, []
            for photo in photos:
                self._listed.add(photo.digest)
                added = []
                for template in photo.templates:
                    added.append(self._enroll(template, batch, row))
                    row += 1
                answer.append(added)
            return answer

    def relabel(self, ids: Iterable[int], label: str | None) -> int:
        check_label(label)
        with self._open():
            changed = 0
            for stored in self.get(sorted(set(storable_ids(ids)))):
                if stored.template.label != label:
                    template = _copy(stored.template, stored.template.embedding, label)
                    self._stored[stored.id] = StoredTemplate(stored.id, template, stored.enrolled_at)
                    self._record(ChangeKind.RELABELED, stored.id)
                    changed += 1
            return changed

    def delete(self, where: Where) -> int:
        check_where(where)
        with self._open():
            gone = list(self.scan(where))
            for stored in gone:
                del self._stored[stored.id]
                del self._by_content[stored.template.content_id]
                self._by_photo[stored.template.photo_digest].discard(stored.id)
                self._listed.discard(stored.template.photo_digest)
                self._record(ChangeKind.DELETED, stored.id)
            if where == Where(photos=where.photos):
                self._listed -= self._listed.copy() if where.photos is None else where.photos
            return len(gone)

    def get(self, ids: Sequence[int]) -> list[StoredTemplate]:
        with self._open():
            return [self._stored[n] for n in storable_ids(ids) if n in self._stored]

    def scan(self, where: Where | None = None, *, after: int = 0) -> Iterator[StoredTemplate]:
        if where is not None:
            check_where(where)
        with self._open():
            present = [stored for stored in self._stored.values() if stored.id > after]
        return (stored for stored in present if where is None or where.passes(stored))

    def embeddings(self, ids: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        with self._open():
            found = self.get(ids)
            embeddings = np.empty((len(found), self._space.dimension if self._space else 0), np.float32)
            for row, stored in zip(embeddings, found, strict=True):
                row[:] = stored.template.embedding
            return np.array([stored.id for stored in found], np.int64), embeddings

    def sequence(self) -> int:
        with self._open():
            return self._sequence

    def changes(self, after: int, limit: int = 10_000) -> list[Change]:
        check_limit(limit)
        with self._open():
            newest_first = []
            for change in reversed(self._changes.values()):
                if change.sequence <= after:
                    break
                newest_first.append(change)
            return newest_first[::-1][:limit]

    def known(self, digests: Iterable[str]) -> dict[str, frozenset[str | None]]:
        with self._open():
            return {
                digest: frozenset(self._stored[n].template.label for n in self._by_photo.get(digest, ()))
                for digest in digests
                if digest in self._listed
            }

    def faceless(self, after: str = "", limit: int = 10_000) -> list[str]:
        check_limit(limit)
        with self._open():
            return sorted(d for d in self._listed if d > after and not self._by_photo.get(d))[:limit]

    def people(self, after: str | None = None, limit: int | None = None) -> list[Person]:
        check_limit(limit)
        with self._open():
            photos: dict[str | None, list[str]] = defaultdict(list)
            for stored in self._stored.values():
                photos[stored.template.label].append(stored.template.photo_digest)
        names = sorted(name for name in photos if name is not None and (after is None or name > after))
        order: list[str | None] = [None, *names] if after is None and None in photos else [*names]
        return [Person(name, len(photos[name]), len(set(photos[name]))) for name in islice(order, limit)]

    def count(self, where: Where | None = None) -> int:
        with self._open():
            return len(self._stored) if where is None else sum(1 for _ in self.scan(where))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._stored, self._by_content, self._changes, self._changed_at = {}, {}, {}, {}

    def _open(self) -> threading.RLock:
        if self._closed:
            raise StoreClosed("the gallery memory:// was closed; what it held is gone.", url=self.url)
        return self._lock

    def _enroll(self, template: Template, batch: Batch, row: int) -> Added:
        present = self._by_content.get(template.content_id)
        if present is not None:
            return Added(present, False, self._stored[present].template.label)
        copy = _copy(template, batch.embeddings[row].copy(), template.label, batch.metadata[row])
        new = self._record(ChangeKind.ADDED, None)
        self._stored[new] = StoredTemplate(new, copy, EPOCH + batch.enrolled[row] * MICROSECOND)
        self._by_content[copy.content_id] = new
        self._by_photo[copy.photo_digest].add(new)
        return Added(new, True, copy.label)

    def _record(self, kind: ChangeKind, template_id: int | None) -> int:
        self._sequence += 1
        changed = self._sequence if template_id is None else template_id
        self._changes.pop(self._changed_at.get(changed, 0), None)
        self._changes[self._sequence] = Change(self._sequence, kind, changed)
        self._changed_at[changed] = self._sequence
        return self._sequence


def _copy(
    template: Template, embedding: npt.NDArray[np.float32], label: str | None, metadata: str | None = None
) -> Template:
    """A template nobody else can change: plain values, read-only arrays."""
    landmarks = template.landmarks.copy()
    landmarks.flags.writeable = False
    embedding.flags.writeable = False
    return Template(
        photo_digest=template.photo_digest,
        box=Box(*(float(v) for v in template.box)),
        landmarks=landmarks,
        detection_score=float(template.detection_score),
        embedding=embedding,
        space_id=template.space_id,
        link=template.link,
        label=label,
        metadata=template.metadata if metadata is None else json.loads(metadata),
    )
