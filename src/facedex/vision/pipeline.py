"""The way from photos to embedded faces: detect → align → embed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import numpy.typing as npt

from facedex.errors import DegenerateLandmarks
from facedex.models import weights
from facedex.models.contract import check_images
from facedex.models.runtime import Runtime
from facedex.settings import Settings
from facedex.types import EmbeddingSpace, Face, RgbImage
from facedex.vision.alignment import TEMPLATE_SIZE, align_face, similarity_transform
from facedex.vision.closer import look_closer
from facedex.vision.detectors import Detector, load_detector
from facedex.vision.embedders import Embedder, load_embedder
from facedex.vision.levels import Levels
from facedex.vision.quality import assess


class FacePipeline:
    """A detector and an embedder, working together. As safe from many threads as they are.

    look  longer side in pixels that a photo has at least when faces are looked for in it, unless it is smaller itself.
    """

    def __init__(self, detector: Detector, embedder: Embedder, *, look: int = 640) -> None:
        self.detector = detector
        self.embedder = embedder
        self.look = look
        self._crops_are_plain = (embedder.size, embedder.alignment) == (TEMPLATE_SIZE, "arcface")

    @classmethod
    def load(cls, settings: Settings | None = None, *, progress: weights.Progress | None = None) -> Self:
        """The detector and embedder of the settings, with the weights in the cache, fetched into it if need be.

        settings  names, folder, threads, runtime, size to detect at, and whether fetching is allowed; None: from the
                  environment. Nothing is fetched into a folder that was named: only ``facedex models pull`` does that.
        Raises    ModelUnknown; ArgumentInvalid for a model of another task; as ``weights.ensure`` and ``Model.load``.
        """
        chosen = settings if settings is not None else Settings.from_environment()
        fetch = not chosen.offline and chosen.models_dir is None
        folder, threads, size = chosen.models_dir, chosen.threads, chosen.detect_size
        runtime = Runtime(chosen.runtime, chosen.providers)
        return cls(
            load_detector(
                chosen.detector, folder, fetch=fetch, threads=threads, runtime=runtime, bound=size, progress=progress
            ),
            load_embedder(chosen.embedder, folder, fetch=fetch, threads=threads, runtime=runtime, progress=progress),
            look=max(640, size),
        )

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space of ``faces``."""
        return self.embedder.space

    def find(self, photo: Levels, *, small_faces: bool = False) -> list[Face]:
        """The faces of a photo, largest first, without embeddings; in pixels of the whole photo.

        small_faces  look a second time, at the full size: slower by the photo's size, see ``closer``.
        Raises       PhotoUnreadable when the photo turns out to be damaged.
        """
        level = photo.at_least(self.look)
        faces = [level.outward(face) for face in self.detector.detect([level.pixels])[0]]
        return look_closer(self.detector, photo, faces, self.look) if small_faces else faces

    def crops(
        self, photo: Levels, faces: Sequence[Face], most: int | None = None
    ) -> tuple[list[Face], npt.NDArray[np.uint8]]:
        """The first ``most`` faces that can be aligned, with their quality, and (N, size, size, 3) uint8 crops.

        Each is cut from a level at which it need not be enlarged, so a large photo is seldom decoded whole, and a small
        face loses nothing by it. A face whose landmarks cannot be aligned (``DegenerateLandmarks``) is left
        out: it has no embedding, and the others should not suffer for it.

        Raises  PhotoUnreadable when the photo turns out to be damaged.
        """
        kept: list[Face] = []
        crops: list[RgbImage] = []
        size, alignment = self.embedder.size, self.embedder.alignment
        for face in faces:
            if len(kept) == most:
                break
            try:
                scale = float(np.hypot(*similarity_transform(face.landmarks, size, alignment)[:, 0]))
                level = photo.reduced_by(1 / scale)
                points = level.inward(face.landmarks)
                crop = align_face(level.pixels, points, size, alignment)
                # Quality is measured on the crop of one alignment, whatever the embedder wants.
                plain = crop if self._crops_are_plain else align_face(level.pixels, points)
                quality = assess(face, plain, (photo.width, photo.height))
            except DegenerateLandmarks:
                continue
            crops.append(crop)
            kept.append(replace(face, quality=quality))
        return kept, np.stack(crops) if crops else np.zeros((0, size, size, 3), np.uint8)

    def embedded(self, photo: Levels, *, small_faces: bool = False) -> list[Face]:
        """The faces of a photo, largest first, with embeddings and quality: ``find``, ``crops``, the embedder.

        A photo without faces gives an empty list, never an embedding of the whole.
        """
        faces, crops = self.crops(photo, self.find(photo, small_faces=small_faces))
        if not faces:
            return []
        return [replace(face, embedding=row) for face, row in zip(faces, self.embedder.embed(crops), strict=True)]

    def detect(self, images: Sequence[RgbImage]) -> list[list[Face]]:
        """The faces of each image, largest first, without embeddings; nothing is dropped.

        images  each (H, W, 3) uint8, RGB, upright.
        Raises  PhotoArrayInvalid.
        """
        return self.detector.detect(images)

    def faces(self, images: Sequence[RgbImage]) -> list[list[Face]]:
        """The faces of each image, largest first, with embeddings; see ``embedded``.

        images  each (H, W, 3) uint8, RGB, upright.
        Raises  PhotoArrayInvalid, EmbeddingInvalid.
        """
        check_images(images)
        return [self.embedded(Levels.of(image)) for image in images]


def largest(faces: Sequence[Face]) -> Face | None:
    """The face with the largest box, or None of no faces."""
    return max(faces, key=lambda face: (face.box.area, face.detection_score), default=None)
