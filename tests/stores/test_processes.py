"""Several processes on one gallery file."""

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from facedex.errors import StoreBusy, StoreUnavailable
from facedex.stores.sqlite import SQLiteStore
from facedex.testing.faces import SPACE, face, photo, unit
from facedex.types import Where

WRITER = Path(__file__).with_name("gallery_writer.py")

# Answers lines of Python with the repr of their value; ``store`` is the gallery, ``hold`` a read of an older state.
PEER = """
import sqlite3, sys
from facedex.stores.sqlite import SQLiteStore
from facedex.testing.faces import *
from facedex.types import Where
store = SQLiteStore(sys.argv[1], busy_timeout=20)
hold = sqlite3.connect(sys.argv[1], isolation_level=None)
print("ready", flush=True)
for line in sys.stdin:
    print(repr(eval(line)), flush=True)
hold.close()
store.close()
"""


@contextmanager
def peer(path):
    with subprocess.Popen(
        [sys.executable, "-c", PEER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:

        def ask(line):
            process.stdin.write(line + "\n")
            return process.stdout.readline().strip()

        assert process.stdout.readline() == "ready\n"
        yield ask
        process.stdin.close()
    assert process.returncode == 0


@pytest.fixture
def store(tmp_path):
    with SQLiteStore(tmp_path / "faces.db", busy_timeout=20) as store:
        yield store


def files_of(path):
    """The bytes of all files of a gallery, read by another process: closing a file here would drop our locks on it."""
    code = "import sys, glob; [sys.stdout.buffer.write(open(f, 'rb').read()) for f in glob.glob(sys.argv[1] + '*')]"
    return subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True).stdout


def test_a_writer_is_seen_by_the_next_call_of_a_reader(store):
    with peer(store.path) as ask:
        for n in range(10):
            store.add([photo(f"{n}.jpg", face(f"{n}.jpg", "Ann"))], SPACE)
            assert ask("store.sequence(), store.count()") == f"({n + 1}, {n + 1})"
        assert ask("store.delete(Where(labels=frozenset({'Ann'})))") == "10"
        assert store.count() == 0
        assert [change.id for change in store.changes(10)] == list(range(1, 11))


def test_two_writers_at_once_lose_nothing(store):
    writers = [
        subprocess.Popen([sys.executable, WRITER, store.path, name, "25"], stdout=subprocess.PIPE)
        for name in ("one", "two")
    ]
    seen, after = [], 0
    while any(writer.poll() is None for writer in writers):
        changes = store.changes(after)
        seen += [change.id for change in changes]
        after = max([after, *(change.sequence for change in changes)])
    told = [line for writer in writers for line in writer.communicate()[0].splitlines()]
    assert [writer.returncode for writer in writers] == [0, 0]
    seen += [change.id for change in store.changes(after)]
    ids = [int(word) for line in told for word in line.split()[1:]]
    assert len(ids) == len(set(ids)) == 2 * 25 * 7
    assert seen == sorted(ids) == store.ids().tolist()  # followed live, in order, without a gap
    assert store.check() == ()


def test_six_processes_create_one_gallery(tmp_path):
    path = tmp_path / "new.db"
    writers = [
        subprocess.Popen([sys.executable, WRITER, path, f"p{n}", "2"], stdout=subprocess.DEVNULL) for n in range(6)
    ]
    assert [writer.wait() for writer in writers] == [0] * 6
    with SQLiteStore(path) as store:
        assert store.count() == 6 * 2 * 7
        assert store.check() == ()


def test_a_reader_of_an_older_state_delays_the_scrub_and_not_the_delete(store):
    secret = unit(0.3, -0.7, 0.2).tobytes()
    store.add([photo("ann.jpg", face(label="Ann Secret", towards=(0.3, -0.7, 0.2)))], SPACE)
    with peer(store.path) as ask:
        ask("hold.execute('BEGIN') and hold.execute('SELECT count(*) FROM entry').fetchone()")
        assert store.delete(Where(labels=frozenset({"Ann Secret"}))) == 1
        assert store.count() == 0
        assert ask("hold.execute('SELECT count(*) FROM entry').fetchone()") == "(1,)"  # its own moment stays whole
        assert secret in files_of(store.path)
        ask("hold.execute('COMMIT') and None")
        time.sleep(1.1)
        store.sequence()  # whatever is asked next tries again
        assert secret not in files_of(store.path)
        assert b"Secret" not in files_of(store.path)


def test_a_lock_held_too_long_is_busy_and_nothing_is_written(store, tmp_path):
    with peer(store.path) as ask, SQLiteStore(store.path, busy_timeout=0.05) as hasty:
        ask("hold.execute('BEGIN IMMEDIATE') and None")
        for call in (
            lambda: hasty.add([photo("ann.jpg", face())], SPACE),
            lambda: hasty.relabel([1], "Bob"),
            lambda: hasty.delete(Where()),
        ):
            with pytest.raises(StoreBusy, match="Try again"):
                call()
        assert hasty.count() == 0  # reading goes on
        ask("hold.execute('ROLLBACK') and None")
        assert hasty.add([photo("ann.jpg", face())], SPACE)[0][0].new


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python warns of forks among threads: our point here
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_gallery_survives_a_fork(store):
    store.add([photo("ann.jpg", face())], SPACE)
    stop = threading.Event()

    def read():
        while not stop.is_set():
            store.count()

    thread = threading.Thread(target=read)
    thread.start()
    children = []
    try:
        for n in range(3):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    store.add([photo(f"child{n}.jpg", face(f"child{n}.jpg"))], SPACE)
                    code = 0 if store.count() >= 2 else 2
                    store.close()
                finally:
                    os._exit(code)
            children.append(child)
        for n in range(5):
            store.add([photo(f"parent{n}.jpg", face(f"parent{n}.jpg"))], SPACE)
    finally:
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        stop.set()
        thread.join()
    assert codes == [0, 0, 0]
    assert store.count() == 1 + 3 + 5
    with peer(store.path) as ask:  # a newcomer must not take the file for abandoned
        assert ask("store.count()") == "9"
        store.add([photo("last.jpg", face("last.jpg"))], SPACE)
        assert ask("store.count()") == "10"
    assert store.check() == ()


def test_a_file_that_was_replaced_is_not_written_into_the_void(store, tmp_path):
    store.add([photo("ann.jpg", face())], SPACE)
    os.rename(store.path, tmp_path / "moved.db")
    with pytest.raises(StoreUnavailable, match="gone"):
        store.add([photo("bob.jpg", face("bob.jpg"))], SPACE)
    (tmp_path / "faces.db").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="replaced"):
        store.count()
