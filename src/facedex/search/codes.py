"""Compressed copies of embeddings, in the layout of ``kernels/kernels.h``; this is the plain NumPy way to make them.

A row is rotated (which spreads whatever direction it has over all dimensions), centred, and rounded twice: to 4 bits,
``step4 * (c - 7.5)``, and to 8 bits, ``step8 * (c - 128)``. The length of what rounding left out is kept with it, and
bounds how wrong a similarity computed from the codes can be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facedex.types import Embeddings

BLOCK = 32
CHUNK = 128
MAX_DIMENSION = 4096
UNIT_TOLERANCE = 1e-3
"""How far the length of an embedding may be from 1."""

STEP4, STEP8, NORM4, NORM8, LANES = range(5)
"""Places in the float64 ``stats`` of a segment."""

_SIGN_SEED = 0x6661636564657801
_MASK = (1 << 64) - 1


def padded(dimension: int) -> int:
    """Dimension of a coded row: whole bytes of two groups of four."""
    return (dimension + 7) // 8 * 8


def stats_size(dimension: int) -> int:
    return LANES + 2 * ((padded(dimension) + CHUNK - 1) // CHUNK)


def blocks(rows: int) -> int:
    return (rows + BLOCK - 1) // BLOCK


def first_not_unit(rows: Embeddings) -> int:
    """The first row that is not finite or not of unit length, or -1."""
    for start in range(0, len(rows), 65536):
        part = rows[start : start + 65536].astype(np.float64)
        with np.errstate(all="ignore"):
            bad = np.flatnonzero(~(np.abs(np.einsum("nd,nd->n", part, part) - 1.0) <= 2 * UNIT_TOLERANCE))
        if bad.size:
            return start + int(bad[0])
    return -1


def signs(dimension: int) -> npt.NDArray[np.float32]:
    """``(2 * dimension,)`` of -1 and 1, the same on every machine; Steele, Lea, Flood 2014 (splitmix64)."""
    words, state = [], _SIGN_SEED
    for _ in range((2 * dimension + 63) // 64):
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        words.append(z ^ (z >> 31))
    bits = np.unpackbits(np.array(words, dtype="<u8").view(np.uint8), bitorder="little")[: 2 * dimension]
    return np.where(bits, -1, 1).astype(np.float32)


def _hadamard_of(rows: npt.NDArray[np.float32], columns: slice) -> None:
    """Walsh-Hadamard transform of some columns, in place; their number is a power of two."""
    x = np.ascontiguousarray(rows[:, columns])
    n = x.shape[1]
    h = 1
    while h < n:
        pairs = x.reshape(len(x), -1, 2, h)
        low, high = pairs[:, :, 0].copy(), pairs[:, :, 1].copy()
        pairs[:, :, 0] = low + high
        pairs[:, :, 1] = low - high
        h *= 2
    rows[:, columns] = x * np.float32(1.0 / np.sqrt(n))


def rotate(rows: Embeddings) -> npt.NDArray[np.float32]:
    """``(N, D)`` float32 to ``(N, padded(D))``: two rounds of signs and Walsh-Hadamard; lengths and angles stay."""
    dimension = rows.shape[1]
    m = 1 << (dimension.bit_length() - 1)
    sign = signs(dimension)
    out = np.zeros((len(rows), padded(dimension)), dtype=np.float32)
    out[:, :dimension] = rows * sign[:dimension]
    _hadamard_of(out, slice(0, m))
    out[:, :dimension] *= sign[dimension:]
    _hadamard_of(out, slice(dimension - m, dimension))
    return out


@dataclass(frozen=True, slots=True)
class Quantizer:
    """Where the middle of the codes is and how wide a step.

    mean          (padded(D),) float32, of rotated rows.
    step4, step8  widths of a step of the 4-bit and 8-bit codes.
    """

    mean: npt.NDArray[np.float32]
    step4: float
    step8: float


def fit(sample: Embeddings) -> Quantizer:
    """A quantizer for rows like these; any other row is coded too, with its larger error kept beside it.

    sample  (N, D) float32, unit rows; a few thousand are enough.
    """
    turned = rotate(sample)
    dimension = sample.shape[1]
    mean = turned.mean(axis=0, dtype=np.float64) if len(turned) >= 64 else np.zeros(turned.shape[1])
    spread = 1 / np.sqrt(dimension)
    if len(turned) >= 64:
        spread = max(float(np.sqrt(np.mean(np.square(turned[:, :dimension] - mean[:dimension])))), 1e-4)
    # the 4-bit step with the least error for a Gaussian (Max 1960), and 8 bits that reach to 5.5 standard deviations
    return Quantizer(np.ascontiguousarray(mean, dtype=np.float32), 0.3352 * spread, 5.5 * spread / 127)


def encode(
    rows: Embeddings,
    first: int,
    mean: npt.NDArray[np.float32],
    packed4: npt.NDArray[np.uint8],
    codes8: npt.NDArray[np.uint8],
    e4: npt.NDArray[np.float32],
    e8: npt.NDArray[np.float32],
    stats: npt.NDArray[np.float64],
) -> None:
    """Code rows ``first…`` of a segment, as ``facedex_encode`` in ``kernels/engine.c`` does."""
    wide = len(mean)
    view4 = packed4.reshape(-1, wide // 8, BLOCK, 4)
    view8 = codes8.reshape(-1, wide)
    step4, step8 = np.float32(stats[STEP4]), np.float32(stats[STEP8])
    for start in range(0, len(rows), 8192):
        x = rotate(rows[start : start + 8192]) - mean
        at = np.arange(first + start, first + start + len(x))
        c4 = np.clip(np.floor(x / step4) + 8, 0, 15)
        c8 = np.clip(np.floor(x / step8 + np.float32(0.5)), -127, 127)
        view8[at] = (c8 + 128).astype(np.uint8)
        pairs = c4.astype(np.uint8).reshape(len(x), wide // 8, 2, 4)
        view4[at // BLOCK, :, at % BLOCK] = pairs[:, :, 0] | pairs[:, :, 1] << 4
        error4 = _length(x - (c4 - np.float32(7.5)) * step4)
        np.maximum.at(e4, at // BLOCK, error4)
        e8[at] = _length(x - c8 * step8)
        stats[NORM4] = max(stats[NORM4], float(_length(c4 - 7.5).max()))
        stats[NORM8] = max(stats[NORM8], float(_length(c8).max()))
        for chunk in range((wide + CHUNK - 1) // CHUNK):
            part = np.square(c8[:, chunk * CHUNK : (chunk + 1) * CHUNK].astype(np.float64)).reshape(len(x), -1, 2, 2)
            lanes = part.sum(axis=(1, 3)).max(axis=0)
            place = LANES + 2 * chunk
            stats[place : place + 2] = np.maximum(stats[place : place + 2], lanes)


def _length(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Length of each row, rounded up over all rounding behind it."""
    lengths: npt.NDArray[np.float32] = np.sqrt(np.einsum("nd,nd->n", x, x)) * np.float32(1.0005) + np.float32(1e-6)
    return lengths


def checksum(data: npt.NDArray[np.uint8]) -> int:
    """A 64-bit checksum of ``(N,)`` bytes, as ``facedex_checksum``: finds flips, swaps and cuts; not cryptographic."""
    total = np.uint64(len(data))
    tail = len(data) % 8
    words = data[: len(data) - tail].view("<u8")
    if tail:
        words = np.append(words, np.frombuffer(data[-tail:].tobytes().ljust(8, b"\0"), dtype="<u8"))
    with np.errstate(over="ignore"):
        for start in range(0, len(words), 65536):
            part = words[start : start + 65536]
            place = np.arange(start, start + len(part), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (part ^ place) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(32)
            total += np.sum(mixed * np.uint64(0x94D049BB133111EB), dtype=np.uint64)
    return int(total)
