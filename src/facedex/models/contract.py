"""What every detector and embedder promises, real or synthetic, and the checks they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from facedex.errors import EmbeddingInvalid, PhotoArrayInvalid
from facedex.types import Embeddings, EmbeddingSpace, Face, Landmarks, RgbImage

TEMPLATE_SIZE: Final = 112
ARCFACE_TEMPLATE: Final[Landmarks] = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    dtype=np.float32,
)
"""Where ArcFace and SFace want the landmarks in a crop of 112×112 pixels.

Source  Deng et al. 2019, doi:10.1109/CVPR.2019.00482.
"""
DLIB_TEMPLATE: Final[Landmarks] = np.array(
    [
        [45.34, 45.41],
        [99.84, 45.05],
        [70.55, 75.95],
        [49.65, 99.31],
        [95.55, 99.14],
    ],
    dtype=np.float32,
)
"""Where the landmarks YuNet finds lie, on average, in the chips of 150×150 pixels (padding 0.25) that dlib cuts by its
own landmarks. Measured, for dlib's five points are others: corners of the eyes and the base of the nose."""
FER_TEMPLATE: Final[Landmarks] = np.array(
    [
        [20.8, 25.7],
        [41.6, 25.7],
        [30.8, 37.7],
        [22.2, 46.1],
        [40.3, 46.2],
    ],
    dtype=np.float32,
)
"""Where the landmarks YuNet finds lie, on average, in the crops of 64×64 pixels that ``fer`` makes of the boxes of
OpenCV's frontal Haar cascade. Measured on 235 photos of 46 people; a landmark scatters by 1 to 2 pixels about it."""
for _template in (ARCFACE_TEMPLATE, DLIB_TEMPLATE, FER_TEMPLATE):
    _template.setflags(write=False)

ALIGNMENTS: Final[Mapping[str, tuple[int, Landmarks]]] = {
    "arcface": (TEMPLATE_SIZE, ARCFACE_TEMPLATE),
    "dlib": (150, DLIB_TEMPLATE),
    # Chips with a padding of 0.2 show 1.4 times the inner face instead of 1.5: the same crop, cut closer.
    "dlib-0.2": (140, DLIB_TEMPLATE - 5),
    "fer": (64, FER_TEMPLATE),
}
"""Name of an alignment → side of a crop in pixels, and where in it the landmarks fall."""


@runtime_checkable
class Detector(Protocol):
    """Finds faces."""

    def detect(self, images: Sequence[RgbImage]) -> list[list[Face]]:
        """The faces of each image, the largest box first.

        images   each (H, W, 3) uint8, RGB, upright.
        Returns  one list per image, empty when it shows no face; boxes and landmarks in pixels of that image.
        Raises   PhotoArrayInvalid for anything else than such arrays.
        """
        ...


def check_images(images: Sequence[RgbImage]) -> None:
    """Raise PhotoArrayInvalid unless every image is (H, W, 3) uint8 with at least one pixel."""
    for position, image in enumerate(images):
        if (
            not isinstance(image, np.ndarray)
            or image.dtype != np.uint8
            or image.ndim != 3
            or image.shape[2] != 3
            or image.size == 0
        ):
            what = (
                f"shape {image.shape} and dtype {image.dtype}"
                if isinstance(image, np.ndarray)
                else f"type {type(image)}"
            )
            raise PhotoArrayInvalid(
                f"image {position} has {what}; expected an array (H, W, 3) uint8, RGB. "
                "For grayscale or floats, convert first; for a file, decode it first.",
                position=position,
                shape=getattr(image, "shape", None),
                dtype=str(getattr(image, "dtype", None)),
            )


def largest_first(faces: list[Face]) -> list[Face]:
    """Faces by area of the box, then detection score, then position: the main face of a portrait comes first."""
    return sorted(faces, key=lambda face: (-face.box.area, -face.detection_score, face.box))


@runtime_checkable
class Embedder(Protocol):
    """Turns aligned crops into embeddings of one space."""

    @property
    def space(self) -> EmbeddingSpace:
        """Where its embeddings may be compared."""
        ...

    @property
    def size(self) -> int:
        """Side of the crops it takes, in pixels."""
        ...

    @property
    def alignment(self) -> str:
        """Where in the crop it wants the landmarks: a name in ``ALIGNMENTS``."""
        ...

    def embed(self, crops: npt.NDArray[np.uint8]) -> Embeddings:
        """Embed aligned faces.

        crops    (N, size, size, 3) uint8, RGB, from ``align_face``; N may be 0.
        Returns  (N, D) float32, each row of L2 norm 1.
        Raises   PhotoArrayInvalid for other crops, EmbeddingInvalid when a result is not finite or zero.
        """
        ...


def check_crops(crops: npt.NDArray[np.uint8], size: int) -> None:
    """Raise PhotoArrayInvalid unless crops are (N, size, size, 3) uint8."""
    array = np.asarray(crops)
    if array.ndim != 4 or array.shape[1:] != (size, size, 3) or array.dtype != np.uint8:
        raise PhotoArrayInvalid(
            f"crops have shape {array.shape} and dtype {array.dtype}; expected (N, {size}, {size}, 3) uint8, RGB, "
            "aligned. Use `align_face`.",
            shape=array.shape,
            dtype=str(array.dtype),
        )


def unit_rows(rows: npt.NDArray[np.float32]) -> Embeddings:
    """Rows scaled to L2 norm 1.

    Raises  EmbeddingInvalid naming the first row that is not finite, or too short to have a direction.
    """
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths < 1e-12))
    if bad.size:
        raise EmbeddingInvalid(
            f"the network gave an embedding of length {lengths[bad[0]]} for face {int(bad[0])} of {len(rows)}; "
            "it has no direction to compare. Run `facedex models verify`.",
            face=int(bad[0]),
            length=float(lengths[bad[0]]),
        )
    return np.asarray(rows / lengths[:, None], dtype=np.float32)
