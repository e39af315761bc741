"""How right is it: genuine and impostor pairs, error rates with intervals, open-set and closed-set identification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facedex.decide.policy import Calibration, Interval, OperatingPoint
from facedex.errors import ArgumentInvalid
from facedex.types import Embeddings

Similarities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """All pairs of a labelled set of embeddings, each pair once.

    genuine, impostor            (G,), (I,) float64 similarities.
    genuine_of                   (G,) int, the identity of each genuine pair.
    impostor_of                  (I, 2) int, the two identities of each impostor pair.
    identities                   number of different labels.
    """

    genuine: Similarities
    impostor: Similarities
    genuine_of: npt.NDArray[np.intp]
    impostor_of: npt.NDArray[np.intp]
    identities: int


def all_pairs(embeddings: Embeddings, labels: Sequence[str]) -> Pairs:
    """Compare every embedding with every other.

    embeddings  (N, D) float32 of norm 1.
    labels      N names.
    Raises      ArgumentInvalid when there is no genuine or no impostor pair: an error rate needs both.
    """
    names, who = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    if len(who) != len(embeddings):
        raise ArgumentInvalid(f"{len(embeddings)} embeddings need as many labels, got {len(who)}.")
    a, b = np.triu_indices(len(who), 1)
    similarities = (embeddings.astype(np.float64) @ embeddings.astype(np.float64).T)[a, b]
    same = who[a] == who[b]
    if not same.any() or same.all():
        raise ArgumentInvalid(
            f"error rates need genuine and impostor pairs; {len(names)} people with {len(who)} photos give "
            f"{int(same.sum())} and {int((~same).sum())}.",
        )
    return Pairs(
        similarities[same],
        similarities[~same],
        who[a][same],
        np.stack([who[a][~same], who[b][~same]], axis=1),
        len(names),
    )


def error_rates(pairs: Pairs, threshold: float) -> tuple[float, float]:
    """(FMR, FNMR) when pairs at or above the threshold are taken for one person."""
    return float((pairs.impostor >= threshold).mean()), float((pairs.genuine < threshold).mean())


def threshold_at_fmr(pairs: Pairs, fmr: float) -> float:
    """The lowest threshold at which no more than this share of impostor pairs match."""
    allowed = int(np.floor(fmr * len(pairs.impostor)))
    worst = np.sort(pairs.impostor)[::-1]
    if allowed >= len(worst):
        return -1.0
    return float(np.nextafter(worst[allowed], 2.0))


def operating_point(
    pairs: Pairs, threshold: float, *, dataset: str, date: str, rounds: int = 2000, seed: int = 0
) -> OperatingPoint:
    """Error rates at a threshold with 95 % intervals, by bootstrap over identities.

    Pairs that share a person are not independent, so people are drawn, not pairs (Bolle, Ratha and Pankanti 2004,
    doi:10.1016/j.cviu.2003.08.002). Zero errors in N pairs still support only about 3/N.
    """
    fmr, fnmr = error_rates(pairs, threshold)
    n = pairs.identities
    genuine_all = np.bincount(pairs.genuine_of, minlength=n).astype(float)
    genuine_bad = np.bincount(pairs.genuine_of, pairs.genuine < threshold, minlength=n)
    first, second = pairs.impostor_of.T
    impostor_all = np.zeros((n, n))
    impostor_bad = np.zeros((n, n))
    np.add.at(impostor_all, (first, second), 1)
    np.add.at(impostor_bad, (first, second), (pairs.impostor >= threshold).astype(float))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=rounds).astype(float)
    fnmrs = (drawn @ genuine_bad) / np.maximum(drawn @ genuine_all, 1)
    fmrs = np.einsum("ri,ij,rj->r", drawn, impostor_bad, drawn, optimize=True) / np.maximum(
        np.einsum("ri,ij,rj->r", drawn, impostor_all, drawn, optimize=True), 1
    )

    def interval(rates: Similarities, trials: int) -> Interval:
        low, high = np.quantile(rates, [0.025, 0.975])
        return Interval(float(low), float(max(high, 3 / trials)))

    return OperatingPoint(
        threshold=threshold,
        fmr=fmr,
        fmr_interval=interval(fmrs, len(pairs.impostor)),
        fnmr=fnmr,
        fnmr_interval=interval(fnmrs, len(pairs.genuine)),
        dataset=dataset,
        identities=n,
        genuine_trials=len(pairs.genuine),
        impostor_trials=len(pairs.impostor),
        date=date,
    )


def calibrate(pairs: Pairs, *, dataset: str, date: str) -> Calibration:
    """Fit similarity → confidence by logistic regression, genuine and impostor pairs weighing the same in all.

    Targets are smoothed as Platt 1999 does, so that well separated pairs do not drive the slope to infinity.
    """
    x = np.concatenate([pairs.genuine, pairs.impostor])
    g, i = len(pairs.genuine), len(pairs.impostor)
    y = np.concatenate([np.full(g, (g + 1) / (g + 2)), np.full(i, 1 / (i + 2))])
    w = np.concatenate([np.full(g, 0.5 / g), np.full(i, 0.5 / i)])
    design = np.stack([x, np.ones_like(x)], axis=1)
    theta = np.zeros(2)
    for _ in range(100):
        p = 1 / (1 + np.exp(-design @ theta))
        gradient = design.T @ (w * (p - y))
        curvature = (design * (w * p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        theta -= step
        if np.abs(step).max() < 1e-10:
            break
    return Calibration(
        slope=float(theta[0]),
        intercept=float(theta[1]),
        floor=100 / (i + 2),
        ceiling=100 * (1 - 1 / (g + 2)),
        dataset=dataset,
        date=date,
    )


@dataclass(frozen=True, slots=True)
class Identification:
    """Leave-one-out identification: each photo is searched among all others.

    rank_1  share of probes, of people with another photo, whose best candidate is the right person.
    """

    probes: int
    rank_1: float
    mistakes: tuple[int, ...]


def leave_one_out(embeddings: Embeddings, labels: Sequence[str]) -> Identification:
    """Closed-set rank-1 over all embeddings; people with one photo only are candidates but not probes."""
    who = np.asarray(labels, dtype=str)
    similarities = embeddings.astype(np.float64) @ embeddings.astype(np.float64).T
    np.fill_diagonal(similarities, -np.inf)
    best = who[similarities.argmax(axis=1)]
    names, counts = np.unique(who, return_counts=True)
    probes = np.flatnonzero(np.isin(who, names[counts > 1]))
    wrong = probes[best[probes] != who[probes]]
    return Identification(len(probes), 1 - len(wrong) / max(1, len(probes)), tuple(int(w) for w in wrong))
