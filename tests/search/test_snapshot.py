"""Saved indexes: the same answers after opening, and a clear word when the file is not what it should be."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_exact import random_rows, same

from facedex.errors import IndexCorrupt, IndexUnavailable, IndexVersion, SearchError
from facedex.search import ExactIndex, native, snapshot


def test_a_saved_index_answers_as_before(kernel: str, tmp_path: Path) -> None:
    rows = random_rows(1, 3000, 96)
    index = ExactIndex.build(rows, kernel=kernel)
    index.save(tmp_path / "faces.fdx")
    opened = ExactIndex.open(tmp_path / "faces.fdx", kernel=kernel)
    assert len(opened) == 3000
    same(opened, rows, np.arange(3000), rows[:5], 7)
    same(opened, rows, np.arange(3000), rows[:50], 7)
    opened.verify()


def test_every_kernel_reads_what_another_wrote(kernel: str, tmp_path: Path) -> None:
    rows = random_rows(2, 400, 50)
    ExactIndex.build(rows, kernel="numpy").save(tmp_path / "a.fdx")
    same(ExactIndex.open(tmp_path / "a.fdx", kernel=kernel), rows, np.arange(400), rows[:3], 5)
    ExactIndex.build(rows, kernel=kernel).save(tmp_path / "b.fdx")
    same(ExactIndex.open(tmp_path / "b.fdx", kernel="numpy"), rows, np.arange(400), rows[:3], 5)


def test_an_opened_index_lives_on(kernel: str, tmp_path: Path) -> None:
    rows = random_rows(3, 900, 40)
    ExactIndex.build(rows[:600], kernel=kernel).save(tmp_path / "a.fdx")
    index = ExactIndex.open(tmp_path / "a.fdx", kernel=kernel)
    index.add(rows[600:])
    index.remove(range(0, 900, 3))
    keep = np.array([i for i in range(900) if i % 3])
    same(index, rows[keep], keep, rows[:4], 6)
    index.save(tmp_path / "a.fdx")  # over the file it is mapped from
    again = ExactIndex.open(tmp_path / "a.fdx", kernel=kernel)
    same(again, rows[keep], keep, rows[:4], 6)
    again.verify()
    again.add(rows[:1])
    assert again.ids[-1] == 900


def test_removed_faces_are_not_in_the_file(tmp_path: Path) -> None:
    rows = random_rows(4, 200, 32)
    index = ExactIndex.build(rows)
    index.remove([17])
    index.save(tmp_path / "a.fdx")
    data = (tmp_path / "a.fdx").read_bytes()
    assert rows[17].tobytes() not in data
    assert rows[18].tobytes() in data


def test_an_empty_index_can_be_saved(tmp_path: Path) -> None:
    ExactIndex(24).save(tmp_path / "a.fdx")
    opened = ExactIndex.open(tmp_path / "a.fdx")
    assert len(opened) == 0
    assert opened.dimension == 24


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "a.fdx"
    ExactIndex.build(random_rows(5, 700, 33)).save(path)
    return path


def outcome(path: Path) -> None:
    """Open, search and check everything, as a careful user would."""
    index = ExactIndex.open(path)
    index.search(random_rows(6, 2, index.dimension), 3)
    index.verify()


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(at=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_one_flipped_bit_is_found_or_lies_between_sections(saved: Path, tmp_path: Path, at: int, bit: int) -> None:
    broken = bytearray(saved.read_bytes())
    at %= len(broken)
    broken[at] ^= 1 << bit
    (tmp_path / "b.fdx").write_bytes(broken)
    try:
        outcome(tmp_path / "b.fdx")
    except (IndexCorrupt, IndexVersion):
        return
    whole = snapshot.Snapshot.open(saved)
    assert at >= snapshot._PROLOGUE.size
    for segment in whole._table["segments"]:
        for section, (place, _) in segment["sections"].items():
            assert not place <= at < place + len(whole._bytes(segment, section))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(length=st.integers(0, 10**9))
def test_a_file_cut_short_is_found(saved: Path, tmp_path: Path, length: int) -> None:
    data = saved.read_bytes()
    (tmp_path / "c.fdx").write_bytes(data[: length % len(data)])
    with pytest.raises(IndexCorrupt):
        ExactIndex.open(tmp_path / "c.fdx")


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"\x89PNG\r\n\x1a\n" * 20, b"SQLite format 3\0" * 300])
def test_a_foreign_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "d.fdx").write_bytes(data)
    with pytest.raises(IndexCorrupt, match="Build it again from the store"):
        ExactIndex.open(tmp_path / "d.fdx")


def test_a_newer_file_is_refused(saved: Path, tmp_path: Path) -> None:
    newer = bytearray(saved.read_bytes())
    newer[8] = snapshot.VERSION + 1
    (tmp_path / "e.fdx").write_bytes(newer)
    with pytest.raises(IndexVersion) as refused:
        ExactIndex.open(tmp_path / "e.fdx")
    assert refused.value.version == snapshot.VERSION + 1


@pytest.mark.parametrize(
    "table",
    [b"[]", b"{}", b"null", b"{", b'{"dimension": 8, "next_id": 0, "segments": [{"n": 5, "sections": {}}]}',
     b'{"dimension": 99999999, "next_id": 0, "segments": []}', b'{"dimension": -1, "next_id": 0, "segments": []}',
     b'{"dimension": 8, "next_id": 0, "segments": [{"n": -5, "sections": {"rows": [0, 0]}}]}'],
)  # fmt: skip
def test_a_table_that_lies_is_refused(tmp_path: Path, table: bytes) -> None:
    head = snapshot._PROLOGUE.pack(snapshot.MAGIC, 1, zlib.crc32(table), 4096, len(table), 4096 + len(table), 0)[:-4]
    data = (head + zlib.crc32(head).to_bytes(4, "little")).ljust(4096, b"\0") + table
    (tmp_path / "f.fdx").write_bytes(data)
    with pytest.raises(IndexCorrupt):
        ExactIndex.open(tmp_path / "f.fdx")


def test_what_cannot_be_read_or_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(IndexUnavailable):
        ExactIndex.open(tmp_path / "missing.fdx")
    with pytest.raises(IndexUnavailable):
        ExactIndex.open(tmp_path)
    with pytest.raises(IndexUnavailable):
        ExactIndex(8).save(tmp_path / "no" / "such" / "folder.fdx")
    assert issubclass(IndexUnavailable, SearchError)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.fdx"
    ExactIndex.build(random_rows(7, 10, 8)).save(path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IndexUnavailable, match="No space"):
        ExactIndex.build(random_rows(8, 10, 8)).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.fdx"]


def test_the_file_of_a_shared_machine_is_private(tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("POSIX permissions")
    ExactIndex(8).save(tmp_path / "a.fdx")
    assert (tmp_path / "a.fdx").stat().st_mode & 0o077 == 0


def test_codes_are_checked_before_the_first_answer(saved: Path, tmp_path: Path) -> None:
    if native.module is None:
        pytest.skip("NumPy searches the rows, not the codes")
    broken = bytearray(saved.read_bytes())
    broken[4096] ^= 1  # the first section holds the packed codes
    (tmp_path / "g.fdx").write_bytes(broken)
    index = ExactIndex.open(tmp_path / "g.fdx")
    for _ in range(2):
        with pytest.raises(IndexCorrupt, match="packed4"):
            index.search(random_rows(1, 1, 33))
