"""A gallery in Qdrant: two collections on a server, or a folder that the client itself looks after."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

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
)
from facedex.stores.address import GALLERY, Address
from facedex.stores.contract import EPOCH, MICROSECOND, Capabilities
from facedex.stores.journal import Engine, Query, Step
from facedex.stores.journaled import JournaledStore
from facedex.stores.rows import Row, body_of, label_token, metadata_tokens, row_of

__all__ = ["QdrantStore", "mapped"]

T = TypeVar("T")

# What its client raises, and what its local mode does: a database in Python that says ValueError and RuntimeError.
DRIVER_ERRORS = (ApiException, QdrantException, OSError, ValueError, RuntimeError, KeyError)

_OPTIONS = {"secure": "true", "patience": "seconds", "lease": "seconds"}
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
_AT_ONCE = 500
_HEAD, _BEAT, _PHOTO, _STEP = range(4)
_LAST = "f" * 30
_INDEXED = {
    "number": "integer", "enrolled": "integer", "content": "keyword", "photo": "keyword", "name": "keyword",
    "tokens": "keyword",
}  # fmt: skip


class QdrantStore(JournaledStore):
    """``qdrant://:API_KEY@host:6333/gallery``, or ``qdrant:///folder`` (relative), ``qdrant:////srv/folder``.

    secure    true: TLS.
    patience  seconds a call goes on trying while the server is away, and a write waits for its turn.
    lease     seconds of silence after which another writer counts as dead.
    Raises    StoreUnavailable, StoreForeign, StoreVersion, ArgumentInvalid.

    A folder belongs to one process at a time, is searched by comparing every embedding, and suits some thousand faces.
    On a server, writes are serialized by collections, of which only one process can create each.
    """

    capabilities = Capabilities(scrubs_deleted=False)

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Self:
        rest = url.partition("://")[2]
        engine: QdrantEngine
        if rest.startswith("/"):
            engine, masked, patience, lease = LocalQdrant(_folder(url, rest), create), url, 30.0, 10.0
        else:
            address = Address.parse(url, 6333, _OPTIONS)
            masked = address.masked
            patience, lease = address.seconds("patience", 30.0), address.seconds("lease", 10.0)
            engine = QdrantEngine(address, patience, create)
        try:
            store = cls(engine, masked, lease=lease, patience=patience)
        except BaseException:
            engine.close()
            raise
        if engine.exclusive:
            store.capabilities = Capabilities(shared=False, scrubs_deleted=False)
        return store


class QdrantEngine(Engine):
    """The primitives, on a server; see the protocol in ``journal``."""

    def __init__(self, address: Address, patience: float, create: bool) -> None:
        secure = address.options.get("secure", "false").lower() in ("true", "1", "yes")
        with mapping(address.masked):
            client = QdrantClient(
                host=address.host,
                port=address.port,
                https=secure,
                api_key=address.password,
                timeout=60,
                check_compatibility=False,  # it would only print
            )
        self._start(client, address.masked, address.gallery, patience, create)

    def _start(self, client: Any, url: str, gallery: str, patience: float, create: bool) -> None:
        self._client, self._url, self._patience = client, url, patience
        self._closed = self._there = False
        self._templates, self._log = f"facedex_{gallery}_templates", f"facedex_{gallery}_log"
        self._turn = f"facedex_{gallery}_turn_{{}}"
        try:
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
                self._client.create_collection(self._turn.format(generation), vectors_config={})
            except UnexpectedResponse as error:
                if error.status_code in (400, 409) and b"already exists" in error.content:
                    return False
                raise
            return True

        return self._call(create)

    def release(self, generation: int) -> None:
        self._call(lambda: self._client.delete_collection(self._turn.format(generation)))

    def beat(self) -> str:
        return self._text(_BEAT) or ""

    def write_beat(self, text: str) -> None:
        self._put_log(_BEAT, [(_key(0), text, 0)])

    # -- templates -----------------------------------------------------------------------------------------------------

    def prepare(self, dimension: int) -> None:
        # Not cosine: that would store the embeddings normalized once more.
        vectors = models.VectorParams(size=dimension, distance=models.Distance.DOT)

        def create() -> None:
            self._client.delete_collection(self._templates)
            self._client.create_collection(self._templates, vectors_config=vectors)
            self._index(self._templates, _INDEXED)

        self._call(create)

    def put_templates(self, rows: Sequence[Row]) -> None:
        points = [
            models.PointStruct(
                id=row.id,
                vector=np.frombuffer(row.embedding, "<f4").tolist(),
                payload={
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
        self._upsert(self._templates, points)

    def relabel(self, rows: Sequence[Row]) -> None:
        for row in rows:
            payload = {"name": label_token(row.label), "body": body_of(row)}
            self._call(partial(self._client.set_payload, self._templates, payload, points=[row.id], wait=True))

    def templates(self, ids: Sequence[int], embeddings: bool = False) -> list[Row]:
        if not ids or not self._has_templates():
            return []
        found = self._call(lambda: self._client.retrieve(self._templates, list(ids), with_vectors=embeddings))
        return [self._row(point, embeddings) for point in found]

    def page(self, query: Query, limit: int, embeddings: bool = False) -> list[Row]:
        if not self._has_templates() or query.after >= query.upto:
            return []
        conditions = _filter(query, bounds=False)
        points, _ = self._call(
            lambda: self._client.scroll(
                self._templates,
                scroll_filter=conditions,
                limit=limit,
                offset=query.after + 1,
                with_vectors=embeddings,
            )
        )
        return [self._row(point, embeddings) for point in points if point.id <= query.upto]

    def count(self, query: Query) -> int:
        if not self._has_templates():
            return 0
        conditions = _filter(query)
        return int(self._call(lambda: self._client.count(self._templates, count_filter=conditions)).count)

    def remove_templates(self, ids: Sequence[int]) -> None:
        if ids and self._has_templates():
            self._remove(self._templates, list(ids))

    def nearest(self, probes: npt.NDArray[np.float32], k: int, query: Query, exact: bool) -> Sequence[Sequence[int]]:
        if not self._has_templates():
            return [[] for _ in probes]
        conditions = None if query == Query() else _filter(query)
        requests = [
            models.QueryRequest(query=probe, limit=k, filter=conditions, params=self._parameters(exact))
            for probe in probes.tolist()
        ]
        answers = self._call(lambda: self._client.query_batch_points(self._templates, requests))
        return [[int(point.id) for point in answer.points] for answer in answers]

    # -- photos and steps ----------------------------------------------------------------------------------------------

    def put_photos(self, digests: Sequence[str], generation: int) -> None:
        self._put_log(_PHOTO, [(digest[:30], digest, generation) for digest in digests])

    def photos(self, digests: Sequence[str]) -> dict[str, int]:
        asked = set(digests)
        if not asked:
            return {}
        points = [_uuid(_PHOTO, digest[:30]) for digest in asked]
        found = self._call(lambda: self._client.retrieve(self._log, points))
        listed = ((point.payload["text"], point.payload["number"]) for point in found)
        return {digest: generation for digest, generation in listed if digest in asked}

    def page_photos(self, after: str, limit: int, newer: int = -1) -> list[tuple[str, int]]:
        fresh = [models.FieldCondition(key="number", range=models.Range(gt=newer))] if newer >= 0 else []
        found = (
            (p.payload["text"], p.payload["number"])
            for p in self._page_log(_PHOTO, after[:30] or _key(0), limit, fresh)
        )
        return [(digest, generation) for digest, generation in found if digest > after]

    def remove_photos(self, digests: Sequence[str]) -> None:
        if digests:
            self._remove(self._log, [_uuid(_PHOTO, digest[:30]) for digest in digests])

    def put_steps(self, steps: Sequence[Step]) -> None:
        self._put_log(_STEP, [(_key(s.sequence), "deleted" if s.deleted else "relabeled", s.id) for s in steps])

    def page_steps(self, after: int, limit: int) -> list[Step]:
        return [
            Step(uuid.UUID(point.id).int & (1 << 120) - 1, point.payload["number"], point.payload["text"] == "deleted")
            for point in self._page_log(_STEP, _key(after + 1), limit, [])
        ]

    def remove_steps(self, sequences: Sequence[int]) -> None:
        if sequences:
            self._remove(self._log, [_uuid(_STEP, _key(n)) for n in sequences])

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(*DRIVER_ERRORS):
            self._client.close()

    # -- talking to the server -----------------------------------------------------------------------------------------

    def _begin(self, create: bool) -> None:
        client = self._client
        if not self._call(lambda: client.collection_exists(self._log)):
            if self._call(lambda: client.collection_exists(self._templates)):
                raise self._foreign(f"there is a collection {self._templates}, and none {self._log}")
            if not create:
                raise StoreUnavailable(f"{self._url} holds no gallery. Enroll to create it.", url=self._url)
            self._call(self._create_log)
        elif self._call(lambda: client.get_collection(self._log)).config.params.vectors:
            raise self._foreign(f"collection {self._log} has vectors")

    def _create_log(self) -> None:
        try:
            self._client.create_collection(self._log, vectors_config={})
        except UnexpectedResponse as error:
            if b"already exists" not in error.content:  # another process was faster
                raise
        self._index(self._log, {"number": "integer"})

    def _index(self, collection: str, fields: dict[str, str]) -> None:
        for field, kind in fields.items():
            self._client.create_payload_index(collection, field, field_schema=kind, wait=True)

    def _parameters(self, exact: bool) -> Any:
        return models.SearchParams(exact=exact)

    def _has_templates(self) -> bool:
        if not self._there:
            self._there = self._call(lambda: bool(self._client.collection_exists(self._templates)))
        return self._there

    def _text(self, kind: int) -> str | None:
        found = self._call(lambda: self._client.retrieve(self._log, [_uuid(kind, _key(0))]))
        return str(found[0].payload["text"]) if found else None

    def _put_log(self, kind: int, entries: Sequence[tuple[str, str, int]]) -> None:
        self._upsert(
            self._log,
            [
                models.PointStruct(id=_uuid(kind, key), vector={}, payload={"text": text, "number": number})
                for key, text, number in entries
            ],
        )

    def _page_log(self, kind: int, first: str, limit: int, conditions: list[Any]) -> list[Any]:
        points, _ = self._call(
            lambda: self._client.scroll(
                self._log, scroll_filter=models.Filter(must=conditions), limit=limit + 1, offset=_uuid(kind, first)
            )
        )
        return [point for point in points if str(point.id) <= _uuid(kind, _LAST)]

    def _upsert(self, collection: str, points: list[Any]) -> None:
        for start in range(0, len(points), _AT_ONCE):
            some = points[start : start + _AT_ONCE]
            self._call(partial(self._client.upsert, collection, some, wait=True))

    def _remove(self, collection: str, ids: list[Any]) -> None:
        self._call(lambda: self._client.delete(collection, points_selector=ids, wait=True))

    def _row(self, point: Any, embeddings: bool) -> Row:
        payload = point.payload or {}
        embedding = np.array(point.vector, "<f4").tobytes() if embeddings else b""
        content, photo, body = (payload.get(name, "") for name in ("content", "photo", "body"))
        return row_of(int(point.id), content, photo, body, embedding, self._url)

    def _call(self, work: Callable[[], T]) -> T:
        deadline, tries = time.monotonic() + self._patience, 0
        while True:
            if self._closed:
                raise StoreClosed(f"the gallery {self._url} was closed. Open it again.", url=self._url)
            try:
                return self._run(work)
            except DRIVER_ERRORS as error:
                pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
                if not _passing(error) or time.monotonic() + pause > deadline:
                    raise mapped(error, self._url) from error
            time.sleep(pause)
            tries += 1

    def _run(self, work: Callable[[], T]) -> T:
        return work()

    def _foreign(self, what: str) -> StoreForeign:
        return StoreForeign(
            f"{self._url} is not a Facedex gallery: {what}. Name another gallery in the URL.", url=self._url
        )


class LocalQdrant(QdrantEngine):
    """The client's own database in a folder: one process, and one thread of it, at a time."""

    exclusive = True

    def __init__(self, folder: Path, create: bool) -> None:
        self._one = threading.RLock()
        url = f"qdrant:///{folder.as_posix()}"
        if not create and not (folder / "meta.json").exists():
            raise StoreUnavailable(f"{url} does not exist. Enroll to create it.", url=url)
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "meta.json").exists():
            raise StoreForeign(f"{url} is a folder of something else. Name another one.", url=url)
        with mapping(url):
            client = QdrantClient(path=str(folder))
        self._start(client, url, GALLERY, 30.0, create)

    def _run(self, work: Callable[[], T]) -> T:
        with self._one:
            return work()

    def _index(self, collection: str, fields: dict[str, str]) -> None:
        """There are none."""

    def _parameters(self, exact: bool) -> Any:  # noqa: ARG002 - it always is
        return None


@contextlib.contextmanager
def mapping(url: str) -> Iterator[None]:
    try:
        yield
    except DRIVER_ERRORS as error:
        raise mapped(error, url) from error


def mapped(error: BaseException, url: str) -> StoreError:
    """Ours for an error of the client.

    url  masked.
    """
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    facts = {"url": url, "reason": said}
    status = getattr(error, "status_code", None)
    if status == 401 or (status == 403 and "api" in said.lower()):
        return StoreUnavailable(f"{url} refused the API key. Check it ({said}).", **facts)
    if status == 403:
        return StoreReadOnly(f"{url} does not let this key do that ({said}).", **facts)
    if status in (429, 408) or type(error).__name__ == "ResourceExhaustedResponse":
        return StoreBusy(f"{url} was busy for too long ({said}). Try again.", **facts)
    if "already accessed" in said:
        return StoreBusy(f"{url} is open in another process ({said}). Close it there, or use a server.", **facts)
    if "disk" in said.lower() or "No space" in said:
        return StoreFull(f"{url} has no room left ({said}). Nothing was written.", **facts)
    if isinstance(error, PermissionError):
        return StoreReadOnly(f"{url} cannot be written ({said}).", **facts)
    if isinstance(error, (ValueError, RuntimeError, KeyError)):
        return StoreCorrupt(f"{url} is not what we wrote ({said}). Restore it from a copy.", **facts)
    return StoreUnavailable(f"{url} cannot be reached ({said}). Start the server, or correct the URL.", **facts)


def _passing(error: BaseException) -> bool:
    """Whether it may work again later."""
    if isinstance(error, ResponseHandlingException):
        return True
    status = getattr(error, "status_code", None)
    return isinstance(status, int) and (status in (408, 429) or status >= 500)


def _folder(url: str, rest: str) -> Path:
    if len(rest) < 2 or "?" in rest:
        raise ArgumentInvalid(
            f"{url!r} names no folder. Say qdrant:///faces.qdrant (relative) or qdrant:////srv/faces.qdrant.",
            parameter="url",
            url=url,
        )
    return Path(rest[1:]).absolute()


def _key(number: int) -> str:
    return f"{max(0, number):030x}"


def _uuid(kind: int, key: str) -> str:
    return str(uuid.UUID(f"{kind:02x}{key}"))


def _filter(query: Query, bounds: bool = True) -> Any:
    where = query.where
    must: list[Any] = []
    must_not: list[Any] = []

    def one_of(key: str, values: Sequence[str]) -> Any:
        return models.FieldCondition(key=key, match=models.MatchAny(any=list(values)))

    if bounds:
        upto = None if query.upto >= 2**63 - 1 else query.upto
        must.append(models.FieldCondition(key="number", range=models.Range(gt=query.after, lte=upto)))
    if query.contents is not None:
        must.append(one_of("content", sorted(query.contents)))
    if where.labels is not None:
        must.append(one_of("name", sorted(map(label_token, where.labels))))
    if where.not_labels:
        must_not.append(one_of("name", sorted(map(label_token, where.not_labels))))
    if where.photos is not None:
        must.append(one_of("photo", sorted(where.photos)))
    must += [
        models.FieldCondition(key="tokens", match=models.MatchValue(value=token))
        for token in metadata_tokens(where.metadata)
    ]
    since, until = (_micro(moment) for moment in (where.enrolled_after, where.enrolled_before))
    if since is not None or until is not None:
        must.append(models.FieldCondition(key="enrolled", range=models.Range(gte=since, lt=until)))
    return models.Filter(must=must, must_not=must_not)


def _micro(moment: Any) -> int | None:
    return None if moment is None else int((moment - EPOCH) // MICROSECOND)
