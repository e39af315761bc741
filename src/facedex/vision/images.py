"""Whatever a user holds a photo in, turned into upright RGB pixels.

Everything here may come from a stranger. The number of bytes is checked before they are read, the number of pixels
before they are decoded (``decoding``), and only decoders for the formats named there are ever reached.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from facedex.errors import (
    ArgumentInvalid,
    PhotoArrayInvalid,
    PhotoLinkRefused,
    PhotoNotFound,
    PhotoTooLarge,
    PhotoUnreadable,
)
from facedex.types import Photo, RgbImage
from facedex.vision.decoding import Limits, check_pixels, decode, measure_jpeg
from facedex.vision.levels import Levels
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
        pixels = decode(content, self.name, self._limits) if isinstance(content, bytes) else content
        return Photo(pixels=pixels, digest=self.digest, link=self.link)

    def levels(self) -> Levels:
        """The photo at several sizes: of a JPEG, none is decoded before it is asked for.

        Raises  as ``decode``; for a JPEG, so does asking.
        """
        content, name, limits = self._content, self.name, self._limits
        extent = measure_jpeg(content, name, limits) if isinstance(content, bytes) else None
        if extent is None or not isinstance(content, bytes):
            return Levels.of(self.decode().pixels)
        return Levels(extent.width, extent.height, lambda factor: decode(content, name, limits, factor), extent.origin)


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


def _shown(path: str) -> str:
    """A path as text that any terminal, JSON or database takes: bytes that are no UTF-8 are written as ``\\udcXX``."""
    return path.encode("utf-8", "backslashreplace").decode()


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
    check_pixels(shape[1], shape[0], f"the array of shape {shape}", limits.max_pixels)
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
