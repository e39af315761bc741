"""MongoDB: the contract, and whatever can be wrong with a server, its collections and the way there."""

import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit

import bson.errors
import pymongo
import pymongo.errors
import pytest
from bson import ObjectId
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from killed_writers import check_rounds
from mongodb_databases import drop, fresh
from restarts import enroll_over_restarts

from facedex.errors import (
    ArgumentInvalid,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    StoreVersion,
)
from facedex.stores.mongodb import MongoStore
from facedex.stores.mongodb_server import translate
from facedex.testing.faces import SPACE, face, photo
from facedex.testing.stores import StoreContract, store_machine


class TestMongoStore(StoreContract):
    @pytest.fixture
    def store(self, mongodb_url):
        with MongoStore(mongodb_url) as store:
            yield store

    @pytest.fixture
    def reopen(self):
        return lambda store: MongoStore(store.url)


def test_random_histories(servers):
    made = []

    def make():
        made.append(fresh(servers.url("mongodb")))
        return MongoStore(made[-1])

    machine = store_machine(make, lambda store: MongoStore(store.url))
    try:
        run_state_machine_as_test(machine, settings=settings(deadline=None, max_examples=10, stateful_step_count=12))
    finally:
        for url in made:
            drop(url)


@pytest.mark.heavy  # the transaction of a dead writer is in the way until the server ends it, after a minute
def test_killed_five_times_nothing_acknowledged_is_lost(mongodb_url):
    assert check_rounds(mongodb_url, rounds=5, seed=time.time_ns()) >= 5


@pytest.mark.servers
def test_a_server_killed_in_the_middle_of_an_enrollment_loses_nothing(servers, tmp_path):
    with servers.make("mongodb", tmp_path / "server") as server, MongoStore(server.url) as store:
        enroll_over_restarts(store, server)


def test_two_writers_at_once_wait_for_each_other(mongodb_url):
    with MongoStore(mongodb_url) as store, MongoStore(mongodb_url) as other:
        failed = []

        def work(name, held):
            try:
                for n in range(10):
                    held.add([photo(f"{name}{n}", face(f"{name}{n}"))], SPACE)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(name, held)) for name, held in (("a", store), ("b", other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert store.ids().tolist() == list(range(1, 21))


def test_a_fork_uses_a_client_of_its_own(mongodb_url):
    script = """
import os, sys, warnings
warnings.simplefilter("ignore")  # pymongo warns of forks; the child's client is new
from facedex.stores.registry import open_store
from facedex.testing.faces import SPACE, face, photo
with open_store(sys.argv[1]) as store:
    store.add([photo("ann.jpg", face())], SPACE)
    child = os.fork()
    if child == 0:
        store.add([photo("bob.jpg", face("bob.jpg", "Bob"))], SPACE)
        os._exit(0 if store.count() == 2 else 2)
    assert os.waitpid(child, 0)[1] == 0
    assert [p.label for p in store.people()] == ["Ann", "Bob"]
"""
    subprocess.run([sys.executable, "-c", script, mongodb_url], check=True, timeout=60)


# -- what may be wrong with the place ----------------------------------------------------------------------------------


@pytest.fixture
def database(mongodb_url):
    with pymongo.MongoClient(mongodb_url) as client:
        yield client[urlsplit(mongodb_url).path.strip("/")]


def test_a_server_that_is_not_there_says_so_without_the_password():
    with pytest.raises(StoreUnavailable, match=r"u:\*\*\*@127\.0\.0\.1:9/x\S* cannot be reached") as raised:
        MongoStore("mongodb://u:s3cret@127.0.0.1:9/x?serverSelectionTimeoutMS=300")
    assert "s3cret" not in repr(raised.value.details) + str(raised.value)


def test_a_wrong_password_says_so_without_it(mongodb_url):
    wrong = mongodb_url.replace("mongodb://", "mongodb://nobody:s3cret@")
    with pytest.raises(StoreUnavailable, match="refused the user or the password") as raised:
        MongoStore(wrong)
    assert "s3cret" not in repr(raised.value.details) + str(raised.value)


def test_a_password_may_come_from_the_environment(mongodb_url, monkeypatch):
    asked = mongodb_url.replace("mongodb://", "mongodb://nobody:***@")
    with pytest.raises(ArgumentInvalid, match="no MongoDB URL"):
        MongoStore(asked)
    monkeypatch.setenv("FACEDEX_STORE_PASSWORD", "s3:cr/et")
    with pytest.raises(StoreUnavailable, match="refused") as raised:  # it was sent, and there is no such user
        MongoStore(asked)
    assert "cr/et" not in repr(raised.value.details) + str(raised.value)


def test_a_standalone_server_is_refused_with_what_to_do(servers):
    with pytest.raises(StoreUnavailable, match="replica set; one node is enough"):
        MongoStore(servers.url("mongodb-standalone"))


def test_a_gallery_is_made_only_when_allowed(mongodb_url):
    with pytest.raises(StoreUnavailable, match="Enroll some photos first"):
        MongoStore(mongodb_url, create=False)
    MongoStore(mongodb_url).close()
    MongoStore(mongodb_url, create=False).close()


@pytest.mark.parametrize(
    "wrong", ["mongodb://u:s3cret@127.0.0.1:9/a%20b", "mongodb://u:s3cret@127.0.0.1:x/a", "mongodb://"]
)
def test_a_url_that_cannot_be_meant_is_refused(wrong):
    with pytest.raises(ArgumentInvalid) as raised:
        MongoStore(wrong)
    assert "s3cret" not in repr(raised.value.details) + str(raised.value)


@pytest.mark.parametrize("name", ["facedex_template", "facedex_gallery"])
def test_a_foreign_collection_under_our_name_is_left_as_it_is(mongodb_url, database, name):
    database[name].insert_one({"_id": "gallery", "theirs": True})
    with pytest.raises(StoreForeign, match="left as they are"):
        MongoStore(mongodb_url)
    assert database.list_collection_names() == [name]


def test_an_older_schema_is_brought_up_to_date_with_all_it_holds(mongodb_url, database):
    with MongoStore(mongodb_url) as old:
        old.add([photo("ann.jpg", face())], SPACE)
    for name in ("facedex_index", "facedex_index_part"):
        database.drop_collection(name)
    database.facedex_gallery.update_one({}, {"$set": {"version": 1}})
    with MongoStore(mongodb_url, create=False) as store:
        assert store.count() == 1
        assert store.keep_index("fdx", store.sequence(), [b"index"])
    assert database.facedex_gallery.find_one()["version"] == 2


def test_a_newer_schema_is_refused(mongodb_url, database):
    MongoStore(mongodb_url).close()
    database.facedex_gallery.update_one({}, {"$set": {"version": 99}})
    with pytest.raises(StoreVersion, match=r"schema version 99.*Update Facedex"):
        MongoStore(mongodb_url)


@pytest.mark.parametrize(
    ("collection", "edit", "call"),
    [
        ("template", {"$set": {"embedding": b"x"}}, lambda store: store.embeddings([1])),
        ("template", {"$unset": {"embedding": 1}}, lambda store: list(store.embedding_batches())),
        ("template", {"$set": {"embedding": "text"}}, lambda store: store.get([1])),
        ("template", {"$set": {"geometry": b"x"}}, lambda store: list(store.scan())),
        ("template", {"$set": {"metadata": ["nonsense"]}}, lambda store: list(store.scan())),
        ("template", {"$unset": {"photo": 1}}, lambda store: store.get([1])),
        ("gallery", {"$unset": {"sequence": 1}}, lambda store: store.sequence()),
        ("gallery", {"$set": {"space.model": "other"}}, lambda store: store.space()),
    ],
)
def test_documents_edited_by_hand_are_reported_as_damage(mongodb_url, database, collection, edit, call):
    with MongoStore(mongodb_url) as store:
        store.add([photo("ann.jpg", face())], SPACE)
    with MongoStore(mongodb_url) as store:
        database[f"facedex_{collection}"].update_one({}, edit)
        with pytest.raises(StoreCorrupt):
            call(store)


def test_half_an_index_that_was_left_is_swept_away(mongodb_url, database):
    with MongoStore(mongodb_url) as store:
        store.add([photo("ann.jpg", face())], SPACE)
        left = ObjectId.from_datetime(datetime(2026, 1, 1, tzinfo=UTC))
        database.facedex_index_part.insert_one({"index": left, "part": 0, "data": b"half"})
        assert store.keep_index("fdx", 1, [b"x" * 20_000_000])
        assert sorted(each["part"] for each in database.facedex_index_part.find({}, ["part"])) == [0, 1, 2]


def test_every_error_of_the_driver_has_a_word_of_ours():
    def below(kind):
        yield kind
        for child in kind.__subclasses__():
            yield from below(child)

    kinds = {*below(pymongo.errors.PyMongoError), *below(bson.errors.BSONError)}
    assert len(kinds) > 25
    for kind in kinds:
        error = kind.__new__(kind, "out of cheese")  # some cannot be made without their own facts
        said = translate(error, "mongodb://u:***@db/x")
        assert isinstance(said, StoreError)
        assert said.message.startswith("gallery mongodb://u:***@db/x ")
    for code, word in ((13, StoreReadOnly), (18, StoreUnavailable), (112, StoreBusy), (14031, StoreFull)):
        assert type(translate(pymongo.errors.OperationFailure("no", code), "x")) is word
