"""Real database servers for the tests, the benchmarks and whoever develops: no container engine, no mock.

Each comes from a package registry, runs as this user on loopback and a free port, keeps its data in a temporary folder
and is ended by its own process id, at the latest when the process it was started for dies.

    python -m servers start postgres mongodb     # start, print URLs; without names all that can be had
    python -m servers status
    python -m servers stop

In tests ask the fixture ``servers`` for a shared one, or make one of your own where the test stops or kills it:

    with servers.make("postgres", tmp_path) as server:
        server.kill()
        server.restart()                         # same URL, same data

``FACEDEX_TEST_POSTGRES_URL`` and its like point the tests at a server that runs already; what is named in
``FACEDEX_REQUIRE_SERVERS`` (``postgres,mongodb``) fails where it would skip.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from servers.base import Server, ServerFailed

__all__ = ["SERVERS", "Server", "ServerFailed", "server_class"]

SERVERS: Mapping[str, str] = {
    "postgres": "servers.postgres:Postgres",
    "pgvector": "servers.postgres:PostgresWithVector",
    "mongodb": "servers.mongodb:MongoDB",
    "mongodb-standalone": "servers.mongodb:MongoDBAlone",
    "neo4j": "servers.neo4j_community:Neo4j",
    "weaviate": "servers.weaviate_built:Weaviate",
}
"""Name → where its class is."""


def server_class(name: str) -> type[Server]:
    """The class of a server by its name in SERVERS."""
    module, _, attribute = SERVERS[name].partition(":")
    found: type[Server] = getattr(importlib.import_module(module), attribute)
    return found
