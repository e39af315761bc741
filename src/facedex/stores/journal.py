"""How a store keeps its promises on an engine without transactions: one writer at a time, one write that counts.

What an engine must give is in ``Engine``: rows by key, and one small text, the head, that is replaced whole. Nothing
above the head's numbers is part of the gallery, so

- an enrollment writes its rows first, and the head last: before that nobody sees them;
- a relabeling or deletion writes its steps first (sequence number, template), then a head that names them as pending.
  From then on it has happened: readers apply the pending steps to what they read until the writer has applied them to
  the rows, and a writer that finds steps pending finishes them.

Writers take turns. The turn after generation g belongs to whoever makes claim g + 1, which an engine lets only one
process do; the turn ends with a head of that generation. A writer that falls silent for ``lease`` seconds has died: the
next one claims the generation after, removes what the dead one wrote above the head, and goes on. A writer that
stalled that long notices before it replaces the head and gives up.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from facedex.errors import StoreBusy, StoreError, StoreForeign, StoreVersion
from facedex.stores.contract import ChangeKind
from facedex.stores.rows import Row, damaged
from facedex.types import Where

__all__ = ["EVERYTHING", "SCHEMA", "Engine", "Head", "Journal", "Pending", "Query", "Step", "View"]

SCHEMA = 1

EVERYTHING = "everything"

_PAGE = 1000
_POLLS = (0.002, 0.005, 0.01, 0.02, 0.05)


@dataclass(frozen=True, slots=True)
class Query:
    """Which templates: after < id ≤ upto, and every condition given."""

    after: int = 0
    upto: int = 2**63 - 1
    where: Where = field(default_factory=Where)
    contents: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """At ``sequence``, template ``id`` was relabeled or deleted."""

    sequence: int
    id: int
    deleted: bool


class Engine(ABC):
    """One gallery in a database, in primitives. Safe to share between threads.

    Each call may be repeated, is durable when it returns, and is seen by every call that begins later, in any process.
    A call that fails may have done a part of its work, but for ``write_head`` and ``claim``: all or nothing.
    Errors of the driver leave as StoreErrors; it is the engine that goes on trying while its server is away.
    """

    exclusive: ClassVar[bool] = False
    """Nobody else can have it open: writers need no turns."""

    scans: ClassVar[bool] = True
    """``nearest`` can compare every embedding; otherwise the store reads them all and compares them itself."""

    # -- the head and the turns ----------------------------------------------------------------------------------------

    @abstractmethod
    def head(self) -> str | None:
        """The head; None before the first."""

    @abstractmethod
    def write_head(self, text: str) -> None: ...

    @abstractmethod
    def claim(self, generation: int) -> bool:
        """Make this claim; False when somebody has."""

    @abstractmethod
    def release(self, generation: int) -> None:
        """Take a claim back, if it is there."""

    @abstractmethod
    def beat(self) -> str:
        """The last sign of life of a writer, "" before the first."""

    @abstractmethod
    def write_beat(self, text: str) -> None: ...

    # -- templates, by id ----------------------------------------------------------------------------------------------

    @abstractmethod
    def prepare(self, dimension: int) -> None:
        """Make room for templates of a dimension; what was made for another one is empty and goes."""

    @abstractmethod
    def put_templates(self, rows: Sequence[Row]) -> None: ...

    @abstractmethod
    def relabel(self, rows: Sequence[Row]) -> None:
        """Store label and sequence number of rows that are there; their embeddings are not in them."""

    @abstractmethod
    def templates(self, ids: Sequence[int], embeddings: bool = False) -> list[Row]:
        """Those that are there, in any order."""

    @abstractmethod
    def page(self, query: Query, limit: int, embeddings: bool = False) -> list[Row]:
        """The first ``limit`` of a query by rising id."""

    @abstractmethod
    def count(self, query: Query) -> int: ...

    @abstractmethod
    def remove_templates(self, ids: Sequence[int]) -> None: ...

    @abstractmethod
    def nearest(self, probes: npt.NDArray[np.float32], k: int, query: Query, exact: bool) -> Sequence[Sequence[int]]:
        """For each probe at most k ids, most similar first."""

    # -- photos, by digest; they carry the generation that listed them -------------------------------------------------

    @abstractmethod
    def put_photos(self, digests: Sequence[str], generation: int) -> None: ...

    @abstractmethod
    def photos(self, digests: Sequence[str]) -> dict[str, int]:
        """Those that are there, with their generations."""

    @abstractmethod
    def page_photos(self, after: str, limit: int, newer: int = -1) -> list[tuple[str, int]]:
        """The first ``limit`` behind a digest, or "", and of a higher generation than ``newer``, by rising digest."""

    @abstractmethod
    def remove_photos(self, digests: Sequence[str]) -> None: ...

    # -- steps, by sequence number -------------------------------------------------------------------------------------

    @abstractmethod
    def put_steps(self, steps: Sequence[Step]) -> None: ...

    @abstractmethod
    def page_steps(self, after: int, limit: int) -> list[Step]:
        """The first ``limit`` above a number, rising."""

    @abstractmethod
    def remove_steps(self, sequences: Sequence[int]) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Pending:
    """Steps that have happened but may not be applied to the rows yet.

    first   their first sequence number; the last is the head's.
    label   the new one, of a relabeling.
    forget  photos to forget besides those of deleted templates; EVERYTHING: all.
    """

    kind: ChangeKind
    first: int
    label: str | None = None
    forget: tuple[str, ...] | str = ()


@dataclass(frozen=True, slots=True)
class Head:
    """What a gallery is now.

    generation  how many writes there were, or were begun.
    sequence    the highest sequence number.
    templates   how many there are.
    space       as ``rows.write_space`` has it.
    """

    generation: int = 0
    sequence: int = 0
    templates: int = 0
    space: str | None = None
    pending: Pending | None = None

    def encode(self) -> str:
        return json.dumps({"facedex": SCHEMA, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def decode(cls, text: str, url: str) -> Self:
        """Raises StoreForeign, StoreVersion, StoreCorrupt."""
        try:
            facts: dict[str, Any] = json.loads(text)
            schema = facts.pop("facedex")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreForeign(
                f"{url} is not a Facedex gallery: its head is {text[:60]!r}. Name another gallery in the URL.", url=url
            ) from error
        if schema != SCHEMA:
            raise StoreVersion(
                f"{url} has schema {schema}, this Facedex knows {SCHEMA}. Update Facedex.",
                url=url,
                schema=schema,
                known=SCHEMA,
            )
        try:
            pending = facts.pop("pending")
            if pending is not None:
                forget = pending.pop("forget")
                kind = ChangeKind(pending.pop("kind"))
                pending = Pending(kind=kind, forget=forget if forget == EVERYTHING else tuple(forget), **pending)
            head = cls(pending=pending, **facts)
            numbers = (head.generation, head.sequence, head.templates)
            if not all(isinstance(n, int) and n >= 0 for n in numbers):
                raise ValueError(f"its numbers are {numbers}")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise damaged(url, f"its head cannot be read ({error})") from error
        return head


@dataclass(frozen=True, slots=True)
class View:
    """The gallery at one moment: its head, and the pending steps by template."""

    head: Head
    steps: Mapping[int, int]

    @property
    def deleting(self) -> bool:
        return self.head.pending is not None and self.head.pending.kind is ChangeKind.DELETED

    @property
    def relabeling(self) -> bool:
        return self.head.pending is not None and self.head.pending.kind is ChangeKind.RELABELED

    def apply(self, rows: Sequence[Row]) -> list[Row]:
        """Rows as they are at this moment."""
        pending = self.head.pending
        seen = [row for row in rows if row.id <= self.head.sequence]
        if pending is None:
            return seen
        if pending.kind is ChangeKind.DELETED:
            return [row for row in seen if row.id not in self.steps]
        return [
            replace(row, label=pending.label, sequence=self.steps[row.id]) if row.id in self.steps else row
            for row in seen
        ]


class Journal:
    """The head and the turns of one gallery. Safe to share between threads.

    url       masked.
    lease     seconds of silence after which a writer counts as dead.
    patience  seconds to wait for a turn before StoreBusy; more than the lease.
    """

    def __init__(self, engine: Engine, url: str, *, lease: float, patience: float) -> None:
        self.engine, self.url = engine, url
        self._lease, self._patience = lease, patience
        self._writers = threading.Lock()
        self._unclean = engine.exclusive  # whoever had it before us may have died
        self._held: int | None = None  # a turn of ours that broke off, its claim not taken back

    def begin(self) -> None:
        """Write the head of a new gallery, if there is none; of several processes one does."""
        deadline = time.monotonic() + self._lease
        while self.engine.head() is None:
            first = self.engine.exclusive or self.engine.claim(0)
            if first or time.monotonic() > deadline:  # whoever had the claim died before the head
                if self.engine.head() is None:
                    self.engine.write_head(Head().encode())
                if not self.engine.exclusive:
                    self.engine.release(0)
                return
            time.sleep(_POLLS[-1])

    def view(self) -> View:
        """The gallery now. Raises StoreCorrupt when the head is gone."""
        head = self._read()
        steps: dict[int, int] = {}
        while head.pending is not None:
            for page in self._steps(head.pending.first - 1, head.sequence):
                steps.update((step.id, step.sequence) for step in page)
            latest = self._read()
            if latest.pending is None or latest.pending == head.pending:
                return View(latest, steps if latest.pending else {})
            head, steps = latest, {}
        return View(head, steps)

    def turn(self) -> Turn:
        """``with journal.turn() as turn``: the gallery is ours to write. Raises StoreBusy."""
        return Turn(self)

    # -- for turns -----------------------------------------------------------------------------------------------------

    def _read(self) -> Head:
        text = self.engine.head()
        if text is None:
            raise damaged(self.url, "its head is gone")
        return Head.decode(text, self.url)

    def _steps(self, after: int, last: int) -> Iterator[list[Step]]:
        while True:
            page = self.engine.page_steps(after, _PAGE)
            upto = [step for step in page if step.sequence <= last]
            if upto:
                yield upto
            if len(page) < _PAGE or len(upto) < len(page):
                return
            after = page[-1].sequence

    def _take(self) -> tuple[Head, int]:
        """A clean head and the generation of our turn."""
        head, mine = (self._read(), 0) if self.engine.exclusive else self._claim()
        generation = mine or head.generation + 1
        if self._unclean or generation > head.generation + 1 or head.pending is not None:
            try:
                head = self._recover(head)
            except BaseException:
                self._held = mine or None
                raise
        return head, generation

    def _claim(self) -> tuple[Head, int]:
        deadline = time.monotonic() + self._patience
        head, tries = self._read(), 0
        wanted = head.generation + 1
        if self._held is not None and self._is_ours(self._held) and head.generation < self._held:
            mine, self._held, self._unclean = self._held, None, True
            return head, mine
        self._held = None
        while True:
            if self.engine.claim(wanted):
                head = self._read()
                if head.generation < wanted:
                    self.engine.write_beat(self._beat(wanted))
                    return head, wanted
                self.engine.release(wanted)  # its turn was over while we asked
            else:
                before, quiet = (head, self.engine.beat()), time.monotonic()
                while (head := self._read()).generation < wanted:
                    now = time.monotonic()
                    if now > deadline:
                        raise StoreBusy(
                            f"{self.url} is written to by another process for more than {self._patience:g} s. "
                            "Nothing was written. Try again.",
                            url=self.url,
                            seconds=self._patience,
                        )
                    sign = (head, self.engine.beat())
                    if sign != before:
                        before, quiet = sign, now
                    elif now - quiet > self._lease:
                        break
                    time.sleep(_POLLS[min(tries, len(_POLLS) - 1)])
                    tries += 1
                else:
                    wanted = head.generation + 1
                    continue
                wanted += 1  # silent: take over
                continue
            wanted = head.generation + 1

    def _beat(self, generation: int) -> str:
        return json.dumps({"generation": generation, "sign": secrets.token_hex(8)})

    def _is_ours(self, generation: int) -> bool:
        """Whether nobody has taken over from a turn of ours."""
        try:
            return bool(json.loads(self.engine.beat() or "{}").get("generation") == generation)
        except (ValueError, AttributeError):
            return False

    def _recover(self, head: Head) -> Head:
        """Finish what has happened; remove what has not."""
        if head.pending is not None:
            self._finish(head)
            head = replace(head, pending=None)
            self.engine.write_head(head.encode())
        self._purge(head)
        self._unclean = False
        return head

    def _purge(self, head: Head) -> None:
        engine = self.engine
        while rows := engine.page(Query(after=head.sequence), _PAGE):
            engine.remove_templates([row.id for row in rows])
        while steps := engine.page_steps(head.sequence, _PAGE):
            engine.remove_steps([step.sequence for step in steps])
        while photos := engine.page_photos("", _PAGE, head.generation):
            engine.remove_photos([digest for digest, _ in photos])

    def _finish(self, head: Head) -> None:
        """Apply pending steps to the rows; may be done again after it was cut off anywhere."""
        pending, engine = head.pending, self.engine
        assert pending is not None
        if pending.kind is ChangeKind.DELETED:
            # The photos go while the templates that say which are still there.
            if pending.forget == EVERYTHING:
                while photos := engine.page_photos("", _PAGE):
                    engine.remove_photos([digest for digest, _ in photos])
            elif pending.forget:
                engine.remove_photos(list(pending.forget))
            for steps in self._steps(pending.first - 1, head.sequence):
                rows = engine.templates([step.id for step in steps])
                engine.remove_photos(sorted({row.photo for row in rows}))
        for steps in self._steps(pending.first - 1, head.sequence):
            numbers = {step.id: step.sequence for step in steps}
            rows = engine.templates(list(numbers))
            stale = [row.sequence for row in rows if row.sequence not in (row.id, numbers[row.id])]
            if stale:
                engine.remove_steps(stale)
            if pending.kind is ChangeKind.DELETED:
                engine.remove_templates(list(numbers))
            else:
                engine.relabel([replace(row, label=pending.label, sequence=numbers[row.id]) for row in rows])


class Turn:
    """One write. What was written and not committed when it ends is removed."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._committed = self._wrote = False
        self._left = False  # in a state that our next turn, or another process, will mend

    def __enter__(self) -> Self:
        self._journal._writers.acquire()
        try:
            self.head, self.generation = self._journal._take()
            self._checked = time.monotonic()
        except BaseException:
            self._journal._writers.release()
            raise
        return self

    def writes(self) -> None:
        """Say that rows are about to be written; a sign of life. Called before each part of a long write."""
        self._wrote = True
        journal = self._journal
        if not journal.engine.exclusive and time.monotonic() - self._checked > journal._lease / 4:
            self._fence()
            journal.engine.write_beat(journal._beat(self.generation))
            self._checked = time.monotonic()

    def commit(self, head: Head) -> None:
        """From now on the gallery is this. With steps pending, they are applied too."""
        journal = self._journal
        if not journal.engine.exclusive and time.monotonic() - self._checked > journal._lease / 4:
            self._fence()
        if head.pending is None:
            self._write(replace(head, generation=self.generation))
            return
        self._write(head)
        try:
            journal._finish(head)
            journal.engine.write_head(replace(head, pending=None, generation=self.generation).encode())
        except StoreError:  # it has happened; whoever writes next applies the rest
            journal._unclean, journal._held, self._left = True, self.generation, True

    def _write(self, head: Head) -> None:
        engine = self._journal.engine
        try:
            engine.write_head(head.encode())
        except StoreError:
            if self._journal._read() != head:  # the answer may have been lost, and only that
                raise
        self._committed = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        journal = self._journal
        try:
            if self._left:
                return
            if self._wrote and not self._committed:
                try:
                    journal._purge(journal._read())
                except StoreError:
                    journal._unclean, journal._held = True, self.generation
                    return
            if not journal.engine.exclusive:
                with contextlib.suppress(StoreError):  # then others wait for the lease
                    for spent in range(self.head.generation + 1, self.generation + 1):  # those of the dead too
                        journal.engine.release(spent)
        finally:
            journal._writers.release()

    def _fence(self) -> None:
        journal = self._journal
        if not journal._is_ours(self.generation):
            self._left = True  # nothing of it is ours to remove
            raise StoreBusy(
                f"another process took over {journal.url} while this one stood still for over {journal._lease:g} s. "
                "Nothing was written. Try again.",
                url=journal.url,
            )
