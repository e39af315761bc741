"""The oracle: what an exact search means, written to be obviously right. Slow on purpose."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def search(
    probes: npt.NDArray[np.float32], embeddings: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Rank all embeddings by float64 dot product with each probe, ties by id; the first k.

    probes   (Q, D), embeddings (N, D) float32; ids (N,) int64.
    Returns  similarities (Q, k) float32, ids (Q, k) int64; -inf and -1 where fewer than k exist.
    """
    similarities = np.full((len(probes), k), -np.inf, np.float32)
    found = np.full((len(probes), k), -1, np.int64)
    for q, probe in enumerate(probes.astype(np.float64)):
        scores = [float((probe * row).sum()) for row in embeddings.astype(np.float64)]
        order = sorted(range(len(ids)), key=lambda row: (-scores[row], ids[row]))[:k]
        for rank, row in enumerate(order):
            similarities[q, rank] = scores[row]
            found[q, rank] = ids[row]
    return similarities, found
