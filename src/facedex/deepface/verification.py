"""One photo against another, and one photo against one face of a gallery."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from facedex.deepface.distances import Metric, check_metric, confidence_of, find_distance, threshold_for
from facedex.deepface.faces import embedded, facial_area, no_facial_area
from facedex.deepface.models import DEFAULT_BACKEND, DEFAULT_MODEL, check_options, engine_for
from facedex.engine import Engine
from facedex.errors import ArgumentInvalid, DimensionMismatch
from facedex.types import Embedding

__all__ = ["verify"]


def verify(
    img1_path: Any,
    img2_path: Any,
    model_name: str = DEFAULT_MODEL,
    detector_backend: str = DEFAULT_BACKEND,
    distance_metric: Metric = "cosine",
    enforce_detection: bool = True,
    align: bool = True,  # noqa: ARG001 - faces are always aligned, see docs/deepface.md
    expand_percentage: int = 0,
    normalization: str = "base",
    silent: bool = False,  # noqa: ARG001 - nothing is printed
    threshold: float | None = None,
    anti_spoofing: bool = False,
) -> dict[str, Any]:
    """Are two photos of one person? Of photos with several faces, the two most alike are compared.

    img1_path, img2_path  as of ``represent``; a list of numbers is an embedding made before.
    enforce_detection  False: a photo without a face is compared as a whole; such a distance means little.
    threshold  the largest distance taken for one person; None: the measured one, see ``find_threshold``.
    Returns    ``verified``, ``distance``, ``threshold``, ``confidence`` (calibrated 0…100 %; None where
               nobody calibrated the model), ``model``,
               ``detector_backend``, ``similarity_metric``, ``facial_areas`` (``img1``, ``img2``), ``time`` (seconds).
    Raises     NoFaceFound, PhotoError, ModelUnknown, ArgumentInvalid, DimensionMismatch.
    """
    started = time.perf_counter()
    check_options(normalization=normalization, anti_spoofing=anti_spoofing)
    check_metric(distance_metric)
    engine = engine_for(model_name, detector_backend)
    limit = threshold_for(engine, distance_metric, threshold)
    first, second = (
        embeddings_of(engine, model_name, image, enforce_detection, expand_percentage)
        for image in (img1_path, img2_path)
    )
    pair = closest(first, second, distance_metric)
    return {
        **decision(engine, pair, limit),
        "model": model_name,
        "detector_backend": detector_backend,
        "similarity_metric": distance_metric,
        "facial_areas": {"img1": pair[0][1], "img2": pair[1][1]},
        "time": round(time.perf_counter() - started, 2),
    }


Known = tuple[Embedding, dict[str, Any]]
"""An embedding and where it was found."""

Pair = tuple[Known, Known, float]


def embeddings_of(engine: Engine, model_name: str, image: Any, enforce: bool, expand: int) -> list[Known]:
    """The embeddings of a photo's faces with their areas, or the one embedding that was given instead of a photo."""
    if isinstance(image, (list, tuple)):
        return [(_embedding(engine, image), no_facial_area())]
    photo, faces = embedded(engine, model_name, image, enforce)
    return [(face.embedding, facial_area(face, photo, expand)) for face in faces if face.embedding is not None]


def closest(first: Sequence[Known], second: Sequence[Known], metric: Metric) -> Pair:
    """The pair with the smallest distance; the earlier one of equals."""
    pairs = ((one, other, float(find_distance(one[0], other[0], metric))) for one in first for other in second)
    return min(pairs, key=lambda pair: pair[2])


def decision(engine: Engine, pair: Pair, threshold: float) -> dict[str, Any]:
    """What was decided of a pair, and on what."""
    (one, _), (other, _), distance = pair
    similarity = 1 - float(find_distance(one, other))
    return {
        "verified": distance <= threshold,
        "distance": distance,
        "threshold": threshold,
        "confidence": confidence_of(engine, similarity),
    }


def _embedding(engine: Engine, values: Sequence[float]) -> Embedding:
    if not all(isinstance(value, (int, float, np.number)) and not isinstance(value, bool) for value in values):
        raise ArgumentInvalid("a list instead of a photo is an embedding; expected numbers only.", argument="img1_path")
    wanted = engine.space.dimension
    if len(values) != wanted:
        raise DimensionMismatch(
            f"the embedding given has {len(values)} numbers; {engine.space} makes {wanted}. Embed with the same model.",
            expected=wanted,
            got=len(values),
        )
    return np.asarray(values, np.float32)
