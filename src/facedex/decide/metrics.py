"""The four distances people know, and the exact ways between them. Public similarity stays cosine, higher more alike.

For vectors of norm 1 (as every embedding here) three of them say the same in other units:

    euclidean_l2 = sqrt(2 * cosine)        angular = 2 / pi * arcsin(euclidean_l2 / 2)        cosine = 1 - similarity

so a threshold in one is a threshold in the others, and the order of candidates never changes. ``euclidean`` between
vectors that were not normalized depends on their lengths and can't be converted to anything.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, DimensionMismatch, EmbeddingInvalid

__all__ = ["METRICS", "Metric", "convert", "distance", "from_similarity", "similarity", "to_similarity"]

Metric = Literal["cosine", "euclidean", "euclidean_l2", "angular"]
"""Distances, lower is more alike: 1 − cosine (0…2), between the vectors as they are (0…∞), between them brought to
norm 1 (0…2), angle as a share of a half turn (0…1)."""

METRICS: Final[tuple[Metric, ...]] = get_args(Metric)

Floats = npt.NDArray[np.float64]


def similarity(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Cosine of two vectors, −1…1.

    a, b    (..., D), of any norm but 0; the last axis is compared, the others broadcast.
    Raises  EmbeddingInvalid for zeros or what is not finite, DimensionMismatch.
    """
    return to_similarity(distance(a, b, "cosine"), "cosine")


def distance(a: npt.ArrayLike, b: npt.ArrayLike, metric: Metric) -> Floats:
    """Distance of two vectors.

    a, b    (..., D), of any norm (only ``euclidean`` takes zeros); the last axis is compared, the others broadcast.
    Raises  EmbeddingInvalid for zeros or what is not finite, DimensionMismatch, ArgumentInvalid.
    """
    _check(metric)
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim == 0 or second.ndim == 0 or first.shape[-1] != second.shape[-1]:
        raise DimensionMismatch(
            f"vectors of shape {first.shape} and {second.shape} cannot be compared; their last axis must be as long.",
            expected=first.shape,
            got=second.shape,
        )
    if metric == "euclidean":
        return np.asarray(np.linalg.norm(_finite(first) - _finite(second), axis=-1))
    # By way of the chord: 1 − cosine of two nearly equal vectors has lost its digits, the length between them has not.
    chord = np.asarray(np.linalg.norm(_unit(first) - _unit(second), axis=-1))
    return convert(np.minimum(chord, 2.0), "euclidean_l2", metric)


def convert(value: npt.ArrayLike, given: Metric, wanted: Metric) -> Floats:
    """The same distance, or threshold, in another metric.

    value   distances between vectors of norm 1, any shape.
    Raises  ArgumentInvalid for ``euclidean``, which is no function of the others, and for values outside ``given``.
    """
    values = np.asarray(value, np.float64)
    for metric in (given, wanted):
        _check(metric)
    if "euclidean" in (given, wanted) and given != wanted:
        raise ArgumentInvalid(
            f"{given} cannot be converted to {wanted}: the distance of vectors as they are depends on their norms. "
            "Between vectors of norm 1 it is euclidean_l2.",
            given=given,
            wanted=wanted,
        )
    highest = {"angular": 1.0, "euclidean": np.inf}.get(given, 2.0)
    if not ((values >= 0) & (values <= highest)).all():
        raise ArgumentInvalid(
            f"a distance in {given} lies in 0…{highest:.0f}, got {value!r}.", given=given, value=value
        )
    if given == "cosine":
        chord = np.sqrt(2 * values)
    elif given == "angular":
        chord = 2 * np.sin(values * (np.pi / 2))
    else:
        chord = values
    if wanted == "cosine":
        return np.asarray(chord**2 / 2)
    return np.asarray(2 / np.pi * np.arcsin(chord / 2)) if wanted == "angular" else np.asarray(chord)


def from_similarity(value: npt.ArrayLike, metric: Metric) -> Floats:
    """The distance that a similarity (or a threshold) of embeddings is in a metric.

    value   −1…1; what rounding put a hair outside is taken for the end.
    Raises  ArgumentInvalid for ``euclidean`` and values outside.
    """
    values = np.asarray(value, np.float64)
    if not (np.abs(values) <= 1 + 1e-6).all():
        raise ArgumentInvalid(f"a similarity lies in -1…1, got {value!r}.", value=value)
    return convert(1 - np.clip(values, -1, 1), "cosine", metric)


def to_similarity(value: npt.ArrayLike, metric: Metric) -> Floats:
    """The similarity that a distance (or a threshold) between embeddings is.

    Raises  ArgumentInvalid for ``euclidean`` and values outside the metric.
    """
    return 1 - convert(value, metric, "cosine")


def _check(metric: str) -> None:
    if metric not in METRICS:
        raise ArgumentInvalid(f"no metric is called {metric!r}; there are {', '.join(METRICS)}.", metric=metric)


def _finite(vectors: Floats) -> Floats:
    if not np.isfinite(vectors).all():
        raise EmbeddingInvalid("a vector holds values that are not finite; distances need numbers.")
    return vectors


def _unit(vectors: Floats) -> Floats:
    largest = np.abs(_finite(vectors)).max(axis=-1, keepdims=True, initial=0)
    if (largest == 0).any():
        raise EmbeddingInvalid("a vector is zero and has no direction; only euclidean takes it.")
    scaled = vectors / largest  # else the squares of very long or very short vectors leave the range of float64
    return np.asarray(scaled / np.linalg.norm(scaled, axis=-1, keepdims=True))
