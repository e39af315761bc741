"""Similarity to confidence, 0…100 %: fitted by logistic regression, checked on people it was not fitted on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from facedex.decide.metrics import from_similarity
from facedex.decide.trials import GRID, Tally, Trials
from facedex.errors import ArgumentInvalid, TrialsTooFew

__all__ = ["FEATURES", "Bands", "Bin", "Calibration", "Feature", "Reliability", "calibrate", "reliability"]

Feature = Literal["similarity", "cosine", "euclidean", "euclidean_l2", "angular"]
"""What the regression sees of a pair. Embeddings have norm 1, so ``euclidean`` is ``euclidean_l2``, and ``cosine``
(1 − similarity) gives the very confidences of ``similarity``."""

FEATURES: Final[tuple[Feature, ...]] = get_args(Feature)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bands:
    """Rescaling of confidences to 51…100 at or above a threshold and to 0…49 below it; no longer probabilities.

    threshold              a similarity.
    no_match, match        lowest and highest confidence below, and at or above it, in the data it was made on.
    """

    threshold: float
    no_match: tuple[float, float]
    match: tuple[float, float]

    def rescaled(self, similarity: float, confidence: float) -> float:
        """Each side's range stretched over its band; a side that reaches further in than 51 or 49 stays there."""
        if similarity >= self.threshold:
            return _stretched(confidence, self.match, (max(51.0, self.match[0]), 100.0))
        return _stretched(confidence, self.no_match, (0.0, min(49.0, self.no_match[1])))


def _stretched(value: float, given: tuple[float, float], wanted: tuple[float, float]) -> float:
    low, high = given
    share = min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5
    return wanted[0] + share * (wanted[1] - wanted[0])


@dataclass(frozen=True, slots=True)
class Calibration:
    """Similarity to confidence by logistic regression: ``100 / (1 + exp(-(slope * x + intercept)))``.

    x is the similarity, or the distance it is in another ``feature``. The confidence is the chance of one person where
    genuine and impostor pairs are equally likely beforehand; it is not the chance that the best of a million candidates
    is right. It stays between ``floor`` and ``ceiling``: no number of pairs supports certainty.

    bands  when given, the result is rescaled by it.
    """

    slope: float
    intercept: float
    floor: float
    ceiling: float
    dataset: str
    date: str
    feature: Feature = "similarity"
    bands: Bands | None = None

    def confidence(self, similarity: float) -> float:
        """0…100 %."""
        x = similarity if self.feature == "similarity" else float(_feature(np.asarray(similarity), self.feature))
        z = self.slope * x + self.intercept
        p = 1.0 / (1.0 + math.exp(-z)) if z >= 0 else math.exp(z) / (1.0 + math.exp(z))
        confidence = min(max(100.0 * p, self.floor), self.ceiling)
        return confidence if self.bands is None else self.bands.rescaled(similarity, confidence)


def calibrate(
    pairs: Trials, *, dataset: str, date: str, feature: Feature = "similarity", rescale_at: float | None = None
) -> Calibration:
    """Fit similarity → confidence by logistic regression, genuine and impostor pairs weighing the same in all.

    It is fitted to who the faces are, not to decisions at some threshold. Targets are smoothed as Platt 1999 does, so
    that well separated pairs do not drive the slope to infinity.

    rescale_at  a threshold: confidences are then rescaled to 51…100 at or above it and 0…49 below; see ``Bands``.
    Raises      ArgumentInvalid where higher similarity would not be higher confidence: the labels are then the other
                way round, or the photos can't tell people apart.
    """
    if feature not in FEATURES:
        raise ArgumentInvalid(f"no feature is called {feature!r}; there are {', '.join(FEATURES)}.", feature=feature)
    tally, (g, i) = pairs.tally, (pairs.genuine_trials, pairs.impostor_trials)
    x, genuine, impostor = _seen(tally, feature)
    slope, intercept = _fitted(
        np.concatenate([x, x]),
        np.repeat([(g + 1) / (g + 2), 1 / (i + 2)], len(x)),
        np.concatenate([genuine / (2 * g), impostor / (2 * i)]),
    )
    if (slope > 0) != (feature == "similarity"):
        raise ArgumentInvalid(
            f"impostor pairs are more alike than genuine ones on {dataset or 'these photos'} (slope {slope:.3g} of "
            f"{feature}). Look at the labels: no confidence can be had from these.",
            slope=slope,
            feature=feature,
        )
    plain = Calibration(slope, intercept, 100 / (i + 2), 100 * (1 - 1 / (g + 2)), dataset, date, feature)
    if rescale_at is None:
        return plain
    present = GRID[(tally.genuine + tally.impostor) > 0]
    told = np.array([plain.confidence(float(score)) for score in present])
    low, high = told[present < rescale_at], told[present >= rescale_at]
    if not len(low) or not len(high):
        raise ArgumentInvalid(
            f"no pair lies {'below' if not len(low) else 'at or above'} the threshold {rescale_at}, so there is "
            "nothing to rescale there. Give another threshold, or leave the rescaling out.",
            threshold=rescale_at,
        )
    bands = Bands(rescale_at, (float(low.min()), float(low.max())), (float(high.min()), float(high.max())))
    return Calibration(slope, intercept, plain.floor, plain.ceiling, dataset, date, feature, bands)


def _feature(similarities: Floats, feature: Feature) -> Floats:
    if feature == "similarity":
        return similarities
    return from_similarity(np.clip(similarities, -1, 1), "euclidean_l2" if feature == "euclidean" else feature)


def _seen(tally: Tally, feature: Feature) -> tuple[Floats, Floats, Floats]:
    """(n,) values of the feature that occur, with how many genuine and impostor pairs have them."""
    places = np.flatnonzero(tally.genuine + tally.impostor)
    counts = tally.genuine[places].astype(float), tally.impostor[places].astype(float)
    return _feature(_centres(places), feature), *counts


def _centres(places: npt.NDArray[np.intp]) -> Floats:
    """Middle of each step of the grid: at most 5e-6 from any score in it."""
    return np.minimum(GRID[places] + 5e-6, 1.0)


def _fitted(x: Floats, target: Floats, weight: Floats) -> tuple[float, float]:
    """Slope and intercept by Newton's method, on values brought to mean 0 and deviation 1."""
    middle = float(np.average(x, weights=weight))
    spread = float(np.sqrt(np.average((x - middle) ** 2, weights=weight))) or 1.0
    design = np.stack([(x - middle) / spread, np.ones_like(x)], axis=1)
    theta = np.zeros(2)
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ theta, -500, 500)))
        gradient = design.T @ (weight * (p - target))
        curvature = (design * (weight * p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        theta -= step
        if np.abs(step).max() < 1e-10:
            break
    return float(theta[0] / spread), float(theta[1] - theta[0] * middle / spread)


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs whose confidence lies in one tenth: what was told, and how often it was one person."""

    low: float
    high: float
    told: float
    observed: float
    genuine: int
    impostor: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far told confidences and what happened agree, genuine and impostor pairs weighing the same in all.

    bins      the ten tenths that hold a pair.
    ece       expected calibration error, 0…100 %: mean distance of told and observed.
    log_loss  mean of −ln(probability given to the truth); 0.693 is a coin.
    cllr      the same in bits (Brümmer and du Preez 2006, doi:10.1016/j.csl.2005.08.001); 1 says nothing.
    folds     groups of people, each judged by a calibration fitted on the others; 0: judged by itself.
    """

    bins: tuple[Bin, ...]
    ece: float
    log_loss: float
    cllr: float
    folds: int


def reliability(
    pairs: Trials, *, feature: Feature = "similarity", rescale_at: float | None = None, folds: int = 5, seed: int = 0
) -> Reliability:
    """Judge a calibration by cross-validation over people: none of a test pair's people was seen in the fitting.

    Raises  TrialsTooFew when the people cannot be split so that each fold has both kinds of pairs, in and out.
    """
    people = np.random.default_rng(seed).permutation(len(pairs.people))
    for count in range(min(folds, len(people) // 2), 1, -1):
        try:
            parts = [
                (pairs.subset(np.setdiff1d(people, part).tolist()), pairs.subset(part.tolist()))
                for part in np.array_split(people, count)
            ]
        except TrialsTooFew:
            continue
        told = [
            _judged(test, calibrate(train, dataset="", date="", feature=feature, rescale_at=rescale_at))
            for train, test in parts
        ]
        return _reliability(*(np.concatenate(column) for column in zip(*told, strict=True)), folds=count)
    raise TrialsTooFew(
        f"{len(people)} people cannot be split into two groups with genuine and impostor pairs each, so the "
        "calibration cannot be checked on people it was not fitted on. Give four people or more, two photos each.",
        people=len(people),
    )


def _judged(test: Trials, calibration: Calibration) -> tuple[Floats, Floats, Floats]:
    """Confidence of each score that occurs, and how many genuine and impostor pairs have it."""
    places = np.flatnonzero(test.tally.genuine + test.tally.impostor)
    told = np.array([calibration.confidence(float(score)) for score in _centres(places)])
    return told, test.tally.genuine[places].astype(float), test.tally.impostor[places].astype(float)


def _reliability(told: Floats, genuine: Floats, impostor: Floats, *, folds: int) -> Reliability:
    g, i = genuine.sum(), impostor.sum()
    tenth = np.minimum(told // 10, 9).astype(int)
    bins = []
    ece = 0.0
    for number in range(10):
        mine = tenth == number
        same, other = genuine[mine] / (2 * g), impostor[mine] / (2 * i)
        weight = float(same.sum() + other.sum())
        if weight:
            mean = float(((same + other) @ told[mine]) / weight)
            observed = 100 * float(same.sum()) / weight
            ece += weight * abs(mean - observed)
            pairs = int(genuine[mine].sum()), int(impostor[mine].sum())
            bins.append(Bin(10.0 * number, 10.0 * (number + 1), mean, observed, *pairs))
    p = np.clip(told / 100, 1e-12, 1 - 1e-12)
    loss = float(-(genuine @ np.log(p) / g + impostor @ np.log(1 - p) / i) / 2)
    return Reliability(tuple(bins), ece, loss, loss / math.log(2), folds)
