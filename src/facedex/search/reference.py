"""The oracle: what an exact search must answer, written to be obviously right.

A similarity is the sum of the products of two float32 embeddings in float64. Each product is exact in float64; the
additions round, so their order is part of the definition: dimension ``d`` is added to lane ``d % 8``, in rising order,
and the lanes are folded in halves. Any machine that follows it gets the same bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from facedex.search.contract import Ids
from facedex.types import Embedding, Embeddings


def similarities(rows: Embeddings, probe: Embedding) -> npt.NDArray[np.float64]:
    """Cosine of each row with the probe.

    rows     (N, D) float32, unit rows.
    probe    (D,) float32, unit length.
    Returns  (N,) float64.
    """
    lanes = np.zeros((len(rows), 8))
    for start in range(0, rows.shape[1], 8):
        products = rows[:, start : start + 8].astype(np.float64) * probe[start : start + 8].astype(np.float64)
        lanes[:, : products.shape[1]] += products
    four = lanes[:, :4] + lanes[:, 4:]
    two = four[:, :2] + four[:, 2:]
    total: npt.NDArray[np.float64] = two[:, 0] + two[:, 1]
    return total


def search(rows: Embeddings, ids: Ids, probes: Embeddings, k: int = 10) -> tuple[npt.NDArray[np.float32], Ids]:
    """The k rows most similar to each probe: similarity in float64 descending, then id ascending.

    rows     (N, D) float32, unit rows.
    ids      (N,) int64.
    probes   (Q, D) float32, unit rows.
    Returns  similarities (Q, k) float32; ids (Q, k) int64; padded with -inf and -1 when N < k.
    """
    best = np.full((len(probes), k), -np.inf, dtype=np.float32)
    who = np.full((len(probes), k), -1, dtype=np.int64)
    for q, probe in enumerate(probes):
        scores = similarities(rows, probe)
        order = np.lexsort((ids, -scores))[:k]
        best[q, : len(order)] = scores[order]
        who[q, : len(order)] = ids[order]
    return best, who
