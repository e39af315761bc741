"""Toy faces for tests: embeddings of four numbers, people named Ann and Bob. Needs nothing but NumPy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from facedex.stores.contract import PhotoRecord
from facedex.types import Box, EmbeddingSpace, Metadata, Template

__all__ = ["OTHER_SPACE", "SPACE", "digest", "face", "photo", "same_template", "unit"]

SPACE = EmbeddingSpace("toy", "1", "0" * 64, 4, "none")
"""Embeddings short enough to read."""

OTHER_SPACE = EmbeddingSpace("toy", "2", "0" * 64, 4, "none")
"""Another model's: same dimension, another meaning."""


def unit(*numbers: float) -> Any:
    """``(4,)`` float32 of L2 norm 1, in the direction of the numbers given; missing ones are 0."""
    embedding = np.zeros(4, np.float32)
    embedding[: len(numbers)] = numbers
    return embedding / np.float32(np.linalg.norm(embedding.astype(np.float64)))


def digest(name: str) -> str:
    """The digest of a photo of that name."""
    return hashlib.sha256(name.encode()).hexdigest()


def face(
    photo: str = "ann.jpg",
    label: str | None = "Ann",
    at: float = 10.0,
    towards: Sequence[float] = (1.0, 2.0, 3.0),
    metadata: Metadata | None = None,
    link: str | None = None,
    space: EmbeddingSpace = SPACE,
) -> Template:
    """A template of a face.

    at       pixels, left and top edge of its box: another place is another face.
    towards  direction of its embedding.
    """
    landmarks = (np.arange(10, dtype=np.float32).reshape(5, 2) / 3 + np.float32(at)).astype(np.float32)
    return Template(
        photo_digest=digest(photo),
        box=Box(at, at, at + 30.25, at + 40.125),
        landmarks=landmarks,
        detection_score=0.875,
        embedding=unit(*towards),
        space_id=space.id,
        link=f"/photos/{photo}" if link is None else link,
        label=label,
        metadata=metadata or {},
    )


def photo(name: str, *faces: Template) -> PhotoRecord:
    """What an enrollment hands over for one photo."""
    return PhotoRecord(digest(name), faces)


def same_template(a: Template, b: Template) -> bool:
    """Whether two templates agree in everything, bit by bit."""
    return (
        (a.photo_digest, a.space_id, a.link, a.label, a.detection_score)
        == (b.photo_digest, b.space_id, b.link, b.label, b.detection_score)
        and tuple(a.box) == tuple(b.box)
        and a.landmarks.tobytes() == b.landmarks.tobytes()
        and a.embedding.dtype == b.embedding.dtype == np.float32
        and a.embedding.tobytes() == b.embedding.tobytes()
        and {k: (type(v), v) for k, v in a.metadata.items()} == {k: (type(v), v) for k, v in b.metadata.items()}
    )
