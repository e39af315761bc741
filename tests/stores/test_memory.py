import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from facedex.errors import ArgumentInvalid
from facedex.stores.memory import MemoryStore
from facedex.testing.stores import StoreContract, store_machine


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self):
        with MemoryStore() as store:
            yield store


def test_random_histories():
    run_state_machine_as_test(
        store_machine(MemoryStore), settings=settings(deadline=None, max_examples=40, stateful_step_count=30)
    )


def test_a_gallery_in_memory_has_no_name():
    assert MemoryStore.open("memory://").count() == 0
    with pytest.raises(ArgumentInvalid, match="no name"):
        MemoryStore.open("memory://staff")
