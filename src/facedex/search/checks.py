"""What every index checks of what it is handed, in the same words."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, DimensionMismatch, EmbeddingInvalid
from facedex.search import codes
from facedex.search.contract import Ids
from facedex.types import Embeddings


def check_rows(embeddings: object, dimension: int, what: str) -> Embeddings:
    """Embeddings as ``(N, D)`` float32, C-contiguous; their length is not looked at, see ``check_unit``.

    what    "Embeddings" or "Probes", for messages.
    Raises  EmbeddingInvalid, DimensionMismatch.
    """
    if not isinstance(embeddings, np.ndarray) or embeddings.dtype != np.float32:
        kind = embeddings.dtype if isinstance(embeddings, np.ndarray) else type(embeddings).__name__
        raise EmbeddingInvalid(f"{what} are {kind}; expected a float32 array of shape (N, D).", dtype=str(kind))
    shape = embeddings.shape
    if len(shape) != 2:
        raise EmbeddingInvalid(f"{what} have shape {shape}; expected (N, D), for one of them (1, D).", shape=shape)
    if shape[1] != dimension:
        raise DimensionMismatch(
            f"{what} have shape {shape}, the index holds ({dimension},). Enroll and search with the same model.",
            shape=shape,
            dimension=dimension,
        )
    flags = embeddings.flags
    if flags.c_contiguous and flags.aligned and embeddings.dtype.isnative:
        return embeddings
    return np.ascontiguousarray(embeddings, dtype=np.dtype(np.float32))


def check_unit(embeddings: Embeddings, what: str) -> None:
    """Every row is finite and of length 1, within ``codes.UNIT_TOLERANCE``.

    what    "Embedding" or "Probe", for the message.
    Raises  EmbeddingInvalid.
    """
    bad = codes.first_not_unit(embeddings)
    if bad >= 0:
        raise not_unit(bad, embeddings[bad], what)


def not_unit(row: int, embedding: npt.NDArray[np.float32], what: str) -> EmbeddingInvalid:
    with np.errstate(all="ignore"):
        length = float(np.sqrt(np.sum(np.square(embedding, dtype=np.float64))))
    return EmbeddingInvalid(
        f"{what} {row} has length {length:.4g}; expected finite values of length 1. Normalize embeddings first.",
        row=row,
        length=length,
    )


def as_ids(ids: Any, *, negative: bool = False) -> Ids:
    """Ids as ``(N,)`` int64, contiguous.

    negative  whether negative ones are let through: nothing has them, so a filter may name them.
    Raises    ArgumentInvalid.
    """
    array = np.asarray(ids) if not isinstance(ids, (set, frozenset)) else np.asarray(list(ids))
    if array.ndim == 0 and array.dtype.kind in "iu":
        array = array[None]
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu" or (array.dtype.kind == "u" and array.max(initial=0) >= 1 << 63):
        raise ArgumentInvalid(
            f"Ids are {array.dtype} of shape {array.shape}; expected whole numbers of shape (N,).", shape=array.shape
        )
    out: Ids = np.ascontiguousarray(array, dtype=np.int64)
    if not negative and out.size and int(out.min()) < 0:
        raise ArgumentInvalid(f"Id {out.min()} is negative; -1 stands for 'none' in answers.", id=int(out.min()))
    return out


def whole(value: Any, name: str) -> int:
    """A whole number of at least 1.

    Raises  ArgumentInvalid.
    """
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 1:
        return int(value)
    raise ArgumentInvalid(f"{name} is {value!r}; expected a whole number of at least 1.", **{name: value})
