"""From our photos and faces to DeepFace's dicts: BGR in, boxes as x, y, w, h, the person's own left and right."""

from __future__ import annotations

import logging
import math
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from facedex.deepface.models import DEFAULT_BACKEND, DEFAULT_MODEL, SKIP, check_options, engine_for
from facedex.engine import Engine, no_face_found
from facedex.errors import ArgumentInvalid
from facedex.types import Box, Face, RgbImage
from facedex.vision.levels import Levels

__all__ = ["detectFace", "extract_faces", "represent"]

_log = logging.getLogger("facedex.deepface")

_GRAY: Final = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601, as OpenCV's


def represent(
    img_path: Any,
    model_name: str = DEFAULT_MODEL,
    enforce_detection: bool = True,
    detector_backend: str = DEFAULT_BACKEND,
    align: bool = True,  # noqa: ARG001 - faces are always aligned, see docs/deepface.md
    expand_percentage: int = 0,
    normalization: str = "base",
    anti_spoofing: bool = False,
    max_faces: int | None = None,
    l2_normalize: bool = False,  # noqa: ARG001 - embeddings have norm 1 already
    minmax_normalize: bool = False,
    return_face: bool = False,
) -> Any:
    """The embedding of every face of a photo, largest face first.

    img_path  a path, data URL, binary file object, or pixels as BGR; a list of these or ``(N, H, W, 3)``.
    enforce_detection  False: a photo without a face gives one entry made of the whole photo, with a face_confidence of
              0, as DeepFace does. It is the embedding of no face: use it for crops only.
    max_faces  at most so many of the largest.
    minmax_normalize  the values brought from −1…1 to 0…1.
    return_face  also ``face``: the aligned crop the embedding was made of, ``(S, S, 3)`` float32, BGR 0…1.
    Returns   a list of dicts ``embedding`` (list of floats, norm 1), ``facial_area``, ``face_confidence``; of several
              photos a list of such lists.
    Raises    NoFaceFound, PhotoError, ModelUnknown, ArgumentInvalid.
    """
    check_options(normalization=normalization, anti_spoofing=anti_spoofing)
    engine = engine_for(model_name, detector_backend)
    sources, _ = photos_of(img_path)
    answers = []
    for source in sources:
        photo, faces = embedded(engine, model_name, source, enforce_detection)
        answer = []
        for face in faces[:max_faces]:
            assert face.embedding is not None
            values = (face.embedding + np.float32(1)) / 2 if minmax_normalize else face.embedding
            entry: dict[str, Any] = {
                "embedding": values.tolist(),
                "facial_area": facial_area(face, photo, expand_percentage),
                "face_confidence": round(face.detection_score, 2),
            }
            if return_face:
                (crop,) = engine.pipeline.crops(photo, [face])[1]
                entry["face"] = crop[:, :, ::-1] / np.float32(255)
            answer.append(entry)
        answers.append(answer)
    return answers[0] if len(answers) == 1 else answers


def extract_faces(
    img_path: Any,
    detector_backend: str = DEFAULT_BACKEND,
    enforce_detection: bool = True,
    align: bool = True,
    expand_percentage: int = 0,
    grayscale: bool = False,
    color_face: str = "rgb",
    normalize_face: bool = True,
    anti_spoofing: bool = False,
) -> Any:
    """Every face of a photo, cut out, largest first.

    img_path  as of ``represent``.
    enforce_detection  False: a photo without a face comes back whole, with a confidence of 0.
    align     turned so that the eyes are level; outside the photo is black.
    expand_percentage  by how much the box is widened.
    color_face  ``"rgb"``, ``"bgr"`` or ``"gray"``; ``grayscale=True`` is the old way to say the last.
    normalize_face  float64 in 0…1, otherwise uint8.
    Returns   a list of dicts ``face``, ``facial_area``, ``confidence``; of several photos a list of such lists.
    Raises    NoFaceFound, PhotoError, ModelUnknown, ArgumentInvalid.
    """
    check_options(anti_spoofing=anti_spoofing)
    colour = "gray" if grayscale else color_face
    if colour not in ("rgb", "bgr", "gray"):
        raise ArgumentInvalid(f"color_face is {color_face!r}; expected rgb, bgr or gray.", color_face=color_face)
    sources, several = photos_of(img_path)
    engine = engine_for(DEFAULT_MODEL, detector_backend)
    answers = []
    for source in sources:
        photo, name = opened(engine, source)
        faces = engine.pipeline.find(photo) or _whole(photo, name, DEFAULT_MODEL, enforce_detection, embed=False)
        answers.append(
            [
                {
                    "face": _coloured(
                        cut_out(photo.reduced_by(1).pixels, face, align, expand_percentage), colour, normalize_face
                    ),
                    "facial_area": facial_area(face, photo, expand_percentage),
                    "confidence": round(face.detection_score, 2),
                }
                for face in faces
            ]
        )
    return answers if several else answers[0]


def detectFace(  # noqa: N802 - DeepFace's name
    img_path: Any,
    target_size: tuple[int, int] = (224, 224),
    detector_backend: str = DEFAULT_BACKEND,
    enforce_detection: bool = True,
    align: bool = True,
) -> npt.NDArray[np.float64]:
    """The main face of a photo, resized: what ``extract_faces`` took the place of.

    Returns  ``(*target_size, 3)`` float, RGB 0…1.
    Raises   as ``extract_faces``.
    """
    faces = extract_faces(img_path, detector_backend, enforce_detection, align, normalize_face=False)
    face = faces[0]["face"]
    return np.asarray(Image.fromarray(face).resize(target_size[::-1], Image.Resampling.BILINEAR)) / 255.0


# ---------------------------------------------------------------- shared with the other calls


class Sized(Protocol):
    """A photo as far as its size goes."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...


def photos_of(img: Any) -> tuple[list[Any], bool]:
    """The photos of an argument that may be one or several, and whether it is several."""
    if isinstance(img, (list, tuple)):
        if not img:
            raise ArgumentInvalid("the list of photos is empty; expected at least one.", argument="img_path")
        return list(img), True
    if isinstance(img, np.ndarray) and img.ndim == 4:
        return list(img), True
    return [img], False


def opened(engine: Engine, source: Any) -> tuple[Levels, str]:
    """A photo within the limits of the settings, and its name for messages; an array is BGR."""
    raw = engine.read(source, bgr=True)
    return raw.levels(), raw.link or "the photo"


def embedded(engine: Engine, model_name: str, source: Any, enforce: bool) -> tuple[Levels, list[Face]]:
    """A photo and its embedded faces, the very ones that enrolling it gives.

    enforce  False: a photo without a face gives one face, which is the whole photo.
    Raises   NoFaceFound, PhotoError.
    """
    photo, name = opened(engine, source)
    return photo, engine.pipeline.embedded(photo) or _whole(photo, name, model_name, enforce, embed=True)


def _whole(photo: Levels, name: str, model_name: str, enforce: bool, *, embed: bool) -> list[Face]:
    if enforce:
        raise no_face_found(name, photo.width, photo.height)
    _log.info("no face was found in %s; the whole photo stands in for one", name)
    pipeline = engine_for(model_name, SKIP).pipeline
    return pipeline.embedded(photo) if embed else pipeline.find(photo)


def facial_area(face: Face, photo: Sized, expand: int = 0) -> dict[str, Any]:
    """``x``, ``y``, ``w``, ``h`` in whole pixels within the photo; each eye as (x, y), None outside the photo.

    The eyes are the person's own left and right, as DeepFace has them: the left one is on the photo's right.
    """
    image_left, image_right = face.landmarks[0], face.landmarks[1]
    return {
        **xywh(_expanded(face.box, expand), photo.width, photo.height),
        "left_eye": _point(image_right, photo),
        "right_eye": _point(image_left, photo),
    }


def no_facial_area() -> dict[str, None]:
    """What stands in for an area where an embedding was given instead of a photo."""
    return dict.fromkeys(("x", "y", "w", "h", "left_eye", "right_eye"))


def xywh(box: Box, width: float = math.inf, height: float = math.inf) -> dict[str, int]:
    """A box as DeepFace writes it, the part of it within the photo."""
    x, y = max(0, int(box.x1)), max(0, int(box.y1))
    return {"x": x, "y": y, "w": max(0, int(min(box.x2, width)) - x), "h": max(0, int(min(box.y2, height)) - y)}


def cut_out(pixels: RgbImage, face: Face, align: bool, expand: int = 0) -> RgbImage:
    """The face's box, cut out of the photo; turned about its middle so that the eyes are level if ``align``.

    Returns  (h, w, 3) uint8, RGB, at the photo's scale; at least one pixel.
    """
    box = _expanded(face.box, expand)
    if not align or face.detection_score == 0:  # of a whole photo nothing is known that could be level
        x, y, w, h = xywh(box, pixels.shape[1], pixels.shape[0]).values()
        return pixels[y : y + max(h, 1), x : x + max(w, 1)]
    across = face.landmarks[1].astype(np.float64) - face.landmarks[0]
    angle = math.atan2(across[1], across[0])
    cos, sin = math.cos(angle), math.sin(angle)
    width, height = max(1, round(box.width)), max(1, round(box.height))
    middle_x, middle_y = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2
    # Pillow asks for the way back, from a pixel of the crop to one of the photo.
    shift_x = middle_x - cos * width / 2 + sin * height / 2
    shift_y = middle_y - sin * width / 2 - cos * height / 2
    picture = Image.fromarray(pixels).transform(
        (width, height),
        Image.Transform.AFFINE,
        (cos, -sin, shift_x, sin, cos, shift_y),
        resample=Image.Resampling.BILINEAR,
    )
    return np.asarray(picture)


def _expanded(box: Box, percentage: int) -> Box:
    if percentage <= 0:
        return box
    more_x, more_y = box.width * percentage / 200, box.height * percentage / 200
    return Box(box.x1 - more_x, box.y1 - more_y, box.x2 + more_x, box.y2 + more_y)


def _point(point: npt.NDArray[np.float32], photo: Sized) -> tuple[int, int] | None:
    x, y = int(point[0]), int(point[1])
    return (x, y) if 0 <= x < photo.width and 0 <= y < photo.height else None


def _coloured(crop: RgbImage, colour: str, normalize: bool) -> npt.NDArray[Any]:
    pixels: npt.NDArray[Any]
    if colour == "gray":
        pixels = np.rint(crop @ _GRAY).astype(np.uint8)
    else:
        pixels = np.ascontiguousarray(crop[:, :, ::-1] if colour == "bgr" else crop)
    return pixels / 255.0 if normalize else pixels
