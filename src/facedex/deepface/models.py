"""DeepFace's names of models and detectors, and the engines they stand for here."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from facedex.engine import Engine
from facedex.errors import ArgumentInvalid, ModelUnknown
from facedex.models.added import find
from facedex.models.contract import ARCFACE_TEMPLATE, TEMPLATE_SIZE, check_images
from facedex.settings import Settings
from facedex.types import Box, Face, RgbImage
from facedex.vision.pipeline import FacePipeline

__all__ = ["DEFAULT_BACKEND", "DEFAULT_MODEL", "build_model", "check_options", "engine_for"]

DEFAULT_MODEL: Final = "SFace"
"""DeepFace's own default, VGG-Face, has no weights under a licence we could name; see decision 26."""

DEFAULT_BACKEND: Final = "yunet"

SKIP: Final = "skip"

_OTHERWISE: Final[Mapping[str, str]] = {"Dlib": "dlib-resnet"}
"""DeepFace's names that are not ours in small letters."""

_THEIRS: Final = {
    "embed": ("SFace", "Dlib", "Facenet", "VGG-Face", "Facenet512", "OpenFace", "DeepFace", "DeepID", "ArcFace",
              "GhostFaceNet", "Buffalo_L"),
    "detect": ("yunet", "mtcnn", "opencv", "ssd", "dlib", "retinaface", "mediapipe", "centerface", "fastmtcnn"),
}  # fmt: skip
"""What DeepFace calls its models, those we have first; detectors of the YOLO family left out."""

_NORMALIZATIONS: Final = ("base", "raw", "Facenet", "Facenet2018", "VGGFace", "VGGFace2", "ArcFace")

_engines: dict[tuple[str, str], Engine] = {}
_lock = threading.RLock()  # making one engine asks for another


class WholePhoto:
    """What DeepFace calls the detector ``skip``: each photo is taken for a face that was cut out already.

    The landmarks lie where the template has them, spread over the photo; the detection score is 0, for nothing was
    detected.
    """

    def detect(self, images: Sequence[RgbImage]) -> list[list[Face]]:
        """One face for each image; see ``models.contract.Detector``."""
        check_images(images)
        return [[self._face(*image.shape[:2])] for image in images]

    def _face(self, height: int, width: int) -> Face:
        spread = (ARCFACE_TEMPLATE + 0.5) * np.array([width, height], np.float32) / TEMPLATE_SIZE - 0.5
        return Face(Box(0.0, 0.0, float(width), float(height)), spread.astype(np.float32), 0.0)


def engine_for(model_name: str, detector_backend: str) -> Engine:
    """The engine of a model and a detector by DeepFace's names; one for each pair, kept for the process.

    Raises  ModelUnknown for a name that stands for nothing here, and says what to do.
    """
    embedder = _ours(model_name, "embed")
    detector = SKIP if detector_backend == SKIP else _ours(detector_backend, "detect")
    with _lock:
        if (embedder, detector) not in _engines:
            _engines[embedder, detector] = _make(embedder, detector)
        return _engines[embedder, detector]


def build_model(model_name: str = DEFAULT_MODEL, task: str = "facial_recognition") -> Any:
    """Load a model ahead of its first use, and give it.

    task     ``"facial_recognition"`` or ``"face_detector"``.
    Returns  our embedder or detector: calls of DeepFace's model clients are not offered.
    Raises   ModelUnknown, ArgumentInvalid for another task.
    """
    if task == "facial_recognition":
        return engine_for(model_name, DEFAULT_BACKEND).pipeline.embedder
    if task == "face_detector":
        return engine_for(DEFAULT_MODEL, model_name).pipeline.detector
    raise ArgumentInvalid(
        f"task is {task!r}; expected 'facial_recognition' or 'face_detector'. Models of other tasks are loaded by "
        "themselves.",
        task=task,
    )


def check_options(*, normalization: str = "base", anti_spoofing: bool = False) -> None:
    """Refuse what is not offered, rather than pass over it.

    normalization  DeepFace's names are taken and change nothing: a model gets the input it was trained with.
    Raises         ArgumentInvalid; ModelUnknown for anti-spoofing.
    """
    if normalization not in _NORMALIZATIONS:
        raise ArgumentInvalid(
            f"normalization is {normalization!r}; expected one of {', '.join(_NORMALIZATIONS)}.",
            normalization=normalization,
        )
    if anti_spoofing:
        raise ModelUnknown(
            "anti_spoofing=True needs a model that tells a live face from a picture of one, and no weights with a "
            "known licence and a measured error rate are there. Leave it out.",
            model="anti-spoofing",
        )


def _make(embedder: str, detector: str) -> Engine:
    if detector == SKIP:
        return Engine(FacePipeline(WholePhoto(), engine_for(embedder, DEFAULT_BACKEND).pipeline.embedder))
    return Engine(detector=detector, embedder=embedder)


def _ours(name: str, task: str) -> str:
    """The name of our model, shipped or added by the user."""
    parameter = "model_name" if task == "embed" else "detector_backend"
    if not isinstance(name, str):
        raise ArgumentInvalid(f"{parameter} is {name!r}; expected the name of a model.", argument=parameter)
    lower = {theirs.lower(): ours for theirs, ours in _OTHERWISE.items()}
    ours = lower.get(name.lower(), name.lower())
    folder = Settings.from_environment().models_dir
    try:
        return find(ours, folder, task=task).name
    except ModelUnknown:
        pass
    offered = [theirs for theirs in _THEIRS[task] if _is_here(_OTHERWISE.get(theirs, theirs.lower()), folder, task)]
    if name.lower() in (theirs.lower() for theirs in _THEIRS[task]):
        what = f"no weights of {name!r} with a licence that lets anybody use them are known"
    else:
        what = "no model of that name is here"
    raise ModelUnknown(
        f"{parameter}={name!r}: {what}. Take {' or '.join(map(repr, offered))}"
        f"{' or ' + repr(SKIP) if task == 'detect' else ''}; or bring the ONNX file yourself: `facedex models add "
        f"{ours}.onnx --card {ours}.toml`, the card with name = {ours!r} (docs/models.md).",
        model=name,
        known=offered,
    )


def _is_here(name: str, folder: Path | None, task: str) -> bool:
    try:
        return find(name, folder, task=task).name == name
    except (ModelUnknown, ArgumentInvalid):
        return False
