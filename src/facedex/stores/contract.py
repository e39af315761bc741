"""What a gallery store promises. Seven databases keep it; ``facedex.testing.stores`` checks it.

The store is the truth; an index is a disposable projection that follows ``changes``.

1. ``add`` is atomic: after it returns every face of the batch survives ``kill -9``; if it raises or the
   process dies, none of the batch is there.
2. ``add`` is idempotent by content: a template whose ``content_id`` is stored already is left as it is and
   reported as present.
3. A gallery holds one embedding space; a template of another one raises ``SpaceMismatch`` and nothing is written.
4. Each change (added, relabeled, deleted) takes a new, higher sequence number; ids are sequence numbers and are
   never used again. Another process sees every committed change through ``changes``, in order, without gaps.
5. ``delete`` removes the embedding, box, label and link for good, from the files too; what remains is a tombstone
   of two integers.
6. Every driver exception leaves as a ``StoreError``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from facedex.types import EmbeddingSpace, Person, StoredTemplate, Template, Where


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter can promise beyond the contract; the docs' table and the skips of the suite come from here.

    durable         survives the process.
    shared          several processes may open it at once.
    scrubs_deleted  a deleted embedding's bytes leave the storage itself, not only its tables.
    """

    durable: bool = True
    shared: bool = True
    scrubs_deleted: bool = True


@dataclass(frozen=True, slots=True)
class PhotoRecord:
    """One photo's outcome: its faces, none of them if there was no face.

    A photo is remembered by its digest so that an interrupted enrollment goes on where it was.
    """

    digest: str
    templates: tuple[Template, ...] = ()


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


class ChangeKind(StrEnum):
    ADDED = "added"
    RELABELED = "relabeled"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a gallery's history: at ``sequence``, template ``id`` was added, relabeled or deleted.

    Only the last change of each template is kept, so a reader that lags sees the present, not the past.
    """

    sequence: int
    kind: ChangeKind
    id: int


class Store(ABC):
    """A gallery's storage. Safe to share between threads."""

    capabilities: Capabilities = Capabilities()

    @property
    @abstractmethod
    def url(self) -> str:
        """How to open it again; credentials masked."""

    @abstractmethod
    def space(self) -> EmbeddingSpace | None:
        """The gallery's embedding space, None before the first ``add``."""

    @abstractmethod
    def add(self, photos: Sequence[PhotoRecord], space: EmbeddingSpace) -> list[list[Added]]:
        """Enroll photos in one transaction; one list per photo, one ``Added`` per template, in order.

        Raises  SpaceMismatch when the gallery holds another space or a template names another one;
                DimensionMismatch, EmbeddingInvalid when an embedding is not ``(D,)`` float32, finite, of norm 1;
                ArgumentInvalid when a template's photo_digest is not its photo's, or metadata are not flat.
        """

    @abstractmethod
    def relabel(self, ids: Iterable[int], label: str | None) -> int:
        """Give stored templates another label; how many changed. Unknown ids are passed over."""

    @abstractmethod
    def delete(self, where: Where) -> int:
        """Remove every template that passes, for good; how many. Their photos count as not enrolled again."""

    @abstractmethod
    def get(self, ids: Sequence[int]) -> list[StoredTemplate]:
        """Templates in the order asked; ids that are gone are left out."""

    @abstractmethod
    def scan(self, where: Where | None = None) -> Iterator[StoredTemplate]:
        """Every template by rising id, in bounded memory. A template added meanwhile may or may not be seen."""

    @abstractmethod
    def embeddings(self, ids: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """``(N,)`` int64 ids and their ``(N, D)`` float32 embeddings, in the order asked; gone ids are left out."""

    @abstractmethod
    def sequence(self) -> int:
        """The highest sequence number given so far, 0 for an empty gallery. Cheap: asked before each search."""

    @abstractmethod
    def changes(self, after: int, limit: int = 10_000) -> list[Change]:
        """The next changes with ``sequence > after``, rising; fewer than ``limit`` means there are no more now."""

    @abstractmethod
    def known(self, digests: Iterable[str]) -> dict[str, frozenset[str | None]]:
        """Of these photos, those enrolled already, each with the labels of its templates (empty: no face in it)."""

    @abstractmethod
    def people(self, after: str | None = None, limit: int | None = None) -> list[Person]:
        """Labels by name (the unlabeled first, as None) with their counts.

        after  go on behind this label; page with the last label seen. Nothing sorts before the empty string
               but None, so a first page is ``after=None`` and holds the unlabeled.
        """

    @abstractmethod
    def count(self, where: Where | None = None) -> int:
        """How many templates pass."""

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds. A second close does nothing; any other call then raises ``StoreClosed``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
