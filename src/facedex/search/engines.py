"""Approximate search by a store's own engine: it proposes, we score, so a probe gets the same decision on any store."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from facedex.search import reference
from facedex.search.contract import Ids
from facedex.stores.contract import SearchesItself, Store
from facedex.types import Where

_LOOKS = 3
_TRIALS = 64
_MORE = 16  # asked beyond k, and as many again as k: engines compare in half precision or codes


def search(
    store: Store, probes: npt.NDArray[np.float32], k: int, where: Where | None
) -> tuple[npt.NDArray[np.float32], Ids]:
    """The k most similar among those the engine proposes, as ``Index.search`` returns them."""
    assert isinstance(store, SearchesItself)
    best, who = np.full((len(probes), k), -np.inf, np.float32), np.full((len(probes), k), -1, np.int64)
    asked = k + max(k, _MORE)
    for _ in range(_LOOKS):
        proposed = store.nearest(probes, asked, where)
        distinct = np.unique(proposed[proposed >= 0])
        ids, rows = store.embeddings(distinct.tolist())
        if len(ids) == len(distinct):
            break
        # Somebody deleted one of them in between: the store is the truth, ask again.
    for q, probe in enumerate(probes):
        some = np.flatnonzero(np.isin(ids, proposed[q]))
        similarities = reference.similarities(rows[some], probe)
        order = np.lexsort((ids[some], -similarities))[:k]
        best[q, : len(order)], who[q, : len(order)] = similarities[order], ids[some][order]
    return best, who


def measure_recall(store: Store, seed: int = 11) -> float:
    """Share of the ten nearest of 64 probes near enrolled faces that the engine's approximate search finds."""
    assert isinstance(store, SearchesItself)
    random = np.random.default_rng(seed)
    held = store.ids()
    _, rows = store.embeddings(random.choice(held, min(_TRIALS, len(held)), replace=False).tolist())
    probes = rows + 0.8 * random.standard_normal(rows.shape).astype(np.float32) / np.sqrt(np.float32(rows.shape[1]))
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    exact, found = store.nearest(probes, 10, exact=True), search(store, probes, 10, None)[1]
    hits = sum(len(np.intersect1d(a[a >= 0], b)) for a, b in zip(exact, found, strict=True))
    return hits / max(1, int((exact >= 0).sum()))
