"""One photo at several sizes: small enough to look for faces in, large enough to cut each of them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from facedex.types import Box, Face, Landmarks, RgbImage
from facedex.vision.decoding import FACTORS

__all__ = ["Level", "Levels"]

_LEAST: Final = 32
"""A level's shorter side has at least this many pixels: a strip of a photo is not made a thread."""


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """A photo at 1/factor of its size.

    pixels  (H, W, 3) uint8, RGB, upright.
    origin  where its first pixel begins, in pixels of the photo; 0, or less where it reaches beyond the photo.
    """

    pixels: RgbImage
    factor: int = 1
    origin: tuple[int, int] = (0, 0)

    def outward(self, face: Face) -> Face:
        """A face found here, in pixels of the photo."""
        if self.factor == 1:
            return face
        x, y = self.origin
        x1, y1, x2, y2 = (v * self.factor for v in face.box)
        landmarks = face.landmarks * np.float32(self.factor) + np.array(self.origin, np.float32)
        return replace(face, box=Box(x1 + x, y1 + y, x2 + x, y2 + y), landmarks=landmarks)

    def inward(self, landmarks: Landmarks) -> Landmarks:
        """Points of the photo, in pixels of this level.

        Points are places in which pixel (0, 0) has its centre at (0, 0), so scaling moves them by half a pixel: a crop
        shows the same at every level.
        """
        if self.factor == 1:
            return landmarks
        points = (landmarks.astype(np.float64) - self.origin + 0.5) / self.factor - 0.5
        return points.astype(np.float32)


class Levels:
    """A photo at 1, 1/2, 1/4 and 1/8 of its size, as far as its form allows; each is made when first asked for.

    Not for several threads at once.

    width, height  of the upright photo.
    """

    def __init__(
        self,
        width: int,
        height: int,
        decode: Callable[[int], RgbImage],
        origin: Callable[[int], tuple[int, int]],
        factors: tuple[int, ...] = FACTORS,
    ) -> None:
        self.width, self.height = width, height
        self._decode, self._origin = decode, origin
        self._factors = tuple(f for f in factors if f == 1 or min(width, height) >= f * _LEAST)
        self._made: dict[int, Level] = {}

    @classmethod
    def of(cls, pixels: RgbImage) -> Self:
        """Of a photo that is decoded already: only at its full size."""
        return cls(pixels.shape[1], pixels.shape[0], lambda _: pixels, lambda _: (0, 0), (1,))

    def at_least(self, side: int) -> Level:
        """The smallest level whose longer side has at least ``side`` pixels; the full size when there is none.

        Raises  PhotoUnreadable.
        """
        return self._level(next((f for f in self._factors if max(self.width, self.height) >= f * side), 1))

    def reduced_by(self, factor: float) -> Level:
        """A level at which nothing is more than ``factor`` times smaller than in the photo.

        The smallest of those made already, else the smallest there is: decoding once more costs more than pixels.

        Raises  PhotoUnreadable.
        """
        fitting = [f for f in self._factors if f <= factor]
        made = [f for f in fitting if f in self._made]
        return self._level(next(iter([*made, *fitting]), 1))

    def _level(self, factor: int) -> Level:
        if factor not in self._made:
            self._made[factor] = Level(self._decode(factor), factor, self._origin(factor))
        return self._made[factor]
