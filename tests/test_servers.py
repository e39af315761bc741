"""The servers of the tests start, are shared, come back with their data, and never outlive who wanted them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from servers import SERVERS, server_class
from servers.fixtures import missing
from servers.shared import running, shared_url, stop

HOME = Path(__file__).parent.parent


def gone(pid, seconds=15.0):
    """Whether a process ends soon; a zombie has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def folder(tmp_path_factory, servers):
    servers.make("postgres", tmp_path_factory.mktemp("unused"))  # skips without it
    return tmp_path_factory.mktemp("shared")


def test_every_server_has_a_class_that_says_whether_it_can_be_had():
    for name in SERVERS:
        found = server_class(name)
        assert found.name == name
        assert found.unavailable_reason() is None or name in str(found.unavailable_reason())


def test_a_killed_server_comes_back_with_its_data_under_its_url(servers, tmp_path):
    with servers.make("postgres", tmp_path / "server") as server:
        url = server.url
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        pid = server.pid
        server.kill()
        assert gone(pid)
        assert server.restart() == url
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
        pid = server.pid
    assert gone(pid)


def test_whoever_asks_gets_the_same_server_until_it_is_stopped(folder):
    url = shared_url("postgres", folder)
    try:
        assert shared_url("postgres", folder) == running("postgres", folder) == url
    finally:
        assert stop("postgres", folder)
    assert running("postgres", folder) is None
    assert not stop("postgres", folder)
    assert list(folder.glob("postgres-*")) == []


@pytest.mark.parametrize("victim", ["wanted it", "keeps it"])
def test_a_server_ends_with_the_process_it_was_started_for_and_with_its_keeper(folder, victim):
    script = f"""
import json, os, sys, time
from pathlib import Path
from servers.shared import shared_url
folder = Path({str(folder)!r})
shared_url("postgres", folder, os.getpid())
print((folder / "postgres.json").read_text(), flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=HOME, stdout=subprocess.PIPE, text=True) as wanted:
        facts = json.loads(wanted.stdout.readline())
        os.kill(wanted.pid if victim == "wanted it" else facts["keeper"], signal.SIGKILL)
        assert gone(facts["server"])
        assert gone(facts["keeper"])
        wanted.kill()


def test_a_missing_server_skips_unless_it_is_required(monkeypatch):
    monkeypatch.setenv("FACEDEX_REQUIRE_SERVERS", "postgres, mongodb")
    with pytest.raises(pytest.skip.Exception, match="no Go here"):
        missing("weaviate", "no Go here")
    with pytest.raises(pytest.fail.Exception, match="required"):
        missing("mongodb", "no wheel")
