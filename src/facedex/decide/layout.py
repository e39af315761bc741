"""Embeddings laid out in two or three dimensions, to look at. What is near there need not be near in the space."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, PlotDriverMissing
from facedex.types import Embeddings

__all__ = ["Layout", "LayoutMethod", "lay_out"]

LayoutMethod = Literal["pca", "umap"]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Points of faces.

    points  (N, 2) or (N, 3) float64.
    kept    share of the variance that the axes show, 0…1; None for UMAP, whose axes mean nothing.
    """

    points: npt.NDArray[np.float64]
    method: LayoutMethod
    kept: float | None


def lay_out(embeddings: Embeddings, dimensions: int = 2, method: LayoutMethod = "pca", seed: int = 0) -> Layout:
    """Project embeddings to a plane or to space.

    embeddings  (N, D), N at least 3.
    method      "pca": the directions of most variance; deterministic. "umap": neighbours stay neighbours, distances do
                not; needs ``facedex[umap]``.
    Raises      ArgumentInvalid; PlotDriverMissing.
    """
    if dimensions not in (2, 3) or len(embeddings) < 3 or method not in ("pca", "umap"):
        raise ArgumentInvalid(
            f"a layout has 2 or 3 dimensions, is pca or umap, and needs 3 faces or more; got {dimensions}, {method!r} "
            f"and {len(embeddings)} faces.",
            dimensions=dimensions,
            faces=len(embeddings),
            method=method,
        )
    rows = np.asarray(embeddings, np.float64)
    return _umap(rows, dimensions, seed) if method == "umap" else _pca(rows, dimensions)


def _pca(rows: npt.NDArray[np.float64], dimensions: int) -> Layout:
    centred = rows - rows.mean(axis=0)
    # Of the smaller product: (D, D) for many faces, whose (N, D) singular vectors nobody needs.
    values, axes = np.linalg.eigh(centred.T @ centred)
    values, axes = np.clip(values[::-1], 0, None), axes[:, ::-1][:, :dimensions]
    # An axis may point either way; the larger coefficients decide, so that the same faces give the same picture.
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1, 1)
    points = centred @ axes
    if points.shape[1] < dimensions:
        points = np.pad(points, ((0, 0), (0, dimensions - points.shape[1])))
    total = float(values.sum())
    return Layout(points, "pca", float(values[:dimensions].sum() / total) if total else 1.0)


def _umap(rows: npt.NDArray[np.float64], dimensions: int, seed: int) -> Layout:
    try:
        from umap import UMAP
    except ImportError as error:
        raise PlotDriverMissing(
            "laying out by UMAP needs umap-learn: pip install 'facedex[umap]'; or take --method pca.",
            extra="umap",
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one thread for a fixed seed, and of few neighbours in small sets
        fitted = UMAP(
            n_components=dimensions,
            metric="cosine",
            random_state=seed,
            n_neighbors=min(15, len(rows) - 1),
            init="random",
        ).fit_transform(rows)
    return Layout(np.asarray(fitted, np.float64), "umap", None)
