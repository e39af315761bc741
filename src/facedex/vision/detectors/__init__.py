"""Detectors: photos in, faces with landmarks out; one module each."""

from __future__ import annotations

import os

from facedex.models import added, weights
from facedex.models.catalog import YUNET
from facedex.models.contract import Detector
from facedex.models.runtime import Model
from facedex.vision.detectors.yunet import YuNet, shrink, suppress

__all__ = ["Detector", "YuNet", "load_detector", "shrink", "suppress"]


def load_detector(
    name: str = YUNET.name,
    models_dir: str | os.PathLike[str] | None = None,
    *,
    fetch: bool = True,
    threads: int | None = None,
    progress: weights.Progress | None = None,
) -> Detector:
    """The detector of that name, of the catalog or added by the user; its weights are fetched if need be and allowed.

    Raises  ModelUnknown, ArgumentInvalid for a model of another task; else as ``weights.ensure`` and ``Model.load``.
    """
    card = added.find(name, models_dir, task="detect")
    return YuNet(Model.load(weights.ensure(card, models_dir, fetch, progress), threads))
