"""Alignment: a similarity transform that brings five landmarks to where the embedder expects them.

In C where the kernel was compiled, else in NumPy: the same crop, within two levels. Pixel (0, 0) has its centre at
(0, 0), as landmarks and OpenCV's ``warpAffine`` have it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, DegenerateLandmarks, PhotoArrayInvalid
from facedex.models.contract import ALIGNMENTS, ARCFACE_TEMPLATE, TEMPLATE_SIZE
from facedex.types import Landmarks, RgbImage
from facedex.vision import native

__all__ = ["ARCFACE_TEMPLATE", "TEMPLATE_SIZE", "align_face", "align_faces", "similarity_transform"]

_FLATTEST: Final = 0.01
"""Smallest ratio of the landmarks' extents across and along; a face in full profile is at about 0.1."""
_SMALLEST: Final = 0.1
"""Smallest standard deviation of the landmarks in pixels; a face of two pixels is none."""
_ROWS_AT_ONCE: Final = 28
"""Rows of a crop sampled together. Arrays of a whole crop are large enough for the allocator to map and unmap each of
them, and the page faults cost several times the arithmetic."""


def align_face(
    image: RgbImage, landmarks: Landmarks, size: int = TEMPLATE_SIZE, alignment: str = "arcface"
) -> RgbImage:
    """Warp a face so its five landmarks fall on the ArcFace template, or another.

    image      (H, W, 3) uint8, RGB.
    landmarks  (5, 2) float32 pixels, order in docs/glossary.md#landmarks.
    alignment  name of the template in ``ALIGNMENTS``.
    Returns    (size, size, 3) uint8, RGB; outside the image is black.
    Raises     DegenerateLandmarks when the points lie on a line, coincide or are not finite.
    Source     Umeyama 1991, doi:10.1109/34.88573.
    """
    return _warp(_checked_image(image), similarity_transform(landmarks, size, alignment), size)


def align_faces(image: RgbImage, landmarks: Iterable[Landmarks], size: int = TEMPLATE_SIZE) -> npt.NDArray[np.uint8]:
    """``align_face`` for several faces of one image.

    Returns  (N, size, size, 3) uint8, RGB.
    Raises   DegenerateLandmarks if any of them is; no crop is returned then.
    """
    checked = _checked_image(image)
    crops = [_warp(checked, similarity_transform(points, size), size) for points in landmarks]
    return np.stack(crops) if crops else np.zeros((0, size, size, 3), np.uint8)


def similarity_transform(
    landmarks: Landmarks, size: int = TEMPLATE_SIZE, alignment: str = "arcface"
) -> npt.NDArray[np.float64]:
    """The rotation, uniform scale and shift that best (least squares) brings landmarks to the template.

    Returns  (2, 3) float64 matrix from image pixels to crop pixels.
    Raises   DegenerateLandmarks, ArgumentInvalid for landmarks that are not (5, 2) or a size below 1.
    Source   Umeyama 1991; in the plane, with points as complex numbers, it is one division: the template's covariance
             with the landmarks over the landmarks' variance. No reflection can come of it.
    """
    if size < 1:
        raise ArgumentInvalid(f"size is {size}; expected 1 or more pixels", size=size)
    if alignment not in ALIGNMENTS:
        raise ArgumentInvalid(
            f"no alignment is called {alignment!r}; there are {', '.join(ALIGNMENTS)}", alignment=alignment
        )
    side, template = ALIGNMENTS[alignment]
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != template.shape:
        raise ArgumentInvalid(f"landmarks have shape {points.shape}; expected (5, 2)", shape=points.shape)
    if not np.isfinite(points).all():
        raise _degenerate(points, "are not all finite")
    source = points[:, 0] + 1j * points[:, 1]
    target = (template[:, 0] + 1j * template[:, 1]).astype(np.complex128) * (size / side)
    # A template pixel is a square: scaling the crop moves pixel centres by (s − 1)/2 as well.
    target += (size / side - 1) / 2 * (1 + 1j)
    source_mean, target_mean = source.mean(), target.mean()
    around = source - source_mean
    variance = float(np.mean(np.abs(around) ** 2))
    skew = abs(complex(np.mean(around**2)))
    along, across = np.sqrt((variance + skew) / 2), np.sqrt(max(0.0, variance - skew) / 2)
    if not along >= _SMALLEST:
        raise _degenerate(points, "coincide")
    if across < _FLATTEST * along:
        raise _degenerate(points, "lie on a line")
    turn = complex(np.mean((target - target_mean) * around.conj())) / variance
    if abs(turn) < 1e-9:
        raise _degenerate(points, "are in no order a face can have")
    shift = target_mean - turn * source_mean
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _degenerate(points: npt.NDArray[np.float64], what: str) -> DegenerateLandmarks:
    listed = np.round(points, 2).tolist()
    return DegenerateLandmarks(
        f"landmarks {listed} {what}; a face cannot be aligned by them. Skip this face.", landmarks=listed
    )


def _checked_image(image: RgbImage) -> RgbImage:
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise PhotoArrayInvalid(
            f"image has shape {array.shape} and dtype {array.dtype}; expected (H, W, 3) uint8, RGB",
            shape=array.shape,
            dtype=str(array.dtype),
        )
    return array


def _warp(image: RgbImage, transform: npt.NDArray[np.float64], size: int) -> RgbImage:
    """Bilinear sampling of ``image`` at the crop's pixels; outside is black.

    A crop's column and row each add their own part to the place in the image, so two short vectors make all
    coordinates. A place is an offset into the flat bytes, and its three neighbours are the same offset into the bytes
    that begin one pixel, one row, or both later.
    """
    (a, b, tx), (c, d, ty) = transform
    determinant = a * d - b * c
    steps = np.arange(size, dtype=np.float64)
    x_by_column, x_by_row = d * (steps - tx) / determinant, -b * (steps - ty) / determinant
    y_by_column, y_by_row = -c * (steps - tx) / determinant, a * (steps - ty) / determinant
    height, width = image.shape[:2]
    crop = np.empty((size, size * 3), np.uint8)
    if native.module is not None and image.flags.c_contiguous:
        places = np.concatenate([x_by_column, x_by_row, y_by_column, y_by_row])
        native.module.warp(image, height, width, places, size, crop)
        return crop.reshape(size, size, 3)
    left, right = x_by_column.min() + x_by_row.min(), x_by_column.max() + x_by_row.max()
    top, bottom = y_by_column.min() + y_by_row.min(), y_by_column.max() + y_by_row.max()
    # The origin moves to the part of the image that is wanted: coordinates in it are small enough for float32.
    x0, x1 = (int(np.clip(np.floor(v), -1, width)) for v in (left, right))
    y0, y1 = (int(np.clip(np.floor(v), -1, height)) for v in (top, bottom))
    last_x, last_y = np.float32(min(x1 + 1, width) - x0), np.float32(min(y1 + 1, height) - y0)
    inside = x0 >= 0 and y0 >= 0 and x1 < width - 2 and y1 < height - 2
    if inside and image.flags.c_contiguous:
        buffer = image.reshape(-1)[(y0 * width + x0) * 3 :]
    else:  # that part on black, wider than the image; what lies further out is sampled at its edge
        framed = np.zeros((y1 - y0 + 3, x1 - x0 + 3, 3), np.uint8)
        part = image[max(y0, 0) : y1 + 3, max(x0, 0) : x1 + 3]
        framed[max(-y0, 0) :, max(-x0, 0) :][: part.shape[0], : part.shape[1]] = part
        buffer, width = framed.reshape(-1), framed.shape[1]
    xs = (x_by_column - x0).repeat(3)
    ys = (y_by_column - y0).repeat(3)
    channel = np.tile(np.arange(3, dtype=np.float32), size)
    for first in range(0, size, _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        x = (xs + x_by_row[rows, None]).astype(np.float32)
        y = (ys + y_by_row[rows, None]).astype(np.float32)
        np.minimum(np.maximum(x, 0, out=x), last_x, out=x)
        np.minimum(np.maximum(y, 0, out=y), last_y, out=y)
        column, row = np.floor(x), np.floor(y)
        x -= column
        y -= row
        column *= 3
        column += channel
        places = row.astype(np.intp)
        places *= width * 3
        places += column.astype(np.intp)
        upper = _between(buffer, buffer[3:], places, x)
        lower = _between(buffer[width * 3 :], buffer[width * 3 + 3 :], places, x)
        lower -= upper
        lower *= y
        upper += lower
        upper += np.float32(0.5)
        crop[rows] = upper
    return crop.reshape(size, size, 3)


def _between(
    near: RgbImage, far: RgbImage, places: npt.NDArray[np.intp], weight: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Values on the way from the bytes of ``near`` (weight 0) to those of ``far`` (weight 1)."""
    start: npt.NDArray[np.float32] = near.take(places).astype(np.float32)
    end: npt.NDArray[np.float32] = far.take(places).astype(np.float32)
    end -= start
    end *= weight
    start += end
    return start
