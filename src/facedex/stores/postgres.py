"""A gallery in a PostgreSQL database: many processes and machines, plain tables, no extension needed."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from facedex.errors import IndexUnavailable, StoreCorrupt
from facedex.stores.checks import (
    Batch,
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
from facedex.stores.numbering import by_photo, number_batch
from facedex.stores.packed import FLOAT32, digest_bytes, in_order, pack_geometry, unpack_geometry
from facedex.stores.postgres_server import Connection, PostgresServer
from facedex.types import EmbeddingSpace, Person, StoredTemplate, Template, Where

__all__ = ["PostgresStore"]

_KINDS = (ChangeKind.ADDED, ChangeKind.RELABELED, ChangeKind.DELETED)
_PAGE = 4096  # templates fetched at once
_TEMPLATE = "id, photo, label, enrolled, geometry, embedding, link, metadata::text"
# Many digests as one parameter: psycopg takes longer over an array of bytea than the server over finding them.
_PIECES = (
    "substring(%(all)s::bytea FROM n * %(wide)s::int + 1 FOR %(wide)s::int) "
    "FROM generate_series(0, %(count)s::int - 1) n"
)
_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # https://www.postgresql.org/docs/current/sql-copy.html
_COPY_END = b"\xff\xff"


class PostgresStore(Store, KeepsIndex):
    """A gallery in the tables ``facedex_…`` of one schema.

    url     ``postgresql://user:password@host:port/database?schema=NAME``; see ``PostgresServer``.
    Raises  StoreUnavailable, StoreForeign, StoreCorrupt, StoreVersion, StoreReadOnly, StoreBusy, ArgumentInvalid.

    A call waits up to 30 seconds for a server that restarts. What was deleted leaves the tables at once, and the
    server's files when it vacuums them and drops old logs: that is the server's business, not ours.
    """

    capabilities = Capabilities(scrubs_deleted=False)

    def __init__(self, url: str, *, create: bool = True, server: PostgresServer | None = None) -> None:
        self._server = PostgresServer(url, create=create) if server is None else server
        self._space: EmbeddingSpace | None = None  # once read, it never changes

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Self:
        """As the class says; with ``vector=require`` or a fitting database it is a ``PostgresVectorStore``."""
        from facedex.stores.postgres_vector import PostgresVectorStore, usable

        server = PostgresServer(url, create=create)
        try:
            kind = PostgresVectorStore if issubclass(PostgresVectorStore, cls) and usable(server) else cls
            return cast("Self", kind(url, server=server))
        except BaseException:
            server.close()
            raise

    @property
    def url(self) -> str:
        return self._server.place

    @property
    def identity(self) -> str:
        return self._server.identity.hex

    def space(self) -> EmbeddingSpace | None:
        if self._space is not None:
            self._server.check_open()
            return self._space
        return self._server.read(self._read_space)

    def add(self, photos: Sequence[PhotoRecord], space: EmbeddingSpace) -> list[list[Added]]:
        batch = check_batch(photos, space, self.space())
        if not photos:
            return []
        contents = [bytes.fromhex(template.content_id) for template in batch.templates]
        digests = b"".join(sorted({bytes.fromhex(photo.digest) for photo in photos}))

        def write(connection: Connection) -> list[Added]:
            sequence, vector = self._lock(connection)
            held = self._read_space(connection)
            check_space(space, held)
            if held is None:
                vector = self._write_space(connection, space)
            connection.execute(
                self._sql(f"INSERT INTO facedex_photo SELECT {_PIECES} ON CONFLICT DO NOTHING"),
                {"all": digests, "wide": 32, "count": len(digests) // 32},
            )
            present = self._present(connection, contents) if sequence else {}
            added, rows = number_batch(contents, [template.label for template in batch.templates], present, sequence)
            if rows:
                self._insert(connection, batch, contents, rows, sequence + 1, vector)
                connection.execute(self._sql("UPDATE facedex_gallery SET sequence = %s"), (sequence + len(rows),))
            return added

        added = self._server.write(write)
        self._space = space
        return by_photo(photos, added)

    def relabel(self, ids: Iterable[int], label: str | None) -> int:
        check_label(label)
        wanted = sorted(set(storable_ids(ids)))

        def write(connection: Connection) -> int:
            sequence, _ = self._lock(connection)
            changed = connection.execute(
                self._sql("""
                UPDATE facedex_template t SET label = %(label)s, sequence = %(sequence)s + n.place
                FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM facedex_template
                      WHERE id = ANY(%(ids)s::bigint[]) AND label IS DISTINCT FROM %(label)s::text) n
                WHERE t.id = n.id"""),
                {"label": label, "sequence": sequence, "ids": wanted},
            ).rowcount
            if changed:
                connection.execute(
                    self._sql("UPDATE facedex_gallery SET sequence = %s"), (sequence + changed,)
                )  # fmt: skip
            return changed

        return self._server.write(write)

    def delete(self, where: Where) -> int:
        check_where(where)
        condition, values = condition_of(where)

        def write(connection: Connection) -> int:
            sequence, _ = self._lock(connection)
            deleted = connection.execute(
                self._sql(f"""
                WITH gone AS (DELETE FROM facedex_template WHERE {condition} RETURNING id, photo),
                forgotten AS (DELETE FROM facedex_photo WHERE digest IN (SELECT photo FROM gone))
                INSERT INTO facedex_tombstone
                SELECT %(sequence)s + row_number() OVER (ORDER BY id), id FROM gone"""),  # noqa: S608
                {**values, "sequence": sequence},
            ).rowcount
            if deleted:
                connection.execute(self._sql("UPDATE facedex_gallery SET sequence = %s"), (sequence + deleted,))
                connection.execute(self._sql("DELETE FROM facedex_index"))
                connection.execute(self._sql("DELETE FROM facedex_index_part"))
            if where == Where(photos=where.photos):  # those without a face
                some = "" if where.photos is None else "WHERE digest = ANY(%(photos)s::bytea[])"
                connection.execute(self._sql(f"DELETE FROM facedex_photo {some}"), values)  # noqa: S608
            return deleted

        return self._server.write(write)

    def get(self, ids: Sequence[int]) -> list[StoredTemplate]:
        wanted = storable_ids(ids)
        found: dict[int, StoredTemplate] = {}
        for start in range(0, len(wanted), _PAGE):
            some = wanted[start : start + _PAGE]
            for stored in self._templates("id = ANY(%(ids)s::bigint[])", {"ids": some}):
                found[stored.id] = stored
        return [found[n] for n in wanted if n in found]

    def scan(self, where: Where | None = None, *, after: int = 0) -> Iterator[StoredTemplate]:
        if where is not None:
            check_where(where)
        self._server.check_open()
        return self._scan(*condition_of(where or Where()), after)

    def _scan(self, condition: str, values: dict[str, Any], after: int) -> Iterator[StoredTemplate]:
        while True:
            page = self._templates(f"{condition} AND id > %(after)s", {**values, "after": after, "limit": _PAGE})
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].id

    def ids(self, where: Where | None = None) -> npt.NDArray[np.int64]:
        if where is not None:
            check_where(where)
        condition, values = condition_of(where or Where())
        query = f"SELECT id FROM facedex_template WHERE {condition} ORDER BY id"  # noqa: S608
        data = self._server.read(lambda connection: self._copy_out(connection, query, values))
        ids, _ = self._columns(data, 0)
        return ids

    def embeddings(self, ids: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        wanted = np.array(storable_ids(ids), np.int64)
        distinct = np.unique(wanted)
        space = self.space()
        dimension = space.dimension if space else 0
        if not len(distinct) or space is None:
            self._server.check_open()
            return np.empty(0, np.int64), np.empty((0, dimension), np.float32)
        query = "SELECT id, embedding FROM facedex_template WHERE id = ANY(%(ids)s::bigint[]) ORDER BY id"
        parts = []
        for start in range(0, len(distinct), _PAGE):
            some = {"ids": distinct[start : start + _PAGE].tolist()}
            rows = self._server.read(lambda connection, some=some: _binary(connection, self._sql(query), some))  # type: ignore[misc]
            parts.append((np.array([row[0] for row in rows], np.int64), self._matrix(rows, dimension)))
        found, matrix = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        return in_order(wanted, found, matrix)

    def embedding_batches(
        self, after: int = 0, batch: int = 8192
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        check_limit(batch)
        query = "SELECT id, embedding FROM facedex_template WHERE id > %(after)s ORDER BY id LIMIT %(batch)s"
        space = self.space()
        while space is not None:
            values = {"after": after, "batch": batch}
            data = self._server.read(lambda connection, values=values: self._copy_out(connection, query, values))  # type: ignore[misc]
            ids, matrix = self._columns(data, space.dimension)
            if not len(ids):
                return
            yield ids, matrix
            after = int(ids[-1])

    def facts(self, after: int = 0, *, keys: Sequence[str] = (), batch: int = 8192) -> Iterator[Facts]:
        check_limit(batch)
        columns = "id, label, enrolled" + (", metadata::text" if keys else "")
        query = f"SELECT {columns} FROM facedex_template WHERE id > %(after)s ORDER BY id LIMIT %(batch)s"  # noqa: S608
        while True:
            values = {"after": after, "batch": batch}
            rows = self._server.read(lambda connection, values=values: _binary(connection, self._sql(query), values))  # type: ignore[misc]
            if not rows:
                return
            after = rows[-1][0]
            metadata = [json.loads(row[3] or "{}") for row in rows] if keys else []
            yield Facts(
                np.array([row[0] for row in rows], np.int64),
                [row[1] for row in rows],
                np.array([row[2] for row in rows], np.int64),
                {key: [each.get(key, ABSENT) for each in metadata] for key in keys},
            )

    def sequence(self) -> int:
        return int(self._one("SELECT sequence FROM facedex_gallery")[0])

    def changes(self, after: int, limit: int = 10_000) -> list[Change]:
        check_limit(limit)
        rows = self._rows(
            """(SELECT sequence, (sequence <> id)::int, id FROM facedex_template WHERE sequence > %(after)s
            ORDER BY sequence LIMIT %(limit)s) UNION ALL
            (SELECT sequence, 2, id FROM facedex_tombstone WHERE sequence > %(after)s
            ORDER BY sequence LIMIT %(limit)s) ORDER BY sequence LIMIT %(limit)s""",
            {"after": after, "limit": limit},
        )
        return [Change(sequence, _KINDS[kind], changed) for sequence, kind, changed in rows]

    def known(self, digests: Iterable[str]) -> dict[str, frozenset[str | None]]:
        asked = list(digest_bytes(digests))
        labels: dict[str, set[str | None]] = {}
        for start in range(0, max(len(asked), 1), _PAGE):
            rows = self._rows(
                """SELECT DISTINCT p.digest, t.id IS NULL, t.label FROM facedex_photo p
                LEFT JOIN facedex_template t ON t.photo = p.digest WHERE p.digest = ANY(%(some)s::bytea[])""",
                {"some": asked[start : start + _PAGE]},
            )
            for digest, faceless, label in rows:
                known = labels.setdefault(digest.hex(), set())
                if not faceless:
                    known.add(label)
        return {digest: frozenset(found) for digest, found in labels.items()}

    def faceless(self, after: str = "", limit: int = 10_000) -> list[str]:
        check_limit(limit)
        rows = self._rows(
            """SELECT encode(digest, 'hex') FROM facedex_photo p WHERE encode(digest, 'hex') COLLATE "C" > %(after)s
            AND NOT EXISTS (SELECT 1 FROM facedex_template t WHERE t.photo = p.digest)
            ORDER BY digest LIMIT %(limit)s""",
            {"after": after, "limit": limit},
        )
        return [digest for (digest,) in rows]

    def people(self, after: str | None = None, limit: int | None = None) -> list[Person]:
        check_limit(limit)
        unlabeled = "label IS NULL OR" if after is None else ""
        rows = self._rows(
            f"""SELECT label, count(*), count(DISTINCT photo) FROM facedex_template
            WHERE {unlabeled} label > %(after)s GROUP BY label ORDER BY label NULLS FIRST LIMIT %(limit)s""",  # noqa: S608
            {"after": after or "", "limit": limit},
        )
        return [Person(*row) for row in rows]

    def count(self, where: Where | None = None) -> int:
        if where is not None:
            check_where(where)
        condition, values = condition_of(where or Where())
        return int(self._one(f"SELECT count(*) FROM facedex_template WHERE {condition}", values)[0])  # noqa: S608

    def check(self) -> tuple[str, ...]:
        """Sizes fit, no number is impossible, no content is stored under another's id."""
        found = []
        space = self.space()
        for sentence, query in _SOUND:
            (wrong,) = self._one(query, {"bytes": 4 * space.dimension if space else 0})
            if wrong:
                found.append(f"{wrong} {sentence}")
        after = 0
        while page := self._templates("id > %(after)s", {"after": after, "limit": _PAGE}):
            after = page[-1].id
            contents = self._rows(
                "SELECT id, content FROM facedex_template WHERE id = ANY(%(ids)s::bigint[])",
                {"ids": [stored.id for stored in page]},
            )
            held = {id: content.hex() for id, content in contents}
            found += [
                f"template {stored.id} is not the content it says"
                for stored in page
                if held.get(stored.id, stored.template.content_id) != stored.template.content_id
            ]
        return tuple(found)

    def close(self) -> None:
        self._server.close()

    # -- an index kept here --------------------------------------------------------------------------------------------

    def keep_index(self, name: str, sequence: int, parts: Iterable[bytes]) -> bool:
        def write(connection: Connection) -> bool:
            (number,) = connection.execute(
                self._sql("SELECT nextval(pg_get_serial_sequence('facedex_index', 'number'))")
            ).fetchone() or (0,)
            digest, size = hashlib.sha256(), 0
            for place, part in enumerate(parts):
                digest.update(part)
                size += len(part)
                connection.execute(
                    self._sql("INSERT INTO facedex_index_part VALUES (%s, %s, %s)"), (number, place, part)
                )
            self._lock(connection)  # nothing is deleted from here to the end
            if connection.execute(
                self._sql("SELECT 1 FROM facedex_tombstone WHERE sequence > %s LIMIT 1"), (sequence,)
            ).fetchone():
                connection.execute(self._sql("DELETE FROM facedex_index_part WHERE number = %s"), (number,))
                return False
            connection.execute(
                self._sql("""DELETE FROM facedex_index_part WHERE number IN
                (SELECT number FROM facedex_index WHERE name = %s)"""),
                (name,),
            )
            connection.execute(self._sql("DELETE FROM facedex_index WHERE name = %s"), (name,))
            connection.execute(
                self._sql("INSERT INTO facedex_index OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s, %s, %s)"),
                (name, number, sequence, size, digest.hexdigest()),
            )
            return True

        return self._server.write_once(write)  # its parts can be read only once

    def kept_index(self, name: str) -> KeptIndex | None:
        rows = self._rows(
            "SELECT name, sequence, size, sha256 FROM facedex_index WHERE name = %(name)s", {"name": name}
        )
        return KeptIndex(*rows[0]) if rows else None

    def read_index(self, kept: KeptIndex) -> Iterator[bytes]:
        part, size = 0, 0
        while size < kept.size:
            rows = self._rows(
                """SELECT data FROM facedex_index i JOIN facedex_index_part p USING (number) WHERE name = %(name)s
                AND sequence = %(sequence)s AND sha256 = %(sha256)s AND part = %(part)s""",
                {"name": kept.name, "sequence": kept.sequence, "sha256": kept.sha256, "part": part},
            )
            if not rows:
                raise IndexUnavailable(
                    f"the index {kept.name!r} kept in {self.url} is gone or another one by now. Look again.",
                    gallery=self.url, name=kept.name,
                )  # fmt: skip
            part, size = part + 1, size + len(rows[0][0])
            yield rows[0][0]

    # -- writing rows --------------------------------------------------------------------------------------------------

    def _sql(self, text: str) -> bytes:
        return self._server.sql(text)

    def _lock(self, connection: Connection) -> tuple[int, bool]:
        """The highest sequence number, and whether there is a column for pgvector; other writers wait from now on."""
        row = connection.execute(self._sql("SELECT sequence, vector FROM facedex_gallery FOR UPDATE")).fetchone()
        if row is None:
            raise self._damaged("its counter is gone")
        return int(row[0]), bool(row[1])

    def _write_space(self, connection: Connection, space: EmbeddingSpace) -> bool:
        """Returns whether there is a column for pgvector now."""
        connection.execute(
            self._sql("""UPDATE facedex_gallery SET space = %s, model = %s, model_version = %s, weights_sha256 = %s,
            dimension = %s, preprocessing = %s"""),
            (space.id, space.model, space.version, space.weights_sha256, space.dimension, space.preprocessing),
        )
        return False

    def _present(self, connection: Connection, contents: list[bytes]) -> dict[bytes, tuple[int, str | None]]:
        rows = connection.execute(
            # An array, so that the index is asked and no plan reads the table.
            self._sql(f"""SELECT content, id, label FROM facedex_template
            WHERE content = ANY(ARRAY(SELECT {_PIECES}))"""),  # noqa: S608
            {"all": b"".join(contents), "wide": 16, "count": len(contents)},
            binary=True,
        )
        return {content: (number, label) for content, number, label in rows}

    def _insert(
        self, connection: Connection, batch: Batch, contents: list[bytes], rows: list[int], first: int, vector: bool
    ) -> None:
        """COPY these rows of a batch in, with rising ids from ``first`` on; vector: the column of pgvector too."""
        dimension = batch.embeddings.shape[1]
        fields: list[Any] = [("l1", ">i4"), ("enrolled", ">i8"), ("l2", ">i4"), ("geometry", "V80")]
        fields += [("l3", ">i4"), ("embedding", "<f4", (dimension,))]
        if vector:  # dimension and a reserved number, then big-endian: vector_recv in pgvector's src/vector.c
            fields += [("l4", ">i4"), ("dimension", ">i2"), ("reserved", ">i2"), ("vector", ">f4", (dimension,))]
        middle = np.zeros(len(batch.templates), fields)
        middle["l1"], middle["l2"], middle["l3"] = 8, 80, 4 * dimension
        middle["enrolled"] = batch.enrolled
        middle["geometry"] = np.frombuffer(pack_geometry(batch), "V80")
        middle["embedding"] = batch.embeddings
        if vector:
            middle["l4"], middle["dimension"], middle["vector"] = 4 + 4 * dimension, dimension, batch.embeddings
        packed, width = middle.tobytes(), middle.itemsize
        labels = {template.label: _text(template.label) for template in batch.templates}
        photos = {template.photo_digest: bytes.fromhex(template.photo_digest) for template in batch.templates}
        query = self._sql(
            f"""COPY facedex_template (id, sequence, content, photo, label, enrolled, geometry, embedding,
            {"vector," if vector else ""} link, metadata) FROM STDIN (FORMAT BINARY)"""
        )
        with connection.cursor().copy(query) as copy:
            copy.write(_COPY_HEAD)
            for start in range(0, len(rows), _PAGE):
                parts: list[bytes] = []
                for id, n in enumerate(rows[start : start + _PAGE], first + start):
                    template = batch.templates[n]
                    meta = batch.metadata[n]
                    parts += (
                        _HEAD.pack(10 + vector, 8, id, 8, id, 16, contents[n], 32, photos[template.photo_digest]),
                        labels[template.label],
                        packed[n * width : (n + 1) * width],
                        _text(template.link),
                        _text(None if meta == "{}" else meta),
                    )
                copy.write(b"".join(parts))
            copy.write(_COPY_END)

    # -- reading rows --------------------------------------------------------------------------------------------------

    def _rows(self, query: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return self._server.read(lambda connection: connection.execute(self._sql(query), values).fetchall())

    def _one(self, query: str, values: dict[str, Any] | None = None) -> tuple[Any, ...]:
        rows = self._rows(query, values)
        if len(rows) != 1:
            raise self._damaged("its counter is gone")
        return rows[0]

    def _read_space(self, connection: Connection) -> EmbeddingSpace | None:
        row = connection.execute(
            self._sql("""SELECT model, model_version, weights_sha256, dimension, preprocessing, space
            FROM facedex_gallery""")
        ).fetchone()
        if row is None:
            raise self._damaged("its counter is gone")
        if row[5] is None:
            return None
        space = EmbeddingSpace(*row[:5])
        if space.id != row[5]:
            raise self._damaged("its embedding space does not have the id it says")
        self._space = space
        return space

    def _templates(self, condition: str, values: dict[str, Any]) -> list[StoredTemplate]:
        query = f"SELECT {_TEMPLATE} FROM facedex_template WHERE {condition} ORDER BY id LIMIT %(limit)s"  # noqa: S608
        rows = self._server.read(
            lambda connection: _binary(connection, self._sql(query), {"limit": None, **values})
        )  # fmt: skip
        space = self.space() if rows else None
        return [self._stored(row, space) for row in rows]

    def _stored(self, row: tuple[Any, ...], space: EmbeddingSpace | None) -> StoredTemplate:
        number, digest, label, enrolled, geometry, embedding, link, metadata = row
        try:
            if space is None:
                raise ValueError("there is no embedding space")
            box, landmarks, score = unpack_geometry(geometry)
            vector = np.frombuffer(embedding, FLOAT32)
            if len(vector) != space.dimension:
                raise ValueError(f"its embedding has {len(vector)} numbers of {space.dimension}")
            said = {} if metadata is None else json.loads(metadata)
            if not isinstance(said, dict):
                raise ValueError("its metadata are no object")
            template = Template(
                photo_digest=digest.hex(),
                box=box,
                landmarks=landmarks,
                detection_score=score,
                embedding=vector.astype(np.float32, copy=False),
                space_id=space.id,
                link=link,
                label=label,
                metadata=said,
            )
            return StoredTemplate(number, template, EPOCH + enrolled * MICROSECOND)
        except (struct.error, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise self._damaged(f"template {number} cannot be read ({error})") from error

    def _matrix(self, rows: list[tuple[int, bytes]], dimension: int) -> npt.NDArray[np.float32]:
        try:
            matrix = np.frombuffer(b"".join([row[1] for row in rows]), FLOAT32).reshape(len(rows), dimension)
        except (ValueError, TypeError) as error:
            raise self._damaged(f"an embedding does not have {dimension} numbers") from error
        return matrix.astype(np.float32, copy=False)

    def _copy_out(self, connection: Connection, query: str, values: dict[str, Any]) -> bytes:
        with connection.cursor().copy(self._sql(f"COPY ({query}) TO STDOUT (FORMAT BINARY)"), values) as copy:
            return b"".join(copy)

    def _columns(self, data: bytes, dimension: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Ids and, of rows with embeddings, their matrix, out of what COPY said; every row has one length."""
        row = np.dtype([("n", ">i2"), ("l1", ">i4"), ("id", ">i8")])
        if dimension:
            row = np.dtype([*row.descr, ("l2", ">i4"), ("embedding", "<f4", (dimension,))])
        body = data[len(_COPY_HEAD) : -len(_COPY_END)]
        if len(body) % row.itemsize:
            raise self._damaged(f"an embedding does not have {dimension} numbers")
        rows = np.frombuffer(body, row)
        if dimension and (rows["l2"] != 4 * dimension).any():
            raise self._damaged(f"an embedding does not have {dimension} numbers")
        return rows["id"].astype(np.int64), (
            rows["embedding"].astype(np.float32) if dimension else np.empty((len(rows), 0), np.float32)
        )

    def _damaged(self, what: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"gallery {self.url} is damaged: {what}. Restore it from a copy.", gallery=self.url, reason=what
        )


_HEAD = struct.Struct(">hiqiqi16si32s")

_SOUND = (
    (
        "templates of a wrong size",
        """SELECT count(*) FROM facedex_template WHERE length(embedding) <> %(bytes)s OR length(geometry) <> 80
        OR length(content) <> 16 OR length(photo) <> 32""",
    ),
    (
        "changes with an impossible sequence number",
        """SELECT
        (SELECT count(*) FROM facedex_template t, facedex_gallery g
         WHERE t.sequence > g.sequence OR t.id > t.sequence) +
        (SELECT count(*) FROM facedex_tombstone t, facedex_gallery g
         WHERE t.sequence > g.sequence OR t.id >= t.sequence)""",
    ),
    (
        "deleted templates that are still there",
        "SELECT count(*) FROM facedex_tombstone JOIN facedex_template USING (id)",
    ),
)


def _text(text: str | None) -> bytes:
    """A field of a binary COPY."""
    if text is None:
        return b"\xff\xff\xff\xff"
    raw = text.encode()
    return len(raw).to_bytes(4, "big") + raw


def _binary(connection: Connection, query: bytes, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    return connection.execute(query, values, binary=True).fetchall()


def condition_of(where: Where) -> tuple[str, dict[str, Any]]:
    """``Where.passes`` in SQL over ``facedex_template``, and its parameters."""
    conditions: list[str] = ["true"]
    values: dict[str, Any] = {}
    for name, wanted in (("labels", where.labels), ("not_labels", where.not_labels)):
        if wanted is not None:
            values[name] = sorted(label for label in wanted if label and storable_text(label))
            either = f"label = ANY(%({name})s::text[])"  # unknown where there is no label
            if None in wanted:
                either = f"(label IS NULL OR {either})"
            conditions.append(either if name == "labels" else f"NOT coalesce({either}, false)")
    if where.photos is not None:
        conditions.append("photo = ANY(%(photos)s::bytea[])")
        values["photos"] = list(digest_bytes(where.photos))
    for name, moment, comparison in (("from", where.enrolled_after, ">="), ("to", where.enrolled_before, "<")):
        if moment is not None:
            conditions.append(f"enrolled {comparison} %({name})s")
            values[name] = (moment - EPOCH) // MICROSECOND
    for n, (key, value) in enumerate(where.metadata.items()):
        # Type json keeps the letters, and ours has one spelling for each value: 1, 1.0, "1" and true differ.
        conditions.append(f"(metadata -> %(key{n})s::text)::text = %(value{n})s")
        values[f"key{n}"] = key
        values[f"value{n}"] = _json_value(key, value)
    return " AND ".join(conditions), values


def _json_value(key: str, value: Any) -> str:
    """A value as ``encode_metadata`` spells it."""
    head = len(json.dumps(key, ensure_ascii=False)) + 2  # {"key":
    return encode_metadata({key: value})[head:-1]
