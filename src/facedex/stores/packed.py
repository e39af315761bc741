"""How server stores pack a face's geometry and digests into bytes, the same on all of them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from facedex.stores.checks import Batch
from facedex.types import Box, Landmarks

__all__ = ["FLOAT32", "GEOMETRY", "digest_bytes", "in_order", "pack_geometry", "unpack_geometry"]

FLOAT32 = np.dtype("<f4")
GEOMETRY = np.dtype([("box", "<f8", (4,)), ("landmarks", "<f4", (5, 2)), ("score", "<f8")])
"""80 bytes: box, landmarks, detection score."""

_BOX_AND_SCORE = struct.Struct("<4d40xd")


def pack_geometry(batch: Batch) -> bytes:
    """The geometry of a whole batch, 80 bytes each."""
    places = np.empty(len(batch.templates), GEOMETRY)
    places["box"], places["landmarks"], places["score"] = batch.boxes, batch.landmarks, batch.scores
    return places.tobytes()


def unpack_geometry(packed: bytes) -> tuple[Box, Landmarks, float]:
    """One face's. Raises struct.error, TypeError, ValueError when it is none."""
    x1, y1, x2, y2, score = _BOX_AND_SCORE.unpack(packed)
    landmarks = np.ndarray((5, 2), FLOAT32, packed, 32).astype(np.float32, copy=False)
    return Box(x1, y1, x2, y2), landmarks, score


def digest_bytes(digests: Iterable[str]) -> Iterator[bytes]:
    """Those that are a SHA-256 in lower-case hex, as bytes."""
    for digest in digests:
        try:
            raw = bytes.fromhex(digest)
        except (ValueError, TypeError):
            continue
        if len(raw) == 32 and raw.hex() == digest:
            yield raw


def in_order(
    wanted: npt.NDArray[np.int64], found: npt.NDArray[np.int64], matrix: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Rows found, whose ids rise, in the order wanted, one for each time; those not found are left out."""
    if np.array_equal(found, wanted) or not len(found):
        return found, matrix
    place = np.minimum(np.searchsorted(found, wanted), len(found) - 1)
    there = found[place] == wanted
    return wanted[there], matrix[place[there]]
