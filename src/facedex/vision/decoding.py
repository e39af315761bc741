"""Encoded bytes → upright RGB pixels, of a JPEG also at 1/2, 1/4 and 1/8 of its size.

Pillow decodes, through its reader of the one format that the first bytes name, rather than ``Image.open``: that one
compares sizes with a process-wide ``MAX_IMAGE_PIXELS`` and warns, and neither a global of the host program nor
``warnings`` (whose filters all threads share) can be adjusted here. Limits are an argument instead.

The pixels of a JPEG come from ``simplejpeg`` where it is installed and takes the file without complaint. It runs the
same decoder to the same bits, but straight into the array: a third of the time for whole photos.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from facedex.errors import ArgumentInvalid, PhotoError, PhotoTooLarge, PhotoUnreadable
from facedex.types import RgbImage

simplejpeg: ModuleType | None
try:
    simplejpeg = importlib.import_module("simplejpeg")
except ImportError:  # no wheel for this machine
    simplejpeg = None

__all__ = ["FACTORS", "Extent", "Limits", "check_pixels", "decode", "measure_jpeg"]

FACTORS: Final = (8, 4, 2, 1)
"""By how much a JPEG may be smaller as it is decoded: its blocks are 8 pixels wide."""

_FORMATS: Final = "JPEG, PNG, WebP, BMP, TIFF, GIF and PPM are read"
_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNS: Final = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
"""The same as: rows and columns change places; then columns, then rows are read from the other end."""
_SLOW_CODECS: Final = {"bmp_rle": 4_000_000, "ppm": 500_000}
"""Pixels to which a codec that Pillow runs as a Python loop is allowed: a second or two."""
_STRIP_PIXELS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a photo may cost; checked before anything is decoded.

    max_bytes   encoded bytes. Not for arrays, which are in memory already.
    max_pixels  width × height. 120 million admits the 108-megapixel photos of phones, which take 0.8 to 1.3 GB for
                a moment; a service that strangers send photos to wants less.
    """

    max_bytes: int = 64 << 20
    max_pixels: int = 120_000_000

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels"):
            value = getattr(self, name)
            if value < 1:
                raise ArgumentInvalid(f"Limits({name}={value}): a limit is at least 1.", argument=name, value=value)


def check_pixels(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise PhotoTooLarge(
            f"{name} has {width:,} × {height:,} pixels; the limit is {max_pixels:,}. Nothing was decoded. "
            "Raise Limits(max_pixels=…) if you trust it.",
            photo=name,
            width=width,
            height=height,
            max_pixels=max_pixels,
        )


class _Jpeg(JpegImageFile):
    """Pillow's JPEG reader without its look into EXIF for the resolution: broken EXIF makes that warn or fail."""

    def getexif(self) -> Image.Exif:
        return Image.Exif()


class _Tiff(TiffImageFile):
    """Pillow's TIFF reader, which turns the photo upright as it decodes, without the tags that do not matter here."""

    def getexif(self) -> Image.Exif:
        exif = Image.Exif()
        if (orientation := self.tag_v2.get(_ORIENTATION)) in _UPRIGHT:
            exif[_ORIENTATION] = orientation
        return exif


_READERS: Final[tuple[tuple[bytes, type[ImageFile]], ...]] = (
    (b"\xff\xd8\xff", _Jpeg),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"GIF87a", GifImageFile),
    (b"GIF89a", GifImageFile),
    (b"BM", BmpImageFile),
    (b"II*\0", _Tiff),
    (b"MM\0*", _Tiff),
    (b"II+\0", _Tiff),
    (b"MM\0+", _Tiff),
    (b"P4", PpmImageFile),
    (b"P5", PpmImageFile),
    (b"P6", PpmImageFile),
)


def _reader_of(data: bytes) -> type[ImageFile] | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WebPImageFile
    return next((reader for signature, reader in _READERS if data.startswith(signature)), None)


@dataclass(frozen=True, slots=True)
class Extent:
    """What a JPEG's header says.

    width, height  of the upright photo.
    orientation    EXIF's, 1…8.
    """

    width: int
    height: int
    orientation: int

    def origin(self, factor: int) -> tuple[int, int]:
        """Where the first pixel of the photo decoded at 1/factor begins, in pixels of the upright photo; 0 or less.

        A smaller photo has whole pixels: its last column and row may reach beyond the photo. Turning upright can make
        them the first.
        """
        _, from_right, from_below = _TURNS[self.orientation]
        return (
            -(-self.width % factor) if from_right else 0,
            -(-self.height % factor) if from_below else 0,
        )


def measure_jpeg(data: bytes, name: str, limits: Limits) -> Extent | None:
    """Size and orientation of a JPEG; None for another format.

    Raises  PhotoUnreadable, PhotoTooLarge.
    """
    if _reader_of(data) is not _Jpeg:
        return None
    with _explained(data, name, limits, _Jpeg), _Jpeg(io.BytesIO(data)) as image:
        _check_image(image, name, limits)
        width, height = image.size
        orientation = _orientation(image.info)
    if _TURNS[orientation][0]:
        width, height = height, width
    return Extent(width, height, orientation)


def decode(data: bytes, name: str, limits: Limits, factor: int = 1) -> RgbImage:
    """Upright RGB pixels.

    name    of the photo, for messages.
    factor  one of FACTORS; other than 1 for a JPEG only: pixels are means of as many, in width and height, rounded up.
    Raises  PhotoUnreadable, PhotoTooLarge.
    """
    reader = _reader_of(data)
    if reader is None:
        raise _not_an_image(data, name)
    with _explained(data, name, limits, reader):
        if reader is WebPImageFile:
            # Its decoder takes memory for the whole canvas as soon as it is opened.
            check_pixels(*_webp_size(data), name, limits.max_pixels)
        with reader(io.BytesIO(data)) as image:
            _check_image(image, name, limits)
            if isinstance(image, _Jpeg):
                pixels = _by_simplejpeg(data, image, factor)
                if pixels is not None:
                    return pixels
                if factor > 1:
                    image.draft(None, (max(1, image.width // factor), max(1, image.height // factor)))
            image.load()
            return _to_rgb(image)


@contextlib.contextmanager
def _explained(data: bytes, name: str, limits: Limits, reader: type[ImageFile]) -> Iterator[None]:
    """Whatever a decoder raises, as an error of ours."""
    try:
        yield
    except PhotoError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoTooLarge(
            f"{name} has more pixels than Pillow decodes of {reader.format}: {error} Nothing was decoded.",
            photo=name,
            max_pixels=limits.max_pixels,
        ) from error
    except MemoryError as error:
        raise PhotoUnreadable(f"{name} needs more memory than there is.", photo=name) from error
    except Exception as error:  # whatever a decoder finds to raise over damaged bytes
        seen = str(error) or type(error).__name__
        what = "truncated" if "truncated" in seen.lower() else "damaged or truncated"
        raise PhotoUnreadable(
            f"{name} is a {what} {reader.format} file of {len(data):,} bytes: {seen}.",
            photo=name,
            format=reader.format,
            bytes=len(data),
        ) from error


def _by_simplejpeg(data: bytes, image: _Jpeg, factor: int) -> RgbImage | None:
    """The pixels by the faster way; None where that is not to be had, or has anything to complain about.

    Of a file that it reads otherwise than Pillow nothing is decoded: the limits were checked on what Pillow saw.
    """
    if simplejpeg is None or image.mode not in ("RGB", "L"):
        return None
    width, height = image.size
    wide, high = -(-width // factor), -(-height // factor)
    try:
        if simplejpeg.decode_jpeg_header(data)[:2] != (height, width):
            return None
        pixels: RgbImage = simplejpeg.decode_jpeg(data, "RGB", min_width=wide, min_height=high)
    except (ValueError, RuntimeError):
        return None
    if pixels.shape != (high, wide, 3):
        return None
    transposed, from_right, from_below = _TURNS[_orientation(image.info)]
    if transposed:
        pixels = pixels.transpose(1, 0, 2)
    upright = np.ascontiguousarray(pixels[:: -1 if from_below else 1, :: -1 if from_right else 1])
    upright.flags.writeable = False
    return upright


def _not_an_image(data: bytes, name: str) -> PhotoUnreadable:
    start = data[:16]
    if data[4:8] == b"ftyp":
        return PhotoUnreadable(
            f"{name} is a HEIC, AVIF or video file; {_FORMATS}. Convert it first.", photo=name, start=start
        )
    more = "…" if len(data) > len(start) else ""
    return PhotoUnreadable(
        f"{name} is not an image (starts with {start!r}{more}); {_FORMATS}.", photo=name, start=start
    )


def _check_image(image: ImageFile, name: str, limits: Limits) -> None:
    """The pixel limit, from what the header says."""
    width, height = image.size
    check_pixels(width, height, name, limits.max_pixels)
    if isinstance(image, TiffImageFile):
        # The TIFF reader applies Pillow's own limit while it decodes, first by a warning: stay below it. And its
        # decoder takes memory for a whole tile, which the header may claim to be larger than the photo.
        check_pixels(width, height, name, Image.MAX_IMAGE_PIXELS or limits.max_pixels)
        tile = image.tag_v2.get(322, 0), image.tag_v2.get(323, 0)
        if all(isinstance(side, int) for side in tile):
            check_pixels(*tile, name, limits.max_pixels)
    if image.tile and (most := _SLOW_CODECS.get(image.tile[0][0])) is not None:
        check_pixels(width, height, f"{name}, encoded in a rare and slow way,", min(limits.max_pixels, most))


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP's canvas. Source: RFC 9649, sections 2.5 to 2.7."""
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError(f"a first chunk {kind!r}, which is none of WebP's")


def _to_rgb(image: ImageFile) -> RgbImage:
    """Decoded pixels of any mode → upright (H, W, 3) uint8."""
    turn = _UPRIGHT.get(1 if isinstance(image, TiffImageFile) else _orientation(image.info))
    flat: Image.Image = image
    if image.mode == "F" or image.mode.startswith("I"):
        flat = Image.fromarray(_to_eight_bits(np.asarray(image), image))
    elif image.has_transparency_data:
        flat = _on_white(image)
    elif image.mode != "RGB":
        flat = image.convert("RGB")
    if turn is not None:
        flat = flat.transpose(turn)
    return _pixels_of(flat if flat.mode == "RGB" else flat.convert("RGB"))


def _pixels_of(image: Image.Image) -> RgbImage:
    """The pixels of an RGB image, copied a strip at a time: Pillow's own way holds two more copies of the whole."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    pixels.flags.writeable = False
    return pixels


def _to_eight_bits(values: npt.NDArray[Any], image: ImageFile) -> npt.NDArray[np.uint8]:
    """Gray of 16 or 32 bits, or float, (H, W) → uint8, scaled rather than clipped; below black is black."""
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ValueError("it holds pixels that are not finite numbers")
        ranges = [1.0, 255.0, 65535.0, float(2**32 - 1)]
    else:
        ranges = [255.0, 65535.0, float(2**32 - 1)]
    greatest = float(values.max())
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        bits = image.tag_v2.get(258, (16,)) if isinstance(image, TiffImageFile) else (16,)
        full = 4095.0 if bits == (12,) else 65535.0
    else:
        full = next((limit for limit in ranges if greatest <= limit), greatest)
    scaled = np.multiply(values, np.float32(255.0 / full), dtype=np.float32)
    np.rint(scaled, out=scaled)
    np.clip(scaled, 0, 255, out=scaled)
    eight: npt.NDArray[np.uint8] = scaled.astype(np.uint8)
    return eight


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode != "RGBA":
        image = image.convert("RGBA")
    if image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    page = Image.new("RGB", image.size, (255, 255, 255))
    page.paste(image, mask=image)
    return page


def _orientation(info: dict[str | tuple[int, int], Any]) -> int:
    """EXIF's orientation, 1…8; 1 (upright) when absent or broken.

    Read here, in the one table that holds it: Pillow reads all of EXIF, and warns or fails over parts that matter not.
    Source: CIPA DC-008 (Exif 2.32), section 4.6.4.
    """
    exif = info.get("exif")
    try:
        if not isinstance(exif, bytes):
            # Older PNG writers keep it as hexadecimal text under a heading of three lines.
            exif = bytes.fromhex("".join(str(info["Raw profile type exif"]).split("\n")[3:]))
        tiff = exif.removeprefix(b"Exif\0\0")
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        (table,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, table)
        for entry in range(table + 2, table + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == _ORIENTATION:
                value = int(struct.unpack_from(order + {1: "B", 3: "H", 4: "I"}[kind], tiff, entry + 8)[0])
                return value if value in _TURNS else 1
    except (KeyError, ValueError, struct.error):
        pass
    return 1
