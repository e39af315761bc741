"""What both the picture and the page show: a probe photo, its faces, and crops of their candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from facedex.errors import FacedexError
from facedex.types import Box, Candidate, Found, Photo, Verdict

UNKNOWN_COLOUR = "#57606a"
COLOURS = {
    Verdict.MATCH: "#1a7f37",
    Verdict.REVIEW: "#bf6b00",
    Verdict.NO_MATCH: "#b42318",
    Verdict.NOT_CALIBRATED: UNKNOWN_COLOUR,
}

PhotoLoader = Callable[[str], Photo]


@dataclass(frozen=True, slots=True, eq=False)
class ProbeResult:
    """One probe photo and what was found for each of its faces; ``error`` when it could not be searched."""

    name: str
    photo: Photo | None
    found: tuple[Found, ...] = ()
    error: str | None = None


def said(confidence: float | None) -> str:
    """A confidence in words, empty when there is none."""
    return "" if confidence is None else f"confidence {confidence:.1f} %"


def colour_of(found: Found) -> str:
    return COLOURS[found.best.verdict] if found.best else UNKNOWN_COLOUR


def crop(image: Image.Image, box: Box, size: int, margin: float = 0.35) -> Image.Image:
    """A square around a face, ``size`` pixels a side, with some of its surroundings.

    It is moved and shrunk to stay inside the photo.
    """
    side = max(1.0, min(max(box.width, box.height) * (1 + 2 * margin), *image.size))
    x, y = (
        min(max(middle - side / 2, 0), length - side)
        for middle, length in (((box.x1 + box.x2) / 2, image.width), ((box.y1 + box.y2) / 2, image.height))
    )
    return image.transform((size, size), Image.Transform.EXTENT, (x, y, x + side, y + side), Image.Resampling.BICUBIC)


def candidate_crop(candidate: Candidate, load: PhotoLoader, size: int) -> Image.Image | None:
    """The enrolled face, cut from its photo where that can still be read; galleries keep no pictures."""
    if candidate.photo is None:
        return None
    try:
        return crop(Image.fromarray(load(candidate.photo).pixels), candidate.box, size)
    except FacedexError:
        return None
