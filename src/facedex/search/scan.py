"""Exact search in plain NumPy, for machines without the compiled kernel: the same answers.

A float32 product proposes; the rounding of a float32 sum of D products bounds how wrong it is (Higham 2002, section
3.1: at most ``D u / (1 - D u)`` times the lengths, whatever the order of summation); whoever can still be among the k
best is scored again as the reference does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from facedex.search import codes, reference
from facedex.search.contract import Ids
from facedex.types import Embeddings

_ROWS = 16384
_PROBES = 256

Part = tuple[Embeddings, Ids, npt.NDArray[np.bool_] | None]
"""Rows (N, D) float32, their ids (N,), and which may be an answer (N,), None for all."""


def search(parts: Sequence[Part], probes: Embeddings, k: int) -> tuple[npt.NDArray[np.float32], Ids]:
    """As ``reference.search`` over all parts; memory for 16,384 x 256 similarities at a time."""
    best = np.full((len(probes), k), -np.inf, dtype=np.float32)
    who = np.full((len(probes), k), -1, dtype=np.int64)
    for start in range(0, len(probes), _PROBES):
        some = probes[start : start + _PROBES]
        for q, (rows, ids) in enumerate(_candidates(parts, some, k)):
            scores = reference.similarities(rows, some[q])
            order = np.lexsort((ids, -scores))[:k]
            best[start + q, : len(order)] = scores[order]
            who[start + q, : len(order)] = ids[order]
    return best, who


def _candidates(parts: Sequence[Part], probes: Embeddings, k: int) -> list[tuple[Embeddings, Ids]]:
    """Per probe the rows, and their ids, that the bound cannot exclude."""
    unit = 2.0**-24
    dimension = probes.shape[1]
    error = np.float32(1.01 * dimension * unit / (1 - dimension * unit) * (1 + 2 * codes.UNIT_TOLERANCE) + 1e-7)
    lower = np.full((len(probes), 0), 0, dtype=np.float32)  # the k best lower bounds so far
    found: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.float32], Embeddings, Ids]] = []
    floor = np.full(len(probes), -np.inf, dtype=np.float32)
    for rows, ids, passing in parts:
        for start in range(0, len(rows), _ROWS):
            part, part_ids = rows[start : start + _ROWS], ids[start : start + _ROWS]
            if passing is not None:
                keep = passing[start : start + _ROWS]
                if not keep.any():
                    continue
                part, part_ids = part[keep], part_ids[keep]
            scores = probes @ part.T
            lower = np.concatenate([lower, scores - error], axis=1)
            if lower.shape[1] > k:
                lower = np.partition(lower, lower.shape[1] - k, axis=1)[:, lower.shape[1] - k :]
            if lower.shape[1] == k:
                floor = lower.min(axis=1)
            which, row = np.nonzero(scores + error >= floor[:, None])
            used, row = np.unique(row, return_inverse=True)
            upper = scores[which, used[row]] + error
            found.append((np.stack([which, row]), upper, part[used], part_ids[used]))
    result = []
    for q in range(len(probes)):
        rows_q, ids_q = [], []
        for (which, row), upper, part, part_ids in found:
            first, last = np.searchsorted(which, (q, q + 1))
            mine = row[first:last][upper[first:last] >= floor[q]]
            rows_q.append(part[mine])
            ids_q.append(part_ids[mine])
        result.append(
            (np.concatenate(rows_q), np.concatenate(ids_q))
            if rows_q
            else (np.empty((0, dimension), dtype=np.float32), np.empty(0, dtype=np.int64))
        )
    return result
