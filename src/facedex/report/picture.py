"""A contact sheet: one row a probe face, its best candidates beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from facedex.report.result import COLOURS, PhotoLoader, ProbeResult, candidate_crop, colour_of, crop, said

_PROBE, _FACE, _GAP, _TEXT = 300, 168, 18, 84


def write_picture(
    path: str | os.PathLike[str], results: Sequence[ProbeResult], load: PhotoLoader, *, k: int = 5
) -> None:
    """Draw results to an image file (format by its suffix).

    load  link → photo, to cut out enrolled faces.
    """
    draw_sheet(results, load, k=k).save(path)


def draw_sheet(results: Sequence[ProbeResult], load: PhotoLoader, *, k: int = 5) -> Image.Image:
    """The sheet as an RGB image: probes with their faces boxed at the left, candidate crops at the right."""
    width = _PROBE + (k + 1) * (_FACE + _GAP) + 3 * _GAP
    rows = [_row(result, load, k, width) for result in results]
    sheet = Image.new("RGB", (width, sum(row.height for row in rows) + _GAP), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _row(result: ProbeResult, load: PhotoLoader, k: int, width: int) -> Image.Image:
    lines = max(1, len(result.found))
    height = max(_PROBE + 40, lines * (_FACE + _TEXT)) + 2 * _GAP
    row = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(row)
    pen.line([(_GAP, 0), (width - _GAP, 0)], fill="#d0d7de", width=1)
    left = 2 * _GAP + _PROBE
    if result.photo is None:
        pen.text((_GAP, _GAP), f"{result.name}\n{result.error}", fill="#b42318", font=font(15))
        return row
    probe = boxed(result, _PROBE)
    row.paste(probe, (_GAP + (_PROBE - probe.width) // 2, _GAP))
    pen.text(
        (_GAP, _GAP + probe.height + 4),
        fit(result.name.replace("\\", "/").rpartition("/")[2], 40),
        fill="#24292f",
        font=font(13),
    )
    if result.error:
        pen.text((left, _GAP), result.error, fill="#b42318", font=font(15))
    image = Image.fromarray(result.photo.pixels)
    for line, found in enumerate(result.found):
        top = _GAP + line * (_FACE + _TEXT)
        face = crop(image, found.face.box, _FACE)
        row.paste(face, (left, top))
        pen.rectangle([left, top, left + _FACE, top + _FACE], outline=colour_of(found), width=3)
        pen.text((left, top + _FACE + 4), "probe", fill="#57606a", font=font(13))
        for place, candidate in enumerate(found.candidates[:k], 1):
            x = left + place * (_FACE + _GAP)
            colour = COLOURS[candidate.verdict]
            enrolled = candidate_crop(candidate, load, _FACE)
            if enrolled is not None:
                row.paste(enrolled, (x, top))
            else:
                pen.text((x + 10, top + _FACE // 2), "photo not at hand", fill="#57606a", font=font(13))
            pen.rectangle([x, top, x + _FACE, top + _FACE], outline=colour, width=3)
            pen.text((x, top + _FACE + 4), fit(candidate.label or "(no label)", 22), fill="#24292f", font=font(14))
            pen.text(
                (x, top + _FACE + 24),
                f"similarity {candidate.similarity:.3f}\n{said(candidate.confidence)}",
                fill="#57606a",
                font=font(13),
            )
            pen.text((x, top + _FACE + 60), str(candidate.verdict), fill=colour, font=font(14))
    return row


def boxed(result: ProbeResult, side: int) -> Image.Image:
    """The probe photo, ``side`` pixels long, each face boxed in the colour of its verdict."""
    assert result.photo is not None
    image = Image.fromarray(result.photo.pixels)
    scale = side / max(image.size)
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), reducing_gap=2.0)
    pen = ImageDraw.Draw(small)
    for found in result.found:
        pen.rectangle([v * scale for v in found.face.box], outline=colour_of(found), width=max(2, side // 150))
    return small


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own, of this height in pixels."""
    return ImageFont.load_default(size)


def fit(text: str, length: int) -> str:
    """The end of a text that is too long."""
    return text if len(text) <= length else "…" + text[-length + 1 :]
