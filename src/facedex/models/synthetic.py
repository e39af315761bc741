"""Stand-ins for photos, detector and embedder: deterministic, without weights, for tests of everything above them.

A synthetic face is a square marker: a magenta frame, and inside 12×12 cells, darker or lighter than mid-gray. The
first 128 cells carry the identity: a row of the 128×128 Hadamard matrix, so the codes of different people are at right
angles. A photo's variation flips a few cells and moves their brightness, as light and pose move a real embedding.
Markers survive JPEG (quality 90), resizing to cells of about 3 pixels, and EXIF turning, not rotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid
from facedex.models.contract import (
    ARCFACE_TEMPLATE,
    TEMPLATE_SIZE,
    check_crops,
    check_images,
    largest_first,
    unit_rows,
)
from facedex.types import Box, Embeddings, EmbeddingSpace, Face, RgbImage

_UNITS: Final = 14  # of a marker's side: a frame of one unit, twelve cells
_CODE: Final = 128
_FLIPPED: Final = 8  # of a variation: similarity to the plain face about 0.87, between two variations about 0.76
_FRAME: Final = (255, 0, 255)


def draw_photo(
    people: Sequence[int],
    size: tuple[int, int] = (480, 360),
    variation: float = 0,
    seed: int = 0,
    face_size: int | None = None,
) -> RgbImage:
    """A photo of these people, one marker each, on a gray background.

    people     identities, 0 or more each; the first one's face is the largest. Empty: a photo without faces.
    size       width and height in pixels.
    variation  0 shows everyone as they are; another number, together with ``seed``, is another occasion.
    seed       0 or more: the background, the places of the faces and, unless ``variation`` is 0, the occasion.
    face_size  side of the first face in pixels; as large as fits, at most 140, when None.
    Returns    (H, W, 3) uint8, RGB; the same arguments, the same pixels.
    Raises     ArgumentInvalid when the faces do not fit, or an identity is negative.
    """
    width, height = size
    rng = np.random.default_rng([seed, *_occasion(variation, seed), *(abs(person) for person in people)])
    slope = np.linspace(90, 150, width)[None, :] + np.linspace(-20, 20, height)[:, None]
    gray = slope + rng.normal(0, 4, (height, width))
    photo = np.repeat(np.clip(gray, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if not people:
        return photo
    columns = int(np.ceil(np.sqrt(len(people) * width / height)))
    rows = -(-len(people) // columns)
    room = min(width // columns, height // rows) - 8
    first = min(room, 140) if face_size is None else face_size
    others = max(min(first - _UNITS, int(first * 0.9)), 3 * _UNITS)
    if first > room or (len(people) > 1 and others >= first) or first < 3 * _UNITS:
        raise ArgumentInvalid(
            f"{len(people)} faces of {first} pixels do not fit in a photo of {width}×{height}; expected faces of "
            f"{3 * _UNITS} pixels or more, the first the largest. Draw a larger photo.",
            people=len(people),
            size=size,
        )
    for place, person in enumerate(people):
        side = first if place == 0 else others
        row, column = divmod(place, columns)
        slack_x, slack_y = width // columns - 8 - side, height // rows - 8 - side
        x = column * (width // columns) + 4 + int(rng.integers(0, slack_x + 1))
        y = row * (height // rows) + 4 + int(rng.integers(0, slack_y + 1))
        photo[y : y + side, x : x + side] = _marker(person, _occasion(variation, seed), side)
    return photo


class SyntheticDetector:
    """Finds the markers of ``draw_photo``; see ``contract.Detector``."""

    def detect(self, images: Sequence[RgbImage]) -> list[list[Face]]:
        """The markers of each image, largest first; their landmarks align to the whole marker."""
        check_images(images)
        return [self._faces(image) for image in images]

    def _faces(self, image: RgbImage) -> list[Face]:
        red, green, blue = (image[..., channel].astype(np.int16) for channel in range(3))
        magenta = (red - green > 100) & (blue - green > 100)
        faces = []
        for x1, y1, x2, y2 in _blocks(magenta, 0, 0):
            width, height = x2 - x1, y2 - y1
            if min(width, height) < 2 * _UNITS or max(width, height) > 1.15 * min(width, height):
                continue
            unit = max(1, min(width, height) // _UNITS)
            frame = magenta[y1:y2, x1:x2].copy()
            frame[unit : height - unit, unit : width - unit] = False
            score = frame.sum() / (2 * unit * (width + height - 2 * unit))
            if score < 0.7:
                continue
            # The template's pixel centres, spread over the marker as over a crop.
            spread = (ARCFACE_TEMPLATE + 0.5) * np.array([width, height], np.float32) / TEMPLATE_SIZE
            landmarks = (spread + np.array([x1, y1], np.float32) - 0.5).astype(np.float32)
            faces.append(Face(Box(float(x1), float(y1), float(x2), float(y2)), landmarks, float(min(score, 1.0))))
        return largest_first(faces)


class SyntheticEmbedder:
    """Reads identities off aligned markers; see ``contract.Embedder``.

    Similarity is about 0.75 to 0.9 between two occasions of a person, and near 0 between people: below 0.3 for any two
    of the first 127, below 0.5 beyond.

    name  another name is another embedding space, for tests of spaces that must not meet.
    """

    def __init__(self, name: str = "synthetic") -> None:
        self._space = EmbeddingSpace(
            model=name,
            version="1",
            weights_sha256="0" * 64,
            dimension=_CODE,
            preprocessing="rgb 0-255; 112x112; arcface 5-point similarity; bilinear, black border; l2",
        )

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    def size(self) -> int:
        return TEMPLATE_SIZE

    @property
    def alignment(self) -> str:
        return "arcface"

    def embed(self, crops: npt.NDArray[np.uint8]) -> Embeddings:
        """Mean brightness of each cell's middle, relative to mid-gray.

        Raises  PhotoArrayInvalid, EmbeddingInvalid as every embedder.
        """
        check_crops(crops, self.size)
        unit = TEMPLATE_SIZE // _UNITS
        light = crops[:, unit:-unit, unit:-unit].mean(axis=3, dtype=np.float32)
        cells = light.reshape(len(crops), _UNITS - 2, unit, _UNITS - 2, unit)[:, :, 2:-2, :, 2:-2].mean(axis=(2, 4))
        return unit_rows((cells.reshape(len(crops), -1)[:, :_CODE] - np.float32(127.5)) / np.float32(127.5))


def _code(person: int) -> npt.NDArray[np.float64]:
    """(128,) of ±1: row of the Hadamard matrix, under another random sign pattern for each 127 people."""
    if person < 0:
        raise ArgumentInvalid(f"identity is {person}; expected 0 or more", person=person)
    block, row = divmod(person, _CODE - 1)
    parity = np.array([((row + 1) & column).bit_count() & 1 for column in range(_CODE)])
    signs = np.random.default_rng([7, block]).integers(0, 2, _CODE)
    return np.asarray(1.0 - 2.0 * (parity ^ signs), dtype=np.float64)


def _occasion(variation: float, seed: int) -> tuple[int, ...]:
    """Seeds of how faces look in a photo; empty when they look as they are."""
    return (round(abs(variation) * 1_000_000), int(variation < 0), seed) if variation else ()


def _marker(person: int, occasion: tuple[int, ...], side: int) -> RgbImage:
    cells = np.ones((_UNITS - 2) ** 2)
    cells[:_CODE] = _code(person)
    strength = np.full(cells.size, 0.85)
    if occasion:
        rng = np.random.default_rng([11, person, *occasion])
        cells[rng.choice(_CODE, _FLIPPED, replace=False)] *= -1
        strength = rng.uniform(0.7, 1.0, cells.size)
    light = (127.5 + 127.5 * cells * strength).reshape(_UNITS - 2, _UNITS - 2)
    small = np.empty((_UNITS, _UNITS, 3))
    small[:] = _FRAME
    small[1:-1, 1:-1] = light[..., None]
    place = np.arange(side) * _UNITS // side
    return np.rint(small[place][:, place]).astype(np.uint8)


def _blocks(mask: npt.NDArray[np.bool_], x: int, y: int) -> list[tuple[int, int, int, int]]:
    """Boxes of what is set, told apart by empty rows and columns, again and again until nothing splits."""
    for axis in (1, 0):
        filled = np.flatnonzero(mask.any(axis=axis))
        if not filled.size:
            return []
        runs = np.split(filled, np.flatnonzero(np.diff(filled) > 1) + 1)
        if len(runs) > 1 or filled.size < mask.shape[1 - axis]:
            found = []
            for run in runs:
                low, high = int(run[0]), int(run[-1]) + 1
                if axis == 1:
                    found += _blocks(mask[low:high], x, y + low)
                else:
                    found += _blocks(mask[:, low:high], x + low, y)
            return found
    return [(x, y, x + mask.shape[1], y + mask.shape[0])]
