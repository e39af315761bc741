"""A gallery in one SQLite file: the store for a laptop, a service on one machine, and up to some million faces."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, StoreCorrupt
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
    Change,
    ChangeKind,
    Facts,
    PhotoRecord,
    Store,
)
from facedex.stores.numbering import by_photo, number_batch
from facedex.stores.packed import FLOAT32, GEOMETRY, digest_bytes, in_order, pack_geometry, unpack_geometry
from facedex.stores.sqlite_file import SQLiteFile
from facedex.types import EmbeddingSpace, Person, StoredTemplate, Template, Where

__all__ = ["SQLiteStore"]

_KINDS = (ChangeKind.ADDED, ChangeKind.RELABELED, ChangeKind.DELETED)
_PAGE = 4096  # templates fetched at once by scan: bounds its memory, and no read outlives the call

_TEMPLATES = """
SELECT e.id, e.enrolled, f.geometry, f.embedding, f.link, f.metadata, n.text, p.digest, s.id, s.dimension
FROM entry e JOIN face f ON f.id = e.id JOIN photo p ON p.id = e.photo JOIN space s ON s.number = f.space
LEFT JOIN name n ON n.id = e.label
"""


class SQLiteStore(Store):
    """A gallery in one file.

    path          of the file; created when missing or empty.
    create        False: a missing or empty file raises StoreUnavailable.
    busy_timeout  seconds a write waits for the writers of other processes before it raises StoreBusy.
    Raises        StoreUnavailable, StoreForeign, StoreCorrupt, StoreVersion, StoreReadOnly, StoreBusy, StoreFull.

    While it is open, ``-wal`` and ``-shm`` files lie beside it and belong to it. A file that cannot be written is
    opened for reading. After ``delete`` nothing of the face is left in any of the files, unless another process
    was reading an older state for more than two seconds: then the log is emptied as soon as it has finished and
    anybody uses or closes the gallery.
    """

    # Erased rows are given back when they outnumber the live ones, and are at least this many.
    _compact_from = 4096

    def __init__(self, path: str | Path, *, create: bool = True, busy_timeout: float = 30.0) -> None:
        self._file = SQLiteFile(Path(path).absolute(), create=create, busy_timeout=busy_timeout)
        self._space: EmbeddingSpace | None = None  # once read, it never changes

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Self:
        """``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``sqlite:///C:/faces.db``."""
        rest = url.partition("://")[2]
        if not rest.startswith("/") or len(rest) < 2:
            raise ArgumentInvalid(
                f"{url!r} names no file. Say sqlite:///faces.db (relative), sqlite:////srv/faces.db (absolute), "
                "or just the path.",
                parameter="url",
                url=url,
            )
        if rest == "/:memory:":
            raise ArgumentInvalid("a gallery in memory is opened with memory://.", parameter="url", url=url)
        return cls(rest[1:], create=create)

    @property
    def path(self) -> Path:
        """Absolute path of the file."""
        return self._file.path

    @property
    def index_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.fdx")

    @property
    def url(self) -> str:
        return f"sqlite:///{self._file.path.as_posix()}"

    @property
    def writable(self) -> bool:
        """False when the file or its folder can only be read."""
        return self._file.writable

    def space(self) -> EmbeddingSpace | None:
        with self._file.reading() as connection:
            return self._read_space(connection)

    def add(self, photos: Sequence[PhotoRecord], space: EmbeddingSpace) -> list[list[Added]]:
        with self._file.reading() as connection:
            held = self._read_space(connection)
        batch = check_batch(photos, space, held)  # outside the transaction: it takes a while
        templates = batch.templates
        if not photos:
            return []
        contents = [bytes.fromhex(template.content_id) for template in templates]
        with self._file.writing() as connection:
            check_space(space, self._read_space(connection, cached=False))
            if held is None:
                _write_space(connection, space)
            photo_ids = _list_photos(connection, {photo.digest for photo in photos})
            name_ids = _name_ids(connection, {template.label for template in templates})
            present = _present(connection, contents)
            (sequence,) = connection.execute("SELECT sequence FROM state").fetchone()
            added, new = number_batch(contents, [template.label for template in templates], present, sequence)
            faces: list[tuple[object, ...]] = []
            entries: list[tuple[object, ...]] = []
            vectors, width = batch.embeddings.astype(FLOAT32, copy=False).tobytes(), 4 * space.dimension
            places, place = pack_geometry(batch), GEOMETRY.itemsize
            for id, n in enumerate(new, sequence + 1):
                template, content, meta = templates[n], contents[n], batch.metadata[n]
                meta_or_null = None if meta == "{}" else meta
                geometry = places[n * place : (n + 1) * place]
                vector = vectors[n * width : (n + 1) * width]
                faces.append((id, content, geometry, vector, template.link, meta_or_null))
                entries.append(
                    (
                        id,
                        id,
                        _key(content),
                        photo_ids[bytes.fromhex(template.photo_digest)],
                        None if template.label is None else name_ids[template.label],
                        batch.enrolled[n],
                    )
                )
            if faces:
                connection.executemany("INSERT INTO face VALUES (?, 1, 1, ?, ?, ?, ?, ?)", faces)
                connection.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)", entries)
                connection.execute("UPDATE state SET sequence = ?", (sequence + len(new),))
        return by_photo(photos, added)

    def relabel(self, ids: Iterable[int], label: str | None) -> int:
        check_label(label)
        wanted = json.dumps(sorted(set(storable_ids(ids))))
        with self._file.writing() as connection:
            name = None if label is None else _name_ids(connection, {label})[label]
            changed = connection.execute(
                """SELECT id, label FROM entry WHERE id IN (SELECT value FROM json_each(?)) AND label IS NOT ?
                ORDER BY id""",
                (wanted, name),
            ).fetchall()
            numbers = _next_sequences(connection, len(changed))
            connection.executemany(
                "UPDATE entry SET label = ?, sequence = ? WHERE id = ?",
                [(name, number, row[0]) for number, row in zip(numbers, changed, strict=True)],
            )
            dropped = {row[1] for row in changed} | {name}  # the new one too: perhaps nothing took it
            erased = _erase_names(connection, dropped)
        if erased:
            self._file.scrub()
        return len(changed)

    def delete(self, where: Where) -> int:
        check_where(where)
        with self._file.writing() as connection:
            gone = _matching(connection, where)
            ids = json.dumps(gone)
            touched = connection.execute(
                "SELECT DISTINCT photo, label FROM entry WHERE id IN (SELECT value FROM json_each(?))", (ids,)
            ).fetchall()
            photos = {photo for photo, _ in touched}
            connection.execute("DELETE FROM entry WHERE id IN (SELECT value FROM json_each(?))", (ids,))
            # Same sizes and types, so SQLite overwrites each row where it is.
            connection.execute(
                """UPDATE face SET live = 0, content = zeroblob(length(content)), geometry = zeroblob(length(geometry)),
                embedding = zeroblob(length(embedding)),
                link = substr(hex(zeroblob(length(CAST(link AS BLOB)))), 1, length(CAST(link AS BLOB))),
                metadata = substr(hex(zeroblob(length(CAST(metadata AS BLOB)))), 1, length(CAST(metadata AS BLOB)))
                WHERE id IN (SELECT value FROM json_each(?))""",
                (ids,),
            )
            connection.executemany(
                "INSERT INTO tombstone VALUES (?, ?)", zip(_next_sequences(connection, len(gone)), gone, strict=True)
            )
            if where == Where(photos=where.photos):
                photos |= _faceless(connection, where.photos)
            _forget_photos(connection, photos)
            _erase_names(connection, {label for _, label in touched})
            connection.execute("UPDATE state SET erased = erased + ?", (len(gone),))
            (erased,) = connection.execute("SELECT erased FROM state").fetchone()
            (alive,) = connection.execute("SELECT count(*) FROM entry").fetchone()
            if erased >= self._compact_from and erased > alive:
                self._file.compact(connection)
        if gone or photos:
            self._file.scrub()
        return len(gone)

    def get(self, ids: Sequence[int]) -> list[StoredTemplate]:
        wanted = storable_ids(ids)
        found: dict[int, StoredTemplate] = {}
        for start in range(0, len(wanted), _PAGE):
            found.update((stored.id, stored) for stored in self._fetch(wanted[start : start + _PAGE]))
        return [found[n] for n in wanted if n in found]

    def scan(self, where: Where | None = None, *, after: int = 0) -> Iterator[StoredTemplate]:
        if where is not None:
            check_where(where)
        return self._scan(where, after)

    def ids(self, where: Where | None = None) -> npt.NDArray[np.int64]:
        if where is not None:
            check_where(where)
        with self._file.reading() as connection:
            return np.array(_matching(connection, where or Where()), np.int64)

    def embeddings(self, ids: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        wanted = np.array(storable_ids(ids), np.int64)
        distinct = np.unique(wanted)
        space = self.space()
        dimension = space.dimension if space else 0
        parts = [(np.empty(0, np.int64), np.empty((0, dimension), np.float32))]
        for start in range(0, len(distinct), _PAGE):
            some = distinct[start : start + _PAGE]
            with self._file.reading() as connection:
                rows = connection.execute(
                    "SELECT id, embedding FROM face WHERE id IN (SELECT value FROM json_each(?)) AND live ORDER BY id",
                    (json.dumps(some.tolist()),),
                ).fetchall()
            parts.append(self._matrix(rows, dimension))
        found = np.concatenate([part[0] for part in parts])
        matrix = np.concatenate([part[1] for part in parts])
        return in_order(wanted, found, matrix)

    def embedding_batches(
        self, after: int = 0, batch: int = 8192
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        check_limit(batch)
        while True:
            with self._file.reading(snapshot=True) as connection:
                space = self._read_space(connection)
                rows = connection.execute(
                    "SELECT id, embedding FROM face WHERE id > ? AND live ORDER BY id LIMIT ?", (after, batch)
                ).fetchall()
            if not rows or space is None:
                return
            ids, matrix = self._matrix(rows, space.dimension)
            yield ids, matrix
            after = int(ids[-1])

    def facts(self, after: int = 0, *, keys: Sequence[str] = (), batch: int = 8192) -> Iterator[Facts]:
        check_limit(batch)
        columns, tables = "e.id, n.text, e.enrolled", "entry e LEFT JOIN name n ON n.id = e.label"
        if keys:
            columns, tables = f"{columns}, f.metadata", f"{tables} JOIN face f ON f.id = e.id"
        while True:
            with self._file.reading() as connection:
                rows = connection.execute(
                    f"SELECT {columns} FROM {tables} WHERE e.id > ? ORDER BY e.id LIMIT ?",  # noqa: S608
                    (after, batch),
                ).fetchall()
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
        self._file.scrub_if_due()
        with self._file.reading() as connection:
            return int(connection.execute("SELECT sequence FROM state").fetchone()[0])

    def changes(self, after: int, limit: int = 10_000) -> list[Change]:
        check_limit(limit)
        with self._file.reading() as connection:
            rows = connection.execute(
                """SELECT sequence, sequence <> id, id FROM entry WHERE sequence > ?1
                UNION ALL SELECT sequence, 2, id FROM tombstone WHERE sequence > ?1 ORDER BY sequence LIMIT ?2""",
                (after, limit),
            ).fetchall()
        return [Change(sequence, _KINDS[kind], changed) for sequence, kind, changed in rows]

    def known(self, digests: Iterable[str]) -> dict[str, frozenset[str | None]]:
        asked = list(digest_bytes(digests))
        labels: dict[str, set[str | None]] = {}
        with self._file.reading() as connection:
            for start in range(0, len(asked), _PAGE):
                some = asked[start : start + _PAGE]
                rows = connection.execute(
                    """SELECT DISTINCT p.digest, e.id IS NULL, n.text FROM photo p LEFT JOIN entry e ON e.photo = p.id
                    LEFT JOIN name n ON n.id = e.label
                    WHERE p.key IN (SELECT value FROM json_each(?)) AND p.listed""",
                    (json.dumps([_key(digest) for digest in some]),),
                ).fetchall()
                wanted = set(some)
                for digest, faceless, label in rows:
                    if digest in wanted:
                        known = labels.setdefault(digest.hex(), set())
                        if not faceless:
                            known.add(label)
        return {digest: frozenset(found) for digest, found in labels.items()}

    def faceless(self, after: str = "", limit: int = 10_000) -> list[str]:
        check_limit(limit)
        with self._file.reading() as connection:
            rows = connection.execute(
                """SELECT lower(hex(digest)) AS text FROM photo WHERE listed AND text > ?
                AND NOT EXISTS (SELECT 1 FROM entry WHERE photo = photo.id) ORDER BY text LIMIT ?""",
                (after, limit),
            ).fetchall()
        return [text for (text,) in rows]

    def people(self, after: str | None = None, limit: int | None = None) -> list[Person]:
        check_limit(limit)
        people: list[Person] = []
        with self._file.reading(snapshot=True) as connection:
            if after is None:
                templates, photos = connection.execute(
                    "SELECT count(*), count(DISTINCT photo) FROM entry WHERE label IS NULL"
                ).fetchone()
                if templates:
                    people.append(Person(None, templates, photos))
            rows = connection.execute(
                """SELECT n.text, count(*), count(DISTINCT e.photo) FROM name n JOIN entry e ON e.label = n.id
                WHERE typeof(n.text) = 'text' AND n.text > ? GROUP BY n.text ORDER BY n.text LIMIT ?""",
                (after or "", -1 if limit is None else limit - len(people)),
            ).fetchall()
        return people + [Person(*row) for row in rows]

    def count(self, where: Where | None = None) -> int:
        if where is None or where == Where():
            with self._file.reading() as connection:
                return int(connection.execute("SELECT count(*) FROM entry").fetchone()[0])
        return len(self.ids(where))

    def check(self) -> tuple[str, ...]:
        """SQLite's own integrity check, then ours: every row has its others, sizes fit, no content is stored twice."""
        with self._file.reading(snapshot=True) as connection:
            found = [text for (text,) in connection.execute("PRAGMA integrity_check(20)") if text != "ok"]
            for sentence, query in _SOUND:
                (wrong,) = connection.execute(query).fetchone()
                if wrong:
                    found.append(f"{wrong} {sentence}")
        return tuple(found)

    def close(self) -> None:
        self._file.close()

    # -- reading rows -------------------------------------------------------------------------------------------------

    def _read_space(self, connection: Any, cached: bool = True) -> EmbeddingSpace | None:
        if self._space is not None and cached:
            return self._space
        row = connection.execute(
            "SELECT model, version, weights_sha256, dimension, preprocessing, id FROM space"
        ).fetchone()
        if row is None:
            return None
        space = EmbeddingSpace(*row[:5])
        if space.id != row[5]:
            raise self._damaged("its embedding space does not have the id it says")
        self._space = space
        return space

    def _scan(self, where: Where | None, after: int) -> Iterator[StoredTemplate]:
        if where is not None:
            wanted = self.ids(where)
            wanted = wanted[wanted > after]
            for start in range(0, len(wanted), _PAGE):
                yield from self._fetch(wanted[start : start + _PAGE].tolist())
            return
        while True:
            with self._file.reading() as connection:
                rows = connection.execute(
                    _TEMPLATES + "WHERE e.id > ? ORDER BY e.id LIMIT ?", (after, _PAGE)
                ).fetchall()
            if not rows:
                return
            yield from map(self._stored, rows)
            after = rows[-1][0]

    def _fetch(self, ids: list[int]) -> list[StoredTemplate]:
        with self._file.reading() as connection:
            rows = connection.execute(
                _TEMPLATES + "WHERE e.id IN (SELECT value FROM json_each(?)) ORDER BY e.id",  # noqa: S608
                (json.dumps(ids),),
            ).fetchall()
        return [self._stored(row) for row in rows]

    def _stored(self, row: tuple[Any, ...]) -> StoredTemplate:
        number, enrolled, geometry, embedding, link, metadata, label, digest, space_id, dimension = row
        try:
            box, landmarks, score = unpack_geometry(geometry)
            template = Template(
                photo_digest=digest.hex(),
                box=box,
                landmarks=landmarks,
                detection_score=score,
                embedding=np.ndarray((dimension,), FLOAT32, embedding).astype(np.float32, copy=False),
                space_id=space_id,
                link=link,
                label=label,
                metadata={} if metadata is None else _decode_metadata(metadata).copy(),
            )
            return StoredTemplate(number, template, EPOCH + enrolled * MICROSECOND)
        except (struct.error, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise self._damaged(f"template {number} cannot be read ({error})") from error

    def _matrix(
        self, rows: list[tuple[int, bytes]], dimension: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        try:
            matrix = np.frombuffer(b"".join([row[1] for row in rows]), "<f4").reshape(len(rows), dimension)
        except (ValueError, TypeError) as error:
            raise self._damaged(f"an embedding does not have {dimension} numbers") from error
        return np.array([row[0] for row in rows], np.int64), matrix.astype(np.float32, copy=False)

    def _damaged(self, what: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"gallery {self.path} is damaged: {what}. Restore it from a copy.", path=str(self.path), reason=what
        )


_SOUND = (
    (
        "entries without their face",
        "SELECT count(*) FROM entry e LEFT JOIN face f ON f.id = e.id AND f.live WHERE f.id IS NULL",
    ),
    (
        "faces without their entry",
        "SELECT count(*) FROM face f LEFT JOIN entry e ON e.id = f.id WHERE f.live AND e.id IS NULL",
    ),
    (
        "entries without their photo",
        "SELECT count(*) FROM entry e LEFT JOIN photo p ON p.id = e.photo AND p.key IS NOT NULL WHERE p.id IS NULL",
    ),
    (
        "entries without their label",
        """SELECT count(*) FROM entry e LEFT JOIN name n ON n.id = e.label AND typeof(n.text) = 'text'
        WHERE e.label IS NOT NULL AND n.id IS NULL""",
    ),
    (
        "contents stored more than once",
        "SELECT count(*) FROM (SELECT 1 FROM face WHERE live GROUP BY content HAVING count(*) > 1)",
    ),
    (
        "photos listed more than once",
        "SELECT count(*) FROM (SELECT 1 FROM photo WHERE key IS NOT NULL GROUP BY digest HAVING count(*) > 1)",
    ),
    (
        "faces of a wrong size",
        """SELECT count(*) FROM face f LEFT JOIN space s ON s.number = f.space
        WHERE length(f.embedding) IS NOT 4 * s.dimension OR length(f.geometry) <> 80""",
    ),
    (
        "changes with an impossible sequence number",
        """SELECT (SELECT count(*) FROM entry e, state s WHERE e.sequence > s.sequence OR e.id > e.sequence)
        + (SELECT count(*) FROM tombstone t, state s WHERE t.sequence > s.sequence OR t.id >= t.sequence)""",
    ),
    ("deleted templates that are still there", "SELECT count(*) FROM tombstone JOIN entry USING (id)"),
)


@lru_cache(maxsize=1024)
def _decode_metadata(text: str) -> dict[str, Any]:
    """Metadata from their JSON; many templates have the same."""
    return dict(json.loads(text))


def _key(digest: bytes) -> int:
    """The part of a hash that is indexed: enough to find it, too little to recognize it once the rest is erased."""
    return int.from_bytes(digest[:4], "big")


def _next_sequences(connection: Any, count: int) -> range:
    (last,) = connection.execute("SELECT sequence FROM state").fetchone()
    if count:
        connection.execute("UPDATE state SET sequence = ?", (last + count,))
    return range(last + 1, last + count + 1)


def _write_space(connection: Any, space: EmbeddingSpace) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO space VALUES (1, ?, ?, ?, ?, ?, ?)",  # ignored: another process was faster with the same
        (space.id, space.model, space.version, space.weights_sha256, space.dimension, space.preprocessing),
    )


def _list_photos(connection: Any, digests: set[str]) -> dict[bytes, int]:
    """Photo ids by digest, all of them listed as enrolled now."""
    wanted = set(digest_bytes(sorted(digests)))
    keys = json.dumps([_key(digest) for digest in wanted])
    rows = connection.execute(
        "SELECT digest, id, listed FROM photo WHERE key IN (SELECT value FROM json_each(?))", (keys,)
    ).fetchall()
    ids = {digest: number for digest, number, _ in rows if digest in wanted}
    connection.executemany(
        "UPDATE photo SET listed = 1 WHERE id = ?",
        [(n,) for digest, n, listed in rows if digest in wanted and not listed],
    )
    (last,) = connection.execute("SELECT ifnull(max(id), 0) FROM photo").fetchone()
    new = {digest: number for number, digest in enumerate(sorted(wanted - ids.keys()), last + 1)}
    connection.executemany(
        "INSERT INTO photo VALUES (?, ?, 1, ?)", [(number, _key(digest), digest) for digest, number in new.items()]
    )
    return ids | new


def _name_ids(connection: Any, labels: set[str | None]) -> dict[str, int]:
    """Ids of labels, new ones written."""
    wanted = sorted(label for label in labels if label is not None)
    rows = connection.execute(
        """SELECT text, id FROM name WHERE typeof(text) = 'text' AND text IN (SELECT value FROM json_each(?))""",
        (json.dumps(wanted, ensure_ascii=False),),
    )
    ids: dict[str, int] = dict(rows.fetchall())
    (last,) = connection.execute("SELECT ifnull(max(id), 0) FROM name").fetchone()
    new = {label: number for number, label in enumerate((text for text in wanted if text not in ids), last + 1)}
    connection.executemany("INSERT INTO name VALUES (?, ?)", [(number, label) for label, number in new.items()])
    return ids | new


def _present(connection: Any, contents: list[bytes]) -> dict[bytes, tuple[int, str | None]]:
    """Id and label of the contents that are stored already."""
    rows = connection.execute(
        """SELECT f.content, e.id, n.text FROM entry e JOIN face f ON f.id = e.id LEFT JOIN name n ON n.id = e.label
        WHERE e.content IN (SELECT value FROM json_each(?))""",
        (json.dumps([_key(content) for content in contents]),),
    ).fetchall()
    return {content: (number, label) for content, number, label in rows}


def _erase_names(connection: Any, candidates: set[int | None]) -> int:
    """Erase those labels that no template has any more; how many."""
    unused = connection.execute(
        """SELECT id FROM name WHERE id IN (SELECT value FROM json_each(?)) AND typeof(text) = 'text'
        AND NOT EXISTS (SELECT 1 FROM entry WHERE label = name.id)""",
        (json.dumps(sorted(n for n in candidates if n is not None)),),
    ).fetchall()
    if unused:
        connection.executemany("UPDATE name SET text = zeroblob(length(CAST(text AS BLOB))) WHERE id = ?", unused)
        connection.execute("REINDEX name_text")  # its old pages are zeroed, slack and all
    return len(unused)


def _faceless(connection: Any, digests: frozenset[str] | None) -> set[int]:
    """Listed photos that have no template, of these digests or of all."""
    query = "SELECT id, digest FROM photo WHERE listed AND NOT EXISTS (SELECT 1 FROM entry WHERE photo = photo.id)"
    if digests is None:
        return {number for number, _ in connection.execute(query)}
    wanted = set(digest_bytes(digests))
    rows = connection.execute(
        query + " AND key IN (SELECT value FROM json_each(?))",  # noqa: S608
        (json.dumps([_key(digest) for digest in wanted]),),
    )
    return {number for number, digest in rows if digest in wanted}


def _forget_photos(connection: Any, numbers: set[int]) -> None:
    """Photos count as not enrolled; those without a template left are erased."""
    asked = json.dumps(sorted(numbers))
    connection.execute("UPDATE photo SET listed = 0 WHERE id IN (SELECT value FROM json_each(?))", (asked,))
    connection.execute(
        """UPDATE photo SET key = NULL, digest = zeroblob(length(digest)) WHERE id IN (SELECT value FROM json_each(?))
        AND NOT EXISTS (SELECT 1 FROM entry WHERE photo = photo.id)""",
        (asked,),
    )


def _matching(connection: Any, where: Where) -> list[int]:
    """Rising ids of the templates that pass: ``Where.passes`` in SQL."""
    conditions: list[str] = []
    values: list[object] = []

    def labels(wanted: frozenset[str | None], negate: bool) -> None:
        named = json.dumps(sorted(label for label in wanted if label and storable_text(label)), ensure_ascii=False)
        one = (
            "e.label IN (SELECT id FROM name WHERE typeof(text) = 'text' AND text IN (SELECT value FROM json_each(?)))"
        )
        # NOT IN is unknown for no label, so that case is always spelled out.
        if negate:
            absent = "e.label IS NOT NULL AND NOT" if None in wanted else "e.label IS NULL OR NOT"
            conditions.append(f"({absent} {one})")
        else:
            conditions.append(f"({'e.label IS NULL OR ' if None in wanted else ''}{one})")
        values.append(named)

    if where.labels is not None:
        labels(where.labels, negate=False)
    if where.not_labels is not None:
        labels(where.not_labels, negate=True)
    if where.photos is not None:
        wanted = set(digest_bytes(where.photos))
        rows = connection.execute(
            "SELECT id, digest FROM photo WHERE key IN (SELECT value FROM json_each(?))",
            (json.dumps([_key(digest) for digest in wanted]),),
        )
        conditions.append("e.photo IN (SELECT value FROM json_each(?))")
        values.append(json.dumps([number for number, digest in rows if digest in wanted]))
    for moment, comparison in ((where.enrolled_after, ">="), (where.enrolled_before, "<")):
        if moment is not None:
            conditions.append(f"e.enrolled {comparison} ?")
            values.append((moment - EPOCH) // MICROSECOND)
    tables, columns = "entry e", "e.id"
    for key, value in where.metadata.items():
        tables, columns = "entry e JOIN face f ON f.id = e.id", "e.id, f.metadata"
        # Necessary only: the same text may also stand inside a string, so Python looks again below.
        conditions.append("instr(f.metadata, ?) > 0")
        values.append(encode_metadata({key: value})[1:-1])
    query = f"SELECT {columns} FROM {tables} WHERE {' AND '.join(conditions) or '1'} ORDER BY e.id"  # noqa: S608
    rows = connection.execute(query, values)
    if not where.metadata:
        return [number for (number,) in rows]
    return [number for number, text in rows if _has(json.loads(text), where)]


def _has(metadata: dict[str, Any], where: Where) -> bool:
    return all(
        key in metadata and metadata[key] == value and type(metadata[key]) is type(value)
        for key, value in where.metadata.items()
    )
