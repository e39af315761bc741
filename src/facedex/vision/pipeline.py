"""The way from photos to embedded faces: detect → align → embed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np

from facedex.errors import DegenerateLandmarks
from facedex.models import weights
from facedex.settings import Settings
from facedex.types import EmbeddingSpace, Face, RgbImage
from facedex.vision.alignment import align_face
from facedex.vision.detectors import Detector, load_detector
from facedex.vision.embedders import Embedder, load_embedder


class FacePipeline:
    """A detector and an embedder, working together. As safe from many threads as they are."""

    def __init__(self, detector: Detector, embedder: Embedder) -> None:
        self.detector = detector
        self.embedder = embedder

    @classmethod
    def load(cls, settings: Settings | None = None, *, progress: weights.Progress | None = None) -> Self:
        """The detector and embedder of the settings, with the weights in the cache, fetched into it if need be.

        settings  names, folder, threads, and whether fetching is allowed; None: from the environment. Nothing is
                  fetched into a folder that was named: only ``facedex models pull`` does that.
        Raises    ModelUnknown; ArgumentInvalid for a model of another task; as ``weights.ensure`` and ``Model.load``.
        """
        chosen = settings if settings is not None else Settings.from_environment()
        fetch = not chosen.offline and chosen.models_dir is None
        place, threads = chosen.models_dir, chosen.threads
        return cls(
            load_detector(chosen.detector, place, fetch=fetch, threads=threads, progress=progress),
            load_embedder(chosen.embedder, place, fetch=fetch, threads=threads, progress=progress),
        )

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space of ``faces``."""
        return self.embedder.space

    def detect(self, images: Sequence[RgbImage]) -> list[list[Face]]:
        """The faces of each image, largest first, without embeddings; nothing is dropped.

        images  each (H, W, 3) uint8, RGB, upright.
        Raises  PhotoArrayInvalid.
        """
        return self.detector.detect(images)

    def faces(self, images: Sequence[RgbImage]) -> list[list[Face]]:
        """The faces of each image, largest first, with embeddings; all faces of all images embedded in one batch.

        A face whose landmarks cannot be aligned (``DegenerateLandmarks``) is left out: it has no embedding, and the
        others should not suffer for it. An image without faces gives an empty list, never an embedding of the whole.

        images  each (H, W, 3) uint8, RGB, upright.
        Raises  PhotoArrayInvalid, EmbeddingInvalid.
        """
        crops: list[RgbImage] = []
        owners: list[tuple[int, Face]] = []
        for index, faces in enumerate(self.detect(images)):
            for face in faces:
                try:
                    crops.append(align_face(images[index], face.landmarks, self.embedder.size, self.embedder.alignment))
                except DegenerateLandmarks:
                    continue
                owners.append((index, face))
        result: list[list[Face]] = [[] for _ in images]
        if not crops:
            return result
        embeddings = self.embedder.embed(np.stack(crops))
        for (index, face), embedding in zip(owners, embeddings, strict=True):
            result[index].append(replace(face, embedding=embedding))
        return result


def largest(faces: Sequence[Face]) -> Face | None:
    """The face with the largest box, or None of no faces."""
    return max(faces, key=lambda face: (face.box.area, face.detection_score), default=None)
