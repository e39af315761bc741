"""DeepFace's four distances, its thresholds and confidences, in terms of ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from facedex.decide import metrics
from facedex.deepface.models import DEFAULT_BACKEND, DEFAULT_MODEL, engine_for
from facedex.engine import Engine
from facedex.errors import ArgumentInvalid

__all__ = ["Metric", "check_metric", "find_distance", "find_threshold", "threshold_for"]

Metric: TypeAlias = metrics.Metric | str | Callable[[npt.NDArray[Any], npt.NDArray[Any]], Any]
"""One of ``decide.metrics.METRICS``, or a function of two ``(D,)`` arrays that gives a distance."""

_DIGITS: Final = 6
_OF_NORM_1: Final[dict[str, metrics.Metric]] = {
    "cosine": "cosine",
    "euclidean": "euclidean_l2",
    "euclidean_l2": "euclidean_l2",
    "angular": "angular",
}
"""The same distance of vectors of norm 1, which embeddings are."""
_SMALLEST: Final = 1e-4
"""How much lower a similarity is asked of an index than a threshold says: candidates are judged by their distance."""


def find_distance(
    alpha_embedding: npt.ArrayLike, beta_embedding: npt.ArrayLike, distance_metric: Metric = "cosine"
) -> Any:
    """The distance of two embeddings, or of each of some to each of others, rounded to 6 digits.

    alpha, beta  ``(D,)`` each, or ``(N, D)`` and ``(M, D)``, of any norm.
    distance_metric  ``cosine`` 1 − cosine, ``euclidean``, ``euclidean_l2`` (after both have norm 1), ``angular`` the
                 angle as a share of a half turn; or a function, whose answer is given back as it is.
    Returns      a NumPy float, or ``(M, N)``.
    Raises       ArgumentInvalid, DimensionMismatch, EmbeddingInvalid for zeros and what is not finite.
    """
    alpha, beta = np.asarray(alpha_embedding), np.asarray(beta_embedding)
    if callable(distance_metric):
        return distance_metric(alpha, beta)
    metric = _checked(distance_metric)
    if alpha.ndim != beta.ndim or alpha.ndim not in (1, 2) or {alpha.dtype.kind, beta.dtype.kind} - set("fiu"):
        raise ArgumentInvalid(
            f"embeddings have shapes {alpha.shape} and {beta.shape}; expected numbers as (D,) and (D,), or as (N, D) "
            "and (M, D).",
            shapes=(alpha.shape, beta.shape),
        )
    if alpha.ndim == 2:
        alpha, beta = alpha[None, :, :], beta[:, None, :]
    distances: npt.NDArray[np.float64] = np.round(metrics.distance(alpha, beta, metric), _DIGITS)
    return distances[()]


def find_threshold(model_name: str = DEFAULT_MODEL, distance_metric: Metric = "cosine") -> float:
    """The largest distance at which ``verify`` takes two faces for one person.

    It is the match threshold that was measured for the model (``Engine.policy``), in that metric.

    Raises  ModelUnknown; NotCalibrated for a model whose threshold nobody measured; ArgumentInvalid for a metric that
            is not known, or is a function: it has no threshold.
    """
    return threshold_for(engine_for(model_name, DEFAULT_BACKEND), distance_metric, None)


def threshold_for(engine: Engine, metric: Metric, given: float | None) -> float:
    """The threshold to decide by: the one given, 0.0 included, otherwise the measured one."""
    if given is not None:
        if isinstance(given, bool) or not isinstance(given, (int, float, np.number)) or math.isnan(given):
            raise ArgumentInvalid(f"threshold is {given!r}; expected a distance.", threshold=repr(given))
        return float(given)
    if callable(metric):
        raise ArgumentInvalid("a distance_metric of your own has no measured threshold; pass threshold=.")
    check_metric(metric)
    return round(_converted(engine.policy.match.threshold, metric), _DIGITS)


def check_metric(metric: Metric) -> None:
    """Raise ArgumentInvalid unless it is a function or one of the four."""
    if not callable(metric):
        _checked(metric)


def _checked(metric: str) -> metrics.Metric:
    for known in metrics.METRICS:
        if metric == known:
            return known
    raise ArgumentInvalid(
        f"distance_metric is {metric!r}; expected one of {', '.join(metrics.METRICS)}, or a function of two.",
        distance_metric=str(metric),
    )


def least_similarity(metric: Metric, threshold: float) -> float:
    """The similarity below which no face is within a threshold; −1 where the metric does not say."""
    if callable(metric) or threshold < 0:
        return -1.0 if callable(metric) else 1.0
    plain = _OF_NORM_1[metric]
    similarity = float(metrics.to_similarity(min(threshold, 1.0 if plain == "angular" else 2.0), plain))
    return max(similarity - _SMALLEST, -1.0)


def confidence_of(engine: Engine, similarity: float) -> float | None:
    """Calibrated 0…100 % that two faces are of one person, to 2 digits as DeepFace's; None where nobody calibrated."""
    return None if engine.known_policy is None else round(engine.known_policy.confidence(similarity), 2)


def _converted(similarity: float, metric: str) -> float:
    """The distance that a similarity of embeddings is; they have norm 1, so ``euclidean`` is ``euclidean_l2``."""
    return float(metrics.from_similarity(similarity, _OF_NORM_1[metric]))
