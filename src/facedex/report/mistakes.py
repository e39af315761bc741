"""The worst mistakes as a picture sheet: pairs side by side, lowest genuine above, highest impostor below."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from facedex.errors import ArgumentInvalid, FacedexError
from facedex.report.figures import GENUINE, IMPOSTOR, write_bytes
from facedex.report.picture import fit, font
from facedex.report.result import PhotoLoader, crop
from facedex.study import Evaluation, LabelledFace, Mistake

__all__ = ["draw_mistakes", "pair_picture", "write_mistakes"]

_FACE, _GAP, _TEXT, _COLUMNS = 150, 18, 66, 4


def write_mistakes(path: str | os.PathLike[str], evaluation: Evaluation, load: PhotoLoader) -> None:
    """Draw the sheet to an image file (format by its suffix).

    load    link → photo.
    Raises  OutputUnwritable; ArgumentInvalid for a suffix of no picture format.
    """
    data = io.BytesIO()
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    if kind is None:
        raise ArgumentInvalid(f"{os.fspath(path)} does not end like a picture (.png, .jpg, …).", path=os.fspath(path))
    draw_mistakes(evaluation, load).save(data, kind)
    write_bytes(path, data.getvalue())


def draw_mistakes(evaluation: Evaluation, load: PhotoLoader) -> Image.Image:
    """The sheet as an RGB image."""
    width = _COLUMNS * (2 * _FACE + _GAP) + _GAP
    parts = [
        _part("Same person, least alike", evaluation.lowest_genuine, GENUINE, load, width),
        _part("Different people, most alike", evaluation.highest_impostor, IMPOSTOR, load, width),
    ]
    sheet = Image.new("RGB", (width, sum(part.height for part in parts) + _GAP), "white")
    top = _GAP
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _part(title: str, mistakes: Sequence[Mistake], colour: str, load: PhotoLoader, width: int) -> Image.Image:
    rows = -(-len(mistakes) // _COLUMNS)
    part = Image.new("RGB", (width, 40 + rows * (_FACE + _TEXT)), "white")
    pen = ImageDraw.Draw(part)
    pen.text((_GAP, 6), title, fill=colour, font=font(20))
    for number, mistake in enumerate(mistakes):
        x = _GAP + number % _COLUMNS * (2 * _FACE + _GAP)
        y = 40 + number // _COLUMNS * (_FACE + _TEXT)
        part.paste(pair_picture(mistake, load, _FACE), (x, y))
        pen.rectangle([x, y, x + 2 * _FACE - 1, y + _FACE - 1], outline=colour, width=3)
        pen.text(
            (x, y + _FACE + 4), f"similarity {mistake.similarity:.3f}{_told(mistake)}", fill="#1f2328", font=font(14)
        )
        pen.text((x, y + _FACE + 23), fit(_names(mistake), 40), fill="#57606a", font=font(13))
        files = " · ".join(Path(face.photo or "(no link)").name for face in mistake.faces)
        pen.text((x, y + _FACE + 40), fit(files, 42), fill="#57606a", font=font(12))
    return part


def pair_picture(mistake: Mistake, load: PhotoLoader, size: int) -> Image.Image:
    """Both faces side by side, each ``size`` pixels a side."""
    picture = Image.new("RGB", (2 * size, size), "#eaeef2")
    for place, face in enumerate(mistake.faces):
        cut = _cut(face, load, size)
        if cut is not None:
            picture.paste(cut, (place * size, 0))
        else:
            ImageDraw.Draw(picture).text(
                (place * size + 8, size // 2 - 8), "photo not at hand", fill="#57606a", font=font(13)
            )
    return picture


def _cut(face: LabelledFace, load: PhotoLoader, size: int) -> Image.Image | None:
    if face.photo is None:
        return None
    try:
        return crop(Image.fromarray(load(face.photo).pixels), face.box, size)
    except FacedexError:
        return None


def _told(mistake: Mistake) -> str:
    return "" if mistake.confidence is None else f"  confidence {mistake.confidence:.1f} %"


def _names(mistake: Mistake) -> str:
    first, second = (face.label for face in mistake.faces)
    return first if first == second else f"{first} · {second}"
