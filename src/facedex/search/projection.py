"""A store's embeddings as an index, kept fresh by sequence numbers.

The store is the truth: any process writes to it, and each searcher reads what is newer before it answers. An index
may be saved beside the store, so that a million faces are searched milliseconds after opening. The files are
disposable: whatever is wrong with one, the store is asked instead. What was deleted must be nowhere, so a deletion
reaches the files too: the exact one goes, the approximate one is saved without the rows. Of a store on a server the
files are copies of what the store keeps; a store whose engine searches by itself does the approximate search.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, IndexUnavailable, SearchDriverMissing, SearchError
from facedex.search import engines
from facedex.search.columns import Columns
from facedex.search.contract import Allowed, Ids
from facedex.search.exact import ExactIndex
from facedex.search.kept import SharedIndex
from facedex.stores.contract import ChangeKind, KeepsIndex, SearchesItself, Store
from facedex.types import Where

if TYPE_CHECKING:
    from facedex.search.ann import ApproximateIndex

Mode = Literal["auto", "exact", "ann"]

AUTO_ROWS = 2_000_000
"""Galleries larger than this are searched approximately in mode ``auto``, where that was measured to be worth it."""
AUTO_RECALL, AUTO_SHARE = 0.99, 1 / 3

_CHANGES_AT_ONCE = 10_000
_LOOKS = 3

_log = logging.getLogger("facedex.search")


@dataclass(frozen=True, slots=True)
class SavedIndex:
    """What lies beside a store.

    kind    "exact" or "ann".
    path    of its file; None: it is in the store's own engine.
    rows    templates in it.
    behind  changes of the gallery since it was saved; the next search reads them.
    bytes   size of its files.
    recall  recall@10 against exact search, measured when it was built; 1 for exact.
    facts   of an approximate index: library, parameters, how and when the recall was measured.
    """

    kind: str
    path: Path | None
    rows: int
    behind: int
    bytes: int
    recall: float
    facts: dict[str, Any]

    @property
    def place(self) -> str:
        """Its file, in words."""
        return str(self.path or "in the server")


class Projection:
    """The indexes of one store. Safe to share between threads.

    folder  of the local copies of indexes that stores on servers keep; None: in the user's cache.
    """

    def __init__(self, store: Store, folder: Path | None = None) -> None:
        self._store = store
        self._exact = _Exact(store, folder)
        self._approximate = _Approximate(store, folder)
        self._columns = Columns(store)

    def search(
        self,
        probes: npt.NDArray[np.float32],
        k: int,
        *,
        mode: Mode = "auto",
        threads: int | None = None,
        where: Where | None = None,
    ) -> tuple[npt.NDArray[np.float32], Ids]:
        """The k most similar enrolled faces of each probe, over everything committed before the call.

        mode     "exact"; "ann": by the approximate index, or by the store's own engine where it has one, which may
                 miss a candidate but never changes a score;
                 "auto": exact, but for a single probe in a gallery of over two million whose approximate index was
                 measured to be faster and to find 99 of 100.
        threads  how many at most; None: all cores.
        where    only templates that pass are candidates; None: all.
        Returns  similarities (Q, k) float32 and template ids (Q, k) int64; -inf and -1 where fewer exist.
        Raises   ArgumentInvalid for mode "ann" without an approximate index.
        """
        if mode not in ("auto", "exact", "ann"):
            raise ArgumentInvalid(f"mode must be 'auto', 'exact' or 'ann', got {mode!r}.", mode=mode)
        if mode == "ann" and isinstance(self._store, SearchesItself):
            return engines.search(self._store, probes, k, where)
        if mode == "ann" or (mode == "auto" and len(probes) == 1 and where is None and self._approximate.pays()):
            return self._approximate.search(probes, k, threads, self._allowed(where))
        return self._exact.search(probes, k, threads, self._allowed(where))

    def _allowed(self, where: Where | None) -> Allowed | None:
        return None if where is None else self._columns.passing(where)

    def save(self, progress: Callable[[int, int], None] | None = None) -> SavedIndex:
        """Bring the exact index up to date and write it beside the store.

        progress  called with the templates indexed so far and the total.
        Raises    ArgumentInvalid for a store without a place for it, or without templates; IndexUnavailable.
        """
        return self._exact.save(progress)

    def approximate(self, progress: Callable[[int, int], None] | None = None) -> SavedIndex:
        """Make the approximate index beside the store, or bring it up to date; goes on after an interruption.

        A store whose engine searches by itself builds its own.

        progress  called with how much of the present stage is done, and of how much.
        Raises    as ``save``; SearchDriverMissing without the extra ``facedex[ann]``.
        """
        if isinstance(self._store, SearchesItself):
            return self._in_the_engine(self._store, progress)
        return self._approximate.save(progress)

    def _in_the_engine(self, engine: SearchesItself, progress: Callable[[int, int], None] | None) -> SavedIndex:
        rows = self._store.count()
        if not rows:
            raise ArgumentInvalid(f"{self._store.url} holds no templates to index.", gallery=self._store.url)
        engine.build_nearest(progress)
        return SavedIndex("ann", None, rows, 0, 0, engines.measure_recall(self._store), {})

    def saved(self) -> list[SavedIndex]:
        """What lies beside the store and is usable."""
        return [saved for saved in (self._exact.saved(), self._approximate.saved()) if saved is not None]

    def forget(self) -> None:
        """Something was deleted from the store: see that no saved index keeps it."""
        self._exact.forget()
        self._approximate.catch_up()


Kind = TypeVar("Kind", "ExactIndex", "ApproximateIndex")


class _Kept(ABC, Generic[Kind]):
    """One index that follows the store. Safe to share between threads."""

    name: ClassVar[str]
    """Of its file's end, and in a store that keeps it."""

    def __init__(self, store: Store, folder: Path | None) -> None:
        self._store = store
        self._shared: SharedIndex | None = None
        self._path = store.index_path.with_suffix(f".{self.name}") if store.index_path is not None else None
        if self._path is None and isinstance(store, KeepsIndex):
            self._shared = SharedIndex(store, self.name, folder)
            self._path = self._shared.path
        self._index: Kind | None = None
        self._sequence = 0
        self._lock = threading.Lock()

    @property
    def path(self) -> Path | None:
        """Where it is saved; None for a store without a place."""
        return self._path

    @abstractmethod
    def _local(self) -> tuple[Kind, int] | None:
        """The saved index and the sequence number it is at, if it is one, and this store's."""

    def _opened(self) -> tuple[Kind, int] | None:
        """As ``_local``, after copying the one that the store keeps when that is worth it."""
        local = self._local()
        if self._shared is None:
            return local
        sequence, rows = (local[1], len(local[0])) if local is not None else (None, 0)
        return (self._local() or local) if self._shared.fetch(sequence, rows) else local

    def _publish(self, sequence: int) -> bool:
        """Keep it in a store that does; False when something was deleted since."""
        return self._shared is None or self._shared.publish(sequence)

    @abstractmethod
    def _build(self, progress: Callable[[int, int], None] | None) -> Kind | None:
        """A new index of everything in the store; None when that is nothing."""

    @abstractmethod
    def _deleted(self, ids: Ids) -> None:
        """These are gone from the store: take them out of the index and out of its files."""

    @abstractmethod
    def discard(self, why: str) -> None:
        """The saved index is of no use: begin from the store."""

    def search(
        self, probes: npt.NDArray[np.float32], k: int, threads: int | None, where: Allowed | None
    ) -> tuple[npt.NDArray[np.float32], Ids]:
        index = self.fresh()
        if index is None:
            return np.full((len(probes), k), -np.inf, np.float32), np.full((len(probes), k), -1, np.int64)
        try:
            return index.search(probes, k, threads=threads, where=where)
        except SearchError as error:  # a saved index shows its damage when it is first used
            self.discard(str(error))
            return self.search(probes, k, threads, where)

    def fresh(self, progress: Callable[[int, int], None] | None = None) -> Kind | None:
        """The index with everything committed before the call; None while the store is empty."""
        latest = self._store.sequence()
        with self._lock:
            if self._index is None and self._sequence < latest:
                opened = self._opened()
                if opened is not None:
                    self._index, self._sequence = opened
                else:
                    self._index, self._sequence = self._build(progress), latest
            while self._sequence < latest:
                changes = self._store.changes(self._sequence, _CHANGES_AT_ONCE)
                deleted = [c.id for c in changes if c.kind is ChangeKind.DELETED]
                if deleted:
                    self._deleted(np.array(deleted, np.int64))
                self._take(np.array([c.id for c in changes if c.kind is not ChangeKind.DELETED], np.int64))
                self._sequence = changes[-1].sequence if changes else latest
            return self._index

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
            self._index = self._build(None)
        else:
            self._index.add(embeddings, ids)

    def _place(self) -> Path:
        if self.path is None:
            raise ArgumentInvalid(f"{self._store.url} has no place for a saved index.", gallery=self._store.url)
        if not self._store.count():
            raise ArgumentInvalid(f"{self._store.url} holds no templates to index.", gallery=self._store.url)
        if self._shared is not None:
            self._shared.make_folder()
        return self.path


class _Exact(_Kept[ExactIndex]):
    """The exact index; its file is only a shortcut."""

    name = "fdx"

    def save(self, progress: Callable[[int, int], None] | None) -> SavedIndex:
        path = self._place()
        for _ in range(_LOOKS):
            streamed = self._stream(path, progress)
            index = self.fresh(progress)
            with self._lock:
                at = self._sequence
                facts = self._facts(int(index.ids.max()), at) if index is not None and len(index) else None
                # what was deleted meanwhile took the streamed file with it; what was added the next search reads
                if index is not None and facts is not None and not (streamed and path.exists()):
                    index.save(path, facts)
            if facts is not None and self._publish(at):
                break
        else:
            self.forget()
        saved = self.saved()
        if saved is None:  # deleted from by another process in this moment
            raise IndexUnavailable(f"{path} went away while it was saved; try again.", path=str(path))
        return saved

    def saved(self) -> SavedIndex | None:
        opened = self._local()
        if self.path is None or opened is None:
            return None
        index, sequence = opened
        behind = self._store.sequence() - sequence
        return SavedIndex("exact", self.path, len(index), behind, self.path.stat().st_size, 1.0, {})

    def forget(self) -> None:
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()

    def discard(self, why: str) -> None:
        _log.warning("the saved index is of no use: %s", why)
        self.forget()
        with self._lock:
            self._index, self._sequence = None, 0

    def _local(self) -> tuple[ExactIndex, int] | None:
        if self.path is None or not self.path.exists():
            return None
        try:
            index = ExactIndex.open(self.path)
        except SearchError as error:
            _log.warning("%s is not used: %s", self.path, error)
            return None
        return (index, int(index.facts["sequence"])) if self._is_ours(index) else None

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

    def _build(self, progress: Callable[[int, int], None] | None) -> ExactIndex | None:
        index: ExactIndex | None = None
        total = self._store.count() if progress else 0
        for ids, embeddings in self._store.embedding_batches():
            if index is None:
                index = ExactIndex(embeddings.shape[1])
            index.add(embeddings, ids)
            if progress:
                progress(len(index), max(total, len(index)))
        return index

    def _facts(self, newest: int, sequence: int) -> dict[str, Any] | None:
        """What a file needs to be recognized; None when its newest face went away."""
        held = self._store.get([newest])
        return {"sequence": sequence, "witness": [held[0].id, held[0].template.content_id]} if held else None

    def _stream(self, path: Path, progress: Callable[[int, int], None] | None) -> bool:
        """Write the store to the file without holding it in memory; not when an index is at hand."""
        latest, total = self._store.sequence(), self._store.count()
        with self._lock:
            if self._index is not None or self._opened() is not None:
                return False

        def batches() -> Iterator[tuple[Ids, npt.NDArray[np.float32]]]:
            done = 0
            for ids, embeddings in self._store.embedding_batches():
                yield ids, embeddings
                done += len(ids)
                if progress:
                    progress(done, max(total, done))

        ExactIndex.stream(path, batches(), lambda newest: self._facts(newest, latest) or {})
        return True

    def _deleted(self, ids: Ids) -> None:
        self.forget()
        if self._index is not None:
            self._index.remove(ids)


class _Approximate(_Kept["ApproximateIndex"]):
    """The approximate index; made only when asked for."""

    name = "ann"

    def save(self, progress: Callable[[int, int], None] | None) -> SavedIndex:
        from facedex.search import ann

        path, space = self._place(), self._store.space()
        assert space is not None
        for _ in range(_LOOKS):
            opened, at = self._opened(), self._store.sequence()
            ann.build(
                path,
                lambda after: self._store.embedding_batches(after=after),
                space.dimension,
                (lambda _, done, total: progress(done, total)) if progress else None,
                present=self._store.ids(),
                replace=path.exists() and opened is None,
            )
            if self._publish(at):
                break
        else:
            raise IndexUnavailable(
                f"{self._store.url} was deleted from whenever its index was about to be kept; try again.",
                gallery=self._store.url,
            )
        with self._lock:
            self._index, self._sequence = None, 0
        saved = self.saved()
        if saved is None:
            raise IndexUnavailable(f"{path} went away while it was saved; try again.", path=str(path))
        return saved

    def saved(self) -> SavedIndex | None:
        try:
            opened = self._local()
        except SearchDriverMissing:
            return None
        if self.path is None or opened is None:
            return None
        index, sequence = opened
        facts = index.facts
        size = sum(file.stat().st_size for file in self.path.parent.glob(f"{self.path.name}*"))
        behind = self._store.sequence() - sequence
        return SavedIndex("ann", self.path, len(index), behind, size, float(facts["recall_at_10"] or 0), facts)

    def pays(self) -> bool:
        """Whether ``auto`` should take it."""
        if self.path is None or not self.path.exists():
            return False
        try:
            index = self.fresh()
        except (ArgumentInvalid, SearchError):
            return False
        if index is None or len(index) <= AUTO_ROWS:
            return False
        facts = index.facts
        parameters = facts["parameters"]
        share = parameters["probed"] / max(1, parameters["lists"])
        return (facts["recall_at_10"] or 0) >= AUTO_RECALL and share <= AUTO_SHARE

    def catch_up(self) -> None:
        """Take what was deleted out of the saved index, when there is one."""
        if self.path is not None and self.path.exists():
            with contextlib.suppress(SearchError, ArgumentInvalid):
                self.fresh()

    def discard(self, why: str) -> None:
        raise IndexUnavailable(f"the approximate index is of no use: {why} Build it again.", why=why)

    def _local(self) -> tuple[ApproximateIndex, int] | None:
        if self.path is None or not self.path.exists():
            return None
        from facedex.search import ann

        try:
            index = ann.ApproximateIndex.open(self.path)
        except SearchDriverMissing:
            raise
        except SearchError as error:
            _log.warning("%s is not used: %s", self.path, error)
            return None
        return (index, int(index.facts["sequence"])) if self._is_ours(index) else None

    def _is_ours(self, index: ApproximateIndex) -> bool:
        space = self._store.space()
        if space is None or index.dimension != space.dimension or not index.facts["complete"]:
            return False
        if int(index.facts["sequence"]) > self._store.sequence():
            return False
        # As for the exact index, the newest face that both have must be the same face.
        there = np.intersect1d(index.ids, self._store.ids())
        if not len(there):
            return False
        newest = there[-1:]
        return bool(np.array_equal(index.embeddings(newest), self._store.embeddings(newest.tolist())[1]))

    def _build(self, progress: Callable[[int, int], None] | None) -> ApproximateIndex | None:
        del progress  # nothing is built unasked
        if not self._store.count():
            return None
        raise ArgumentInvalid(
            f"{self._store.url} has no approximate index. Build it with `facedex index build --approximate`, "
            "or search with mode='exact'.",
            gallery=self._store.url,
        )

    def _deleted(self, ids: Ids) -> None:
        if self._index is not None and self._index.contains(ids).any():
            self._index.remove(ids)
            if self.path is not None and self.path.exists():
                self._index.save(self.path)
