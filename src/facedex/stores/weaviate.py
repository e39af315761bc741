"""A gallery in Weaviate: two collections, and aliases as the claims of writers."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt

from facedex.errors import (
    ArgumentInvalid,
    StoreBusy,
    StoreClosed,
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreReadOnly,
    StoreUnavailable,
)
from facedex.stores.address import Address
from facedex.stores.contract import EPOCH, MICROSECOND, Capabilities
from facedex.stores.journal import Engine, Query, Step
from facedex.stores.journaled import JournaledStore
from facedex.stores.rows import Row, body_of, label_token, metadata_tokens, row_of
from facedex.types import Where

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of libraries its client imports
    import grpc
    import httpx
    import weaviate
    from weaviate.classes.config import Configure, DataType, Property, Tokenization, VectorDistances
    from weaviate.classes.data import DataObject
    from weaviate.classes.init import AdditionalConfig, Auth, Timeout
    from weaviate.classes.query import Filter
    from weaviate.exceptions import (
        AuthenticationFailedError,
        InsufficientPermissionsError,
        UnexpectedStatusCodeError,
        WeaviateBaseError,
        WeaviateClosedClientError,
        WeaviateInvalidInputError,
        WeaviateProtobufIncompatibility,
    )

__all__ = ["WeaviateStore", "mapped"]

T = TypeVar("T")

DRIVER_ERRORS = (WeaviateBaseError, WeaviateProtobufIncompatibility, httpx.HTTPError, grpc.RpcError, OSError)

_OPTIONS = {
    "grpc_port": "port", "grpc_host": "name", "secure": "true", "patience": "seconds", "lease": "seconds",
}  # fmt: skip
_LIMIT = 2_000  # rows of one answer, embeddings and all
_EXACT = 2**53  # Weaviate keeps integers as doubles
_SLACK = 64  # microseconds: how far a time of the year 9999 may be off then
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
_PASSING = ("unavailable", "deadline", "timed out", "timeout", "connect", "leader", "not ready", "shutting down")

# The first byte of an object's UUID says what it is; the rest is its key, so that UUIDs rise with the keys.
_HEAD, _BEAT, _PHOTO, _STEP, _TEMPLATE = range(5)
_LAST = "f" * 30


class WeaviateStore(JournaledStore):
    """``weaviate://:API_KEY@host:8080/gallery?grpc_port=50051``.

    secure    true: TLS on both ports.
    patience  seconds a call goes on trying while the server is away, and a write waits for its turn.
    lease     seconds of silence after which another writer counts as dead.
    Raises    StoreUnavailable, StoreForeign, StoreVersion, ArgumentInvalid.

    Writes are serialized through aliases, which the server's Raft log lets one process create (Weaviate 1.32).
    """

    capabilities = Capabilities(scrubs_deleted=False)

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Self:
        address = Address.parse(url, 8080, _OPTIONS)
        patience, lease = address.seconds("patience", 30.0), address.seconds("lease", 10.0)
        engine = WeaviateEngine(address, patience, create)
        try:
            return cls(engine, address.masked, lease=lease, patience=patience)
        except BaseException:
            engine.close()
            raise


class WeaviateEngine(Engine):
    """The primitives; see the protocol in ``journal``."""

    scans: ClassVar[bool] = False

    def __init__(self, address: Address, patience: float, create: bool) -> None:
        self._url, self._patience = address.masked, patience
        self._closed = self._there = False
        name = address.gallery
        self._templates_name, self._log_name = f"FacedexTemplates_{name}", f"FacedexLog_{name}"
        self._turn_name = f"FacedexTurn_{{}}_{name}"
        secure = address.options.get("secure", "false").lower() in ("true", "1", "yes")
        port = address.options.get("grpc_port", "50051")
        if not port.isdigit() or not 0 < int(port) < 65_536:
            raise ArgumentInvalid(f"{self._url} has grpc_port={port!r}; expected a port.", parameter="url")
        with self._mapping():
            self._client = weaviate.WeaviateClient(
                weaviate.connect.ConnectionParams.from_params(
                    http_host=address.host,
                    http_port=address.port,
                    http_secure=secure,
                    grpc_host=address.options.get("grpc_host", address.host),
                    grpc_port=int(port),
                    grpc_secure=secure,
                ),
                auth_client_secret=Auth.api_key(address.password) if address.password else None,
                additional_config=AdditionalConfig(timeout=Timeout(init=5, query=60, insert=120)),
                skip_init_checks=True,  # they would ask a package registry for the newest client
            )
        try:
            with self._mapping():
                self._client.connect()
                self._client.get_meta()
            self._log = self._client.collections.use(self._log_name)
            self._templates = self._client.collections.use(self._templates_name)
            self._begin(create)
        except BaseException:
            self.close()
            raise

    # -- the head and the turns ----------------------------------------------------------------------------------------

    def head(self) -> str | None:
        return self._text(_HEAD)

    def write_head(self, text: str) -> None:
        self._put_log(_HEAD, [(_key(0), text, 0)])

    def claim(self, generation: int) -> bool:
        def create() -> bool:
            try:
                self._client.alias.create(
                    alias_name=self._turn_name.format(generation), target_collection=self._log_name
                )
            except UnexpectedStatusCodeError as error:
                if "already exists" in str(error):
                    return False
                raise
            return True

        return self._call(create)

    def release(self, generation: int) -> None:
        self._call(lambda: self._client.alias.delete(alias_name=self._turn_name.format(generation)))

    def beat(self) -> str:
        return self._text(_BEAT) or ""

    def write_beat(self, text: str) -> None:
        self._put_log(_BEAT, [(_key(0), text, 0)])

    # -- templates -----------------------------------------------------------------------------------------------------

    def prepare(self, dimension: int) -> None:  # noqa: ARG002 - the server takes it from the first object
        def create() -> None:
            self._client.collections.delete(self._templates_name)
            self._client.collections.create(
                self._templates_name,
                description="Facedex: the templates of a gallery",
                properties=[
                    Property(name="number", data_type=DataType.INT, index_range_filters=True),
                    Property(name="enrolled", data_type=DataType.INT, index_range_filters=True),
                    *(_filtered(name, DataType.TEXT) for name in ("content", "photo", "name")),
                    _filtered("tokens", DataType.TEXT_ARRAY),
                    _kept("body"),
                ],
                vector_config=Configure.Vectors.self_provided(
                    # Not cosine: that would store the embeddings normalized once more.
                    vector_index_config=Configure.VectorIndex.hnsw(distance_metric=VectorDistances.DOT)
                ),
            )

        self._call(create)

    def put_templates(self, rows: Sequence[Row]) -> None:
        objects = [
            DataObject(
                uuid=_uuid(_TEMPLATE, _key(row.id)),
                vector=np.frombuffer(row.embedding, "<f4").tolist(),
                properties={
                    "number": row.id,
                    "enrolled": row.enrolled,
                    "content": row.content,
                    "photo": row.photo,
                    "name": label_token(row.label),
                    "tokens": metadata_tokens(json.loads(row.metadata)),
                    "body": body_of(row),
                },
            )
            for row in rows
        ]
        self._insert(self._templates, objects)

    def relabel(self, rows: Sequence[Row]) -> None:
        new = {row.id: row for row in rows}
        for start in range(0, len(rows), 200):
            some = [row.id for row in rows[start : start + 200]]
            whole = [
                Row(**{f: getattr(new[old.id] if f in ("label", "sequence") else old, f) for f in _FIELDS})
                for old in self.templates(some, True)
            ]
            if whole:
                self.put_templates(whole)

    def templates(self, ids: Sequence[int], embeddings: bool = False) -> list[Row]:
        if not ids or not self._has_templates():
            return []
        uuids = [_uuid(_TEMPLATE, _key(n)) for n in ids]
        answer = self._call(
            lambda: self._templates.query.fetch_objects_by_ids(uuids, limit=len(uuids), include_vector=embeddings)
        )
        return [self._row(found, embeddings) for found in answer.objects]

    def page(self, query: Query, limit: int, embeddings: bool = False) -> list[Row]:
        if not self._has_templates() or query.after >= query.upto:
            return []
        if query.where == Where() and query.contents is None:
            rows = self._fetch(limit, embeddings, after=_uuid(_TEMPLATE, _key(query.after)))
            return [row for row in rows if row.id <= query.upto]
        if _impossible(query):
            return []
        rows = self._fetch(_LIMIT, embeddings, _filter(query))
        if len(rows) < _LIMIT:
            return sorted((row for row in rows if _in_time(row, query.where)), key=lambda row: row.id)[:limit]
        # Too many for one answer, and not sorted: go by windows of ids that fit.
        found: list[Row] = []
        low = query.after
        while len(found) < limit and low < query.upto:
            window = Query(low, min(low + _LIMIT, query.upto), query.where, query.contents)
            found += sorted(self._fetch(_LIMIT, embeddings, _filter(window)), key=lambda row: row.id)
            low = window.upto
        return [row for row in found if _in_time(row, query.where)][:limit]

    def count(self, query: Query) -> int:
        if not self._has_templates() or _impossible(query):
            return 0
        if query.where.enrolled_after or query.where.enrolled_before:
            return self._count_one_by_one(query)
        filters = _filter(query)
        answer = self._call(lambda: self._templates.aggregate.over_all(total_count=True, filters=filters))
        return int(answer.total_count or 0)

    def _count_one_by_one(self, query: Query) -> int:
        number = 0
        while page := self.page(query, _LIMIT):
            number += len(page)
            query = replace(query, after=page[-1].id)
        return number

    def remove_templates(self, ids: Sequence[int]) -> None:
        if ids and self._has_templates():
            self._remove(self._templates, [_uuid(_TEMPLATE, _key(n)) for n in ids])

    def nearest(self, probes: npt.NDArray[np.float32], k: int, query: Query, exact: bool) -> Sequence[Sequence[int]]:
        if not self._has_templates() or _impossible(query):
            return [[] for _ in probes]
        assert not exact  # see ``scans``
        filters = None if query == Query() else _filter(query)

        def ask(probe: list[float]) -> list[int]:
            answer: Any = self._templates.query.near_vector(
                probe, limit=k, filters=filters, return_properties=["number"]
            )
            return [int(found.properties["number"]) for found in answer.objects]

        return [self._call(partial(ask, probe)) for probe in probes.tolist()]

    # -- photos and steps ----------------------------------------------------------------------------------------------

    def put_photos(self, digests: Sequence[str], generation: int) -> None:
        self._put_log(_PHOTO, [(digest[:30], digest, generation) for digest in digests])

    def photos(self, digests: Sequence[str]) -> dict[str, int]:
        asked = set(digests)
        if not asked:
            return {}
        uuids = [_uuid(_PHOTO, digest[:30]) for digest in asked]
        answer: Any = self._call(lambda: self._log.query.fetch_objects_by_ids(uuids, limit=len(uuids)))
        found = ((str(o.properties["text"]), int(o.properties["number"])) for o in answer.objects)
        return {digest: generation for digest, generation in found if digest in asked}

    def page_photos(self, after: str, limit: int, newer: int = -1) -> list[tuple[str, int]]:
        if newer >= 0:  # asked while cleaning up: in any order
            filters = Filter.by_property("kind").equal(_PHOTO) & Filter.by_property("number").greater_than(newer)
            answer: Any = self._call(lambda: self._log.query.fetch_objects(limit=limit, filters=filters))
            return sorted((str(o.properties["text"]), int(o.properties["number"])) for o in answer.objects)
        return [
            (str(found.properties["text"]), int(found.properties["number"]))
            for found in self._page_log(_PHOTO, after[:30] or _key(0), limit)
        ]

    def remove_photos(self, digests: Sequence[str]) -> None:
        if digests:
            self._remove(self._log, [_uuid(_PHOTO, digest[:30]) for digest in digests])

    def put_steps(self, steps: Sequence[Step]) -> None:
        self._put_log(_STEP, [(_key(s.sequence), "deleted" if s.deleted else "relabeled", s.id) for s in steps])

    def page_steps(self, after: int, limit: int) -> list[Step]:
        return [
            Step(int(str(found.uuid).replace("-", "")[2:], 16), int(found.properties["number"]),
                 found.properties["text"] == "deleted")
            for found in self._page_log(_STEP, _key(after), limit)
        ]  # fmt: skip

    def remove_steps(self, sequences: Sequence[int]) -> None:
        if sequences:
            self._remove(self._log, [_uuid(_STEP, _key(n)) for n in sequences])

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(*DRIVER_ERRORS):
            self._client.close()

    # -- talking to the server -----------------------------------------------------------------------------------------

    def _begin(self, create: bool) -> None:
        held = self._call(lambda: self._client.collections.export_config(self._log_name)
                          if self._client.collections.exists(self._log_name) else None)  # fmt: skip
        if held is None:
            if self._call(lambda: self._client.collections.exists(self._templates_name)):
                raise self._foreign(f"there is a collection {self._templates_name}, and none {self._log_name}")
            if not create:
                raise StoreUnavailable(f"{self._url} holds no gallery. Enroll to create it.", url=self._url)
            self._call(self._create_log)
        elif not {"kind", "text", "number"} <= {p.name for p in held.properties}:
            raise self._foreign(f"collection {self._log_name} has other properties")

    def _create_log(self) -> None:
        try:
            self._client.collections.create(
                self._log_name,
                description="Facedex: the head of a gallery, its photos, and the steps it took",
                properties=[
                    Property(name="kind", data_type=DataType.INT),
                    Property(name="number", data_type=DataType.INT, index_range_filters=True),
                    _kept("text"),
                ],
                vector_config=Configure.Vectors.self_provided(vector_index_config=Configure.VectorIndex.flat()),
            )
        except UnexpectedStatusCodeError as error:
            if "already exists" not in str(error):  # another process was faster
                raise

    def _has_templates(self) -> bool:
        """The collection is made with the first template; asked of the server until it is there."""
        if not self._there:
            self._there = self._call(lambda: self._client.collections.exists(self._templates_name))
        return self._there

    def _text(self, kind: int) -> str | None:
        found = self._call(lambda: self._log.query.fetch_object_by_id(_uuid(kind, _key(0))))
        return None if found is None else str(found.properties["text"])

    def _put_log(self, kind: int, entries: Sequence[tuple[str, str, int]]) -> None:
        self._insert(
            self._log,
            [
                DataObject(uuid=_uuid(kind, key), properties={"kind": kind, "text": text, "number": number})
                for key, text, number in entries
            ],
        )

    def _page_log(self, kind: int, after: str, limit: int) -> Iterator[Any]:
        behind = _uuid(kind, after)
        answer = self._call(lambda: self._log.query.fetch_objects(limit=limit, after=behind))
        return (found for found in answer.objects if found.uuid <= _uuid(kind, _LAST))

    def _insert(self, collection: Any, objects: list[Any]) -> None:
        def insert() -> None:
            done = collection.data.insert_many(objects)
            if done.has_errors:
                raise WeaviateBaseError(str(next(iter(done.errors.values())).message))

        self._call(insert)

    def _remove(self, collection: Any, uuids: list[uuid.UUID]) -> None:
        def remove() -> None:
            for start in range(0, len(uuids), 1000):
                done = collection.data.delete_many(where=Filter.by_id().contains_any(uuids[start : start + 1000]))
                if done.failed:
                    raise WeaviateBaseError(f"{done.failed} objects could not be deleted: unavailable")

        self._call(remove)

    def _fetch(self, limit: int, embeddings: bool, filters: Any = None, after: uuid.UUID | None = None) -> list[Row]:
        answer = self._call(
            lambda: self._templates.query.fetch_objects(
                limit=limit, filters=filters, after=after, include_vector=embeddings
            )
        )
        return [self._row(found, embeddings) for found in answer.objects]

    def _row(self, found: Any, embeddings: bool) -> Row:
        properties = found.properties
        embedding = np.array(found.vector["default"], "<f4").tobytes() if embeddings else b""
        number, body = int(properties["number"]), properties["body"]
        return row_of(number, properties["content"], properties["photo"], body, embedding, self._url)

    def _call(self, work: Callable[[], T]) -> T:
        deadline, tries = time.monotonic() + self._patience, 0
        while True:
            if self._closed:
                raise StoreClosed(f"the gallery {self._url} was closed. Open it again.", url=self._url)
            try:
                return work()
            except DRIVER_ERRORS as error:
                pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
                if not _passing(error) or time.monotonic() + pause > deadline:
                    raise mapped(error, self._url) from error
            time.sleep(pause)
            tries += 1

    @contextlib.contextmanager
    def _mapping(self) -> Iterator[None]:
        try:
            yield
        except (*DRIVER_ERRORS, ValueError) as error:
            raise mapped(error, self._url) from error

    def _foreign(self, what: str) -> StoreForeign:
        return StoreForeign(
            f"{self._url} is not a Facedex gallery: {what}. Name another gallery in the URL.", url=self._url
        )


_FIELDS = tuple(Row.__dataclass_fields__)


def mapped(error: BaseException, url: str) -> StoreError:
    """Ours for an error of the driver.

    url  masked.
    """
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    facts = {"url": url, "reason": said}
    status = getattr(error, "status_code", None)
    if isinstance(error, AuthenticationFailedError) or status == 401:
        return StoreUnavailable(f"{url} refused the API key. Check it ({said}).", **facts)
    if isinstance(error, InsufficientPermissionsError) or status == 403:
        return StoreReadOnly(f"{url} does not let this key do that ({said}).", **facts)
    if isinstance(error, WeaviateClosedClientError):
        return StoreClosed(f"the gallery {url} was closed. Open it again.", **facts)
    if "read-only" in said or "READONLY" in said:
        return StoreReadOnly(f"{url} takes no writes ({said}). Its disk may be full.", **facts)
    if status == 429:
        return StoreBusy(f"{url} was busy for too long ({said}). Try again.", **facts)
    if isinstance(error, (WeaviateInvalidInputError, json.JSONDecodeError)):
        return StoreCorrupt(f"{url} holds or was asked something else than we wrote ({said}).", **facts)
    return StoreUnavailable(
        f"{url} cannot be reached, or refused a call of ours ({said}). Start the server, Weaviate 1.32 or newer, or "
        "correct the URL and its grpc_port.",
        **facts,
    )


def _passing(error: BaseException) -> bool:
    """Whether it may work again later."""
    if isinstance(error, (httpx.HTTPError, grpc.RpcError, OSError)):
        return True
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 400:
        return status in (408, 429) or status >= 500
    text = str(error).lower()
    return any(word in text for word in _PASSING)


def _filtered(name: str, kind: Any) -> Any:
    return Property(name=name, data_type=kind, tokenization=Tokenization.FIELD, index_searchable=False)


def _kept(name: str) -> Any:
    return Property(name=name, data_type=DataType.TEXT, index_filterable=False, index_searchable=False)


def _key(number: int) -> str:
    return f"{max(0, number):030x}"


def _uuid(kind: int, key: str) -> uuid.UUID:
    return uuid.UUID(f"{kind:02x}{key}")


def _impossible(query: Query) -> bool:
    """Whether nothing can pass: the server refuses empty lists."""
    where = query.where
    return any(wanted is not None and not wanted for wanted in (where.labels, where.photos, query.contents))


def _filter(query: Query) -> Any:
    where, by = query.where, Filter.by_property
    parts = [by("number").greater_than(query.after), by("number").less_or_equal(min(query.upto, _EXACT))]
    if query.contents is not None:
        parts.append(by("content").contains_any(sorted(query.contents)))
    if where.labels is not None:
        parts.append(by("name").contains_any(sorted(map(label_token, where.labels))))
    parts += [by("name").not_equal(token) for token in sorted(map(label_token, where.not_labels or ()))]
    if where.photos is not None:
        parts.append(by("photo").contains_any(sorted(where.photos)))
    if where.metadata:
        parts.append(by("tokens").contains_all(metadata_tokens(where.metadata)))
    if where.enrolled_after is not None:
        parts.append(by("enrolled").greater_or_equal(_micro(where.enrolled_after) - _SLACK))
    if where.enrolled_before is not None:
        parts.append(by("enrolled").less_than(_micro(where.enrolled_before) + _SLACK))
    return Filter.all_of(parts)


def _micro(moment: Any) -> int:
    return int((moment - EPOCH) // MICROSECOND)


def _in_time(row: Row, where: Where) -> bool:
    """Times again, exactly: the server's are doubles, which differ after the year 2255."""
    return (where.enrolled_after is None or row.enrolled >= _micro(where.enrolled_after)) and (
        where.enrolled_before is None or row.enrolled < _micro(where.enrolled_before)
    )
