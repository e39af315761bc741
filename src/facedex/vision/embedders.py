"""Embedders: aligned crops in, unit embeddings out."""

from __future__ import annotations

import os
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, ModelInvalid
from facedex.models import added, weights
from facedex.models.catalog import SFACE, Crop, ModelCard
from facedex.models.contract import Embedder, check_crops, unit_rows
from facedex.models.runtime import DEFAULT_RUNTIME, Array, Model, Runtime
from facedex.types import Embeddings, EmbeddingSpace

__all__ = ["Embedder", "OnnxEmbedder", "SFace", "load_embedder", "network_input"]


def network_input(crops: npt.NDArray[np.uint8], crop: Crop) -> npt.NDArray[np.float32]:
    """What a network takes: (N, C, size, size) or (N, size, size, C) float32, (x − mean) / std, as its card says.

    crops  (N, size, size, 3) uint8, RGB.
    """
    pixels: npt.NDArray[np.float32] | npt.NDArray[np.uint8] = crops
    mean, std = np.array(crop.mean, np.float32), np.array(crop.std, np.float32)
    if crop.colour == "bgr":
        pixels = crops[..., ::-1]
    elif crop.colour == "gray":  # ITU-R BT.601, as Pillow's "L"
        pixels = (crops.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    if mean.any() or (std != 1).any():
        pixels = (pixels.astype(np.float32) - mean) / std
    if crop.layout == "nchw":
        pixels = pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels, dtype=np.float32)


class OnnxEmbedder:
    """A network from aligned crops to embeddings, as its card describes it: shipped or the user's own.

    card  of the weights in ``model``; its ``crop`` says what goes in, and it decides the embedding space.
    """

    BATCH: Final = 16
    """Faces in one run. More do not make it faster: the activations of convolutions leave the cache."""

    def __init__(self, model: Model, card: ModelCard) -> None:
        if card.crop is None:
            raise ArgumentInvalid(
                f"the card of {card.name!r} does not say what crop of a face it takes", model=card.name
            )
        self._space, self._crop = card.space, card.crop
        size, channels = card.crop.size, card.crop.channels
        expected = (channels, size, size) if card.crop.layout == "nchw" else (size, size, channels)
        takes, gives = [port.shape for port in model.inputs], [port.shape for port in model.outputs]
        fits = len(takes) == 1 and len(takes[0]) == 4 and _agree(takes[0][1:], expected)
        if not fits or len(gives) != 1 or not _agree(gives[0][-1:], (self._space.dimension,)):
            raise ModelInvalid(
                f"{model.path} takes {takes} and gives {gives}; by its card {card.name!r} takes any number of "
                f"{'×'.join(map(str, expected))} and gives as many of {self._space.dimension}. "
                f"{card.remedy}",
                path=str(model.path),
                model=card.name,
            )
        self.model = model
        self._input, self._output = model.inputs[0].name, model.outputs[0].name
        self._batch = takes[0][0] or self.BATCH
        self._fixed = takes[0][0] is not None

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    def size(self) -> int:
        return self._crop.size

    @property
    def alignment(self) -> str:
        return self._crop.alignment

    def embed(self, crops: npt.NDArray[np.uint8]) -> Embeddings:
        """See ``Embedder``."""
        check_crops(crops, self.size)
        rows = np.empty((len(crops), self._space.dimension), np.float32)
        for start in range(0, len(crops), self._batch):
            batch = crops[start : start + self._batch]
            answer = self._run(batch)
            if answer.shape != (len(batch), self._space.dimension):
                raise ModelInvalid(
                    f"{self.model.path.name} gave an array of shape {answer.shape} for {len(batch)} faces; its card "
                    f"says {self._space.dimension} numbers a face",
                    path=str(self.model.path),
                    shape=answer.shape,
                )
            rows[start : start + len(batch)] = answer
        return unit_rows(rows)

    def _run(self, crops: npt.NDArray[np.uint8]) -> Array:
        count = len(crops)
        if self._fixed and count < self._batch:
            crops = np.concatenate([crops, np.zeros((self._batch - count, *crops.shape[1:]), np.uint8)])
        return self.model.run({self._input: network_input(crops, self._crop)})[self._output][:count]


class SFace(OnnxEmbedder):
    """SFace (Zhong et al. 2021, doi:10.1109/TIP.2020.3048632): 128-d embeddings of 112×112 crops."""

    def __init__(self, model: Model, card: ModelCard = SFACE) -> None:
        super().__init__(model, card)

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


def load_embedder(
    name: str = SFACE.name,
    models_dir: str | os.PathLike[str] | None = None,
    *,
    fetch: bool = True,
    threads: int | None = None,
    runtime: Runtime = DEFAULT_RUNTIME,
    progress: weights.Progress | None = None,
) -> OnnxEmbedder:
    """The embedder of that name, of the catalog or added by the user; its weights are fetched if need be and allowed.

    Raises  ModelUnknown, ArgumentInvalid for a model of another task; else as ``weights.ensure`` and ``Model.load``.
    """
    card = added.find(name, models_dir, task="embed")
    return OnnxEmbedder(Model.load(weights.ensure(card, models_dir, fetch, progress), threads, runtime=runtime), card)


def _agree(shape: tuple[int | None, ...], expected: tuple[int, ...]) -> bool:
    return len(shape) == len(expected) and all(s in (None, e) for s, e in zip(shape, expected, strict=True))
