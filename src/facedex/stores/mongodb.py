"""A gallery in a MongoDB database: many processes and machines; needs a replica set, of one node at least."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from bson import Int64, ObjectId

from facedex.errors import IndexUnavailable, StoreCorrupt
from facedex.stores.checks import (
    check_batch,
    check_label,
    check_limit,
    check_space,
    check_where,
    encode_metadata,
    storable_ids,
    storable_text,
)
from facedex.stores.contract import (
    ABSENT,
    EPOCH,
    MICROSECOND,
    Added,
    Capabilities,
    Change,
    ChangeKind,
    Facts,
    KeepsIndex,
    KeptIndex,
    PhotoRecord,
    Store,
)
from facedex.stores.mongodb_server import Document, MongoServer, Session
from facedex.stores.numbering import by_photo, number_batch
from facedex.stores.packed import FLOAT32, GEOMETRY, digest_bytes, in_order, pack_geometry, unpack_geometry
from facedex.types import EmbeddingSpace, Person, StoredTemplate, Template, Where

__all__ = ["MongoStore"]

_PAGE = 4096  # templates fetched at once
_PART = 8 * 2**20  # bytes; a document may have 16 MiB


class MongoStore(Store, KeepsIndex):
    """A gallery in the collections ``facedex_…`` of one database.

    url     ``mongodb://user:password@host/DATABASE?…`` or ``mongodb+srv://``; see ``MongoServer``.
    Raises  StoreUnavailable, StoreForeign, StoreCorrupt, StoreVersion, StoreReadOnly, StoreBusy, ArgumentInvalid.

    What was deleted leaves the collections at once, and the server's files when it reuses their blocks and drops its
    oplog: that is the server's business, not ours. A call of ``add`` is one transaction, which servers end after 60
    seconds unless configured otherwise: some ten thousand templates at once.
    """

    capabilities = Capabilities(scrubs_deleted=False)

    def __init__(self, url: str, *, create: bool = True) -> None:
        self._server = MongoServer(url, create=create)
        self._space: EmbeddingSpace | None = None  # once read, it never changes

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Self:
        return cls(url, create=create)

    @property
    def url(self) -> str:
        return self._server.place

    @property
    def identity(self) -> str:
        return self._server.identity

    def space(self) -> EmbeddingSpace | None:
        self._server.check_open()
        if self._space is None:
            self._space = self._space_of(self._gallery("space"))
        return self._space

    def add(self, photos: Sequence[PhotoRecord], space: EmbeddingSpace) -> list[list[Added]]:
        batch = check_batch(photos, space, self.space())
        if not photos:
            return []
        contents = [bytes.fromhex(template.content_id) for template in batch.templates]
        digests = sorted({bytes.fromhex(photo.digest) for photo in photos})
        places, place = pack_geometry(batch), GEOMETRY.itemsize
        vectors, width = batch.embeddings.astype(FLOAT32, copy=False).tobytes(), 4 * space.dimension

        def write(session: Session) -> list[Added]:
            gallery = self._lock(session)
            sequence = int(gallery["sequence"])
            held = self._space_of(gallery)
            check_space(space, held)
            change: Document = {}
            if held is None:
                change["space"] = _space_document(space)
            listed = {each["_id"] for each in self._find(session, "photo", {"_id": {"$in": digests}}, ["_id"])}
            new_photos: list[Document] = [{"_id": digest} for digest in digests if digest not in listed]
            if new_photos:
                self._server.collection("photo").insert_many(new_photos, ordered=False, session=session)
            found = (
                self._find(session, "template", {"content": {"$in": contents}}, ["content", "label"])
                if sequence
                else ()
            )
            present = {each["content"]: (int(each["_id"]), each["label"]) for each in found}
            added, new = number_batch(contents, [template.label for template in batch.templates], present, sequence)
            rows: list[Document] = []
            for id, n in enumerate(new, sequence + 1):
                template = batch.templates[n]
                rows.append(
                    {
                        "_id": Int64(id),
                        "sequence": Int64(id),
                        "content": contents[n],
                        "photo": bytes.fromhex(template.photo_digest),
                        "label": template.label,
                        "enrolled": Int64(batch.enrolled[n]),
                        "geometry": places[n * place : (n + 1) * place],
                        "embedding": vectors[n * width : (n + 1) * width],
                        "link": template.link,
                        "metadata": _fragments(template.metadata),
                    }
                )
            if rows:
                self._server.collection("template").insert_many(rows, session=session)
                change["sequence"] = Int64(sequence + len(rows))
            self._change(session, change)
            return added

        added = self._server.together(write)
        self._space = space
        return by_photo(photos, added)

    def relabel(self, ids: Iterable[int], label: str | None) -> int:
        check_label(label)
        wanted = sorted(set(storable_ids(ids)))

        def write(session: Session) -> int:
            sequence = int(self._lock(session)["sequence"])
            condition = {"_id": {"$in": wanted}, "label": {"$ne": label}}
            changed = [each["_id"] for each in self._find(session, "template", condition, ["_id"])]
            for number, id in enumerate(changed, sequence + 1):
                self._server.collection("template").update_one(
                    {"_id": id}, {"$set": {"label": label, "sequence": Int64(number)}}, session=session
                )
            if changed:
                self._change(session, {"sequence": Int64(sequence + len(changed))})
            return len(changed)

        return self._server.together(write)

    def delete(self, where: Where) -> int:
        check_where(where)
        condition = _condition(where)

        def write(session: Session) -> int:
            sequence = int(self._lock(session)["sequence"])
            collection = self._server.collection
            gone = list(self._find(session, "template", condition, ["photo"]))
            for start in range(0, len(gone), _PAGE):
                some = gone[start : start + _PAGE]
                ids = [each["_id"] for each in some]
                collection("template").delete_many({"_id": {"$in": ids}}, session=session)
                photos = list({each["photo"] for each in some})
                collection("photo").delete_many({"_id": {"$in": photos}}, session=session)
                collection("tombstone").insert_many(
                    [{"_id": Int64(n), "id": id} for n, id in enumerate(ids, sequence + start + 1)], session=session
                )
            if gone:
                self._change(session, {"sequence": Int64(sequence + len(gone))})
                collection("index").delete_many({}, session=session)
                collection("index_part").delete_many({}, session=session)
            if where == Where(photos=where.photos):  # those without a face
                some_photos = {} if where.photos is None else {"_id": {"$in": list(digest_bytes(where.photos))}}
                collection("photo").delete_many(some_photos, session=session)
            return len(gone)

        return self._server.together(write)

    def get(self, ids: Sequence[int]) -> list[StoredTemplate]:
        wanted = storable_ids(ids)
        self._server.check_open()
        found: dict[int, StoredTemplate] = {}
        for start in range(0, len(wanted), _PAGE):
            for stored in self._templates({"_id": {"$in": wanted[start : start + _PAGE]}}):
                found[stored.id] = stored
        return [found[n] for n in wanted if n in found]

    def scan(self, where: Where | None = None, *, after: int = 0) -> Iterator[StoredTemplate]:
        if where is not None:
            check_where(where)
        self._server.check_open()
        return self._scan(_condition(where or Where()), after)

    def _scan(self, condition: Document, after: int) -> Iterator[StoredTemplate]:
        while True:
            page = self._templates({"$and": [{"_id": {"$gt": after}}, condition]}, _PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].id

    def ids(self, where: Where | None = None) -> npt.NDArray[np.int64]:
        if where is not None:
            check_where(where)
        rows = self._find(None, "template", _condition(where or Where()), ["_id"])
        return np.array([each["_id"] for each in rows], np.int64)

    def embeddings(self, ids: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        wanted = np.array(storable_ids(ids), np.int64)
        distinct = np.unique(wanted)
        space = self.space()
        dimension = space.dimension if space else 0
        parts = [(np.empty(0, np.int64), np.empty((0, dimension), np.float32))]
        for start in range(0, len(distinct), _PAGE):
            some = {"_id": {"$in": distinct[start : start + _PAGE].tolist()}}
            parts.append(self._matrix(self._find(None, "template", some, ["embedding"]), dimension))
        found, matrix = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        return in_order(wanted, found, matrix)

    def embedding_batches(
        self, after: int = 0, batch: int = 8192
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        check_limit(batch)
        space = self.space()
        while space is not None:
            rows = self._find(None, "template", {"_id": {"$gt": after}}, ["embedding"], batch)
            ids, matrix = self._matrix(rows, space.dimension)
            if not len(ids):
                return
            yield ids, matrix
            after = int(ids[-1])

    def facts(self, after: int = 0, *, keys: Sequence[str] = (), batch: int = 8192) -> Iterator[Facts]:
        check_limit(batch)
        columns = ["label", "enrolled", *(["metadata"] if keys else [])]
        while rows := self._find(None, "template", {"_id": {"$gt": after}}, columns, batch):
            after = rows[-1]["_id"]
            metadata = [_metadata(each["metadata"]) for each in rows] if keys else []
            yield Facts(
                np.array([each["_id"] for each in rows], np.int64),
                [each["label"] for each in rows],
                np.array([each["enrolled"] for each in rows], np.int64),
                {key: [each.get(key, ABSENT) for each in metadata] for key in keys},
            )

    def sequence(self) -> int:
        return int(self._gallery("sequence")["sequence"])

    def changes(self, after: int, limit: int = 10_000) -> list[Change]:
        check_limit(limit)

        def read(session: Session) -> list[Change]:
            present = self._find(
                session, "template", {"sequence": {"$gt": after}}, ["sequence"], limit, sort="sequence"
            )
            deleted = self._find(session, "tombstone", {"_id": {"$gt": after}}, ["id"], limit)
            changes = [
                Change(
                    int(each["sequence"]),
                    ChangeKind.ADDED if each["sequence"] == each["_id"] else ChangeKind.RELABELED,
                    int(each["_id"]),
                )
                for each in present
            ]
            changes += [Change(int(each["_id"]), ChangeKind.DELETED, int(each["id"])) for each in deleted]
            return sorted(changes, key=lambda change: change.sequence)[:limit]

        return self._server.together(read)

    def known(self, digests: Iterable[str]) -> dict[str, frozenset[str | None]]:
        asked = list(digest_bytes(digests))

        def read(session: Session) -> dict[str, set[str | None]]:
            labels: dict[str, set[str | None]] = {}
            for start in range(0, len(asked), _PAGE):
                some = {"$in": asked[start : start + _PAGE]}
                for each in self._find(session, "photo", {"_id": some}, ["_id"]):
                    labels[each["_id"].hex()] = set()
                for each in self._find(session, "template", {"photo": some}, ["photo", "label"]):
                    if each["photo"].hex() in labels:
                        labels[each["photo"].hex()].add(each["label"])
            return labels

        return {digest: frozenset(found) for digest, found in self._server.together(read).items()}

    def faceless(self, after: str = "", limit: int = 10_000) -> list[str]:
        check_limit(limit)

        def read(session: Session) -> list[str]:
            found: list[str] = []
            behind: bytes | None = None
            while len(found) < limit:
                condition = {} if behind is None else {"_id": {"$gt": behind}}
                page = [each["_id"] for each in self._find(session, "photo", condition, ["_id"], _PAGE)]
                if not page:
                    break
                behind = page[-1]
                if behind.hex() <= after:
                    continue
                faces = self._find(session, "template", {"photo": {"$in": page}}, ["photo"])
                with_face = {each["photo"] for each in faces}
                found += [digest.hex() for digest in page if digest not in with_face and digest.hex() > after]
            return found[:limit]

        return self._server.together(read)

    def people(self, after: str | None = None, limit: int | None = None) -> list[Person]:
        check_limit(limit)
        steps: list[Document] = [] if after is None else [{"$match": {"label": {"$gt": after, "$type": "string"}}}]
        steps += [
            {"$group": {"_id": {"label": "$label", "photo": "$photo"}, "templates": {"$sum": 1}}},
            {"$group": {"_id": "$_id.label", "templates": {"$sum": "$templates"}, "photos": {"$sum": 1}}},
            {"$sort": {"_id": 1}},
        ]
        if limit is not None:
            steps.append({"$limit": limit})
        with self._server.translated():
            rows = list(self._server.collection("template").aggregate(steps, allowDiskUse=True))
        return [Person(each["_id"], int(each["templates"]), int(each["photos"])) for each in rows]

    def count(self, where: Where | None = None) -> int:
        if where is not None:
            check_where(where)
        with self._server.translated():
            return self._server.collection("template").count_documents(_condition(where or Where()))

    def check(self) -> tuple[str, ...]:
        """Every template can be read, has the content it says and a possible number."""
        found: list[str] = []
        sequence, after = self.sequence(), 0
        while rows := self._find(None, "template", {"_id": {"$gt": after}}, [], _PAGE):
            after = int(rows[-1]["_id"])
            for row in rows:
                stored = self._stored(row, self.space())
                if stored.template.content_id != row["content"].hex():
                    found.append(f"template {stored.id} is not the content it says")
                if not stored.id <= row["sequence"] <= sequence:
                    found.append(f"template {stored.id} has an impossible sequence number")
        found += [
            f"deleted template {row['id']} is still there, or has an impossible number"
            for row in self._find(None, "tombstone", {}, [])
            if not row["id"] < row["_id"] <= sequence or self.get([row["id"]])
        ]
        return tuple(found)

    def close(self) -> None:
        self._server.close()

    # -- an index kept here --------------------------------------------------------------------------------------------

    def keep_index(self, name: str, sequence: int, parts: Iterable[bytes]) -> bool:
        index = ObjectId()
        pieces = self._server.collection("index_part")
        try:
            digest, size, place = hashlib.sha256(), 0, 0
            for part in parts:
                digest.update(part)
                size += len(part)
                for start in range(0, len(part), _PART):
                    with self._server.translated():
                        pieces.insert_one({"index": index, "part": place, "data": part[start : start + _PART]})
                    place += 1

            def write(session: Session) -> bool:
                self._lock(session)
                if self._find(session, "tombstone", {"_id": {"$gt": sequence}}, ["_id"], 1):
                    return False
                document = {"index": index, "sequence": Int64(sequence), "size": Int64(size), "parts": place}
                self._server.collection("index").replace_one(
                    {"_id": name}, {**document, "sha256": digest.hexdigest()}, upsert=True, session=session
                )
                return True

            kept = self._server.together(write)
        except BaseException:
            self._sweep(index)
            raise
        self._sweep(None if kept else index)
        return kept

    def _sweep(self, broken: ObjectId | None) -> None:
        """Delete the parts of one index, or of those that no name leads to since an hour."""
        named = [each["index"] for each in self._find(None, "index", {}, ["index"])]
        with self._server.translated():
            for index in self._server.collection("index_part").distinct("index"):
                old = (ObjectId().generation_time - index.generation_time).total_seconds() > 3600
                if index == broken or (index not in named and (broken is None and old)):
                    self._server.collection("index_part").delete_many({"index": index})

    def kept_index(self, name: str) -> KeptIndex | None:
        rows = self._find(None, "index", {"_id": name}, [])
        return KeptIndex(name, int(rows[0]["sequence"]), int(rows[0]["size"]), rows[0]["sha256"]) if rows else None

    def read_index(self, kept: KeptIndex) -> Iterator[bytes]:
        rows = self._find(
            None, "index", {"_id": kept.name, "sequence": kept.sequence, "sha256": kept.sha256}, ["index", "parts"]
        )
        for part in range(rows[0]["parts"] if rows else 1):
            found = self._find(None, "index_part", {"index": rows[0]["index"], "part": part}, ["data"]) if rows else []
            if not found:
                raise IndexUnavailable(
                    f"the index {kept.name!r} kept in {self.url} is gone or another one by now. Look again.",
                    gallery=self.url, name=kept.name,
                )  # fmt: skip
            yield found[0]["data"]

    # -- documents -----------------------------------------------------------------------------------------------------

    def _lock(self, session: Session) -> Document:
        """The gallery's document; a second writer waits, or begins again, until this transaction ends."""
        found = self._server.collection("gallery").find_one_and_update(
            {"_id": "gallery"}, {"$inc": {"writes": 1}}, session=session
        )
        if found is None:
            raise self._damaged("its counter is gone")
        return found

    def _change(self, session: Session, change: Document) -> None:
        if change:
            self._server.collection("gallery").update_one({"_id": "gallery"}, {"$set": change}, session=session)

    def _gallery(self, field: str) -> Document:
        with self._server.translated():
            found = self._server.collection("gallery").find_one({"_id": "gallery"}, [field])
        if found is None or field not in found:
            raise self._damaged("its counter is gone")
        return found

    def _find(
        self,
        session: Session | None,
        name: str,
        condition: Document,
        fields: list[str],
        limit: int = 0,
        sort: str = "_id",
    ) -> list[Document]:
        with contextlib.nullcontext() if session is not None else self._server.translated():
            return list(
                self._server.collection(name).find(
                    condition, fields or None, session=session, limit=limit, sort=[(sort, 1)], batch_size=limit or _PAGE
                )
            )

    def _space_of(self, gallery: Document) -> EmbeddingSpace | None:
        held = gallery.get("space")
        if held is None:
            return None
        try:
            names = ("model", "version", "weights_sha256", "dimension", "preprocessing")
            space = EmbeddingSpace(*(held[name] for name in names))
            same = space.id == held["id"]
        except (KeyError, TypeError) as error:
            raise self._damaged(f"its embedding space cannot be read ({error})") from error
        if not same:
            raise self._damaged("its embedding space does not have the id it says")
        return space

    def _templates(self, condition: Document, limit: int = 0) -> list[StoredTemplate]:
        rows = self._find(None, "template", condition, [], limit)
        space = self.space() if rows else None
        return [self._stored(row, space) for row in rows]

    def _stored(self, row: Document, space: EmbeddingSpace | None) -> StoredTemplate:
        try:
            if space is None:
                raise ValueError("there is no embedding space")
            box, landmarks, score = unpack_geometry(row["geometry"])
            vector = np.frombuffer(row["embedding"], FLOAT32)
            if len(vector) != space.dimension:
                raise ValueError(f"its embedding has {len(vector)} numbers of {space.dimension}")
            template = Template(
                photo_digest=row["photo"].hex(),
                box=box,
                landmarks=landmarks,
                detection_score=score,
                embedding=vector.astype(np.float32, copy=False),
                space_id=space.id,
                link=row["link"],
                label=row["label"],
                metadata=_metadata(row["metadata"]),
            )
            return StoredTemplate(int(row["_id"]), template, EPOCH + int(row["enrolled"]) * MICROSECOND)
        except (struct.error, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise self._damaged(f"template {row.get('_id')} cannot be read ({error!r})") from error

    def _matrix(self, rows: list[Document], dimension: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        try:
            ids = np.array([row["_id"] for row in rows], np.int64)
            matrix = np.frombuffer(b"".join([row["embedding"] for row in rows]), FLOAT32).reshape(len(rows), dimension)
        except (KeyError, ValueError, TypeError) as error:
            raise self._damaged(f"an embedding does not have {dimension} numbers") from error
        return ids, matrix.astype(np.float32, copy=False)

    def _damaged(self, what: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"gallery {self.url} is damaged: {what}. Restore it from a copy.", gallery=self.url, reason=what
        )


def _space_document(space: EmbeddingSpace) -> Document:
    return {
        "id": space.id, "model": space.model, "version": space.version, "weights_sha256": space.weights_sha256,
        "dimension": space.dimension, "preprocessing": space.preprocessing,
    }  # fmt: skip


def _fragments(metadata: Any) -> list[str]:
    """Metadata as ``"key":value`` texts: exact by type, searchable with $all, and no key is too odd for MongoDB."""
    return [encode_metadata({key: value})[1:-1] for key, value in metadata.items()]


def _metadata(fragments: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads("{" + ",".join(fragments) + "}")
    return found


def _condition(where: Where) -> Document:
    """``Where.passes`` as a filter over ``facedex_template``."""
    conditions: list[Document] = []
    for operator, wanted in (("$in", where.labels), ("$nin", where.not_labels)):
        if wanted is not None:
            storable = [label for label in wanted if label is None or storable_text(label)]
            conditions.append({"label": {operator: storable}})
    if where.photos is not None:
        conditions.append({"photo": {"$in": list(digest_bytes(where.photos))}})
    for operator, moment in (("$gte", where.enrolled_after), ("$lt", where.enrolled_before)):
        if moment is not None:
            conditions.append({"enrolled": {operator: Int64((moment - EPOCH) // MICROSECOND)}})
    if where.metadata:
        conditions.append({"metadata": {"$all": _fragments(where.metadata)}})
    return {"$and": conditions} if conditions else {}
