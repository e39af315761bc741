"""How right is it, pair by pair: ROC and DET, error rates at thresholds, with intervals by bootstrap over people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from facedex.decide.policy import Interval, OperatingPoint
from facedex.decide.trials import GRID, Tally, Trials, all_pairs
from facedex.errors import ArgumentInvalid

__all__ = [
    "FMR_LEVELS",
    "AtFmr",
    "Curve",
    "Density",
    "PairAccuracy",
    "all_pairs",
    "density",
    "error_rates",
    "operating_point",
    "pair_accuracy",
    "threshold_at_fmr",
]

Floats = npt.NDArray[np.float64]

FMR_LEVELS: Final = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""The false match rates at which thresholds are told, as far as the pairs support them."""

_ROUNDS: Final = 1000
_PERSON_WEIGHTS_AT_MOST: Final = 20_000_000
_FEWEST_ROUNDS: Final = 200
_LEVELS: Final = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 5e-4, 2e-4, 1e-4, 1e-5)


def error_rates(pairs: Trials, threshold: float) -> tuple[float, float]:
    """(FMR, FNMR) when pairs at or above the threshold are taken for one person."""
    fmr, fnmr = pairs.error_rates(threshold)
    return float(fmr[0]), float(fnmr[0])


def threshold_at_fmr(pairs: Trials, fmr: float) -> float:
    """The lowest threshold, in steps of 0.00001, at which no more than this share of impostor pairs match.

    Raises  ArgumentInvalid when there is none up to 1, as where pictures of two names are the same.
    """
    found = _threshold_at_fmr(pairs.tally, fmr)
    if found is None:
        raise ArgumentInvalid(
            f"more than {fmr:.2g} of the impostor pairs have a similarity of 1: photos of two names show one face. "
            "Look at the labels.",
            fmr=fmr,
        )
    return found


def _threshold_at_fmr(tally: Tally, fmr: float) -> float | None:
    kept = np.flatnonzero(tally.fmr <= fmr)
    return float(GRID[kept[0]]) if len(kept) else None


def operating_point(
    pairs: Trials, threshold: float, *, dataset: str, date: str, rounds: int = 2000, seed: int = 0
) -> OperatingPoint:
    """Error rates at a threshold with 95 % intervals, by bootstrap over identities.

    Pairs that share a person are not independent, so people are drawn, not pairs (Bolle, Ratha and Pankanti 2004,
    doi:10.1016/j.cviu.2003.08.002). Zero errors in N pairs still support only about 3/N.
    """
    drawn = pairs.resampled(np.array([threshold]), _draws(pairs, rounds, seed))
    return _points(pairs, [threshold], *drawn, dataset=dataset, date=date)[0]


def _draws(pairs: Trials, rounds: int, seed: int) -> Floats:
    """(R, P) how often each identity was drawn in each round; of very many identities fewer rounds, for memory."""
    people = len(pairs.people)
    rounds = max(_FEWEST_ROUNDS, min(rounds, _PERSON_WEIGHTS_AT_MOST // people))
    return np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), size=rounds).astype(float)


def _points(
    pairs: Trials, thresholds: Sequence[float], fmrs: Floats, fnmrs: Floats, *, dataset: str, date: str
) -> list[OperatingPoint]:
    fmr, fnmr = pairs.error_rates(thresholds)
    return [
        OperatingPoint(
            threshold=float(threshold),
            fmr=float(fmr[place]),
            fmr_interval=_interval(fmrs[:, place], pairs.impostor_trials),
            fnmr=float(fnmr[place]),
            fnmr_interval=_interval(fnmrs[:, place], pairs.genuine_trials),
            dataset=dataset,
            identities=len(pairs.people),
            genuine_trials=pairs.genuine_trials,
            impostor_trials=pairs.impostor_trials,
            date=date,
        )
        for place, threshold in enumerate(thresholds)
    ]


def _interval(rates: Floats, trials: int) -> Interval:
    drawn = rates[np.isfinite(rates)]  # a draw may hold no pair of the kind
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (0.0, 1.0)
    return Interval(float(low), float(min(1.0, max(high, 3 / trials))))


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Both error rates along rising thresholds: the ROC curve is 1 − fnmr over fmr, the DET curve fnmr over fmr.

    thresholds, fmr, fnmr  (n,).
    fmr_low … fnmr_high    (n,) ends of the 95 % intervals; empty where none were drawn.
    """

    thresholds: Floats
    fmr: Floats
    fnmr: Floats
    fmr_low: Floats
    fmr_high: Floats
    fnmr_low: Floats
    fnmr_high: Floats


@dataclass(frozen=True, slots=True)
class AtFmr:
    """The threshold for a false match rate.

    fmr     asked for; ``point`` has the one measured there.
    point   None when there are fewer than ``needed`` impostor pairs, 3 / fmr: without any error they would support
            no smaller rate (rule of three); or when impostor pairs at similarity 1 leave no such threshold.
    """

    fmr: float
    needed: int
    point: OperatingPoint | None


@dataclass(frozen=True, slots=True, eq=False)
class PairAccuracy:
    """What pairs say of a model on a labelled set.

    auc     the chance that a genuine pair is more alike than an impostor pair, ties (to 0.00001) half.
    eer     where both error rates are equal.
    points  at the thresholds asked for, in their order.
    """

    auc: float
    auc_interval: Interval
    eer: float
    eer_interval: Interval
    eer_threshold: float
    points: tuple[OperatingPoint, ...]
    at_fmr: tuple[AtFmr, ...]
    curve: Curve


def pair_accuracy(
    pairs: Trials,
    thresholds: Sequence[float] = (),
    *,
    dataset: str,
    date: str,
    rounds: int = _ROUNDS,
    seed: int = 0,
) -> PairAccuracy:
    """Everything pairs can say, all intervals from the same draws of people.

    thresholds  those in use, to be judged.
    """
    tally = pairs.tally
    levels = {level: _threshold_at_fmr(tally, level) for level in FMR_LEVELS if pairs.impostor_trials * level >= 3}
    told = [*thresholds, *(threshold for threshold in levels.values() if threshold is not None)]
    along = _along(tally)
    drawn = pairs.resampled(np.array([*told, *along]), _draws(pairs, rounds, seed))
    points = _points(pairs, told, *(d[:, : len(told)] for d in drawn), dataset=dataset, date=date)
    whole = np.isfinite(drawn[0]).all(axis=1) & np.isfinite(drawn[1]).all(axis=1)
    fmrs, fnmrs = (d[whole, len(told) :] for d in drawn)
    places = np.searchsorted(GRID, along)
    fmr, fnmr = tally.fmr[places], tally.fnmr[places]
    auc, (eer, eer_threshold) = _auc(tally), _eer(tally)
    # Of each draw only these thresholds are known: what they miss of the area, they miss of the whole set's too.
    aucs = _areas(fmrs, fnmrs) - _areas(fmr[None], fnmr[None]) + auc
    eers = _crossings(fmrs, fnmrs) - _crossings(fmr[None], fnmr[None]) + eer
    at = iter(points[len(thresholds) :])
    some = bool(whole.any())
    low = [np.quantile(values, 0.025, axis=0) if some else np.zeros(len(along)) for values in (fmrs, fnmrs)]
    high = [np.quantile(values, 0.975, axis=0) if some else np.ones(len(along)) for values in (fmrs, fnmrs)]
    return PairAccuracy(
        auc=auc,
        auc_interval=_within(aucs),
        eer=eer,
        eer_interval=_within(eers),
        eer_threshold=eer_threshold,
        points=tuple(points[: len(thresholds)]),
        at_fmr=tuple(
            AtFmr(level, round(3 / level), next(at) if levels.get(level) is not None else None) for level in FMR_LEVELS
        ),
        curve=_curve(tally, along, low, high),
    )


def _within(values: Floats) -> Interval:
    if not len(values):
        return Interval(0.0, 1.0)
    low, high = np.clip(np.quantile(values, [0.025, 0.975]), 0, 1)
    return Interval(float(low), float(high))


def _along(tally: Tally) -> Floats:
    """Thresholds spread over both error rates' decades, rising."""
    fmr, fnmr = tally.fmr, tally.fnmr
    last = len(GRID) - 1
    chosen = {0, last}
    for level in _LEVELS:
        chosen.add(min(int(np.searchsorted(-fmr, -level)), last))
        chosen.add(max(int(np.searchsorted(fnmr, level, side="right")) - 1, 0))
    return GRID[sorted(chosen)]


def _auc(tally: Tally) -> float:
    above = tally.genuine.sum() - np.cumsum(tally.genuine)
    better = (above + tally.genuine / 2) @ tally.impostor.astype(float)
    return float(better / (float(tally.genuine.sum()) * float(tally.impostor.sum())))


def _eer(tally: Tally) -> tuple[float, float]:
    """The rate and the threshold; between two thresholds of the grid the rates may jump past each other."""
    difference = np.abs(tally.fmr - tally.fnmr)
    ties = np.flatnonzero(difference <= difference.min() + 1e-12)
    place = int(ties[len(ties) // 2])
    return float((tally.fmr[place] + tally.fnmr[place]) / 2), float(GRID[place])


def _areas(fmr: Floats, fnmr: Floats) -> Floats:
    """(R,) area under each row's ROC curve by trapezoids."""
    return np.asarray(((fmr[:, :-1] - fmr[:, 1:]) * (2 - fnmr[:, :-1] - fnmr[:, 1:]) / 2).sum(axis=1))


def _crossings(fmr: Floats, fnmr: Floats) -> Floats:
    """(R,) the rate at which each row's error rates cross, on straight lines between thresholds."""
    gap = fnmr - fmr  # rises from −1 to 1
    after = np.clip((gap >= 0).argmax(axis=1), 1, None)
    rows = np.arange(len(gap))
    span = gap[rows, after] - gap[rows, after - 1]
    share = np.where(span > 0, -gap[rows, after - 1] / np.where(span > 0, span, 1), 0.5)
    return np.asarray(fmr[rows, after - 1] + share * (fmr[rows, after] - fmr[rows, after - 1]))


def _curve(tally: Tally, along: Floats, low: Sequence[Floats], high: Sequence[Floats]) -> Curve:
    """Some hundred thresholds: evenly spread, and dense where either rate is small; intervals in between by lines."""
    fmr, fnmr = tally.fmr, tally.fnmr
    levels = np.geomspace(1, 1e-7, 150)
    last = len(GRID) - 1
    places = np.unique(
        np.concatenate(
            [
                np.linspace(0, last, 201).astype(np.int64),
                np.clip(np.searchsorted(-fmr, -levels), 0, last),
                np.clip(np.searchsorted(fnmr, levels, side="right") - 1, 0, last),
            ]
        )
    )
    thresholds = GRID[places]
    ends = [np.interp(thresholds, along, end) for end in (low[0], high[0], low[1], high[1])]
    return Curve(thresholds, fmr[places], fnmr[places], *ends)


@dataclass(frozen=True, slots=True, eq=False)
class Density:
    """Where similarities lie, smoothed: ``genuine`` and ``impostor`` each integrate to 1 over ``similarity``."""

    similarity: Floats
    genuine: Floats
    impostor: Floats


def density(tally: Tally, points: int = 401) -> Density:
    """Gaussian kernel densities, the widths by Silverman's rule, from the counts of a tally."""
    middle = GRID + 5e-6
    seen = np.flatnonzero(tally.genuine + tally.impostor)
    low, high = max(-1.0, GRID[seen[0]] - 0.05), min(1.0, GRID[seen[-1]] + 0.05)
    at = np.linspace(low, high, points)

    def smooth(counts: npt.NDArray[np.int64]) -> Floats:
        total = float(counts.sum())
        mean = float(counts @ middle) / total
        deviation = float(np.sqrt(counts @ (middle - mean) ** 2 / total))
        width = max(1.06 * deviation * total**-0.2, 0.002)
        # Scores gathered in steps of 0.0005, a fraction of any width: the sum stays small however many there are.
        gathered = np.add.reduceat(counts, np.arange(0, len(counts), 50)).astype(float)
        where = middle[::50] + 25e-5
        kept = np.flatnonzero(gathered)
        kernel = np.exp(-0.5 * ((at[:, None] - where[None, kept]) / width) ** 2)
        return np.asarray(kernel @ gathered[kept] / (total * width * np.sqrt(2 * np.pi)))

    return Density(at, smooth(tally.genuine), smooth(tally.impostor))
