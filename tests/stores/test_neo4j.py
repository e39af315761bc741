"""Galleries in a real Neo4j."""

import secrets
from urllib.parse import urlsplit

import neo4j
import neo4j.exceptions
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from killed_writers import check_rounds
from racing_writers import check_race
from restarts import enroll_over_restarts

from facedex.errors import (
    ArgumentInvalid,
    SpaceMismatch,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    StoreVersion,
)
from facedex.stores.neo4j import Neo4jStore
from facedex.stores.neo4j_server import mapped
from facedex.testing.faces import OTHER_SPACE, SPACE, face, photo
from facedex.testing.stores import StoreContract, store_machine

pytestmark = pytest.mark.servers


@pytest.fixture
def base(servers, monkeypatch):
    """The server; FACEDEX_STORE_PASSWORD has the password, so masked URLs open too."""
    url = servers.url("neo4j")
    monkeypatch.setenv("FACEDEX_STORE_PASSWORD", urlsplit(url).password)
    return url


@pytest.fixture
def new_url(base):
    """URLs of galleries nobody has used yet."""
    return lambda: f"{base}/g{secrets.token_hex(6)}"


def cypher(url, query, gallery=None, **values):
    parts = urlsplit(url)
    name = f"facedex.{parts.path.strip('/')}"
    address = f"bolt://{parts.hostname}:{parts.port}"
    with neo4j.GraphDatabase.driver(address, auth=(parts.username, parts.password)) as driver:
        return driver.execute_query(query.replace("GALLERY", name), database_="neo4j", **values).records


class TestNeo4jStore(StoreContract):
    @pytest.fixture
    def store(self, new_url):
        with Neo4jStore.open(new_url()) as store:
            yield store

    @pytest.fixture
    def reopen(self):
        return lambda store: Neo4jStore.open(store.url)

    def test_the_url_opens_it_again(self, store):
        store.add([photo("ann.jpg", face())], SPACE)
        assert "***" in store.url
        with Neo4jStore.open(store.url, create=False) as again:
            assert again.count() == 1


def test_random_histories(new_url):
    machine = store_machine(lambda: Neo4jStore.open(new_url()), lambda store: Neo4jStore.open(store.url))
    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None, max_examples=6, stateful_step_count=12, suppress_health_check=list(HealthCheck)
        ),
    )


def test_killed_four_times_nothing_acknowledged_is_lost(new_url):
    assert check_rounds(new_url(), rounds=4, seed=1) >= 4


def test_two_writers_at_once_lose_nothing(new_url):
    check_race(new_url(), 8)


@pytest.mark.heavy
def test_a_server_killed_in_the_middle_of_an_enrollment_loses_nothing_and_is_waited_for(servers, tmp_path):
    with servers.make("neo4j", tmp_path / "server") as server, Neo4jStore.open(f"{server.url}?patience=120") as store:
        assert enroll_over_restarts(store, server, kills=1) == []


def test_a_server_that_is_not_there_says_so_without_the_password():
    with pytest.raises(StoreUnavailable, match=r"u:\*\*\*@127\.0\.0\.1:9\?patience=1 cannot be reached") as raised:
        Neo4jStore.open("bolt://u:s3cret@127.0.0.1:9?patience=1")
    assert "s3cret" not in repr(raised.value.details) + str(raised.value)


def test_a_wrong_password_says_so_without_it(base):
    with pytest.raises(StoreUnavailable, match="password") as raised:
        Neo4jStore.open(base.replace(urlsplit(base).password, "s3cret"))
    assert "s3cret" not in repr(raised.value.details) + str(raised.value)


def test_a_database_that_does_not_exist_is_named(base):
    with pytest.raises(StoreUnavailable, match="no such database"):
        Neo4jStore.open(f"{base}?database=nowhere&patience=1")


@pytest.mark.parametrize("wrong", ["", "h:x", "h/a.b", "h/a/b", "h?size=3", "h?patience=soon", "h?patience=-1"])
def test_a_url_that_cannot_be_meant_is_refused(wrong):
    with pytest.raises(ArgumentInvalid):
        Neo4jStore.open(f"bolt://{wrong}")


def test_a_missing_gallery_is_not_made_unless_wanted(new_url):
    url = new_url()
    with pytest.raises(StoreUnavailable, match="holds no gallery"):
        Neo4jStore.open(url, create=False)
    with pytest.raises(StoreUnavailable, match="holds no gallery"):
        Neo4jStore.open(url, create=False)


def test_nodes_of_others_under_our_label_are_left_alone(new_url):
    for made in ("CREATE (:`GALLERY` {name: 'theirs'})", "CREATE (:`GALLERY.template` {id: 7})"):
        url = new_url()
        cypher(url, made)
        with pytest.raises(StoreForeign, match="not a Facedex gallery"):
            Neo4jStore.open(url)
        assert len(cypher(url, "MATCH (n) WHERE n:`GALLERY` OR n:`GALLERY.template` RETURN n")) == 1


@pytest.mark.parametrize("schema", [0, 2])
def test_another_schema_is_refused(new_url, schema):
    url = new_url()
    Neo4jStore.open(url).close()
    cypher(url, "MATCH (g:`GALLERY`) SET g.schema = $schema", schema=schema)
    with pytest.raises(StoreVersion, match=f"schema {schema}"):
        Neo4jStore.open(url)


def test_an_index_of_another_dimension_left_by_nobody_is_replaced(new_url):
    url = new_url()
    with Neo4jStore.open(url) as store:
        cypher(
            url,
            "CREATE VECTOR INDEX `GALLERY.embedding` FOR (t:`GALLERY.template`) ON t.embedding OPTIONS {indexConfig: "
            "{`vector.dimensions`: 7, `vector.similarity_function`: 'cosine'}}",
        )
        store.add([photo("ann.jpg", face())], SPACE)
        assert store.nearest(face().embedding[None], 1).tolist() == [[1]]
        with pytest.raises(SpaceMismatch):
            store.add([photo("bob.jpg", face("bob.jpg", space=OTHER_SPACE))], OTHER_SPACE)


def test_a_node_edited_by_hand_is_named(new_url):
    url = new_url()
    with Neo4jStore.open(url) as store:
        store.add([photo(f"{n}.jpg", face(f"{n}.jpg")) for n in range(4)], SPACE)
        assert store.check() == ()
        cypher(url, "MATCH (t:`GALLERY.template` {id: 1}) SET t.exact = t.geometry")
        cypher(url, "MATCH (t:`GALLERY.template` {id: 2}) SET t.metadata = '{'")
        cypher(url, "MATCH (t:`GALLERY.template` {id: 3}) SET t.embedding = [1.0, 0.0, 0.0, 0.0]")
        for n in (1, 2):
            with pytest.raises(StoreCorrupt, match=f"template {n}"):
                store.get([n])
        assert len(store.check()) == 3
        cypher(url, "MATCH (g:`GALLERY`) DELETE g")
        with pytest.raises(StoreCorrupt):
            store.sequence()


def test_every_error_of_the_driver_has_a_word_of_ours():
    found = [e for e in vars(neo4j.exceptions).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert len(found) > 30
    for kind in (*found, OSError, ValueError):
        error = kind.__new__(kind)
        Exception.__init__(error, "no")
        said = mapped(error, "bolt://u:***@h")
        assert isinstance(said, StoreError)
        assert "bolt://u:***@h" in said.message

    def server(code):
        return mapped(neo4j.exceptions.Neo4jError._hydrate_neo4j(code=code, message="no"), "bolt://h")

    assert isinstance(server("Neo.TransientError.Transaction.DeadlockDetected"), StoreBusy)
    assert isinstance(server("Neo.ClientError.Transaction.TransactionTimedOut"), StoreBusy)
    assert isinstance(server("Neo.TransientError.General.MemoryPoolOutOfMemoryError"), StoreFull)
    assert isinstance(server("Neo.ClientError.Security.Forbidden"), StoreReadOnly)
    assert isinstance(server("Neo.ClientError.Statement.SyntaxError"), StoreUnavailable)
