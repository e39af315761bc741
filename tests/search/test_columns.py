"""Columns answer a filter as the store does, whatever has happened to the store since they were read."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facedex.errors import ArgumentInvalid
from facedex.search.columns import Columns, Passing
from facedex.search.projection import Projection
from facedex.stores.contract import PhotoRecord
from facedex.stores.memory import MemoryStore
from facedex.stores.sqlite import SQLiteStore
from facedex.testing.faces import SPACE, face, unit
from facedex.types import Where

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
PEOPLE = ["Ann", "Bob", None]
VALUES = [1, 1.0, True, "1", None]


def enroll(store, n, label="Ann", metadata=None, towards=(1, 0)):
    at = NOON + timedelta(hours=n)
    one = face(f"{n}.jpg", label, towards=towards, metadata=metadata or {})
    return store.add([PhotoRecord(one.photo_digest, (one,), at)], SPACE)[0][0].id


@pytest.fixture
def store():
    with MemoryStore() as store:
        yield store


def passing(columns, where):
    found = columns.passing(where)
    if isinstance(found, np.ndarray):
        return found.tolist()
    ids = columns._store.ids()
    return ids[found(ids)].tolist()


def awake(store):
    """Columns that have seen their first filter, so that they answer themselves."""
    columns = Columns(store)
    columns.passing(Where())
    return columns


def test_an_empty_gallery_lets_nothing_pass(store):
    assert passing(awake(store), Where(not_labels=frozenset({"Ann"}))) == []


def test_values_pass_only_with_their_type(store):
    ids = [enroll(store, n, metadata={"gate": value}) for n, value in enumerate(VALUES)]
    enroll(store, 9)
    columns = awake(store)
    for value, expected in zip(VALUES, ids, strict=True):
        assert passing(columns, Where(metadata={"gate": value})) == [expected]
    assert passing(columns, Where(metadata={"door": 1})) == []


def test_a_deleted_person_leaves_the_columns(store):
    enroll(store, 1, "Ann", {"gate": "north"})
    bob = enroll(store, 2, "Bob", {"gate": "south"})
    columns = awake(store)
    assert len(passing(columns, Where(metadata={"gate": "north"}))) == 1
    store.delete(Where(labels=frozenset({"Ann"})))
    assert passing(columns, Where(not_labels=frozenset({None}))) == [bob]
    assert "Ann" not in repr(vars(columns._labels))
    assert "north" not in repr(vars(columns._metadata["gate"]))


def test_a_filter_that_cannot_be_asked_is_refused_by_columns_too(store):
    columns = awake(store)
    with pytest.raises(ArgumentInvalid, match="time zone"):
        columns.passing(Where(enrolled_after=datetime(2026, 5, 1)))


def test_a_filtered_search_finds_the_best_of_those_that_pass(tmp_path):
    with SQLiteStore(tmp_path / "faces.db") as store:
        ids = [enroll(store, n, "Ann" if n % 2 else "Bob", {"gate": n % 3}, (1, n)) for n in range(12)]
        search = Projection(store).search
        for _ in range(2):  # the store's answer, then the columns'
            where = Where(not_labels=frozenset({"Bob"}), metadata={"gate": 1}, enrolled_after=NOON + timedelta(hours=2))
            similarities, found = search(unit(1, 0)[None], 3, where=where)
            assert found.tolist() == [[ids[7], -1, -1]]
            assert np.isfinite(similarities).tolist() == [[True, False, False]]


wheres = st.builds(
    Where,
    labels=st.none() | st.frozensets(st.sampled_from([*PEOPLE, "Zoë"])),
    not_labels=st.none() | st.frozensets(st.sampled_from(PEOPLE)),
    metadata=st.dictionaries(st.sampled_from(["gate", "day"]), st.sampled_from(VALUES), max_size=2),
    enrolled_after=st.none() | st.integers(0, 20).map(lambda n: NOON + timedelta(hours=n)),
    enrolled_before=st.none() | st.integers(0, 20).map(lambda n: NOON + timedelta(hours=n)),
)
metadatas = st.dictionaries(st.sampled_from(["gate", "day"]), st.sampled_from(VALUES), max_size=2)
steps = st.one_of(
    st.tuples(st.just("enroll"), st.integers(0, 20), st.sampled_from(PEOPLE), metadatas),
    st.tuples(st.just("relabel"), st.integers(0, 20), st.sampled_from(PEOPLE)),
    st.tuples(st.just("delete"), wheres),
    st.tuples(st.just("ask"), wheres),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=25))
def test_columns_agree_with_the_store_after_any_history(history):
    with MemoryStore() as store:
        columns = awake(store)
        for step, *what in history:
            if step == "enroll":
                enroll(store, *what)
            elif step == "relabel":
                known = store.ids().tolist()
                store.relabel(known[what[0] % len(known) :][:2] if known else [], what[1])
            elif step == "delete":
                store.delete(*what)
            else:
                assert passing(columns, *what) == store.ids(*what).tolist()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 60), unique=True), st.lists(st.integers(0, 60), max_size=30), st.randoms())
def test_an_index_may_hold_other_rows_than_the_columns(held, asked, random):
    held = np.array(sorted(held), np.int64)
    mask = np.array([random.random() < 0.5 for _ in held], np.bool_)
    asked = np.array(asked, np.int64)
    assert Passing(held, mask)(asked).tolist() == [n in held[mask] for n in asked]


def test_many_deletions_are_swept_out(store):
    records = [(f := face(f"{n}.jpg", f"P{n}")) and PhotoRecord(f.photo_digest, (f,)) for n in range(2500)]
    store.add(records, SPACE)
    columns = awake(store)
    nobody = Where(not_labels=frozenset({None}))
    assert len(passing(columns, nobody)) == 2500
    store.delete(Where(labels=frozenset(f"P{n}" for n in range(2000))))
    assert len(passing(columns, nobody)) == 500
    assert len(columns._ids) == 500
