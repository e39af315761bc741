"""A gallery moved between stores, or out into a file and in again, holds the same; and nothing half done passes."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facedex.errors import (
    ArgumentInvalid,
    ExportInvalid,
    ExportUnavailable,
    ExportVersion,
    ExtraMissing,
    SpaceMismatch,
    TransferMismatch,
)
from facedex.stores import parquet, transfer
from facedex.stores.contract import PhotoRecord, Store
from facedex.stores.memory import MemoryStore
from facedex.stores.registry import open_store
from facedex.stores.transfer import copy, digest
from facedex.testing.faces import OTHER_SPACE, SPACE, face, photo, same_template
from facedex.types import Template, Where

pytest.importorskip("pyarrow", reason="the extra facedex[parquet] is not installed")
import pyarrow as pa
import pyarrow.parquet as pq

NOON = datetime(2026, 3, 4, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[str], Store]]:
    """``opened("memory")`` or ``opened("a.db")``: a new store, or the file again."""
    stores: list[Store] = []

    def make(name: str) -> Store:
        stores.append(open_store("memory://" if name == "memory" else tmp_path / name))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def fill(store: Store, photos: int = 6) -> Store:
    """Ann, Bob and nobody, two faces in every third photo, a wall, different days."""
    for n in range(photos):
        name = f"{n}.jpg"
        faces = [face(name, ("Ann", "Bob", None)[n % 3], at=10.0 + n, towards=(1.0, n, 2.0), metadata={"n": n})]
        if n % 3 == 0:
            faces.append(face(name, "Cy", at=90.5, towards=(0.0, 1.0, n), link=""))
        store.add([PhotoRecord(photo(name, *faces).digest, tuple(faces), NOON + timedelta(days=n))], SPACE)
    store.add([photo("wall.jpg"), photo("sky.jpg")], SPACE)
    return store


def contents(store: Store) -> list[tuple[Template, datetime]]:
    return [(stored.template, stored.enrolled_at) for stored in store.scan()]


def alike(one: Store, other: Store) -> bool:
    ours, theirs = contents(one), contents(other)
    return (
        len(ours) == len(theirs)
        and all(same_template(a, b) and at == bt for (a, at), (b, bt) in zip(ours, theirs, strict=True))
        and one.faceless() == other.faceless()
    )


# ---- copies


@pytest.mark.parametrize("source", ["memory", "a.db"])
@pytest.mark.parametrize("target", ["memory", "b.db"])
def test_a_copy_holds_the_same_in_the_same_order(opened: Callable[[str], Store], source: str, target: str) -> None:
    one, other = fill(opened(source)), opened(target)
    done = copy(one, other)
    assert alike(one, other)
    assert (done.templates, done.new, done.faceless) == (8, 8, 2)
    assert done.digest == digest(one) == digest(other)
    assert other.space() == SPACE


@pytest.mark.parametrize("url", ["postgres_url", "mongodb_url"])
def test_a_gallery_goes_to_a_server_and_back(
    opened: Callable[[str], Store], tmp_path: Path, request: pytest.FixtureRequest, url: str
) -> None:
    one, back = fill(opened("a.db")), opened("back.db")
    with open_store(request.getfixturevalue(url)) as server:
        copy(one, server)
        assert alike(one, server)
        assert copy(server, back).digest == digest(one)
        parquet.export(server, tmp_path / "faces.parquet")
    assert alike(one, back)
    assert parquet.import_into(back, tmp_path / "faces.parquet").new == 0


def test_copying_again_changes_nothing(opened: Callable[[str], Store]) -> None:
    one, other = fill(opened("memory")), opened("b.db")
    copy(one, other)
    before = other.sequence()
    done = copy(one, other)
    assert (done.templates, done.new, other.sequence()) == (8, 0, before)


def test_an_empty_gallery_is_copied_into_nothing(opened: Callable[[str], Store]) -> None:
    done = copy(opened("memory"), opened("b.db"))
    assert (done.templates, done.new, done.faceless) == (0, 0, 0)


def test_progress_is_told_for_what_is_safe(opened: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PAGE", 3)
    one, other = fill(opened("memory")), opened("b.db")
    told: list[tuple[int, int, int]] = []
    copy(one, other, lambda done, total: told.append((done, total, other.count())))
    assert told[0] == (3, 8, 3)
    assert {(done, total) for done, total, _ in told[-2:]} == {(8, 8)}
    assert all(done == stored for done, _, stored in told)


def test_an_interrupted_copy_goes_on_where_it_was(
    opened: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PAGE", 2)
    one, other = fill(opened("memory"), 12), opened("b.db")

    def interrupt(done: int, total: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(one, other, interrupt)
    assert other.count() == 6
    assert copy(one, other).new == one.count() - 6
    assert alike(one, other)


def test_a_killed_copy_loses_nothing_that_was_told(tmp_path: Path, opened: Callable[[str], Store]) -> None:
    one = fill(opened("a.db"), 60)
    script = """
import os, signal, sys
from facedex.stores import transfer
from facedex.stores.registry import open_store
transfer.PAGE = 8
def told(done, total):
    print(done, flush=True)
    if done >= 40:
        os.kill(os.getpid(), signal.SIGKILL)
transfer.copy(open_store("a.db"), open_store("b.db"), told)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    other = opened("b.db")
    assert other.count() >= int(done.stdout.split()[-1]) >= 40
    copy(one, other)
    assert alike(one, other)


def test_another_model_is_refused_and_nothing_is_written(opened: Callable[[str], Store]) -> None:
    one, other = fill(opened("memory")), opened("b.db")
    other.add([photo("dee.jpg", face("dee.jpg", "Dee", space=OTHER_SPACE))], OTHER_SPACE)
    before = other.sequence()
    with pytest.raises(SpaceMismatch):
        copy(one, other)
    assert other.sequence() == before


def test_a_gallery_is_not_copied_into_itself(opened: Callable[[str], Store]) -> None:
    one = fill(opened("a.db"))
    for same in (one, opened("a.db")):
        with pytest.raises(ArgumentInvalid, match="both"):
            copy(one, same)
    assert copy(fill(opened("memory")), opened("memory")).new == 8


def test_a_target_with_other_content_is_merged_into(opened: Callable[[str], Store]) -> None:
    one, other = fill(opened("memory")), opened("b.db")
    other.add([photo("dee.jpg", face("dee.jpg", "Dee"))], SPACE)
    copy(one, other)
    assert other.count() == 9
    assert {person.label for person in other.people()} == {None, "Ann", "Bob", "Cy", "Dee"}


def _relabeled(store: Store) -> None:
    store.relabel([stored.id for stored in store.scan(Where(labels=frozenset({"Bob"})))][:1], "Rob")


def test_what_the_target_keeps_otherwise_is_named_and_the_rest_is_copied(opened: Callable[[str], Store]) -> None:
    one, other = fill(opened("memory")), opened("b.db")
    copy(one, other)
    _relabeled(other)
    one.add([photo("new.jpg", face("new.jpg", "Ann", at=55))], SPACE)
    with pytest.raises(TransferMismatch, match=r"1\.jpg.*label 'Bob', there 'Rob'; 1 differ in all") as told:
        copy(one, other)
    assert told.value.differing == 1
    assert other.count() == one.count()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"link": "/elsewhere"}, "link"),
        ({"metadata": {"n": 0.0}}, "metadata"),
        ({"detection_score": 0.5}, "detection_score"),
        ({"landmarks": np.ones((5, 2), np.float32)}, "landmark"),
        ({"embedding": np.array([0, 0, 0, 1], np.float32)}, "embedding"),
        ({}, "enrolled at"),
    ],
)
def test_every_field_is_compared(opened: Callable[[str], Store], change: dict[str, Any], said: str) -> None:
    from dataclasses import replace

    one, other = fill(opened("memory")), opened("memory")
    first = next(one.scan())
    at = first.enrolled_at if change else NOON - timedelta(microseconds=1)
    other.add([PhotoRecord(first.template.photo_digest, (replace(first.template, **change),), at)], SPACE)
    with pytest.raises(TransferMismatch, match=said):
        copy(one, other)


def test_a_target_that_lies_is_found_out(opened: Callable[[str], Store], tmp_path: Path) -> None:
    """A byte of an embedding is changed behind the store's back, as bit rot would."""
    one, other = fill(opened("memory")), opened("b.db")
    copy(one, other)
    other.close()
    with closing(sqlite3.connect(tmp_path / "b.db")) as connection, connection:
        blob = bytearray(connection.execute("SELECT embedding FROM face WHERE id = 3").fetchone()[0])
        blob[5] ^= 1
        connection.execute("UPDATE face SET embedding = ? WHERE id = 3", (bytes(blob),))
    with pytest.raises(TransferMismatch, match="another embedding"):
        copy(one, opened("b.db"))


def test_a_source_that_changes_meanwhile_says_so(opened: Callable[[str], Store]) -> None:
    one, other = fill(opened("memory")), opened("b.db")
    added = iter([photo("late.jpg", face("late.jpg", "Ann", at=70))])

    def enroll(done: int, total: int) -> None:
        for late in added:
            one.add([late], SPACE)

    with pytest.raises(TransferMismatch, match="changed while"):
        copy(one, other, enroll)
    copy(one, other)
    assert digest(one) == digest(other)


def test_the_digest_does_not_depend_on_order_but_on_everything_else(opened: Callable[[str], Store]) -> None:
    photos = [
        PhotoRecord(each.digest, each.templates, NOON)
        for each in (photo("a.jpg", face("a.jpg", "Ann")), photo("b.jpg", face("b.jpg", "Bob")), photo("wall.jpg"))
    ]
    one, other = opened("memory"), opened("b.db")
    one.add(photos, SPACE)
    other.add(photos[::-1], SPACE)
    whole = digest(one)
    assert digest(other) == whole
    _relabeled(other)
    assert digest(other) != whole
    one.delete(Where(photos=frozenset({photos[2].digest})))
    assert digest(one) != whole


# ---- files


def test_export_then_import_gives_the_same_gallery(opened: Callable[[str], Store], tmp_path: Path) -> None:
    one, other = fill(opened("a.db")), opened("b.db")
    out = parquet.export(one, tmp_path / "faces.parquet")
    into = parquet.import_into(other, tmp_path / "faces.parquet")
    assert alike(one, other)
    assert out.digest == into.digest == digest(other)
    assert (into.templates, into.new, into.faceless) == (8, 8, 2)
    assert parquet.import_into(other, tmp_path / "faces.parquet").new == 0


LABELS = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
METADATA = st.dictionaries(st.sampled_from(["a", "b", "ü"]), VALUES | st.text("x\u2028'\"", max_size=3), max_size=3)
MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


@st.composite
def photo_records(draw: st.DrawFn) -> list[PhotoRecord]:
    names = draw(st.lists(st.integers(0, 50), unique=True, max_size=6))
    made = []
    for name in names:
        faces = [
            face(f"{name}.jpg", draw(LABELS), at=place * 40 + draw(st.floats(0, 9)), metadata=draw(METADATA))
            for place in range(draw(st.integers(0, 2)))
        ]
        made.append(PhotoRecord(photo(f"{name}.jpg").digest, tuple(faces), draw(MOMENTS)))
    return made


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(photos=photo_records())
def test_any_gallery_survives_copy_export_and_import(photos: list[PhotoRecord], tmp_path: Path) -> None:
    """Memory → SQLite → file → memory."""
    path = tmp_path / "faces.parquet"
    for old in tmp_path.iterdir():
        old.unlink()
    with MemoryStore() as one, open_store(tmp_path / "b.db") as two, MemoryStore() as three:
        if photos:
            one.add(photos, SPACE)
        copy(one, two)
        parquet.export(two, path)
        parquet.import_into(three, path)
        assert alike(one, two)
        assert alike(one, three)
        assert digest(one) == digest(two) == digest(three)


def test_others_can_read_the_file(opened: Callable[[str], Store], tmp_path: Path) -> None:
    one = fill(opened("memory"))
    parquet.export(one, tmp_path / "faces.parquet")
    table = pq.read_table(tmp_path / "faces.parquet")
    assert table.num_rows == 10
    first, last = table.slice(0, 1).to_pylist()[0], table.slice(9, 1).to_pylist()[0]
    assert (first["label"], first["enrolled_at"], len(first["landmarks"])) == ("Ann", NOON, 10)
    assert np.linalg.norm(first["embedding"]) == pytest.approx(1, abs=1e-6)
    assert json.loads(first["metadata"]) == {"n": 0}
    assert {key for key, value in last.items() if value is not None} == {"photo_digest"}
    facts = said(tmp_path / "faces.parquet")
    assert (facts["version"], facts["templates"], facts["faceless"]) == (1, 8, 2)
    assert facts["space"]["dimension"] == 4


def test_large_galleries_go_through_in_row_groups(
    opened: Callable[[str], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PAGE", 3)
    monkeypatch.setattr(parquet, "PAGE", 2)
    one, other = fill(opened("memory")), opened("b.db")
    parquet.export(one, tmp_path / "faces.parquet")
    assert pq.ParquetFile(tmp_path / "faces.parquet").num_row_groups == 4
    parquet.import_into(other, tmp_path / "faces.parquet")
    assert alike(one, other)


def test_a_file_that_is_there_is_replaced_only_when_asked(opened: Callable[[str], Store], tmp_path: Path) -> None:
    path, one = tmp_path / "faces.parquet", fill(opened("memory"))
    path.write_text("dear Ann")
    with pytest.raises(ExportUnavailable, match="there already"):
        parquet.export(one, path)
    assert path.read_text() == "dear Ann"
    parquet.export(one, path, overwrite=True)
    parquet.import_into(opened("b.db"), path)


def test_an_interrupted_export_leaves_nothing_and_what_was_there(
    opened: Callable[[str], Store], tmp_path: Path
) -> None:
    path, one = tmp_path / "faces.parquet", fill(opened("memory"))
    path.write_text("dear Ann")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parquet.export(one, path, overwrite=True, progress=interrupt)
    assert [each.name for each in tmp_path.iterdir()] == ["faces.parquet"]
    assert path.read_text() == "dear Ann"


def test_a_place_that_cannot_be_written_says_so(opened: Callable[[str], Store], tmp_path: Path) -> None:
    one = fill(opened("memory"))
    for wrong in (tmp_path / "missing" / "faces.parquet", tmp_path):
        with pytest.raises(ExportUnavailable):
            parquet.export(one, wrong, overwrite=True)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_says_so(opened: Callable[[str], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: opens(Path("/dev/full"), "wb"))
    with pytest.raises(ExportUnavailable, match="No space"):
        parquet.export(fill(opened("memory")), tmp_path / "faces.parquet")


@pytest.fixture
def exported(opened: Callable[[str], Store], tmp_path: Path) -> Path:
    path = tmp_path / "faces.parquet"
    parquet.export(fill(opened("memory"), 30), path)
    return path


def refused(path: Path, error: type[Exception] = ExportInvalid, match: str | None = None) -> None:
    with MemoryStore() as store:
        with pytest.raises(error, match=match):
            parquet.import_into(store, path)
        assert (store.sequence(), store.space()) == (0, None), "something was written"


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.9, 0.999])
def test_of_half_a_file_nothing_arrives(exported: Path, share: float) -> None:
    data = exported.read_bytes()
    exported.write_bytes(data[: int(len(data) * share)])
    refused(exported)


def test_of_a_file_with_a_flipped_bit_nothing_arrives_or_all_that_it_was(exported: Path) -> None:
    whole, rng = exported.read_bytes(), np.random.default_rng(4)
    with MemoryStore() as store:
        expected = parquet.import_into(store, exported).digest
    for place in rng.integers(0, len(whole), 60):
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(0, 8))
        exported.write_bytes(bytes(data))
        with MemoryStore() as store:
            try:
                assert parquet.import_into(store, exported).digest == expected
            except (ExportInvalid, ExportVersion):
                assert (store.sequence(), store.space()) == (0, None)


def test_a_file_of_somebody_else_is_refused(exported: Path) -> None:
    table = pq.read_table(exported)
    pq.write_table(table.replace_schema_metadata(None), exported)
    refused(exported, match="did not write it")
    exported.write_text("photo,label\na.jpg,Ann\n")
    refused(exported, match="no Parquet file")
    exported.unlink()
    refused(exported, ExportUnavailable)
    exported.mkdir()
    refused(exported, ExportUnavailable)


def rewritten(
    path: Path, change: Callable[[pa.Table], pa.Table] = lambda table: table, options: Any = None, **facts: Any
) -> None:
    """The file again, by another program that kept our metadata."""
    table = pq.read_table(path)
    kept = {b"facedex": json.dumps({**said(path), **facts}).encode()}
    pq.write_table(change(table).replace_schema_metadata(kept), path, **(options or {}))


def said(path: Path) -> dict[str, Any]:
    """What a file says of itself."""
    return json.loads(pq.read_metadata(path).metadata[b"facedex"])


def test_a_file_of_a_newer_facedex_is_refused(exported: Path) -> None:
    rewritten(exported, version=2)
    refused(exported, ExportVersion, "version 2")


@pytest.mark.parametrize(
    "facts",
    [
        {"version": "1"},
        {"version": 0},
        {"version": True},
        {"templates": None},
        {"digest": 5},
        {"space": {"model": "x"}},
        {"space": 3},
    ],
)
def test_a_file_that_says_nonsense_of_itself_is_refused(exported: Path, facts: dict[str, Any]) -> None:
    rewritten(exported, **facts)
    refused(exported)


def _without(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.drop_columns([name])


def _with(name: str, values: Callable[[list[Any]], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        column = pa.array(values(table.column(name).to_pylist()), table.schema.field(name).type)
        return table.set_column(place, name, column)

    return change


def _first(value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [value, *values[1:]]


@pytest.mark.parametrize(
    "change",
    [
        _without("label"),
        lambda table: table.slice(0, 5),
        lambda table: table.rename_columns(["photo", *table.column_names[1:]]),
        lambda table: pa.concat_tables([table, table.slice(0, 1)]),
        _with("label", _first("Mallory")),
        _with("photo_digest", _first(None)),
        _with("photo_digest", _first("x")),
        _with("score", _first(None)),
        _with("enrolled_at", _first(None)),
        _with("metadata", _first("{")),
        _with("metadata", _first("[1]")),
        _with("embedding", _first(None)),
        _with("embedding", _first([0.0, 0.0, 0.0, 0.0])),
        _with("embedding", _first([None, 1.0, 0.0, 0.0])),
        _with("landmarks", _first(None)),
        _with("box", _first(None)),
    ],
)
def test_of_a_file_edited_by_hand_nothing_arrives(exported: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    rewritten(exported, change)
    refused(exported)


def test_other_compression_or_row_groups_do_no_harm(exported: Path) -> None:
    rewritten(exported, options={"compression": "none", "row_group_size": 3})
    with MemoryStore() as store:
        assert parquet.import_into(store, exported).templates == 40


def test_without_pyarrow_the_extra_is_named(
    opened: Callable[[str], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExtraMissing, match=r"facedex\[parquet\]"):
        parquet.export(fill(opened("memory")), tmp_path / "faces.parquet")
