import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from facedex.stores.sqlite import SQLiteStore
from facedex.testing.stores import StoreContract, store_machine


class TestSQLiteStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        with SQLiteStore(tmp_path / "faces.db") as store:
            yield store

    @pytest.fixture
    def reopen(self):
        return lambda store: SQLiteStore(store.path)


def test_random_histories(tmp_path_factory):
    machine = store_machine(
        lambda: SQLiteStore(tmp_path_factory.mktemp("gallery") / "faces.db"), lambda store: SQLiteStore(store.path)
    )
    run_state_machine_as_test(machine, settings=settings(deadline=None, max_examples=30, stateful_step_count=20))
