"""Galleries in a real Neo4j."""

import secrets

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from facedex.stores.neo4j import Neo4jStore
from facedex.testing.stores import StoreContract, store_machine

pytestmark = pytest.mark.servers


@pytest.fixture
def new_url(servers):
    """URLs of galleries nobody has used yet."""
    base = servers.url("neo4j")
    return lambda: f"{base}/g{secrets.token_hex(6)}"


class TestNeo4jStore(StoreContract):
    @pytest.fixture
    def store(self, new_url):
        self.url = new_url()
        with Neo4jStore.open(self.url) as store:
            yield store

    @pytest.fixture
    def reopen(self):
        return lambda store: Neo4jStore.open(self.url)


def test_random_histories(new_url):
    urls = {}

    def make():
        url = new_url()
        store = Neo4jStore.open(url)
        urls[store.url] = url
        return store

    machine = store_machine(make, lambda store: Neo4jStore.open(urls[store.url]))
    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None, max_examples=10, stateful_step_count=15, suppress_health_check=list(HealthCheck)
        ),
    )
