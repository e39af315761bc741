"""A MongoDB database as a gallery sees it: the client, whose collections these are, transactions, the driver's errors.

Order        every write begins by changing the one document of ``facedex_gallery``, so writers queue and numbers
             become visible in the order they rise.
Retries      pymongo does reads again when the server went away, and whole transactions with their commits, counted
             once.
Standalone   a node that is not (part of) a replica set has no transactions, and is refused; see docs/decisions/0021.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

import bson.errors
import pymongo
from pymongo import errors as mongo
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

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
from facedex.settings import Settings
from facedex.stores.registry import mask

__all__ = ["SCHEMA_VERSION", "Document", "MongoServer", "Session", "translate"]

Document: TypeAlias = dict[str, Any]
Session: TypeAlias = ClientSession
T = TypeVar("T")

SCHEMA_VERSION = 2
_FORMAT = "facedex gallery"
_COLLECTIONS = ("gallery", "template", "photo", "tombstone", "index", "index_part")
_INDEXES = (  # schema version since which, collection, key, unique
    (1, "template", "sequence", True),
    (1, "template", "content", True),
    (1, "template", "photo", False),
    (1, "template", "label", False),
    (2, "index_part", "index", False),
)

_UNAVAILABLE = "cannot be reached or used. Check that the server runs, its address, user and password."
_CORRUPT = "does not have the documents of a gallery; was it edited by hand? Restore it from a copy."

# https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
_WORDS: dict[int, tuple[type[StoreError], str]] = {
    13: (StoreReadOnly, "does not allow this to its user. Grant the role readWrite on its database."),
    18: (StoreUnavailable, "refused the user or the password. Check them, and authSource, in the URL."),
    8000: (StoreUnavailable, "refused the user or the password. Check them, and authSource, in the URL."),
    24: (StoreBusy, "is locked by others for too long. Try again."),
    46: (StoreBusy, "is locked by others for too long. Try again."),
    50: (StoreBusy, "took longer than the server allows. Try again."),
    112: (StoreBusy, "was changed by others at the same moment. Try again."),
    251: (StoreBusy, "lost a transaction, perhaps to its time limit. Nothing of it was written; try again."),
    11000: (StoreCorrupt, "contradicts itself; was it edited by hand? Restore it from a copy."),
    11001: (StoreCorrupt, "contradicts itself; was it edited by hand? Restore it from a copy."),
    26: (StoreCorrupt, _CORRUPT),
    14031: (StoreFull, "cannot grow: no space left. Nothing of this call was written; free some space."),
}


def translate(error: Exception, place: str) -> StoreError:
    """The driver's error in our words.

    error  a ``pymongo.errors.PyMongoError`` or ``bson.errors.BSONError``.
    place  masked URL of the gallery.
    """
    code = getattr(error, "code", None)
    details = getattr(error, "details", None)
    if isinstance(error, mongo.BulkWriteError) and details and details.get("writeErrors"):
        code = details["writeErrors"][0].get("code")
    reason = " ".join(str(error).split())[:500] or type(error).__name__
    facts = {"gallery": place, "reason": reason, "mongodb": code}
    kind: type[StoreError]
    if isinstance(error, bson.errors.BSONError):
        kind, words = StoreCorrupt, _CORRUPT
    elif isinstance(error, mongo.InvalidOperation) and "close" in reason:
        kind, words = StoreClosed, "was used after close(). Open it again."
    elif isinstance(error, (mongo.DuplicateKeyError, mongo.InvalidName, mongo.CollectionInvalid)):
        kind, words = _WORDS[11000]
    elif isinstance(error, mongo.WaitQueueTimeoutError):
        kind, words = StoreBusy, "has all connections of this process in use. Try again."
    elif isinstance(error, mongo.ExecutionTimeout):
        kind, words = _WORDS[50]
    else:
        kind, words = _WORDS.get(code or 0, (StoreUnavailable, _UNAVAILABLE))
    return kind(f"gallery {place} {words} ({reason})", **facts)


class MongoServer:
    """One gallery's collections in one database. Safe to share between threads, and forks.

    url      ``mongodb://user:password@host:port/DATABASE?…`` as MongoDB defines it; without a database "facedex".
             A user without a password, or with ``***``, takes FACEDEX_STORE_PASSWORD.
    create   make the collections when they are missing.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.place = mask(url)
        self._url, self.database_name = self._complete(url)
        self._closed = False
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._client = self._connect()
        self.identity = ""
        try:
            with self.translated():
                self._look(create)
        except BaseException:
            self._client.close()
            raise

    def collection(self, name: str) -> Collection[Document]:
        return self.database[f"facedex_{name}"]

    @property
    def database(self) -> Database[Document]:
        self.check_open()
        with self._lock:
            if self._process != os.getpid():
                _inherited.append(self._client)  # the parent's
                self._process, self._client = os.getpid(), self._connect()
            return self._client.get_database(
                self.database_name,
                read_preference=ReadPreference.PRIMARY,
                write_concern=WriteConcern("majority", j=True),
                read_concern=ReadConcern("majority"),
            )

    def together(self, work: Callable[[Session], T]) -> T:
        """One transaction of ``work``, which may run several times and counts once."""
        with self.translated(), self.database.client.start_session() as session:
            return session.with_transaction(
                work,
                read_concern=ReadConcern("snapshot"),
                write_concern=WriteConcern("majority", j=True),
                read_preference=ReadPreference.PRIMARY,
            )

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        try:
            yield
        except (mongo.PyMongoError, bson.errors.BSONError) as error:
            raise translate(error, self.place) from error

    def check_open(self) -> None:
        """Raises StoreClosed after ``close``."""
        if self._closed:
            raise StoreClosed(
                f"gallery {self.place} was used after close(). Open it again.", gallery=self.place, reason="closed"
            )

    def close(self) -> None:
        self._closed = True
        if self._process == os.getpid():
            self._client.close()

    # -- opening -------------------------------------------------------------------------------------------------------

    def _connect(self) -> pymongo.MongoClient[Document]:
        try:
            return pymongo.MongoClient(self._url, tz_aware=True)
        except (mongo.ConfigurationError, mongo.InvalidURI, ValueError, TypeError) as error:
            raise ArgumentInvalid(
                f"{self.place} is no MongoDB URL: {error}.".replace(self._url, self.place),
                parameter="url",
                url=self.place,
            ) from error

    def _complete(self, url: str) -> tuple[str, str]:
        """The URL pymongo gets, and the database."""
        parts = urlsplit(url)
        user, at, hosts = parts.netloc.rpartition("@")
        name, colon, password = user.partition(":")
        if at and (not colon or password in ("***", "")):
            secret = Settings.from_environment().store_password
            user = f"{name}:{quote(secret, safe='')}" if secret else name
        options = dict(parse_qsl(parts.query))
        options.setdefault("serverSelectionTimeoutMS", "10000")
        options.setdefault("appName", "facedex")
        database = parts.path.strip("/") or "facedex"
        if not database.isascii() or set(database) & set('/\\. "$*<>:|?'):
            raise ArgumentInvalid(
                f"database {database!r} is no name MongoDB allows.", parameter="database", value=database
            )
        query = "&".join(f"{key}={quote(value, safe=':,/')}" for key, value in options.items())
        return urlunsplit((parts.scheme, f"{user}{at}{hosts}", parts.path or "/", query, "")), database

    def _look(self, create: bool) -> None:
        """See that the collections are a gallery of our version; make or migrate them when they are not yet."""
        hello = self._client.admin.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise StoreUnavailable(
                f"gallery {self.place} is on a standalone server, which has no transactions, so a batch could be "
                "written by half. Start it as a replica set; one node is enough: mongod --replSet rs0, then "
                "rs.initiate().", gallery=self.place, reason="standalone",
            )  # fmt: skip
        found = self._gallery()
        if found is None:
            if not create:
                raise StoreUnavailable(
                    f"gallery {self.place} does not exist: database {self.database_name!r} has no collections of ours. "
                    "Enroll some photos first, or check the URL.", gallery=self.place, reason="does not exist",
                )  # fmt: skip
            self._make_indexes(0)
            fresh = {
                "format": _FORMAT, "version": SCHEMA_VERSION, "identity": uuid.uuid4().hex,
                "sequence": 0, "space": None, "writes": 0,
            }  # fmt: skip
            self.collection("gallery").update_one({"_id": "gallery"}, {"$setOnInsert": fresh}, upsert=True)
            found = self._gallery()
            assert found is not None
        elif found["version"] < SCHEMA_VERSION:
            self._make_indexes(found["version"])
            self.collection("gallery").update_one({"_id": "gallery"}, {"$set": {"version": SCHEMA_VERSION}})
        self.identity = str(found["identity"])

    def _make_indexes(self, since: int) -> None:
        """Collections and indexes newer than a schema version; those that are there stay."""
        present = set(self.database.list_collection_names())
        for name in _COLLECTIONS:  # a transaction may not make them
            if f"facedex_{name}" not in present:
                with contextlib.suppress(mongo.CollectionInvalid):  # another process was faster
                    self.database.create_collection(f"facedex_{name}")
        for version, name, key, unique in _INDEXES:
            if version > since:
                self.collection(name).create_index(key, unique=unique)

    def _gallery(self) -> Document | None:
        names = [n for n in self.database.list_collection_names() if n.startswith("facedex_")]
        if not names:
            return None
        found = self.collection("gallery").find_one({"_id": "gallery"})
        if found is None:
            blank = {f"facedex_{name}" for name in _COLLECTIONS}
            if set(names) <= blank and not any(self.database[name].find_one() for name in names):
                return None  # somebody died between making the collections and the document, or is about to write it
        version = found.get("version") if found else None
        if found is None or found.get("format") != _FORMAT or not isinstance(version, int):
            raise StoreForeign(
                f"database {self.database_name!r} of {self.place} has collections named facedex_… that are no gallery "
                "of ours; they were left as they are. Choose another database.",
                gallery=self.place, collections=sorted(names),
            )  # fmt: skip
        if version > SCHEMA_VERSION:
            raise StoreVersion(
                f"gallery {self.place} has schema version {version}, this Facedex reads up to {SCHEMA_VERSION}. "
                "Update Facedex.", gallery=self.place, version=version, known=SCHEMA_VERSION,
            )  # fmt: skip
        return found


_inherited: list[pymongo.MongoClient[Document]] = []
