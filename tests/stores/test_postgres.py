import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from postgres_schemas import drop, fresh

from facedex.stores.postgres import PostgresStore
from facedex.testing.stores import StoreContract, store_machine


class TestPostgresStore(StoreContract):
    @pytest.fixture
    def store(self, postgres_url):
        with PostgresStore(postgres_url) as store:
            yield store

    @pytest.fixture
    def reopen(self):
        return lambda store: PostgresStore(store.url)


def test_random_histories(postgres_url):
    made = []

    def make():
        made.append(fresh(postgres_url.partition("?")[0]))
        return PostgresStore(made[-1])

    machine = store_machine(make, lambda store: PostgresStore(store.url))
    try:
        run_state_machine_as_test(machine, settings=settings(deadline=None, max_examples=15, stateful_step_count=15))
    finally:
        for url in made:
            drop(url)
