"""The servers as pytest fixtures. Each is started once a run, at the first test that asks, for all xdist workers."""

from __future__ import annotations

import os
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
        """One of your own, to stop and kill; not started yet."""
        reason = server_class(name).unavailable_reason()
        if reason is not None:
            missing(name, reason)
        return server_class(name)(folder)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Servers:
    base = tmp_path_factory.getbasetemp()
    alone = worker_id == "master"
    folder = base if alone else base.parent  # the workers' common parent is the run's own folder
    return Servers(folder / "servers", os.getpid() if alone else os.getppid())
