"""``kill -9`` at random moments of an enrollment: what was acknowledged is there, and nothing is there by half."""

import random
import subprocess
import sys
import time

import pytest
from killed_writers import check_rounds

from facedex.stores.sqlite import SQLiteStore
from facedex.testing.faces import SPACE, face, photo


def test_killed_twelve_times_nothing_acknowledged_is_lost(tmp_path):
    assert check_rounds(tmp_path / "faces.db", rounds=12, seed=1) >= 12


@pytest.mark.heavy
def test_killed_a_hundred_times_nothing_acknowledged_is_lost(tmp_path):
    assert check_rounds(tmp_path / "faces.db", rounds=100, seed=time.time_ns()) >= 100


def test_killed_while_the_gallery_is_created_it_can_be_created_still(tmp_path):
    chance = random.Random(2)
    code = "from facedex.stores.sqlite import SQLiteStore; import os, sys; os.write(1, b'.'); SQLiteStore(sys.argv[1])"
    for n in range(6):
        path = tmp_path / f"{n}.db"
        with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as writer:
            writer.stdout.read(1)
            time.sleep(chance.uniform(0, 0.012))
            writer.kill()
        with SQLiteStore(path) as store:
            assert store.check() == ()
            store.add([photo("ann.jpg", face())], SPACE)
