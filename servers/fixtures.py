"""The servers as pytest fixtures. Each is started once a run, at the first test that asks, for all xdist workers."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import ServerFailed, server_class
from servers.base import Server
from servers.shared import shared_url

REQUIRED = "FACEDEX_REQUIRE_SERVERS"


def given_url(name: str) -> str | None:
    """The URL of a server that runs already, from FACEDEX_TEST_<NAME>_URL."""
    return os.environ.get(f"FACEDEX_TEST_{name.upper().replace('-', '_')}_URL") or None


def missing(name: str, reason: str) -> None:
    """Skip, or fail where the server is required."""
    required = {each.strip() for each in os.environ.get(REQUIRED, "").split(",")}
    if name in required:
        pytest.fail(f"{name} is required by {REQUIRED}: {reason}", pytrace=False)
    pytest.skip(reason)


class Servers:
    """What the fixture ``servers`` gives."""

    def __init__(self, folder: Path, until: int) -> None:
        self._folder, self._until = folder, until
        self._failed: dict[str, str] = {}
        self._made: list[Server] = []
        self._folders: list[Path] = []

    def url(self, name: str) -> str:
        """The URL of a server all tests of this run share; skips, or fails where it is required."""
        found = given_url(name)
        if found is not None:
            return found
        if name not in self._failed:
            reason = server_class(name).unavailable_reason()
            try:
                if reason is None:
                    return shared_url(name, self._folder, self._until)
            except ServerFailed as error:
                reason = str(error)
            self._failed[name] = reason
        missing(name, self._failed[name])
        raise AssertionError

    def make(self, name: str, folder: Path) -> Server:
        """One of your own, to stop and kill; not started yet. It is ended with the run at the latest."""
        wanted = server_class(name)
        reason = wanted.unavailable_reason()
        if reason is not None:
            missing(name, reason)
        if wanted.user and os.geteuid() == 0:
            # It runs as somebody else, and every new pytest closes the folders of all pytests to others.
            folder = Path(tempfile.mkdtemp(prefix=f"facedex-{name}-"))
            self._folders.append(folder)
        self._made.append(wanted(folder / "server"))
        return self._made[-1]

    def end(self) -> None:
        """End what ``make`` gave and the test forgot; remove its folders."""
        for server in self._made:
            server.stop()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(worker_id: str) -> Iterator[Servers]:
    run = os.getpid() if worker_id == "master" else os.getppid()  # the workers' common parent
    given = Servers(Path(tempfile.gettempdir()) / f"facedex-servers-of-{run}", run)
    yield given
    given.end()
