"""How right is it, gallery by gallery: at which rank the right person comes, and what strangers trigger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from facedex.decide.policy import Interval
from facedex.errors import ArgumentInvalid
from facedex.types import Embeddings

__all__ = ["Identification", "OpenSet", "gallery_sizes", "leave_one_out", "open_set"]

Floats = npt.NDArray[np.float64]

_SCORES_AT_ONCE: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class Identification:
    """Leave-one-out identification: each photo is searched among all others.

    probes    photos of people with another photo.
    rank_1    share of probes whose best candidate is the right person.
    cmc       share whose right person is among the k best people, k = 1, 2, …; a tie counts for the others.
    mistakes  places of the probes whose best candidate is somebody else.
    """

    probes: int
    rank_1: float
    cmc: tuple[float, ...]
    mistakes: tuple[int, ...]


def leave_one_out(embeddings: Embeddings, labels: Sequence[str], ranks: int = 20) -> Identification:
    """Closed-set identification over all embeddings; people with one photo only are candidates but not probes.

    embeddings  (N, D) float32 of norm 1.
    """
    who, order, rows, starts = _by_person(embeddings, labels)
    people = len(starts)
    photos = np.bincount(who, minlength=people)
    ranked = np.zeros(people + 1, np.int64)
    mistakes: list[int] = []
    step = max(1, _SCORES_AT_ONCE // max(1, len(rows)))
    for start in range(0, len(rows), step):
        stop = min(start + step, len(rows))
        similarities = rows[start:stop] @ rows.T
        similarities[np.arange(stop - start), np.arange(start, stop)] = -np.inf  # never the probe itself
        best = np.maximum.reduceat(similarities, starts, axis=1)
        mine = who[start:stop]
        own = best[np.arange(stop - start), mine]
        rank = (best >= own[:, None]).sum(axis=1)
        probing = photos[mine] > 1
        np.add.at(ranked, rank[probing], 1)
        mistakes += order[start:stop][probing & (rank > 1)].tolist()
    probes = int(ranked.sum())
    shares = np.cumsum(ranked[1:]) / max(1, probes)
    return Identification(
        probes, float(shares[0]) if people else 0.0, tuple(float(s) for s in shares[:ranks]), tuple(sorted(mistakes))
    )


@dataclass(frozen=True, slots=True)
class OpenSet:
    """Error rates of a search with a threshold, in galleries of one photo each of ``people``, drawn again and again.

    fpir  share of probes of nobody enrolled that match someone.
    fnir  share of probes of someone enrolled that do not match them, or match somebody else better.
    expected_fpir
          what the FMR would give were comparisons independent: 1 − (1 − FMR) ** people. None when it was not told.
    ..._range
          between which 95 % of the draws lie: how much it depends on who is enrolled.
    mated, strangers
          probes of either kind in all draws together.
    """

    people: int
    threshold: float
    fpir: float
    fpir_range: Interval
    fnir: float
    fnir_range: Interval
    expected_fpir: float | None
    mated: int
    strangers: int
    draws: int


def gallery_sizes(people: int) -> tuple[int, ...]:
    """1, 2, 5, 10, 20, … the largest few that leave a fifth of the people, at least one, out as strangers."""
    most = min(int(people * 0.8), people - 1)
    sizes = [digit * 10**power for power in range(7) for digit in (1, 2, 5) if digit * 10**power <= most]
    return tuple(sizes[-5:])


def open_set(
    embeddings: Embeddings,
    labels: Sequence[str],
    thresholds: Sequence[float],
    *,
    sizes: Sequence[int] | None = None,
    draws: int = 20,
    fmrs: Sequence[float] | None = None,
    seed: int = 0,
) -> tuple[OpenSet, ...]:
    """Enroll one photo each of some people, search everyone's other photos; one result a size and threshold.

    embeddings  (N, D) float32 of norm 1.
    sizes       of the galleries; None: see ``gallery_sizes``.
    fmrs        the false match rate at each threshold, for ``expected_fpir``.
    Raises      ArgumentInvalid for a size that leaves nobody out.
    """
    who, _, rows, starts = _by_person(embeddings, labels)
    people = len(starts)
    photos = np.bincount(who, minlength=people)
    rng = np.random.default_rng(seed)
    wanted = np.asarray(thresholds, np.float64)
    found = []
    for size in gallery_sizes(people) if sizes is None else sizes:
        if not 1 <= size < people:
            raise ArgumentInvalid(f"a gallery of {size} of {people} people leaves nobody to be a stranger.", size=size)
        rates = [
            _searched(rows, who, starts + (rng.random(people) * photos).astype(np.int64), chosen, wanted)
            for chosen in (rng.permutation(people)[:size] for _ in range(draws))
        ]
        wrong = np.array([r[0] for r in rates])
        missed = np.array([r[1] for r in rates])
        mated, strangers = (np.array([r[place] for r in rates]) for place in (2, 3))
        for place, threshold in enumerate(wanted):
            found.append(
                OpenSet(
                    people=size,
                    threshold=float(threshold),
                    fpir=float(wrong[:, place].sum() / strangers.sum()),
                    fpir_range=_range(wrong[:, place], strangers),
                    fnir=float(missed[:, place].sum() / max(1, mated.sum())),
                    fnir_range=_range(missed[:, place], mated),
                    expected_fpir=None if fmrs is None else float(1 - (1 - fmrs[place]) ** size),
                    mated=int(mated.sum()),
                    strangers=int(strangers.sum()),
                    draws=draws,
                )
            )
    return tuple(found)


def _searched(
    rows: Floats,
    who: npt.NDArray[np.intp],
    photo_of: npt.NDArray[np.int64],
    chosen: npt.NDArray[np.int64],
    thresholds: Floats,
) -> tuple[Floats, Floats, int, int]:
    """One gallery: how many strangers matched, how many mates were missed at each threshold, and of how many."""
    enrolled = np.full(len(photo_of), -1)
    enrolled[chosen] = np.arange(len(chosen))
    gallery = rows[photo_of[chosen]].T
    probing = np.ones(len(rows), bool)
    probing[photo_of[chosen]] = False
    wrong, missed = np.zeros(len(thresholds)), np.zeros(len(thresholds))
    mated = strangers = 0
    places = np.flatnonzero(probing)
    step = max(1, _SCORES_AT_ONCE // len(chosen))
    for start in range(0, len(places), step):
        some = places[start : start + step]
        similarities = rows[some] @ gallery
        place = enrolled[who[some]]
        stranger, mate = np.flatnonzero(place < 0), np.flatnonzero(place >= 0)
        own = similarities[mate, place[mate]]
        similarities[mate, place[mate]] = -np.inf
        others = similarities[mate].max(axis=1, initial=-np.inf)
        found = np.where(own > others, own, -np.inf)
        wrong += (similarities[stranger].max(axis=1, initial=-np.inf)[:, None] >= thresholds).sum(axis=0)
        missed += (found[:, None] < thresholds).sum(axis=0)
        strangers += len(stranger)
        mated += len(mate)
    return wrong, missed, mated, strangers


def _range(counts: Floats, of: npt.NDArray[np.int64]) -> Interval:
    rates = counts[of > 0] / of[of > 0]
    if not len(rates):
        return Interval(0.0, 1.0)
    low, high = np.quantile(rates, [0.025, 0.975])
    return Interval(float(low), float(high))


def _by_person(
    embeddings: Embeddings, labels: Sequence[str]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats, npt.NDArray[np.intp]]:
    """Identity of each row, its place in what was given, the rows, and where each identity begins; side by side."""
    if len(labels) != len(embeddings):
        raise ArgumentInvalid(f"{len(embeddings)} embeddings need as many labels, got {len(labels)}.")
    _, who = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    order = np.argsort(who, kind="stable")
    who = who[order]
    return who, order, np.asarray(embeddings, np.float64)[order], np.flatnonzero(np.diff(who, prepend=-1))
