"""PostgreSQL with pgvector: the plain tables, and in them a column that the server itself can search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from facedex.errors import StoreError, StoreUnavailable
from facedex.stores.checks import check_where
from facedex.stores.contract import SearchesItself
from facedex.stores.packed import FLOAT32
from facedex.stores.postgres import PostgresStore, condition_of
from facedex.stores.postgres_server import Connection, PostgresServer
from facedex.types import EmbeddingSpace, Where

__all__ = ["PostgresVectorStore", "usable"]

_VECTOR_LIMIT = 16_000  # dimensions pgvector stores; https://github.com/pgvector/pgvector#reference
_HNSW_LIMIT = 4_000  # and indexes, in half precision
_INDEX = "facedex_template_hnsw"
_AT_ONCE = 5_000


def usable(server: PostgresServer) -> bool:
    """Whether a gallery is to be opened with the extension: it is installed and the gallery new, or has the column.

    With ``vector=require`` the extension is created, and the column filled, where they are missing.
    Raises  StoreUnavailable when it is required and cannot be had.
    """
    if server.vector == "off":
        return False
    if server.vector == "require" and _extension(server) is None:
        try:
            server.write(_create_extension)
        except StoreError as error:
            raise StoreUnavailable(
                f"gallery {server.place} requires pgvector, which this server does not have or this user may not "
                f"create. Install it and run CREATE EXTENSION vector, or leave vector=require out. ({error.reason})",
                gallery=server.place, reason=error.reason,
            ) from error  # fmt: skip
    if _extension(server) is None:
        return False
    rows = server.read(lambda c: c.execute(server.sql("SELECT vector, dimension FROM facedex_gallery")).fetchall())
    vector, dimension = rows[0] if rows else (False, None)
    if dimension is not None and dimension > _VECTOR_LIMIT:
        return False
    return bool(vector or dimension is None or server.vector == "require")


def _create_extension(connection: Connection) -> None:
    # IF NOT EXISTS does not keep two processes that come at once from failing.
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('facedex', 0))")
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")


def _extension(server: PostgresServer) -> tuple[str, tuple[int, ...]] | None:
    """Schema and version of pgvector in this database."""
    found = server.read(
        lambda connection: connection.execute(
            """SELECT n.nspname, e.extversion FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
            WHERE e.extname = 'vector'"""
        ).fetchone()
    )
    return None if found is None else (found[0], tuple(int(part) for part in found[1].split(".") if part.isdigit()))


class PostgresVectorStore(PostgresStore, SearchesItself):
    """As ``PostgresStore``; the server searches approximately by HNSW in half precision once ``build_nearest`` ran.

    Before it, and with more than 4,000 dimensions, ``nearest`` scans. From then on every enrollment also extends the
    HNSW graph.
    """

    def __init__(self, url: str, *, create: bool = True, server: PostgresServer | None = None) -> None:
        super().__init__(url, create=create, server=server)
        found = _extension(self._server)
        if found is None:
            raise StoreUnavailable(
                f"gallery {self.url} has no pgvector. Run CREATE EXTENSION vector.", gallery=self.url
            )
        self._home, version = found
        self._iterates = version >= (0, 8)
        if self.space() is not None:
            self._fill()

    def nearest(
        self, probes: npt.NDArray[np.float32], k: int, where: Where | None = None, *, exact: bool = False
    ) -> npt.NDArray[np.int64]:
        if where is not None:
            check_where(where)
        found = np.full((len(probes), k), -1, np.int64)
        space = self.space()
        if space is None:
            return found
        condition, values = condition_of(where or Where())
        kind = f"halfvec({space.dimension})" if not exact and space.dimension <= _HNSW_LIMIT else "vector"
        column = "vector" if kind == "vector" else f'(vector::"{self._home}".{kind})'
        query = self._sql(
            f"""SELECT id FROM facedex_template WHERE {condition}
            ORDER BY {column} OPERATOR("{self._home}".<#>) %(probe)s::"{self._home}".{kind} LIMIT %(k)s"""  # noqa: S608
        )

        def search(connection: Connection) -> None:
            with connection.transaction():
                connection.execute(f"SET LOCAL hnsw.ef_search = {min(1000, max(100, 2 * k))}".encode())
                if self._iterates:  # go on until k pass the filter
                    connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")
                for row, probe in zip(found, probes, strict=True):
                    text = "[" + ",".join(f"{x:.9g}" for x in probe.tolist()) + "]"
                    ids = connection.execute(query, {**values, "probe": text, "k": k}).fetchall()
                    row[: len(ids)] = [id for (id,) in ids]

        self._server.read(search)
        return found

    def build_nearest(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Build the HNSW index where it is missing; enrollment goes on meanwhile, an interrupted one begins anew."""
        space, count = self.space(), self.count()
        if space is None or space.dimension > _HNSW_LIMIT:
            return
        if progress:
            progress(0, count)

        def build(connection: Connection) -> None:
            held = connection.execute(
                """SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s""",
                (self._server.schema, _INDEX),
            ).fetchone()
            if held == (True,):
                return
            connection.execute(self._sql(f"DROP INDEX IF EXISTS {_INDEX}"))  # half of one
            connection.execute("SET maintenance_work_mem = '512MB'")
            try:
                connection.execute(
                    f"""CREATE INDEX CONCURRENTLY {_INDEX} ON "{self._server.schema}".facedex_template
                    USING hnsw ((vector::"{self._home}".halfvec({space.dimension}))
                    "{self._home}".halfvec_ip_ops)""".encode()
                )
            finally:
                connection.execute("RESET maintenance_work_mem")

        self._server.read(build)
        if progress:
            progress(count, count)

    # -- the column ----------------------------------------------------------------------------------------------------

    def _write_space(self, connection: Connection, space: EmbeddingSpace) -> bool:
        super()._write_space(connection, space)
        return self._make_column(connection, space)

    def _make_column(self, connection: Connection, space: EmbeddingSpace) -> bool:
        if space.dimension > _VECTOR_LIMIT:
            return False
        connection.execute(
            self._sql(f'ALTER TABLE facedex_template ADD COLUMN vector "{self._home}".vector({space.dimension})')
        )
        connection.execute(self._sql("UPDATE facedex_gallery SET vector = true"))
        return True

    def _fill(self) -> None:
        """Give a gallery that was plain the column; goes on where an earlier attempt ended."""
        space = self.space()
        assert space is not None

        def make(connection: Connection) -> bool:
            _, vector = self._lock(connection)
            return vector or self._make_column(connection, space)

        (vector,) = self._one("SELECT vector FROM facedex_gallery")
        if not (vector or self._server.write(make)):
            return
        while rows := self._rows(
            "SELECT id, embedding FROM facedex_template WHERE vector IS NULL ORDER BY id LIMIT %(n)s", {"n": _AT_ONCE}
        ):
            ids = [row[0] for row in rows]
            texts = [str(np.frombuffer(row[1], FLOAT32).tolist()) for row in rows]

            def fill(connection: Connection, ids: list[int] = ids, texts: list[str] = texts) -> Any:
                return connection.execute(
                    self._sql(f"""UPDATE facedex_template t SET vector = v.text::"{self._home}".vector
                    FROM unnest(%s::bigint[], %s::text[]) v (id, text) WHERE t.id = v.id"""),  # noqa: S608
                    (ids, texts),
                )

            self._server.write(fill)
