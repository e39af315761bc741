"""From a similarity to a decision: operating points, three bands, calibrated confidence.

No bare thresholds: each carries the data it was measured on, its error rates and their intervals. The numbers of
the shipped models live in ``operating_points.json`` and come from ``benchmarks/operating_points.py``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from facedex.errors import ArgumentInvalid, NotCalibrated
from facedex.types import EmbeddingSpace, Verdict


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval of a rate, 0…1."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold with its source; meaningful only in the embedding space it was measured in.

    threshold  a similarity: at or above it two faces are taken for one person.
    fmr, fnmr  false match and false non-match rate there, 0…1, over all pairs of the dataset.
    """

    threshold: float
    fmr: float
    fmr_interval: Interval
    fnmr: float
    fnmr_interval: Interval
    dataset: str
    identities: int
    genuine_trials: int
    impostor_trials: int
    date: str

    def fpir(self, people: int) -> float:
        """The chance that a probe of nobody enrolled matches someone, in a gallery of this many faces.

        Comparisons are taken as independent, which overstates it: read it as a warning, not a measurement.
        """
        return -math.expm1(people * math.log1p(-min(self.fmr, 1 - 1e-12)))


@dataclass(frozen=True, slots=True)
class Calibration:
    """Similarity to confidence by logistic regression: ``100 / (1 + exp(-(slope * similarity + intercept)))``.

    The confidence is the chance of one person where genuine and impostor pairs are equally likely beforehand; it
    is not the chance that the best of a million candidates is right. It stays between ``floor`` and ``ceiling``: no
    number of pairs supports certainty.
    """

    slope: float
    intercept: float
    floor: float
    ceiling: float
    dataset: str
    date: str

    def confidence(self, similarity: float) -> float:
        """0…100 %."""
        z = self.slope * similarity + self.intercept
        p = 1.0 / (1.0 + math.exp(-z)) if z >= 0 else math.exp(z) / (1.0 + math.exp(z))
        return min(max(100.0 * p, self.floor), self.ceiling)


@dataclass(frozen=True, slots=True)
class DecisionPolicy:
    """Three bands: match at or above ``match``, review between the two thresholds, no match below ``review``."""

    match: OperatingPoint
    review: OperatingPoint
    calibration: Calibration

    def __post_init__(self) -> None:
        if not -1 <= self.review.threshold <= self.match.threshold <= 1:
            raise ArgumentInvalid(
                f"thresholds must satisfy -1 ≤ review ≤ match ≤ 1, got review {self.review.threshold} "
                f"and match {self.match.threshold}.",
                review=self.review.threshold,
                match=self.match.threshold,
            )

    def verdict(self, similarity: float) -> Verdict:
        if similarity >= self.match.threshold:
            return Verdict.MATCH
        return Verdict.REVIEW if similarity >= self.review.threshold else Verdict.NO_MATCH

    def confidence(self, similarity: float) -> float:
        return self.calibration.confidence(similarity)


def policy_for(space: EmbeddingSpace) -> DecisionPolicy:
    """The measured policy of a shipped model's space.

    Raises  NotCalibrated when nobody measured that space: thresholds of another one mean nothing in it.
    """
    found = _shipped().get(space.id)
    if found is None:
        raise NotCalibrated(
            f"no operating point was measured for the embedding space {space} (id {space.id}). "
            "Measure one on labelled photos and pass it as policy=DecisionPolicy(…).",
            space_id=space.id,
        )
    return found


@cache
def _shipped() -> dict[str, DecisionPolicy]:
    text = resources.files("facedex.decide").joinpath("operating_points.json").read_text("utf-8")
    return {space_id: policy_from_plain(entry) for space_id, entry in json.loads(text).items()}


def policy_from_plain(plain: dict[str, Any]) -> DecisionPolicy:
    """A policy from the plain dict that ``facedex.types.to_plain`` makes of one."""

    def point(entry: dict[str, Any]) -> OperatingPoint:
        return OperatingPoint(
            **entry
            | {"fmr_interval": Interval(**entry["fmr_interval"]), "fnmr_interval": Interval(**entry["fnmr_interval"])}
        )

    return DecisionPolicy(point(plain["match"]), point(plain["review"]), Calibration(**plain["calibration"]))
