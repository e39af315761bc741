"""New, empty galleries on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import mongodb_databases
import pytest
from postgres_schemas import drop, fresh

from servers.fixtures import Servers


@pytest.fixture
def postgres_url(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A gallery that does not exist yet; PGPASSWORD has the password, so masked URLs open too."""
    base = servers.url("postgres")
    monkeypatch.setenv("PGPASSWORD", urlsplit(base).password or "")
    url = fresh(base)
    yield url
    drop(url)


@pytest.fixture
def pgvector_url(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """As ``postgres_url``, on a server with pgvector in the database."""
    base = servers.url("pgvector")
    monkeypatch.setenv("PGPASSWORD", urlsplit(base).password or "")
    url = fresh(base)
    yield f"{url}&vector=require"
    drop(url)


@pytest.fixture
def mongodb_url(servers: Servers) -> Iterator[str]:
    """A gallery that does not exist yet."""
    url = mongodb_databases.fresh(servers.url("mongodb"))
    yield url
    mongodb_databases.drop(url)
