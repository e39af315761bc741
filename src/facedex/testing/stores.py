"""The conformance suite of gallery stores, for ours and for yours. Needs pytest and hypothesis.

A store's whole test file:

    from facedex.testing.stores import StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            with MyStore(tmp_path / "gallery") as store:
                yield store

        @pytest.fixture
        def reopen(self):
            return lambda store: MyStore(store.path)

Declared ``capabilities`` decide what is skipped, with the reason. ``store_machine`` runs random histories.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from facedex.errors import (
    ArgumentInvalid,
    DimensionMismatch,
    EmbeddingInvalid,
    FacedexError,
    IndexUnavailable,
    SpaceMismatch,
    StoreClosed,
)
from facedex.stores.contract import (
    ABSENT,
    EPOCH,
    MICROSECOND,
    ChangeKind,
    KeepsIndex,
    PhotoRecord,
    SearchesItself,
    Store,
)
from facedex.testing.faces import OTHER_SPACE, SPACE, digest, face, photo, same_template, unit
from facedex.types import Box, Metadata, StoredTemplate, Template, Where

__all__ = ["Reopen", "StoreContract", "labels_by_id", "store_machine"]

Reopen = Callable[[Store], Store]
"""Opens the gallery of a store once more."""


def labels_by_id(store: Store) -> dict[int, str | None]:
    """What a gallery holds, briefly."""
    return {stored.id: stored.template.label for stored in store.scan()}


def _odd(**values: Any) -> Template:
    """A face with values of types that no type checker would let pass."""
    return replace(face(), **values)


def _add(store: Store, *faces: Template) -> list[int]:
    """Ids after enrolling faces, each in its photo."""
    return [added.id for each in store.add([PhotoRecord(f.photo_digest, (f,)) for f in faces], SPACE) for added in each]


def _every_change(store: Store, limit: int) -> Iterator[Any]:
    after = 0
    while True:
        page = store.changes(after, limit)
        yield from page
        if len(page) < limit:
            return
        after = page[-1].sequence


class StoreContract:
    """Subclass it, give ``store`` (a new, empty gallery) and ``reopen``; see the module's docstring."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError("give a fixture 'store': a new, empty gallery, closed after the test")

    @pytest.fixture
    def reopen(self) -> Reopen:
        def reopen(store: Store) -> Store:
            pytest.skip("this suite was given no way to open the gallery a second time")

        return reopen

    # -- a new gallery ------------------------------------------------------------------------------------------------

    def test_a_new_gallery_is_empty(self, store: Store) -> None:
        assert store.space() is None
        assert (store.count(), store.sequence()) == (0, 0)
        assert store.changes(0) == []
        assert store.people() == []
        assert list(store.scan()) == []
        assert store.known([digest("ann.jpg")]) == {}
        assert store.ids().tolist() == []
        assert list(store.embedding_batches()) == []
        assert store.get([1, 2]) == []
        ids, embeddings = store.embeddings([1, 2])
        assert (ids.shape, embeddings.shape) == ((0,), (0, 0))
        assert (ids.dtype, embeddings.dtype) == (np.dtype(np.int64), np.dtype(np.float32))
        assert store.delete(Where()) == 0
        assert store.relabel([1], "Ann") == 0
        assert (store.sequence(), store.check()) == (0, ())

    def test_an_empty_batch_writes_nothing(self, store: Store) -> None:
        assert store.add([], SPACE) == []
        assert (store.space(), store.sequence()) == (None, 0)

    # -- add ----------------------------------------------------------------------------------------------------------

    def test_what_was_added_comes_back_bit_by_bit(self, store: Store) -> None:
        ann = face(metadata={"camera": "gate", "n": 3, "x": 0.1, "night": True, "note": None, "é\"'%": "\\ \n 𝄞"})
        bob = face("bob.jpg", "Bob", at=-3.7, towards=(-1, 0.5), link="https://example.org/bob.jpg?size=1&x=%20")
        nobody = replace(face("crowd.jpg", None, at=1e6), link=None)
        before = datetime.now(UTC)
        ids = _add(store, ann, bob, nobody)
        after = datetime.now(UTC)
        found = store.get(ids)
        assert [stored.id for stored in found] == ids
        for stored, given in zip(found, [ann, bob, nobody], strict=True):
            assert same_template(stored.template, given)
            assert stored.template.content_id == given.content_id
            assert isinstance(stored.template.box, Box)
            assert stored.enrolled_at.utcoffset() == timedelta(0)
            assert before - timedelta(seconds=1) <= stored.enrolled_at <= after + timedelta(seconds=1)
        assert len({stored.enrolled_at for stored in found}) == 1

    def test_a_copied_face_keeps_its_time(self, store: Store) -> None:
        then = datetime(2019, 5, 4, 3, 2, 1, 123_456, tzinfo=timezone(timedelta(hours=2)))
        ann, bob = face(), face("bob.jpg", "Bob")
        store.add([PhotoRecord(ann.photo_digest, (ann,), then), PhotoRecord(bob.photo_digest, (bob,))], SPACE)
        old, new = store.scan()
        assert old.enrolled_at == then
        assert old.enrolled_at.utcoffset() == timedelta(0)
        assert new.enrolled_at - then > timedelta(days=365)
        naive = face("naive.jpg")
        with pytest.raises(ArgumentInvalid, match="time zone"):
            store.add([PhotoRecord(naive.photo_digest, (naive,), datetime(2019, 5, 4))], SPACE)
        assert store.count() == 2

    def test_the_answer_has_the_shape_of_the_batch(self, store: Store) -> None:
        added = store.add(
            [photo("sky.jpg"), photo("both.jpg", face("both.jpg"), face("both.jpg", "Bob", at=50)), photo("sea.jpg")],
            SPACE,
        )
        assert [len(each) for each in added] == [0, 2, 0]
        assert [(a.new, a.label) for a in added[1]] == [(True, "Ann"), (True, "Bob")]
        assert added[1][0].id < added[1][1].id
        assert store.space() == SPACE

    def test_the_same_face_twice_is_one_template_and_the_first_stays(self, store: Store) -> None:
        first = face(metadata={"camera": "gate"})
        (ann,) = _add(store, first)
        sequence = store.sequence()
        again = face(label="Bob", at=10.2, towards=(0, 0, 1), link="/elsewhere.jpg")  # 10.2 is the same whole pixel
        ((added,),) = store.add([photo("ann.jpg", again)], SPACE)
        assert (added.id, added.new, added.label) == (ann, False, "Ann")
        assert store.sequence() == sequence
        assert same_template(store.get([ann])[0].template, first)

    def test_the_same_face_twice_in_one_batch_is_one_template(self, store: Store) -> None:
        added = store.add([photo("ann.jpg", face(), face(label="Bob")), photo("ann.jpg", face(label=None))], SPACE)
        (one, two), (three,) = added
        assert (one.new, two.new, three.new) == (True, False, False)
        assert one.id == two.id == three.id
        assert two.label == three.label == "Ann"
        assert store.count() == 1

    def test_two_faces_of_one_photo_are_two_templates(self, store: Store) -> None:
        assert len(set(_add(store, face(at=10), face(at=11)))) == 2

    def test_the_gallery_does_not_share_arrays_with_its_callers(self, store: Store) -> None:
        given = face(towards=(1, 0))
        kept = given.embedding.copy()
        (ann,) = _add(store, given)
        given.embedding[:] = 0.5
        given.landmarks[:] = 0
        got = store.get([ann])[0].template
        for array in (got.embedding, store.embeddings([ann])[1], next(store.embedding_batches())[1]):
            if array.flags.writeable:
                array[:] = 7
        assert (store.get([ann])[0].template.embedding == kept).all()
        assert (store.embeddings([ann])[1][0] == kept).all()

    def test_ids_and_sequence_numbers_rise_and_are_not_used_again(self, store: Store) -> None:
        seen = _add(store, face(at=1), face(at=2), face(at=3))
        assert seen == sorted(set(seen))
        assert seen[0] > 0
        store.delete(Where())
        after = store.sequence()
        assert after > seen[-1]
        again = _add(store, face(at=3), face(at=4))
        assert again[0] > after
        assert store.sequence() == again[-1]

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            (replace(face(), embedding=unit(1)[:3]), DimensionMismatch),
            (replace(face(), embedding=unit(1).astype(np.float64)), EmbeddingInvalid),
            (replace(face(), embedding=unit(1)[None]), EmbeddingInvalid),
            (_odd(embedding=[1.0, 0.0, 0.0, 0.0]), EmbeddingInvalid),
            (replace(face(), embedding=unit(1) * np.float32(1.01)), EmbeddingInvalid),
            (replace(face(), embedding=np.zeros(4, np.float32)), EmbeddingInvalid),
            (replace(face(), embedding=np.array([1, 0, 0, np.nan], np.float32)), EmbeddingInvalid),
            (replace(face(), embedding=np.array([np.inf, 0, 0, 0], np.float32)), EmbeddingInvalid),
            (replace(face(), space_id=OTHER_SPACE.id), SpaceMismatch),
            (replace(face(), photo_digest=digest("bob.jpg")), ArgumentInvalid),
            (replace(face(), box=Box(0, 0, float("nan"), 1)), ArgumentInvalid),
            (replace(face(), landmarks=np.zeros((4, 2), np.float32)), ArgumentInvalid),
            (replace(face(), landmarks=np.full((5, 2), np.nan, np.float32)), ArgumentInvalid),
            (replace(face(), detection_score=1.5), ArgumentInvalid),
            (replace(face(), label=""), ArgumentInvalid),
            (replace(face(), label="A" * 513), ArgumentInvalid),
            (replace(face(), label="A\0nn"), ArgumentInvalid),
            (replace(face(), label="\ud800"), ArgumentInvalid),
            (_odd(label=7), ArgumentInvalid),
            (replace(face(), link="/photos/\udcff.jpg"), ArgumentInvalid),
            (_odd(metadata={"nested": {"a": 1}}), ArgumentInvalid),
            (_odd(metadata={"list": [1]}), ArgumentInvalid),
            (replace(face(), metadata={"x": float("nan")}), ArgumentInvalid),
            (replace(face(), metadata={"big": 2**63}), ArgumentInvalid),
            (replace(face(), metadata={"np": np.float64(1.0)}), ArgumentInvalid),
            (_odd(metadata={1: "a"}), ArgumentInvalid),
            (replace(face(), metadata={"long": "x" * 70_000}), ArgumentInvalid),
        ],
    )
    def test_one_wrong_face_and_nothing_of_the_batch_is_written(
        self, store: Store, wrong: Template, error: type[FacedexError]
    ) -> None:
        _add(store, face("first.jpg"))
        sequence = store.sequence()
        with pytest.raises(error):
            store.add([photo("bob.jpg", face("bob.jpg", "Bob")), photo("ann.jpg", wrong)], SPACE)
        assert (store.count(), store.sequence()) == (1, sequence)
        assert set(store.known([digest("first.jpg"), digest("bob.jpg"), digest("ann.jpg")])) == {digest("first.jpg")}
        assert [p.label for p in store.people()] == ["Ann"]

    def test_a_photo_digest_is_a_sha256(self, store: Store) -> None:
        for wrong in ("", "ann", digest("ann").upper(), digest("ann") + "0"):
            with pytest.raises(ArgumentInvalid):
                store.add([PhotoRecord(wrong)], SPACE)
        assert store.space() is None

    def test_another_models_faces_are_refused(self, store: Store) -> None:
        _add(store, face())
        sequence = store.sequence()
        with pytest.raises(SpaceMismatch, match="same model"):
            store.add([photo("bob.jpg", face("bob.jpg", space=OTHER_SPACE))], OTHER_SPACE)
        store.delete(Where())
        with pytest.raises(SpaceMismatch):
            store.add([photo("sky.jpg")], OTHER_SPACE)
        assert store.space() == SPACE
        assert store.count() == 0
        assert store.sequence() == sequence + 1

    def test_a_photo_without_a_face_fixes_the_space_and_takes_no_number(self, store: Store) -> None:
        assert store.add([photo("sky.jpg")], SPACE) == [[]]
        assert (store.space(), store.sequence(), store.count()) == (SPACE, 0, 0)

    # -- photos -------------------------------------------------------------------------------------------------------

    def test_a_photo_is_known_with_its_labels(self, store: Store) -> None:
        store.add(
            [
                photo("both.jpg", face("both.jpg"), face("both.jpg", "Bob", at=50), face("both.jpg", None, at=90)),
                photo("sky.jpg"),
            ],
            SPACE,
        )
        asked = [digest("both.jpg"), digest("sky.jpg"), digest("new.jpg"), "nonsense"]
        assert store.known(asked) == {asked[0]: frozenset({"Ann", "Bob", None}), asked[1]: frozenset()}
        store.relabel(store.ids(Where(labels=frozenset({"Bob"}))).tolist(), "Ann")
        assert store.known(iter(asked))[asked[0]] == {"Ann", None}

    def test_a_photo_is_forgotten_with_any_of_its_templates(self, store: Store) -> None:
        store.add([photo("both.jpg", face("both.jpg"), face("both.jpg", "Bob", at=50)), photo("sky.jpg")], SPACE)
        assert store.delete(Where(labels=frozenset({"Bob"}))) == 1
        assert store.known([digest("both.jpg"), digest("sky.jpg")]) == {digest("sky.jpg"): frozenset()}
        assert [p.label for p in store.people()] == ["Ann"]
        again = store.add([photo("both.jpg", face("both.jpg"), face("both.jpg", "Bob", at=50))], SPACE)
        assert [a.new for a in again[0]] == [False, True]
        assert store.known([digest("both.jpg")]) == {digest("both.jpg"): frozenset({"Ann", "Bob"})}

    def test_faceless_photos_are_forgotten_when_only_photos_are_asked_for(self, store: Store) -> None:
        names = [digest(f"{n}.jpg") for n in range(3)]
        store.add([PhotoRecord(name) for name in names], SPACE)
        assert store.delete(Where(labels=frozenset({None}))) == 0
        assert store.delete(Where(photos=frozenset(names[:1]), labels=frozenset({"Ann"}))) == 0
        assert set(store.known(names)) == set(names)
        assert store.delete(Where(photos=frozenset(names[:1]))) == 0
        assert set(store.known(names)) == set(names[1:])
        assert store.delete(Where()) == 0
        assert store.known(names) == {}

    # -- relabel ------------------------------------------------------------------------------------------------------

    def test_faceless_photos_are_paged_by_digest(self, store: Store) -> None:
        names = [f"sky{n}.jpg" for n in range(5)]
        store.add([*(photo(name) for name in names), photo("ann.jpg", face())], SPACE)
        everything = sorted(digest(name) for name in names)
        assert store.faceless() == everything
        assert store.faceless(limit=2) == everything[:2]
        assert store.faceless(everything[1], 2) == everything[2:4]
        assert store.faceless(everything[-1]) == []
        store.delete(Where(photos=frozenset(everything[:2])))
        assert store.faceless() == everything[2:]

    def test_relabel_changes_the_label_and_nothing_else(self, store: Store) -> None:
        ann = face(metadata={"camera": "gate"})
        ids = _add(store, ann, face("bob.jpg", "Bob"))
        sequence = store.sequence()
        assert store.relabel([ids[0], ids[0], 10**6, -1], "Änn O'Neill") == 1
        assert same_template(store.get(ids)[0].template, replace(ann, label="Änn O'Neill"))
        assert store.sequence() > sequence
        (change,) = store.changes(sequence)
        assert (change.kind, change.id) == (ChangeKind.RELABELED, ids[0])
        assert store.relabel(ids, None) == 2
        assert labels_by_id(store) == dict.fromkeys(ids)

    def test_relabeling_to_the_same_label_is_no_change(self, store: Store) -> None:
        ids = _add(store, face(), face("bob.jpg", None))
        sequence = store.sequence()
        assert store.relabel(ids[:1], "Ann") == 0
        assert store.relabel(ids[1:], None) == 0
        assert store.relabel([], "Bob") == 0
        assert store.sequence() == sequence

    @pytest.mark.parametrize("label", ["", "A\0", "x" * 513, 3])
    def test_relabel_refuses_what_add_refuses(self, store: Store, label: Any) -> None:
        ids = _add(store, face())
        with pytest.raises(ArgumentInvalid):
            store.relabel(ids, label)
        assert labels_by_id(store) == {ids[0]: "Ann"}

    # -- delete -------------------------------------------------------------------------------------------------------

    def test_what_was_deleted_is_nowhere(self, store: Store) -> None:
        ids = _add(store, face(), face("bob.jpg", "Bob"), face("ann2.jpg"))
        assert store.delete(Where(labels=frozenset({"Ann"}))) == 2
        assert store.ids().tolist() == [ids[1]]
        assert [s.id for s in store.get(ids)] == [ids[1]]
        assert store.embeddings(ids)[0].tolist() == [ids[1]]
        assert [i for batch, _ in store.embedding_batches() for i in batch.tolist()] == [ids[1]]
        assert [p.label for p in store.people()] == ["Bob"]
        assert store.known([digest("ann.jpg"), digest("ann2.jpg")]) == {}
        assert [(c.kind, c.id) for c in store.changes(ids[-1])] == [
            (ChangeKind.DELETED, ids[0]),
            (ChangeKind.DELETED, ids[2]),
        ]
        assert store.delete(Where(labels=frozenset({"Ann"}))) == 0
        assert store.relabel(ids[:1], "Bob") == 0

    def test_a_deleted_face_can_be_enrolled_again_as_a_new_one(self, store: Store) -> None:
        (old,) = _add(store, face())
        store.delete(Where())
        ((again,),) = store.add([photo("ann.jpg", face(label="Bob"))], SPACE)
        assert again.new
        assert again.id > old
        assert again.label == "Bob"
        assert [(c.kind, c.id) for c in store.changes(0)] == [(ChangeKind.DELETED, old), (ChangeKind.ADDED, again.id)]

    # -- where --------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "where",
        [
            Where(),
            Where(labels=frozenset({"Ann"})),
            Where(labels=frozenset({"Ann", None})),
            Where(labels=frozenset({None})),
            Where(labels=frozenset()),
            Where(labels=frozenset({"ann", "Ann ", "A\0"})),
            Where(not_labels=frozenset({"Ann"})),
            Where(not_labels=frozenset({None})),
            Where(not_labels=frozenset({None, "Bob", "\ud800"})),
            Where(not_labels=frozenset()),
            Where(photos=frozenset({digest("1.jpg"), digest("4.jpg"), "nonsense"})),
            Where(photos=frozenset()),
            Where(metadata={"n": 1}),
            Where(metadata={"n": True}),
            Where(metadata={"n": 1.0}),
            Where(metadata={"n": None}),
            Where(metadata={"n": "1"}),
            Where(metadata={"n": 12, "camera": "gate"}),
            Where(metadata={"camera": 'ga"te,'}),
            Where(metadata={"x": 0.0}),
            Where(metadata={":": "x"}),
            Where(metadata={'x"n': 1}),
            Where(metadata={"missing": None}),
            Where(labels=frozenset({"Ann"}), not_labels=frozenset({"Ann"})),
            Where(labels=frozenset({"Ann", "Bob"}), metadata={"n": 1}, photos=frozenset({digest("0.jpg")})),
        ],
    )
    def test_every_condition_means_what_passes_says(self, store: Store, where: Where) -> None:
        metadata: list[Metadata] = [
            {"n": 1},
            {"n": True},
            {"n": 1.0, "camera": "gate"},
            {"n": None, "x": -0.0},
            {"n": "1", "camera": 'ga"te,'},
            {"n": 12, "camera": "gate"},
            {'x"n': 1, "x": 0},
            {"a,": ":1,", "text": ',"n":1,', ":": "x"},
            {},
        ]
        labels = ["Ann", "Bob", None, "ann", "Ann "]
        _add(store, *(face(f"{n}.jpg", labels[n % 5], metadata=m) for n, m in enumerate(metadata)))
        expected = [stored.id for stored in store.scan() if where.passes(stored)]
        assert [stored.id for stored in store.scan(where)] == expected
        assert store.ids(where).tolist() == expected
        assert store.count(where) == len(expected)
        before = store.ids().tolist()
        assert store.delete(where) == len(expected)
        assert store.ids().tolist() == [n for n in before if n not in expected]

    def test_times_after_are_inclusive_and_before_exclusive(self, store: Store) -> None:
        (ann,) = _add(store, face())
        then = store.get([ann])[0].enrolled_at
        tick = timedelta(microseconds=1)
        elsewhere = then.astimezone(datetime.now().astimezone().tzinfo)
        assert store.count(Where(enrolled_after=elsewhere)) == 1
        assert store.count(Where(enrolled_after=then + tick)) == 0
        assert store.count(Where(enrolled_before=then)) == 0
        assert store.count(Where(enrolled_before=then + tick)) == 1
        assert store.count(Where(enrolled_after=datetime(1960, 1, 1, tzinfo=UTC))) == 1

    @pytest.mark.parametrize(
        "where",
        [
            Where(labels=["Ann"]),  # type: ignore[arg-type]
            Where(labels="Ann"),  # type: ignore[arg-type]
            Where(photos=frozenset({None})),  # type: ignore[arg-type]
            Where(not_labels=frozenset({3})),  # type: ignore[arg-type]
            Where(enrolled_after=datetime(2026, 1, 1)),
            Where(**{"metadata": {"a": [1]}}),  # type: ignore[arg-type]
        ],
    )
    def test_a_condition_that_cannot_be_asked_deletes_nothing(self, store: Store, where: Where) -> None:
        _add(store, face())
        for call in (store.delete, store.count, store.scan, store.ids):
            with pytest.raises(ArgumentInvalid):
                call(where)
        assert store.count() == 1

    # -- reading ------------------------------------------------------------------------------------------------------

    def test_templates_and_embeddings_come_in_the_order_asked(self, store: Store) -> None:
        ids = _add(store, *(face(f"{n}.jpg", at=n, towards=(1, n, -n)) for n in range(5)))
        store.delete(Where(photos=frozenset({digest("2.jpg")})))
        asked = [ids[4], ids[0], 10**9, ids[2], ids[4], -5, 2**70, ids[1]]
        expected = [ids[4], ids[0], ids[4], ids[1]]
        assert [stored.id for stored in store.get(asked)] == expected
        found, embeddings = store.embeddings(asked)
        assert found.tolist() == expected
        assert embeddings.tobytes() == b"".join(unit(1, n, -n).tobytes() for n in (4, 0, 4, 1))
        nothing, none = store.embeddings([])
        assert (nothing.shape, none.shape) == ((0,), (0, 4))

    @pytest.mark.parametrize("batch", [1, 2, 3, 100])
    def test_batches_hold_every_embedding_by_rising_id(self, store: Store, batch: int) -> None:
        ids = _add(store, *(face(f"{n}.jpg", towards=(1, n)) for n in range(6)))
        store.delete(Where(photos=frozenset({digest("1.jpg")})))
        left = [ids[0], *ids[2:]]
        batches = list(store.embedding_batches(batch=batch))
        assert all(1 <= len(i) <= batch and e.shape == (len(i), 4) and e.dtype == np.float32 for i, e in batches)
        assert [n for i, _ in batches for n in i.tolist()] == left
        assert np.concatenate([e for _, e in batches]).tobytes() == store.embeddings(left)[1].tobytes()
        assert [n for i, _ in store.embedding_batches(after=ids[3], batch=batch) for n in i.tolist()] == ids[4:]
        with pytest.raises(ArgumentInvalid):
            next(store.embedding_batches(batch=0))

    @pytest.mark.parametrize("batch", [1, 3, 100])
    def test_facts_are_what_filters_ask(self, store: Store, batch: int) -> None:
        people = ["Ann", None, "Bob", "Ann", "Zoë"]
        notes: list[Metadata] = [{"n": 1, "gate": "A"}, {"n": None}, {"n": True}, {}, {"n": 1.5, "gate": "B"}]
        ids = _add(
            store,
            *(face(f"{n}.jpg", who, metadata=said) for n, (who, said) in enumerate(zip(people, notes, strict=True))),
        )
        store.delete(Where(photos=frozenset({digest("2.jpg")})))
        del ids[2], people[2], notes[2]
        pages = list(store.facts(keys=["n", "gate", "other"], batch=batch))
        assert all(1 <= len(page.ids) <= batch and page.ids.dtype == np.int64 for page in pages)
        assert [n for page in pages for n in page.ids.tolist()] == ids
        assert [who for page in pages for who in page.labels] == people
        for key in ("n", "gate", "other"):
            seen = [value for page in pages for value in page.metadata[key]]
            expected = [said.get(key, ABSENT) for said in notes]
            assert seen == expected
            assert list(map(type, seen)) == list(map(type, expected))
        times = [(s.enrolled_at - EPOCH) // MICROSECOND for s in store.get(ids)]
        assert [n for page in pages for n in page.enrolled.tolist()] == times
        (rest,) = store.facts(ids[1])
        assert (rest.ids.tolist(), rest.labels, dict(rest.metadata)) == (ids[2:], people[2:], {})
        with pytest.raises(ArgumentInvalid):
            next(store.facts(batch=0))

    def test_many_templates_are_paged_through(self, store: Store) -> None:
        some = [face(f"{n}.jpg", f"P{n % 7}", towards=(1, n)) for n in range(300)]
        ids = [n for start in range(0, 300, 100) for n in _add(store, *some[start : start + 100])]
        assert [stored.id for stored in store.scan()] == ids
        assert [stored.id for stored in store.scan(after=ids[150])] == ids[151:]
        assert [stored.id for stored in store.scan(Where(labels=frozenset({"P3"})), after=ids[150])] == [
            n for position, n in enumerate(ids) if position > 150 and position % 7 == 3
        ]
        assert store.embeddings(ids[::-1])[0].tolist() == ids[::-1]
        assert [change.id for change in _every_change(store, 37)] == ids

    def test_a_scan_survives_changes_meanwhile(self, store: Store) -> None:
        ids = _add(store, *(face(f"{n}.jpg") for n in range(4)))
        scan = store.scan()
        first = next(scan)
        store.delete(Where(photos=frozenset({digest("3.jpg")})))
        _add(store, face("new.jpg"))
        assert {first.id, *(stored.id for stored in scan)} >= set(ids[:3])

    def test_people_are_paged_in_the_order_of_code_points(self, store: Store) -> None:
        names = ["Ann", "ann", "Bob", "Zoë", "Ärne", "𝄞", "a b", None, " "]
        _add(store, *(face(f"{n}.jpg", name) for n, name in enumerate(names)))
        _add(store, face("0.jpg", "Ann", at=99), face("more.jpg", "Ann"))
        people = store.people()
        assert [p.label for p in people] == [None, *sorted(n for n in names if n is not None)]
        (ann,) = [p for p in people if p.label == "Ann"]
        assert (ann.templates, ann.photos) == (3, 2)
        assert sum(p.templates for p in people) == store.count()
        for limit in (1, 2, 4, 100):
            paged = store.people(limit=limit)
            while page := store.people(after=paged[-1].label or "", limit=limit):
                assert len(page) <= limit
                paged += page
            assert paged == people
        assert store.people(after="") == people[1:]
        assert store.people(after="Ann", limit=2) == people[3:5]
        with pytest.raises(ArgumentInvalid):
            store.people(limit=0)

    def test_only_the_last_change_of_a_template_is_kept(self, store: Store) -> None:
        ann, bob, cid = _add(store, face(), face("bob.jpg", "Bob"), face("cid.jpg", "Cid"))
        store.relabel([ann], "Anna")
        store.relabel([ann], "Anne")
        store.relabel([cid], "Sid")
        store.delete(Where(labels=frozenset({"Sid"})))
        changes = store.changes(0)
        assert [(c.kind, c.id) for c in changes] == [
            (ChangeKind.ADDED, bob),
            (ChangeKind.RELABELED, ann),
            (ChangeKind.DELETED, cid),
        ]
        assert [c.sequence for c in changes] == sorted({c.sequence for c in changes})
        assert changes[0].sequence == bob
        assert changes[-1].sequence == store.sequence()
        assert store.changes(store.sequence()) == []
        assert store.changes(0, limit=2) == changes[:2]
        with pytest.raises(ArgumentInvalid):
            store.changes(0, limit=0)

    # -- threads, second handles, closing -----------------------------------------------------------------------------

    def test_threads_may_share_it(self, store: Store) -> None:
        failed: list[BaseException] = []

        def work(name: int) -> None:
            try:
                for n in range(8):
                    _add(store, face(f"{name}-{n}.jpg", f"P{name}"), face("shared.jpg", at=n))
                    assert store.count() >= n
                    store.changes(0)
                    assert store.get(store.ids().tolist()[-3:])
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert store.count() == 4 * 8 + 8
        assert len({c.sequence for c in store.changes(0)}) == store.count()
        assert store.check() == ()

    def test_what_was_acknowledged_survives_closing(self, store: Store, reopen: Reopen) -> None:
        if not store.capabilities.durable:
            pytest.skip("not durable: ends with its process")
        ids = _add(store, face(metadata={"n": 1}), face("bob.jpg", "Bob"))
        store.delete(Where(labels=frozenset({"Bob"})))
        kept, changes, sequence = store.get(ids)[0], store.changes(0), store.sequence()
        store.close()
        with reopen(store) as again:
            assert again.space() == SPACE
            (got,) = again.scan()
            assert same_template(got.template, kept.template)
            assert (got.id, got.enrolled_at) == (kept.id, kept.enrolled_at)
            assert (again.changes(0), again.sequence()) == (changes, sequence)
            assert set(again.known([digest("ann.jpg"), digest("bob.jpg")])) == {digest("ann.jpg")}
            assert _add(again, face("new.jpg"))[0] > sequence
            assert again.check() == ()

    def test_a_second_handle_sees_every_change_at_its_next_call(self, store: Store, reopen: Reopen) -> None:
        if not store.capabilities.shared:
            pytest.skip("not shared: one process only")
        with reopen(store) as reader:
            assert reader.sequence() == 0
            for n in range(3):
                (new,) = _add(store, face(f"{n}.jpg", towards=(1, n)))
                assert reader.sequence() == store.sequence()
                assert reader.embeddings([new])[1].tobytes() == unit(1, n).tobytes()
                assert reader.space() == SPACE
            store.relabel([new], "Bob")
            assert [c.kind for c in reader.changes(new)] == [ChangeKind.RELABELED]
            reader.delete(Where(labels=frozenset({"Bob"})))
            assert store.get([new]) == []
            assert store.sequence() == reader.sequence()

    # -- an engine that searches itself --------------------------------------------------------------------------------

    @pytest.mark.parametrize("exact", [False, True])
    def test_the_engines_own_search_finds_the_most_similar_first(self, store: Store, exact: bool) -> None:
        if not isinstance(store, SearchesItself):
            pytest.skip("this store has no search of its own")
        ids = _add(store, *(face(f"{n}.jpg", f"P{n % 2}", towards=(1, n)) for n in range(8)))
        probes = np.stack([unit(1, 0), unit(0, 1)])
        found = store.nearest(probes, 3, exact=exact)
        assert (found.shape, found.dtype) == ((2, 3), np.dtype(np.int64))
        assert found.tolist() == [ids[:3], ids[:4:-1]]
        named = store.nearest(probes[:1], 5, Where(labels=frozenset({"P1"})), exact=exact)
        assert named.tolist() == [[*ids[1::2], -1]]
        store.delete(Where(photos=frozenset({digest("0.jpg")})))
        assert store.nearest(probes[:1], 1, exact=exact).tolist() == [[ids[1]]]
        store.delete(Where())
        assert store.nearest(probes, 2, exact=exact).tolist() == [[-1, -1], [-1, -1]]

    # -- an index kept in the store -----------------------------------------------------------------------------------

    def test_an_index_is_kept_whole_or_not_at_all(self, store: Store) -> None:
        if not isinstance(store, KeepsIndex):
            pytest.skip("this store keeps no index")
        _add(store, face(), face("bob.jpg", "Bob"))
        assert store.kept_index("exact") is None
        parts = [bytes([n]) * 3_000_000 for n in range(4)]
        at = store.sequence()
        assert store.keep_index("exact", at, iter(parts))
        kept = store.kept_index("exact")
        assert kept is not None
        assert (kept.sequence, kept.size) == (at, 12_000_000)
        assert kept.sha256 == hashlib.sha256(b"".join(parts)).hexdigest()
        assert b"".join(store.read_index(kept)) == b"".join(parts)

        def broken() -> Iterator[bytes]:
            yield b"half"
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.keep_index("exact", at, broken())
        assert store.kept_index("exact") == kept
        assert b"".join(store.read_index(kept)) == b"".join(parts)
        assert store.keep_index("exact", at, [b"another"])
        with pytest.raises(IndexUnavailable):
            b"".join(store.read_index(kept))
        assert store.kept_index("ann") is None

    def test_a_deletion_takes_kept_indexes_with_it(self, store: Store) -> None:
        if not isinstance(store, KeepsIndex):
            pytest.skip("this store keeps no index")
        _add(store, face(), face("bob.jpg", "Bob"))
        at = store.sequence()
        assert store.keep_index("exact", at, [b"Ann and Bob"])
        kept = store.kept_index("exact")
        assert kept is not None
        assert store.delete(Where(labels=frozenset({"Ann"}))) == 1
        assert store.kept_index("exact") is None
        with pytest.raises(IndexUnavailable):
            list(store.read_index(kept))
        assert not store.keep_index("exact", at, [b"Ann and Bob"])
        assert store.kept_index("exact") is None
        assert store.keep_index("exact", store.sequence(), [b"Bob"])

    def test_the_url_opens_it_again(self, store: Store) -> None:
        if not (store.capabilities.durable and store.capabilities.shared):
            pytest.skip("a gallery that is neither durable nor shared cannot be opened again")
        if "***" in store.url:
            pytest.skip("its URL masks a password")
        _add(store, face())
        with type(store).open(store.url, create=False) as again:
            assert again.count() == 1

    def test_after_closing_every_call_says_so(self, store: Store) -> None:
        _add(store, face())
        store.close()
        store.close()
        calls: Iterable[Callable[[], object]] = (
            store.space,
            store.sequence,
            store.count,
            store.people,
            store.ids,
            lambda: store.add([photo("ann.jpg", face())], SPACE),
            lambda: store.relabel([1], "Ann"),
            lambda: store.delete(Where()),
            lambda: store.get([1]),
            lambda: list(store.scan()),
            lambda: store.embeddings([1]),
            lambda: list(store.embedding_batches()),
            lambda: store.changes(0),
            lambda: store.known([digest("ann.jpg")]),
            store.faceless,
            lambda: list(store.facts()),
        )
        for call in calls:
            with pytest.raises(StoreClosed):
                call()


# -- random histories --------------------------------------------------------------------------------------------------


@dataclass
class _Model:
    """What a gallery should hold, in the plainest words; shares nothing with any store."""

    templates: dict[int, Template] = field(default_factory=dict)
    times: dict[int, datetime] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)
    changes: dict[int, tuple[int, ChangeKind]] = field(default_factory=dict)  # id → sequence, kind
    used: set[int] = field(default_factory=set)
    sequence: int = 0

    def content(self) -> dict[tuple[object, ...], int]:
        return {_content(template): n for n, template in self.templates.items()}

    def passing(self, where: Where) -> list[int]:
        return [n for n, t in sorted(self.templates.items()) if where.passes(StoredTemplate(n, t, self.times[n]))]


def _content(template: Template) -> tuple[object, ...]:
    return template.photo_digest, tuple(round(v) for v in template.box)


_labels = st.sampled_from([None, "Ann", "Bob", "ann", "Zoë", "Ann'; --"])
_metadata = st.dictionaries(
    st.sampled_from(["camera", "n", 'a"b']), st.sampled_from([None, True, False, 0, 1, 1.0, "1", "gate"]), max_size=2
)
_photo_names = st.sampled_from([f"{n}.jpg" for n in range(8)])
_directions = st.tuples(*[st.sampled_from([-1.0, 0.25, 2.0])] * 3)
_wheres = st.builds(
    Where,
    labels=st.none() | st.frozensets(_labels, max_size=3),
    not_labels=st.none() | st.none() | st.frozensets(_labels, max_size=2),
    photos=st.none() | st.none() | st.frozensets(_photo_names.map(digest), max_size=4),
    metadata=st.just({}) | st.just({}) | _metadata,
)


@st.composite
def _photos(draw: st.DrawFn) -> list[PhotoRecord]:
    records = []
    for name in draw(st.lists(_photo_names, min_size=1, max_size=3)):
        places = draw(st.lists(st.sampled_from([0.0, 10.0, 10.25, -20.5]), max_size=3))
        faces = [face(name, draw(_labels), at, draw(_directions), draw(_metadata)) for at in places]
        records.append(photo(name, *faces))
    return records


def store_machine(make_store: Callable[[], Store], reopen: Reopen | None = None) -> type[RuleBasedStateMachine]:
    """A Hypothesis machine that runs random histories on a store and on an independent model of it.

    make_store  gives a new, empty gallery.
    reopen      opens the gallery of a store once more; left out when that is impossible.

    Use   ``TestHistories = store_machine(...).TestCase``, or ``run_state_machine_as_test``.
    """

    class StoreMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.store = make_store()
            self.model = _Model()
            self.reader: Store | None = None
            self.seen = 0
            self.mirror: dict[int, str | None] = {}

        @initialize(batch=st.none() | _photos())
        def begin(self, batch: list[PhotoRecord] | None) -> None:
            if reopen is not None and self.store.capabilities.shared:
                self.reader = reopen(self.store)
            if batch is not None:
                self._add(batch)

        @rule(batch=_photos())
        def add(self, batch: list[PhotoRecord]) -> None:
            self._add(batch)

        @rule(batch=_photos(), where_wrong=st.integers(0, 8), kind=st.sampled_from(["norm", "label", "space", "nan"]))
        def add_a_batch_with_something_wrong(self, batch: list[PhotoRecord], where_wrong: int, kind: str) -> None:
            wrong = {
                "norm": replace(face("wrong.jpg"), embedding=unit(1) * np.float32(2)),
                "label": face("wrong.jpg", ""),
                "space": face("wrong.jpg", space=OTHER_SPACE),
                "nan": replace(face("wrong.jpg"), embedding=np.full(4, np.nan, np.float32)),
            }[kind]
            batch = [*batch[:where_wrong], photo("wrong.jpg", wrong), *batch[where_wrong:]]
            with pytest.raises(FacedexError):
                self.store.add(batch, SPACE)
            self._nothing_changed()

        @precondition(lambda self: self.model.listed)
        @rule()
        def add_from_another_model(self) -> None:
            with pytest.raises(SpaceMismatch):
                self.store.add([photo("new.jpg", face("new.jpg", space=OTHER_SPACE))], OTHER_SPACE)
            self._nothing_changed()

        @rule(picks=st.lists(st.integers(0, 40), max_size=5), label=_labels)
        def relabel(self, picks: list[int], label: str | None) -> None:
            everything = sorted(self.model.used)
            ids = [everything[p] if p < len(everything) else p + 10**6 for p in picks]
            changed = sorted({n for n in ids if n in self.model.templates and self.model.templates[n].label != label})
            assert self.store.relabel(ids, label) == len(changed)
            for n in changed:
                self.model.templates[n] = replace(self.model.templates[n], label=label)
            self._expect(ChangeKind.RELABELED, changed)

        @rule(where=_wheres)
        def delete(self, where: Where) -> None:
            gone = self.model.passing(where)
            assert self.store.delete(where) == len(gone)
            for n in gone:
                self.model.listed.discard(self.model.templates[n].photo_digest)
                del self.model.templates[n], self.model.times[n]
            if (where.labels, where.not_labels, dict(where.metadata)) == (None, None, {}):
                self.model.listed -= set(self.model.listed) if where.photos is None else where.photos
            self._expect(ChangeKind.DELETED, gone)

        @rule(where=_wheres)
        def ask(self, where: Where) -> None:
            passing = self.model.passing(where)
            assert self.store.ids(where).tolist() == passing
            assert [stored.id for stored in self.store.scan(where)] == passing
            assert self.store.count(where) == len(passing)

        @rule(limit=st.integers(1, 4))
        def page_through_people(self, limit: int) -> None:
            expected: dict[str | None, list[str]] = {}
            for template in self.model.templates.values():
                expected.setdefault(template.label, []).append(template.photo_digest)
            order = sorted(expected, key=lambda name: (name is not None, name or ""))
            page = paged = self.store.people(limit=limit)
            while page:
                page = self.store.people(after=paged[-1].label or "", limit=limit)
                paged = paged + page
            assert [(p.label, p.templates, p.photos) for p in paged] == [
                (name, len(expected[name]), len(set(expected[name]))) for name in order
            ]

        @rule(limit=st.integers(1, 5), pages=st.integers(1, 3))
        def a_reader_follows_for_a_while(self, limit: int, pages: int) -> None:
            for _ in range(pages):
                if self._follow(limit) < limit:
                    break

        @rule(limit=st.integers(1, 5))
        def a_reader_catches_up(self, limit: int) -> None:
            while self._follow(limit) == limit:
                pass
            assert self.mirror == {n: t.label for n, t in self.model.templates.items()}

        @rule(batch=st.integers(1, 4))
        def load_everything(self, batch: int) -> None:
            expected = sorted(self.model.templates)
            parts = list(self.store.embedding_batches(batch=batch))
            assert [n for ids, _ in parts for n in ids.tolist()] == expected
            assert b"".join(embeddings.tobytes() for _, embeddings in parts) == b"".join(
                self.model.templates[n].embedding.tobytes() for n in expected
            )

        @precondition(lambda self: reopen is not None and self.store.capabilities.durable)
        @rule()
        def close_and_open_again(self) -> None:
            assert reopen is not None
            if self.reader is not None:
                self.reader.close()
            self.store.close()
            self.store = reopen(self.store)
            if self.reader is not None:
                self.reader = reopen(self.store)

        @invariant()
        def they_agree(self) -> None:
            model = self.model
            for store in {self.store, self.reader or self.store}:
                assert store.sequence() == model.sequence
                stored = list(store.scan())
                assert [s.id for s in stored] == sorted(model.templates)
                for s in stored:
                    assert same_template(s.template, model.templates[s.id])
                    assert s.enrolled_at == model.times[s.id]
                assert [(c.id, c.sequence, c.kind) for c in store.changes(0)] == sorted(
                    ((n, *change) for n, change in model.changes.items()), key=lambda change: change[1]
                )
                labels: dict[str, set[str | None]] = {d: set() for d in model.listed}
                for template in model.templates.values():
                    if template.photo_digest in labels:
                        labels[template.photo_digest].add(template.label)
                asked = [digest(f"{n}.jpg") for n in range(8)] + [digest("wrong.jpg")]
                assert store.known(asked) == labels

        def teardown(self) -> None:
            try:
                assert self.store.check() == ()
            finally:
                if self.reader is not None:
                    self.reader.close()
                self.store.close()

        def _add(self, batch: list[PhotoRecord]) -> None:
            model, new = self.model, []
            answer = self.store.add(batch, SPACE)
            assert [len(each) for each in answer] == [len(record.templates) for record in batch]
            for record, each in zip(batch, answer, strict=True):
                model.listed.add(record.digest)
                for template, added in zip(record.templates, each, strict=True):
                    old = model.content().get(_content(template))
                    if old is not None:
                        assert (added.id, added.new, added.label) == (old, False, model.templates[old].label)
                        continue
                    assert added.new
                    assert added.id > max(model.used, default=0)
                    assert added.label == template.label
                    model.used.add(added.id)
                    model.templates[added.id] = template
                    model.times[added.id] = self.store.get([added.id])[0].enrolled_at
                    new.append(added.id)
            self._expect(ChangeKind.ADDED, new)

        def _expect(self, kind: ChangeKind, ids: list[int]) -> None:
            """The store told of exactly these changes, in this order, under new and rising numbers."""
            told = self.store.changes(self.model.sequence)
            assert [(c.kind, c.id) for c in told] == [(kind, n) for n in ids]
            for change in told:
                assert change.sequence > self.model.sequence
                assert kind is not ChangeKind.ADDED or change.sequence == change.id
                self.model.sequence = change.sequence
                self.model.changes[change.id] = (change.sequence, change.kind)

        def _nothing_changed(self) -> None:
            assert self.store.changes(self.model.sequence) == []

        def _follow(self, limit: int) -> int:
            reader = self.reader or self.store
            changes = reader.changes(self.seen, limit)
            present = {s.id: s.template.label for s in reader.get([c.id for c in changes])}
            for change in changes:
                self.seen = change.sequence
                if change.kind is ChangeKind.DELETED:
                    self.mirror.pop(change.id, None)
                elif change.id in present:
                    self.mirror[change.id] = present[change.id]
            return len(changes)

    return StoreMachine
