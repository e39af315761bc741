"""Embedders: aligned crops in, unit embeddings out."""

from __future__ import annotations

import os
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from facedex.errors import ModelInvalid
from facedex.models import weights
from facedex.models.catalog import SFACE, ModelCard
from facedex.models.contract import TEMPLATE_SIZE, Embedder, check_crops, unit_rows
from facedex.models.runtime import DEFAULT_RUNTIME, Model, Runtime
from facedex.types import Embeddings, EmbeddingSpace

__all__ = ["Embedder", "SFace"]


class SFace:
    """SFace (Zhong et al. 2021, doi:10.1109/TIP.2020.3048632): 128-d embeddings of 112×112 crops.

    card  of the weights in ``model``; decides the embedding space.
    """

    BATCH: Final = 16
    """Faces in one run. More do not make it faster: the activations of convolutions leave the cache."""

    def __init__(self, model: Model, card: ModelCard = SFACE) -> None:
        self._space = card.space
        self._size = TEMPLATE_SIZE
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
        runtime: Runtime = DEFAULT_RUNTIME,
        progress: weights.Progress | None = None,
    ) -> Self:
        """SFace with the weights of the catalog, fetched if need be and allowed.

        Raises  as ``weights.ensure`` and ``Model.load``.
        """
        return cls(Model.load(weights.ensure(SFACE, models_dir, fetch, progress), threads, runtime=runtime))

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
