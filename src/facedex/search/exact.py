"""Exact search as one float32 matrix product, certified against the float64 reference.

The product proposes; its rounding error is bounded; every row that could belong to the k best is scored again in
float64. So the answer is the reference's, whatever the BLAS does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Self

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, DimensionMismatch, EmbeddingInvalid
from facedex.search.contract import Ids

_PROBES_AT_ONCE = 64


class ExactIndex:
    """Embeddings in one float32 matrix in memory. Safe to share between threads."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._lock = threading.RLock()
        self._rows = np.empty((0, dimension), np.float32)
        self._ids = np.empty(0, np.int64)
        self._used = 0

    @classmethod
    def build(cls, embeddings: npt.NDArray[np.float32], ids: Ids | None = None) -> Self:
        """An index of (N, D) float32 unit rows; ids default to 0…N-1."""
        _check_rows(embeddings, None)
        index = cls(embeddings.shape[1])
        index.add(embeddings, np.arange(len(embeddings), dtype=np.int64) if ids is None else ids)
        return index

    def __len__(self) -> int:
        return self._used

    def add(self, embeddings: npt.NDArray[np.float32], ids: Ids) -> None:
        """Add (N, D) float32 unit rows under N new ids.

        Raises  DimensionMismatch, EmbeddingInvalid; ArgumentInvalid for ids that are not new, distinct and ≥ 0.
        """
        _check_rows(embeddings, self.dimension)
        ids = np.asarray(ids)
        if ids.shape != (len(embeddings),) or ids.dtype != np.int64 or (len(ids) and ids.min() < 0):
            raise ArgumentInvalid(
                f"ids must be ({len(embeddings)},) int64, none negative; got {ids.shape} {ids.dtype}."
            )
        with self._lock:
            if len(np.unique(ids)) != len(ids) or np.isin(ids, self._ids[: self._used]).any():
                raise ArgumentInvalid("each id may be in the index once; some of these are there or given twice.")
            end = self._used + len(ids)
            if end > len(self._ids):
                room = max(end, 2 * len(self._ids), 1024)
                rows, known = np.empty((room, self.dimension), np.float32), np.empty(room, np.int64)
                rows[: self._used], known[: self._used] = self._rows[: self._used], self._ids[: self._used]
                self._rows, self._ids = rows, known
            self._rows[self._used : end], self._ids[self._used : end] = embeddings, ids
            self._used = end

    def remove(self, ids: Ids | Iterable[int]) -> None:
        """Forget these ids; unknown ones are passed over."""
        gone = np.fromiter(ids, np.int64)
        with self._lock:
            keep = ~np.isin(self._ids[: self._used], gone)
            self._rows, self._ids = self._rows[: self._used][keep], self._ids[: self._used][keep]
            self._used = len(self._ids)

    def contains(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which of these ids are in the index."""
        with self._lock:
            return np.isin(ids, self._ids[: self._used])

    def search(
        self, probes: npt.NDArray[np.float32], k: int = 10, *, where: Ids | None = None
    ) -> tuple[npt.NDArray[np.float32], Ids]:
        """The k most similar rows of each probe: see ``contract.Index.search``."""
        _check_rows(probes, self.dimension)
        if k < 1:
            raise ArgumentInvalid(f"k must be at least 1, got {k}.", k=k)
        with self._lock:
            rows, ids = self._rows[: self._used], self._ids[: self._used]
        if where is not None:
            keep = np.isin(ids, where)
            rows, ids = rows[keep], ids[keep]
        similarities = np.full((len(probes), k), -np.inf, np.float32)
        found = np.full((len(probes), k), -1, np.int64)
        if not len(ids):
            return similarities, found
        for start in range(0, len(probes), _PROBES_AT_ONCE):
            products = probes[start : start + _PROBES_AT_ONCE] @ rows.T
            for q, scores in enumerate(products, start):
                best, order = self._certified(probes[q], rows, ids, scores, min(k, len(ids)))
                similarities[q, : len(order)], found[q, : len(order)] = best, ids[order]
        return similarities, found

    def _certified(
        self,
        probe: npt.NDArray[np.float32],
        rows: npt.NDArray[np.float32],
        ids: Ids,
        scores: npt.NDArray[np.float32],
        k: int,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
        # |float32 product - exact| ≤ γ·‖a‖‖b‖ with γ = Du/(1-Du), u = 2^-24 (Higham 2002, §3.1), rows of norm ≤ 1.001.
        margin = 2.1 * self.dimension * 2.0**-24
        floor = np.partition(scores, len(scores) - k)[len(scores) - k] - 2 * margin
        near = np.flatnonzero(scores >= floor)
        exact = (rows[near].astype(np.float64) * probe.astype(np.float64)).sum(axis=1)
        order = np.lexsort((ids[near], -exact))[:k]
        return exact[order], near[order]


def _check_rows(rows: npt.NDArray[np.float32], dimension: int | None) -> None:
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype != np.float32:
        shape, dtype = getattr(rows, "shape", None), getattr(rows, "dtype", type(rows).__name__)
        raise EmbeddingInvalid(f"embeddings must be an (N, D) float32 array, got shape {shape} of {dtype}.")
    if dimension is not None and rows.shape[1] != dimension:
        raise DimensionMismatch(
            f"embeddings have shape {rows.shape}, the index holds {dimension} dimensions. Search and enroll with "
            "the same model.",
            expected=dimension,
            got=rows.shape[1],
        )
    if not np.isfinite(rows).all():
        raise EmbeddingInvalid("embeddings hold NaN or infinite values.")
    norms = np.linalg.norm(rows, axis=1)
    if len(norms) and np.abs(norms - 1).max() > 1e-3:
        raise EmbeddingInvalid(f"embeddings must have norm 1, one has {norms[np.abs(norms - 1).argmax()]:.4f}.")
