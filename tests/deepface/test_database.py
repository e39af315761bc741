"""``register``, ``search``, ``identify``, ``build_index``: DeepFace's database calls over a store of ours."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import facedex
from drawn import ANN, BOB, CY, DEE, Draw
from facedex import DeepFace
from facedex.deepface import database
from facedex.deepface.models import engine_for
from facedex.errors import ArgumentInvalid, NoFaceFound, PhotoNotFound, PhotoUnreadable, StoreUnavailable
from facedex.models.synthetic import draw_photo
from servers.fixtures import Servers

COLUMNS = [
    *("id", "img_name", "model_name", "detector_backend", "aligned", "l2_normalized", "search_method"),
    *("target_x", "target_y", "target_w", "target_h", "threshold", "distance_metric", "distance", "confidence"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def sqlite_by_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "faces.db"
    monkeypatch.setenv("DEEPFACE_DATABASE_TYPE", "sqlite")
    monkeypatch.setenv("DEEPFACE_SQLITE_PATH", str(path))
    return path


@pytest.fixture
def memory() -> Iterator[facedex.Gallery]:
    with engine_for("SFace", "yunet").open("memory://") as gallery:
        yield gallery


def rows(probe: Any, **options: Any) -> list[list[dict[str, Any]]]:
    return DeepFace.search(probe, return_type="dict", **options)


def test_one_photo_and_a_list_are_registered_and_found(draw: Draw) -> None:
    one, two, three = (str(draw(f"img{n}.jpg", who, variation=0.5, seed=n)) for n, who in enumerate((ANN, ANN, BOB)))
    assert DeepFace.register(img=one) == {"inserted": 1}
    assert DeepFace.register(img=[two, three]) == {"inserted": 2}
    dfs = DeepFace.search(img=draw("target.jpg", ANN))
    (df,) = dfs
    assert list(df.columns) == COLUMNS
    assert sorted(df["img_name"]) == [one, two]
    assert (df["distance"].diff().dropna() >= 0).all()
    best = df.iloc[0]
    area = DeepFace.represent(best["img_name"])[0]["facial_area"]
    assert [best[f"target_{side}"] for side in "xywh"] == [area[side] for side in "xywh"]
    assert (best["model_name"], best["detector_backend"], best["search_method"]) == ("SFace", "yunet", "exact")
    assert (best["aligned"], best["l2_normalized"], best["distance_metric"]) == (True, False, "cosine")


def test_every_face_of_a_photo_is_a_row_of_that_photo(draw: Draw) -> None:
    assert DeepFace.register(draw("party.png", ANN, BOB, CY), img_name="party") == {"inserted": 3}
    (found,) = rows(draw("b.jpg", BOB), similarity_search=True)
    assert [row["img_name"] for row in found] == ["party"] * 3
    assert len({row["id"] for row in found}) == 3


def test_what_is_there_already_is_not_inserted_again(draw: Draw) -> None:
    photo = draw("a.jpg", ANN)
    assert DeepFace.register(photo) == {"inserted": 1}
    assert DeepFace.register(photo) == {"inserted": 0}
    assert DeepFace.register([photo, draw("b.jpg", BOB)]) == {"inserted": 1}


def test_arrays_are_bgr_and_a_stack_is_a_list(draw: Draw) -> None:
    stack = np.stack([draw_photo((ANN,)), draw_photo((BOB,))])[..., ::-1]
    assert DeepFace.register(stack) == {"inserted": 2}
    (found,) = rows(draw("a.png", ANN))
    assert found[0]["distance"] == 0
    assert len(found[0]["img_name"]) == 36  # a random name


def test_each_probe_face_has_its_table_in_order(draw: Draw) -> None:
    DeepFace.register([draw("a.jpg", ANN), draw("b.jpg", BOB)])
    found = rows([draw("party.png", BOB, DEE), draw("who.png", ANN)])
    assert [[Path(row["img_name"]).name if "." in row["img_name"] else row for row in some] for some in found]
    assert [len(some) for some in found] == [1, 0, 1]


@pytest.mark.parametrize("asked", [{"search_type": "ann"}, {"search_method": "ann"}])
@pytest.mark.parametrize("indexed", [False, True])
def test_ann_answers_with_and_without_an_index_and_after_more_were_registered(
    draw: Draw, asked: dict[str, str], indexed: bool
) -> None:
    DeepFace.register([draw("a.jpg", ANN), draw("b.jpg", BOB)])
    if indexed:
        pytest.importorskip("faiss", reason="the extra facedex[ann] is not installed")
        assert DeepFace.build_index() is None
    DeepFace.register(draw("a2.jpg", ANN, variation=0.5, seed=2))
    (found,) = rows(draw("who.jpg", ANN), **asked)
    assert [row["search_method"] for row in found] == ["ann", "ann"]
    assert DeepFace.build_index() is None  # again: nothing to do, or to add


def test_an_index_of_nothing_is_not_built(draw: Draw) -> None:
    with pytest.raises(NoFaceFound):
        DeepFace.register(draw("wall.png"))
    assert DeepFace.build_index() is None
    assert rows(draw("a.jpg", ANN)) == [[]]


def test_a_metric_ranks_alike_and_a_threshold_of_ones_own_wins(draw: Draw) -> None:
    DeepFace.register([draw("a.jpg", ANN, variation=0.5, seed=1), draw("b.jpg", BOB)])
    probe = draw("who.jpg", ANN)
    for metric in ("cosine", "euclidean", "euclidean_l2", "angular"):
        (found,) = rows(probe, distance_metric=metric)
        assert [row["distance_metric"] for row in found] == [metric]
        assert found[0]["threshold"] == DeepFace.find_threshold("SFace", metric)
    assert rows(probe, threshold=0.0) == [[]]
    assert len(rows(probe, threshold=2.0)[0]) == 2
    assert len(rows(probe, similarity_search=True, k=1)[0]) == 1


def test_search_decides_as_verify_does(draw: Draw) -> None:
    photos = [draw(f"{n}.jpg", who, variation=0.5, seed=n) for n, who in enumerate((ANN, BOB, CY))]
    DeepFace.register(photos)
    probe = draw("who.jpg", ANN)
    (found,) = rows(probe, similarity_search=True)
    for row in found:
        told = DeepFace.verify(row["img_name"], probe)
        assert (row["distance"], row["confidence"], row["threshold"]) == pytest.approx(
            (told["distance"], told["confidence"], told["threshold"]), abs=1e-5
        )


def test_photos_without_a_face_raise_or_are_passed_over_and_the_others_are_kept(draw: Draw) -> None:
    wall, ann = draw("wall.png"), draw("a.jpg", ANN)
    with pytest.raises(NoFaceFound, match="wall"):
        DeepFace.register(wall)
    with pytest.raises(NoFaceFound, match=r"1 of 2 photos.*1 faces of the others are registered"):
        DeepFace.register([wall, ann])
    assert DeepFace.register([wall, draw("b.jpg", BOB)], enforce_detection=False) == {"inserted": 1}
    assert DeepFace.register(wall, enforce_detection=False) == {"inserted": 0}
    assert len(rows(ann, similarity_search=True)[0]) == 2
    with pytest.raises(NoFaceFound):
        rows(wall)
    assert rows(wall, enforce_detection=False) == []


def test_photos_that_cannot_be_used_raise_and_the_others_are_kept(draw: Draw, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a photo")
    with pytest.raises(PhotoUnreadable, match="broken"):
        DeepFace.register(broken)
    with pytest.raises(PhotoUnreadable, match=r"1 of 2 photos.*broken"):
        DeepFace.register([broken, draw("a.jpg", ANN)])
    with pytest.raises(PhotoNotFound):
        DeepFace.register([draw("b.jpg", BOB), tmp_path / "missing.jpg"])
    assert len(rows(draw("who.jpg", ANN), similarity_search=True)[0]) == 1


def test_each_model_detector_alignment_and_normalization_has_its_own_gallery(draw: Draw, tmp_path: Path) -> None:
    DeepFace.register(draw("a.jpg", ANN))
    for other in ({"align": False}, {"l2_normalize": True}, {"detector_backend": "skip"}):
        with pytest.raises(StoreUnavailable):
            rows(draw("who.jpg", ANN), **other)
    assert [path.name for path in tmp_path.glob("faces*.db")] == ["faces.deepface_sface_yunet_aligned.db"]
    DeepFace.register(draw("a.jpg", ANN), align=False, l2_normalize=True)
    (found,) = rows(draw("who.jpg", ANN), align=False, l2_normalize=True)
    assert (found[0]["aligned"], found[0]["l2_normalized"]) == (False, True)


def test_identify_compares_with_one_registered_face(draw: Draw) -> None:
    DeepFace.register([draw("a.jpg", ANN), draw("b.jpg", BOB)])
    (found,) = rows(draw("who.jpg", ANN))
    told = DeepFace.identify(draw("party.png", BOB, ANN), found[0]["id"])
    assert told["verified"]
    assert (told["id"], told["img_name"]) == (found[0]["id"], found[0]["img_name"])
    assert told["facial_areas"]["img1"] == DeepFace.represent(draw("party.png", BOB, ANN))[1]["facial_area"]
    assert not DeepFace.identify(draw("who.jpg", DEE), str(found[0]["id"]))["verified"]
    for wrong in (99, "a", -1):
        with pytest.raises(ArgumentInvalid, match="identity_id"):
            DeepFace.identify(draw("who.jpg", ANN), wrong)


def test_an_open_gallery_may_stand_for_a_connection(draw: Draw, memory: facedex.Gallery) -> None:
    assert DeepFace.register(draw("a.jpg", ANN), connection=memory) == {"inserted": 1}
    assert len(rows(draw("who.jpg", ANN), connection=memory)[0]) == 1
    assert memory.count() == 1
    with pytest.raises(ArgumentInvalid, match=r"facedex\.Gallery"):
        DeepFace.search(draw("who.jpg", ANN), connection=sqlite3.connect(":memory:"))


def test_a_gallery_of_ours_is_searched_by_deepfaces_call(draw: Draw, engine: facedex.Engine, tmp_path: Path) -> None:
    with engine.open(tmp_path / "ours.db") as gallery:
        gallery.enroll(draw("Ann/1.jpg", ANN), label="Ann")
        (found,) = rows(draw("who.jpg", ANN), connection=gallery)
    assert found[0]["img_name"] == str(tmp_path / "Ann/1.jpg")


def test_a_wrong_method_and_a_missing_database_say_so(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = draw("who.jpg", ANN)
    with pytest.raises(ArgumentInvalid, match="fuzzy"):
        DeepFace.search(probe, search_method="fuzzy")
    with pytest.raises(StoreUnavailable):
        DeepFace.search(probe)
    monkeypatch.delenv("DEEPFACE_DATABASE_TYPE")
    with pytest.raises(ArgumentInvalid, match="DEEPFACE_POSTGRES_URI"):
        DeepFace.register(probe)
    with pytest.raises(ArgumentInvalid, match="redis"):
        DeepFace.register(probe, database_type="redis")


def test_threads_register_and_search_at_once(draw: Draw) -> None:
    photos = [draw(f"{n}.png", n + 1, size=(160, 120)) for n in range(12)]
    DeepFace.register(photos[0])
    wrong: list[Exception] = []

    def work(some: list[Path]) -> None:
        try:
            for photo in some:
                DeepFace.register(photo)
                assert str(photo) in {row["img_name"] for row in rows(photo)[0]} or rows(photo)[0]
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(photos[n::3],)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(rows(photos[0], similarity_search=True)[0]) == 12


@pytest.fixture
def postgres(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """DeepFace's default database: nothing is said in the call."""
    import psycopg

    url = servers.url("postgres")
    monkeypatch.delenv("DEEPFACE_DATABASE_TYPE")
    monkeypatch.setenv("DEEPFACE_POSTGRES_URI", url)
    yield {}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA deepface_sface_yunet_aligned CASCADE")


@pytest.fixture
def mongo(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    import pymongo

    url = servers.url("mongodb")
    monkeypatch.setenv("DEEPFACE_MONGO_URI", url)
    yield {"database_type": "mongo"}
    with pymongo.MongoClient(url) as client:
        assert "deepface_sface_yunet_aligned" in client.list_database_names()
        client.drop_database("deepface_sface_yunet_aligned")


@pytest.mark.parametrize("server", ["postgres", "mongo"])
def test_the_published_lines_run_on_real_servers(draw: Draw, request: pytest.FixtureRequest, server: str) -> None:
    where = request.getfixturevalue(server)
    one, two, three = (str(draw(f"img{n}.jpg", who, variation=0.5, seed=n)) for n, who in enumerate((ANN, ANN, BOB)))
    try:
        assert DeepFace.register(img=one, **where) == {"inserted": 1}
        assert DeepFace.register(img=[two, three], **where) == {"inserted": 2}
        assert DeepFace.build_index(**where) is None
        for options in ({}, {"search_type": "ann"}, {"search_method": "ann"}):
            (found,) = rows(draw("target.jpg", ANN), **options, **where)
            assert sorted(row["img_name"] for row in found) == [one, two]
        if server == "postgres":
            assert len(rows(draw("target.jpg", ANN), database_type="pgvector")[0]) == 2
    finally:
        database._close()
