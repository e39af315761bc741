"""What filters ask, in columns beside the index: labels, times and metadata of every template.

A database answers "which of a million were enrolled since May?" in seconds, an exact search answers in milliseconds;
columns answer the first question in milliseconds too. Like an index they are a projection of the store, kept fresh
by its sequence numbers, and hold nothing that was deleted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from facedex.search.contract import Ids
from facedex.stores.checks import check_where
from facedex.stores.contract import ABSENT, EPOCH, MICROSECOND, Absent, ChangeKind, Store
from facedex.types import MetadataValue, Where

__all__ = ["Columns", "Passing"]

_CHANGES_AT_ONCE: Final = 10_000
_GONE: Final = -1

Value = TypeVar("Value")
Mask = npt.NDArray[np.bool_]


class Passing:
    """The templates that pass a filter, at one moment: a predicate that an index asks of its ids."""

    def __init__(self, held: Ids, mask: Mask) -> None:
        """held: every template's id, rising; mask: which pass."""
        self._held, self._mask = held, mask

    def __call__(self, ids: Ids) -> Mask:
        """Which of these ids pass, ``(N,)`` bool; an id that was not there then does not."""
        held, mask = self._held, self._mask
        if not len(held) or not len(ids):
            return np.zeros(len(ids), np.bool_)
        first = int(np.searchsorted(held, ids[0]))
        if np.array_equal(held[first : first + len(ids)], ids):  # an index that holds what we hold, in our order
            return mask[first : first + len(ids)]
        at = np.minimum(np.searchsorted(held, ids), len(held) - 1)
        found: Mask = (held[at] == ids) & mask[at]
        return found


class Columns:
    """The templates of a store as a filter sees them. Safe to share between threads.

    The first filter is the store's own query: someone who asks once should not wait for every template to be read.
    From the second on the columns answer, but for labels and photos named one by one, which databases find by index.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._asked = False
        self._loaded = False
        self._sequence = 0
        self._gone = 0
        self._ids = _Growing("i8")
        self._enrolled = _Growing("i8")
        self._labels: _Coded[str | None] = _Coded()
        self._metadata: dict[str, _Coded[tuple[type, MetadataValue] | Absent]] = {}

    def passing(self, where: Where) -> Passing | Ids:
        """The templates that pass, over everything committed before the call.

        Returns  what the store found as ``(N,)`` int64 rising ids, what the columns found as a predicate.
        Raises   ArgumentInvalid; StoreError.
        """
        check_where(where)
        first, self._asked = not self._asked, True
        if first or where.labels is not None or where.photos is not None:
            return self._store.ids(where)
        with self._lock:
            self._refresh(where.metadata)
            return Passing(self._ids.used, self._mask(where))

    def _mask(self, where: Where) -> Mask:
        mask: Mask = self._labels.codes != _GONE
        if where.not_labels is not None:
            mask &= ~self._labels.among(where.not_labels)
        enrolled = self._enrolled.used
        if where.enrolled_after is not None:
            mask &= enrolled >= (where.enrolled_after - EPOCH) // MICROSECOND
        if where.enrolled_before is not None:
            mask &= enrolled < (where.enrolled_before - EPOCH) // MICROSECOND
        for key, value in where.metadata.items():
            mask &= self._metadata[key].among([(type(value), value)])
        return mask

    # ---- following the store ----

    def _refresh(self, keys: Iterable[str]) -> None:
        latest = self._store.sequence()
        unread = [key for key in keys if key not in self._metadata]
        if not self._loaded or unread:
            self._load([*self._metadata, *unread])
            self._sequence = latest
        while self._sequence < latest:
            changes = self._store.changes(self._sequence, _CHANGES_AT_ONCE)
            self._forget([c.id for c in changes if c.kind is ChangeKind.DELETED])
            newest = int(self._ids.used[-1]) if len(self._ids) else 0
            # What is newer is read with its present label; of what is here only a new label is news.
            if any(c.id > newest and c.kind is not ChangeKind.DELETED for c in changes):
                self._read(newest)
            self._relabel([c.id for c in changes if c.id <= newest and c.kind is ChangeKind.RELABELED])
            self._sequence = changes[-1].sequence if changes else latest
        if self._gone > max(1024, len(self._ids) // 2):
            self._load(list(self._metadata))

    def _load(self, keys: Sequence[str]) -> None:
        """Read all of it, with these keys of the metadata."""
        self._ids, self._enrolled, self._labels, self._gone = _Growing("i8"), _Growing("i8"), _Coded(), 0
        self._metadata = {key: _Coded() for key in keys}
        self._read(0)
        self._loaded = True

    def _read(self, after: int) -> None:
        for facts in self._store.facts(after, keys=list(self._metadata)):
            self._ids.extend(facts.ids)
            self._enrolled.extend(facts.enrolled)
            self._labels.extend(facts.labels)
            for key, column in self._metadata.items():
                column.extend(_typed(facts.metadata[key]))

    def _relabel(self, ids: Sequence[int]) -> None:
        labels = {stored.id: stored.template.label for stored in self._store.get(ids)}
        places = self._places(list(labels))
        self._labels.put(places, [labels[int(n)] for n in self._ids.used[places]])

    def _forget(self, ids: Sequence[int]) -> None:
        places = self._places(ids)
        if len(places):
            self._gone += len(places)
            self._labels.drop(places)
            for column in self._metadata.values():
                column.drop(places)

    def _places(self, ids: Sequence[int]) -> npt.NDArray[np.intp]:
        """Where these ids stand; those that are not here are left out."""
        held, wanted = self._ids.used, np.array(ids, np.int64)
        if not len(held):
            return np.empty(0, np.intp)
        at = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
        places: npt.NDArray[np.intp] = at[held[at] == wanted]
        return places


def _typed(values: Iterable[MetadataValue | Absent]) -> list[tuple[type, MetadataValue] | Absent]:
    """Values that are equal only when their types are too: 1, 1.0 and True are three."""
    return [ABSENT if value is ABSENT else (type(value), value) for value in values]


class _Growing:
    """A one-dimensional array with room at its end."""

    def __init__(self, dtype: str) -> None:
        self._room: npt.NDArray[Any] = np.empty(1024, dtype)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    @property
    def used(self) -> npt.NDArray[Any]:
        return self._room[: self._n]

    def extend(self, values: npt.ArrayLike) -> None:
        values = np.asarray(values, self._room.dtype)
        end = self._n + len(values)
        if end > len(self._room):
            room = np.empty(max(end, len(self._room) * 3 // 2), self._room.dtype)
            room[: self._n] = self.used
            self._room = room
        self._room[self._n : end] = values
        self._n = end


class _Coded(Generic[Value]):
    """A column of values, each written once and named by a small number; −1 where the template is gone."""

    def __init__(self) -> None:
        self._codes = _Growing("i4")
        self._names: dict[Value, int] = {}
        self._next = 0

    @property
    def codes(self) -> npt.NDArray[np.int32]:
        return self._codes.used

    def among(self, values: Iterable[Value]) -> Mask:
        """Which entries have one of these values; ``(N,)`` bool."""
        wanted = [self._names[value] for value in values if value in self._names]
        mask: Mask = self.codes == wanted[0] if len(wanted) == 1 else np.isin(self.codes, wanted)
        return mask

    def extend(self, values: Iterable[Value]) -> None:
        self._codes.extend([self._code(value) for value in values])

    def put(self, places: npt.NDArray[np.intp], values: Iterable[Value]) -> None:
        self.codes[places] = [self._code(value) for value in values]
        self._sweep()

    def drop(self, places: npt.NDArray[np.intp]) -> None:
        self.codes[places] = _GONE
        self._sweep()

    def _code(self, value: Value) -> int:
        code = self._names.get(value)
        if code is None:
            code = self._names[value] = self._next
            self._next += 1
        return code

    def _sweep(self) -> None:
        """Forget values that no entry has any more."""
        codes = self.codes
        alive = np.zeros(self._next + 1, np.bool_)  # one more: −1 falls on the last
        alive[codes] = True
        for value in [value for value, code in self._names.items() if not alive[code]]:
            del self._names[value]
