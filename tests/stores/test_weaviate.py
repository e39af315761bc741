"""Galleries in a real Weaviate."""

import secrets
from urllib.parse import urlsplit

import httpx
import pytest
import weaviate.exceptions
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from killed_writers import check_rounds
from racing_writers import check_race
from restarts import enroll_over_restarts
from weaviate.classes.config import DataType, Property

from facedex.errors import (
    ArgumentInvalid,
    SpaceMismatch,
    StoreClosed,
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreReadOnly,
    StoreUnavailable,
    StoreVersion,
)
from facedex.stores.address import Address
from facedex.stores.journal import Head
from facedex.stores.weaviate import WeaviateEngine, WeaviateStore, mapped
from facedex.testing.faces import OTHER_SPACE, SPACE, face, photo
from facedex.testing.stores import StoreContract, store_machine
from facedex.types import Where

pytestmark = [pytest.mark.servers, pytest.mark.filterwarnings("ignore:The httpx module is deprecated")]
_OPTIONS = {"grpc_port": "", "lease": "", "patience": ""}


@pytest.fixture
def base(servers, monkeypatch):
    """The server; FACEDEX_STORE_PASSWORD has the key, so masked URLs open too."""
    url = servers.url("weaviate")
    if urlsplit(url).password:
        monkeypatch.setenv("FACEDEX_STORE_PASSWORD", urlsplit(url).password)
    return url


@pytest.fixture
def new_url(base):
    """URLs of galleries nobody has used yet. They go after the test: a claim takes longer the more there are."""
    place, _, query = base.partition("?")
    names = []

    def url():
        names.append(f"g{secrets.token_hex(6)}")
        return f"{place}/{names[-1]}?{query}&lease=2"

    yield url
    engine = engine_of(base)
    for name in names:
        engine._client.collections.delete([f"FacedexTemplates_{name}", f"FacedexLog_{name}"])
    engine.close()


def engine_of(url):
    """A back door to a gallery."""
    return WeaviateEngine(Address.parse(url, 8080, _OPTIONS), 10.0, True)


class TestWeaviateStore(StoreContract):
    @pytest.fixture
    def store(self, new_url):
        with WeaviateStore.open(new_url()) as store:
            yield store

    @pytest.fixture
    def reopen(self):
        return lambda store: WeaviateStore.open(store.url)


def test_random_histories(new_url):
    machine = store_machine(lambda: WeaviateStore.open(new_url()), lambda store: WeaviateStore.open(store.url))
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
    with (
        servers.make("weaviate", tmp_path / "server") as server,
        WeaviateStore.open(f"{server.url}&patience=120") as store,
    ):
        assert enroll_over_restarts(store, server, kills=1) == []
        (first,) = store.get([1])
        assert store.nearest(first.template.embedding[None], 1).tolist() == [[1]]


def test_a_server_that_is_not_there_says_so_without_the_key():
    with pytest.raises(StoreUnavailable, match=r":\*\*\*@127\.0\.0\.1:9\?patience=1 cannot be reached") as raised:
        WeaviateStore.open("weaviate://:s3cret@127.0.0.1:9?patience=1")
    assert "s3cret" not in repr(raised.value.details) + str(raised.value)


def test_a_wrong_key_says_so_without_it(base):
    with pytest.raises(StoreUnavailable, match="refused the API key") as raised:
        WeaviateStore.open(base.replace(":loopback-only@", ":s3cret@"))
    assert "s3cret" not in repr(raised.value.details) + str(raised.value)


@pytest.mark.parametrize("wrong", ["", "h:x", "h/a.b", "h?size=3", "h?grpc_port=99999", "h?lease=soon"])
def test_a_url_that_cannot_be_meant_is_refused(wrong):
    with pytest.raises(ArgumentInvalid):
        WeaviateStore.open(f"weaviate://{wrong}")


def test_a_missing_gallery_is_not_made_unless_wanted(new_url):
    url = new_url()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="holds no gallery"):
            WeaviateStore.open(url, create=False)


def test_collections_of_others_under_our_names_are_left_alone(base, new_url):
    for kind in ("Log", "Templates"):
        url = new_url()
        name = f"Facedex{kind}_{urlsplit(url).path.strip('/')}"
        engine = engine_of(base)
        engine._client.collections.create(name, properties=[Property(name="theirs", data_type=DataType.TEXT)])
        with pytest.raises(StoreForeign, match="not a Facedex gallery"):
            WeaviateStore.open(url)
        assert engine._client.collections.exists(name)
        engine.close()


def test_another_schema_is_refused(new_url):
    url = new_url()
    with WeaviateStore.open(url) as store:
        store._engine.write_head(Head().encode().replace('"facedex": 1', '"facedex": 2'))
        with pytest.raises(StoreVersion, match="schema 2"):
            store.sequence()
    with WeaviateStore.open(url) as store, pytest.raises(StoreVersion, match="schema 2"):
        store.add([photo("ann.jpg", face())], SPACE)


def test_a_row_edited_by_hand_is_named(new_url):
    with WeaviateStore.open(new_url()) as store:
        store.add([photo(f"{n}.jpg", face(f"{n}.jpg")) for n in range(4)], SPACE)
        assert store.check() == ()
        uuids = {int(o.properties["number"]): o.uuid for o in store._engine._templates.iterator()}
        store._engine._templates.data.update(uuids[2], vector=[0.5, 0.0, 0.0, 0.0])
        store._engine._templates.data.update(uuids[3], properties={"content": "0" * 32})
        assert len(store.check()) == 2
        store._engine._templates.data.update(uuids[1], properties={"body": "theirs"})
        with pytest.raises(StoreCorrupt):
            store.get([1])
        with pytest.raises(SpaceMismatch):
            store.add([photo("bob.jpg", face("bob.jpg", space=OTHER_SPACE))], OTHER_SPACE)


def test_times_after_the_year_2255_are_exact(new_url):
    from datetime import UTC, datetime, timedelta

    from facedex.stores.contract import PhotoRecord

    late, tick = datetime(9999, 1, 1, 0, 0, 0, 1, tzinfo=UTC), timedelta(microseconds=1)
    with WeaviateStore.open(new_url()) as store:
        one, two = face("1.jpg"), face("2.jpg")
        store.add(
            [PhotoRecord(one.photo_digest, (one,), late), PhotoRecord(two.photo_digest, (two,), late + tick)], SPACE
        )
        assert [s.enrolled_at for s in store.scan()] == [late, late + tick]
        for where, passing in (
            (Where(enrolled_after=late + tick), [2]),
            (Where(enrolled_before=late + tick), [1]),
            (Where(enrolled_before=late), []),
        ):
            assert store.ids(where).tolist() == passing
            assert store.count(where) == len(passing)


def test_every_error_of_the_driver_has_a_word_of_ours():
    found = [e for e in vars(weaviate.exceptions).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert len(found) > 40
    for kind in (*found, httpx.ConnectError, httpx.ReadTimeout, OSError, ValueError):
        error = kind.__new__(kind)
        Exception.__init__(error, "no")
        error.message = "no"
        for name in ("_code", "_details", "_debug_error_string"):
            if "Rpc" in kind.__name__:
                setattr(error, name, "no")
        said = mapped(error, "weaviate://:***@h")
        assert isinstance(said, StoreError)
        assert "weaviate://:***@h" in said.message
    assert isinstance(mapped(weaviate.exceptions.WeaviateClosedClientError(), "x"), StoreClosed)
    assert isinstance(mapped(weaviate.exceptions.WeaviateBaseError("store is read-only"), "x"), StoreReadOnly)
