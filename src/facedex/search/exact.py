"""The exact index: compressed scan, certified by its error bound, rescored in float64.

How an answer comes about is told in ``kernels/kernels.h``; this room holds what surrounds the scan: segments that grow,
removal, filters, and the checks of what callers hand in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from os import PathLike
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, EmbeddingInvalid
from facedex.search import codes, native, scan, snapshot, stream
from facedex.search.checks import as_ids, check_rows, check_unit, not_unit, whole
from facedex.search.contract import Allowed, Ids
from facedex.search.segment import Segment, Words, bits_of, native_backend, words_of
from facedex.types import Embeddings

_TAIL = 1024
_LARGEST_TAIL = 1 << 20
_SAMPLE = 16384


@dataclass(frozen=True, slots=True)
class _State:
    """What a search works on: swapped as a whole, so that a reader needs no lock.

    counts  rows of each segment that were in use then; appended ones beyond are not seen.
    """

    segments: tuple[Segment, ...]
    counts: tuple[int, ...]
    handles: tuple[Any, ...]
    version: int

    @property
    def rows(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, slots=True, eq=False)
class Filter:
    """A ``where`` worked out for one state of an index; made by ``ExactIndex.filter``, for use in many searches."""

    index: ExactIndex
    state: Any
    words: tuple[Words, ...]


class ExactIndex:
    """Exact cosine top k on CPU; see ``facedex.search.contract.Index`` for what every method promises.

    A search is decided at one moment between its call and its return: rows added or removed before the call are, rows
    removed while it runs are not part of the answer unless the answer was decided first.
    """

    def __init__(self, dimension: int, kernel: str | None = None) -> None:
        """An empty index.

        dimension  D, 1…4096.
        kernel     which kernel scans; default the fastest that runs here. See ``facedex.search.native.kernels``.
        """
        if not 1 <= dimension <= codes.MAX_DIMENSION:
            raise ArgumentInvalid(
                f"Embeddings have {dimension} dimensions; from 1 to {codes.MAX_DIMENSION} can be searched.",
                dimension=dimension,
            )
        self._dimension = dimension
        self._kernel = native.resolve(kernel)
        self._backend = native_backend(self._kernel)
        self._lock = threading.RLock()
        self._quantizer: codes.Quantizer | None = None
        self._trained_on = 0
        self._next_id = 0
        self._dead = 0
        self._saved: snapshot.Snapshot | None = None
        self._trusted = True
        self._state = _State((), (), (), 0)
        self.facts: Mapping[str, Any] = {}
        """What was given to ``save`` with the file this was opened from."""

    # ---- making one ----

    @classmethod
    def build(
        cls,
        embeddings: Embeddings | Iterable[Embeddings],
        ids: npt.ArrayLike | None = None,
        *,
        kernel: str | None = None,
    ) -> Self:
        """An index of all rows.

        embeddings  (N, D) float32, unit rows; or an iterable of such batches, each coded before the next is asked for.
        ids         (N,) int64, not negative, each once; default 0…N-1.
        Raises      EmbeddingInvalid, DimensionMismatch, ArgumentInvalid.
        """
        batches: Iterator[Embeddings]
        if isinstance(embeddings, np.ndarray):
            batches = iter((embeddings,))
        elif isinstance(embeddings, Iterable):
            batches = iter(embeddings)
        else:
            raise EmbeddingInvalid(
                f"Embeddings are a {type(embeddings).__name__}; expected a float32 array of shape (N, D) or batches."
            )
        first = next(batches, None)
        if first is None:
            raise EmbeddingInvalid(
                "There are no embeddings to build from, so D is not known; use ExactIndex(dimension)."
            )
        if not isinstance(first, np.ndarray) or first.ndim != 2:
            raise EmbeddingInvalid("Embeddings must be a float32 array of shape (N, D).", shape=np.shape(first))
        index = cls(first.shape[1], kernel)
        known = None if ids is None else as_ids(ids)
        start = 0
        batch: Embeddings | None = first
        while batch is not None:
            part = None if known is None else known[start : start + len(batch)]
            if part is not None and len(part) != len(batch):
                break
            index.add(batch, part)
            start += len(batch)
            batch = next(batches, None)
        if known is not None and (batch is not None or start != len(known)):
            raise ArgumentInvalid(
                f"{len(known)} ids do not fit the number of embeddings; give one id for each.", ids=len(known)
            )
        return index

    @classmethod
    def open(cls, path: str | PathLike[str], *, kernel: str | None = None) -> Self:
        """A saved index, mapped from its file: nothing large is read until a search needs it.

        Raises  IndexCorrupt, IndexVersion, IndexUnavailable. The large codes are checked by the first search,
                the embeddings themselves by ``verify``.
        """
        saved = snapshot.Snapshot.open(path)
        try:
            index = cls(saved.dimension, kernel)
            segments = saved.segments(index._backend)
        except (ArgumentInvalid, ValueError) as error:
            raise snapshot.corrupt(path, str(error)) from error
        index._quantizer = segments[-1].quantizer if segments else None
        index._trained_on = sum(s.n for s in segments)
        index._next_id = saved.next_id
        index._saved, index._trusted = saved, False
        index.facts = saved.facts
        index._publish(tuple(segments))
        return index

    @classmethod
    def stream(
        cls,
        path: str | PathLike[str],
        batches: Iterable[tuple[Ids, Embeddings]],
        facts: Callable[[int], Mapping[str, Any]] = lambda _: {},
        *,
        kernel: str | None = None,
    ) -> Self:
        """Write an index to a file while its rows come, and open it: for galleries that do not fit in memory.

        batches  ids (n,) int64, not negative and rising over all batches, with embeddings (n, D) float32, unit rows.
        facts    JSON values that the owner wants back from ``open``, asked for at the end with the largest id.
        Raises   EmbeddingInvalid, also when there are no rows; DimensionMismatch, ArgumentInvalid, IndexUnavailable;
                 a file that was there before is then untouched.
        """
        remaining = iter(batches)
        first = next(remaining, None)
        if first is None:
            raise EmbeddingInvalid("There are no embeddings to build from.")
        index = cls(np.shape(first[1])[-1] if np.ndim(first[1]) else 0, kernel)

        def checked() -> Iterator[tuple[Ids, Embeddings]]:
            last = -1
            for given, embeddings in chain((first,), remaining):
                rows, ids = check_rows(embeddings, index._dimension, "Embeddings"), as_ids(given)
                if len(ids) != len(rows):
                    raise ArgumentInvalid(
                        f"{len(ids)} ids for {len(rows)} embeddings; give one id for each.",
                        ids=len(ids), embeddings=len(rows),
                    )  # fmt: skip
                if not len(ids):
                    continue
                if int(ids[0]) <= last or not bool(np.all(ids[1:] > ids[:-1])):
                    raise ArgumentInvalid(f"Ids do not rise after {last}; a file is written in the order of ids.")
                last = int(ids[-1])
                yield ids, rows

        stream.write(path, index.dimension, checked(), facts, index._backend)
        opened = cls.open(path, kernel=kernel)
        opened._trusted = True  # written a moment ago by ourselves
        return opened

    def save(self, path: str | PathLike[str], facts: Mapping[str, Any] | None = None) -> None:
        """Write the index to a file, whole or not at all; removed rows are not in it.

        facts   JSON values that the owner wants back from ``open``.
        Raises  IndexUnavailable when it cannot be written; a file that was there before is then untouched.
        """
        with self._lock:
            self._check_saved()
            state = self._state
            snapshot.write(path, self._dimension, list(self._compact(state)), self._next_id, facts or {})

    def verify(self) -> None:
        """Check every byte of the file this index was opened from. Raises IndexCorrupt."""
        if self._saved is not None:
            self._saved.verify()

    def _compact(self, state: _State) -> Iterator[Segment]:
        """The segments as a file should hold them: full, without removed rows, few."""
        loose: list[tuple[Segment, int]] = []
        for segment, n in zip(state.segments, state.counts, strict=True):
            full = segment.dead == 0 and n == segment.capacity
            if full and (len(state.segments) == 1 or n >= _LARGEST_TAIL // 4):
                segment.encode_until(n)
                yield segment
            else:
                loose.append((segment, n))
        rows = sum(n - segment.dead for segment, n in loose)
        if rows == 0:
            return
        merged = Segment.empty(rows, self._dimension, loose[-1][0].quantizer, self._backend)
        for segment, n in loose:
            alive = segment.alive(n)
            for start in range(0, n, 65536):
                some = slice(start, min(n, start + 65536))
                keep = alive[some]
                merged.append(segment.rows[some][keep], segment.ids[some][keep])
        merged.encode_until(rows)
        yield merged

    # ---- what is in it ----

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def kernel(self) -> str:
        """Name of the kernel that scans."""
        return self._kernel

    def __len__(self) -> int:
        with self._lock:
            return self._state.rows - self._dead

    @property
    def ids(self) -> Ids:
        with self._lock:
            parts = [s.ids[:n][s.alive(n)] for s, n in zip(self._state.segments, self._state.counts, strict=True)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def __contains__(self, id_: int) -> bool:
        return bool(self.contains(np.array([id_], dtype=np.int64))[0])

    def contains(self, ids: Ids) -> npt.NDArray[np.bool_]:
        with self._lock:
            return self._alive(ids)

    @property
    def hot_bytes(self) -> int:
        """Memory that searching touches all the time: codes, bounds, ids and bits; not the float32 rows."""
        state = self._state
        return sum(
            sum(a.nbytes for a in s.arrays.values()) + s.ids.nbytes + s.live.nbytes + s.quantizer.mean.nbytes
            for s in state.segments
        )

    def _alive(self, ids: Ids) -> npt.NDArray[np.bool_]:
        found = np.zeros(len(ids), dtype=np.bool_)
        for segment, n in zip(self._state.segments, self._state.counts, strict=True):
            found |= segment.positions(ids, n) >= 0
        return found

    # ---- changing it ----

    def add(self, embeddings: Embeddings, ids: npt.ArrayLike | None = None) -> None:
        rows = check_rows(embeddings, self._dimension, "Embeddings")
        check_unit(rows, "Embedding")
        with self._lock:
            if ids is None:
                fresh = np.arange(self._next_id, self._next_id + len(rows), dtype=np.int64)
            else:
                fresh = as_ids(ids)
                if len(fresh) != len(rows):
                    raise ArgumentInvalid(
                        f"{len(fresh)} ids for {len(rows)} embeddings; give one id for each.",
                        ids=len(fresh), embeddings=len(rows),
                    )  # fmt: skip
                self._refuse_duplicates(fresh)
            if len(rows) == 0:
                return
            self._append(rows, fresh)
            self._next_id = max(self._next_id, int(fresh.max()) + 1)

    def _refuse_duplicates(self, ids: Ids) -> None:
        if not bool(np.all(ids[1:] > ids[:-1])):
            ordered = np.sort(ids)
            again = ordered[1:][ordered[1:] == ordered[:-1]]
            if again.size:
                raise ArgumentInvalid(f"Id {again[0]} is given twice; each row needs its own.", id=int(again[0]))
        if ids.size and int(ids.min()) < self._next_id:
            held = ids[self._alive(ids)]
            if held.size:
                raise ArgumentInvalid(f"Id {held[0]} is in the index already; remove it first.", id=int(held[0]))

    def _append(self, rows: Embeddings, ids: Ids) -> None:
        state = self._state
        segments = list(state.segments)
        tail = segments[-1] if segments and segments[-1].n < segments[-1].capacity else None
        if tail is not None:
            room = min(tail.capacity - tail.n, len(rows))
            tail.append(rows[:room], ids[:room])
            rows, ids = rows[room:], ids[room:]
        while len(rows):
            total = sum(s.n for s in segments)
            if self._quantizer is None or total + len(rows) >= 8 * max(self._trained_on, 64):
                sample = rows if len(rows) <= _SAMPLE else rows[:: len(rows) // _SAMPLE]
                self._quantizer = codes.fit(sample)
                self._trained_on = max(total + len(rows), 64)
            capacity = len(rows)
            if segments or capacity < _TAIL:  # it will grow: leave room
                capacity = max(capacity, _TAIL, min(total // 4, _LARGEST_TAIL))
            capacity = min(capacity, 1 << 31)
            segment = Segment.empty(capacity, self._dimension, self._quantizer, self._backend)
            for start in range(0, min(len(rows), capacity), 65536):
                segment.append(rows[start : start + 65536], ids[start : start + 65536])
            segments.append(segment)
            rows, ids = rows[capacity:], ids[capacity:]
        self._publish(tuple(segments))

    def _publish(self, segments: tuple[Segment, ...]) -> None:
        self._state = _State(
            segments, tuple(s.n for s in segments), tuple(s.handle for s in segments), self._state.version + 1
        )

    def remove(self, ids: npt.ArrayLike) -> int:
        gone = np.unique(as_ids(ids))
        removed = 0
        with self._lock:
            state = self._state
            for segment, n in zip(state.segments, state.counts, strict=True):
                positions = segment.positions(gone, n)
                positions = positions[positions >= 0]
                if positions.size:
                    segment.clear(positions)
                    removed += len(positions)
            if removed:
                self._dead += removed
                self._state = _State(state.segments, state.counts, state.handles, state.version + 1)
        return removed

    # ---- searching ----

    def search(
        self,
        probes: Embeddings,
        k: int = 10,
        threads: int | None = None,
        where: Allowed | Filter | None = None,
    ) -> tuple[npt.NDArray[np.float32], Ids]:
        if not self._trusted:
            self._check_saved()
        rows = check_rows(probes, self._dimension, "Probes")
        if not isinstance(k, int) or k < 1:
            k = whole(k, "k")
        if threads is None:
            threads = native.cores()
        elif not isinstance(threads, int) or threads < 1:
            threads = whole(threads, "threads")
        while True:
            state = self._state
            if where is None:
                words = None
            else:
                chosen = where if isinstance(where, Filter) else self.filter(where)
                state, words = self._of_filter(chosen)
            answer = self._scan(state, rows, k, threads, words)
            if self._state.version == state.version or self._still_true(answer[1]):
                return answer

    def _scan(
        self, state: _State, probes: Embeddings, k: int, threads: int, words: tuple[Words, ...] | None
    ) -> tuple[npt.NDArray[np.float32], Ids]:
        n = len(probes)
        if self._backend is None:
            check_unit(probes, "Probe")
            parts = []
            for i, (segment, count) in enumerate(zip(state.segments, state.counts, strict=True)):
                live = segment.live if words is None else segment.live[: codes.blocks(count)] & words[i]
                passing = None if words is None and segment.dead == 0 else bits_of(live, count)
                parts.append((segment.rows[:count], segment.ids[:count], passing))
            return scan.search(parts, probes, k)
        similarities = np.empty((n, k), dtype=np.float32)
        ids = np.empty((n, k), dtype=np.int64)
        bad, _, _ = self._backend.search(
            self._dimension, state.handles, state.counts, words, probes, n, k, threads, similarities, ids, None,
            self._kernel,
        )  # fmt: skip
        if bad >= 0:
            raise not_unit(bad, probes[bad], "Probe")
        return similarities, ids

    def _still_true(self, ids: Ids) -> bool:
        """Whether no row of an answer has been removed since; decided under the lock, so against finished removals."""
        with self._lock:
            found = ids[ids >= 0]
            return bool(self._alive(np.unique(found)).all())

    def filter(self, where: Allowed) -> Filter:
        """Work out a ``where`` once, for many searches.

        where    allowed ids, a bool mask over ``ids``, or a predicate of all ids; see ``contract.Allowed``.
        Returns  a filter for ``search``; rows added later do not pass it, rows removed later are not found.
        Raises   ArgumentInvalid.
        """
        with self._lock:
            state = self._state
            segments = list(zip(state.segments, state.counts, strict=True))
            if callable(where):
                words = []
                for segment, n in segments:
                    held = segment.ids[:n]
                    held.flags.writeable = False
                    mask = np.asarray(where(held))
                    if mask.dtype != np.bool_ or mask.shape != (n,):
                        raise ArgumentInvalid(
                            f"The predicate gave {mask.dtype} of shape {mask.shape} for {n} ids; "
                            f"it must give one bool for each.", dtype=str(mask.dtype), shape=mask.shape,
                        )  # fmt: skip
                    words.append(words_of(mask))
                return Filter(self, state, tuple(words))
            if isinstance(where, np.ndarray) and where.dtype == np.bool_:
                if where.shape != (len(self),):
                    raise ArgumentInvalid(
                        f"The mask has shape {where.shape} but the index holds {len(self)} rows; "
                        f"it must have one bool for each of index.ids.", shape=where.shape, rows=len(self),
                    )  # fmt: skip
                words, start = [], 0
                for segment, n in segments:
                    if segment.dead:
                        mask = segment.alive(n)
                        count = int(np.count_nonzero(mask))
                        mask[mask] = where[start : start + count]
                    else:
                        count, mask = n, np.asarray(where[start : start + n], dtype=np.bool_)
                    start += count
                    words.append(words_of(mask))
                return Filter(self, state, tuple(words))
            allowed = as_ids(where, negative=True)
            return Filter(self, state, tuple(words_of(segment.among(allowed, n)) for segment, n in segments))

    def _of_filter(self, chosen: Filter) -> tuple[_State, tuple[Words, ...]]:
        """The newest state in which the rows of a filter's state stand where they stood."""
        if chosen.index is not self:
            raise ArgumentInvalid("The filter was made by another index; make it with this one's filter().")
        made: _State = chosen.state
        now = self._state
        if now.version == made.version:
            return now, chosen.words
        # appended rows lie beyond the counts of then, removed ones have their bit cleared
        return _State(made.segments, made.counts, made.handles, now.version), chosen.words

    # ---- checks ----

    def _check_saved(self) -> None:
        """The first search after opening checks the codes it is about to trust."""
        if self._saved is not None and not self._trusted:
            self._saved.verify_codes(self._backend)
            self._trusted = True
