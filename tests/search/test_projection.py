"""A saved index is a shortcut, never a source: whatever happens to the file, the answer is the store's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from facedex.errors import ArgumentInvalid
from facedex.search import ExactIndex, reference
from facedex.search.projection import Projection
from facedex.stores.contract import PhotoRecord
from facedex.stores.memory import MemoryStore
from facedex.stores.sqlite import SQLiteStore
from facedex.testing.faces import SPACE, face, unit
from facedex.types import Where

PROBES = np.stack([unit(1, 0, 0, 0), unit(1, 2, 3, 4)])


def enroll(store: SQLiteStore | MemoryStore, count: int, seed: int = 0, label: str = "Ann") -> list[int]:
    rng = np.random.default_rng(seed)
    faces = [face(f"{seed}-{n}.jpg", label, towards=rng.normal(size=4)) for n in range(count)]
    return [added.id for (added,) in store.add([PhotoRecord(f.photo_digest, (f,)) for f in faces], SPACE)]


def right(projection: Projection, store: SQLiteStore | MemoryStore, k: int = 5) -> bool:
    held = list(store.scan())
    rows = np.stack([h.template.embedding for h in held])
    expected = reference.search(rows, np.array([h.id for h in held], np.int64), PROBES, k)
    found = projection.search(PROBES, k)
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "faces.db") as opened:
        enroll(opened, 200)
        yield opened


@pytest.fixture
def no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading everything from the store fails: only the saved index can answer."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the store was read from the beginning")

    monkeypatch.setattr(SQLiteStore, "embedding_batches", forbidden)


def test_a_saved_index_answers_without_reading_the_store_again(
    store: SQLiteStore, request: pytest.FixtureRequest
) -> None:
    saved = Projection(store).save()
    assert (saved.rows, saved.behind, saved.path.exists()) == (200, 0, True)
    request.getfixturevalue("no_build")
    assert right(Projection(store), store)


def test_saving_holds_no_rows_in_memory(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("rows were added to an index in memory")

    steps: list[tuple[int, int]] = []
    with monkeypatch.context() as patch:
        patch.setattr(ExactIndex, "add", forbidden)
        saved = Projection(store).save(lambda done, total: steps.append((done, total)))
    assert (saved.rows, saved.behind) == (200, 0)
    assert steps[-1] == (200, 200)
    assert right(Projection(store), store)


def test_a_face_deleted_while_the_file_is_written_is_not_in_it(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, victim = SQLiteStore.embedding_batches, next(store.scan())
    gone = victim.template.embedding

    def deleting(self: SQLiteStore, after: int = 0, batch: int = 8192) -> Iterator[object]:
        yield from batches(self, after, batch)
        self.delete(Where(photos=frozenset({victim.template.photo_digest})))

    monkeypatch.setattr(SQLiteStore, "embedding_batches", deleting)
    saved = Projection(store).save()
    assert saved.rows == 199
    assert gone.tobytes() not in saved.path.read_bytes()
    assert right(Projection(store), store)


def test_what_is_enrolled_after_saving_is_found(store: SQLiteStore, request: pytest.FixtureRequest) -> None:
    Projection(store).save()
    ids = enroll(store, 30, seed=1)
    store.relabel(ids[:5], "Bob")
    request.getfixturevalue("no_build")
    again = Projection(store)
    assert right(again, store)
    (told,) = again.saved()
    assert told.behind == 35


def test_a_deletion_anywhere_removes_the_file_and_is_never_answered(store: SQLiteStore, tmp_path: Path) -> None:
    gone = enroll(store, 10, seed=2, label="Bob")
    path = Projection(store).save().path
    searcher = Projection(store)
    assert right(searcher, store)
    with SQLiteStore(tmp_path / "faces.db") as elsewhere:  # as another process would, knowing nothing of an index
        assert elsewhere.delete(Where(labels=frozenset({"Bob"}))) == 10
    assert right(searcher, store)
    assert not set(searcher.search(PROBES, 210)[1].flat) & set(gone)
    assert not path.exists()


def test_a_searcher_that_opens_after_a_deletion_it_slept_through_removes_the_file(store: SQLiteStore) -> None:
    path = Projection(store).save().path
    store.delete(Where(photos=frozenset({next(store.scan()).template.photo_digest})))
    assert path.exists()
    assert right(Projection(store), store)
    assert not path.exists()


@pytest.mark.parametrize("place", [0, 9, 40, 64, 4096, 5000, 0.3, 0.6, 0.9, -1])
def test_a_damaged_file_costs_time_not_answers(store: SQLiteStore, place: float) -> None:
    path = Projection(store).save().path
    data = bytearray(path.read_bytes())
    at = int(len(data) * place) if isinstance(place, float) else place
    data[at] ^= 0xFF
    path.write_bytes(data)
    found, ids = Projection(store).search(PROBES, 5)
    held = list(store.scan())
    rows = np.stack([h.template.embedding for h in held])
    expected = reference.search(rows, np.array([h.id for h in held], np.int64), PROBES, 5)
    assert np.array_equal(ids, expected[1])
    np.testing.assert_allclose(found, expected[0], atol=1e-6)


@pytest.mark.parametrize("size", [0, 10, 100, 5000])
def test_a_file_cut_short_is_not_used(store: SQLiteStore, size: int) -> None:
    path = Projection(store).save().path
    path.write_bytes(path.read_bytes()[:size])
    assert right(Projection(store), store)


def test_the_index_of_another_gallery_under_our_name_is_not_used(store: SQLiteStore, tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "other.db") as other:
        enroll(other, 200, seed=7)
        shutil.copy(Projection(other).save().path, str(store.index_path))
    assert Projection(store).saved() == []
    assert right(Projection(store), store)


def test_an_older_copy_of_the_gallery_put_back_does_not_meet_the_newer_index(tmp_path: Path) -> None:
    path = tmp_path / "faces.db"
    with SQLiteStore(path) as store:
        enroll(store, 50)
    shutil.copy(path, tmp_path / "backup.db")
    with SQLiteStore(path) as store:
        enroll(store, 50, seed=1)
        Projection(store).save()
    shutil.copy(tmp_path / "backup.db", path)
    with SQLiteStore(path) as store:
        assert right(Projection(store), store), "the index is newer than the store"
        enroll(store, 80, seed=2)  # the same numbers, other faces
        assert right(Projection(store), store)


def test_a_store_without_a_place_or_without_faces_saves_nothing(tmp_path: Path) -> None:
    with MemoryStore() as memory:
        enroll(memory, 3)
        with pytest.raises(ArgumentInvalid, match="no place"):
            Projection(memory).save()
    with SQLiteStore(tmp_path / "empty.db") as empty, pytest.raises(ArgumentInvalid, match="no templates"):
        Projection(empty).save()


# ---- the approximate index


@pytest.fixture
def ann() -> None:
    pytest.importorskip("faiss", reason="the extra facedex[ann] is not installed")


def approximately_right(projection: Projection, store: SQLiteStore, k: int = 5) -> bool:
    held = {h.id: h.template.embedding for h in store.scan()}
    similarities, ids = projection.search(PROBES, k, mode="ann")
    exact, _ = projection.search(PROBES, k, mode="exact")
    scored = all(
        abs(float(held[int(id)] @ probe) - similarity) < 1e-6
        for probe, row, row_ids in zip(PROBES, similarities, ids, strict=True)
        for similarity, id in zip(row, row_ids, strict=True)
    )
    return scored and bool(np.allclose(similarities, exact, atol=1e-6))


@pytest.mark.usefixtures("ann")
def test_the_approximate_index_follows_enrollments_and_deletions(store: SQLiteStore) -> None:
    saved = Projection(store).approximate()
    assert (saved.kind, saved.rows) == ("ann", 200)
    assert saved.recall >= 0.99
    projection = Projection(store)
    assert approximately_right(projection, store)
    gone = enroll(store, 20, seed=3, label="Bob")
    assert approximately_right(projection, store)
    store.delete(Where(labels=frozenset({"Bob"})))
    assert approximately_right(projection, store)
    assert not set(projection.search(PROBES, 150, mode="ann")[1].flat) & set(gone)
    again = Projection(store)
    again.approximate()
    assert approximately_right(again, store)


@pytest.mark.usefixtures("ann")
def test_a_deleted_embedding_leaves_the_files_of_the_approximate_index(store: SQLiteStore) -> None:
    victim = next(store.scan()).template
    path = Projection(store).approximate().path
    holds = [f for f in path.parent.glob(f"{path.name}*") if victim.embedding.tobytes() in f.read_bytes()]
    assert holds, "the embeddings should be somewhere before"
    store.delete(Where(photos=frozenset({victim.photo_digest})))
    Projection(store).forget()
    assert not any(victim.embedding.tobytes() in f.read_bytes() for f in path.parent.glob(f"{path.name}*"))


@pytest.mark.usefixtures("ann")
def test_the_approximate_index_of_another_gallery_is_not_used(store: SQLiteStore, tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "other.db") as other:
        enroll(other, 200, seed=7)
        Projection(other).approximate()
    for file in tmp_path.glob("other.db.ann*"):
        shutil.copy(file, tmp_path / file.name.replace("other.db", "faces.db"))
    with pytest.raises(ArgumentInvalid, match="no approximate index"):
        Projection(store).search(PROBES, 5, mode="ann")
    Projection(store).approximate()
    assert approximately_right(Projection(store), store)


def test_auto_stays_exact_without_a_measured_gain_and_ann_says_what_is_missing(store: SQLiteStore) -> None:
    assert right(Projection(store), store)
    with pytest.raises(ArgumentInvalid, match="index build --approximate"):
        Projection(store).search(PROBES, 5, mode="ann")
    with pytest.raises(ArgumentInvalid, match="mode must be"):
        Projection(store).search(PROBES, 5, mode="fast")  # type: ignore[arg-type]


@pytest.mark.usefixtures("ann")
def test_auto_takes_the_approximate_index_where_it_pays(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    Projection(store).approximate()
    monkeypatch.setattr("facedex.search.projection.AUTO_ROWS", 100)
    monkeypatch.setattr("facedex.search.projection.AUTO_SHARE", 1.0)
    monkeypatch.setattr("facedex.search.projection._Exact.search", None)
    projection = Projection(store)
    projection.search(PROBES[:1], 5)
    with pytest.raises(TypeError):  # batches and filters go to the exact index, which is not there now
        projection.search(PROBES, 5)
