"""Galleries in Qdrant: in the client's own folders, and on a server where FACEDEX_TEST_QDRANT_URL names one."""

import os
import secrets
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from facedex.errors import (
    ArgumentInvalid,
    StoreBusy,
    StoreCorrupt,
    StoreDriverMissing,
    StoreError,
    StoreForeign,
    StoreUnavailable,
    StoreVersion,
)
from facedex.stores.journal import Head
from facedex.stores.registry import open_store
from facedex.testing.faces import SPACE, face, photo
from facedex.testing.stores import StoreContract, store_machine

pytest.importorskip("qdrant_client")
import qdrant_client.common.client_exceptions  # noqa: E402
import qdrant_client.http.exceptions  # noqa: E402

from facedex.stores.qdrant import QdrantStore, mapped  # noqa: E402

SERVER = os.environ.get("FACEDEX_TEST_QDRANT_URL")


class TestQdrantInAFolder(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        with QdrantStore.open(f"qdrant:///{tmp_path}/faces.qdrant") as store:
            yield store

    @pytest.fixture
    def reopen(self):
        return lambda store: QdrantStore.open(store.url)


@pytest.mark.skipif(SERVER is None, reason="no package registry has a Qdrant server; FACEDEX_TEST_QDRANT_URL names none")
class TestQdrantOnAServer(StoreContract):
    @pytest.fixture
    def store(self):
        with QdrantStore.open(f"{SERVER}/g{secrets.token_hex(6)}") as store:
            yield store

    @pytest.fixture
    def reopen(self):
        return lambda store: QdrantStore.open(store.url)


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
