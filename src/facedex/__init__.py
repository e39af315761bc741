"""Facedex finds a face among millions: photos in, people out, fast and exact.

import facedex

gallery = facedex.open("faces.db")
gallery.enroll("photos/", label="folder")
for found in gallery.search("who.jpg", k=5):
    for candidate in found.candidates:
        print(candidate)
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

from facedex import errors
from facedex.decide import DecisionPolicy, OperatingPoint
from facedex.engine import Engine, Gallery, Progress
from facedex.errors import FacedexError
from facedex.settings import Settings
from facedex.types import (
    Age,
    Box,
    Candidate,
    EmbeddingSpace,
    EnrollmentReport,
    Face,
    FaceAttributes,
    Found,
    Person,
    Photo,
    Pose,
    Quality,
    Verdict,
    Verification,
    Where,
)

if TYPE_CHECKING:
    from facedex import deepface as DeepFace  # noqa: N812 - as its users call it
    from facedex.vision.images import PhotoInput

__version__ = "0.1.0"

__all__ = [
    "Age",
    "Box",
    "Candidate",
    "DecisionPolicy",
    "DeepFace",
    "EmbeddingSpace",
    "Engine",
    "EnrollmentReport",
    "Face",
    "FaceAttributes",
    "FacedexError",
    "Found",
    "Gallery",
    "OperatingPoint",
    "Person",
    "Photo",
    "Pose",
    "Progress",
    "Quality",
    "Settings",
    "Verdict",
    "Verification",
    "Where",
    "__version__",
    "detect",
    "embed",
    "errors",
    "open",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "DeepFace":  # imported when it is asked for
        from facedex import deepface

        return deepface
    raise AttributeError(f"module 'facedex' has no attribute {name!r}")


@cache
def _engine(detector: str | None = None, embedder: str | None = None) -> Engine:
    return Engine(detector=detector, embedder=embedder)


def open(
    url: str | os.PathLike[str] = "faces.db",
    *,
    create: bool = True,
    detector: str | None = None,
    embedder: str | None = None,
) -> Gallery:
    """A gallery by URL: ``faces.db``, ``sqlite:///faces.db``, ``memory://``.

    create    make it when it is not there; otherwise that raises StoreUnavailable.
    detector, embedder
              names of models (``facedex models list``); None: those of the settings, YuNet and SFace without any.
    Raises    StoreError when it cannot be opened, is damaged, or is not a gallery; ModelUnknown.
    """
    return _engine(detector, embedder).open(url, create=create)


def detect(photo: PhotoInput, *, small_faces: bool = False, bgr: bool = False) -> list[Face]:
    """Every face of a photo, largest first; an empty list when there is none.

    small_faces  look a second time at the full size, for faces below about a fiftieth of the photo's longer side.
    Raises       PhotoError when the photo cannot be used.
    """
    return _engine().detect(photo, small_faces=small_faces, bgr=bgr)


def embed(photo: PhotoInput, *, small_faces: bool = False, bgr: bool = False) -> list[Face]:
    """Every face of a photo with its embedding, ``(128,)`` float32 of norm 1 with the default model, largest first.

    small_faces  as for ``detect``.
    Raises       NoFaceFound; PhotoError when the photo cannot be used.
    """
    return _engine().embed(photo, small_faces=small_faces, bgr=bgr)


def verify(first: PhotoInput, second: PhotoInput, *, bgr: bool = False) -> Verification:
    """Are two photos of one person? Compares the largest face of each.

    Raises  NoFaceFound; PhotoError when a photo cannot be used.
    """
    return _engine().verify(first, second, bgr=bgr)
