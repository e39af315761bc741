"""Detectors: photos in, faces with landmarks out; one module each."""

from __future__ import annotations

import os

from facedex.models import added, catalog, weights
from facedex.models.catalog import YUNET
from facedex.models.contract import Detector
from facedex.models.runtime import DEFAULT_RUNTIME, Model, Runtime
from facedex.vision.detectors.mtcnn import MTCNN
from facedex.vision.detectors.yunet import YuNet, suppress

__all__ = ["MTCNN", "Detector", "YuNet", "load_detector", "suppress"]


def load_detector(
    name: str = YUNET.name,
    models_dir: str | os.PathLike[str] | None = None,
    *,
    fetch: bool = True,
    threads: int | None = None,
    runtime: Runtime = DEFAULT_RUNTIME,
    bound: int = 640,
    progress: weights.Progress | None = None,
) -> Detector:
    """The detector of that name, of the catalog or added by the user; its weights are fetched if need be and allowed.

    bound   longer side in pixels at which it looks.
    Raises  ModelUnknown, ArgumentInvalid for a model of another task; else as ``weights.ensure`` and ``Model.load``.
    """
    card = added.find(name, models_dir, task="detect")
    stages = (*(catalog.card(need) for need in card.needs), card)
    models = [
        Model.load(weights.ensure(stage, models_dir, fetch, progress), threads, runtime=runtime) for stage in stages
    ]
    if card.adapter == "mtcnn":
        proposal, refinement, output = models
        return MTCNN(proposal, refinement, output, bound=bound)
    return YuNet(models[0], bound=bound)
