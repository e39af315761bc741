"""A gallery file as SQLite sees it: which files are ours, connections, locks, forks, and SQLite's errors in our words.

Threads    two connections, one to read and one to write, each behind a lock: readers never wait for a writer.
Processes  WAL; a write transaction begins immediately, so two writers queue instead of failing halfway.
Forks      a connection must not cross a fork. Before a fork every gallery comes to rest; the child closes what it
           inherited and connects anew.
Identity   a file is looked at before anything is written; what is not ours stays as it is, byte for byte.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from facedex.errors import (
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

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "SQLiteFile", "translate"]

APPLICATION_ID = int.from_bytes(b"FDEX", "big")
SCHEMA_VERSION = 1

# What must leave the file with a face (embedding, box, landmarks, link, metadata, digest, label) lives in tables
# that only grow at their end and are erased in place. Rows that move between b-tree pages leave stale copies in the
# slack of the old page, which secure_delete does not reach (measured: about one deleted label in three thousand could
# still be read). Rows that may move, and every index but one, hold integers only; the index over labels is built
# anew, on zeroed pages, when a label goes. See docs/decisions/0007.
_SCHEMA = """
CREATE TABLE state (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  sequence INTEGER NOT NULL,            -- the highest given so far
  erased   INTEGER NOT NULL             -- rows of face that are blank
);
INSERT INTO state VALUES (1, 0, 0);
CREATE TABLE space (
  number INTEGER PRIMARY KEY CHECK (number = 1),
  id TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, weights_sha256 TEXT NOT NULL,
  dimension INTEGER NOT NULL, preprocessing TEXT NOT NULL
);
CREATE TABLE face (                     -- grows at its end; erased in place
  id        INTEGER PRIMARY KEY,        -- = entry.id
  live      INTEGER NOT NULL,           -- 0: erased
  space     INTEGER NOT NULL,
  content   BLOB NOT NULL,              -- content_id, 16 bytes
  geometry  BLOB NOT NULL,              -- little-endian: box 4 × float64, landmarks 10 × float32, score float64
  embedding BLOB NOT NULL,              -- D × float32, little-endian
  link      TEXT,
  metadata  TEXT                        -- flat JSON, NULL for {}
);
CREATE TABLE photo (                    -- grows at its end; erased in place
  id     INTEGER PRIMARY KEY,
  key    INTEGER,                       -- first 32 bits of the digest; NULL: erased
  listed INTEGER NOT NULL,              -- 1: enrolled, 0: forgotten, but some templates of it are left
  digest BLOB NOT NULL                  -- SHA-256, 32 bytes
);
CREATE TABLE name (                     -- grows at its end; erased in place
  id   INTEGER PRIMARY KEY,
  text TEXT NOT NULL                    -- a label; a BLOB of zeros: erased
);
CREATE TABLE entry (                    -- integers only
  id       INTEGER PRIMARY KEY,         -- the sequence number of its enrollment
  sequence INTEGER NOT NULL,            -- of its last change
  content  INTEGER NOT NULL,            -- first 32 bits of content_id
  photo    INTEGER NOT NULL,
  label    INTEGER,
  enrolled INTEGER NOT NULL             -- microseconds since 1970, UTC
);
CREATE TABLE tombstone (sequence INTEGER PRIMARY KEY, id INTEGER NOT NULL);
CREATE UNIQUE INDEX entry_sequence ON entry (sequence);
CREATE INDEX entry_content ON entry (content);
CREATE INDEX entry_label ON entry (label, photo);
CREATE INDEX entry_photo ON entry (photo);
CREATE INDEX photo_key ON photo (key);
CREATE UNIQUE INDEX name_text ON name (text) WHERE typeof(text) = 'text';
"""

# Built like the tables of _SCHEMA, whose rows it copies: a table is compacted by copying it, not by deleting from it.
_GROWING = ("face", "photo", "name")

_WORDS: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_BUSY: (
        StoreBusy,
        "is locked by another process for too long. Try again, or raise busy_timeout.",
    ),
    sqlite3.SQLITE_LOCKED: (StoreBusy, "is locked by another call. Try again."),
    sqlite3.SQLITE_PROTOCOL: (StoreBusy, "is opened and closed by too many processes at once. Try again."),
    sqlite3.SQLITE_SCHEMA: (StoreBusy, "is being changed by another process. Try again."),
    sqlite3.SQLITE_READONLY: (
        StoreReadOnly,
        "can be read but not written. Check the permissions of the file and its folder.",
    ),
    sqlite3.SQLITE_FULL: (StoreFull, "cannot grow: no space left. Nothing of this call was written; free some space."),
    sqlite3.SQLITE_CORRUPT: (StoreCorrupt, "is damaged. Restore it from a copy."),
    sqlite3.SQLITE_NOTADB: (StoreCorrupt, "is not a database. It was left as it is; check the path."),
    sqlite3.SQLITE_FORMAT: (StoreCorrupt, "is damaged. Restore it from a copy."),
    sqlite3.SQLITE_CONSTRAINT: (StoreCorrupt, "contradicts itself; was it edited by hand? Restore it from a copy."),
    sqlite3.SQLITE_MISMATCH: (StoreCorrupt, "holds values of a wrong type; was it edited by hand?"),
    sqlite3.SQLITE_ERROR: (StoreCorrupt, "does not have the tables of a gallery; was it edited by hand?"),
    sqlite3.SQLITE_CANTOPEN: (
        StoreUnavailable,
        "cannot be opened. Check that its folder exists and that you may read and write in it.",
    ),
    sqlite3.SQLITE_PERM: (StoreUnavailable, "cannot be opened: no permission."),
    sqlite3.SQLITE_IOERR: (StoreUnavailable, "could not be read or written by the operating system."),
}
# SQLite reports EFBIG and EDQUOT as a failed write, ENOSPC alone as SQLITE_FULL.
_FULL = {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_SHMSIZE}

_MODES = {"rw": "mode=rw", "ro": "mode=ro", "immutable": "mode=ro&immutable=1", "create": "mode=rwc"}
_SMALLEST = 512  # bytes of the smallest SQLite database that is not empty
_PAGE_SIZE = 8192  # three 512-d embeddings in a page, where 4096 bytes would hold one

Mode = Literal["rw", "ro", "immutable"]


def translate(error: sqlite3.Error | sqlite3.Warning, path: Path) -> StoreError:
    """SQLite's error in our words."""
    code = getattr(error, "sqlite_errorcode", None)
    facts = {"path": str(path), "reason": str(error), "sqlite": getattr(error, "sqlite_errorname", None)}
    if code is None:
        if "decode" in str(error):
            return StoreCorrupt(f"gallery {path} is damaged: {error}. Restore it from a copy.", **facts)
        if "closed" in str(error):
            return StoreClosed(f"gallery {path} was used after close(). Open it again.", **facts)
        return StoreUnavailable(f"gallery {path} cannot be used: {error}.", **facts)
    if code in _FULL:
        text = "cannot grow: no space left, a quota, or a limit on file sizes. Nothing of this call was written."
        return StoreFull(f"gallery {path} {text} ({error})", **facts)
    kind, words = _WORDS.get(code & 0xFF, (StoreUnavailable, "cannot be used."))
    return kind(f"gallery {path} {words} ({error})", **facts)


def _not_a_database() -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("file is too small to be a database")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_NOTADB, "SQLITE_NOTADB"
    return error


class _Stamp(NamedTuple):
    """What tells that the file at a path is still the one that was opened, and unchanged."""

    device: int
    inode: int
    changed_ns: int
    size: int


class SQLiteFile:
    """One gallery file, opened by this process.

    path          absolute.
    busy_timeout  seconds a write waits for the writers of other processes.
    """

    def __init__(self, path: Path, *, create: bool = True, busy_timeout: float = 30.0) -> None:
        self.path = path
        self._busy_ms = int(busy_timeout * 1000)
        self._read_lock = threading.RLock()
        self._write_lock = threading.RLock()
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._mode: Mode = "rw"
        self._closed = False
        self._wal_may_hold_deleted = False
        self._retry_at = 0.0
        with _fork_lock:
            _alive.add(self)
        with self._read_lock, self._write_lock, self._translated():  # always in this order
            if self._look(create) == "blank":
                self._create()
            self._connect()
        if self._mode == "rw" and self._wal_size():  # perhaps of a process that died between a delete and its scrub
            self._scrub(0.0)

    @property
    def writable(self) -> bool:
        """Whether writing may work; a full disk or a lock can still stop it."""
        return self._mode == "rw"

    @contextlib.contextmanager
    def reading(self, snapshot: bool = False) -> Iterator[sqlite3.Connection]:
        """The reading connection, which sees what was committed before.

        snapshot  every statement inside sees the same moment.
        """
        with self._read_lock, self._translated():
            self._still_there()
            reader = self._reader
            if reader is None:
                self._connect()
                reader = self._reader
                assert reader is not None
            if snapshot:
                reader.execute("BEGIN")
            try:
                yield reader
            finally:
                if reader.in_transaction:
                    reader.execute("ROLLBACK")

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: what was written inside is on the disk when the block ends, or none of it ever is."""
        with self._translated():
            self._still_there()
            if self._reader is None:
                self._connect()  # takes both locks, the other one first: so not inside of ours
        with self._write_lock:
            with self._translated():
                writer = self._writer
                if self._closed or writer is None:
                    self._still_there()
                    words = _WORDS[sqlite3.SQLITE_READONLY][1]
                    raise StoreReadOnly(f"gallery {self.path} {words}", path=str(self.path))
                writer.execute("BEGIN IMMEDIATE")
                try:
                    yield writer
                    writer.execute("COMMIT")
                except BaseException:
                    if writer.in_transaction:  # some errors have rolled back already
                        with contextlib.suppress(sqlite3.Error):
                            writer.execute("ROLLBACK")
                    raise
            if self._wal_may_hold_deleted:
                self._scrub(0.0)

    def scrub(self, wait: float = 2.0) -> bool:
        """Move the log into the gallery file and empty it, for it still holds what was deleted.

        wait     seconds to wait for readers of other processes that look at an older state.
        Returns  False when one of them was in the way; the next call of any kind tries again, as does closing.
        """
        with self._write_lock:
            return self._scrub(wait)

    def scrub_if_due(self) -> None:
        """Try again, at most once a second, what an earlier scrub could not do; never waits."""
        if (
            self._wal_may_hold_deleted
            and time.monotonic() >= self._retry_at
            and self._write_lock.acquire(blocking=False)
        ):
            try:
                self._scrub(0.0)
            finally:
                self._write_lock.release()

    def compact(self, connection: sqlite3.Connection) -> None:
        """Within a transaction: give the space of erased rows back, by copying the others into fresh tables."""
        for table in _GROWING:
            (sql,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
            indexes = connection.execute(
                "SELECT sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL", (table,)
            ).fetchall()
            alive = {"face": "live", "photo": "key IS NOT NULL", "name": "typeof(text) = 'text'"}[table]
            connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
            connection.execute(sql)
            connection.execute(f"INSERT INTO {table} SELECT * FROM old_{table} WHERE {alive} ORDER BY id")  # noqa: S608
            connection.execute(f"DROP TABLE old_{table}")
            for (index,) in indexes:
                connection.execute(index)
        connection.execute("UPDATE state SET erased = 0")

    def close(self) -> None:
        with self._read_lock, self._write_lock:
            if self._closed:
                return
            if self._wal_may_hold_deleted:
                self._scrub(0.0)
            self._closed = True
            self._disconnect()

    # -- opening ------------------------------------------------------------------------------------------------------

    def _look(self, create: bool) -> Literal["ours", "blank"]:
        """Say what lies at the path, without writing and without taking a lock that others could feel."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            found = None
        except (OSError, ValueError) as error:
            raise StoreUnavailable(
                f"gallery {self.path} cannot be opened: {error}.", path=str(self.path), reason=str(error)
            ) from error
        if found is not None and not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "not a regular file"
            raise StoreUnavailable(f"gallery {self.path} is {what}; expected a file.", path=str(self.path), reason=what)
        if found is None or found.st_size == 0:
            if not create:
                what = "does not exist" if found is None else "is an empty file"
                raise StoreUnavailable(
                    f"gallery {self.path} {what}. Enroll some photos first, or check the path.",
                    path=str(self.path),
                    reason=what,
                )
            if found is None:
                self._check_folder()
            return "blank"
        if found.st_size < _SMALLEST:  # SQLite would take a file of one byte for an empty one, and overwrite it
            raise translate(_not_a_database(), self.path)
        # Without a log nobody is writing, and "immutable" neither locks nor creates files beside a stranger's database.
        with contextlib.closing(self._open("ro" if self._wal_size() else "immutable")) as connection:
            try:
                what = self._identify(connection)
                (size,) = connection.execute(
                    "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
                ).fetchone()
                present = os.stat(self.path).st_size
                if present < size and not self._wal_size():  # less than a page may be missing without SQLite's notice
                    raise self._damaged(f"it was cut off after {present} of {size} bytes")
                return what
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CANTOPEN and self._wal_size():
                    raise StoreUnavailable(
                        f"gallery {self.path} has unmerged changes in {self.path.name}-wal and lies in a folder that "
                        "cannot be written. Open it once where that is allowed, or copy both files.",
                        path=str(self.path),
                        reason=str(error),
                    ) from error
                raise

    def _identify(self, connection: sqlite3.Connection) -> Literal["ours", "blank"]:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema LIMIT 5")]
        if application == 0 and version == 0 and not tables:
            return "blank"  # also: the process that created it died before its first commit
        if application != APPLICATION_ID:
            raise StoreForeign(
                f"{self.path} is a SQLite database, but not a Facedex gallery (it holds "
                f"{', '.join(tables) or 'nothing'}). It was left as it is; choose another path.",
                path=str(self.path),
                application_id=application,
                tables=tables,
            )
        if version > SCHEMA_VERSION:
            raise StoreVersion(
                f"gallery {self.path} has schema {version}, this Facedex knows up to {SCHEMA_VERSION}. "
                "Upgrade Facedex.",
                path=str(self.path),
                version=version,
                known=SCHEMA_VERSION,
            )
        state = connection.execute("SELECT sequence FROM state").fetchone()
        if state is None or not isinstance(state[0], int):
            raise self._damaged("its sequence number is gone")
        return "ours"

    def _check_folder(self) -> None:
        folder = self.path.parent
        if not folder.is_dir():
            raise StoreUnavailable(
                f"gallery {self.path} cannot be created: there is no folder {folder}. Make it first.",
                path=str(self.path),
                reason="no folder",
            )
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StoreReadOnly(
                f"gallery {self.path} cannot be created: folder {folder} cannot be written.", path=str(self.path)
            )

    def _create(self) -> None:
        with contextlib.closing(self._open("create")) as connection:
            connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
            deadline = time.monotonic() + self._busy_ms / 1000
            while True:
                try:
                    connection.execute("PRAGMA journal_mode = WAL").fetchone()
                    break
                except sqlite3.OperationalError as error:  # the busy timeout does not cover this switch
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
            connection.execute("BEGIN IMMEDIATE")
            try:
                if self._identify(connection) == "blank":  # nobody was faster
                    for statement in _SCHEMA.split(";\n"):
                        if statement.strip():
                            connection.execute(statement)
                    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _connect(self) -> None:
        """Open the best connections the permissions allow: to write, else to read, else to read a frozen file."""
        with self._read_lock, self._write_lock, self._translated():
            if self._closed:
                raise StoreClosed(
                    f"gallery {self.path} was used after close(). Open it again.", path=str(self.path), reason="closed"
                )
            if self._reader is not None and self._mode != "immutable":
                return  # another thread was faster
            self._disconnect()
            modes: tuple[Mode, ...] = ("rw", "ro", "immutable")
            for mode in modes:
                if mode == "immutable" and self._wal_size():
                    continue
                try:
                    self._reader = self._open(mode)
                    self._identify(self._reader)
                    self._mode = "ro" if mode == "rw" and not os.access(self.path, os.W_OK) else mode
                    if self._mode == "rw":
                        self._writer = self._open("rw")
                    self._stamp = self._read_stamp()
                    return
                except sqlite3.OperationalError as error:
                    self._disconnect()
                    refused = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
                    if not refused or mode == "immutable":
                        raise
                    last = error
                except BaseException:
                    self._disconnect()
                    raise
            raise last

    def _open(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?{_MODES[mode]}",
            uri=True,
            timeout=self._busy_ms / 1000,
            isolation_level=None,  # transactions begin and end where this file says so
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA cache_size = -16000")  # KiB
        except BaseException:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    # -- while open ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise translate(error, self.path) from error
        except UnicodeDecodeError as error:  # even SQLite's messages quote damaged text
            raise self._damaged(f"it holds text that is none ({error.reason})") from error

    def _read_stamp(self) -> _Stamp:
        found = os.stat(self.path)
        return _Stamp(found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)

    def _wal_size(self) -> int:
        try:
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return 0

    def _still_there(self) -> None:
        """Writing into a file that was moved away or replaced would lose faces that were acknowledged."""
        if self._closed:
            raise StoreClosed(
                f"gallery {self.path} was used after close(). Open it again.", path=str(self.path), reason="closed"
            )
        try:
            now = self._read_stamp()
        except OSError as error:
            raise StoreUnavailable(
                f"gallery {self.path} is gone: {error.strerror}. Put it back, or open another one.",
                path=str(self.path),
                reason=str(error),
            ) from error
        if now[:2] != self._stamp[:2]:
            raise StoreUnavailable(
                f"gallery {self.path} was replaced by another file while it was open. Close it and open it again.",
                path=str(self.path),
                reason="replaced",
            )
        if self._mode == "immutable" and (now != self._stamp or self._wal_size()):
            self._connect()  # not as immutable as it looked: somebody with more rights writes

    def _damaged(self, what: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"gallery {self.path} is damaged: {what}. Restore it from a copy.", path=str(self.path), reason=what
        )

    def _scrub(self, wait: float) -> bool:
        if self._writer is None:
            return False
        done = False
        with contextlib.suppress(sqlite3.Error):  # what was asked for is committed; the log is a matter of later
            try:
                self._writer.execute(f"PRAGMA busy_timeout = {int(wait * 1000)}")
                done = not self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                self._writer.execute(f"PRAGMA busy_timeout = {self._busy_ms}")
        self._wal_may_hold_deleted = not done
        self._retry_at = time.monotonic() + 1.0
        return done


# -- forks -------------------------------------------------------------------------------------------------------------

_alive: weakref.WeakSet[SQLiteFile] = weakref.WeakSet()
_fork_lock = threading.Lock()
_resting: list[SQLiteFile] = []


def _before_fork() -> None:
    _fork_lock.acquire()
    _resting.extend(sorted(_alive, key=id))
    for file in _resting:
        file._read_lock.acquire()
        file._write_lock.acquire()


def _wake() -> None:
    for file in reversed(_resting):
        file._write_lock.release()
        file._read_lock.release()
    _resting.clear()
    _fork_lock.release()


def _after_fork_in_child() -> None:
    # Closing touches the child's own descriptors and locks only: the parent's belong to the parent's process id.
    # Left open, they would make this process believe it holds locks it does not have.
    for file in _resting:
        with contextlib.suppress(sqlite3.Error):
            file._disconnect()
    _wake()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_wake, after_in_child=_after_fork_in_child)
