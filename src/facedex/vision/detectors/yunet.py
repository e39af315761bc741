"""YuNet: the default detector."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, ModelInvalid
from facedex.models import weights
from facedex.models.catalog import YUNET
from facedex.models.contract import check_images, largest_first
from facedex.models.runtime import DEFAULT_RUNTIME, Array, Model, Runtime
from facedex.types import Box, Face, RgbImage
from facedex.vision.scaling import shrink

__all__ = ["YuNet", "suppress"]


class YuNet:
    """YuNet (Wu et al. 2023, doi:10.1007/s11633-023-1423-y): faces from about 10 pixels of the shrunk photo.

    threshold  faces of a lower detection score are left out. 0.7: of the true faces marked in our measurements the
               lowest scored 0.86, the highest false one 0.65.
    bound      longer side in pixels to which larger photos are shrunk before detection; none is enlarged.
    nms        of two boxes with a higher intersection over union, the lower score is left out.

    Photos that need the same network size run in one batch.
    """

    STRIDES: Final = (8, 16, 32)
    MULTIPLE: Final = 32
    BATCH_PIXELS: Final = 8 * 640 * 640
    """Largest batch, in pixels: keeps a run below about 0.5 GB; more does not make it faster."""

    def __init__(self, model: Model, threshold: float = 0.7, bound: int = 640, nms: float = 0.3) -> None:
        if not 0 < threshold < 1:
            raise ArgumentInvalid(f"threshold is {threshold}; expected a score between 0 and 1", threshold=threshold)
        if not 0 < nms <= 1:
            raise ArgumentInvalid(f"nms is {nms}; expected an overlap between 0 and 1", nms=nms)
        if bound < self.MULTIPLE:
            raise ArgumentInvalid(f"bound is {bound}; expected {self.MULTIPLE} pixels or more", bound=bound)
        expected = {f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in self.STRIDES}
        shapes = [port.shape for port in model.inputs]
        if shapes != [(None, 3, None, None)] or {port.name for port in model.outputs} != expected:
            raise ModelInvalid(
                f"{model.path} takes {shapes} and gives {[port.name for port in model.outputs]}; it is not YuNet with "
                "free batch, height and width. Use the file of `facedex models pull yunet`.",
                path=str(model.path),
            )
        self.model = model
        self.threshold = threshold
        self.bound = bound
        self.nms = nms
        self._input = model.inputs[0].name

    @classmethod
    def load(
        cls,
        models_dir: str | os.PathLike[str] | None = None,
        *,
        fetch: bool = True,
        threads: int | None = None,
        runtime: Runtime = DEFAULT_RUNTIME,
        threshold: float = 0.7,
        bound: int = 640,
        nms: float = 0.3,
        progress: weights.Progress | None = None,
    ) -> Self:
        """YuNet with the weights of the catalog, fetched if need be and allowed.

        Raises  as ``weights.ensure`` and ``Model.load``.
        """
        model = Model.load(weights.ensure(YUNET, models_dir, fetch, progress), threads, runtime=runtime)
        return cls(model, threshold, bound, nms)

    def detect(self, images: Sequence[RgbImage]) -> list[list[Face]]:
        """See ``Detector``."""
        check_images(images)
        shrunk = [shrink(image, self.bound) for image in images]
        groups: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(shrunk):
            height, width = (-(-side // self.MULTIPLE) * self.MULTIPLE for side in image.shape[:2])
            groups.setdefault((height, width), []).append(index)
        found: list[list[Face]] = [[] for _ in images]
        for (height, width), members in groups.items():
            step = max(1, self.BATCH_PIXELS // (height * width))
            for start in range(0, len(members), step):
                batch = members[start : start + step]
                outputs = self.model.run({self._input: _blob([shrunk[i] for i in batch], height, width)})
                for row, index in enumerate(batch):
                    scale = (
                        images[index].shape[1] / shrunk[index].shape[1],
                        images[index].shape[0] / shrunk[index].shape[0],
                    )
                    found[index] = self._faces(outputs, row, width, scale)
        return found

    def _faces(self, outputs: dict[str, Array], row: int, width: int, scale: tuple[float, float]) -> list[Face]:
        """Decode one image of a batch: per stride, one anchor at each cell; keep what scores and does not overlap."""
        scores, boxes, points = [], [], []
        for stride in self.STRIDES:
            confidence = np.clip(outputs[f"cls_{stride}"][row, :, 0], 0, 1)
            confidence = np.sqrt(confidence * np.clip(outputs[f"obj_{stride}"][row, :, 0], 0, 1))
            cells = np.flatnonzero(confidence >= self.threshold)
            if not cells.size:
                continue
            origin = np.stack([cells % (width // stride), cells // (width // stride)], axis=1).astype(np.float32)
            box = outputs[f"bbox_{stride}"][row, cells]
            centre = (origin + box[:, :2]) * stride
            half = np.exp(box[:, 2:]) * (stride / 2)
            scores.append(confidence[cells])
            boxes.append(np.concatenate([centre - half, centre + half], axis=1))
            points.append((outputs[f"kps_{stride}"][row, cells].reshape(-1, 5, 2) + origin[:, None]) * stride)
        if not scores:
            return []
        score, box, point = (np.concatenate(parts) for parts in (scores, boxes, points))
        usable = np.isfinite(score) & np.isfinite(box).all(axis=1) & np.isfinite(point).all(axis=(1, 2))
        score, box, point = score[usable], box[usable], point[usable]
        factors = np.array(scale, dtype=np.float32)
        faces = [
            Face(
                box=Box(*(float(v) for v in box[i] * np.tile(factors, 2))),
                landmarks=(point[i] * factors).astype(np.float32),
                detection_score=float(score[i]),
            )
            for i in suppress(box, score, self.nms)
        ]
        return largest_first(faces)


def suppress(boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], overlap: float) -> list[int]:
    """Greedy non-maximum suppression.

    boxes    (N, 4) x1, y1, x2, y2.
    Returns  indices to keep, best score first; none overlaps a better one by an IoU above ``overlap``.
    """
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    waiting = np.argsort(-scores, kind="stable")
    keep: list[int] = []
    while waiting.size:
        best, waiting = int(waiting[0]), waiting[1:]
        keep.append(best)
        corner = np.maximum(boxes[best, :2], boxes[waiting, :2])
        shared = np.prod(np.maximum(np.minimum(boxes[best, 2:], boxes[waiting, 2:]) - corner, 0), axis=1)
        union = np.maximum(areas[best] + areas[waiting] - shared, np.finfo(np.float32).tiny)
        waiting = waiting[shared / union <= overlap]
    return keep


def _blob(images: list[RgbImage], height: int, width: int) -> npt.NDArray[np.float32]:
    """(N, 3, height, width) float32, BGR 0…255, each image in the upper left, zeros beyond."""
    blob = np.zeros((len(images), 3, height, width), np.float32)
    for row, image in zip(blob, images, strict=True):
        h, w = image.shape[:2]
        for plane in range(3):
            row[plane, :h, :w] = image[:, :, 2 - plane]
    return blob
