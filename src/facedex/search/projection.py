"""A store's embeddings as an index, kept fresh by sequence numbers.

The store is the truth: any process writes to it, each searcher reads what is newer before it answers.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from facedex.search.contract import Ids, Index
from facedex.search.exact import ExactIndex
from facedex.stores.contract import ChangeKind, Store

_CHANGES_AT_ONCE = 10_000


class Projection:
    """The index of one store. Safe to share between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._index: Index | None = None
        self._sequence = 0
        self._lock = threading.Lock()

    def search(
        self, probes: npt.NDArray[np.float32], k: int, *, where: Ids | None = None
    ) -> tuple[npt.NDArray[np.float32], Ids]:
        """The k most similar enrolled faces of each probe, over everything committed before the call.

        Returns  similarities (Q, k) float32 and template ids (Q, k) int64; -inf and -1 where fewer exist.
        """
        index = self._fresh()
        if index is None:
            return np.full((len(probes), k), -np.inf, np.float32), np.full((len(probes), k), -1, np.int64)
        return index.search(probes, k, where=where)

    def _fresh(self) -> Index | None:
        latest = self._store.sequence()
        with self._lock:
            if self._index is None and self._sequence < latest:
                self._load()
                self._sequence = latest
            while self._sequence < latest:
                changes = self._store.changes(self._sequence, _CHANGES_AT_ONCE)
                deleted = [c.id for c in changes if c.kind is ChangeKind.DELETED]
                present = [c.id for c in changes if c.kind is not ChangeKind.DELETED]
                if self._index is not None and deleted:
                    self._index.remove(np.array(deleted, np.int64))
                self._take(np.array(present, np.int64))
                self._sequence = changes[-1].sequence if changes else latest
            return self._index

    def _load(self) -> None:
        for ids, embeddings in self._store.embedding_batches():
            if self._index is None:
                self._index = ExactIndex(embeddings.shape[1])
            self._index.add(embeddings, ids)

    def _take(self, present: Ids) -> None:
        # Only the last change of a template is reported, so one relabeled since may be new to us as well.
        if self._index is not None:
            present = present[~self._index.contains(present)]
        if not len(present):
            return
        ids, embeddings = self._store.embeddings(present.tolist())
        if not len(ids):
            return
        if self._index is None:
            self._index = ExactIndex(embeddings.shape[1])
        self._index.add(embeddings, ids)
