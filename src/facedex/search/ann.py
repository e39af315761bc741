"""The approximate index: codes propose, the stored embeddings decide.

A scan over compressed rows proposes a few hundred candidates for each probe; each is scored again from its stored
float32 embedding, in float64, so a similarity is the one that exact search gives. What can be missed is a candidate,
never a digit of its score. How much is missed is measured when the index is built and kept with it.

Rows that are not coded yet are scanned exactly, so a row is found from the moment it is added.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, DimensionMismatch, IndexCorrupt, IndexUnavailable
from facedex.search import ann_codes, ann_file, reference
from facedex.search.checks import as_ids, check_rows, check_unit, whole
from facedex.search.contract import Allowed, Ids

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a stage (``read``, ``train``, ``code``, ``measure``), how much of it is done, and of how much (0: not
known). What it raises ends the build, which goes on from its last checkpoint when it is called again."""

Batches: TypeAlias = Iterable[tuple[Ids, npt.NDArray[np.float32]]]

TRAINED_FROM = 4096
"""Rows from which codes are worth learning; below, every row is compared."""
TARGET_RECALL = 0.995
"""What the effort of a search is set for at build time, on probes other than those of the reported figure."""
_TRIED_RESCORED = (64, 128, 256, 512, 1024, 2048, 4096)
_TRIED_SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
_GROWTH = 4
_REMOVED_AT_ONCE = 256
_AT_ONCE = 65536
_TRIALS = 200
_GENUINE = 0.67
# Measured at 1 M × 128: coding scans a row in about 3 ns, scoring a candidate from its embedding takes about 300 ns.
_SCAN_COST, _RESCORE_COST = 3.0, 300.0


class _Gate:
    """Many searches or one change at a time; a waiting change goes before new searches."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._readers = 0
        self._changing = False
        self._waiting = 0

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        with self._free:
            while self._changing or self._waiting:
                self._free.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._free:
                self._readers -= 1
                if not self._readers:
                    self._free.notify_all()

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        with self._free:
            self._waiting += 1
            try:
                while self._changing or self._readers:
                    self._free.wait()
            finally:
                self._waiting -= 1
            self._changing = True
        try:
            yield
        finally:
            with self._free:
                self._changing = False
                self._free.notify_all()


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard a search tries.

    probed    inverted lists it looks into.
    rescored  candidates of each probe that are scored from their stored embeddings.
    """

    probed: int = 1 << 30
    rescored: int = 512


class ApproximateIndex:
    """Approximate cosine top k; see ``facedex.search.contract.Index`` for the promises it shares with ``ExactIndex``.

    Safe to share between threads. Rows added since the last ``save`` are in memory, all others in a mapped file.
    """

    def __init__(self, dimension: int) -> None:
        """An empty index in memory. Raises SearchDriverMissing, ArgumentInvalid."""
        if dimension < 1:
            raise ArgumentInvalid(f"dimension is {dimension}; expected at least 1.", dimension=dimension)
        ann_codes.faiss()
        self.dimension = dimension
        self.effort = Effort()
        self._gate = _Gate()
        self._rows = ann_file.Rows(dimension)
        self._ids = np.empty(0, np.int64)
        self._removed = np.empty(0, np.bool_)
        self._used = 0
        self._gone = 0
        self._pending: list[int] = []  # removed, but still coded
        self._order: npt.NDArray[np.int64] | None = None  # positions by rising id, when they do not rise by themselves
        self._rising = True
        self._codes: ann_codes.Codes | None = None
        self._coded = 0
        self._sequence = -1
        self._facts: dict[str, Any] = {}
        self._sums = np.empty(0, np.uint32)
        self._summed = 0
        self._token = ""
        self._path: Path | None = None
        self._published = b""

    # ---- what is in it ----

    def __len__(self) -> int:
        return self._used - self._gone

    @property
    def ids(self) -> Ids:
        """Ids of the rows that can be found, ``(N,)`` int64, in the order they were added."""
        with self._gate.reading():
            return self._ids[: self._used][~self._removed[: self._used]]

    @property
    def facts(self) -> dict[str, Any]:
        """What this index is and what was measured on it.

        library, version        what codes and scans the rows.
        parameters              codes, lists, lists probed, candidates rescored.
        rows, dimension         how many can be found now; D.
        sequence                the largest id it ever held, -1 when none; a store's ids rise, so newer is larger.
        complete                whether a build finished.
        recall_at_10            share of the 10 best of exact search that it finds, over both kinds of probes below;
                                None when never measured.
        recall_at_10_enrolled   the same over perturbed enrolled rows, and ``recall_at_10_unknown`` over strangers.
        measured, measured_rows, probes    when (ISO 8601, UTC), with how many rows, with how many probes.
        """
        codes = self._codes
        return {
            "recall_at_10": None,
            "complete": False,
            **self._facts,
            "library": "faiss",
            "version": str(ann_codes.faiss().__version__),
            "parameters": {
                "codes": "none" if codes is None else f"IVF{codes.lists},PQ{len(codes.rotation) // 2}x4fs, rotated",
                "lists": 0 if codes is None else codes.lists,
                "probed": 0 if codes is None else min(codes.lists, self.effort.probed),
                "rescored": self.effort.rescored,
            },
            "rows": len(self),
            "dimension": self.dimension,
            "sequence": self._sequence,
        }

    @property
    def hot_bytes(self) -> int:
        """Memory that stays: codes, ids, rows not saved yet; not the mapped embeddings."""
        codes = 0 if self._codes is None else len(self._codes) * self._codes.row_bytes
        return codes + self._ids.nbytes + self._removed.nbytes + self._rows.waiting_bytes

    @property
    def outgrown(self) -> bool:
        """Whether a build would learn new codes: several times the rows they were learned for, or many removed."""
        trained = int(self._facts.get("trained_rows", 0))
        wants_codes = self._used >= TRAINED_FROM and (self._codes is None or self._used >= _GROWTH * trained)
        return wants_codes or self._gone > max(self._used // 4, 1024)

    def contains(self, ids: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which of these ids are in the index, ``(N,)`` bool."""
        with self._gate.reading():
            return self._positions(as_ids(ids)) >= 0

    def embeddings(self, ids: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The stored embeddings of these ids, ``(n, D)`` float32, in the order asked; unknown ids are left out."""
        with self._gate.reading():
            positions = self._positions(as_ids(ids))
            return self._rows.take(positions[positions >= 0])

    def _positions(self, ids: Ids) -> npt.NDArray[np.int64]:
        """Where rows stand; -1 for ids that are not here."""
        if not self._used:
            return np.full(len(ids), -1, np.int64)
        known = self._ids[: self._used]
        # searches run side by side: the order is made by what changes the ids, only read here
        if self._rising:
            found = np.minimum(np.searchsorted(known, ids), self._used - 1)
        else:
            assert self._order is not None
            found = self._order[np.minimum(np.searchsorted(known, ids, sorter=self._order), self._used - 1)]
        here: npt.NDArray[np.int64] = np.where((known[found] == ids) & ~self._removed[found], found, -1)
        return here

    # ---- changing it ----

    def add(self, embeddings: npt.NDArray[np.float32], ids: npt.ArrayLike | None = None) -> None:
        """Add rows; searches that start afterwards find them.

        embeddings  (N, D) float32 unit rows.
        ids         (N,) int64 ≥ 0, never held before; default: on from the largest it ever held.
        Raises      DimensionMismatch, EmbeddingInvalid, ArgumentInvalid; then nothing was added.
        """
        embeddings = check_rows(embeddings, self.dimension, "Embeddings")
        check_unit(embeddings, "Embedding")
        with self._gate.changing():
            fresh = self._sequence + 1 + np.arange(len(embeddings)) if ids is None else as_ids(ids)
            self._append(embeddings, fresh)
            if self._codes is None and self._used >= TRAINED_FROM:
                self._train()
            self._code()

    def _append(self, embeddings: npt.NDArray[np.float32], ids: Ids) -> None:
        if len(ids) != len(embeddings) or (len(ids) and ids.min() < 0):
            raise ArgumentInvalid(
                f"{len(ids)} ids for {len(embeddings)} embeddings; give one for each, none negative.",
                ids=len(ids),
                embeddings=len(embeddings),
            )
        if not len(ids):
            return
        rising = bool(np.all(np.diff(ids) > 0)) and int(ids[0]) > self._sequence
        if not rising and (len(np.unique(ids)) != len(ids) or np.isin(ids, self._ids[: self._used]).any()):
            raise ArgumentInvalid(
                "Each id may be given once and never comes back; some are repeated or were here before."
            )
        end = self._used + len(ids)
        if end > len(self._ids):
            room = max(end, len(self._ids) * 3 // 2, 1024)
            known, removed = np.empty(room, np.int64), np.zeros(room, np.bool_)
            known[: self._used], removed[: self._used] = self._ids[: self._used], self._removed[: self._used]
            self._ids, self._removed = known, removed
        self._rows.append(embeddings)
        self._ids[self._used : end] = ids
        self._used = end
        self._sequence = max(self._sequence, int(ids.max()))
        self._rising = self._rising and rising
        self._order = None if self._rising else np.argsort(self._ids[:end], kind="stable")

    def remove(self, ids: npt.ArrayLike) -> int:
        """Remove rows; returns how many there were. No search that starts afterwards answers with them.

        Their embeddings leave the file with the next ``save``.
        """
        with self._gate.changing():
            positions = self._positions(np.unique(as_ids(ids)))
            positions = positions[positions >= 0]
            self._removed[positions] = True
            self._gone += len(positions)
            self._pending += positions[positions < self._coded].tolist()
            if len(self._pending) > _REMOVED_AT_ONCE:
                self._forget_codes()
            first = int(positions.min()) // ann_file.CHUNK if len(positions) else self._summed
            self._summed = min(self._summed, first)
            return len(positions)

    def _forget_codes(self) -> None:
        if self._codes is not None and self._pending:
            self._codes.remove(np.array(self._pending, np.int64))
        self._pending = []

    def _train(self, seed: int = 1) -> None:
        alive = np.flatnonzero(~self._removed[: self._used])
        if len(alive) < 1024:
            return
        chosen = np.random.default_rng(seed).choice(alive, min(len(alive), _AT_ONCE), replace=False)
        self._codes = ann_codes.Codes.train(self._rows.take(np.sort(chosen)), len(alive))
        self._coded, self._pending, self.effort = 0, [], Effort()
        self._facts["trained_rows"] = self._used

    def _code(self, at_once: int = 1 << 62) -> None:
        """Code rows that are not yet, as many as said."""
        if self._codes is None:
            return
        stop = min(self._used, self._coded + at_once)
        for start in range(self._coded, stop, _AT_ONCE):
            end = min(stop, start + _AT_ONCE)
            keep = np.flatnonzero(~self._removed[start:end])
            self._codes.add(self._rows.part(start, end)[keep], keep + start)
            self._coded = end

    # ---- searching ----

    def search(
        self,
        probes: npt.NDArray[np.float32],
        k: int = 10,
        threads: int | None = None,
        where: Allowed | None = None,
    ) -> tuple[npt.NDArray[np.float32], Ids]:
        """About the k most similar rows of each probe.

        probes   (Q, D) float32 unit rows.
        threads  how many at most; default one for a single probe (more only wait for each other), all for several.
        where    which rows may be an answer; None: all.
        Returns  similarities (Q, k) float32 as exact search gives them and ids (Q, k) int64, best first, equal
                 similarities by id; -inf and -1 where there are fewer.
        Raises   DimensionMismatch, EmbeddingInvalid, ArgumentInvalid.
        """
        probes = check_rows(probes, self.dimension, "Probes")
        check_unit(probes, "Probe")
        k = whole(k, "k")
        if threads is not None:
            threads = whole(threads, "threads")
        similarities = np.full((len(probes), k), -np.inf, np.float32)
        found = np.full((len(probes), k), -1, np.int64)
        with self._gate.reading():
            allowed = None if where is None else self._allowed(where)
            for q, candidates in enumerate(self._candidates(probes, k, threads, allowed, self.effort)):
                best, positions = self._best(probes[q], candidates, k)
                similarities[q, : len(best)], found[q, : len(best)] = best, self._ids[positions]
        return similarities, found

    def _allowed(self, where: Allowed) -> npt.NDArray[np.int64]:
        """Positions of the rows that may be an answer, rising, removed ones left out."""
        alive = np.flatnonzero(~self._removed[: self._used])
        if callable(where):
            return alive[where(self._ids[alive])]
        if isinstance(where, np.ndarray) and where.dtype == np.bool_:
            if where.shape != alive.shape:
                raise ArgumentInvalid(f"The mask has shape {where.shape}; expected {alive.shape}, as the index's ids.")
            return alive[where]
        positions = self._positions(np.unique(as_ids(where, negative=True)))
        return np.sort(positions[positions >= 0])

    def _candidates(
        self,
        probes: npt.NDArray[np.float32],
        k: int,
        threads: int | None,
        allowed: npt.NDArray[np.int64] | None,
        effort: Effort,
    ) -> Iterator[npt.NDArray[np.int64]]:
        """For each probe the positions worth scoring, none removed."""
        bits = None
        if allowed is not None:
            # a selective filter is cheaper to follow than to test for, and exact
            if len(allowed) <= max(2 * effort.rescored, self._used // 100) or self._codes is None:
                yield from (allowed for _ in probes)
                return
            mask = np.zeros(self._used, np.bool_)
            mask[allowed] = True
            bits = np.packbits(mask, bitorder="little")
            effort = replace(effort, probed=1 << 30)  # those that pass may all stand in a few lists
        count = max(effort.rescored, 4 * k)
        coded = np.empty((len(probes), 0), np.int64)
        if self._codes is not None and len(self._codes):
            threads = threads or (1 if len(probes) == 1 else ann_codes.cores())
            lists = min(effort.probed, self._codes.lists)
            coded = self._codes.search(probes, count + len(self._pending), lists, threads, bits)
            while lists < self._codes.lists and (coded[:, min(k, coded.shape[1]) - 1] < 0).any():
                lists = min(4 * lists, self._codes.lists)  # fewer than k in the lists looked into
                coded = self._codes.search(probes, count + len(self._pending), lists, threads, bits)
        fresh = None
        if self._coded < self._used:
            fresh = np.flatnonzero(~self._removed[self._coded : self._used]) + self._coded
            if allowed is not None:
                fresh = np.intersect1d(fresh, allowed, assume_unique=True)
        for row in coded:
            row = row[row >= 0]
            if self._pending:
                row = row[~self._removed[row]]
            yield row if fresh is None else np.concatenate([row, fresh])

    def _best(
        self, probe: npt.NDArray[np.float32], candidates: npt.NDArray[np.int64], k: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The k best of the candidates by float64 similarity, ties by id: (≤ k,) similarities and positions."""
        if len(candidates) > _AT_ONCE:
            parts = [self._best(probe, candidates[i : i + _AT_ONCE], k)[1] for i in range(0, len(candidates), _AT_ONCE)]
            candidates = np.concatenate(parts)
        rows = self._rows.take(candidates)
        if len(candidates) > k:
            rough = rows @ probe
            # |float32 product - exact| ≤ γ·‖a‖‖b‖, γ = Du/(1-Du), u = 2^-24 (Higham 2002, §3.1), norms ≤ 1.001
            margin = np.float32(2 * 2.1 * self.dimension * 2.0**-24)
            near = np.flatnonzero(rough >= np.partition(rough, len(rough) - k)[len(rough) - k] - margin)
            rows, candidates = rows[near], candidates[near]
        exact = reference.similarities(rows, probe)
        order = np.lexsort((self._ids[candidates], -exact))[:k]
        return exact[order], candidates[order]

    # ---- the file ----

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Self:
        """A saved index; its embeddings are mapped, not read.

        Raises  IndexCorrupt, IndexVersion, IndexUnavailable, SearchDriverMissing.
        """
        path = Path(path)
        contents = ann_file.read(path)
        facts, sections = contents.facts, contents.sections
        index = cls(int(facts["dimension"]))
        try:
            used, index._token = int(facts.pop("rows_written")), str(facts.pop("token"))
            index._ids = sections["ids"].view("<i8").astype(np.int64)
            index._removed = np.unpackbits(sections["removed"], count=used, bitorder="little").view(np.bool_)
            index._sums = sections["sums"].view("<u4").astype(np.uint32)
            index._coded, index._sequence = int(facts.pop("coded")), int(facts.pop("sequence"))
            index.effort = Effort(*map(int, facts.pop("effort")))
            if "codes" in sections:
                rotation = sections["rotation"].view("<f4").astype(np.float32).reshape(-1, index.dimension)
                index._codes = ann_codes.Codes.from_bytes(sections["codes"], rotation)
            coded = int((~index._removed[: index._coded]).sum())
            if len(index._ids) != used or index._coded > used or (len(index._codes) if index._codes else 0) != coded:
                raise ValueError("its parts do not fit each other")
        except (KeyError, TypeError, ValueError) as error:
            raise ann_file.corrupt(path, str(error)) from error
        rows = ann_file.rows_path(path, index._token)
        index._rows = ann_file.Rows.open(rows, index.dimension, index._token, used)
        index._used, index._gone = used, int(index._removed.sum())
        index._rising = bool(np.all(np.diff(index._ids) > 0))
        index._order = None if index._rising else np.argsort(index._ids, kind="stable")
        index._facts = {k: v for k, v in facts.items() if k not in ("rows", "dimension")}
        index._summed = len(index._sums)
        index._path, index._published = path, contents.prologue
        return index

    def save(self, path: str | PathLike[str]) -> None:
        """Write the index, whole or not at all; from then on it lives at this path. Removed embeddings are erased.

        Where it was opened from or saved to before, only what is new is written, unless another process wrote there.
        Raises  IndexUnavailable.
        """
        path = Path(path)
        with ann_file.one_writer(path), self._gate.changing():
            self._save(path)

    def _save(self, path: Path) -> None:
        self._forget_codes()
        if path.exists() and not ann_file.is_ours(path):
            raise ann_file.corrupt(path, "it does not begin like one, so it is not replaced")
        if self._path != path or ann_file.prologue(path) != self._published:
            self._copy_rows(path)
        self._publish(path)
        # what a half-built index took in may have been removed from this one
        ann_file.building_path(path).unlink(missing_ok=True)
        ann_file.sweep(path)

    def _copy_rows(self, path: Path) -> None:
        """Give the index a rows file of its own beside this path; what is at the path stays as it is."""
        token = secrets.token_hex(16)
        target = ann_file.rows_path(path, token)
        ann_file.Rows.create(target, self.dimension, token)
        copy = ann_file.Rows(self.dimension)
        for start in range(0, self._used, _AT_ONCE):
            stop = min(self._used, start + _AT_ONCE)
            rows = self._rows.part(start, stop).copy()
            rows[self._removed[start:stop]] = 0
            copy.append(rows)
            copy.flush(target)
        self._rows, self._token = copy, token

    def _publish(self, path: Path) -> None:
        """Write what is new behind the rows, then replace the file that counts them, then erase removed rows."""
        rows = ann_file.rows_path(path, self._token)
        self._rows.flush(rows)
        ann_file.sync(rows)
        removed = self._removed[: self._used]
        # the last chunk may have been half full
        first = max(0, min(self._summed, len(self._sums)) - 1)
        chunks = -(-self._used // ann_file.CHUNK)
        self._sums = np.concatenate([self._sums[:first], self._rows.checksums(first, chunks, removed)])
        self._summed = chunks
        facts = {
            **self._facts,
            "rows": len(self),
            "rows_written": self._used,
            "dimension": self.dimension,
            "token": self._token,
            "coded": self._coded,
            "sequence": self._sequence,
            "effort": [self.effort.probed, self.effort.rescored],
        }
        sections = {
            "ids": self._ids[: self._used].astype("<i8").view(np.uint8),
            "removed": np.packbits(removed, bitorder="little"),
            "sums": self._sums.astype("<u4").view(np.uint8),
        }
        if self._codes is not None:
            sections["rotation"] = np.ascontiguousarray(self._codes.rotation, "<f4").reshape(-1).view(np.uint8)
            sections["codes"] = self._codes.to_bytes()
        self._published = ann_file.write(path, ann_file.Contents(facts, sections))
        self._path = path
        gone = np.flatnonzero(removed)
        ann_file.erase(rows, self.dimension, gone[self._rows.take(gone).any(axis=1)])

    def verify(self) -> None:
        """Check every stored embedding against its checksum; takes as long as reading them. Raises IndexCorrupt."""
        with self._gate.reading():
            if self._path is None:
                return
            written = min(self._summed, len(self._sums))
            if self._rows.waiting_bytes:
                written = max(0, written - 1)  # the last chunk has grown since
            sums = self._rows.checksums(0, written, self._removed[: self._used])
            if not np.array_equal(sums, self._sums[:written]):
                bad = int(np.flatnonzero(sums != self._sums[:written])[0])
                raise ann_file.corrupt(
                    ann_file.rows_path(self._path, self._token),
                    f"embeddings {bad * ann_file.CHUNK} to {(bad + 1) * ann_file.CHUNK - 1} are damaged",
                )

    def batches(self, size: int = _AT_ONCE) -> Iterator[tuple[Ids, npt.NDArray[np.float32]]]:
        """What it holds: ids ``(n,)`` int64 and embeddings ``(n, D)`` float32, in the order they were added."""
        for start in range(0, self._used, size):
            stop = min(self._used, start + size)
            keep = ~self._removed[start:stop]
            yield self._ids[start:stop][keep], self._rows.part(start, stop)[keep]

    # ---- measuring it ----

    def measure(self, progress: Progress | None = None, seed: int = 11) -> None:
        """Set the effort for ``TARGET_RECALL`` and measure recall@10 against exact search; ``facts`` tells both.

        Half of the probes decide the effort, the other half measure it: perturbed enrolled rows (similarity about
        0.67 to the row they come from) and strangers drawn from the gallery's mean and covariance. Seeded.
        """
        if len(self) == 0:
            return
        tell = progress or (lambda *_: None)
        tell("measure", 0, 3)
        probes = self._trial_probes(seed)
        truth = self._exact(probes, min(10, len(self)))
        tell("measure", 1, 3)
        trying = np.arange(len(probes)) % 2 == 0
        if self._codes is not None:
            self.effort = self._cheapest(probes[trying], truth[trying])
        tell("measure", 2, 3)
        ours = self.search(probes[~trying], truth.shape[1], threads=ann_codes.cores())[1]
        wanted = self._ids[truth[~trying]]
        shares = np.array([np.isin(w, o).mean() for w, o in zip(wanted, ours, strict=True)])
        enrolled = np.arange(len(shares)) < _TRIALS
        self._facts |= {
            "recall_at_10": round(float(shares.mean()), 5),
            "recall_at_10_enrolled": round(float(shares[enrolled].mean()), 5),
            "recall_at_10_unknown": round(float(shares[~enrolled].mean()), 5),
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "measured_rows": len(self),
            "probes": len(shares),
        }
        tell("measure", 3, 3)

    def _trial_probes(self, seed: int) -> npt.NDArray[np.float32]:
        """``(800, D)``: 400 perturbed enrolled rows, then 400 strangers."""
        rng = np.random.default_rng(seed)
        alive = np.flatnonzero(~self._removed[: self._used])
        sample = self._rows.take(np.sort(rng.choice(alive, min(len(alive), 16384), replace=False)))
        mean = sample.mean(axis=0)
        spread = sample - mean
        # a random mixture of centred rows has their covariance
        noise = rng.standard_normal((4 * _TRIALS, len(sample)), np.float32) @ spread / np.float32(len(sample) ** 0.5)
        noise += rng.standard_normal(noise.shape, np.float32) * np.float32(1e-6)
        strangers = mean + noise[2 * _TRIALS :]
        noise = noise[: 2 * _TRIALS] / np.linalg.norm(noise[: 2 * _TRIALS], axis=1, keepdims=True)
        known = self._rows.take(rng.choice(alive, 2 * _TRIALS))
        probes = np.concatenate([_GENUINE * known + np.sqrt(1 - _GENUINE**2) * noise, strangers])
        unit: npt.NDArray[np.float32] = (probes / np.linalg.norm(probes, axis=1, keepdims=True)).astype(np.float32)
        return unit

    def _exact(self, probes: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
        """Positions of the k best by float32 product, ``(Q, k)``."""
        best = np.full((len(probes), k), -np.inf, np.float32)
        where = np.zeros((len(probes), k), np.int64)
        for start in range(0, self._used, 16384):
            stop = min(self._used, start + 16384)
            scores = probes @ self._rows.part(start, stop).T
            scores[:, self._removed[start:stop]] = -np.inf
            if stop - start > k:
                top = np.argpartition(scores, stop - start - k, axis=1)[:, -k:]
            else:
                top = np.broadcast_to(np.arange(stop - start), scores.shape)
            both = np.concatenate([best, np.take_along_axis(scores, top, axis=1)], axis=1)
            place = np.concatenate([where, top + start], axis=1)
            keep = np.argpartition(both, both.shape[1] - k, axis=1)[:, -k:]
            best, where = np.take_along_axis(both, keep, axis=1), np.take_along_axis(place, keep, axis=1)
        return where

    def _cheapest(self, probes: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> Effort:
        """The cheapest effort that reaches the target, or the largest there is."""
        assert self._codes is not None
        # scoring more than an eighth of a gallery is no longer a search by codes
        tried = [r for r in _TRIED_RESCORED if r <= max(256, self._coded // 8)]
        chosen, cost = Effort(self._codes.lists, tried[-1]), np.inf
        for share in _TRIED_SHARES:
            probed = max(1, round(share * self._codes.lists))
            scan = share * self._coded * _SCAN_COST
            if scan >= cost:
                break
            rows = self._codes.search(probes, tried[-1] + len(self._pending), probed, ann_codes.cores())
            for rescored in tried:
                hits = [np.isin(t[t < self._coded], r[:rescored]).sum() + (t >= self._coded).sum()
                        for t, r in zip(truth, rows, strict=True)]  # fmt: skip
                total = scan + rescored * _RESCORE_COST
                if np.sum(hits) >= TARGET_RECALL * truth.size and total < cost:
                    chosen, cost = Effort(probed, rescored), total
        return chosen


def build(
    path: str | PathLike[str],
    batches: Batches | Callable[[int], Batches],
    dimension: int,
    progress: Progress | None = None,
    *,
    present: npt.ArrayLike | None = None,
    checkpoint_rows: int = 131072,
    replace: bool = False,
) -> ApproximateIndex:
    """Make the index at a path, or bring the one that is there up to date.

    Interrupted at any moment, it goes on from its last checkpoint when called again. An index that is there can be
    searched meanwhile and is replaced only by a finished one, or extended.

    batches          (ids (n,) int64, embeddings (n, D) float32 unit rows); rows it has already are passed over. Or a
                     function that gives the batches behind an id: ``lambda after: store.embedding_batches(after)``.
    present          all ids that should be in it: others are removed. None: nothing is removed.
    checkpoint_rows  save after so many rows, and at least an eighth of those there are.
    replace          start anew, whatever is at the path; otherwise a file that is not ours is left alone.
    Returns          the finished index, its recall measured.
    Raises           IndexCorrupt for a file that is not ours, IndexVersion, IndexUnavailable, SearchDriverMissing,
                     DimensionMismatch, EmbeddingInvalid, ArgumentInvalid; a damaged index of ours is built anew.
    """
    path = Path(path)
    ann_codes.faiss()
    if checkpoint_rows < 1:
        raise ArgumentInvalid(f"checkpoint_rows is {checkpoint_rows}; expected at least 1.", value=checkpoint_rows)
    source = batches if callable(batches) else lambda _: batches
    building = ann_file.building_path(path)
    with ann_file.one_writer(path):
        old = None if replace else _usable(path, dimension)
        if replace:
            building.unlink(missing_ok=True)
        ann_file.sweep(path)
        if old is not None and not building.exists():
            _Build(old, path, checkpoint_rows, progress).follow(source, present)
            if not old.outgrown:
                return old
        index = _usable(building, dimension, ours=True)
        if index is None:
            building.unlink(missing_ok=True)
            index = ApproximateIndex(dimension)
            index._copy_rows(building)
        work = _Build(index, building, checkpoint_rows, progress)
        if old is not None:
            work.read(old.batches())
        work.follow(source, present)
        ann_file.move(building, path)
        index._path = path
        ann_file.sweep(path)
        return index


def _usable(path: Path, dimension: int, *, ours: bool = False) -> ApproximateIndex | None:
    """The index at a path; None where there is none, or a damaged one of ours."""
    if not path.exists():
        return None
    try:
        index = ApproximateIndex.open(path)
    except (IndexCorrupt, IndexUnavailable):
        if ours or ann_file.is_ours(path):
            return None
        raise
    if index.dimension != dimension:
        if ours:
            return None
        raise DimensionMismatch(
            f"'{path}' holds ({index.dimension},) embeddings, these have {dimension}. "
            "Build at another path, or with replace=True.",
            expected=index.dimension,
            got=dimension,
        )
    return index


class _Build:
    """One run of ``build``: the stages, each going on where the index stands."""

    def __init__(self, index: ApproximateIndex, path: Path, checkpoint_rows: int, progress: Progress | None) -> None:
        self._index, self._path, self._every = index, path, checkpoint_rows
        self._tell = progress or (lambda *_: None)
        self._since = 0

    def _checkpoint(self, rows: int) -> None:
        self._since += rows
        if self._since >= max(self._every, self._index._used // 8):
            self._index._publish(self._path)
            self._since = 0

    def read(self, batches: Batches) -> int:
        """Take in what is not there yet; returns how many rows that was."""
        index, taken = self._index, 0
        for ids, embeddings in batches:
            embeddings = check_rows(embeddings, index.dimension, "Embeddings")
            check_unit(embeddings, "Embedding")
            with index._gate.changing():
                fresh = (
                    ~np.isin(ids, index._ids[: index._used]) if _overlaps(index, ids) else np.ones(len(ids), np.bool_)
                )
                index._append(embeddings[fresh], as_ids(ids)[fresh])
                index._code()
                index._rows.flush(ann_file.rows_path(self._path, index._token))
            taken += int(fresh.sum())
            self._checkpoint(int(fresh.sum()))
            self._tell("read", index._used, 0)
        return taken

    def follow(self, source: Callable[[int], Batches], present: npt.ArrayLike | None) -> None:
        """Read what is newer, remove what is gone, learn codes where they are missing, measure, save."""
        index = self._index
        started = time.perf_counter()
        changed = self.read(source(index._sequence))
        if present is not None:
            gone = np.setdiff1d(index.ids, as_ids(present), assume_unique=True)
            changed += index.remove(gone)
        with index._gate.changing():
            if index._codes is None and index._used >= TRAINED_FROM:
                index._publish(self._path)  # all rows are in: from here on nothing is asked of the source again
                self._tell("train", 0, 1)
                index._train()
                self._tell("train", 1, 1)
                index._publish(self._path)
                changed += 1
        while index._codes is not None and index._coded < index._used:
            step = min(_AT_ONCE, max(self._every, index._used // 8))
            with index._gate.changing():
                index._code(step)
            self._checkpoint(step)
            self._tell("code", index._coded, index._used)
        if changed or not index.facts["complete"] or index.facts["recall_at_10"] is None:
            index.measure(self._tell)
            index._facts |= {"complete": True, "build_seconds": round(time.perf_counter() - started, 1)}
            with index._gate.changing():
                index._forget_codes()
                index._publish(self._path)


def _overlaps(index: ApproximateIndex, ids: Ids) -> bool:
    return bool(len(ids)) and int(np.min(ids)) <= index._sequence
