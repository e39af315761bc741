"""Genuine and impostor pairs of a labelled set, compared in blocks: ten thousand photos are fifty million pairs.

Nothing here keeps all scores. A tally counts them on a grid of thresholds, so error rates at a threshold of the grid
are exact, and memory does not grow with the number of pairs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, EmbeddingInvalid, TrialsTooFew
from facedex.types import Embeddings

__all__ = ["GRID", "AllPairs", "ListedPairs", "ScoredPair", "Tally", "Trials", "all_pairs"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

GRID: Final[Floats] = np.arange(-100_000, 100_001) / 100_000
"""Thresholds −1, −0.99999, … 1: each the float64 nearest to its decimal."""

_SCORES_AT_ONCE: Final = 4_000_000
_ROUNDS_AT_ONCE: Final = 250


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """How many scores lie in ``[GRID[k], GRID[k + 1])``; the last place holds those of 1 and above.

    genuine, impostor  (200001,) int64.
    """

    genuine: Ints
    impostor: Ints

    @property
    def fmr(self) -> Floats:
        """(200001,) the share of impostor pairs at or above each threshold of the grid."""
        return np.cumsum(self.impostor[::-1])[::-1] / max(1, int(self.impostor.sum()))

    @property
    def fnmr(self) -> Floats:
        """(200001,) the share of genuine pairs below each threshold of the grid."""
        below = np.concatenate([[0], np.cumsum(self.genuine)[:-1]])
        return np.asarray(below / max(1, int(self.genuine.sum())))


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """Two faces, by their places in the set, and their similarity."""

    similarity: float
    first: int
    second: int


class Trials(ABC):
    """Comparisons whose truth is known.

    people  names, one an identity; what is drawn by the bootstrap and kept apart by the cross-validation.
    """

    people: tuple[str, ...]

    @abstractmethod
    def scores(self) -> Iterator[tuple[Floats, Floats]]:
        """(g,) genuine and (i,) impostor similarities, block by block, each pair once."""

    @abstractmethod
    def subset(self, people: Sequence[int]) -> Self:
        """The pairs both of whose people are among these (numbers into ``people``).

        Raises  TrialsTooFew when no genuine or no impostor pair is left.
        """

    @abstractmethod
    def worst(self, count: int) -> tuple[list[ScoredPair], list[ScoredPair]]:
        """The genuine pairs of lowest similarity and the impostor pairs of highest, worst first."""

    @abstractmethod
    def resampled(self, thresholds: Floats, draws: Floats) -> tuple[Floats, Floats]:
        """FMR and FNMR when identity p counts ``draws[r, p]`` times: two arrays ``(R, T)``.

        A genuine pair counts as often as its person, an impostor pair as often as the product of its two. NaN where
        that leaves no pair of the kind.
        """

    @cached_property
    def tally(self) -> Tally:
        genuine, impostor = np.zeros(len(GRID), np.int64), np.zeros(len(GRID), np.int64)
        for same, other in self.scores():
            genuine += _counted(same)
            impostor += _counted(other)
        return Tally(genuine, impostor)

    @property
    def genuine_trials(self) -> int:
        return int(self.tally.genuine.sum())

    @property
    def impostor_trials(self) -> int:
        return int(self.tally.impostor.sum())

    def error_rates(self, thresholds: npt.ArrayLike) -> tuple[Floats, Floats]:
        """(FMR, FNMR), each ``(T,)``, when pairs at or above a threshold, of the grid or not, are taken for one
        person."""
        wanted = np.atleast_1d(np.asarray(thresholds, np.float64))
        matched, missed = np.zeros(len(wanted)), np.zeros(len(wanted))
        for same, other in self.scores():
            for place, threshold in enumerate(wanted):
                matched[place] += np.count_nonzero(other >= threshold)
                missed[place] += np.count_nonzero(same < threshold)
        return matched / self.impostor_trials, missed / self.genuine_trials


class AllPairs(Trials):
    """Every embedding compared with every other, each pair once; see ``all_pairs``."""

    def __init__(self, embeddings: Embeddings, labels: Sequence[str]) -> None:
        if len(labels) != len(embeddings):
            raise ArgumentInvalid(f"{len(embeddings)} embeddings need as many labels, got {len(labels)}.")
        if len(labels) and not np.isfinite(embeddings).all():
            raise EmbeddingInvalid("an embedding holds values that are not finite; comparing needs numbers.")
        names, who = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
        self.people = tuple(str(name) for name in names)
        # A person's photos lie side by side, so that counting by person is adding up runs.
        self._order = np.argsort(who, kind="stable")
        self._who = who[self._order]
        self._rows = np.asarray(embeddings, np.float32)[self._order]
        self._photos = np.bincount(who, minlength=len(names)).astype(np.int64)
        genuine = int((self._photos * (self._photos - 1) // 2).sum())
        _check_counts(genuine, len(who) * (len(who) - 1) // 2 - genuine, len(names), len(who))

    def _blocks(self, at_once: int = _SCORES_AT_ONCE) -> Iterator[tuple[slice, Floats]]:
        """Some rows compared with themselves and all rows behind them, this many scores at once."""
        n = len(self._rows)
        rows = self._rows.astype(np.float64)
        start = 0
        while start < n:
            stop = min(n, start + max(1, at_once // (n - start)))
            yield slice(start, stop), rows[start:stop] @ rows[start:].T
            start = stop

    def _masks(self, rows: slice) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Of a block, the pairs not yet seen, split into genuine and impostor."""
        places = np.arange(rows.start, len(self._rows))
        fresh = places[None, :] > np.arange(rows.start, rows.stop)[:, None]
        same = self._who[rows, None] == self._who[None, rows.start :]
        return fresh & same, fresh & ~same

    def scores(self) -> Iterator[tuple[Floats, Floats]]:
        for rows, similarities in self._blocks():
            genuine, impostor = self._masks(rows)
            yield similarities[genuine], similarities[impostor]

    def subset(self, people: Sequence[int]) -> AllPairs:
        kept = np.isin(self._who, np.asarray(people))
        return AllPairs(self._rows[kept], [self.people[person] for person in self._who[kept]])

    def worst(self, count: int) -> tuple[list[ScoredPair], list[ScoredPair]]:
        lowest: list[ScoredPair] = []
        highest: list[ScoredPair] = []
        for rows, similarities in self._blocks():
            genuine, impostor = self._masks(rows)
            if len(lowest) == count:
                genuine &= similarities < lowest[-1].similarity
            if len(highest) == count:
                impostor &= similarities > highest[-1].similarity
            lowest = sorted([*lowest, *self._picked(similarities, genuine, rows.start, count, 1)], key=_low)[:count]
            highest = sorted([*highest, *self._picked(similarities, impostor, rows.start, count, -1)], key=_high)[
                :count
            ]
        return lowest, highest

    def _picked(
        self, similarities: Floats, mask: npt.NDArray[np.bool_], start: int, count: int, sign: int
    ) -> list[ScoredPair]:
        """Of a block's pairs in the mask, the lowest (sign 1) or highest (−1)."""
        places = np.flatnonzero(mask)
        values = similarities.ravel()[places]
        if len(places) > count:
            best = np.argpartition(sign * values, count - 1)[:count]
            places, values = places[best], values[best]
        width = similarities.shape[1]
        pairs = [sorted((int(self._order[start + at // width]), int(self._order[start + at % width]))) for at in places]
        return [ScoredPair(float(value), first, second) for value, (first, second) in zip(values, pairs, strict=True)]

    def resampled(self, thresholds: Floats, draws: Floats) -> tuple[Floats, Floats]:
        people, wanted = len(self.people), np.asarray(thresholds, np.float64)
        matched, found = np.zeros((len(draws), len(wanted))), np.zeros((people, len(wanted)))
        weights = np.ascontiguousarray(draws, np.float32)
        for rows, similarities in self._blocks():
            similarities[np.arange(rows.start, len(self._rows)) <= np.arange(rows.start, rows.stop)[:, None]] = -np.inf
            first = int(self._who[rows.start])
            mine, others = self._who[rows] - first, self._who[rows.start :] - first
            tall, wide = int(mine[-1]) + 1, int(others[-1]) + 1
            both = mine[:, None] * wide + others[None, :]
            own = np.arange(tall)
            for place, threshold in enumerate(wanted):
                hits = np.bincount(both[similarities >= threshold], minlength=tall * wide).reshape(tall, wide)
                found[first : first + tall, place] += hits[own, own]
                hits[own, own] = 0
                matched[:, place] += _weighted(hits, weights[:, first : first + wide])
        photos = self._photos.astype(np.float64)
        impostor = ((draws @ photos) ** 2 - draws**2 @ photos**2) / 2
        genuine = photos * (photos - 1) / 2
        missed = draws @ (genuine[:, None] - found)
        return _shares(matched, impostor), _shares(missed, draws @ genuine)


def _shares(counted: Floats, of: Floats) -> Floats:
    """Each row of the counts by its total, NaN where that is 0."""
    return counted / np.where(of > 0, of, np.nan)[:, None]


def _weighted(hits: Ints, weights: npt.NDArray[np.float32]) -> Floats:
    """(R,) the sum of ``hits[i, j] * weights[r, i] * weights[r, j]``, hit by hit where there are few."""
    total = np.zeros(len(weights))
    i, j = np.nonzero(hits)
    few = len(i) < hits.size / 500
    dense, sparse = hits.astype(np.float32), hits[i, j].astype(np.float32)
    for some in range(0, len(weights), _ROUNDS_AT_ONCE):
        part = weights[some : some + _ROUNDS_AT_ONCE]
        if few:
            total[some : some + _ROUNDS_AT_ONCE] = (part[:, i] * part[:, j]) @ sparse
        else:
            total[some : some + _ROUNDS_AT_ONCE] = ((part[:, : len(hits)] @ dense) * part).sum(axis=1, dtype=np.float64)
    return total


class ListedPairs(Trials):
    """Pairs that somebody chose.

    similarities   (N,).
    same           (N,) bool, whether a pair is of one person.
    first, second  (N,) numbers into ``people``.
    faces          (N, 2) what to call the faces of each pair by, for ``worst``; the numbers of the people when None.
    """

    def __init__(
        self,
        similarities: npt.ArrayLike,
        same: npt.ArrayLike,
        first: npt.ArrayLike,
        second: npt.ArrayLike,
        people: Sequence[str],
        faces: npt.ArrayLike | None = None,
    ) -> None:
        self.people = tuple(people)
        self._similarities = np.asarray(similarities, np.float64)
        self._same = np.asarray(same, bool)
        self._first, self._second = np.asarray(first, np.int64), np.asarray(second, np.int64)
        chosen = np.stack([self._first, self._second], axis=1) if faces is None else np.asarray(faces)
        self._faces = chosen.astype(np.int64).reshape(-1, 2)
        if not np.isfinite(self._similarities).all():
            raise EmbeddingInvalid("a pair has a similarity that is not finite; comparing needs numbers.")
        genuine = int(self._same.sum())
        _check_counts(genuine, len(self._same) - genuine, len(self.people), len(self._same))

    def scores(self) -> Iterator[tuple[Floats, Floats]]:
        yield self._similarities[self._same], self._similarities[~self._same]

    def subset(self, people: Sequence[int]) -> ListedPairs:
        chosen = np.asarray(people)
        kept = np.isin(self._first, chosen) & np.isin(self._second, chosen)
        place = np.full(len(self.people), -1)
        place[chosen] = np.arange(len(chosen))
        return ListedPairs(
            self._similarities[kept],
            self._same[kept],
            place[self._first[kept]],
            place[self._second[kept]],
            [self.people[person] for person in chosen],
            self._faces[kept],
        )

    def worst(self, count: int) -> tuple[list[ScoredPair], list[ScoredPair]]:
        pairs = [
            ScoredPair(float(value), int(a), int(b))
            for value, (a, b) in zip(self._similarities, self._faces, strict=True)
        ]
        genuine = [pair for pair, same in zip(pairs, self._same, strict=True) if same]
        impostor = [pair for pair, same in zip(pairs, self._same, strict=True) if not same]
        return sorted(genuine, key=_low)[:count], sorted(impostor, key=_high)[:count]

    def resampled(self, thresholds: Floats, draws: Floats) -> tuple[Floats, Floats]:
        wanted = np.atleast_1d(np.asarray(thresholds, np.float64))
        order = np.argsort(wanted)
        # How many thresholds each pair reaches, then one weighted count a round.
        reached = np.searchsorted(wanted[order], self._similarities, side="right")
        matched, missed = (np.empty((len(draws), len(wanted))) for _ in range(2))
        for number, weight in enumerate(draws):
            pair = np.where(self._same, weight[self._first], weight[self._first] * weight[self._second])
            for mine, into in ((~self._same, matched), (self._same, missed)):
                counted = np.bincount(reached[mine], pair[mine], minlength=len(wanted) + 1)
                below = np.cumsum(counted)[:-1]
                rate = below if into is missed else counted.sum() - below
                into[number, order] = rate / (counted.sum() or np.nan)
        return matched, missed


def all_pairs(embeddings: Embeddings, labels: Sequence[str]) -> AllPairs:
    """Compare every embedding with every other.

    embeddings  (N, D) float32 of norm 1.
    labels      N names.
    Raises      TrialsTooFew when there is no genuine or no impostor pair: an error rate needs both.
                EmbeddingInvalid for what is not finite.
    """
    return AllPairs(embeddings, labels)


def _check_counts(genuine: int, impostor: int, people: int, compared: int) -> None:
    if genuine == 0 or impostor == 0:
        raise TrialsTooFew(
            f"error rates need genuine and impostor pairs; {compared} photos or pairs of {people} people give "
            f"{genuine} and {impostor}. Give two people or more, and two photos or more of some of them.",
            genuine=genuine,
            impostor=impostor,
            people=people,
        )


def _counted(similarities: Floats) -> Ints:
    """Where on the grid the scores lie; rounding is put right by comparing with the thresholds themselves."""
    last = len(GRID) - 1
    places = np.clip(np.floor((similarities + 1) * 100_000), 0, last).astype(np.int64)
    places -= similarities < GRID[places]
    np.clip(places, 0, last, out=places)
    places += similarities >= GRID[np.minimum(places + 1, last)]
    np.clip(places, 0, last, out=places)
    return np.bincount(places, minlength=len(GRID)).astype(np.int64)


def _low(pair: ScoredPair) -> tuple[float, int, int]:
    return pair.similarity, pair.first, pair.second


def _high(pair: ScoredPair) -> tuple[float, int, int]:
    return -pair.similarity, pair.first, pair.second
