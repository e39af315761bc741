import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from mongodb_databases import drop, fresh

from facedex.stores.mongodb import MongoStore
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
