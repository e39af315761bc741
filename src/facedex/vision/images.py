"""Whatever a user holds a photo in, turned into upright RGB pixels.

Everything here may come from a stranger. The number of bytes is checked before they are read, the number of pixels
before they are decoded, and only decoders for the formats named below are ever reached.

Pillow decodes, through its reader of the one format that the first bytes name, rather than ``Image.open``: that one
compares sizes with a process-wide ``MAX_IMAGE_PIXELS`` and warns, and neither a global of the host program nor
``warnings`` (whose filters all threads share) can be adjusted here. Limits are an argument instead.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import stat
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, TypeAlias

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

from facedex.errors import (
    ArgumentInvalid,
    PhotoArrayInvalid,
    PhotoError,
    PhotoLinkRefused,
    PhotoNotFound,
    PhotoTooLarge,
    PhotoUnreadable,
)
from facedex.types import Photo, RgbImage
from facedex.vision.links import Fetcher, has_scheme, masked

__all__ = ["Limits", "PhotoInput", "RawPhoto", "load_photo", "read_photo"]

PhotoInput: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | BinaryIO
    | npt.NDArray[np.uint8]
    | npt.NDArray[np.floating]
)
"""What a photo may be given as: a path, a link, a data URL, encoded bytes, a binary file object, or pixels."""

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


_DEFAULT_LIMITS: Final = Limits()
_DEFAULT_FETCHER: Final = Fetcher()


def load_photo(
    source: PhotoInput,
    *,
    bgr: bool = False,
    limits: Limits = _DEFAULT_LIMITS,
    allow_urls: bool = False,
    fetcher: Fetcher = _DEFAULT_FETCHER,
) -> Photo:
    """Read a photo as upright RGB.

    source      a path; encoded bytes; a binary file object, read from where it stands; a ``data:`` URL with base64; an
                http(s) link if ``allow_urls``; or pixels: (H, W, 3), (H, W, 4) with alpha, or (H, W) gray, uint8 or
                floats in 0…1. Encoded: JPEG, PNG, WebP, BMP, TIFF, GIF, PPM, told by content, not by name. Of several
                frames or pages the first is read.
    bgr         the array's channels are blue, green, red (as OpenCV's); no effect on anything else.
    limits      on bytes and pixels, checked before decoding.
    fetcher     how links are fetched.
    Returns     a photo whose pixels cannot be written to, and are no view of the array given.
                Turned upright by EXIF; colour profiles are ignored. What is transparent becomes white, the page that
                cut-out portraits are made for; an alpha channel that hides everything is taken as unused. Gray of 16
                bits is scaled to 8, not clipped; wider integers and floats by the smallest of 1 (floats only), 255,
                65,535 and 2³²−1 that holds their greatest value.
    Raises      PhotoNotFound, PhotoUnreadable, PhotoTooLarge, PhotoArrayInvalid, PhotoLinkRefused, PhotoUnavailable;
                ArgumentInvalid for a source of another kind.
    """
    return read_photo(source, bgr=bgr, limits=limits, allow_urls=allow_urls, fetcher=fetcher).decode()


@dataclass(frozen=True, slots=True, eq=False)
class RawPhoto:
    """A photo's bytes, not decoded yet: enough to know whether it was seen before.

    digest  as of the ``Photo`` it decodes to.
    name    what to call it in messages.
    """

    digest: str
    name: str
    link: str | None
    _content: bytes | RgbImage
    _limits: Limits

    def decode(self) -> Photo:
        """The photo, upright RGB.

        Raises  PhotoUnreadable, PhotoTooLarge.
        """
        content = self._content
        pixels = _decode(content, self.name, self._limits) if isinstance(content, bytes) else content
        return Photo(pixels=pixels, digest=self.digest, link=self.link)


def read_photo(
    source: PhotoInput,
    *,
    bgr: bool = False,
    limits: Limits = _DEFAULT_LIMITS,
    allow_urls: bool = False,
    fetcher: Fetcher = _DEFAULT_FETCHER,
) -> RawPhoto:
    """The first half of ``load_photo``, with its parameters: bytes and digest, nothing decoded.

    Raises  all of ``load_photo``'s but what decoding finds out.
    """
    if isinstance(source, np.ndarray):
        pixels, digest = _from_array(source, bgr, limits)
        return RawPhoto(digest, "the array", None, pixels, limits)
    data, name, link = _read(source, limits, allow_urls, fetcher)
    if not data:
        raise PhotoUnreadable(f"{name} holds 0 bytes.", photo=name)
    return RawPhoto(hashlib.sha256(data).hexdigest(), name, link, data, limits)


# ---------------------------------------------------------------- to bytes


def _read(source: Any, limits: Limits, allow_urls: bool, fetcher: Fetcher) -> tuple[bytes, str, str | None]:
    """The encoded bytes, what to call the photo in messages, and its link."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        size = source.nbytes if isinstance(source, memoryview) else len(source)
        name = "the photo given as bytes"
        _check_bytes(size, name, limits)
        return bytes(source), name, None
    if isinstance(source, str):
        if source[:5].lower() == "data:":
            return _from_data_url(source, limits), "the data URL", None
        if source[:7].lower() == "http://" or source[:8].lower() == "https://":
            name = masked(source)
            if not allow_urls:
                raise PhotoLinkRefused(
                    f"{name} is a link, and links are not followed unless allowed. Set FACEDEX_ALLOW_URLS=true, or "
                    "pass allow_urls=True.",
                    link=name,
                )
            return fetcher.fetch(source, limits.max_bytes), name, source
        if has_scheme(source):
            name = masked(source)
            raise PhotoLinkRefused(
                f"{name} is neither a path nor an http or https link. Give a path for a file.", link=name
            )
    if isinstance(source, (str, os.PathLike)):
        return _from_path(os.fspath(source), limits)
    if hasattr(source, "read"):
        return _from_file_object(source, limits)
    raise ArgumentInvalid(
        f"a photo cannot be read from a {type(source).__name__}. Give a path, bytes, a binary file object, a data URL, "
        "a link, or an array of RGB pixels.",
        argument="source",
        kind=type(source).__name__,
    )


def _from_path(path: str | bytes, limits: Limits) -> tuple[bytes, str, str]:
    path = os.fsdecode(path)
    name = _shown(path)
    try:
        # Looked at before it is opened, as opening a device may do things; and again after, as it may have been
        # exchanged. Non-blocking, as opening a pipe waits for its writer.
        _check_regular(os.stat(path), name)
        opening = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(opening, "rb", buffering=0) as file:
            facts = os.fstat(file.fileno())
            _check_regular(facts, name)
            _check_bytes(facts.st_size, name, limits)
            data = _read_at_most(file, limits.max_bytes + 1)
        _check_bytes(len(data), name, limits)
        return data, name, _shown(os.path.abspath(path))
    except (FileNotFoundError, NotADirectoryError):
        raise PhotoNotFound(f"{name or 'an empty path'} does not exist.", photo=name) from None
    except OSError as error:
        raise PhotoUnreadable(f"{name} cannot be read: {error.strerror or error}.", photo=name) from error
    except ValueError:  # a NUL byte, or characters the file system cannot encode
        raise PhotoNotFound(f"{name} cannot be the name of a file.", photo=name) from None


def _from_file_object(file: Any, limits: Limits) -> tuple[bytes, str, str | None]:
    called = getattr(file, "name", None)
    path = called if isinstance(called, str) and os.path.isfile(called) else None
    name = _shown(path) if path else "the photo in the file object"
    try:
        data = _read_at_most(file, limits.max_bytes + 1)
    except (OSError, ValueError) as error:
        raise PhotoUnreadable(f"{name} cannot be read: {error}.", photo=name) from error
    except TypeError as error:
        raise ArgumentInvalid(f"{name} gives text, not bytes. Open it with mode 'rb'.", argument="source") from error
    if not data:
        raise PhotoUnreadable(
            f"{name} holds 0 bytes from where the file object stands; was it read before?", photo=name
        )
    _check_bytes(len(data), name, limits)
    return data, name, _shown(os.path.abspath(path)) if path else None


def _from_data_url(url: str, limits: Limits) -> bytes:
    head, comma, body = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise PhotoUnreadable("the data URL is not base64; expected 'data:image/jpeg;base64,…'.", photo="the data URL")
    # A sixth for line breaks: the limit must hold before a copy is made.
    if len(body) > limits.max_bytes * 14 // 9 + 8:
        _check_bytes(len(body) * 3 // 4, "the data URL", limits)
    body = "".join(body.split()).rstrip("=")
    _check_bytes(len(body) * 3 // 4, "the data URL", limits)
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise PhotoUnreadable(f"the data URL is not base64: {error}.", photo="the data URL") from error


def _read_at_most(file: Any, size: int) -> bytes:
    """Up to ``size`` bytes; one read may give fewer than it is asked for."""
    chunks: list[bytes] = []
    while size > 0:
        chunk = file.read(size)
        if not chunk:
            break
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise TypeError("not bytes")
        chunks.append(bytes(chunk))
        size -= len(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check_regular(facts: os.stat_result, name: str) -> None:
    if stat.S_ISREG(facts.st_mode):
        return
    kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "a pipe, socket or device"
    raise PhotoNotFound(f"{name} is {kind}, not a file.", photo=name)


def _check_bytes(size: int, name: str, limits: Limits) -> None:
    if size > limits.max_bytes:
        raise PhotoTooLarge(
            f"{name} holds {size:,} bytes or more; the limit is {limits.max_bytes:,}. Nothing was decoded. "
            "Raise Limits(max_bytes=…) if you trust it.",
            photo=name,
            bytes=size,
            max_bytes=limits.max_bytes,
        )


def _check_pixels(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise PhotoTooLarge(
            f"{name} has {width:,} × {height:,} pixels; the limit is {max_pixels:,}. Nothing was decoded. "
            "Raise Limits(max_pixels=…) if you trust it.",
            photo=name,
            width=width,
            height=height,
            max_pixels=max_pixels,
        )


def _shown(path: str) -> str:
    """A path as text that any terminal, JSON or database takes: bytes that are no UTF-8 are written as ``\\udcXX``."""
    return path.encode("utf-8", "backslashreplace").decode()


# ---------------------------------------------------------------- from bytes to pixels


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


def _decode(data: bytes, name: str, limits: Limits) -> RgbImage:
    reader = _reader_of(data)
    if reader is None:
        raise _not_an_image(data, name)
    try:
        if reader is WebPImageFile:
            # Its decoder takes memory for the whole canvas as soon as it is opened.
            _check_pixels(*_webp_size(data), name, limits.max_pixels)
        with reader(io.BytesIO(data)) as image:
            _check_image(image, name, limits)
            image.load()
            pixels = _to_rgb(image)
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
    return pixels


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
    _check_pixels(width, height, name, limits.max_pixels)
    if isinstance(image, TiffImageFile):
        # The TIFF reader applies Pillow's own limit while it decodes, first by a warning: stay below it. And its
        # decoder takes memory for a whole tile, which the header may claim to be larger than the photo.
        _check_pixels(width, height, name, Image.MAX_IMAGE_PIXELS or limits.max_pixels)
        tile = image.tag_v2.get(322, 0), image.tag_v2.get(323, 0)
        if all(isinstance(side, int) for side in tile):
            _check_pixels(*tile, name, limits.max_pixels)
    if image.tile and (most := _SLOW_CODECS.get(image.tile[0][0])) is not None:
        _check_pixels(width, height, f"{name}, encoded in a rare and slow way,", min(limits.max_pixels, most))


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
                return int(struct.unpack_from(order + {1: "B", 3: "H", 4: "I"}[kind], tiff, entry + 8)[0])
    except (KeyError, ValueError, struct.error):
        pass
    return 1


# ---------------------------------------------------------------- from arrays


def _from_array(array: npt.NDArray[Any], bgr: bool, limits: Limits) -> tuple[RgbImage, str]:
    """Pixels and digest."""
    shape, dtype = array.shape, array.dtype

    def invalid(what: str) -> PhotoArrayInvalid:
        return PhotoArrayInvalid(
            f"array of shape {shape} and dtype {dtype} {what}; expected (H, W, 3), (H, W, 4) or (H, W), "
            "uint8 or float in 0…1.",
            shape=shape,
            dtype=str(dtype),
        )

    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise invalid("is not one photo")
    if array.size == 0:
        raise invalid("has no pixels")
    if dtype != np.uint8 and dtype.kind != "f":
        raise invalid("does not hold pixel values we know the range of")
    _check_pixels(shape[1], shape[0], f"the array of shape {shape}", limits.max_pixels)
    values = np.asarray(array)
    if dtype != np.uint8:
        least, greatest = values.min(), values.max()
        if not np.isfinite(least) or not np.isfinite(greatest):  # both are NaN if any value is
            raise invalid("holds NaN or infinite values")
        if least < 0 or greatest > 1:
            raise invalid(f"holds values from {least:g} to {greatest:g}")
        values = np.rint(values * np.float32(255)).astype(np.uint8)
    pixels = _three_channels(values, bgr)
    pixels.flags.writeable = False
    digest = hashlib.sha256(repr(pixels.shape).encode() + b"\n")
    digest.update(pixels.data)
    return pixels, digest.hexdigest()


def _three_channels(values: npt.NDArray[np.uint8], bgr: bool) -> RgbImage:
    """A new contiguous (H, W, 3) RGB array."""
    pixels = np.empty((*values.shape[:2], 3), np.uint8)
    if values.ndim == 2:
        pixels[:] = values[:, :, None]
        return pixels
    colours = values[:, :, :3]
    pixels[:] = colours[:, :, ::-1] if bgr and colours.shape[2] == 3 else colours
    if values.shape[2] == 4:
        alpha = values[:, :, 3:]
        if alpha.any():
            pixels[:] = (pixels * np.float32(1 / 255) * alpha + (255 - alpha) + np.float32(0.5)).astype(np.uint8)
    return pixels
