"""A store's embeddings as an index, kept fresh by sequence numbers.

The store is the truth: any process writes to it, and each searcher reads what is newer before it answers. An index
may be saved beside the store, so that a million faces are searched milliseconds after opening. The file is disposable:
whatever is wrong with it, the index is built from the store instead. It goes when a face is deleted, for it holds
embeddings, and what was deleted must be nowhere.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, IndexUnavailable, SearchError
from facedex.search.contract import Ids
from facedex.search.exact import ExactIndex
from facedex.stores.contract import ChangeKind, Store

_CHANGES_AT_ONCE = 10_000

_log = logging.getLogger("facedex.search")


@dataclass(frozen=True, slots=True)
class SavedIndex:
    """What lies beside a store.

    rows    templates in it.
    behind  changes of the gallery since it was saved; the next search reads them.
    bytes   size of the file.
    """

    path: Path
    rows: int
    behind: int
    bytes: int


class Projection:
    """The index of one store. Safe to share between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._index: ExactIndex | None = None
        self._sequence = 0
        self._lock = threading.Lock()

    def search(
        self,
        probes: npt.NDArray[np.float32],
        k: int,
        *,
        threads: int | None = None,
        where: Ids | None = None,
    ) -> tuple[npt.NDArray[np.float32], Ids]:
        """The k most similar enrolled faces of each probe, over everything committed before the call.

        threads  how many at most; None: all cores.
        where    only these template ids are candidates; None: all.
        Returns  similarities (Q, k) float32 and template ids (Q, k) int64; -inf and -1 where fewer exist.
        """
        index = self._fresh()
        if index is None:
            return np.full((len(probes), k), -np.inf, np.float32), np.full((len(probes), k), -1, np.int64)
        try:
            return index.search(probes, k, threads=threads, where=where)
        except SearchError as error:  # a saved index shows its damage when it is first used
            self._discard(f"the saved index is of no use: {error}")
            return self.search(probes, k, threads=threads, where=where)

    def save(self, progress: Callable[[int, int], None] | None = None) -> SavedIndex:
        """Bring the index up to date and write it beside the store.

        progress  called with the templates indexed so far and the total.
        Raises    ArgumentInvalid for a store without a place for it; IndexUnavailable when it cannot be written.
        """
        path = self._store.index_path
        if path is None:
            raise ArgumentInvalid(f"{self._store.url} has no place for a saved index.", gallery=self._store.url)
        index = self._fresh(progress)
        if index is None:
            raise ArgumentInvalid(f"{self._store.url} holds no templates to index.", gallery=self._store.url)
        with self._lock:
            newest = self._store.get([int(index.ids.max())]) if len(index) else []
            witness = [newest[0].id, newest[0].template.content_id] if newest else None
            index.save(path, {"sequence": self._sequence, "witness": witness})
        saved = self.saved()
        if saved is None:  # deleted from by another process in this moment
            raise IndexUnavailable(f"{path} went away while it was saved; try again.", path=str(path))
        return saved

    def saved(self) -> SavedIndex | None:
        """What a search after opening would start from; None when that is the store itself."""
        path = self._store.index_path
        index = self._opened()
        if path is None or index is None:
            return None
        behind = self._store.sequence() - int(index.facts["sequence"])
        return SavedIndex(path, len(index), behind, path.stat().st_size)

    def forget(self) -> None:
        """Remove the saved index: something in it was deleted from the store."""
        if self._store.index_path is not None:
            with contextlib.suppress(FileNotFoundError):
                self._store.index_path.unlink()

    # ---- keeping up

    def _fresh(self, progress: Callable[[int, int], None] | None = None) -> ExactIndex | None:
        latest = self._store.sequence()
        with self._lock:
            if self._index is None and self._sequence < latest:
                self._index = self._opened()
                if self._index is not None:
                    self._sequence = int(self._index.facts["sequence"])
                else:
                    self._build(progress)
                    self._sequence = latest
            while self._sequence < latest:
                changes = self._store.changes(self._sequence, _CHANGES_AT_ONCE)
                deleted = [c.id for c in changes if c.kind is ChangeKind.DELETED]
                present = [c.id for c in changes if c.kind is not ChangeKind.DELETED]
                if deleted:
                    self.forget()
                    if self._index is not None:
                        self._index.remove(np.array(deleted, np.int64))
                self._take(np.array(present, np.int64))
                self._sequence = changes[-1].sequence if changes else latest
            return self._index

    def _opened(self) -> ExactIndex | None:
        """The saved index, if it is one, and this store's."""
        path = self._store.index_path
        if path is None or not path.exists():
            return None
        try:
            index = ExactIndex.open(path)
        except SearchError as error:
            _log.warning("%s is not used: %s", path, error)
            return None
        return index if self._is_ours(index) else None

    def _is_ours(self, index: ExactIndex) -> bool:
        # Ids are not used twice within a gallery, but an older copy put back in its place goes on from an older number:
        # the newest face of the index must still be that face.
        space, witness = self._store.space(), index.facts.get("witness")
        if space is None or not witness or index.dimension != space.dimension:
            return False
        if int(index.facts["sequence"]) > self._store.sequence():
            return False
        held = self._store.get([int(witness[0])])
        return bool(held) and held[0].template.content_id == witness[1]

    def _discard(self, why: str) -> None:
        _log.warning("%s", why)
        self.forget()
        with self._lock:
            self._index, self._sequence = None, 0

    def _build(self, progress: Callable[[int, int], None] | None) -> None:
        total = self._store.count() if progress else 0
        for ids, embeddings in self._store.embedding_batches():
            if self._index is None:
                self._index = ExactIndex(embeddings.shape[1])
            self._index.add(embeddings, ids)
            if progress:
                progress(len(self._index), max(total, len(self._index)))

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
