"""The border between Python and C: nothing that does not fit gets through. And the C itself under sanitizers."""

from __future__ import annotations

import gc
import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_exact import random_rows

from conftest import KERNELS, SOURCES
from facedex.search import codes, native

FUZZ = Path(__file__).parent / "fuzz_kernels.c"
C = [str(KERNELS / source) for source in SOURCES if source != "module.c"]


@pytest.fixture
def module() -> Any:
    if native.module is None:
        pytest.skip("the compiled kernel was not built")
    return native.module


def arrays(n: int = 40, dimension: int = 12) -> list[Any]:
    """Arguments of Segment in order."""
    wide, blocks = codes.padded(dimension), codes.blocks(n)
    stats = np.zeros(codes.stats_size(dimension))
    stats[: codes.STEP8 + 1] = 0.1
    return [
        dimension, n, np.zeros(blocks * wide * 16, np.uint8), np.zeros(blocks * wide * 32, np.uint8),
        np.zeros(blocks, np.float32), np.zeros(n, np.float32), np.zeros(wide, np.float32), stats,
        random_rows(1, n, dimension), np.arange(n), np.full(blocks, 0xFFFFFFFF, np.uint32),
    ]  # fmt: skip


def search(module: Any, **changed: Any) -> Any:
    a = {
        "dimension": 12, "segments": (module.Segment(*arrays()),), "counts": (40,), "filters": None,
        "probes": random_rows(2, 3, 12), "n_probes": 3, "k": 4, "threads": 1,
        "similarities": np.empty((3, 4), np.float32), "ids": np.empty((3, 4), np.int64), "scores": None, "kernel": None,
    } | changed  # fmt: skip
    return module.search(*a.values())


def test_what_fits_is_taken(module: Any) -> None:
    assert search(module)[0] == -1


@pytest.mark.parametrize("at", range(2, 11))
def test_a_short_or_foreign_buffer_is_refused(module: Any, at: int) -> None:
    good = arrays()
    for bad in (
        good[at].reshape(-1)[:-1].copy(),
        good[at].astype(np.complex64),
        good[at].astype(np.bool_),
        np.repeat(good[at].reshape(-1), 2)[::2],
        None,
        "text",
    ):
        with pytest.raises((ValueError, TypeError, BufferError)):
            module.Segment(*good[:at], bad, *good[at + 1 :])


@pytest.mark.parametrize(
    ("dimension", "n"), [(0, 40), (-1, 40), (5000, 40), (12, -1), (12, 2**32), (12, 2**62), (13, 40), (12, 41)]
)
def test_sizes_that_do_not_match_are_refused(module: Any, dimension: int, n: int) -> None:
    good = arrays()
    with pytest.raises((ValueError, OverflowError)):
        module.Segment(dimension, n, *good[2:])


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
def test_a_quantizer_without_a_step_is_refused(module: Any, value: float) -> None:
    good = arrays()
    good[7][codes.STEP4] = value
    with pytest.raises(ValueError, match="stats"):
        module.Segment(*good)


@pytest.mark.parametrize(
    "changed",
    [
        {"dimension": 11}, {"dimension": -3}, {"counts": (41,)}, {"counts": (-1,)}, {"counts": ()}, {"counts": ("a",)},
        {"segments": (1,)}, {"segments": []}, {"filters": (np.zeros(1, np.uint32),)}, {"filters": ()},
        {"filters": (np.zeros(2, np.float32),)}, {"filters": 3}, {"n_probes": 4}, {"n_probes": -1}, {"n_probes": 2**62},
        {"k": 0}, {"k": -1}, {"k": 5}, {"k": 2**62}, {"threads": 0}, {"threads": -1}, {"kernel": "abacus"},
        {"probes": random_rows(2, 3, 12).astype(np.float64)}, {"probes": np.zeros((3, 24), np.float32)[:, ::2]},
        {"similarities": np.empty((3, 3), np.float32)}, {"ids": np.empty((3, 4), np.int32)},
        {"ids": np.broadcast_to(np.int64(0), (3, 4))}, {"scores": np.empty(11)}, {"probes": None},
    ],
    ids=lambda changed: ",".join(f"{k}" for k in changed),
)  # fmt: skip
def test_a_search_that_does_not_fit_is_refused(module: Any, changed: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError, BufferError)):
        search(module, **changed)


def test_an_answer_cannot_be_written_where_writing_is_forbidden(module: Any) -> None:
    fixed = np.empty((3, 4), np.float32)
    fixed.flags.writeable = False
    with pytest.raises((ValueError, BufferError)):
        search(module, similarities=fixed)


def test_more_threads_than_can_be_are_no_trouble(module: Any) -> None:
    assert search(module, threads=2**31 - 1)[0] == -1


def test_a_segment_keeps_its_arrays_and_lets_them_go(module: Any) -> None:
    good = arrays()
    rows = good[8]
    before = sys.getrefcount(rows)
    segment = module.Segment(*good)
    assert sys.getrefcount(rows) > before
    del segment
    gc.collect()
    assert sys.getrefcount(rows) == before
    for _ in range(50):
        with pytest.raises(ValueError, match="live"):
            module.Segment(*good[:10], good[10][:1].copy())
    assert sys.getrefcount(rows) == before


def test_without_the_extension_numpy_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "facedex.search._kernel", None)
    try:
        importlib.reload(native)
        assert native.module is None
        assert native.kernels() == ["numpy"]
        assert native.resolve(None) == "numpy"
    finally:
        monkeypatch.undo()
        importlib.reload(native)


def test_the_default_is_the_first_that_runs(module: Any) -> None:
    assert native.resolve(None) == module.kernels()[0]
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "avx512_vnni" in flags:
        assert native.resolve(None) == "avx512vnni"
    elif " avx2 " in flags:
        assert native.resolve(None) == "avx2"
    assert "portable" in module.kernels()


def build(compiler: str, target: Path, *flags: str) -> None:
    command = [
        compiler,
        "-g",
        "-std=gnu11",
        f"-I{KERNELS}",
        *flags,
        str(FUZZ),
        *C,
        "-lm",
        "-pthread",
        "-o",
        str(target),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and ("cannot find" in done.stderr or "unrecognized" in done.stderr):
        pytest.skip(f"{compiler} lacks a library for {' '.join(flags)}")
    assert done.returncode == 0, done.stderr


def test_the_kernels_under_address_and_undefined_behaviour_sanitizers(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None or not (KERNELS / "engine.c").exists():
        pytest.skip("no C compiler or no sources")
    build(
        compiler,
        tmp_path / "fuzz",
        "-O1",
        "-Wall",
        "-Wextra",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    )
    for seed in ("1", "2"):
        done = subprocess.run([tmp_path / "fuzz", "150", seed], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "portable: 150 rounds" in done.stdout


def test_the_neon_kernel_on_an_emulated_arm(tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64")
    if compiler is None or emulator is None:
        pytest.skip("gcc-aarch64-linux-gnu and qemu-user are not both installed")
    build(compiler, tmp_path / "fuzz", "-O2", "-static")
    done = subprocess.run([emulator, tmp_path / "fuzz", "60", "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "neon: 60 rounds" in done.stdout
