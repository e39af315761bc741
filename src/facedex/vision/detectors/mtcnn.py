"""MTCNN: three small networks, each looking closer at what the one before proposed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, ModelInvalid
from facedex.models.contract import check_images, largest_first
from facedex.models.runtime import Array, Model
from facedex.types import Box, Face, RgbImage
from facedex.vision.detectors.yunet import suppress
from facedex.vision.scaling import shrink

_Floats = npt.NDArray[np.float32]
_Boxes = npt.NDArray[np.float64]


class MTCNN:
    """MTCNN (Zhang et al. 2016, doi:10.1109/LSP.2016.2603342): slower than YuNet, and independent of it.

    proposal    P-Net, slides over a pyramid of the photo; refinement: R-Net, 24×24; output: O-Net, 48×48, landmarks.
    thresholds  of the three networks' scores.
    smallest    side in pixels (of the shrunk photo) of the smallest face looked for.
    bound       longer side in pixels to which larger photos are shrunk before detection; none is enlarged.

    Constants and rounding are those of facenet-pytorch, whose answers the golden numbers are.
    """

    CELL: Final = 12  # pixels of P-Net's view
    STRIDE: Final = 2
    STEP: Final = 0.709  # from one level of the pyramid to the next: about half the area
    BATCH: Final = 128

    def __init__(
        self,
        proposal: Model,
        refinement: Model,
        output: Model,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        smallest: int = 20,
        bound: int = 640,
    ) -> None:
        if not all(0 < threshold < 1 for threshold in thresholds):
            raise ArgumentInvalid(f"thresholds are {thresholds}; expected scores between 0 and 1")
        if not self.CELL <= smallest <= bound:
            raise ArgumentInvalid(f"smallest is {smallest}; expected {self.CELL} pixels or more, and at most bound")
        sizes = [(None, None), (24, 24), (48, 48)]
        answers = [{"face", "shift"}, {"face", "shift"}, {"face", "shift", "points"}]
        for model, size, names in zip((proposal, refinement, output), sizes, answers, strict=True):
            takes = [port.shape for port in model.inputs]
            if takes != [(None, 3, *size)] or {port.name for port in model.outputs} != names:
                raise ModelInvalid(
                    f"{model.path} takes {takes} and gives {[port.name for port in model.outputs]}; it is not the "
                    "network of MTCNN it should be. Use the files of `facedex models pull mtcnn`.",
                    path=str(model.path),
                )
        self._proposal, self._refinement, self._output = proposal, refinement, output
        self.thresholds, self.smallest, self.bound = thresholds, smallest, bound

    def detect(self, images: Sequence[RgbImage]) -> list[list[Face]]:
        """See ``Detector``."""
        check_images(images)
        return [self._faces(image) for image in images]

    def _faces(self, image: RgbImage) -> list[Face]:
        small = shrink(image, self.bound)
        means = _Means(small)
        boxes = self._refined(means, self._proposed(means))
        boxes, face, shift, points = self._look(self._output, means, boxes, 48, self.thresholds[2])
        size = _size(boxes)
        landmarks = points.reshape(-1, 2, 5).transpose(0, 2, 1) * size[:, None, :2] + boxes[:, None, :2] - 1
        boxes = boxes + shift * size
        factor = np.array([image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]])
        return largest_first(
            [
                Face(
                    box=Box(*(float(v) for v in boxes[i] * np.tile(factor, 2))),
                    landmarks=(landmarks[i] * factor).astype(np.float32),
                    detection_score=float(face[i]),
                )
                for i in _suppress_contained(boxes, face, 0.7)
            ]
        )

    def _proposed(self, means: _Means) -> _Boxes:
        """(N, 4) squares that P-Net takes for faces, at all sizes."""
        found: list[tuple[_Boxes, _Boxes, _Floats]] = []
        scale = self.CELL / self.smallest
        while min(means.height, means.width) * scale >= self.CELL:
            level = means.part(
                (0, 0, means.width, means.height), int(means.height * scale + 1), int(means.width * scale + 1)
            )
            answers = self._proposal.run({"data": level[None]})
            rows, columns = np.nonzero(answers["face"][0, 0] >= self.thresholds[0])
            score = answers["face"][0, 0, rows, columns]
            corner = np.stack([columns, rows], axis=1) * self.STRIDE
            cells = np.floor(np.concatenate([corner + 1, corner + self.CELL], axis=1) / scale)
            sides = np.tile(cells[:, 2:] - cells[:, :2], 2)
            moved = cells + answers["shift"][0][:, rows, columns].T * sides
            keep = suppress(cells.astype(np.float32), score, 0.5)
            found.append((cells[keep], moved[keep], score[keep]))
            scale *= self.STEP
        if not found:
            return np.zeros((0, 4))
        # Proposals are compared as they lie on the grid; what is left of them moves only then.
        cells, moved, score = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return _square(moved[suppress(cells.astype(np.float32), score, 0.7)])

    def _refined(self, means: _Means, boxes: _Boxes) -> _Boxes:
        """(N, 4) squares that R-Net also takes for faces, corrected by it."""
        boxes, face, shift, _ = self._look(self._refinement, means, boxes, 24, self.thresholds[1])
        keep = suppress(boxes.astype(np.float32), face, 0.7)
        return _square(boxes[keep] + shift[keep] * _size(boxes[keep]))

    def _look(
        self, network: Model, means: _Means, boxes: _Boxes, side: int, threshold: float
    ) -> tuple[_Boxes, _Floats, _Floats, _Floats]:
        """Of the boxes that show a face by this network: themselves, scores (N,), shifts (N, 4), points (N, 10)."""
        boxes = boxes[np.isfinite(boxes).all(axis=1)]
        whole = np.array([means.width, means.height, means.width, means.height])
        corners = np.clip(np.trunc(boxes) - [1, 1, 0, 0], 0, whole).astype(np.intp)
        seen = (corners[:, 2:] > corners[:, :2]).all(axis=1)
        boxes, corners = boxes[seen], corners[seen]
        answers = [np.zeros((0, columns), np.float32) for columns in (1, 4, 10)]
        for start in range(0, len(boxes), self.BATCH):
            crops = np.stack([means.part(tuple(each), side, side) for each in corners[start : start + self.BATCH]])
            given = self._run(network, crops)
            answers = [np.concatenate([before, more]) for before, more in zip(answers, given, strict=True)]
        face, shift, points = answers
        keep = face[:, 0] > threshold
        return boxes[keep], face[keep, 0], shift[keep], points[keep]

    @staticmethod
    def _run(network: Model, crops: _Floats) -> tuple[Array, Array, Array]:
        answers = network.run({"data": crops})
        return answers["face"], answers["shift"], answers.get("points", np.zeros((len(crops), 10), np.float32))


class _Means:
    """A photo resized by averaging, whole or in part, at a cost that does not depend on how much is averaged.

    Holds the sum of everything above and left of each pixel (Crow 1984, doi:10.1145/800031.808600). Sums of a whole
    photo may exceed 32 bits and wrap around; differences, of fewer pixels, come out right.
    """

    def __init__(self, image: RgbImage) -> None:
        self.height, self.width = image.shape[:2]
        self._sums = np.zeros((self.height + 1, self.width + 1, 3), np.uint32)
        np.cumsum(image, axis=0, dtype=np.uint32, out=self._sums[1:, 1:])
        np.cumsum(self._sums[1:, 1:], axis=1, dtype=np.uint32, out=self._sums[1:, 1:])

    def part(self, box: tuple[int, ...], height: int, width: int) -> _Floats:
        """(3, height, width) float32: pixels x1…x2 and y1…y2, each result the mean of all pixels it touches."""
        x1, y1, x2, y2 = (int(v) for v in box)
        top, bottom = _windows(y1, y2, height)
        left, right = _windows(x1, x2, width)
        columns = self._sums[:, x1 : x2 + 1]
        rows = columns[bottom] - columns[top]
        sums = rows[:, right - x1] - rows[:, left - x1]
        areas = (bottom - top)[:, None] * (right - left)[None, :]
        means: _Floats = sums.astype(np.float32) / areas[..., None].astype(np.float32)
        return means.transpose(2, 0, 1)


def _windows(first: int, end: int, count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Where each of ``count`` windows over first…end begins and ends; neighbours share a pixel that both touch."""
    steps, length = np.arange(count + 1), end - first
    return first + steps[:-1] * length // count, first - (-steps[1:] * length // count)


def _size(boxes: _Boxes) -> _Boxes:
    """(N, 4): width, height, width, height of boxes whose last pixel belongs to them."""
    return np.tile(boxes[:, 2:] - boxes[:, :2] + 1, 2)


def _square(boxes: _Boxes) -> _Boxes:
    """The same centres, both sides as long as the longer one."""
    middle, side = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)
    return np.concatenate([middle - side / 2, middle + side / 2], axis=1)


def _suppress_contained(boxes: _Boxes, scores: _Floats, overlap: float) -> list[int]:
    """Indices to keep, best score first: none shares more than ``overlap`` of the smaller box with a better one."""
    areas = _size(boxes)[:, :2].prod(axis=1)
    waiting = np.argsort(-scores, kind="stable")
    keep: list[int] = []
    while waiting.size:
        best, waiting = int(waiting[0]), waiting[1:]
        keep.append(best)
        corner = np.maximum(boxes[best, :2], boxes[waiting, :2])
        shared = np.prod(np.maximum(np.minimum(boxes[best, 2:], boxes[waiting, 2:]) - corner + 1, 0), axis=1)
        waiting = waiting[shared <= overlap * np.minimum(areas[best], areas[waiting])]
    return keep
