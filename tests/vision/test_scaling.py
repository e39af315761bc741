"""The compiled kernel and what stands in for it: the same photo made smaller, the same crop."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facedex.models.contract import ARCFACE_TEMPLATE
from facedex.vision import native
from facedex.vision.alignment import align_face
from facedex.vision.scaling import shrink

KERNELS = Path(native.__file__).parent / "kernels"
compiled = pytest.mark.skipif(native.module is None, reason="the compiled kernel was not built")


def without_kernel(function: Any, *args: Any) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "module", None)
        result: np.ndarray = function(*args)
        return result


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@compiled
@settings(deadline=None, max_examples=60)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 300))
def test_shrinking_gives_the_same_within_two_levels_with_and_without_the_kernel(
    width: int, height: int, bound: int
) -> None:
    image = noise(width, height)
    ours = shrink(image, bound)
    theirs = without_kernel(shrink, image, bound)
    assert ours.shape == theirs.shape
    assert abs(ours.astype(int) - theirs).max() <= 2
    assert abs(ours.astype(int) - theirs).mean() <= 0.75 or ours.size < 3000


@compiled
@settings(deadline=None, max_examples=60)
@given(
    angle=st.floats(-np.pi, np.pi), scale=st.floats(0.2, 8), x=st.floats(-300, 500), y=st.floats(-300, 500),
    width=st.integers(1, 300), height=st.integers(1, 300),
)  # fmt: skip
def test_aligning_gives_the_same_within_two_levels_with_and_without_the_kernel(
    angle: float, scale: float, x: float, y: float, width: int, height: int
) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = scale * ARCFACE_TEMPLATE @ turn.T + (x, y)
    image = noise(width, height)
    difference = abs(align_face(image, points).astype(int) - without_kernel(align_face, image, points))
    # NumPy's coordinates are float32, the kernel's float64: between black and white that is a level or two.
    assert difference.max() <= 2
    assert difference.mean() < 0.2


@pytest.mark.parametrize("bound", [7, 100, 150, 320])
def test_an_even_gray_stays_even(bound: int) -> None:
    gray = np.full((601, 403, 3), 77, np.uint8)
    assert (shrink(gray, bound) == 77).all()


def test_stripes_finer_than_a_new_pixel_become_gray_not_other_stripes() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    assert abs(shrink(stripes, 90).astype(int) - 127)[:, 2:-2].max() <= 12


def test_a_view_is_shrunk_like_its_copy() -> None:
    image = noise(700, 500)[::-1, 3:]
    np.testing.assert_array_equal(shrink(image, 200), shrink(image.copy(), 200))


@compiled
@pytest.mark.parametrize(
    "wrong",
    [
        {"image": np.zeros(4 * 5 * 3 - 1, np.uint8)},
        {"image": np.zeros((4, 5, 3), np.float32)},
        {"image": np.zeros((4, 10, 3), np.uint8)[:, ::2]},
        {"height": 0},
        {"width": -1},
        {"width": 2**40},
        {"factor": 0},
        {"factor": 5000},
        {"out": np.zeros((2, 2, 3), np.uint8)},
        {"out": b"0" * 18},
        {"high": 10**7},
    ],
    ids=str,
)
def test_nothing_that_does_not_fit_gets_through_to_the_kernel(wrong: dict[str, Any]) -> None:
    fits = {
        "image": np.zeros((4, 5, 3), np.uint8), "height": 4, "width": 5, "factor": 1,
        "out": np.zeros((2, 3, 3), np.uint8), "high": 2, "wide": 3,
    }  # fmt: skip
    assert native.module is not None
    native.module.shrink(*fits.values())
    with pytest.raises((ValueError, TypeError, BufferError, OverflowError)):
        native.module.shrink(*(fits | wrong).values())


@compiled
@pytest.mark.parametrize("at", [0, 3, 5])
def test_the_warp_takes_only_buffers_of_its_size(at: int) -> None:
    assert native.module is not None
    fits: list[Any] = [np.zeros((4, 5, 3), np.uint8), 4, 5, np.zeros(4 * 6), 6, np.zeros((6, 6, 3), np.uint8)]
    native.module.warp(*fits)
    for bad in (fits[at].ravel()[:-1].copy(), fits[at].astype(np.int16), "text", None):
        with pytest.raises((ValueError, TypeError, BufferError)):
            native.module.warp(*fits[:at], bad, *fits[at + 1 :])


@compiled
@pytest.mark.parametrize("place", [np.nan, np.inf, -np.inf, 1e300, -1e300])
def test_places_that_are_nowhere_are_black(place: float) -> None:
    assert native.module is not None
    crop = np.full((6, 6, 3), 9, np.uint8)
    native.module.warp(noise(5, 4), 4, 5, np.full(24, place), 6, crop)
    assert not crop.any()


def test_the_kernel_under_address_and_undefined_behaviour_sanitizers(tmp_path: Path) -> None:
    compiler, source = shutil.which("cc"), Path(__file__).parent / "fuzz_kernel.c"
    if compiler is None or not (KERNELS / "pixels.c").exists():
        pytest.skip("no C compiler or no sources")
    flags = ["-O1", "-std=gnu11", "-Wall", "-Wextra", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [f"-I{KERNELS}", str(source), str(KERNELS / "pixels.c"), "-lm"]
    built = subprocess.run(
        [compiler, *flags, *sources, "-o", str(tmp_path / "fuzz")], capture_output=True, text=True, check=False
    )
    if built.returncode and "cannot find" in built.stderr:
        pytest.skip("the sanitizers' library is not installed")
    assert built.returncode == 0, built.stderr
    for seed in ("1", "2"):
        done = subprocess.run([tmp_path / "fuzz", "300", seed], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "300 rounds\n"), done.stderr
