"""The approximate index: what it proposes it scores exactly; it comes back from any interruption, or says why not."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.search import data

pytest.importorskip("faiss", reason="the extra is not installed: pip install 'facedex[ann]'")

from facedex.errors import (
    ArgumentInvalid,
    DimensionMismatch,
    EmbeddingInvalid,
    IndexCorrupt,
    IndexUnavailable,
    IndexVersion,
    SearchDriverMissing,
)
from facedex.search import ann, ann_file
from facedex.search.ann import ApproximateIndex
from facedex.search.exact import ExactIndex

D, N = 32, 6000
Rows = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def gallery() -> Rows:
    return data.gallery(N, D)


@pytest.fixture(scope="module")
def probes(gallery: Rows) -> Rows:
    return data.probes(100, gallery)


@pytest.fixture(scope="module")
def exact(gallery: Rows) -> ExactIndex:
    return ExactIndex.build(gallery, IDS)


IDS = np.arange(N, dtype=np.int64) * 3 + 1


def batches(gallery: Rows, ids: npt.NDArray[np.int64] = IDS, size: int = 700) -> Iterator[tuple[Any, Rows]]:
    for start in range(0, len(gallery), size):
        yield ids[start : start + size], gallery[start : start + size]


@pytest.fixture(scope="module")
def built(gallery: Rows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ann") / "faces.ann"
    ann.build(path, batches(gallery), D)
    return path


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    for file in built.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path / built.name


@pytest.fixture(autouse=True)
def _few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring takes longest; only the shared index is measured in earnest."""
    monkeypatch.setattr(ann, "_TRIALS", 10)


def rows_file(path: Path) -> Path:
    (found,) = path.parent.glob(f"{path.name}.*.rows")
    return found


def recall(ours: npt.NDArray[np.int64], exact: npt.NDArray[np.int64]) -> float:
    return float(np.mean([np.isin(e, o).mean() for e, o in zip(exact, ours, strict=True)]))


def test_it_finds_what_exact_search_finds_with_the_same_scores(built: Path, exact: ExactIndex, probes: Rows) -> None:
    index = ApproximateIndex.open(built)
    similarities, ids = index.search(probes, 10)
    wanted_similarities, wanted = exact.search(probes, 10)
    assert index.facts["parameters"]["lists"] > 1
    assert recall(ids, wanted) >= 0.98
    for q in range(len(probes)):
        score = dict(zip(wanted[q].tolist(), wanted_similarities[q].tolist(), strict=True))
        for id_, similarity in zip(ids[q].tolist(), similarities[q].tolist(), strict=True):
            assert similarity == score.get(id_, similarity)


def test_the_facts_tell_what_was_measured(built: Path) -> None:
    facts = ApproximateIndex.open(built).facts
    assert facts["library"] == "faiss"
    assert facts["rows"] == facts["measured_rows"] == N
    assert facts["sequence"] == IDS[-1]
    assert facts["complete"] is True
    assert 0.97 <= facts["recall_at_10"] <= 1
    assert facts["recall_at_10"] == pytest.approx(
        (facts["recall_at_10_enrolled"] + facts["recall_at_10_unknown"]) / 2, abs=1e-4
    )
    assert facts["measured"].endswith("+00:00")
    assert facts["probes"] == 400


def test_the_same_face_scores_one_and_comes_first(built: Path, gallery: Rows) -> None:
    similarities, ids = ApproximateIndex.open(built).search(gallery[[5, 4000]], 1)
    assert ids[:, 0].tolist() == [IDS[5], IDS[4000]]
    assert similarities[:, 0] == pytest.approx([1, 1], abs=1e-6)


def test_one_probe_and_many_get_the_same_answer(built: Path, probes: Rows) -> None:
    index = ApproximateIndex.open(built)
    together = index.search(probes, 10, threads=2)
    alone = [index.search(probe[None], 10, threads=1) for probe in probes]
    np.testing.assert_array_equal(together[0], np.concatenate([a[0] for a in alone]))
    np.testing.assert_array_equal(together[1], np.concatenate([a[1] for a in alone]))


def test_a_search_leaves_its_probe_untouched_and_needs_no_special_layout(built: Path, probes: Rows) -> None:
    index, before = ApproximateIndex.open(built), probes.copy()
    straight = index.search(probes, 5)[1]
    np.testing.assert_array_equal(probes, before)
    np.testing.assert_array_equal(index.search(np.asfortranarray(probes), 5)[1], straight)
    np.testing.assert_array_equal(index.search(np.repeat(probes, 2, axis=0)[::2], 5)[1], straight)


def test_places_beyond_the_gallery_hold_minus_one(gallery: Rows) -> None:
    index = ApproximateIndex(D)
    similarities, ids = index.search(gallery[:2], 3)
    assert (ids == -1).all()
    assert (similarities == -np.inf).all()
    index.add(gallery[:2])
    similarities, ids = index.search(gallery[:1], 3)
    assert sorted(ids[0].tolist()) == [-1, 0, 1]
    assert similarities[0, 2] == -np.inf


def test_k_may_exceed_what_is_probed(built: Path, gallery: Rows) -> None:
    index = ApproximateIndex.open(built)
    index.effort = ann.Effort(probed=1, rescored=64)
    _, ids = index.search(gallery[:3], 3000)
    assert (ids >= 0).all()
    assert all(len(set(row)) == 3000 for row in ids.tolist())


@pytest.mark.parametrize("dimension", [1, 7, 10])
def test_odd_dimensions_work(dimension: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((5000, dimension)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    index = ann.build(tmp_path / "a", [(np.arange(5000), rows)], dimension)
    again = ApproximateIndex.open(tmp_path / "a").search(rows[:5], 3)
    np.testing.assert_array_equal(index.search(rows[:5], 3)[0], again[0])
    assert again[0][:, 0] == pytest.approx(np.ones(5), abs=1e-6)


# ---- adding and removing ----


def test_a_removed_face_is_never_answered(copy: Path, gallery: Rows, probes: Rows, exact: ExactIndex) -> None:
    index = ApproximateIndex.open(copy)
    rest = ExactIndex.build(gallery, IDS)
    gone = np.unique(exact.search(probes, 10)[1])  # every right answer, so removed rows crowd the candidates
    for part in np.array_split(gone, 7):
        assert index.remove(part) == len(part)
        rest.remove(part)
        _, ids = index.search(probes, 10)
        assert not np.isin(ids, part).any()
    assert len(index) == N - len(gone)
    assert not index.contains(gone).any()
    assert index.remove(gone) == 0
    assert recall(ids, rest.search(probes, 10)[1]) >= 0.97
    index.save(copy)
    again = ApproximateIndex.open(copy)
    np.testing.assert_array_equal(again.search(probes, 10)[1], index.search(probes, 10)[1])
    again.verify()


def test_a_removed_face_leaves_the_file(copy: Path, gallery: Rows) -> None:
    assert gallery[77].tobytes() in rows_file(copy).read_bytes()
    index = ApproximateIndex.open(copy)
    index.remove([IDS[77]])
    index.save(copy)
    assert gallery[77].tobytes() not in rows_file(copy).read_bytes()
    ApproximateIndex.open(copy).verify()


def test_an_added_face_is_found_at_once_and_after_saving(copy: Path, gallery: Rows) -> None:
    index = ApproximateIndex.open(copy)
    newer = data.gallery(500, D, seed=9)
    index.add(newer, np.arange(500) + 100_000)
    assert index.search(newer[:50], 1)[1][:, 0].tolist() == list(range(100_000, 100_050))
    index.verify()
    index.save(copy)
    index.add(newer[:1] * -1)  # the next id
    again = ApproximateIndex.open(copy)
    assert len(again) == N + 500
    assert again.search(newer[:50], 1)[1][:, 0].tolist() == list(range(100_000, 100_050))
    assert index.contains([100_000, 100_500, 100_501, 2]).tolist() == [True, True, False, False]
    again.verify()


def test_ids_need_not_rise(gallery: Rows, tmp_path: Path) -> None:
    ids = np.random.default_rng(3).permutation(N).astype(np.int64)
    index = ApproximateIndex(D)
    index.add(gallery[:3000], ids[:3000])
    index.add(gallery[3000:], ids[3000:])
    assert index.search(gallery[10:12], 1)[1][:, 0].tolist() == ids[10:12].tolist()
    index.remove(ids[10:11])
    index.save(tmp_path / "a")
    again = ApproximateIndex.open(tmp_path / "a")
    assert again.contains(ids[9:12]).tolist() == [True, False, True]


def test_two_indexes_saved_to_one_place_do_not_mix(copy: Path, gallery: Rows) -> None:
    first, second = ApproximateIndex.open(copy), ApproximateIndex.open(copy)
    first.add(-gallery[:5], np.arange(5) + 50_000)
    second.add(-gallery[5:15], np.arange(10) + 60_000)
    first.save(copy)
    second.save(copy)
    assert len(first) == N + 5
    assert first.search(-gallery[:1], 1)[1] == [[50_000]]
    last = ApproximateIndex.open(copy)
    last.verify()
    assert last.contains([50_000, 60_000]).tolist() == [False, True]
    assert len(list(copy.parent.glob("*.rows"))) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda i, g: i.add(g[:2], np.array([1, 1])),
        lambda i, g: i.add(g[:2], np.array([-1, 5])),
        lambda i, g: i.add(g[:2], np.array([5])),
        lambda i, g: i.add(g[:1], IDS[:1]),
        lambda i, g: i.search(g[:1], 0),
        lambda i, g: i.search(g[:1], 1, threads=0),
        lambda i, g: i.remove(["Ann"]),
        lambda i, g: ApproximateIndex(0),
    ],
)
def test_arguments_are_checked(wrong: Any, built: Path, gallery: Rows) -> None:
    index = ApproximateIndex.open(built)
    with pytest.raises(ArgumentInvalid):
        wrong(index, gallery)
    assert len(index) == N


def test_embeddings_are_checked(built: Path, gallery: Rows) -> None:
    index = ApproximateIndex.open(built)
    with pytest.raises(DimensionMismatch):
        index.search(gallery[:, :16].copy())
    for bad in (gallery[:2].astype(np.float64), gallery[0], gallery[:2] * 2, gallery[:2] * np.float32("nan")):
        with pytest.raises(EmbeddingInvalid):
            index.search(bad)
        with pytest.raises(EmbeddingInvalid):
            index.add(bad)


# ---- filters ----


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 1.0])
def test_the_best_among_those_that_pass(
    share: float, built: Path, gallery: Rows, exact: ExactIndex, probes: Rows
) -> None:
    rng = np.random.default_rng(5)
    allowed = rng.choice(IDS, round(share * N), replace=False)
    index = ApproximateIndex.open(built)
    similarities, ids = index.search(probes, 10, where=np.append(allowed, [999_999, 2]))
    assert np.isin(ids[ids >= 0], allowed).all()
    wanted_similarities, wanted = exact.search(probes, 10, where=allowed)
    np.testing.assert_array_equal(ids < 0, wanted < 0)
    assert recall(ids, wanted) >= 0.98
    if share <= 0.05:  # scored without codes
        np.testing.assert_array_equal(ids, wanted)
        np.testing.assert_array_equal(similarities, wanted_similarities)


def test_a_filter_does_not_bring_back_the_removed(copy: Path, probes: Rows) -> None:
    index = ApproximateIndex.open(copy)
    index.remove(IDS[::2])
    for allowed in (IDS[:20], IDS[: N // 2]):
        ids = index.search(probes, 10, where=allowed)[1]
        assert np.isin(ids[ids >= 0], allowed[1::2]).all()


def test_a_mask_and_a_predicate_say_the_same_as_ids(copy: Path, probes: Rows) -> None:
    index = ApproximateIndex.open(copy)
    index.remove(IDS[:7])
    wanted = index.search(probes, 10, where=IDS[::3])[1]
    np.testing.assert_array_equal(index.search(probes, 10, where=np.isin(index.ids, IDS[::3]))[1], wanted)
    np.testing.assert_array_equal(index.search(probes, 10, where=lambda ids: np.isin(ids, IDS[::3]))[1], wanted)
    with pytest.raises(ArgumentInvalid, match="mask"):
        index.search(probes, 10, where=np.ones(3, np.bool_))


# ---- building ----


class _Stop(BaseException):
    """Stands for Ctrl-C."""


def test_a_build_goes_on_wherever_it_was_stopped(tmp_path: Path) -> None:
    rows = data.gallery(4200, 8)
    ids = np.arange(4200)
    calls: list[tuple[str, int, int]] = []

    def make(path: Path, progress: Any = None) -> ApproximateIndex:
        return ann.build(path, batches(rows, ids, 1500), 8, progress, checkpoint_rows=1500)

    wanted = make(tmp_path / "whole", lambda *c: calls.append(c)).search(rows[:50], 10)[1]
    assert {stage for stage, _, _ in calls} == {"read", "train", "code", "measure"}
    for stop in range(len(calls)):
        path, seen = tmp_path / f"stopped-{stop}", 0

        def progress(*call: Any, stop: int = stop) -> None:
            nonlocal seen
            seen += 1
            if seen > stop:
                raise _Stop

        with pytest.raises(_Stop):
            make(path, progress)
        assert not path.exists()
        index = make(path)
        assert (len(index), index.facts["complete"]) == (4200, True)
        assert recall(index.search(rows[:50], 10)[1], wanted) >= 0.95
        ApproximateIndex.open(path).verify()
        left = {f.name for f in tmp_path.glob(f"{path.name}*")}
        assert left == {path.name, f"{path.name}.lock", rows_file(path).name}


def test_what_was_read_is_not_asked_for_again(gallery: Rows, tmp_path: Path) -> None:
    asked: list[int] = []

    def source(after: int) -> Iterator[tuple[Any, Rows]]:
        asked.append(after)
        newer = after < IDS
        return batches(gallery[newer], IDS[newer])

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "code":
            raise _Stop

    with pytest.raises(_Stop):
        ann.build(tmp_path / "a", source, D, stop)
    ann.build(tmp_path / "a", source, D)
    assert asked == [-1, IDS[-1]]


def test_a_killed_build_goes_on(gallery: Rows, tmp_path: Path) -> None:
    script = """
import os, signal, sys
from benchmarks.search import data
from facedex.search import ann
import numpy as np
g = data.gallery(6000, 32)
def progress(stage, done, total):
    if stage == "train" and done:
        os.kill(os.getpid(), signal.SIGKILL)
ann.build(sys.argv[1], [(np.arange(6000), g)], 32, progress)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], cwd=root, capture_output=True)
    assert done.returncode == -9, done.stderr
    calls: list[str] = []
    index = ann.build(tmp_path / "a", [], D, lambda stage, *_: calls.append(stage))
    assert len(index) == 6000
    assert "read" not in calls


def test_a_second_build_adds_what_is_newer_and_removes_what_is_gone(copy: Path, gallery: Rows) -> None:
    before, rows = ApproximateIndex.open(copy), rows_file(copy)
    newer = data.gallery(300, D, seed=8)
    ids = np.concatenate([IDS, np.arange(300) + 70_000])
    after: list[int] = []

    def source(newest: int) -> Iterator[tuple[Any, Rows]]:
        after.append(newest)
        return batches(newer, ids[-300:])

    index = ann.build(copy, source, D, present=np.delete(ids, 7))
    assert after == [IDS[-1]]
    assert rows_file(copy) == rows  # extended, not made again
    assert len(index) == N + 299
    assert index.contains([IDS[7], 70_299]).tolist() == [False, True]
    assert before.contains(IDS[7:8]).all()  # a searcher keeps what it opened
    assert before.search(newer[:1], 1)[1] != [[70_000]]
    modified = copy.stat().st_mtime_ns
    ann.build(copy, batches(gallery), D, present=np.delete(ids, 7))
    assert copy.stat().st_mtime_ns == modified  # nothing new, nothing written


def test_an_index_that_outgrew_its_codes_gets_new_ones(tmp_path: Path) -> None:
    rows = data.gallery(5000, D)
    path = tmp_path / "a"
    assert ann.build(path, [(np.arange(1000), rows[:1000])], D).facts["parameters"]["codes"] == "none"
    index = ann.build(path, [(np.arange(5000), rows)], D)
    assert index.facts["parameters"]["lists"] > 1
    assert len(ApproximateIndex.open(path)) == 5000
    assert len(list(tmp_path.glob("*.rows"))) == 1


def test_an_empty_gallery_has_an_index(tmp_path: Path) -> None:
    ann.build(tmp_path / "a", [], D)
    assert len(ApproximateIndex.open(tmp_path / "a")) == 0


def test_one_build_at_a_time(gallery: Rows, tmp_path: Path) -> None:
    path = tmp_path / "a"

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "train":
            with pytest.raises(IndexUnavailable, match="another process"):
                ann.build(path, [], D)
            raise _Stop

    with pytest.raises(_Stop):
        ann.build(path, batches(gallery), D, progress)


# ---- damaged and foreign files ----


def test_a_file_cut_anywhere_is_refused_and_built_again(copy: Path, gallery: Rows) -> None:
    whole = copy.read_bytes()
    for size in (0, 5, 63, 64, 1000, len(whole) // 2, len(whole) - 1):
        copy.write_bytes(whole[:size])
        with pytest.raises(IndexCorrupt) as caught:
            ApproximateIndex.open(copy)
        assert str(copy) in str(caught.value)
    assert len(ann.build(copy, batches(gallery), D)) == N


def test_a_flipped_bit_anywhere_is_refused(copy: Path) -> None:
    whole = bytearray(copy.read_bytes())
    rng = np.random.default_rng(1)
    table = json.loads(whole[struct.unpack_from("<Q", whole, 16)[0] :])
    inside = [place + count // 2 for place, count, _ in table["sections"].values() if count]
    for at in [*range(64), *inside, *rng.integers(len(whole) - 500, len(whole), 20).tolist()]:
        if 52 <= (at % len(whole)) + 8 < 60:  # nothing is kept there
            continue
        damaged = bytearray(whole)
        damaged[at] ^= 4
        copy.write_bytes(damaged)
        with pytest.raises((IndexCorrupt, IndexVersion)):
            ApproximateIndex.open(copy)


def test_damaged_embeddings_are_noticed_when_asked(copy: Path) -> None:
    rows = rows_file(copy)
    damaged = bytearray(rows.read_bytes())
    damaged[5000] ^= 1
    rows.write_bytes(damaged)
    with pytest.raises(IndexCorrupt, match="embeddings 0 to 4095"):
        ApproximateIndex.open(copy).verify()


def test_embeddings_that_are_missing_cut_or_of_another_index_are_refused(copy: Path, gallery: Rows) -> None:
    rows = rows_file(copy)
    whole = rows.read_bytes()
    for wrong in (whole[:-1], whole[:100], b"", b"x" * len(whole)):
        rows.write_bytes(wrong)
        with pytest.raises(IndexCorrupt):
            ApproximateIndex.open(copy)
    rows.unlink()
    with pytest.raises(IndexUnavailable):
        ApproximateIndex.open(copy)
    assert len(ann.build(copy, batches(gallery), D)) == N


def test_a_newer_file_is_left_alone(copy: Path) -> None:
    whole = bytearray(copy.read_bytes())
    struct.pack_into("<I", whole, 8, 2)
    struct.pack_into("<I", whole, 60, zlib.crc32(whole[:60]))
    copy.write_bytes(whole)
    with pytest.raises(IndexVersion, match="format 2"):
        ApproximateIndex.open(copy)
    with pytest.raises(IndexVersion):
        ann.build(copy, [], D)
    assert copy.read_bytes() == whole


def test_a_file_of_somebody_else_is_left_alone_unless_told(tmp_path: Path, gallery: Rows) -> None:
    path = tmp_path / "holiday.jpg"
    path.write_bytes(b"\xff\xd8\xff" + bytes(1000))
    with pytest.raises(IndexCorrupt):
        ann.build(path, batches(gallery), D)
    index = ApproximateIndex(D)
    with pytest.raises(IndexCorrupt):
        index.save(path)
    assert path.stat().st_size == 1003
    assert len(ann.build(path, batches(gallery[:100], IDS[:100]), D, replace=True)) == 100


def test_a_damaged_half_built_index_is_begun_again(gallery: Rows, tmp_path: Path) -> None:
    path = tmp_path / "a"

    def stop(stage: str, *_: int) -> None:
        if stage == "code":
            raise _Stop

    with pytest.raises(_Stop):
        ann.build(path, batches(gallery), D, stop)
    half = ann_file.building_path(path)
    half.write_bytes(half.read_bytes()[:-3])
    assert len(ann.build(path, batches(gallery), D)) == N


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(IndexUnavailable):
        ann.build(tmp_path / "missing" / "a", [], D)
    with pytest.raises(IndexUnavailable):
        ApproximateIndex.open(tmp_path / "none")
    with pytest.raises(IndexUnavailable):
        ApproximateIndex(D).save(tmp_path / "missing" / "a")


def test_an_index_of_another_dimension_is_not_extended(copy: Path) -> None:
    with pytest.raises(DimensionMismatch):
        ann.build(copy, [], D + 1)


# ---- threads, the library ----


def test_searching_while_faces_come_and_go(copy: Path, gallery: Rows, probes: Rows) -> None:
    index = ApproximateIndex.open(copy)
    stop, wrong = threading.Event(), []
    removed: set[int] = set()

    def look() -> None:
        while not stop.is_set():
            gone = set(removed)
            try:
                ids = index.search(probes[:8], 10, threads=1)[1]
                if gone & set(ids.ravel().tolist()):
                    wrong.append("a removed face was answered")
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    newer = data.gallery(400, D, seed=7)
    for i in range(40):
        index.add(newer[i * 10 : i * 10 + 10], np.arange(10) + 90_000 + 10 * i)
        index.remove(IDS[i * 50 : i * 50 + 50])
        removed.update(IDS[i * 50 : i * 50 + 50].tolist())
        if i % 10 == 9:
            index.save(copy)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(index) == N + 400 - 2000
    ApproximateIndex.open(copy).verify()


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SearchDriverMissing, match=r"pip install 'facedex\[ann\]'") as caught:
        ApproximateIndex(D)
    assert caught.value.package == "faiss-cpu"


def test_importing_the_module_does_not_import_the_library() -> None:
    code = "import sys, facedex.search.ann; sys.exit('faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
