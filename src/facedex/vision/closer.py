"""A second, closer look for faces that are too small in the photo as it was first looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from facedex.models.contract import Detector, largest_first
from facedex.types import Box, Face, RgbImage
from facedex.vision.levels import Levels
from facedex.vision.scaling import shrink

__all__ = ["look_closer"]

TILE: Final = 640
"""Side of a tile in pixels: what the detector sees without shrinking it."""
OVERLAP: Final = 128
"""Of neighbouring tiles, in pixels. A face up to this size is whole in one of them; a larger one shows from afar."""
_SAME: Final = 0.3
"""Boxes of a higher intersection over union are one face."""
_INSIDE: Final = 0.6
"""A box with more than this part of it inside a larger one is a part of that face."""


def look_closer(detector: Detector, photo: Levels, seen: Sequence[Face], bound: int) -> list[Face]:
    """The faces of a photo, those added that only show at its full size.

    The photo is looked at in tiles, at its full size, half of it, and so on down to ``bound``: each face has a size at
    which it is whole in a tile, and large enough for the detector. One tile is in work at a time, so memory does not
    grow with the photo or the number of its faces.

    seen     faces found in the photo shrunk to ``bound``.
    bound    longer side in pixels of what was looked at before.
    Returns  largest first, in pixels of the photo, each face once.
    """
    found = list(seen)
    side = max(photo.width, photo.height)
    while side > bound * 1.25:
        level = photo.at_least(side)
        image = shrink(level.pixels, side)
        scale = level.pixels.shape[1] / image.shape[1], level.pixels.shape[0] / image.shape[0]
        for left, top in _tiles(image):
            tile = np.ascontiguousarray(image[top : top + TILE, left : left + TILE])
            (faces,) = detector.detect([tile])
            small = (face for face in faces if _belongs(face.box, tile, left, top, image))
            found += [level.outward(_moved(face, left, top, scale)) for face in small]
        side //= 2
    return largest_first(_each_once(found))


def _tiles(image: RgbImage) -> Iterator[tuple[int, int]]:
    """Upper left corners."""
    height, width = image.shape[:2]
    for top in _starts(height):
        for left in _starts(width):
            yield left, top


def _starts(length: int) -> list[int]:
    count = max(1, -(-(length - OVERLAP) // (TILE - OVERLAP)))
    return [round(i * max(0, length - TILE) / max(1, count - 1)) for i in range(count)]


def _belongs(box: Box, tile: RgbImage, left: int, top: int, image: RgbImage) -> bool:
    """Whether no edge of the tile cuts the face (the photo's own edges may), and it was not to be seen from afar."""
    height, width = tile.shape[:2]
    return max(box.width, box.height) <= OVERLAP and (
        (left == 0 or box.x1 > 0)
        and (top == 0 or box.y1 > 0)
        and (left + width == image.shape[1] or box.x2 < width)
        and (top + height == image.shape[0] or box.y2 < height)
    )


def _moved(face: Face, left: int, top: int, scale: tuple[float, float]) -> Face:
    x1, y1, x2, y2 = face.box
    box = Box((x1 + left) * scale[0], (y1 + top) * scale[1], (x2 + left) * scale[0], (y2 + top) * scale[1])
    landmarks = ((face.landmarks + np.array([left, top])) * scale).astype(np.float32)
    return replace(face, box=box, landmarks=landmarks)


def _each_once(faces: Sequence[Face]) -> list[Face]:
    """Of several views of a face the one with the best score; no face within a larger one."""
    best: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.detection_score):
        if all(_shared(face.box, other.box) <= _SAME * _union(face.box, other.box) for other in best):
            best.append(face)
    return [
        face
        for face in best
        if not any(
            other.box.area > face.box.area and _shared(face.box, other.box) > _INSIDE * face.box.area for other in best
        )
    ]


def _shared(one: Box, other: Box) -> float:
    wide = min(one.x2, other.x2) - max(one.x1, other.x1)
    high = min(one.y2, other.y2) - max(one.y1, other.y1)
    return max(0.0, wide) * max(0.0, high)


def _union(one: Box, other: Box) -> float:
    return one.area + other.area - _shared(one, other)
