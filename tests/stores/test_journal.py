"""The write protocol of engines without transactions: whenever a writer dies, its last write happened or did not."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from faulty import Data, Died, faulty
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from facedex.errors import StoreBusy, StoreCorrupt, StoreForeign, StoreVersion
from facedex.stores.contract import PhotoRecord
from facedex.stores.journal import Head
from facedex.testing.faces import SPACE, digest, face, photo
from facedex.testing.stores import StoreContract, store_machine
from facedex.types import Where

pytestmark = pytest.mark.filterwarnings("error")


class TestJournaledStore(StoreContract):
    @pytest.fixture
    def store(self):
        self.data = Data()
        with faulty(self.data) as store:
            yield store

    @pytest.fixture
    def reopen(self):
        return lambda store: faulty(self.data)

    def test_the_url_opens_it_again(self, store):
        pytest.skip("the engine of this test has no URL")


def test_random_histories():
    made = {}

    def make():
        data = Data()
        store = faulty(data)
        made[id(store._engine)] = data
        return store

    machine = store_machine(make, lambda store: faulty(store._engine.data))
    run_state_machine_as_test(machine, settings=settings(deadline=None, max_examples=25, stateful_step_count=20))


def _gallery():
    data = Data()
    store = faulty(data)
    store.add(
        [photo("both.jpg", face("both.jpg"), face("both.jpg", "Bob", at=50)), photo("sky.jpg"), photo("cid.jpg",
         face("cid.jpg", "Cid"))],
        SPACE,
    )  # fmt: skip
    store.relabel([1, 3], "Dan")
    store.add([photo("sea.jpg"), photo("eve.jpg", face("eve.jpg", "Eve"))], SPACE)
    return data


def _everything(store):
    """All that a reader may ask, but for the numbers that a dead writer may have made it skip."""
    names = ["both.jpg", "sky.jpg", "cid.jpg", "sea.jpg", "eve.jpg", "fay.jpg", "gus.jpg", "lake.jpg"]
    changes = store.changes(0)
    assert [c.sequence for c in changes] == sorted({c.sequence for c in changes})
    assert store.sequence() >= max(c.sequence for c in changes)
    assert store.ids().tolist() == [stored.id for stored in store.scan()]
    assert store.count() == len(store.ids())
    return (
        [(s.id, s.template.label, s.template.photo_digest) for s in store.scan()],
        [(c.kind, c.id, c.sequence) for c in changes],
        store.sequence(),
        store.known(map(digest, names)),
        store.faceless(),
        [(p.label, p.templates, p.photos) for p in store.people()],
        [
            store.ids(where).tolist()
            for where in (
                Where(labels=frozenset({"Dan"})),
                Where(labels=frozenset({"Eve", None})),
                Where(not_labels=frozenset({"Dan"})),
                Where(photos=frozenset({digest("both.jpg")})),
            )
        ],
        [store.count(Where(labels=frozenset({"Dan"}))), store.count(Where(labels=frozenset({"Fay"})))],
        np.sort(store.nearest(np.eye(4, dtype=np.float32)[:1], 3)).tolist(),
    )


WRITES = {
    "enroll": lambda store: store.add(
        [
            photo("both.jpg", face("both.jpg", at=90)),
            photo("fay.jpg", face("fay.jpg", "Fay"), face("fay.jpg", "Fay", at=60)),
            photo("lake.jpg"),
            photo("gus.jpg", face("gus.jpg", "Gus")),
        ],
        SPACE,
    ),
    "relabel": lambda store: store.relabel([1, 2, 3, 7], "Fay"),
    "unlabel": lambda store: store.relabel([1, 3], None),
    "delete a label": lambda store: store.delete(Where(labels=frozenset({"Dan"}))),
    "delete photos": lambda store: store.delete(Where(photos=frozenset({digest("both.jpg"), digest("sky.jpg")}))),
    "delete faceless photos": lambda store: store.delete(
        Where(photos=frozenset({digest("sky.jpg"), digest("sea.jpg")}))
    ),
    "delete everything": lambda store: store.delete(Where()),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_that_dies_anywhere_happened_or_did_not(name):
    write = WRITES[name]
    before = _everything(faulty(_gallery()))
    whole = _gallery()
    write(faulty(whole))
    after = _everything(faulty(whole)) if name != "delete everything" else None
    outcomes = []
    for deaths in range(200):
        data = _gallery()
        try:
            write(faulty(data, deaths))
        except Died:
            pass
        else:
            break
        reader = faulty(data)
        if after is None and not reader.count():
            outcomes.append("after")
            assert reader.known([digest("both.jpg"), digest("sky.jpg")]) == {}
            assert reader.faceless() == []
        else:
            seen = _everything(reader)
            assert seen in (before, after)
            outcomes.append("after" if seen == after else "before")
        # the next writer cleans up, and nothing of the dead one comes to light
        with faulty(data) as store:
            store.add([photo("next.jpg", face("next.jpg", "Next"))], SPACE)
            store.delete(Where(labels=frozenset({"Next"})))
            assert store.check() == ()
            assert Head.decode(data.head, "faulty").pending is None
            left = store.sequence()
            assert max([*data.rows, *data.steps, 0]) <= left
            living = {s.template.label for s in store.scan()}
            if outcomes[-1] == "before":
                assert "Fay" not in living
            write(store)
            assert store.check() == ()
    else:
        raise AssertionError("it never got through")
    assert outcomes == sorted(outcomes, key=["before", "after"].index), "once it has happened it stays so"
    assert outcomes.count("before") >= 1
    if name != "enroll":
        assert outcomes.count("after") >= 1


def test_the_recovery_may_die_as_well():
    for first in range(1, 30, 2):
        for second in range(0, 30, 3):
            data = _gallery()
            for deaths in (first, second):
                try:
                    faulty(data, deaths, lease=0.001).delete(Where(labels=frozenset({"Dan"})))
                except Died:
                    continue
            with faulty(data, lease=0.001) as store:
                store.add([photo("next.jpg", face("next.jpg", "Next"))], SPACE)
                assert store.check() == ()
                assert store.count() in (3, 5)


def test_a_writer_waits_for_its_turn_and_gives_up_in_time():
    data = Data()
    data.claims.add(1)
    with faulty(data, lease=10, patience=0.05) as store, pytest.raises(StoreBusy, match="Try again"):
        store.add([photo("ann.jpg", face())], SPACE)
    assert (data.rows, data.listed) == ({}, {})


def test_a_writer_that_stood_still_too_long_writes_nothing():
    data = _gallery()
    slow = faulty(data, lease=0.02)
    put = slow._engine.put_photos

    def stall(digests, generation):
        put(digests, generation)
        with faulty(data, lease=0.02) as other:
            other.add([photo("other.jpg", face("other.jpg", "Other"))], SPACE)

    slow._engine.put_photos = stall
    with pytest.raises(StoreBusy, match="took over"):
        WRITES["enroll"](slow)
    with faulty(data) as store:
        assert [p.label for p in store.people()] == ["Bob", "Dan", "Eve", "Other"]
        assert store.check() == ()


def test_six_writers_at_once_lose_nothing():
    data, told, failed = Data(), [], []

    def work(name):
        try:
            store = faulty(data, lease=5.0, patience=30.0)
            for n in range(10):
                some = [face(f"{name}-{n}-{m}.jpg", name) for m in range(3)]
                told.extend(a.id for each in store.add([PhotoRecord(f.photo_digest, (f,)) for f in some], SPACE)
                            for a in each)  # fmt: skip
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with faulty(data) as store:
        assert store.ids().tolist() == sorted(told) == list(range(1, 181))
        assert store.check() == ()
    assert data.claims == set()


def test_an_answer_lost_at_the_head_is_looked_up():
    from facedex.errors import StoreUnavailable

    data = _gallery()
    store = faulty(data)
    write = store._engine.write_head

    def lossy(text):
        write(text)
        raise StoreUnavailable("gone", url="faulty://")

    store._engine.write_head = lossy
    assert store.add([photo("fay.jpg", face("fay.jpg", "Fay"))], SPACE)[0][0].new
    with faulty(data) as again:
        assert again.count(Where(labels=frozenset({"Fay"}))) == 1
        assert again.check() == ()


@pytest.mark.parametrize(
    ("head", "error"),
    [
        ("", StoreForeign),
        ("hello", StoreForeign),
        ('{"name": "theirs"}', StoreForeign),
        ("[1]", StoreForeign),
        (Head().encode().replace('"facedex": 1', '"facedex": 2'), StoreVersion),
        (Head().encode().replace('"facedex": 1', '"facedex": 0'), StoreVersion),
        (Head().encode().replace('"sequence": 0', '"sequence": "many"'), StoreCorrupt),
        (Head().encode().replace('"generation": 0, ', ""), None),
        (replace(Head(), space="{}").encode(), StoreCorrupt),
        (None, StoreCorrupt),
    ],
)
def test_a_head_that_is_not_ours_is_refused(head, error):
    data = Data()
    with faulty(data) as store:
        data.head = head
        if error is None:
            assert store.space() is None
        else:
            with pytest.raises(error):
                store.space()


def test_a_row_edited_by_hand_is_named():
    data = _gallery()
    data.rows[1] = replace(data.rows[1], embedding=b"\0" * 15)
    data.rows[2] = replace(data.rows[2], metadata="{")
    data.rows[3] = replace(data.rows[3], content="0" * 32)
    with faulty(data) as store:
        for n in (1, 2):
            with pytest.raises(StoreCorrupt, match=f"template {n}"):
                store.get([n])
        assert len(store.check()) == 3


def test_a_dead_writer_is_replaced_after_its_lease():
    data = _gallery()
    with pytest.raises(Died):
        WRITES["enroll"](faulty(data, 4))
    began = time.monotonic()
    with faulty(data, lease=0.3) as store:
        WRITES["enroll"](store)
        assert store.check() == ()
    assert time.monotonic() - began >= 0.3
    assert data.claims == set()
