"""A gallery in Neo4j: templates are nodes, found by the server's own vector index."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from facedex.errors import StoreError, StoreForeign, StoreUnavailable, StoreVersion
from facedex.stores.address import Address
from facedex.stores.checks import (
    check_batch,
    check_label,
    check_limit,
    check_space,
    check_where,
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
    PhotoRecord,
    SearchesItself,
    Store,
)
from facedex.stores.neo4j_server import Neo4jServer
from facedex.stores.numbering import by_photo, number_batch
from facedex.stores.rows import Row, damaged, faults, matrix, metadata_tokens, read_space, rows_of, stored, write_space
from facedex.types import EmbeddingSpace, Person, StoredTemplate, Where

__all__ = ["Neo4jStore"]

SCHEMA = 1

_KINDS = (ChangeKind.ADDED, ChangeKind.RELABELED, ChangeKind.DELETED)
_PAGE = 2000
_WRITTEN_AT_ONCE = 5000
_OPTIONS = {"database": "name", "patience": "seconds"}
_ROW = "t {.id, .content, .photo, .label, .geometry, .exact, .link, .metadata, .enrolled, .sequence} AS row"


class Neo4jStore(Store, SearchesItself):
    """``neo4j://user:password@host/gallery?database=neo4j``; ``neo4j+s``, ``bolt``, ``bolt+s`` and so on likewise.

    patience  seconds a call goes on trying while the server restarts or is busy.
    Raises    StoreUnavailable, StoreForeign, StoreVersion, ArgumentInvalid.

    Every write locks the gallery's node, so numbers become visible in order. Vectors lie there twice: as the list of
    doubles that the index wants, and as the bytes that come back.
    """

    capabilities = Capabilities(scrubs_deleted=False)

    def __init__(self, address: Address, *, create: bool = True, patience: float | None = None) -> None:
        seconds = address.seconds("patience", 30.0) if patience is None else patience
        self._server = Neo4jServer(address, address.options.get("database"), seconds)
        self._url = address.masked
        self._space: EmbeddingSpace | None = None  # once read, it never changes
        prefix = f"facedex.{address.gallery}"
        self._index = f"{prefix}.embedding"
        self._labels = {
            "Gallery": f"`{prefix}`",
            "Template": f"`{prefix}.template`",
            "Photo": f"`{prefix}.photo`",
            "Tombstone": f"`{prefix}.tombstone`",
        }
        try:
            self._begin(create)
        except StoreError:
            self._server.close()
            raise

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Self:
        return cls(Address.parse(url, 7687, _OPTIONS), create=create)

    @property
    def url(self) -> str:
        return self._url

    def space(self) -> EmbeddingSpace | None:
        if self._space is None:
            self._server.read(self._read_state)
        else:
            self._server.read(lambda _: None)  # says when it is closed
        return self._space

    def add(self, photos: Sequence[PhotoRecord], space: EmbeddingSpace) -> list[list[Added]]:
        held = self.space()
        batch = check_batch(photos, space, held)
        if not photos:
            return []
        if held is None:
            self._make_index(space)
        offered = list(rows_of(batch))
        token = _Token()

        def work(transaction: Any) -> list[Added]:
            sequence, present_space = self._lock(transaction, token)
            check_space(space, present_space)
            contents = [row.content for row in offered]
            query = "MATCH (t:Template) WHERE t.content IN $contents RETURN t.content, t.id, t.label"
            present = {content: (n, label) for content, n, label in self._run(transaction, query, contents=contents)}
            added, places = number_batch(contents, [row.label for row in offered], present, sequence)
            new = []
            for id, n in enumerate(places, sequence + 1):
                values = asdict(replace(offered[n], id=id, sequence=id))
                values["exact"] = values.pop("embedding")
                tokens = metadata_tokens(batch.templates[n].metadata)
                new.append(values | {"embedding": batch.embeddings[n].tolist(), "tokens": tokens})
            for start in range(0, len(new), _WRITTEN_AT_ONCE):
                some = new[start : start + _WRITTEN_AT_ONCE]
                self._run(transaction, "UNWIND $rows AS row CREATE (t:Template) SET t = row", rows=some)
            digests = sorted({photo.digest for photo in photos})
            self._run(transaction, "UNWIND $digests AS digest MERGE (:Photo {digest: digest})", digests=digests)
            self._run(transaction, "MATCH (g:Gallery) SET g.space = $space", space=write_space(space))
            self._unlock(transaction, sequence + len(new), token)
            return added

        return by_photo(photos, self._server.write(work, lambda t: self._was_written(t, token)))

    def relabel(self, ids: Iterable[int], label: str | None) -> int:
        check_label(label)
        wanted = sorted(set(storable_ids(ids)))
        token = _Token()

        def work(transaction: Any) -> int:
            sequence, _ = self._lock(transaction, token)
            query = """MATCH (t:Template) WHERE t.id IN $ids
                AND (t.label <> $label OR (t.label IS NULL) <> ($label IS NULL)) RETURN t.id ORDER BY t.id"""
            changed = [n for (n,) in self._run(transaction, query, ids=wanted, label=label)]
            numbers = [[n, sequence + place] for place, n in enumerate(changed, 1)]
            query = "UNWIND $numbers AS n MATCH (t:Template {id: n[0]}) SET t.label = $label, t.sequence = n[1]"
            self._run(transaction, query, numbers=numbers, label=label)
            self._unlock(transaction, sequence + len(changed), token)
            return len(changed)

        return self._server.write(work, lambda t: self._was_written(t, token))

    def delete(self, where: Where) -> int:
        check_where(where)
        condition, values = _condition(where)
        token = _Token()

        def work(transaction: Any) -> int:
            sequence, _ = self._lock(transaction, token)
            query = f"MATCH (t:Template) WHERE {condition} RETURN t.id, t.photo ORDER BY t.id"
            gone = self._run(transaction, query, **values)
            photos = {digest for _, digest in gone}
            if where == Where(photos=where.photos):
                asked = None if where.photos is None else sorted(filter(storable_text, where.photos))
                query = """MATCH (p:Photo) WHERE ($photos IS NULL OR p.digest IN $photos)
                    AND NOT EXISTS { MATCH (t:Template) WHERE t.photo = p.digest } RETURN p.digest"""
                photos |= {digest for (digest,) in self._run(transaction, query, photos=asked)}
            numbers = [[sequence + place, n] for place, (n, _) in enumerate(gone, 1)]
            self._run(
                transaction, "UNWIND $numbers AS n CREATE (:Tombstone {sequence: n[0], id: n[1]})", numbers=numbers
            )
            query = "UNWIND $ids AS id MATCH (t:Template {id: id}) DELETE t"
            self._run(transaction, query, ids=[n for n, _ in gone])
            query = "UNWIND $digests AS digest MATCH (p:Photo {digest: digest}) DELETE p"
            self._run(transaction, query, digests=sorted(photos))
            self._unlock(transaction, sequence + len(gone), token)
            return len(gone)

        return self._server.write(work, lambda t: self._was_written(t, token))

    def get(self, ids: Sequence[int]) -> list[StoredTemplate]:
        wanted = storable_ids(ids)
        space = self.space()
        found: dict[int, StoredTemplate] = {}
        for start in range(0, len(wanted) if space else 0, _PAGE):
            some = wanted[start : start + _PAGE]
            for (row,) in self._read(f"MATCH (t:Template) WHERE t.id IN $ids RETURN {_ROW}", ids=some):
                found[row["id"]] = self._stored(row)
        return [found[n] for n in wanted if n in found]

    def scan(self, where: Where | None = None, *, after: int = 0) -> Iterator[StoredTemplate]:
        if where is not None:
            check_where(where)
        self._server.read(lambda _: None)
        return self._scan(where or Where(), after)

    def _scan(self, where: Where, after: int) -> Iterator[StoredTemplate]:
        for (row,) in self._pages(where, after, _PAGE, _ROW):
            yield self._stored(row)

    def ids(self, where: Where | None = None) -> npt.NDArray[np.int64]:
        check_where(where or Where())
        condition, values = _condition(where or Where())
        rows = self._read(f"MATCH (t:Template) WHERE {condition} RETURN t.id ORDER BY t.id", **values)
        return np.array([n for (n,) in rows], np.int64)

    def embeddings(self, ids: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        wanted, space = storable_ids(ids), self.space()
        found: dict[int, bytes] = {}
        for start in range(0, len(wanted), _PAGE):
            query = "MATCH (t:Template) WHERE t.id IN $ids RETURN t.id, t.exact"
            found.update(self._read(query, ids=wanted[start : start + _PAGE]))
        present = [n for n in wanted if n in found]
        return matrix(present, [found[n] for n in present], space.dimension if space else 0, self._url)

    def embedding_batches(
        self, after: int = 0, batch: int = 8192
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        check_limit(batch)
        space = self.space()
        pages = self._pages(Where(), after, batch, "t.exact")
        while space and (some := list(islice(pages, batch))):
            yield matrix([n for n, _ in some], [exact for _, exact in some], space.dimension, self._url)

    def facts(self, after: int = 0, *, keys: Sequence[str] = (), batch: int = 8192) -> Iterator[Facts]:
        check_limit(batch)
        pages = self._pages(Where(), after, batch, f"t.label, t.enrolled, {'t.metadata' if keys else 'null'}")
        while some := list(islice(pages, batch)):
            try:
                metadata = [json.loads(row[3]) for row in some] if keys else []
            except (ValueError, TypeError) as error:
                raise damaged(self._url, f"metadata cannot be read ({error})") from error
            yield Facts(
                np.array([row[0] for row in some], np.int64),
                [row[1] for row in some],
                np.array([row[2] for row in some], np.int64),
                {key: [each.get(key, ABSENT) for each in metadata] for key in keys},
            )

    def sequence(self) -> int:
        return self._server.read(self._read_state)

    def changes(self, after: int, limit: int = 10_000) -> list[Change]:
        check_limit(limit)

        def work(transaction: Any) -> list[tuple[int, int, int]]:
            # What is committed after this number was read is left for the next call, so none is passed over.
            values = {"after": after, "last": self._read_state(transaction), "limit": limit}
            part = "WHERE c.sequence > $after AND c.sequence <= $last RETURN c.sequence"
            end = "ORDER BY c.sequence LIMIT $limit"
            living = f"MATCH (c:Template) {part}, CASE c.id WHEN c.sequence THEN 0 ELSE 1 END, c.id {end}"
            dead = f"MATCH (c:Tombstone) {part}, 2, c.id {end}"
            return [tuple(row) for query in (living, dead) for row in self._run(transaction, query, **values)]

        rows = sorted(self._server.read(work))[:limit]
        return [Change(sequence, _KINDS[kind], changed) for sequence, kind, changed in rows]

    def known(self, digests: Iterable[str]) -> dict[str, frozenset[str | None]]:
        asked = [digest for digest in digests if storable_text(digest)]
        query = """MATCH (p:Photo) WHERE p.digest IN $digests
            OPTIONAL MATCH (t:Template) WHERE t.photo = p.digest
            RETURN p.digest, count(t), collect(DISTINCT t.label), count(t) > count(t.label)"""
        known: dict[str, frozenset[str | None]] = {}
        for start in range(0, len(asked), _PAGE):
            for digest, _, labels, nameless in self._read(query, digests=asked[start : start + _PAGE]):
                known[digest] = frozenset([*labels, None] if nameless else labels)
        return known

    def faceless(self, after: str = "", limit: int = 10_000) -> list[str]:
        check_limit(limit)
        query = """MATCH (p:Photo) WHERE p.digest > $after
            AND NOT EXISTS { MATCH (t:Template) WHERE t.photo = p.digest }
            RETURN p.digest ORDER BY p.digest LIMIT $limit"""
        return [digest for (digest,) in self._read(query, after=after, limit=limit)]

    def people(self, after: str | None = None, limit: int | None = None) -> list[Person]:
        check_limit(limit)
        counts = "count(*), count(DISTINCT t.photo)"

        def work(transaction: Any) -> list[Person]:
            people = []
            if after is None:
                query = f"MATCH (t:Template) WHERE t.label IS NULL RETURN {counts}"
                ((templates, photos),) = self._run(transaction, query)
                people = [Person(None, templates, photos)] if templates else []
            rest = 2**31 if limit is None else limit - len(people)
            query = f"""MATCH (t:Template) WHERE t.label > $after
                RETURN t.label, {counts} ORDER BY t.label LIMIT $limit"""
            return people + [Person(*row) for row in self._run(transaction, query, after=after or "", limit=rest)]

        return self._server.read(work)

    def count(self, where: Where | None = None) -> int:
        check_where(where or Where())
        condition, values = _condition(where or Where())
        ((number,),) = self._read(f"MATCH (t:Template) WHERE {condition} RETURN count(*)", **values)
        return int(number)

    def nearest(
        self, probes: npt.NDArray[np.float32], k: int, where: Where | None = None, *, exact: bool = False
    ) -> npt.NDArray[np.int64]:
        check_limit(k)
        check_where(where or Where())
        answer = np.full((len(probes), k), -1, np.int64)
        if self.space() is None:
            return answer
        total = self.count()
        for row, probe in zip(answer, probes, strict=True):
            found = self._nearest(probe.tolist(), k, where or Where(), total, exact)
            row[: len(found)] = found
        return answer

    def check(self) -> tuple[str, ...]:
        """Reads every template: its parts agree with each other, and the numbers with the gallery's."""
        found: list[str] = []
        sequence, space = self.sequence(), self.space()
        last = max([0, *(n for (n,) in self._read("MATCH (t:Template) RETURN max(t.sequence)") if n is not None)])
        if max(last, *(n or 0 for (n,) in self._read("MATCH (d:Tombstone) RETURN max(d.sequence)"))) > sequence:
            found.append("changes with a higher sequence number than the gallery's")
        for _, row, embedding in self._pages(Where(), 0, _PAGE, f"{_ROW}, t.embedding"):
            fault = "a template without the gallery's space" if space is None else faults(_row(row), space, self._url)
            if fault is None and row["exact"] != np.array(embedding, "<f4").tobytes():
                fault = f"template {row['id']}: the index's vector is not the embedding"
            if fault is None and not row["sequence"] >= row["id"]:
                fault = f"template {row['id']} has the impossible sequence number {row['sequence']}"
            if fault is not None:
                found.append(fault)
        query = "MATCH (d:Tombstone) MATCH (t:Template {id: d.id}) RETURN count(*)"
        ((undead,),) = self._read(query)
        if undead:
            found.append(f"{undead} deleted templates that are still there")
        return tuple(found)

    def close(self) -> None:
        self._server.close()

    # -- opening ------------------------------------------------------------------------------------------------------

    def _begin(self, create: bool) -> None:
        state = self._read("MATCH (g:Gallery) RETURN g.schema, g.sequence, g.name")
        if not state:
            if not create:
                raise StoreUnavailable(f"{self._url} holds no gallery. Enroll to create it.", url=self._url)
            ((foreign,),) = self._read("MATCH (n) WHERE n:Template OR n:Photo OR n:Tombstone RETURN count(n)")
            if foreign:
                raise self._foreign(f"{foreign} nodes bear its labels, and there is no node of the gallery itself")
            self._define()
            self._server.write(
                lambda t: self._run(
                    t,
                    """MERGE (g:Gallery {name: 'facedex'}) ON CREATE SET g.schema = $schema, g.sequence = 0""",
                    schema=SCHEMA,
                ),
                lambda _: False,
            )
            return
        schema, sequence, name = state[0]
        if len(state) > 1 or name != "facedex" or not isinstance(schema, int) or not isinstance(sequence, int):
            raise self._foreign(f"nodes bear the label {self._labels['Gallery']} that are not ours")
        if schema != SCHEMA:
            raise StoreVersion(
                f"{self._url} has schema {schema}, this Facedex knows {SCHEMA}. Update Facedex.",
                url=self._url,
                schema=schema,
                known=SCHEMA,
            )

    def _define(self) -> None:
        unique = (("Gallery", "name"), ("Template", "id"), ("Template", "content"), ("Photo", "digest"))
        found = (
            ("Template", "sequence"), ("Template", "label"), ("Template", "photo"), ("Template", "enrolled"),
            ("Tombstone", "sequence"), ("Tombstone", "id"),
        )  # fmt: skip
        label = self._labels
        self._server.define(
            *(f"CREATE CONSTRAINT IF NOT EXISTS FOR (n:{label[a]}) REQUIRE n.{b} IS UNIQUE" for a, b in unique),
            *(f"CREATE INDEX IF NOT EXISTS FOR (n:{label[a]}) ON (n.{b})" for a, b in found),
        )

    def _make_index(self, space: EmbeddingSpace) -> None:
        query = "SHOW VECTOR INDEXES YIELD name, options WHERE name = $name RETURN options.indexConfig"
        held = self._read(query, name=self._index)
        if held and held[0][0].get("vector.dimensions") != space.dimension:  # left by an enrollment that never was
            self._server.define(f"DROP INDEX `{self._index}` IF EXISTS")
        settings = f"`vector.dimensions`: {space.dimension}, `vector.similarity_function`: 'cosine'"
        self._server.define(
            f"CREATE VECTOR INDEX `{self._index}` IF NOT EXISTS FOR (t:{self._labels['Template']}) ON t.embedding "
            f"OPTIONS {{indexConfig: {{{settings}}}}}"
        )
        self._read("CALL db.awaitIndex($name, 60)", name=self._index)

    def _foreign(self, what: str) -> StoreForeign:
        return StoreForeign(
            f"{self._url} is not a Facedex gallery: {what}. Name another gallery in the URL.", url=self._url
        )

    # -- reading ------------------------------------------------------------------------------------------------------

    def _run(self, transaction: Any, query: str, **values: object) -> list[Any]:
        for name, label in self._labels.items():
            query = query.replace(f":{name}", f":{label}")
        return [tuple(record.values()) for record in transaction.run(query, values)]

    def _read(self, query: str, **values: object) -> list[Any]:
        return self._server.read(lambda transaction: self._run(transaction, query, **values))

    def _pages(self, where: Where, after: int, page: int, fields: str) -> Iterator[Any]:
        """Ids and fields of the templates that pass, by rising id."""
        condition, values = _condition(where)
        while True:
            query = (
                f"MATCH (t:Template) WHERE t.id > $behind AND {condition} RETURN t.id, {fields} ORDER BY t.id LIMIT $n"
            )
            rows = self._read(query, behind=after, n=page, **values)
            yield from ((row[1:] if fields == _ROW else row) for row in rows)
            if len(rows) < page:
                return
            after = rows[-1][0]

    def _stored(self, row: dict[str, Any]) -> StoredTemplate:
        space = self._space or self.space()
        assert space is not None
        return stored(_row(row), space, self._url)

    def _read_state(self, transaction: Any) -> int:
        rows = self._run(transaction, "MATCH (g:Gallery) RETURN g.sequence, g.space")
        if len(rows) != 1 or not isinstance(rows[0][0], int):
            raise damaged(self._url, "the node of the gallery is gone or is not what it was")
        if self._space is None and rows[0][1] is not None:
            self._space = read_space(rows[0][1], self._url)
        return int(rows[0][0])

    def _nearest(self, probe: list[float], k: int, where: Where, total: int, exact: bool) -> list[int]:
        condition, values = _condition(where)
        # The index knows no conditions: fetch more, until enough of them pass.
        fetched = k if where == Where() else 4 * k
        while not exact and fetched <= max(10_000, k):
            query = f"""CALL db.index.vector.queryNodes($index, $fetched, $probe) YIELD node AS t, score
                WHERE {condition} RETURN t.id ORDER BY score DESC, t.id LIMIT $k"""
            rows = self._read(query, index=self._index, fetched=fetched, probe=probe, k=k, **values)
            if len(rows) == k or fetched >= total:
                return [n for (n,) in rows]
            fetched *= 4
        query = f"""MATCH (t:Template) WHERE {condition}
            WITH t.id AS id, vector.similarity.cosine(t.embedding, $probe) AS score
            RETURN id ORDER BY score DESC, id LIMIT $k"""
        return [n for (n,) in self._read(query, probe=probe, k=k, **values)]

    # -- writing ------------------------------------------------------------------------------------------------------

    def _lock(self, transaction: Any, token: _Token) -> tuple[int, EmbeddingSpace | None]:
        """Wait until no other transaction writes to the gallery; its sequence number and space then."""
        self._run(transaction, "MATCH (g:Gallery) SET g.writing = true")
        ((token.before,),) = self._run(transaction, "MATCH (g:Gallery) RETURN g.token")
        return self._read_state(transaction), self._space

    def _unlock(self, transaction: Any, sequence: int, token: _Token) -> None:
        query = "MATCH (g:Gallery) SET g.sequence = $sequence, g.before = g.token, g.token = $token"
        self._run(transaction, query, sequence=sequence, token=token.mine)

    def _was_written(self, transaction: Any, token: _Token) -> bool | None:
        ((last, before),) = self._run(transaction, "MATCH (g:Gallery) RETURN g.token, g.before")
        if token.mine in (last, before):
            return True
        return False if last == token.before else None


@dataclass(slots=True)
class _Token:
    """Left at the gallery's node by each write, so that one whose commit got no answer can be looked for.

    before  of the write before it.
    """

    mine: str = field(default_factory=lambda: secrets.token_hex(16))
    before: str | None = None


def _row(values: dict[str, Any]) -> Row:
    return Row(**{("embedding" if name == "exact" else name): value for name, value in values.items()})


def _condition(where: Where) -> tuple[str, dict[str, object]]:
    """``Where.passes`` of template t in Cypher, and its values."""
    parts, values = ["true"], dict[str, object]()
    for name, wanted in (("labels", where.labels), ("not_labels", where.not_labels)):
        if wanted is None:
            continue
        values[name] = sorted(label for label in wanted if label is not None and storable_text(label))
        nameless, listed = None in wanted, f"coalesce(t.label IN ${name}, false)"
        if name == "labels":
            parts.append(f"({listed} OR t.label IS NULL)" if nameless else f"t.label IN ${name}")
        else:
            parts.append(f"NOT {listed}" + (" AND t.label IS NOT NULL" if nameless else ""))
    if where.photos is not None:
        values["photos"] = sorted(filter(storable_text, where.photos))
        parts.append("t.photo IN $photos")
    if where.metadata:
        values["tokens"] = metadata_tokens(where.metadata)
        parts.append("all(token IN $tokens WHERE token IN t.tokens)")
    for name, comparison, moment in (
        ("since", ">=", where.enrolled_after),
        ("until", "<", where.enrolled_before),
    ):
        if moment is not None:
            values[name] = (moment - EPOCH) // MICROSECOND
            parts.append(f"t.enrolled {comparison} ${name}")
    return " AND ".join(parts), values
