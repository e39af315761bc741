"""Galleries in Qdrant: in the client's own folders, and on a server where FACEDEX_TEST_QDRANT_URL names one."""

import os
import secrets
import subprocess
import sys

import pytest
import qdrant_client.common.client_exceptions
import qdrant_client.http.exceptions
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from killed_writers import check_rounds
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse
from qdrant_client.models import VectorParams

from facedex.errors import (
    ArgumentInvalid,
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreUnavailable,
    StoreVersion,
)
from facedex.stores.journal import Head
from facedex.stores.qdrant import QdrantStore, mapped
from facedex.testing.faces import SPACE, face, photo
from facedex.testing.stores import StoreContract, store_machine

SERVER = os.environ.get("FACEDEX_TEST_QDRANT_URL")


class TestQdrantInAFolder(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        with QdrantStore.open(f"qdrant:///{tmp_path}/faces.qdrant") as store:
            yield store

    @pytest.fixture
    def reopen(self):
        return lambda store: QdrantStore.open(store.url)


if SERVER:

    class TestQdrantOnAServer(StoreContract):
        @pytest.fixture
        def store(self):
            with QdrantStore.open(f"{SERVER}/g{secrets.token_hex(6)}") as store:
                yield store

        @pytest.fixture
        def reopen(self):
            return lambda store: QdrantStore.open(store.url)


def test_a_server_passes_as_well():
    if SERVER is None:
        pytest.skip("no package registry has a Qdrant server, and FACEDEX_TEST_QDRANT_URL names none")


def test_random_histories(tmp_path_factory):
    machine = store_machine(
        lambda: QdrantStore.open(f"qdrant:///{tmp_path_factory.mktemp('gallery')}/faces"),
        lambda store: QdrantStore.open(store.url),
    )
    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None, max_examples=6, stateful_step_count=12, suppress_health_check=list(HealthCheck)
        ),
    )


def test_killed_four_times_nothing_acknowledged_is_lost(tmp_path):
    assert check_rounds(f"qdrant:///{tmp_path}/faces", rounds=4, seed=1) >= 4


def test_a_folder_is_open_in_one_process(tmp_path):
    with QdrantStore.open(f"qdrant:///{tmp_path}/faces") as store:
        assert not store.capabilities.shared
        peer = "import sys; from facedex.stores.registry import open_store; open_store(sys.argv[1])"
        done = subprocess.run([sys.executable, "-c", peer, store.url], capture_output=True, text=True)
        assert "StoreBusy" in done.stderr
        assert "open in another process" in done.stderr
    QdrantStore.open(store.url).close()


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_a_server_that_is_not_there_says_so_without_the_key():
    with pytest.raises(StoreUnavailable, match=r":\*\*\*@127\.0\.0\.1:9\?patience=0\.2 cannot be reached") as raised:
        QdrantStore.open("qdrant://:s3cret@127.0.0.1:9?patience=0.2")
    assert "s3cret" not in repr(raised.value.details) + str(raised.value)


@pytest.mark.parametrize("wrong", ["", "/", "h:x", "h/a.b", "h?size=3", "h?lease=soon", "/faces?secure=true"])
def test_a_url_that_cannot_be_meant_is_refused(wrong):
    with pytest.raises(ArgumentInvalid):
        QdrantStore.open(f"qdrant://{wrong}")


def test_a_missing_folder_is_not_made_unless_wanted_and_a_foreign_one_is_left_alone(tmp_path):
    with pytest.raises(StoreUnavailable, match="does not exist"):
        QdrantStore.open(f"qdrant:///{tmp_path}/faces", create=False)
    (tmp_path / "letter.txt").write_text("Dear Ann")
    with pytest.raises(StoreForeign, match="something else"):
        QdrantStore.open(f"qdrant:///{tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_collections_of_others_are_left_alone(tmp_path):
    for name, vectors in (
        ("facedex_facedex_templates", {}),
        ("facedex_facedex_log", VectorParams(size=2, distance="Dot")),
    ):
        folder = tmp_path / name
        theirs = QdrantClient(path=str(folder))
        theirs.create_collection(name, vectors_config=vectors)
        theirs.close()
        with pytest.raises(StoreForeign, match="not a Facedex gallery"):
            QdrantStore.open(f"qdrant:///{folder}")


def test_another_schema_is_refused(tmp_path):
    with QdrantStore.open(f"qdrant:///{tmp_path}/faces") as store:
        store._engine.write_head(Head().encode().replace('"facedex": 1', '"facedex": 2'))
        with pytest.raises(StoreVersion, match="schema 2"):
            store.add([photo("ann.jpg", face())], SPACE)


def test_a_point_edited_by_hand_is_named(tmp_path):
    with QdrantStore.open(f"qdrant:///{tmp_path}/faces") as store:
        store.add([photo(f"{n}.jpg", face(f"{n}.jpg")) for n in range(3)], SPACE)
        assert store.check() == ()
        client, templates = store._engine._client, store._engine._templates
        client.set_payload(templates, {"content": "0" * 32}, points=[2])
        assert len(store.check()) == 1
        client.set_payload(templates, {"body": "theirs"}, points=[1])
        with pytest.raises(StoreCorrupt, match="template 1"):
            store.get([1])


def test_every_error_of_the_driver_has_a_word_of_ours():
    modules = (qdrant_client.common.client_exceptions, qdrant_client.http.exceptions)
    found = [e for m in modules for e in vars(m).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert len(found) > 4
    for kind in (*found, OSError, PermissionError, ValueError, RuntimeError, KeyError):
        error = kind.__new__(kind)
        Exception.__init__(error, "no")
        if kind is UnexpectedResponse:
            error = kind(500, "no", b"no", None)
        elif kind in (*found,):
            error.message = error.source = "no"
        said = mapped(error, "qdrant://:***@h")
        assert isinstance(said, StoreError)
        assert "qdrant://:***@h" in said.message
