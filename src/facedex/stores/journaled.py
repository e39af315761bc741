"""The store of every engine without transactions: the contract in terms of ``journal``."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from facedex.errors import StoreClosed
from facedex.stores.checks import check_batch, check_label, check_limit, check_space, check_where, storable_ids
from facedex.stores.contract import (
    ABSENT,
    Added,
    Change,
    ChangeKind,
    Facts,
    PhotoRecord,
    SearchesItself,
    Store,
)
from facedex.stores.journal import EVERYTHING, Engine, Head, Journal, Pending, Query, Step, View
from facedex.stores.numbering import by_photo, number_batch
from facedex.stores.rows import Row, damaged, faults, matrix, read_space, rows_of, stored, write_space
from facedex.types import EmbeddingSpace, Person, StoredTemplate, Where

__all__ = ["JournaledStore"]

_PAGE = 1000
_ALIKE = 10  # how often a call that needs one moment looks again when a writer changed it meanwhile


class JournaledStore(Store, SearchesItself):
    """A gallery on an ``Engine``.

    engine    of a gallery; a new one gets its head.
    url       masked.
    lease     seconds of silence after which another writer counts as dead.
    patience  seconds a write waits for its turn.

    ``people`` and conditions with which the engine cannot help read every row but its embedding.
    """

    def __init__(self, engine: Engine, url: str, *, lease: float = 10.0, patience: float = 30.0) -> None:
        self._engine, self._url = engine, url
        self._journal = Journal(engine, url, lease=lease, patience=patience)
        self._journal.begin()
        self._closed = False
        self._closing = threading.Lock()
        self._spaces: dict[str, EmbeddingSpace] = {}  # by their text: parsed once

    @property
    def url(self) -> str:
        return self._url

    def space(self) -> EmbeddingSpace | None:
        return self._space(self._view().head)

    def add(self, photos: Sequence[PhotoRecord], space: EmbeddingSpace) -> list[list[Added]]:
        batch = check_batch(photos, space, self.space())
        if not photos:
            return []
        offered = list(rows_of(batch))
        with self._journal.turn() as turn:
            head = turn.head
            check_space(space, self._space(head))
            engine, sequence = self._engine, head.sequence
            contents, labels = [row.content for row in offered], [row.label for row in offered]
            present = self._present(contents) if head.templates else {}
            added, places = number_batch(contents, labels, present, sequence)
            new = [replace(offered[n], id=id, sequence=id) for id, n in enumerate(places, sequence + 1)]
            digests = sorted({photo.digest for photo in photos})
            unlisted = sorted(set(digests) - engine.photos(digests).keys())
            if head.space is None:
                engine.prepare(space.dimension)
            for start in range(0, len(new), _PAGE):
                turn.writes()
                engine.put_templates(new[start : start + _PAGE])
            for start in range(0, len(unlisted), _PAGE):
                turn.writes()
                engine.put_photos(unlisted[start : start + _PAGE], turn.generation)
            if new or unlisted or head.space is None:
                turn.commit(
                    replace(
                        head,
                        sequence=sequence + len(new),
                        templates=head.templates + len(new),
                        space=head.space or write_space(space),
                    )
                )
        return by_photo(photos, added)

    def relabel(self, ids: Iterable[int], label: str | None) -> int:
        check_label(label)
        wanted = sorted(set(storable_ids(ids)))
        self._check_open()
        with self._journal.turn() as turn:
            changed = []
            for start in range(0, len(wanted), _PAGE):
                rows = self._engine.templates(wanted[start : start + _PAGE])
                changed += sorted(row.id for row in rows if row.label != label)
            if changed:
                self._step(turn, changed, Pending(ChangeKind.RELABELED, turn.head.sequence + 1, label))
        return len(changed)

    def delete(self, where: Where) -> int:
        check_where(where)
        self._check_open()
        with self._journal.turn() as turn:
            gone = [row.id for row in self._rows(View(turn.head, {}), where)]
            forget: tuple[str, ...] | str = ()
            if where == Where():
                forget = EVERYTHING
            elif where == Where(photos=where.photos):
                asked = sorted(filter(_is_digest, where.photos or ()))
                forget = tuple(self._engine.photos(asked)) if asked else ()
            if gone or (forget and self._engine.page_photos("", 1)):
                first = turn.head.sequence + 1
                self._step(turn, gone, Pending(ChangeKind.DELETED, first, forget=forget))
        return len(gone)

    def get(self, ids: Sequence[int]) -> list[StoredTemplate]:
        wanted, view = storable_ids(ids), self._view()
        found = {row.id: self._stored(view, row) for row in self._fetch(view, wanted)}
        return [found[n] for n in wanted if n in found]

    def scan(self, where: Where | None = None, *, after: int = 0) -> Iterator[StoredTemplate]:
        check_where(where or Where())
        self._check_open()
        return self._scan(where or Where(), after)

    def _scan(self, where: Where, after: int) -> Iterator[StoredTemplate]:
        view = self._view()
        for row in self._rows(view, where, after, embeddings=True):
            yield self._stored(view, row)

    def ids(self, where: Where | None = None) -> npt.NDArray[np.int64]:
        check_where(where or Where())
        return np.array([row.id for row in self._rows(self._view(), where or Where())], np.int64)

    def embeddings(self, ids: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        wanted, view = storable_ids(ids), self._view()
        found = {row.id: row.embedding for row in self._fetch(view, wanted)}
        present = [n for n in wanted if n in found]
        return matrix(present, [found[n] for n in present], self._dimension(view), self._url)

    def embedding_batches(
        self, after: int = 0, batch: int = 8192
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        check_limit(batch)
        view = self._view()
        rows = self._rows(view, Where(), after, embeddings=True)
        while some := list(islice(rows, batch)):
            yield matrix([row.id for row in some], [row.embedding for row in some], self._dimension(view), self._url)

    def facts(self, after: int = 0, *, keys: Sequence[str] = (), batch: int = 8192) -> Iterator[Facts]:
        check_limit(batch)
        rows = self._rows(self._view(), Where(), after)
        while some := list(islice(rows, batch)):
            metadata = [self._metadata(row) for row in some] if keys else []
            yield Facts(
                np.array([row.id for row in some], np.int64),
                [row.label for row in some],
                np.array([row.enrolled for row in some], np.int64),
                {key: [each.get(key, ABSENT) for each in metadata] for key in keys},
            )

    def sequence(self) -> int:
        return self._view().head.sequence

    def changes(self, after: int, limit: int = 10_000) -> list[Change]:
        check_limit(limit)
        view = self._view()
        told: list[Change] = []
        # A template that was never relabeled tells of itself; of the others there is a step.
        for row in self._rows(view, Where(), after):
            if row.sequence == row.id:
                told.append(Change(row.id, ChangeKind.ADDED, row.id))
                if len(told) == limit:
                    break
        steps: list[Change] = []
        for page in self._journal._steps(after, view.head.sequence):
            for step in page:
                if view.steps.get(step.id, step.sequence) == step.sequence:
                    kind = ChangeKind.DELETED if step.deleted else ChangeKind.RELABELED
                    steps.append(Change(step.sequence, kind, step.id))
            if len(steps) >= limit:
                break
        return sorted(told + steps, key=lambda change: change.sequence)[:limit]

    def known(self, digests: Iterable[str]) -> dict[str, frozenset[str | None]]:
        asked = [digest for digest in digests if _is_digest(digest)]
        for _ in range(_ALIKE):
            view, known = self._view(), dict[str, frozenset[str | None]]()
            for start in range(0, len(asked), _PAGE):
                known.update(self._known(view, asked[start : start + _PAGE]))
            if self._view() == view:
                break
        return known

    def faceless(self, after: str = "", limit: int = 10_000) -> list[str]:
        check_limit(limit)
        found, behind = list[str](), after if _is_digest(after) else ""
        while len(found) < limit:
            page = [digest for digest, _ in self._engine_open().page_photos(behind, _PAGE)]
            found += [digest for digest, labels in sorted(self.known(page).items()) if not labels and digest > after]
            if len(page) < _PAGE:
                break
            behind = page[-1]
        return found[:limit]

    def people(self, after: str | None = None, limit: int | None = None) -> list[Person]:
        check_limit(limit)
        photos: defaultdict[str | None, list[str]] = defaultdict(list)
        for row in self._rows(self._view(), Where()):
            photos[row.label].append(row.photo)
        names = sorted(name for name in photos if name is not None and (after is None or name > after))
        order: list[str | None] = [None, *names] if after is None and None in photos else [*names]
        return [Person(name, len(photos[name]), len(set(photos[name]))) for name in islice(order, limit)]

    def count(self, where: Where | None = None) -> int:
        check_where(where or Where())
        view = self._view()
        if where is None or where == Where():
            return view.head.templates
        if view.head.pending is not None:
            return sum(1 for _ in self._rows(view, where))
        return self._engine.count(Query(upto=view.head.sequence, where=where)) if view.head.templates else 0

    def nearest(
        self, probes: npt.NDArray[np.float32], k: int, where: Where | None = None, *, exact: bool = False
    ) -> npt.NDArray[np.int64]:
        check_limit(k)
        check_where(where or Where())
        answer = np.full((len(probes), k), -1, np.int64)
        view = self._view()
        if not view.head.templates:
            return answer
        if exact and not self._engine.scans:
            return self._compare_all(probes, answer, view, where or Where())
        query = Query(where=where or Where())
        raw = self._engine.nearest(probes, k, query, exact)
        found = [self._living(view, ids) for ids in raw]
        if found != [list(ids) for ids in raw]:  # what another process is writing now was in the way
            query = replace(query, upto=view.head.sequence)
            more = k + (len(view.steps) if view.deleting else 0)
            found = [self._living(view, ids)[:k] for ids in self._engine.nearest(probes, more, query, exact)]
        for row, ids in zip(answer, found, strict=True):
            row[: len(ids)] = ids
        return answer

    def check(self) -> tuple[str, ...]:
        """Reads every row: its parts agree with each other, and the numbers with the head's."""
        view, found, contents, count = self._view(), list[str](), set[str](), 0
        space = self._space(view.head)
        relabeled = {}
        for row in self._rows(view, Where(), embeddings=True):
            count += 1
            fault = "a template without the gallery's space" if space is None else faults(row, space, self._url)
            if fault is None and row.content in contents:
                fault = f"template {row.id} is stored more than once"
            contents.add(row.content)
            if fault is not None:
                found.append(fault)
            if row.sequence != row.id:
                relabeled[row.id] = row.sequence
        if count != view.head.templates:
            found.append(f"{count} templates where the head says {view.head.templates}")
        for page in self._journal._steps(0, view.head.sequence):
            for step in page:
                if view.steps.get(step.id, step.sequence) != step.sequence:
                    continue
                if not step.deleted and relabeled.pop(step.id, None) != step.sequence:
                    found.append(f"step {step.sequence} relabels template {step.id}, which does not say so")
        found += [f"template {n} was relabeled, and there is no step of it" for n in relabeled]
        return tuple(found)

    def close(self) -> None:
        with self._closing:
            if not self._closed:
                self._closed = True
                self._engine.close()

    # -- reading ------------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed(f"the gallery {self._url} was closed. Open it again.", url=self._url)

    def _engine_open(self) -> Engine:
        self._check_open()
        return self._engine

    def _view(self) -> View:
        self._check_open()
        return self._journal.view()

    def _space(self, head: Head) -> EmbeddingSpace | None:
        if head.space is None:
            return None
        if head.space not in self._spaces:
            self._spaces[head.space] = read_space(head.space, self._url)
        return self._spaces[head.space]

    def _dimension(self, view: View) -> int:
        space = self._space(view.head)
        return space.dimension if space else 0

    def _rows(self, view: View, where: Where, after: int = 0, embeddings: bool = False) -> Iterator[Row]:
        """Rows that pass, by rising id, as they are at a moment, or later."""
        if not view.head.templates and not view.head.pending:
            return
        asked, space = where, self._space(view.head)
        if view.relabeling:  # the engine still has other labels
            asked = replace(where, labels=None, not_labels=None)
        query = Query(after=after, upto=view.head.sequence, where=asked)
        while True:
            self._check_open()
            page = self._engine.page(query, _PAGE, embeddings)
            rows = view.apply(page)
            if asked != where and space is not None:
                rows = [row for row in rows if _has_label(row.label, where)]
            yield from rows
            if len(page) < _PAGE:
                return
            query = replace(query, after=page[-1].id)

    def _fetch(self, view: View, ids: Sequence[int]) -> Iterator[Row]:
        distinct = sorted({n for n in ids if n <= view.head.sequence})
        for start in range(0, len(distinct), _PAGE):
            yield from view.apply(self._engine.templates(distinct[start : start + _PAGE], True))

    def _stored(self, view: View, row: Row) -> StoredTemplate:
        space = self._space(view.head)
        if space is None:
            raise damaged(self._url, "it holds templates and no embedding space")
        return stored(row, space, self._url)

    def _metadata(self, row: Row) -> dict[str, Any]:
        try:
            metadata: dict[str, Any] = json.loads(row.metadata)
        except (ValueError, TypeError) as error:
            raise damaged(self._url, f"the metadata of template {row.id} cannot be read ({error})") from error
        return metadata

    def _present(self, contents: Sequence[str]) -> dict[str, tuple[int, str | None]]:
        """Id and label of what is stored, by content id, in a turn of ours."""
        found: dict[str, tuple[int, str | None]] = {}
        for start in range(0, len(contents), _PAGE):
            some = frozenset(contents[start : start + _PAGE])
            found.update(
                (row.content, (row.id, row.label)) for row in self._engine.page(Query(contents=some), len(some))
            )
        return found

    def _known(self, view: View, digests: Sequence[str]) -> dict[str, frozenset[str | None]]:
        pending = view.head.pending
        forgotten = pending.forget if pending else ()
        if forgotten == EVERYTHING:
            return {}
        listed = {d for d, g in self._engine.photos(digests).items() if g <= view.head.generation} - {*forgotten}
        labels: dict[str, set[str | None]] = {digest: set() for digest in listed}
        gone: set[str] = set()
        query = Query(upto=view.head.sequence, where=Where(photos=frozenset(listed)))
        while labels and view.head.templates + len(view.steps):
            page = self._engine.page(query, _PAGE)
            if view.deleting:
                gone |= {row.photo for row in page if row.id in view.steps}
            for row in view.apply(page):
                labels[row.photo].add(row.label)
            if len(page) < _PAGE:
                break
            query = replace(query, after=page[-1].id)
        return {digest: frozenset(names) for digest, names in labels.items() if digest not in gone}

    def _living(self, view: View, ids: Sequence[int]) -> list[int]:
        return [n for n in ids if n <= view.head.sequence and not (view.deleting and n in view.steps)]

    def _compare_all(
        self, probes: npt.NDArray[np.float32], answer: npt.NDArray[np.int64], view: View, where: Where
    ) -> npt.NDArray[np.int64]:
        """Fill in the best of every embedding, read from the engine in bounded memory."""
        best = np.full(answer.shape, -np.inf, np.float32)
        rows = self._rows(view, where, embeddings=True)
        while some := list(islice(rows, _PAGE)):
            ids, embeddings = matrix(
                [row.id for row in some], [row.embedding for row in some], self._dimension(view), self._url
            )
            similarities = np.hstack([best, probes @ embeddings.T])
            everyone = np.hstack([answer, np.broadcast_to(ids, (len(probes), len(ids)))])
            order = np.argsort(-similarities, axis=1, kind="stable")[:, : answer.shape[1]]
            best = np.take_along_axis(similarities, order, 1)
            answer = np.take_along_axis(everyone, order, 1)
        return answer

    # -- writing ------------------------------------------------------------------------------------------------------

    def _step(self, turn: Any, ids: Sequence[int], pending: Pending) -> None:
        """Relabel or delete templates: their steps, then the head."""
        deleted = pending.kind is ChangeKind.DELETED
        steps = [Step(sequence, n, deleted) for sequence, n in enumerate(ids, pending.first)]
        for start in range(0, len(steps), _PAGE):
            turn.writes()
            self._engine.put_steps(steps[start : start + _PAGE])
        turn.commit(
            replace(
                turn.head,
                sequence=turn.head.sequence + len(steps),
                templates=turn.head.templates - (len(steps) if deleted else 0),
                pending=pending,
            )
        )


def _has_label(label: str | None, where: Where) -> bool:
    return (where.labels is None or label in where.labels) and (
        where.not_labels is None or label not in where.not_labels
    )


def _is_digest(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and not set(text) - set("0123456789abcdef")
