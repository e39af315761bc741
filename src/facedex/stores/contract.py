"""What a gallery store promises. Every adapter keeps it; ``facedex.testing.stores`` checks it.

The store is the truth; an index is a disposable projection that follows ``changes``.

1. ``add`` is atomic: after it returns every face of the batch survives ``kill -9``; if it raises or the
   process dies, none of the batch is there.
2. ``add`` is idempotent by content: a template whose ``content_id`` is stored already (or came earlier in the same
   batch) is left as it is, its label, link and metadata included, and reported as present.
3. A gallery holds one embedding space, from its first ``add`` and for good; a template of another one raises
   ``SpaceMismatch`` and nothing is written.
4. Each change (added, relabeled, deleted) takes a new, higher sequence number; an id is the sequence number of the
   template's enrollment, so ids are never used again. Numbers become visible in the order they rise: whoever has
   read ``changes`` up to n will never find a change below n later. (Numbers may be skipped.)
5. ``delete`` removes embedding, box, landmarks, label, link and metadata for good, from the storage too where
   ``scrubs_deleted`` says so, and with them every index kept in the store; what remains is a tombstone of two
   integers.
6. Every call sees what other processes committed before it began.
7. Every driver exception leaves as a ``StoreError``; a write that raised has written nothing.

``facedex.stores.checks`` holds the checks and the limits all adapters share: labels are None or 1…512 characters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid
from facedex.types import EmbeddingSpace, MetadataValue, Person, StoredTemplate, Template, Where


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter can promise beyond the contract; the docs' table and the skips of the suite come from here.

    durable         survives the process.
    shared          several processes may open it at once.
    scrubs_deleted  what was deleted leaves the storage itself (files, logs), not only its tables.
    """

    durable: bool = True
    shared: bool = True
    scrubs_deleted: bool = True


@dataclass(frozen=True, slots=True)
class PhotoRecord:
    """One photo's outcome: its faces, none of them if there was no face.

    A photo is remembered by its digest so that an interrupted enrollment goes on where it was.

    enrolled_at  of its new templates, with a time zone, kept to the microsecond; None: now. For copies of galleries.
    """

    digest: str
    templates: tuple[Template, ...] = ()
    enrolled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """What ``add`` did with one template.

    id     of the stored template, new or old.
    new    False when its content was stored already.
    label  the stored label, which differs from the offered one when another was there first.
    """

    id: int
    new: bool
    label: str | None


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Absent(Enum):
    """The type of ABSENT: a template has no metadata of that key, which is not the value None."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


class ChangeKind(StrEnum):
    ADDED = "added"
    RELABELED = "relabeled"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a gallery's history: at ``sequence``, template ``id`` was added, relabeled or deleted.

    Only the last change of each template is kept, so a reader that lags sees the present, not the past: the first
    it hears of a template may be RELABELED (take it as added) or DELETED (nothing to do).
    """

    sequence: int
    kind: ChangeKind
    id: int


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What a filter may ask of some templates, in columns; n entries each, no embeddings.

    ids       (n,) int64, rising.
    enrolled  (n,) int64, microseconds since 1970, UTC.
    metadata  for each key asked, the n values; ABSENT where a template has no such key.
    """

    ids: npt.NDArray[np.int64]
    labels: list[str | None]
    enrolled: npt.NDArray[np.int64]
    metadata: Mapping[str, list[MetadataValue | Absent]]


@dataclass(frozen=True, slots=True)
class KeptIndex:
    """An index kept in a store.

    sequence  of the gallery it was built from.
    size      bytes; sha256 (hex) of them.
    """

    name: str
    sequence: int
    size: int
    sha256: str


class Store(ABC):
    """A gallery's storage. Safe to share between threads."""

    capabilities: Capabilities = Capabilities()

    @classmethod
    @abstractmethod
    def open(cls, url: str, *, create: bool = True) -> Self:
        """Open the gallery a URL of this adapter's scheme names.

        create  make it when it is missing; otherwise a missing one raises StoreUnavailable.
        Raises  StoreUnavailable, StoreForeign, StoreCorrupt, StoreVersion, StoreBusy, ArgumentInvalid.
        """

    @property
    @abstractmethod
    def url(self) -> str:
        """How to open it again; credentials masked."""

    @property
    def index_path(self) -> Path | None:
        """Where a saved index of this gallery belongs; None when there is no such place."""
        return None

    @abstractmethod
    def space(self) -> EmbeddingSpace | None:
        """The gallery's embedding space, None before the first ``add``."""

    @abstractmethod
    def add(self, photos: Sequence[PhotoRecord], space: EmbeddingSpace) -> list[list[Added]]:
        """Enroll photos in one transaction; one list per photo, one ``Added`` per template, in order.

        The photos count as ``known`` afterwards, those without a face too. New templates take rising ids in
        the order given and, but where a record names one, share one time of enrollment. An empty batch
        writes nothing, the space neither.

        Raises  SpaceMismatch when the gallery holds another space or a template names another one;
                DimensionMismatch, EmbeddingInvalid when an embedding is not ``(D,)`` float32, finite, of norm 1;
                ArgumentInvalid when a template's photo_digest is not its photo's, metadata are not flat, or
                another value is outside ``facedex.stores.checks``.
        """

    @abstractmethod
    def relabel(self, ids: Iterable[int], label: str | None) -> int:
        """Give stored templates another label; how many changed.

        Unknown ids, and templates that have the label already, are passed over and take no sequence number.
        """

    @abstractmethod
    def delete(self, where: Where) -> int:
        """Remove every template that passes, for good, in one transaction; how many. ``Where()`` removes all.

        Their photos are no longer ``known``, so enrolling one again looks at it anew; other templates of theirs
        stay. When ``where`` speaks of photos only, or of nothing, photos without a face are forgotten with them.
        """

    @abstractmethod
    def get(self, ids: Sequence[int]) -> list[StoredTemplate]:
        """Templates in the order asked, one for each time asked; ids that are gone are left out."""

    @abstractmethod
    def scan(self, where: Where | None = None, *, after: int = 0) -> Iterator[StoredTemplate]:
        """Every template that passes, by rising id, in bounded memory.

        after  begin behind this id.
        A template added, relabeled or deleted meanwhile is seen as it was before or after.
        """

    def ids(self, where: Where | None = None) -> npt.NDArray[np.int64]:
        """``(N,)`` int64 ids of the templates that pass, rising: what a filtered search may answer with."""
        return np.array([stored.id for stored in self.scan(where)], np.int64)

    @abstractmethod
    def embeddings(self, ids: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """``(N,)`` int64 ids and their ``(N, D)`` float32 embeddings, in the order asked, one for each time asked.

        Ids that are gone are left out; D is 0 in a gallery without a space.
        """

    def embedding_batches(
        self, after: int = 0, batch: int = 8192
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Every embedding by rising id, to build an index: ``(n,)`` int64 ids, ``(n, D)`` float32, 1 ≤ n ≤ batch.

        after   begin behind this id.
        To miss nothing, take ``sequence()`` first, load, then apply ``changes`` from that number on; a template
        that came or went meanwhile may be in both.
        """
        if batch < 1:
            raise ArgumentInvalid(f"batch is {batch}; expected at least 1.", parameter="batch", value=batch)
        wanted = self.ids()
        wanted = wanted[wanted > after]
        for start in range(0, len(wanted), batch):
            ids, embeddings = self.embeddings(wanted[start : start + batch].tolist())
            if len(ids):
                yield ids, embeddings

    def facts(self, after: int = 0, *, keys: Sequence[str] = (), batch: int = 8192) -> Iterator[Facts]:
        """What filters ask, of every template by rising id, so that a search may apply them as it scans.

        after  begin behind this id.
        keys   of the metadata to read.
        """
        if batch < 1:
            raise ArgumentInvalid(f"batch is {batch}; expected at least 1.", parameter="batch", value=batch)
        templates = self.scan(after=after)
        while some := list(islice(templates, batch)):
            yield facts_of(some, keys)

    @abstractmethod
    def sequence(self) -> int:
        """The highest sequence number given so far, 0 for a new gallery. Cheap: asked before each search."""

    @abstractmethod
    def changes(self, after: int, limit: int = 10_000) -> list[Change]:
        """The next changes with ``sequence > after``, rising; fewer than ``limit`` means there are no more now.

        limit  at least 1.
        """

    @abstractmethod
    def known(self, digests: Iterable[str]) -> dict[str, frozenset[str | None]]:
        """Of these photos, those enrolled and not forgotten since, each with the labels of its templates now.

        No labels: there was no face in it.
        """

    @abstractmethod
    def faceless(self, after: str = "", limit: int = 10_000) -> list[str]:
        """Digests of the ``known`` photos without a template, rising, behind ``after``; a page of at most ``limit``."""

    @abstractmethod
    def people(self, after: str | None = None, limit: int | None = None) -> list[Person]:
        """Labels in the order of their code points (the unlabeled first, as None) with their counts.

        after  go on behind this label: None begins with the unlabeled, "" behind them, so the next page is
               ``after=people[-1].label or ""``.
        limit  at least 1; None for all.
        """

    @abstractmethod
    def count(self, where: Where | None = None) -> int:
        """How many templates pass."""

    def check(self) -> tuple[str, ...]:
        """What is wrong with the storage, one sentence each; nothing when it is sound. Reads everything: slow."""
        return ()

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds. A second close does nothing; any other call then raises ``StoreClosed``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SearchesItself(ABC):
    """What a store adds whose engine has a nearest-neighbour search of its own."""

    @abstractmethod
    def nearest(
        self, probes: npt.NDArray[np.float32], k: int, where: Where | None = None, *, exact: bool = False
    ) -> npt.NDArray[np.int64]:
        """Ids of the k templates the engine finds most similar to each probe.

        probes   (Q, D) float32 of norm 1.
        exact    by the engine's exact scan instead of its approximate index.
        Returns  (Q, k) int64, best first as the engine sees it; -1 where it found fewer. The caller reads the
                 embeddings, computes the similarities in float32, and passes over ids that are gone meanwhile.
        """

    def build_nearest(self, progress: Callable[[int, int], None] | None = None) -> None:  # noqa: B027
        """Have the engine build its approximate index, where it does not do so by itself.

        progress  called with the templates indexed so far and the total.
        """


class KeepsIndex(ABC):
    """What a store adds that keeps an index we built, so that another machine opens it without building."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """A name no other gallery has, given when it was made: local copies of its indexes go by it."""

    @abstractmethod
    def keep_index(self, name: str, sequence: int, parts: Iterable[bytes]) -> bool:
        """Keep an index instead of one of that name; all of it, or what was there stays.

        sequence  of the gallery it was built from.
        parts     its bytes, a few megabytes each; read once, in bounded memory.
        Returns   False, and nothing is kept, when something was deleted since: the index may still hold it.
        """

    @abstractmethod
    def kept_index(self, name: str) -> KeptIndex | None:
        """The index kept under a name; None: there is none."""

    @abstractmethod
    def read_index(self, kept: KeptIndex) -> Iterator[bytes]:
        """Its bytes in parts.

        Raises  IndexUnavailable when it is gone or another one, at the first part or later.
        """


def facts_of(templates: Sequence[StoredTemplate], keys: Sequence[str]) -> Facts:
    """The columns of some templates."""
    return Facts(
        np.array([stored.id for stored in templates], np.int64),
        [stored.template.label for stored in templates],
        np.array([(stored.enrolled_at - EPOCH) // MICROSECOND for stored in templates], np.int64),
        {key: [stored.template.metadata.get(key, ABSENT) for stored in templates] for key in keys},
    )
