"""An index written while its rows come: the same answers, bounded memory, and nothing left behind by a failure."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_exact import Rows, random_rows, same

from facedex.errors import ArgumentInvalid, DimensionMismatch, EmbeddingInvalid, IndexUnavailable
from facedex.search import ExactIndex, native, stream
from facedex.search.contract import Ids


def batches(rows: Rows, ids: Ids, size: int) -> Iterator[tuple[Ids, Rows]]:
    for start in range(0, len(rows), size):
        yield ids[start : start + size], rows[start : start + size]


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    count=st.integers(1, 1500), size=st.integers(1, 700), segment=st.sampled_from([32, 320, 1 << 20]),
    sample=st.sampled_from([1, 100, 16384]), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_streamed_index_answers_as_the_reference(
    kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, size: int, segment: int, sample: int,
    seed: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(stream, "rows_of_segment", lambda _: segment)
    monkeypatch.setattr(stream, "SAMPLE", sample)
    rows = random_rows(seed, count, 24)
    ids = np.cumsum(np.random.default_rng(seed).integers(1, 5, count))
    index = ExactIndex.stream(
        tmp_path / "a.fdx", batches(rows, ids, size), lambda last: {"newest": last}, kernel=kernel
    )
    assert len(index) == count
    assert index.facts == {"newest": int(ids[-1])}
    same(index, rows, ids, rows[:5], 7)
    index.verify()
    index.add(-rows[:1])
    assert index.ids[-1] == ids[-1] + 1


def test_an_interrupted_stream_leaves_what_was_there(tmp_path: Path) -> None:
    rows = random_rows(1, 300, 16)
    path = tmp_path / "a.fdx"
    ExactIndex.stream(path, batches(rows, np.arange(300), 100))
    before = path.read_bytes()

    def breaking() -> Iterator[tuple[Ids, Rows]]:
        yield np.arange(50), rows[:50]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ExactIndex.stream(path, breaking())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.fdx"]


@pytest.mark.parametrize(
    ("ids", "rows", "error"),
    [
        ([3, 3], random_rows(1, 2, 8), ArgumentInvalid), ([5, 4], random_rows(1, 2, 8), ArgumentInvalid),
        ([0], random_rows(1, 1, 8), ArgumentInvalid), ([7], random_rows(1, 2, 8), ArgumentInvalid),
        ([-1, 9], random_rows(1, 2, 8), ArgumentInvalid), ([7, 8], random_rows(1, 2, 9), DimensionMismatch),
        ([7, 8], 2 * random_rows(1, 2, 8), EmbeddingInvalid), ([7, 8], np.full((2, 8), np.nan), EmbeddingInvalid),
        ([7, 8], np.full((2, 8), np.nan, np.float32), EmbeddingInvalid), ([7, 8], "rows", EmbeddingInvalid),
    ],
    ids=["twice", "falling", "seen", "too few", "negative", "dimension", "long", "float64", "nan", "text"],
)  # fmt: skip
@pytest.mark.parametrize("sample", [1, 16384])
def test_a_batch_that_does_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: list[int], rows: Rows, error: type[Exception], sample: int
) -> None:
    monkeypatch.setattr(stream, "SAMPLE", sample)
    first = (np.arange(2), random_rows(2, 2, 8))
    for kernel in {native.kernels()[0], "numpy"}:
        with pytest.raises(error):
            ExactIndex.stream(tmp_path / "a.fdx", iter([first, (np.array(ids), rows)]), kernel=kernel)
    assert not list(tmp_path.iterdir())


def test_the_row_at_fault_is_counted_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "rows_of_segment", lambda _: 64)
    monkeypatch.setattr(stream, "SAMPLE", 10)
    rows = random_rows(3, 200, 8)
    rows[171] *= 2
    for kernel in {native.kernels()[0], "numpy"}:
        with pytest.raises(EmbeddingInvalid) as refused:
            ExactIndex.stream(tmp_path / "a.fdx", batches(rows, np.arange(200), 30), kernel=kernel)
        assert refused.value.row == 171


def test_nothing_to_write_and_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingInvalid):
        ExactIndex.stream(tmp_path / "a.fdx", iter([]))
    with pytest.raises(EmbeddingInvalid):
        ExactIndex.stream(tmp_path / "a.fdx", iter([(np.empty(0, np.int64), np.empty((0, 8), np.float32))]))
    with pytest.raises(IndexUnavailable):
        ExactIndex.stream(tmp_path / "no" / "a.fdx", iter([(np.arange(2), random_rows(1, 2, 8))]))


def test_memory_does_not_grow_with_the_gallery(tmp_path: Path) -> None:
    """400,000 rows of 128 values are 205 MB; what is allocated for them is the codes of one small segment."""
    if native.module is None:
        pytest.skip("the compiled kernel was not built")
    pytest.importorskip("resource", reason="peak memory is read from resource.getrusage")
    script = f"""
import resource, numpy as np
from facedex.search import ExactIndex, stream
stream.rows_of_segment = lambda _: 1 << 16
rows = np.random.default_rng(1).standard_normal((4096, 128), dtype=np.float32)
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
def batches(n):
    for start in range(0, n, 4096):
        yield np.arange(start, start + 4096), rows
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
stream.write({str(tmp_path / "a.fdx")!r}, 128, batches(1 << 17), lambda _: {{}}, ExactIndex(128)._backend)
before = peak()
stream.write({str(tmp_path / "b.fdx")!r}, 128, batches(400 * 1024), lambda _: {{}}, ExactIndex(128)._backend)
print((peak() - before) / 1024)
"""
    grown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert float(grown) < 30
