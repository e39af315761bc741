"""A part of an exact index: rows that were added together, their codes, ids and which of them are alive."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from facedex.search import codes, native
from facedex.search.contract import Ids
from facedex.types import Embeddings

Words: TypeAlias = npt.NDArray[np.uint32]
"""``(blocks,)`` uint32: bit r of word b stands for row ``32 b + r``."""


class Segment:
    """Room for ``capacity`` rows, of which the first ``n`` are in use; writing is the owner's, one at a time.

    A reader that was told of ``m <= n`` rows may go on reading them while more are appended: rows are written before
    ``n`` moves, and what is shared (largest error of a block, largest length) only grows, which loosens a bound but
    never breaks it.

    rows            (capacity, D) float32 as enrolled: memory, or a file that is mapped and read only for rescoring.
    ids             (capacity,) int64.
    live            uint32 words of bits; cleared bits are removed rows.
    packed4, codes8, e4, e8, mean, stats    see ``kernels/kernels.h``.
    """

    def __init__(
        self,
        rows: Embeddings,
        ids: Ids,
        quantizer: codes.Quantizer,
        backend: Any = None,
        arrays: dict[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        capacity, dimension = rows.shape
        blocks = codes.blocks(capacity)
        self.capacity = capacity
        self.dimension = dimension
        self.rows = rows
        self.ids = ids
        self.quantizer = quantizer
        self.backend = backend
        self.n = 0
        self.dead = 0
        self.encoded = 0
        self.rising = True
        self.live: Words = np.full(blocks, 0xFFFFFFFF, dtype=np.uint32)
        arrays = arrays if arrays is not None else empty_arrays(capacity, dimension, quantizer)
        self.arrays = arrays
        self._order: tuple[int, npt.NDArray[np.intp]] | None = None
        self.handle: Any = None
        if backend is not None:
            self.handle = backend.Segment(
                dimension, capacity, *(arrays[name] for name in ("packed4", "codes8", "e4", "e8")), quantizer.mean,
                arrays["stats"], rows, ids, self.live,
            )  # fmt: skip

    @classmethod
    def empty(cls, capacity: int, dimension: int, quantizer: codes.Quantizer, backend: Any) -> Segment:
        """Room in memory; rows that are not in use cost address space, not memory."""
        # from a cache line on: NumPy promises 16 bytes only, and loads across two lines cost twice
        spare = np.empty(capacity * dimension + 16, dtype=np.float32)
        start = -spare.ctypes.data % 64 // 4
        rows = spare[start : start + capacity * dimension].reshape(capacity, dimension)
        return cls(rows, np.empty(capacity, dtype=np.int64), quantizer, backend)

    def append(self, rows: Embeddings, ids: Ids) -> None:
        """Write rows behind the last; they must be valid and fit."""
        end = self.n + len(rows)
        self.rows[self.n : end] = rows
        self.ids[self.n : end] = ids
        self.finish(end)

    def finish(self, end: int) -> None:
        """Make rows that are already in place part of the segment."""
        fresh = self.ids[max(self.n - 1, 0) : end]
        self.rising = self.rising and bool(np.all(fresh[1:] > fresh[:-1]))
        if self.backend is not None:
            self.encode_until(end)
        self.n = end

    def encode_until(self, end: int) -> None:
        """Code the rows that are not yet; NumPy searches without codes, so without the kernel this waits for a save."""
        start, a = self.encoded, self.arrays
        if start >= end:
            return
        encode(self.backend, self.rows[start:end], start, self.quantizer, a)
        self.encoded = end

    def positions(self, ids: Ids, n: int) -> npt.NDArray[np.intp]:
        """Where ids stand among the first n rows and are alive, -1 where not; ``(N,)`` intp."""
        if n == 0 or len(ids) == 0:
            return np.full(len(ids), -1, dtype=np.intp)
        held = self.ids[:n]
        if self.rising:
            if int(held[-1]) - int(held[0]) == n - 1:  # no gaps
                place = (ids - held[0]).astype(np.intp)
                found = (ids >= held[0]) & (ids <= held[-1])
                at = np.where(found, place, 0)
            else:
                at = np.minimum(np.searchsorted(held, ids), n - 1)
                found = held[at] == ids
        else:
            # an id removed and added again stands here twice; stable order makes the last one the one that may live
            if self._order is None or self._order[0] != n:
                self._order = (n, np.argsort(held, kind="stable"))
            order = self._order[1]
            at = order[np.maximum(np.searchsorted(held, ids, side="right", sorter=order) - 1, 0)]
            found = held[at] == ids
        alive = (self.live[at // codes.BLOCK] >> (at % codes.BLOCK).astype(np.uint32)) & 1
        return np.where(found & (alive == 1), at, -1)

    def among(self, allowed: Ids, n: int) -> npt.NDArray[np.bool_]:
        """Which of the first n rows have one of these ids, removed ones or not; ``(n,)`` bool."""
        if n == 0 or len(allowed) == 0:
            return np.zeros(n, dtype=np.bool_)
        held = self.ids[:n]
        low, high = (held[0], held[-1]) if self.rising else (held.min(), held.max())
        span = int(high) - int(low) + 1
        if span > 16 * n or (span != n and 20 * len(allowed) < n):
            mask = np.zeros(n, dtype=np.bool_)
            positions = self.positions(allowed, n)
            mask[positions[positions >= 0]] = True
            return mask
        # a place for every id there could be: nothing is sorted or searched
        if int(allowed.min()) < low or int(allowed.max()) > high:
            allowed = allowed[(allowed >= low) & (allowed <= high)]
        table = np.zeros(span, dtype=np.bool_)
        table[allowed - low if low else allowed] = True
        if self.rising and span == n:
            return table
        return table[held - low if low else held]

    def alive(self, n: int) -> npt.NDArray[np.bool_]:
        """Which of the first n rows can be found; ``(n,)`` bool."""
        return bits_of(self.live, n)

    def clear(self, positions: npt.NDArray[np.intp]) -> None:
        """Remove rows, by distinct positions."""
        bits = np.left_shift(np.uint32(1), (positions % codes.BLOCK).astype(np.uint32))
        np.bitwise_and.at(self.live, positions // codes.BLOCK, ~bits)
        self.dead += len(positions)


def empty_arrays(capacity: int, dimension: int, quantizer: codes.Quantizer) -> dict[str, npt.NDArray[Any]]:
    """Codes, bounds and stats of a segment into which nothing has been coded yet."""
    wide, blocks = codes.padded(dimension), codes.blocks(capacity)
    stats = np.zeros(codes.stats_size(dimension))
    stats[codes.STEP4], stats[codes.STEP8] = quantizer.step4, quantizer.step8
    return {
        "packed4": np.zeros(blocks * wide * codes.BLOCK // 2, dtype=np.uint8),
        "codes8": np.zeros(blocks * wide * codes.BLOCK, dtype=np.uint8),
        "e4": np.zeros(blocks, dtype=np.float32),
        "e8": np.zeros(capacity, dtype=np.float32),
        "stats": stats,
    }


def encode(
    backend: Any, rows: Embeddings, first: int, quantizer: codes.Quantizer, arrays: dict[str, npt.NDArray[Any]]
) -> int:
    """Code rows as rows ``first…`` of a segment's arrays; the first that is not of unit length, or -1.

    Without the kernel nothing is checked.
    """
    parts = [arrays[name] for name in ("packed4", "codes8", "e4", "e8", "stats")]
    if backend is not None:
        return int(backend.encode(rows.shape[1], first, len(rows), rows, quantizer.mean, *parts))
    codes.encode(rows, first, quantizer.mean, *parts)
    return -1


def words_of(mask: npt.NDArray[np.bool_]) -> Words:
    """``(n,)`` bool to uint32 words of bits."""
    packed = np.packbits(mask, bitorder="little")
    words = np.zeros(codes.blocks(len(mask)) * 4, dtype=np.uint8)
    words[: len(packed)] = packed
    return words.view("<u4").astype(np.uint32, copy=False)


def bits_of(words: Words, n: int) -> npt.NDArray[np.bool_]:
    """The first n bits of words; ``(n,)`` bool."""
    octets = words.astype("<u4", copy=False).view(np.uint8)
    return np.unpackbits(octets, count=n, bitorder="little").view(np.bool_)


def native_backend(kernel: str) -> Any:
    """The compiled module for a kernel's name, None for NumPy."""
    return None if kernel == native.NUMPY else native.module
