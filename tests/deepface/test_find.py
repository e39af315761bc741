"""``find``: a folder's faces are kept in it, and the gallery follows what happens to the folder."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drawn import ANN, BOB, CY, DEE, Draw
from facedex import DeepFace
from facedex.errors import ArgumentInvalid, ExtraMissing, NoFaceFound, PhotoNotFound, SourceEmpty, StoreUnavailable
from facedex.models.synthetic import SyntheticDetector

GALLERY = ".facedex-sface-yunet.db"
COLUMNS = [
    *("identity", "hash", "target_x", "target_y", "target_w", "target_h", "threshold"),
    *("source_x", "source_y", "source_w", "source_h", "distance", "confidence"),
]  # fmt: skip


@pytest.fixture
def folder(draw: Draw, tmp_path: Path) -> Path:
    """Two photos of Ann, one of Bob, a wall."""
    draw("db/Ann/1.jpg", ANN, variation=0.5, seed=1)
    draw("db/Ann/2.jpg", ANN, variation=0.5, seed=2)
    draw("db/Bob/1.jpg", BOB, variation=0.5, seed=3)
    draw("db/wall.jpg")
    return tmp_path / "db"


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many photos went through the detector since it was last asked."""
    seen: list[Any] = []
    detect = SyntheticDetector.detect
    monkeypatch.setattr(SyntheticDetector, "detect", lambda self, images: seen.extend(images) or detect(self, images))

    def count() -> int:
        number = len(seen)
        seen.clear()
        return number

    return count


def names(answer: list[Any], folder: Path) -> list[list[str]]:
    return [[os.path.relpath(path, folder) for path in table["identity"]] for table in answer]


def test_find_gives_a_table_of_the_folders_photos_of_that_person(folder: Path, draw: Draw) -> None:
    (table,) = answer = DeepFace.find(draw("who.jpg", ANN), str(folder))
    assert sorted(names(answer, folder)[0]) == ["Ann/1.jpg", "Ann/2.jpg"]
    assert list(table.columns) == COLUMNS
    assert (table["distance"].diff().dropna() >= 0).all()
    assert (table["distance"] <= table["threshold"]).all()
    assert list(table["identity"]) == [path for path in table["identity"] if path.startswith(str(folder))]
    area = DeepFace.represent(table["identity"][0])[0]["facial_area"]
    assert [table[f"target_{side}"][0] for side in "xywh"] == [area[side] for side in "xywh"]


def test_a_party_gets_a_table_for_each_face_and_a_stranger_an_empty_one(folder: Path, draw: Draw) -> None:
    answer = DeepFace.find(draw("party.jpg", BOB, DEE), folder)
    assert names(answer, folder) == [["Bob/1.jpg"], []]
    assert list(answer[1].columns) == COLUMNS
    assert [list(rows) for rows in DeepFace.find(draw("d.jpg", DEE), folder, return_type="dict")] == [[]]


def test_the_second_run_looks_at_the_probe_only(folder: Path, draw: Draw, looked_at: Callable[[], int]) -> None:
    probe = draw("who.jpg", ANN)
    first = DeepFace.find(probe, folder)
    assert looked_at() == 4 + 1
    second = DeepFace.find(probe, folder)
    assert looked_at() == 1
    assert second[0].equals(first[0])


def test_added_changed_moved_and_removed_photos_are_noticed(
    folder: Path, draw: Draw, looked_at: Callable[[], int]
) -> None:
    probe = draw("who.jpg", ANN)
    DeepFace.find(probe, folder)
    looked_at()
    draw("db/Ann/3.jpg", ANN, variation=0.5, seed=5)  # added
    draw("db/Ann/1.jpg", CY)  # replaced by another person
    draw("db/Bob/1.jpg", ANN, variation=0.5, seed=6)  # the other way round
    (folder / "Ann/2.jpg").rename(folder / "moved.jpg")
    (folder / "wall.jpg").unlink()
    assert sorted(names(DeepFace.find(probe, folder), folder)[0]) == ["Ann/3.jpg", "Bob/1.jpg", "moved.jpg"]
    assert looked_at() == 3 + 1  # not the one that only moved
    assert names(DeepFace.find(draw("c.jpg", CY), folder), folder) == [["Ann/1.jpg"]]
    shutil.rmtree(folder / "Bob")
    (folder / "moved.jpg").unlink()
    assert names(DeepFace.find(probe, folder), folder) == [["Ann/3.jpg"]]


def test_a_change_that_keeps_size_and_time_of_writing_is_noticed_too(folder: Path, draw: Draw) -> None:
    path = folder / "Bob/1.jpg"
    DeepFace.find(draw("who.jpg", ANN), folder)
    before = path.stat()
    new = draw("new.jpg", ANN, variation=0.5, seed=9).read_bytes()
    longest = max(len(new), before.st_size)
    path.write_bytes(new.ljust(longest, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "Bob/1.jpg" in names(DeepFace.find(draw("who.jpg", ANN), folder), folder)[0]


def test_the_same_photo_in_two_places_is_found_in_both(folder: Path, draw: Draw) -> None:
    shutil.copy(folder / "Bob/1.jpg", folder / "copy.jpg")
    probe = draw("b.jpg", BOB)
    assert sorted(names(DeepFace.find(probe, folder), folder)[0]) == ["Bob/1.jpg", "copy.jpg"]
    assert len(DeepFace.find(probe, folder, k=1)[0]) == 1
    (folder / "Bob/1.jpg").unlink()
    assert names(DeepFace.find(probe, folder), folder) == [["copy.jpg"]]


def test_without_refreshing_the_folder_is_not_looked_at(folder: Path, draw: Draw) -> None:
    probe = draw("who.jpg", ANN)
    with pytest.raises(StoreUnavailable):
        DeepFace.find(probe, folder, refresh_database=False)
    before = names(DeepFace.find(probe, folder), folder)
    draw("db/Ann/3.jpg", ANN, variation=0.5, seed=5)
    (folder / "Ann/1.jpg").unlink()
    assert names(DeepFace.find(probe, folder, refresh_database=False), folder) == before
    (folder / f"{GALLERY}.json").unlink()
    assert sorted(names(DeepFace.find(probe, folder, refresh_database=False), folder)[0]) == sorted(before[0])


def test_a_lost_or_broken_listing_costs_reading_not_faces(
    folder: Path, draw: Draw, looked_at: Callable[[], int]
) -> None:
    probe, listing = draw("who.jpg", ANN), folder / f"{GALLERY}.json"
    before = DeepFace.find(probe, folder)
    looked_at()
    (folder / "Ann/2.jpg").unlink()
    (folder / "wall.jpg").unlink()
    for broken in ("", "{", '{"version": 99, "photos": {}}', '{"version": 1, "photos": {"a": [1]}}', "[]", None):
        listing.unlink() if broken is None else listing.write_text(broken)
        assert names(DeepFace.find(probe, folder), folder) == [["Ann/1.jpg"]]
        assert looked_at() == 1
    assert set(json.loads(listing.read_text())["photos"]) == {"Ann/1.jpg", "Bob/1.jpg"}
    assert len(before[0]) == 2


def test_an_interrupted_run_goes_on_where_it_was(
    folder: Path, draw: Draw, looked_at: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    import facedex

    monkeypatch.setattr("facedex.engine._PHOTOS_AT_ONCE", 2)
    enroll = facedex.Gallery.enroll

    def interrupted(self: facedex.Gallery, source: Any, **options: Any) -> Any:
        def progress(told: facedex.Progress) -> None:
            raise KeyboardInterrupt

        return enroll(self, source, **{**options, "progress": progress})

    with monkeypatch.context() as patch:
        patch.setattr(facedex.Gallery, "enroll", interrupted)
        with pytest.raises(KeyboardInterrupt):
            DeepFace.find(draw("who.jpg", ANN), folder)
    looked_at()
    (folder / "Ann/1.jpg").unlink()  # one of the two that were enrolled
    assert names(DeepFace.find(draw("who.jpg", ANN), folder), folder) == [["Ann/2.jpg"]]
    assert looked_at() == 2 + 1


def test_a_damaged_photo_costs_nothing_but_itself(folder: Path, draw: Draw) -> None:
    (folder / "broken.jpg").write_bytes(b"not a photo")
    (folder / "empty.jpg").touch()
    assert len(DeepFace.find(draw("who.jpg", ANN), folder)[0]) == 2
    assert len(DeepFace.find(draw("who.jpg", ANN), folder)[0]) == 2


def test_k_threshold_and_similarity_search_say_how_much_comes_back(folder: Path, draw: Draw) -> None:
    probe = draw("who.jpg", ANN)
    assert len(DeepFace.find(probe, folder, k=1)[0]) == 1
    assert len(DeepFace.find(probe, folder, similarity_search=True)[0]) == 3
    assert len(DeepFace.find(probe, folder, similarity_search=True, k=2)[0]) == 2
    assert len(DeepFace.find(probe, folder, threshold=0.0)[0]) == 0
    assert len(DeepFace.find(folder / "Ann/1.jpg", folder, threshold=0.0)[0]) == 1
    assert len(DeepFace.find(probe, folder, threshold=2.0)[0]) == 3
    for k in (0, -1, True, 1.5):
        with pytest.raises(ArgumentInvalid, match="k is"):
            DeepFace.find(probe, folder, k=k)


def test_more_faces_than_a_first_look_takes_all_come_back(
    draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facedex.deepface.rows._FIRST", 1)
    for seed in range(12):
        draw(f"many/{seed}.png", ANN, size=(160, 120), variation=0.5, seed=seed)
    draw("many/bob.png", BOB)
    assert len(DeepFace.find(draw("who.jpg", ANN), tmp_path / "many")[0]) == 12


def test_a_metric_of_ones_own_ranks_the_folder(folder: Path, draw: Draw) -> None:
    def unlike(a: Any, b: Any) -> float:
        return float(1 + a @ b)

    (table,) = DeepFace.find(draw("who.jpg", ANN), folder, distance_metric=unlike, threshold=1.5, k=1)
    assert names([table], folder) == [["Bob/1.jpg"]]
    with pytest.raises(ArgumentInvalid, match="threshold="):
        DeepFace.find(draw("who.jpg", ANN), folder, distance_metric=unlike)


def test_rows_may_be_dicts_and_without_pandas_they_are(
    folder: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = draw("who.jpg", ANN)
    (table,), (rows,) = DeepFace.find(probe, folder), DeepFace.find(probe, folder, return_type="dict")
    assert table.to_dict("records") == rows
    assert DeepFace.find(probe, folder, batched=True) == [rows]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert DeepFace.find(probe, folder) == [rows]
    with pytest.raises(ExtraMissing, match=r"facedex\[deepface\]"):
        DeepFace.find(probe, folder, return_type="pandas")
    with pytest.raises(ArgumentInvalid, match="polars"):
        DeepFace.find(probe, folder, return_type="polars")


def test_a_probe_without_a_face_raises_or_finds_nobody(folder: Path, draw: Draw) -> None:
    wall = draw("wall.png")
    with pytest.raises(NoFaceFound):
        DeepFace.find(wall, folder)
    (table,) = DeepFace.find(wall, folder, enforce_detection=False)
    assert (len(table), list(table.columns)) == (0, COLUMNS)


def test_no_photo_is_ever_embedded_as_a_whole(folder: Path, draw: Draw) -> None:
    import facedex

    DeepFace.find(draw("who.jpg", ANN), folder, enforce_detection=False)
    with facedex.open(folder / GALLERY) as gallery:
        assert gallery.count() == 3


def test_what_is_no_folder_of_photos_says_so(draw: Draw, tmp_path: Path) -> None:
    probe = draw("who.jpg", ANN)
    (tmp_path / "nothing").mkdir()
    for wrong, error in (
        (tmp_path / "missing", PhotoNotFound), (probe, PhotoNotFound), (tmp_path / "nothing", SourceEmpty),
        ("s3://bucket/people", ArgumentInvalid), ("ftp://host/people", ArgumentInvalid), (None, PhotoNotFound),
    ):  # fmt: skip
        with pytest.raises(error):
            DeepFace.find(probe, wrong)


def test_the_folder_holds_no_pickle(folder: Path, draw: Draw) -> None:
    DeepFace.find(draw("who.jpg", ANN), folder)
    kept = [path for path in folder.iterdir() if path.name.startswith(".")]
    assert {path.name for path in kept} == {GALLERY, f"{GALLERY}.json"}
    for path in kept:
        with pytest.raises(pickle.UnpicklingError), path.open("rb") as file:
            pickle.load(file)
