"""Photos in: every way to hand one over, every mode, every limit, and what strangers send."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import struct
import subprocess
import sys
import textwrap
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from photos import (
    BLUE,
    GREEN,
    RED,
    YELLOW,
    claiming,
    encoded,
    exif,
    in_every_format,
    png_bomb,
    png_chunk,
    quarters,
    texture,
    tiled_tiff,
)
from PIL import Image

from facedex.errors import (
    ArgumentInvalid,
    FacedexError,
    PhotoArrayInvalid,
    PhotoLinkRefused,
    PhotoNotFound,
    PhotoTooLarge,
    PhotoUnreadable,
)
from facedex.vision.images import Limits, load_photo

FORMATS = sorted(in_every_format(quarters()))
ORIENTED = {  # how EXIF says the stored picture lies → how to store an upright one so
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


def corners(pixels):
    """The colours of the four quarters, each channel rounded to 0 or 255 or what lies between."""
    height, width = pixels.shape[:2]
    y, x = height // 4, width // 4
    places = (y, x), (y, width - x - 1), (height - y - 1, x), (height - y - 1, width - x - 1)
    return [tuple(255 if v > 235 else 0 if v < 20 else int(v) for v in pixels[place]) for place in places]


# ---- what a photo may be given as


def test_a_path_gives_the_absolute_path_as_link(tmp_path, monkeypatch):
    data = encoded(quarters())
    (tmp_path / "ann.png").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    for source in ("ann.png", Path("ann.png"), str(tmp_path / "ann.png")):
        photo = load_photo(source)
        assert photo.link == str(tmp_path / "ann.png")
        assert photo.digest == hashlib.sha256(data).hexdigest()
        assert np.array_equal(photo.pixels, quarters())
        assert (photo.width, photo.height) == (48, 32)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_bytes_have_no_link(kind):
    photo = load_photo(kind(encoded(quarters())))
    assert photo.link is None
    assert np.array_equal(photo.pixels, quarters())


def test_a_file_object_gives_its_name_as_link_and_is_read_from_where_it_stands(tmp_path):
    path = tmp_path / "ann.png"
    path.write_bytes(b"prefix" + encoded(quarters()))
    with path.open("rb") as file:
        file.seek(6)
        photo = load_photo(file)
    assert photo.link == str(path)
    assert photo.digest == hashlib.sha256(encoded(quarters())).hexdigest()


def test_a_file_object_that_gives_a_little_at_a_time_is_read_to_its_end():
    class Dripping(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 100))

    assert np.array_equal(load_photo(Dripping(encoded(texture()))).pixels, texture())


def test_a_file_object_that_was_read_before_says_so():
    file = io.BytesIO(encoded(quarters()))
    file.read()
    with pytest.raises(PhotoUnreadable, match="0 bytes from where the file object stands"):
        load_photo(file)


def test_a_closed_file_object_is_unreadable_and_a_text_file_is_a_mistake():
    file = io.BytesIO(encoded(quarters()))
    file.close()
    with pytest.raises(PhotoUnreadable, match="closed"):
        load_photo(file)
    with pytest.raises(ArgumentInvalid, match="'rb'"):
        load_photo(io.StringIO("no photo"))


@pytest.mark.parametrize("head", ["data:image/png;base64,", "DATA:;base64,", "data:image/jpeg;name=x;base64,"])
def test_a_data_url_is_a_photo(head):
    data = encoded(quarters())
    text = base64.encodebytes(data).decode()
    for body in (text, text.replace("\n", ""), text.strip().rstrip("=")):
        photo = load_photo(head + body)
        assert photo.link is None
        assert photo.digest == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("url", ["data:image/png,abc", "data:", "data:;base64,§§§", "data:;base64,A", "data:;base64,é"])
def test_a_data_url_that_is_not_base64_is_unreadable(url):
    with pytest.raises(PhotoUnreadable, match="not base64"):
        load_photo(url)


def test_a_data_url_of_nothing_holds_zero_bytes():
    with pytest.raises(PhotoUnreadable, match="holds 0 bytes"):
        load_photo("data:image/png;base64,")


@pytest.mark.parametrize("source", [None, 3, 2.5, object(), ["a.jpg"], {"a": 1}])
def test_what_can_be_no_photo_is_an_invalid_argument(source):
    with pytest.raises(ArgumentInvalid, match=type(source).__name__):
        load_photo(source)


def test_a_link_is_refused_unless_allowed_and_its_password_is_not_shown():
    with pytest.raises(PhotoLinkRefused, match="allow_urls=True") as caught:
        load_photo("https://ann:secret@example.org/ann.jpg")
    assert "secret" not in str(caught.value) + str(caught.value.details)


@pytest.mark.parametrize("link", ["file:///etc/passwd", "ftp://example.org/a.jpg", "s3://bucket/a.jpg"])
def test_links_of_other_kinds_are_refused_even_when_links_are_allowed(link):
    with pytest.raises(PhotoLinkRefused, match="http"):
        load_photo(link, allow_urls=True)


# ---- formats and modes


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_picture(name):
    pixels = load_photo(in_every_format(quarters())[name]).pixels
    assert pixels.shape == (32, 48, 3)
    assert pixels.dtype == np.uint8
    assert corners(pixels) == [RED, GREEN, BLUE, YELLOW]


def test_pixels_of_lossless_formats_are_exact_whatever_their_size():
    for shape in ((1, 1), (3, 1), (1, 1500), (1100, 1000)):
        picture = texture(*shape)
        assert np.array_equal(load_photo(encoded(picture)).pixels, picture)


def test_a_format_is_told_by_content_not_by_name(tmp_path):
    path = tmp_path / "ann.jpg"
    path.write_bytes(encoded(quarters(), "WEBP", lossless=True))
    assert np.array_equal(load_photo(path).pixels, quarters())


def test_of_a_moving_gif_and_a_long_tiff_the_first_picture_is_read():
    first, second = Image.fromarray(quarters()), Image.new("RGB", (48, 32))
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        data = encoded(
            first, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {})
        )
        assert corners(load_photo(data).pixels) == [RED, GREEN, BLUE, YELLOW], kind


@pytest.mark.parametrize(
    ("mode", "format"),
    [("L", "PNG"), ("L", "JPEG"), ("1", "PNG"), ("1", "TIFF"), ("1", "BMP"), ("LA", "PNG"), ("L", "GIF"), ("L", "PPM")],
)
def test_gray_becomes_three_equal_channels(mode, format):
    gray = Image.fromarray(quarters()[:, :, 0]).convert(mode)  # left upper and right lower white, the others black
    assert corners(load_photo(encoded(gray, format)).pixels) == [(255,) * 3, (0,) * 3, (0,) * 3, (255,) * 3]


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_ink_colours_become_light_colours(format):
    cmyk = encoded(Image.fromarray(quarters()).convert("CMYK"), format)
    assert corners(load_photo(cmyk).pixels) == [RED, GREEN, BLUE, YELLOW]


def test_a_palette_is_looked_up():
    palette = Image.fromarray(quarters()).quantize(4)
    for format in ("PNG", "GIF", "BMP", "TIFF"):
        assert corners(load_photo(encoded(palette, format)).pixels) == [RED, GREEN, BLUE, YELLOW]


def test_sixteen_bit_gray_is_scaled_not_clipped():
    values = np.array([[0, 128, 257, 32768, 40000, 65535]], np.uint16)
    gray = Image.fromarray(values)
    expected = [0, 0, 1, 128, 156, 255]
    for data in (encoded(gray, "PNG"), encoded(gray, "TIFF"), b"P5 6 1 65535\n" + values.astype(">u2").tobytes()):
        assert load_photo(data).pixels[0, :, 0].tolist() == expected
        assert load_photo(data).pixels[0, :, 2].tolist() == expected


def test_a_dark_sixteen_bit_photo_stays_dark():
    gray = Image.fromarray(np.full((4, 4), 1028, np.uint16))
    assert load_photo(encoded(gray, "PNG")).pixels.max() == 4


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 0, 255]),
    ],
)
def test_a_float_tiff_is_scaled_by_the_range_its_values_show(values, expected):
    data = encoded(Image.fromarray(np.array([values], np.float32)), "TIFF")
    assert load_photo(data).pixels[0, :, 1].tolist() == expected


def test_a_float_tiff_with_nan_is_unreadable():
    data = encoded(Image.fromarray(np.array([[0, np.nan]], np.float32)), "TIFF")
    with pytest.raises(PhotoUnreadable, match="not finite"):
        load_photo(data)


def test_what_is_transparent_becomes_white():
    rgba = np.dstack([quarters(), np.full((32, 48), 255, np.uint8)])
    rgba[:16, :24, 3] = 0
    rgba[:16, 24:, 3] = 128
    for format in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if format == "WEBP" else {}
        seen = corners(load_photo(encoded(Image.fromarray(rgba), format, **options)).pixels)
        assert seen == [(255, 255, 255), (127, 255, 127), BLUE, YELLOW], format
    assert corners(load_photo(rgba).pixels) == [(255, 255, 255), (127, 255, 127), BLUE, YELLOW]


def test_a_transparent_palette_entry_becomes_white():
    palette = Image.fromarray(quarters()).quantize(4)
    red = palette.getpixel((0, 0))
    for format in ("PNG", "GIF"):
        seen = corners(load_photo(encoded(palette, format, transparency=red)).pixels)
        assert seen == [(255, 255, 255), GREEN, BLUE, YELLOW]
    alphas = bytes(0 if i == red else 255 for i in range(4))
    assert corners(load_photo(encoded(palette, "PNG", transparency=alphas)).pixels)[0] == (255, 255, 255)


def test_a_transparent_colour_of_an_rgb_png_becomes_white():
    assert corners(load_photo(encoded(quarters(), "PNG", transparency=RED)).pixels)[0] == (255, 255, 255)


def test_an_alpha_that_hides_everything_is_taken_as_unused():
    rgba = np.dstack([quarters(), np.zeros((32, 48), np.uint8)])
    assert corners(load_photo(encoded(Image.fromarray(rgba))).pixels) == [RED, GREEN, BLUE, YELLOW]
    assert corners(load_photo(rgba).pixels) == [RED, GREEN, BLUE, YELLOW]


# ---- which way is up


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "deflated TIFF"])
def test_exif_turns_the_photo_upright(orientation, format):
    stored = Image.fromarray(np.ascontiguousarray(ORIENTED[orientation](quarters())))
    tags = Image.Exif()
    tags[0x0112] = orientation
    options = {"exif": tags} if "TIFF" not in format else {"tiffinfo": {0x0112: orientation}}
    if format == "deflated TIFF":
        options["compression"] = "tiff_deflate"
    photo = load_photo(encoded(stored, format.split()[-1], **options))
    assert (photo.width, photo.height) == (48, 32)
    assert corners(photo.pixels) == [RED, GREEN, BLUE, YELLOW]


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_of_both_byte_orders_is_read(order):
    stored = np.ascontiguousarray(ORIENTED[6](quarters()))
    assert corners(load_photo(encoded(stored, "JPEG", exif=exif(6, order))).pixels) == [RED, GREEN, BLUE, YELLOW]


def test_a_sixteen_bit_photo_is_turned_too():
    stored = Image.fromarray(np.array([[0, 65535]], np.uint16))
    tags = Image.Exif()
    tags[0x0112] = 6
    assert load_photo(encoded(stored, "PNG", exif=tags)).pixels[:, 0, 0].tolist() == [0, 255]


def test_older_png_exif_in_text_is_read():
    raw = exif(6)
    text = f"\nexif\n{len(raw):8}\n{raw.hex()}\n"
    data = encoded(np.ascontiguousarray(ORIENTED[6](quarters())))
    body = b"Raw profile type exif\0\0" + zlib.compress(text.encode())
    data = data[:33] + png_chunk(b"zTXt", body) + data[33:]
    assert corners(load_photo(data).pixels) == [RED, GREEN, BLUE, YELLOW]


BROKEN_EXIF = {
    "nothing": b"Exif\0\0",
    "noise": b"Exif\0\0" + bytes(range(256)),
    "cut": exif(6)[:-9],
    "table far outside": b"Exif\0\0II*\0" + struct.pack("<I", 2**32 - 1),
    "too many entries": b"Exif\0\0II*\0" + struct.pack("<IH", 8, 65535) + bytes(24),
    "orientation 0": exif(0),
    "orientation 9": exif(9),
    "orientation as text": exif(6).replace(struct.pack("<HH", 0x0112, 3), struct.pack("<HH", 0x0112, 2)),
    "a sub-table in a circle": b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8769, 4, 1, 8, 8),
    "resolution by zero": b"Exif\0\0II*\0" + struct.pack("<IHHHIIIII", 8, 1, 0x011A, 5, 1, 26, 0, 1, 0),
}


@pytest.mark.parametrize("what", BROKEN_EXIF)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_does_not_kill_a_good_photo(what, format):
    plain = Image.fromarray(quarters())
    if format == "PNG":
        data = encoded(plain)
        data = data[:33] + png_chunk(b"eXIf", BROKEN_EXIF[what][6:]) + data[33:]
    else:
        data = encoded(plain, format, exif=BROKEN_EXIF[what])
    assert corners(load_photo(data).pixels) == [RED, GREEN, BLUE, YELLOW]


# ---- arrays


def test_an_array_is_taken_as_rgb_and_as_bgr_when_said():
    assert np.array_equal(load_photo(quarters()).pixels, quarters())
    assert np.array_equal(load_photo(quarters()[:, :, ::-1], bgr=True).pixels, quarters())
    assert load_photo(quarters()).digest == load_photo(quarters()[:, :, ::-1], bgr=True).digest


def test_bgr_concerns_arrays_only():
    assert np.array_equal(load_photo(encoded(quarters()), bgr=True).pixels, quarters())


def test_gray_alpha_and_float_arrays_are_understood():
    gray = quarters()[:, :, 0]
    assert np.array_equal(load_photo(gray).pixels, np.dstack([gray] * 3))
    assert np.array_equal(load_photo(gray[:, :, None]).pixels, np.dstack([gray] * 3))
    bgra = np.dstack([quarters()[:, :, ::-1], np.full((32, 48), 255, np.uint8)])
    assert np.array_equal(load_photo(bgra, bgr=True).pixels, quarters())
    for kind in (np.float16, np.float32, np.float64):
        assert np.array_equal(load_photo(quarters().astype(kind) / 255).pixels, quarters())


@given(st.integers(0, 255), st.integers(0, 255))
def test_every_gray_over_every_alpha_is_blended_to_the_nearest_value(value, alpha):
    pixel = np.array([[[value, value, value, alpha], [0, 0, 0, 255]]], np.uint8)
    assert abs(int(load_photo(pixel).pixels[0, 0, 0]) - (value * alpha + 255 * (255 - alpha)) / 255) <= 0.501


def test_the_digest_of_an_array_knows_its_shape():
    flat = np.zeros((4, 6, 3), np.uint8)
    assert load_photo(flat).digest != load_photo(flat.reshape(6, 4, 3)).digest
    assert load_photo(flat).digest == load_photo(np.asfortranarray(flat)).digest


def test_the_callers_array_is_neither_changed_nor_shared():
    mine = quarters()
    mine.flags.writeable = False
    load_photo(mine)
    video_frame = quarters()
    photo = load_photo(video_frame)
    video_frame[:] = 0
    assert np.array_equal(photo.pixels, quarters())


def test_the_pixels_of_a_photo_cannot_be_written_to():
    for source in (quarters(), encoded(quarters())):
        with pytest.raises(ValueError, match="read-only"):
            load_photo(source).pixels[0, 0] = 1


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 32, 48), np.uint8),
        np.zeros((2, 32, 48, 3), np.uint8),
        np.zeros(12, np.uint8),
        np.zeros((), np.uint8),
        np.zeros((0, 48, 3), np.uint8),
        np.zeros((32, 48, 3), np.int64),
        np.zeros((32, 48), np.uint16),
        np.zeros((32, 48, 3), bool),
        np.zeros((32, 48, 3), complex),
        np.array([["a"]]),
        np.array([[None]]),
        np.full((2, 2), np.nan),
        np.full((2, 2, 3), np.inf, np.float32),
        np.full((2, 2, 3), 255.0),
        np.full((2, 2, 3), -0.1),
    ],
    ids=lambda array: f"{array.shape}-{array.dtype}-{array.flat[0] if array.size else 'empty'}",
)
def test_an_array_that_is_no_photo_is_refused_with_its_shape_and_dtype(array):
    with pytest.raises(PhotoArrayInvalid) as caught:
        load_photo(array)
    assert str(array.shape) in str(caught.value)
    assert str(array.dtype) in str(caught.value)
    assert (caught.value.shape, caught.value.dtype) == (array.shape, str(array.dtype))


def test_one_nan_among_many_values_is_found():
    array = np.full((32, 48, 3), 0.5)
    array[20, 30, 1] = np.nan
    with pytest.raises(PhotoArrayInvalid, match="NaN"):
        load_photo(array)


# ---- bad files


def test_a_missing_path_is_not_found(tmp_path):
    for path in (tmp_path / "nobody.jpg", "", tmp_path / "a.jpg" / "b.jpg", "nul\0byte.jpg", "\ud800.jpg"):
        with pytest.raises(PhotoNotFound):
            load_photo(path)


def test_a_name_too_long_for_the_file_system_is_one_of_our_errors():
    with pytest.raises(FacedexError):
        load_photo("x" * 100_000 + ".jpg")


def test_an_empty_file_holds_zero_bytes(tmp_path):
    (tmp_path / "empty.jpg").touch()
    for source in (tmp_path / "empty.jpg", b"", io.BytesIO()):
        with pytest.raises(PhotoUnreadable, match="0 bytes"):
            load_photo(source)


def test_text_called_jpg_is_not_an_image_and_its_start_is_shown(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("hello Bob, this is not a photo")
    with pytest.raises(PhotoUnreadable, match=r"notes\.jpg is not an image \(starts with b'hello Bob, this"):
        load_photo(path)


def test_heic_is_named():
    with pytest.raises(PhotoUnreadable, match="HEIC"):
        load_photo(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_in_half_is_called_truncated(name):
    data = in_every_format(texture(200, 150))[name]
    with pytest.raises(PhotoUnreadable, match="truncated"):
        load_photo(data[: len(data) // 2])


def test_a_folder_a_pipe_and_a_device_are_no_photos_and_nothing_waits(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path, tmp_path / "pipe.jpg", "/dev/zero"):
        with pytest.raises(PhotoNotFound, match="not a file"):
            load_photo(path)


def test_a_file_we_may_not_read_is_unreadable(tmp_path, monkeypatch):
    path = tmp_path / "ann.png"
    path.write_bytes(encoded(quarters()))

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("facedex.vision.images.os.open", denied)
    with pytest.raises(PhotoUnreadable, match="Permission denied"):
        load_photo(path)


def test_a_name_that_is_no_utf8_is_read_and_its_link_can_be_stored(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        Path(os.fsdecode(path)).write_bytes(encoded(quarters()))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    photo = load_photo(os.fsdecode(path))
    assert photo.link is not None
    photo.link.encode()


# ---- limits


def test_limits_must_be_positive():
    with pytest.raises(ArgumentInvalid, match="max_pixels=0"):
        Limits(max_pixels=0)


def test_more_bytes_than_allowed_are_not_read(tmp_path):
    data = encoded(texture())
    path = tmp_path / "big.png"
    path.write_bytes(data)
    limits = Limits(max_bytes=len(data) - 1)
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    for source in (path, data, bytearray(data), memoryview(data), io.BytesIO(data), url):
        with pytest.raises(PhotoTooLarge, match="Nothing was decoded"):
            load_photo(source, limits=limits)
        assert load_photo(source if not isinstance(source, io.BytesIO) else io.BytesIO(data)).width == 40


def test_no_more_than_the_limit_is_taken_from_a_file_object():
    class Endless:
        taken = 0

        def read(self, size):
            self.taken += size
            return b"\xff" * size

    endless = Endless()
    with pytest.raises(PhotoTooLarge):
        load_photo(endless, limits=Limits(max_bytes=1000))
    assert endless.taken == 1001


def test_a_sparse_file_of_a_terabyte_is_refused_by_its_size(tmp_path):
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PhotoTooLarge, match="1,099,511,627,776 bytes"):
        load_photo(path)


def test_the_pixel_limit_is_the_last_size_allowed():
    for source in (encoded(quarters()), quarters()):
        load_photo(source, limits=Limits(max_pixels=48 * 32))
        with pytest.raises(PhotoTooLarge, match="48 × 32 pixels; the limit is 1,535"):
            load_photo(source, limits=Limits(max_pixels=48 * 32 - 1))


@pytest.mark.heavy
def test_a_hundred_megapixels_pass_without_a_word():
    """Pillow's ``Image.open`` warns from 89 megapixels on; warnings are errors here."""
    bits = Image.new("1", (12_000, 9_000), 1)  # as many as the largest phone photos that are common
    assert load_photo(encoded(bits, "PNG")).pixels.shape == (9_000, 12_000, 3)


def memory_of(code: str, *arguments: str) -> tuple[int, str]:
    """Run code that reads photos in a process of its own → kilobytes its peak rose by, and what it printed."""
    program = f"""
import resource, sys, warnings
warnings.simplefilter("error")
from facedex.errors import *
from facedex.vision.images import Limits, load_photo
load_photo(open(sys.argv[1], "rb").read())  # imports and first-use costs are not the bomb's
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
{textwrap.dedent(code)}
print("grew", peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    *printed, grew = done.stdout.splitlines()
    return int(grew.split()[1]), "\n".join(printed)


def test_a_twenty_thousand_square_bomb_costs_no_memory(tmp_path):
    (tmp_path / "good.png").write_bytes(encoded(quarters()))
    (tmp_path / "bomb.png").write_bytes(png_bomb(20_000))
    grew, printed = memory_of(
        """
        try:
            load_photo(sys.argv[2])
        except PhotoTooLarge as error:
            print(error)
        """,
        str(tmp_path / "good.png"),
        str(tmp_path / "bomb.png"),
    )
    assert "20,000 × 20,000 pixels" in printed
    assert grew < 8_000  # its pixels would take 400,000 and more


def test_a_bomb_of_every_format_costs_no_memory(tmp_path):
    (tmp_path / "good.png").write_bytes(encoded(quarters()))
    bombs = claiming(20_000)
    for name, data in bombs.items():
        (tmp_path / f"{name}.bomb").write_bytes(data)
    grew, printed = memory_of(
        """
        for path in sys.argv[2:]:
            try:
                load_photo(path)
            except PhotoTooLarge as error:
                print(error)
        """,
        str(tmp_path / "good.png"),
        *(str(tmp_path / f"{name}.bomb") for name in bombs),
    )
    assert printed.count("Nothing was decoded") == len(bombs), printed
    assert grew < 8_000


def test_a_tiff_tile_larger_than_the_photo_is_refused():
    assert load_photo(tiled_tiff(64, 64)).width == 64
    with pytest.raises(PhotoTooLarge, match="60,000 × 60,000"):
        load_photo(tiled_tiff(64, 60_000))


def test_a_photo_that_only_a_python_loop_could_decode_is_refused_when_large():
    with pytest.raises(PhotoTooLarge, match="slow"):
        load_photo(b"P6 1000 1000 254\n" + bytes(3_000_000))
    assert load_photo(b"P6 2 1 254\n" + bytes(6)).width == 2


def test_pillows_globals_are_left_alone_and_have_no_say(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for name in ("JPEG", "PNG", "WebP", "BMP", "GIF", "PPM"):
        data = in_every_format(quarters())[name]
        if name == "WebP":  # recent versions apply it while opening; then it is still one of our errors
            with contextlib.suppress(PhotoTooLarge):
                load_photo(data)
        else:
            assert load_photo(data).width == 48
    with pytest.raises(PhotoTooLarge):
        load_photo(in_every_format(quarters())["TIFF"])
    assert Image.MAX_IMAGE_PIXELS == 10


# ---- what strangers send

SMALL = in_every_format(texture(24, 16))
SMALL["oriented JPEG"] = encoded(texture(24, 16), "JPEG", exif=exif(6))
SMALL["palette GIF"] = encoded(Image.fromarray(texture(24, 16)).quantize(16), "GIF", transparency=1)
SMALL["RLE BMP"] = (
    b"BM" + struct.pack("<IHHIIiiHHIIIIII", 0, 0, 0, 70, 40, 4, 4, 1, 8, 1, 0, 0, 0, 4, 0)
    + bytes(range(16)) + b"\x04\x01\0\0" * 4 + b"\0\1"
)  # fmt: skip
SMALL["CMYK JPEG"] = encoded(Image.new("CMYK", (16, 16), (9, 99, 0, 0)), "JPEG")
SMALL["16-bit PNG"] = encoded(Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16)), "PNG")
SMALL["float TIFF"] = encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF")
SMALL["alpha WebP"] = encoded(Image.new("RGBA", (16, 16), (9, 9, 9, 9)), "WEBP")
STRICT = Limits(max_bytes=1 << 20, max_pixels=1 << 20)


def survives(data: bytes) -> None:
    """Either a photo, or an error of ours."""
    try:
        photo = load_photo(data, limits=STRICT)
    except FacedexError:
        return
    assert photo.pixels.dtype == np.uint8
    assert photo.pixels.shape[2] == 3


@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_whole_file_is_good(name):
    load_photo(SMALL[name], limits=STRICT)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_file_cut_anywhere_gives_an_error_of_ours_or_a_photo(name):
    data = SMALL[name]
    for size in range(0, len(data), max(1, len(data) // 200)):
        survives(data[:size])


@given(data=st.binary(max_size=200), start=st.sampled_from(["", *SMALL]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_bytes_after_any_beginning_give_an_error_of_ours(data, start):
    survives(SMALL[start][:16] + data if start else data)


@given(
    name=st.sampled_from(sorted(SMALL)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    in_header=st.booleans(),
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_changed_bytes_give_an_error_of_ours_or_a_photo(name, flips, in_header):
    data = bytearray(SMALL[name])
    reach = min(64, len(data)) if in_header else len(data)
    for where, value in flips:
        data[int(where * reach)] = value
    survives(bytes(data))


@given(st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_text_as_a_source_gives_an_error_of_ours(raw):
    text = raw.decode("utf-8", "surrogateescape")
    for source in (text, "data:" + text, "data:;base64," + text, "file://" + text):
        with pytest.raises(FacedexError):
            load_photo(source)


def test_many_threads_read_at_once_and_nobodys_warnings_change():
    filters = list(warnings.filters)
    failures = []

    def work(data):
        try:
            for _ in range(10):
                load_photo(data)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(data,)) for data in SMALL.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(warnings.filters) == filters
