"""JPEGs decoded at a part of their size: same photo, fewer pixels, whichever library does it."""

from __future__ import annotations

import numpy as np
import pytest
from photos import encoded, exif, quarters
from PIL import Image

from facedex.errors import PhotoTooLarge, PhotoUnreadable
from facedex.models.synthetic import draw_photo
from facedex.vision import decoding
from facedex.vision.decoding import FACTORS, Limits, decode, measure_jpeg
from facedex.vision.images import read_photo

LIMITS = Limits()
WAYS = ("simplejpeg", "Pillow")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "Pillow":
        monkeypatch.setattr(decoding, "simplejpeg", None)
    elif decoding.simplejpeg is None:
        pytest.skip("simplejpeg is not installed")
    name: str = request.param
    return name


def scene(width: int, height: int) -> np.ndarray:
    """Smooth colours, none of them the same at two places."""
    x, y = np.linspace(0, 255, width), np.linspace(0, 255, height)[:, None]
    return np.stack([x + 0 * y, y + 0 * x, (x + y) / 2], axis=2).astype(np.uint8)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("size", [(400, 300), (401, 303), (399, 65)], ids=str)
def test_both_libraries_give_the_same_bits_at_each_size(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], factor: int
) -> None:
    for photo in (Image.fromarray(scene(*size)), Image.fromarray(scene(*size)).convert("L")):
        data = encoded(photo, "JPEG", quality=90)
        pixels = decode(data, "photo", LIMITS, factor)
        assert pixels.shape == (-(-size[1] // factor), -(-size[0] // factor), 3)
        assert not pixels.flags.writeable
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "simplejpeg", None)
            np.testing.assert_array_equal(pixels, decode(data, "photo", LIMITS, factor))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("factor", FACTORS)
def test_a_point_of_the_photo_is_found_at_every_size_however_the_camera_was_held(
    way: str, orientation: int, factor: int
) -> None:
    """A bright cross on an odd-sized photo: its place in the level, brought outward, is its place in the photo."""
    upright = np.zeros((227, 309, 3), np.uint8)
    upright[96:144, 200:240] = 255  # centre of its pixels: (219.5, 119.5)
    turn = decoding._UPRIGHT.get(orientation)
    back = {None: None, Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90}.get(turn, turn)
    back = Image.Transpose.ROTATE_270 if turn is Image.Transpose.ROTATE_90 else back
    stored = Image.fromarray(upright) if back is None else Image.fromarray(upright).transpose(back)
    data = encoded(stored, "JPEG", quality=95, subsampling=0, exif=exif(orientation))
    levels = read_photo(data).levels()
    assert (levels.width, levels.height) == (309, 227)
    level = levels._level(factor)
    weights = level.pixels[..., 0].astype(float)
    y, x = np.average(np.indices(weights.shape).reshape(2, -1), axis=1, weights=weights.ravel())
    inward = level.inward(np.full((5, 2), (219.5, 119.5), np.float32))[0]
    np.testing.assert_allclose((x, y), inward, atol=0.3)


def test_a_header_tells_size_and_turn_before_anything_is_decoded() -> None:
    data = encoded(Image.fromarray(scene(400, 300)), "JPEG", exif=exif(6))
    assert measure_jpeg(data, "photo", LIMITS) == decoding.Extent(300, 400, 6)
    assert measure_jpeg(encoded(quarters()), "photo", LIMITS) is None
    with pytest.raises(PhotoTooLarge):
        measure_jpeg(data, "photo", Limits(max_pixels=300 * 400 - 1))


@pytest.mark.parametrize("factor", FACTORS)
def test_a_damaged_jpeg_is_unreadable_at_every_size(way: str, factor: int) -> None:
    data = encoded(Image.fromarray(scene(400, 300)), "JPEG")
    for damaged in (data[: len(data) // 2], data[:200]):
        with pytest.raises(PhotoUnreadable):
            decode(damaged, "photo", LIMITS, factor)


def test_colours_that_only_one_library_reads_are_read(way: str) -> None:
    data = encoded(Image.fromarray(scene(64, 64)).convert("CMYK"), "JPEG", quality=95)
    whole, half = decode(data, "photo", LIMITS), decode(data, "photo", LIMITS, 2)
    assert (whole.shape, half.shape) == ((64, 64, 3), (32, 32, 3))
    assert abs(whole[::2, ::2].astype(int) - half).mean() < 4


def test_two_headers_that_disagree_do_not_get_past_the_limit(way: str) -> None:
    """A second frame header of 60,000 × 60,000: nothing of that size is ever taken memory for."""
    data = bytearray(encoded(Image.fromarray(scene(64, 64)), "JPEG"))
    frame = data.index(b"\xff\xc0")
    length = 2 + int.from_bytes(data[frame + 2 : frame + 4], "big")
    other = bytearray(data[frame : frame + length])
    other[5:9] = (60_000).to_bytes(2, "big") * 2
    for both in (data[:frame] + other + data[frame:], data[: frame + length] + other + data[frame + length :]):
        with pytest.raises((PhotoUnreadable, PhotoTooLarge)):
            decode(bytes(both), "photo", LIMITS)


def test_a_large_jpeg_is_decoded_at_the_smallest_size_that_is_large_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = decoding.decode
    monkeypatch.setattr(
        "facedex.vision.images.decode", lambda *args: asked.append(args[3] if len(args) > 3 else 1) or real(*args)
    )
    data = encoded(Image.fromarray(draw_photo((), size=(2600, 1300))), "JPEG")
    levels = read_photo(data).levels()
    assert asked == []
    assert levels.at_least(640).pixels.shape == (325, 650, 3)
    assert asked == [4]
    assert levels.reduced_by(9).factor == 4  # a level that is there is used rather than another made
    assert levels.reduced_by(3.9).factor == 2
    assert levels.reduced_by(0.2).factor == 1
    assert levels.at_least(640).factor == 4
    assert asked == [4, 2, 1]


def test_strips_and_small_photos_are_decoded_whole() -> None:
    for size in ((639, 480), (4000, 40)):
        levels = read_photo(encoded(Image.fromarray(scene(*size)), "JPEG")).levels()
        assert levels.at_least(640).factor == 1
