"""Galleries in a real Weaviate."""

import secrets

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from facedex.testing.stores import StoreContract, store_machine

pytestmark = pytest.mark.servers
pytest.importorskip("weaviate")
from facedex.stores.address import Address  # noqa: E402
from facedex.stores.weaviate import WeaviateEngine, WeaviateStore  # noqa: E402


@pytest.fixture
def new_url(servers):
    """URLs of galleries nobody has used yet. They go after the test: a claim takes longer the more there are."""
    base, _, query = servers.url("weaviate").partition("?")
    names = []

    def url():
        names.append(f"g{secrets.token_hex(6)}")
        return f"{base}/{names[-1]}?{query}&lease=2"

    yield url
    engine = WeaviateEngine(Address.parse(f"{base}?{query}", 8080, {"grpc_port": ""}), 10.0, True)
    for name in names:
        engine._client.collections.delete([f"FacedexTemplates_{name}", f"FacedexLog_{name}"])
    engine.close()


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
            deadline=None, max_examples=8, stateful_step_count=12, suppress_health_check=list(HealthCheck)
        ),
    )
