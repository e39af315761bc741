"""Embedders: aligned crops in, unit embeddings out."""

from __future__ import annotations

import os
from typing import Final, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from facedex.errors import EmbeddingInvalid, ModelInvalid, PhotoArrayInvalid
from facedex.models import weights
from facedex.models.catalog import SFACE, ModelCard
from facedex.models.runtime import Model
from facedex.types import Embeddings, EmbeddingSpace


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


class SFace:
    """SFace (Zhong et al. 2021, doi:10.1109/TIP.2020.3048632): 128-d embeddings of 112×112 crops.

    card  of the weights in ``model``; decides the embedding space.
    """

    BATCH: Final = 16
    """Faces in one run. More do not make it faster: the activations of convolutions leave the cache."""

    def __init__(self, model: Model, card: ModelCard = SFACE) -> None:
        self._space = card.space
        self._size = 112
        takes, gives = [port.shape for port in model.inputs], [port.shape for port in model.outputs]
        if takes != [(None, 3, self._size, self._size)] or gives != [(None, self._space.dimension)]:
            raise ModelInvalid(
                f"{model.path} takes {takes} and gives {gives}; SFace takes any number of 3×112×112 and gives as many "
                f"of {self._space.dimension}. Use the file of `facedex models pull sface`.",
                path=str(model.path),
            )
        self.model = model
        self._input, self._output = model.inputs[0].name, model.outputs[0].name

    @classmethod
    def load(
        cls,
        models_dir: str | os.PathLike[str] | None = None,
        *,
        fetch: bool = True,
        threads: int | None = None,
        progress: weights.Progress | None = None,
    ) -> Self:
        """SFace with the weights of the catalog, fetched if need be and allowed.

        Raises  as ``weights.ensure`` and ``Model.load``.
        """
        return cls(Model.load(weights.ensure(SFACE, models_dir, fetch, progress), threads))

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    def size(self) -> int:
        return self._size

    def embed(self, crops: npt.NDArray[np.uint8]) -> Embeddings:
        """See ``Embedder``."""
        check_crops(crops, self._size)
        rows = np.empty((len(crops), self._space.dimension), np.float32)
        for start in range(0, len(crops), self.BATCH):
            batch = crops[start : start + self.BATCH]
            blob = np.ascontiguousarray(batch.transpose(0, 3, 1, 2), dtype=np.float32)
            rows[start : start + len(batch)] = self.model.run({self._input: blob})[self._output]
        return unit_rows(rows)
