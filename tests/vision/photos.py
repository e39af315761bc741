"""Small photos for the tests, made on the spot."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Rgb = npt.NDArray[np.uint8]

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)


def quarters(width: int = 48, height: int = 32) -> Rgb:
    """Red, green / blue, yellow: a picture whose every turn and mirror image is another."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2], pixels[: height // 2, width // 2 :] = RED, GREEN
    pixels[height // 2 :, : width // 2], pixels[height // 2 :, width // 2 :] = BLUE, YELLOW
    return pixels


def texture(width: int = 40, height: int = 30) -> Rgb:
    """Something no codec squeezes to nothing."""
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)


def encoded(picture: Rgb | Image.Image, format: str = "PNG", **options: Any) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def in_every_format(picture: Rgb) -> dict[str, bytes]:
    image = Image.fromarray(picture)
    return {
        "JPEG": encoded(image, "JPEG", quality=95, subsampling=0),
        "progressive JPEG": encoded(image, "JPEG", quality=95, subsampling=0, progressive=True),
        "PNG": encoded(image, "PNG"),
        "WebP": encoded(image, "WEBP", lossless=True),
        "lossy WebP": encoded(image, "WEBP", quality=95),
        "BMP": encoded(image, "BMP"),
        "TIFF": encoded(image, "TIFF"),
        "deflated TIFF": encoded(image, "TIFF", compression="tiff_deflate"),
        "GIF": encoded(image, "GIF"),
        "PPM": encoded(image, "PPM"),
    }


def exif(orientation: int, order: str = "<") -> bytes:
    """EXIF that says nothing but which way is up."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + head + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb(side: int = 20_000) -> bytes:
    """A valid gray PNG of side × side black pixels, in 400 kB for 20,000; written without ever holding the pixels."""
    rows = next(n for n in range(1000, 0, -1) if side % n == 0)
    squeeze = zlib.compressobj(9, wbits=-15)
    block = squeeze.compress(bytes(rows * (side + 1))) + squeeze.flush(zlib.Z_FULL_FLUSH)
    adler32 = side * (side + 1) % 65521 << 16 | 1  # of zeros
    data = b"\x78\xda" + block * (side // rows) + b"\3\0" + struct.pack(">I", adler32)
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def tiled_tiff(side: int, tile: int) -> bytes:
    """A gray, deflated TIFF of side × side pixels that claims tiles of tile × tile; it holds one."""
    body = zlib.compress(bytes(side * side))
    tags = [(256, side), (257, side), (258, 8), (259, 8), (262, 1), (277, 1)]
    tags += [(322, tile), (323, tile), (324, 8), (325, len(body))]
    table = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + table + bytes(4)


def claiming(side: int) -> dict[str, bytes]:
    """Small files of each format whose headers claim side × side pixels."""
    small = {name: bytearray(data) for name, data in in_every_format(quarters()).items()}
    jpeg, bmp, gif, tiff = small["JPEG"], small["BMP"], small["GIF"], small["TIFF"]
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    bmp[18:26] = struct.pack("<II", side, side)
    gif[6:10] = struct.pack("<HH", side, side)
    table = struct.unpack_from("<I", tiff, 4)[0]
    for entry in range(table + 2, table + 2 + 12 * struct.unpack_from("<H", tiff, table)[0], 12):
        tag = struct.unpack_from("<H", tiff, entry)[0]
        if tag in (256, 257):
            struct.pack_into("<HHII", tiff, entry, tag, 4, 1, side)
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    webp_side = min(side, 16_383) - 1
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + 2 * webp_side.to_bytes(3, "little")
    webp = canvas + bytes(small["WebP"][12:])
    return {
        "JPEG": bytes(jpeg),
        "PNG": png + png_chunk(b"IDAT", zlib.compress(bytes(100))) + png_chunk(b"IEND", b""),
        "WebP": b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp,
        "BMP": bytes(bmp),
        "TIFF": bytes(tiff),
        "GIF": bytes(gif),
        "PPM": f"P6 {side} {side} 255\n".encode() + bytes(100),
    }
