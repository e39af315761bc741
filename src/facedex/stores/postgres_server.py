"""A PostgreSQL database as a gallery sees it: connections, whose tables these are, retries, the driver's errors.

Retries      a server that restarts is waited for. Reads are simply done again. A write is done again unless it was
             committed, which the new server knows: PostgreSQL tells the fate of a transaction by its number.
Order        every write locks the one row of ``facedex_gallery``, so numbers become visible in the order they rise.
Identity     tables are looked at before anything is written; what is not ours stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import errors as pg
from psycopg.pq import TransactionStatus

from facedex.errors import (
    ArgumentInvalid,
    StoreBusy,
    StoreClosed,
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    StoreVersion,
)
from facedex.stores.registry import mask

__all__ = ["SCHEMA_VERSION", "Connection", "PostgresServer", "translate"]

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"
T = TypeVar("T")

_FORMAT = "facedex gallery"
_PATIENCE = 30.0  # seconds a call waits for a server that went away
_POOL = 8  # connections of one gallery in one process
_HIDDEN = "***"

# Each step makes its schema version of the one before; a new gallery takes all of them.
_STEPS = (
    f"""
    CREATE TABLE facedex_gallery (           -- one row; whoever writes locks it
      one      boolean PRIMARY KEY DEFAULT true CHECK (one),
      format   text NOT NULL DEFAULT '{_FORMAT}',
      version  integer NOT NULL,
      identity uuid NOT NULL,
      sequence bigint NOT NULL DEFAULT 0,    -- the highest given so far
      space    text,                         -- of the embeddings, with the next five; NULL before the first
      model text, model_version text, weights_sha256 text, dimension integer, preprocessing text
    );
    CREATE TABLE facedex_template (
      id        bigint PRIMARY KEY,          -- the sequence number of its enrollment
      sequence  bigint NOT NULL UNIQUE,      -- of its last change
      content   bytea NOT NULL UNIQUE,       -- content_id, 16 bytes
      photo     bytea NOT NULL,              -- SHA-256, 32 bytes
      label     text COLLATE "C",
      enrolled  bigint NOT NULL,             -- microseconds since 1970, UTC
      geometry  bytea NOT NULL,              -- little-endian: box 4 × float64, landmarks 10 × float32, score float64
      embedding bytea NOT NULL,              -- D × float32, little-endian
      link      text COLLATE "C",
      metadata  json                         -- flat, kept letter by letter; NULL for {{}}
    ) WITH (toast_tuple_target = 8160);      -- 512 dimensions still lie in the row
    ALTER TABLE facedex_template ALTER embedding SET STORAGE EXTERNAL;  -- random bits: not worth compressing
    CREATE INDEX ON facedex_template (photo);
    CREATE INDEX ON facedex_template (label);
    CREATE TABLE facedex_photo (digest bytea PRIMARY KEY);  -- those that count as enrolled
    CREATE TABLE facedex_tombstone (sequence bigint PRIMARY KEY, id bigint NOT NULL);
    """,
    """
    CREATE TABLE facedex_index (             -- indexes we built
      name     text COLLATE "C" PRIMARY KEY,
      number   bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
      sequence bigint NOT NULL,              -- of the gallery it was built from
      size     bigint NOT NULL,
      sha256   text NOT NULL
    );
    CREATE TABLE facedex_index_part (number bigint, part integer, data bytea NOT NULL, PRIMARY KEY (number, part));
    ALTER TABLE facedex_index_part ALTER data SET STORAGE EXTERNAL;
    """,
    """
    ALTER TABLE facedex_gallery ADD COLUMN vector boolean NOT NULL DEFAULT false;
    """,  # whether facedex_template has the column ``vector`` of pgvector, which every writer then fills
)
SCHEMA_VERSION = len(_STEPS)

_UNAVAILABLE = "cannot be reached or used. Check that the server runs, its address, database, user and password."
_BUSY = "is held by others for too long. Try again."
_READ_ONLY = "can be read but not written: this user lacks the right, or the server is a standby."
_CORRUPT = "does not have the tables or values of a gallery; was it edited by hand? Restore it from a copy."

# By class (first two letters) or whole SQLSTATE; https://www.postgresql.org/docs/current/errcodes-appendix.html
_WORDS: dict[str, tuple[type[StoreError], str]] = {
    "28": (StoreUnavailable, "refused the user or the password. Check them in the URL, PGUSER, PGPASSWORD, .pgpass."),
    "3D": (StoreUnavailable, "names a database that does not exist. Create it, or correct the URL."),
    "22": (StoreCorrupt, _CORRUPT),
    "23": (StoreCorrupt, "contradicts itself; was it edited by hand? Restore it from a copy."),
    "25006": (StoreReadOnly, _READ_ONLY),
    "40": (StoreBusy, "was changed by others at the same moment. Try again."),
    "42": (StoreCorrupt, _CORRUPT),
    "42501": (StoreReadOnly, _READ_ONLY),
    "53300": (StoreBusy, "has no connection left. Try again, or raise max_connections."),
    "53100": (StoreFull, "cannot grow: no space left. Nothing of this call was written; free some space."),
    "55006": (StoreBusy, _BUSY),
    "55P03": (StoreBusy, _BUSY),
    "57014": (StoreBusy, "cancelled the call: it took longer than the server allows, or somebody stopped it."),
    "XX001": (StoreCorrupt, "is damaged. Restore it from a copy."),
    "XX002": (StoreCorrupt, "has a damaged index. REINDEX it, or restore it from a copy."),
}
_REFUSED = re.compile(
    "authentication failed|no password|certificate|does not exist|translate host name|pg_hba|not support SSL"
)
_GONE = (pg.AdminShutdown, pg.CrashShutdown, pg.CannotConnectNow, pg.ConnectionException)


def translate(error: psycopg.Error | psycopg.Warning, place: str) -> StoreError:
    """The driver's error in our words.

    place  masked URL of the gallery.
    """
    state = getattr(error, "sqlstate", None) or ""
    reason = " ".join(str(error).split()) or type(error).__name__
    facts = {"gallery": place, "reason": reason, "sqlstate": state or None}
    kind, words = _WORDS.get(state) or _WORDS.get(state[:2]) or (StoreUnavailable, _UNAVAILABLE)
    if not state:  # the server did not say; its words for refused users come without a code
        if "password" in reason or "authentication failed" in reason:
            kind, words = _WORDS["28"]
        elif isinstance(error, (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError)):
            kind, words = StoreCorrupt, _CORRUPT
    return kind(f"gallery {place} {words} ({reason})", **facts)


class PostgresServer:
    """One gallery's tables in one database, over a few connections. Safe to share between threads, and forks.

    url      ``postgresql://user:password@host:port/database?schema=NAME&…``; what is not ``schema`` or ``vector``
             goes to libpq, as do its variables (PGPASSWORD, PGSSLMODE, …). The password ``***`` stands for none
             given, so a masked URL opens where the environment has it.
    create   make schema and tables when they are missing.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.schema = options.pop("schema", "facedex")
        self.vector = options.pop("vector", "auto")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", self.schema):
            raise ArgumentInvalid(
                f"schema {self.schema!r} is no plain name; expected letters, digits and _, at most 63.",
                parameter="schema", value=self.schema,
            )  # fmt: skip
        if self.vector not in ("auto", "off", "require"):
            raise ArgumentInvalid(
                f"vector={self.vector!r}; expected auto, off or require.", parameter="vector", value=self.vector
            )
        self.place = mask(url)
        self._conninfo = self._dsn(parts, options)
        self._qualified: dict[str, bytes] = {}
        self._closed = False
        self._connections = _Connections(self._conninfo)
        with self._translated(), psycopg.connect(self._conninfo, autocommit=True) as connection:
            self._look(connection, create)
            row = connection.execute(self.sql("SELECT identity FROM facedex_gallery")).fetchone()
        self.identity: uuid.UUID = row[0] if row else uuid.UUID(int=0)

    def sql(self, text: str) -> bytes:
        """A statement with our tables named in full; no setting of the session decides where they are."""
        found = self._qualified.get(text)
        if found is None:
            found = re.sub(r"\bfacedex_", f'"{self.schema}".facedex_', text).encode()
            self._qualified[text] = found
        return found

    def read(self, work: Callable[[Connection], T]) -> T:
        """What ``work`` reads on a connection that commits by itself; done again when the server went away."""
        with self._translated():
            return self._patiently(lambda: self._borrow(work))

    def write(self, work: Callable[[Connection], T]) -> T:
        """One transaction of ``work``, exactly once, over a restart of the server too."""
        with self._translated():
            return self._patiently(self._transact(work))

    def write_once(self, work: Callable[[Connection], T]) -> T:
        """As ``write`` for work that cannot be done twice: when the server goes away, it fails."""

        def transact(connection: Connection) -> T:
            with connection.transaction():
                return work(connection)

        with self._translated():
            return self._borrow(transact)

    def check_open(self) -> None:
        """Raises StoreClosed after ``close``."""
        if self._closed:
            raise StoreClosed(
                f"gallery {self.place} was used after close(). Open it again.", gallery=self.place, reason="closed"
            )

    def close(self) -> None:
        self._closed = True
        self._connections.close()

    # -- retries -------------------------------------------------------------------------------------------------------

    def _transact(self, work: Callable[[Connection], T]) -> Callable[[], T]:
        number: int | None = None
        result: list[T] = []

        def once(connection: Connection) -> T:
            nonlocal number
            if number is not None:  # the last attempt broke while it was committed
                asked, number = number, None
                fate = self._fate(connection, asked)
                if fate == "committed":
                    return result[0]
                if fate == "in progress":
                    number = asked
                    raise pg.CannotConnectNow(f"transaction {asked} is still in progress")
            with connection.transaction():
                result[:] = [work(connection)]
                row = connection.execute("SELECT pg_current_xact_id_if_assigned()::text").fetchone()
                number = int(row[0]) if row and row[0] else None
            number = None
            return result[0]

        return lambda: self._borrow(once)

    def _fate(self, connection: Connection, number: int) -> str:
        """ "committed", "aborted" or "in progress"."""
        with contextlib.suppress(pg.InvalidParameterValue):  # a number from the future: this is another server
            row = connection.execute("SELECT pg_xact_status(%s::text::xid8)", (str(number),)).fetchone()
            if row and row[0]:
                return str(row[0])
        raise StoreUnavailable(
            f"gallery {self.place}: the connection was lost during a write, and the server that answers now does not "
            f"know what became of it (transaction {number}). Look whether it is there, then go on.",
            gallery=self.place, transaction=number,
        )  # fmt: skip

    def _patiently(self, attempt: Callable[[], T]) -> T:
        deadline = time.monotonic() + _PATIENCE
        pause = 0.0
        while True:
            try:
                return attempt()
            except psycopg.OperationalError as error:
                if not _server_went_away(error) or time.monotonic() + pause > deadline:
                    raise
            self._connections.drop()  # those that lie idle broke with it
            time.sleep(pause)
            pause = min(pause * 2 or 0.05, 1.0)

    def _borrow(self, work: Callable[[Connection], T]) -> T:
        self.check_open()
        with self._connections.one() as connection:
            try:
                return work(connection)
            except psycopg.Error as error:
                if connection.broken and not isinstance(error, psycopg.OperationalError):
                    raise pg.ConnectionException(f"the connection was lost: {error}") from error
                raise

    # -- names ---------------------------------------------------------------------------------------------------------

    def _dsn(self, parts: Any, options: dict[str, str]) -> str:
        netloc = parts.netloc
        user, at, host = netloc.rpartition("@")
        name, colon, password = user.partition(":")
        if at and colon and unquote(password) == _HIDDEN:
            netloc = f"{name}@{host}"
        options = {key: value for key, value in options.items() if value != _HIDDEN}
        defaults = {"connect_timeout": "10", "tcp_user_timeout": "30000", "fallback_application_name": "facedex"}
        uri = urlunsplit(("postgresql", netloc, parts.path, urlencode(options, quote_via=quote), ""))
        try:
            given = psycopg.conninfo.conninfo_to_dict(uri)
        except psycopg.Error as error:
            raise ArgumentInvalid(
                f"{self.place} is no PostgreSQL URL: {' '.join(str(error).split()).replace(uri, self.place)}",
                parameter="url", url=self.place,
            ) from error  # fmt: skip
        return psycopg.conninfo.make_conninfo(uri, client_encoding="utf8", **{
            key: value for key, value in defaults.items() if key not in given
        })  # fmt: skip

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.Error, psycopg.Warning) as error:
            raise translate(error, self.place) from error
        except (UnicodeDecodeError, OverflowError) as error:
            facts = {"gallery": self.place, "reason": str(error)}
            raise StoreCorrupt(f"gallery {self.place} {_CORRUPT} ({error})", **facts) from error

    # -- whose tables --------------------------------------------------------------------------------------------------

    def _look(self, connection: Connection, create: bool) -> None:
        """See that the tables are a gallery of our version; make or migrate them when they are not yet."""
        encoding, number = connection.execute(
            "SELECT current_setting('server_encoding'), current_setting('server_version_num')::int"
        ).fetchone() or ("?", 0)
        if encoding != "UTF8" or number < 130000:
            raise StoreUnavailable(
                f"gallery {self.place}: the database has encoding {encoding} and server version {number}; expected "
                "UTF8 and PostgreSQL 13 or newer. Create a database with ENCODING 'UTF8'.",
                gallery=self.place, encoding=encoding, server_version=number,
            )  # fmt: skip
        version = self._version(connection)
        if version == SCHEMA_VERSION:
            return
        if version == 0 and not create:
            raise StoreUnavailable(
                f"gallery {self.place} does not exist: schema {self.schema!r} has no tables of ours. Enroll some "
                "photos first, or check the URL.", gallery=self.place, reason="does not exist",
            )  # fmt: skip
        with connection.transaction():
            # Two processes may come at once; the second finds it done.
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('facedex', 0))")
            version = self._version(connection)
            if (
                version == 0
                and not connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (self.schema,)).fetchone()
            ):
                connection.execute(f'CREATE SCHEMA "{self.schema}"'.encode())
            for step in _STEPS[version:]:
                connection.execute(self.sql(step))
            if version == 0:
                connection.execute(
                    self.sql("INSERT INTO facedex_gallery (version, identity) VALUES (%s, %s)"),
                    (SCHEMA_VERSION, uuid.uuid4()),
                )
            else:
                connection.execute(self.sql("UPDATE facedex_gallery SET version = %s"), (SCHEMA_VERSION,))

    def _version(self, connection: Connection) -> int:
        """Schema version of the tables; 0: there are none."""
        names = connection.execute(
            r"""SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND c.relkind IN ('r', 'v', 'm', 'f', 'p') AND c.relname LIKE 'facedex\_%%'""",
            (self.schema,),
        ).fetchall()
        if not names:
            return 0
        try:
            rows = connection.execute(self.sql("SELECT format, version FROM facedex_gallery")).fetchall()
        except (pg.UndefinedTable, pg.UndefinedColumn):
            rows = []
        except pg.InsufficientPrivilege as error:
            raise StoreUnavailable(
                f"gallery {self.place} may not be read by this user. Grant USAGE on schema {self.schema} and SELECT "
                f"on its tables. ({error})", gallery=self.place, reason=str(error),
            ) from error  # fmt: skip
        if len(rows) != 1 or rows[0][0] != _FORMAT or not isinstance(rows[0][1], int):
            raise StoreForeign(
                f"schema {self.schema!r} of {self.place} has tables named facedex_… that are no gallery of ours; they "
                "were left as they are. Choose another schema with ?schema=NAME.",
                gallery=self.place, tables=sorted(name for (name,) in names),
            )  # fmt: skip
        version: int = rows[0][1]
        if version > SCHEMA_VERSION:
            raise StoreVersion(
                f"gallery {self.place} has schema version {version}, this Facedex reads up to {SCHEMA_VERSION}. "
                "Update Facedex.", gallery=self.place, version=version, known=SCHEMA_VERSION,
            )  # fmt: skip
        return version


class _Connections:
    """Open connections that nobody uses, the last one used first.

    psycopg's own pool connects in the background, so whoever waits learns only that it took too long, not that the
    password is wrong; and its threads do not survive a fork. A gallery needs neither.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._idle: list[Connection] = []
        self._free = threading.BoundedSemaphore(_POOL)
        self._closed = False

    @contextlib.contextmanager
    def one(self) -> Iterator[Connection]:
        if self._process != os.getpid():
            _inherited.append(self._idle)  # the parent's: neither to be closed nor collected here
            self._begin()
        if not self._free.acquire(timeout=30.0):
            raise pg.LockNotAvailable(f"all {_POOL} connections of this process are in use")
        try:
            connection = self._taken()
            try:
                yield connection
            finally:
                if connection.info.transaction_status == TransactionStatus.IDLE and not self._closed:
                    self._idle.append(connection)
                else:  # broken, or left in the middle of something
                    connection.close()
        finally:
            self._free.release()

    def _taken(self) -> Connection:
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        connection = psycopg.connect(self._conninfo, autocommit=True)
        connection.execute("SET lock_timeout = '30s'")
        return connection

    def drop(self) -> None:
        with contextlib.suppress(IndexError):
            while self._process == os.getpid():
                self._idle.pop().close()

    def close(self) -> None:
        self._closed = True
        self.drop()


_inherited: list[list[Connection]] = []


def _server_went_away(error: psycopg.OperationalError) -> bool:
    if isinstance(error, _GONE):
        return True
    # libpq's own errors have no code: a connection refused or broken, or what no waiting mends.
    return error.sqlstate is None and not _REFUSED.search(str(error))
