"""An exact index written to its file as its rows come: memory holds the codes of one segment, never the rows.

A gallery of ten million faces of 128 dimensions is 5 GB of float32; written this way it needs about 0.4 GB of memory,
and what is opened afterwards is mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import Any, BinaryIO

import numpy as np

from facedex.errors import EmbeddingInvalid
from facedex.search import codes, snapshot
from facedex.search.checks import not_unit
from facedex.search.contract import Ids
from facedex.search.segment import empty_arrays, encode
from facedex.types import Embeddings

SAMPLE = 16384
"""Rows a quantizer is fitted to."""

_CODES_AT_MOST = 1 << 28
_ROWS_AT_MOST = 1 << 20


def rows_of_segment(dimension: int) -> int:
    """Rows whose codes take 256 MB, at most a million; whole blocks."""
    rows = min(_CODES_AT_MOST * 2 // (3 * codes.padded(dimension)), _ROWS_AT_MOST)
    return rows // codes.BLOCK * codes.BLOCK


class _Growing:
    """The segment at the end of the file: its rows are on disk already, its codes in memory until it is full."""

    def __init__(self, file: BinaryIO, dimension: int, backend: Any, before: int) -> None:
        self._file, self._dimension, self._backend, self._before = file, dimension, backend, before
        self._capacity = rows_of_segment(dimension)
        self._place = snapshot.align(file)
        self._ids: list[Ids] = []
        self._waiting: list[Embeddings] = []  # for a quantizer
        self._quantizer: codes.Quantizer | None = None
        self._coded = 0
        self.n = 0

    @property
    def room(self) -> int:
        return self._capacity - self.n

    def append(self, ids: Ids, rows: Embeddings) -> None:
        self._file.write(np.ascontiguousarray(rows, dtype="<f4").reshape(-1).view(np.uint8).data)
        self._ids.append(ids.copy())
        self.n += len(rows)
        if self._quantizer is not None:
            self._code(rows)
            return
        self._waiting.append(rows.copy())
        if self.n >= SAMPLE:
            self._fit()

    def _fit(self) -> None:
        rows = np.concatenate(self._waiting)
        self._waiting = []
        bad = codes.first_not_unit(rows)
        if bad >= 0:
            raise not_unit(self._before + bad, rows[bad], "Embedding")
        self._quantizer = codes.fit(rows)
        self._arrays = empty_arrays(self._capacity, self._dimension, self._quantizer)
        self._code(rows)

    def _code(self, rows: Embeddings) -> None:
        assert self._quantizer is not None
        bad = codes.first_not_unit(rows) if self._backend is None else -1
        if bad < 0:
            bad = encode(self._backend, rows, self._coded, self._quantizer, self._arrays)
        if bad >= 0:
            raise not_unit(self._before + self._coded + bad, rows[bad], "Embedding")
        self._coded += len(rows)

    def finish(self) -> dict[str, Any]:
        """Write what belongs to the rows; the entry of the table."""
        if self._quantizer is None:
            self._fit()
        assert self._quantizer is not None
        n = self.n
        sections = {"rows": [self._place, snapshot.checksum_of(self._file, self._place, n * self._dimension * 4)]}
        arrays = {**self._arrays, "mean": self._quantizer.mean, "ids": np.concatenate(self._ids)}
        for name, shape in snapshot.shapes(self._dimension, n).items():
            if name != "rows":
                sections[name] = snapshot.write_section(self._file, name, arrays[name][: shape[0]])
        return {"n": n, "sections": sections}


def write(
    path: str | PathLike[str],
    dimension: int,
    batches: Iterable[tuple[Ids, Embeddings]],
    facts: Callable[[int], Mapping[str, Any]],
    backend: Any,
) -> int:
    """Write an index of all batches; the file appears whole or not at all.

    batches  ids (n,) int64, rising over all batches, and embeddings (n, D) float32: checked by whoever hands them in.
    facts    is asked for the owner's facts, with the largest id, when all has been read.
    Returns  how many rows.
    Raises   EmbeddingInvalid for a row that is not of unit length or when there is none, IndexUnavailable.
    """
    entries: list[dict[str, Any]] = []
    done, last = 0, -1
    segment: _Growing | None = None
    with snapshot.new_file(path) as file:
        for ids, rows in batches:
            for start in range(0, len(rows), SAMPLE):
                part_ids, part = ids[start : start + SAMPLE], rows[start : start + SAMPLE]
                while len(part):
                    if segment is None:
                        segment = _Growing(file, dimension, backend, done)
                    room = segment.room
                    segment.append(part_ids[:room], part[:room])
                    done, last = done + len(part[:room]), int(part_ids[:room][-1])
                    part_ids, part = part_ids[room:], part[room:]
                    if segment.room == 0:
                        entries.append(segment.finish())
                        segment = None
        if segment is not None:
            entries.append(segment.finish())
        if not done:
            raise EmbeddingInvalid("There are no embeddings to build from.")
        snapshot.write_table(file, dimension, entries, last + 1, facts(last))
    return done
