"""DeepFace's four distances, its thresholds and confidences, in terms of ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from facedex.deepface.models import DEFAULT_BACKEND, DEFAULT_MODEL, engine_for
from facedex.engine import Engine
from facedex.errors import ArgumentInvalid, DimensionMismatch, EmbeddingInvalid

__all__ = ["METRICS", "Metric", "check_metric", "find_distance", "find_threshold", "threshold_for"]

METRICS: Final = ("cosine", "euclidean", "euclidean_l2", "angular")

Metric: TypeAlias = str | Callable[[npt.NDArray[Any], npt.NDArray[Any]], Any]
"""One of ``METRICS``, or a function of two ``(D,)`` arrays that gives a distance."""

_DIGITS: Final = 6
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
    check_metric(distance_metric)
    if alpha.ndim != beta.ndim or alpha.ndim not in (1, 2) or {alpha.dtype.kind, beta.dtype.kind} - set("fiu"):
        raise ArgumentInvalid(
            f"embeddings have shapes {alpha.shape} and {beta.shape}; expected numbers as (D,) and (D,), or as (N, D) "
            "and (M, D).",
            shapes=(alpha.shape, beta.shape),
        )
    if alpha.shape[-1] != beta.shape[-1]:
        raise DimensionMismatch(
            f"embeddings have {alpha.shape[-1]} and {beta.shape[-1]} dimensions; expected two of one model.",
            expected=alpha.shape[-1],
            got=beta.shape[-1],
        )
    distances = _distance(alpha.astype(np.float64), beta.astype(np.float64), distance_metric)
    return np.round(distances, _DIGITS)


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
    return round(_from_similarity(engine.policy.match.threshold, metric), _DIGITS)


def check_metric(metric: Metric) -> None:
    """Raise ArgumentInvalid unless it is a function or one of the four."""
    if not callable(metric) and metric not in METRICS:
        raise ArgumentInvalid(
            f"distance_metric is {metric!r}; expected one of {', '.join(METRICS)}, or a function of two embeddings.",
            distance_metric=str(metric),
        )


def least_similarity(metric: Metric, threshold: float) -> float:
    """The similarity below which no face is within a threshold; −1 where the metric does not say."""
    if callable(metric) or threshold < 0:
        return -1.0 if callable(metric) else 1.0
    if metric == "cosine":
        similarity = 1 - threshold
    elif metric == "angular":
        similarity = math.cos(math.pi * min(threshold, 1.0))
    else:
        similarity = 1 - threshold**2 / 2
    return max(similarity - _SMALLEST, -1.0)


def confidence_of(engine: Engine, similarity: float) -> float | None:
    """Calibrated 0…100 % that two faces are of one person, to 2 digits as DeepFace's; None where nobody calibrated."""
    return None if engine.known_policy is None else round(engine.known_policy.confidence(similarity), 2)


def _distance(alpha: npt.NDArray[np.float64], beta: npt.NDArray[np.float64], metric: str) -> Any:
    if metric != "euclidean":
        alpha, beta = _unit(alpha), _unit(beta)
    if alpha.ndim == 2:
        alpha, beta = alpha[None, :, :], beta[:, None, :]
    length = np.linalg.norm(alpha - beta, axis=-1)
    if not np.isfinite(length).all():
        raise EmbeddingInvalid("an embedding holds values that are not finite.")
    # By way of the chord: 1 − cosine of two nearly equal vectors has lost its digits, the length between them has not.
    if metric == "cosine":
        return length**2 / 2
    return 2 / np.pi * np.arcsin(np.minimum(length / 2, 1)) if metric == "angular" else length


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not (norms > 0).all():
        raise EmbeddingInvalid("an embedding is zero or not finite and has no direction.")
    return np.asarray(vectors / norms)


def _from_similarity(similarity: float, metric: str) -> float:
    """The distance that a similarity of embeddings, which have norm 1, is."""
    if metric == "cosine":
        return 1 - similarity
    return math.acos(similarity) / math.pi if metric == "angular" else math.sqrt(2 - 2 * similarity)
