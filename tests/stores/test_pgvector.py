"""PostgreSQL with pgvector: the contract once more, and the server's own search."""

import numpy as np
import psycopg
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from postgres_schemas import drop, fresh

from benchmarks.search.data import gallery
from facedex.errors import StoreUnavailable
from facedex.search.projection import Projection
from facedex.stores.contract import PhotoRecord, SearchesItself
from facedex.stores.postgres import PostgresStore
from facedex.stores.postgres_vector import PostgresVectorStore
from facedex.stores.registry import open_store
from facedex.testing.faces import SPACE, digest, face, photo, unit
from facedex.testing.stores import StoreContract, store_machine
from facedex.types import Box, EmbeddingSpace, Template, Where


class TestPostgresVectorStore(StoreContract):
    @pytest.fixture
    def store(self, pgvector_url):
        with PostgresStore.open(pgvector_url) as store:
            assert isinstance(store, PostgresVectorStore)
            yield store

    @pytest.fixture
    def reopen(self):
        return lambda store: PostgresStore.open(store.url)


def test_random_histories(pgvector_url):
    made = []

    def make():
        made.append(fresh(pgvector_url.partition("?")[0]))
        return PostgresStore.open(made[-1] + "&vector=require")

    machine = store_machine(make, lambda store: PostgresStore.open(store.url))
    try:
        run_state_machine_as_test(machine, settings=settings(deadline=None, max_examples=6, stateful_step_count=12))
    finally:
        for url in made:
            drop(url)


def enroll_many(store, count, dimension):
    """Realistic embeddings under made-up photos; returns them."""
    space = EmbeddingSpace("drawn", "1", "0" * 64, dimension, "none")
    embeddings = gallery(count, dimension)
    landmarks = np.zeros((5, 2), np.float32)
    records = []
    for n, embedding in enumerate(embeddings):
        name = digest(f"{n}.jpg")
        template = Template(name, Box(0, 0, 9, 9), landmarks, 0.9, embedding, space.id, label=f"P{n % 50}")
        records.append(PhotoRecord(name, (template,)))
    store.add(records, space)
    return embeddings


def test_the_servers_index_finds_what_exact_search_finds(pgvector_url):
    with open_store(pgvector_url) as store:
        embeddings = enroll_many(store, 3000, 64)
        projection = Projection(store)
        saved = projection.approximate()
        assert (saved.kind, saved.path, saved.rows) == ("ann", None, 3000)
        assert saved.recall >= 0.95
        projection.approximate()  # there already
        probes = embeddings[:20]
        near, exact = projection.search(probes, 5, mode="ann"), projection.search(probes, 5, mode="exact")
        same = near[1] == exact[1]
        assert same.mean() >= 0.95
        assert (near[0][same] == exact[0][same]).all()  # whoever proposes, the score is ours
        where = Where(labels=frozenset({"P7"}))  # 60 of 3000: the index goes on until enough pass
        named = projection.search(probes, 5, mode="ann", where=where)
        assert (named[1] == projection.search(probes, 5, where=where)[1]).mean() >= 0.9
        plan = planned(
            pgvector_url, "SELECT id FROM {t} ORDER BY vector::halfvec(64) <#> '[" + "0.125," * 63 + "1]' LIMIT 5"
        )
        assert "facedex_template_hnsw" in plan


def planned(url, query):
    base, _, schema = url.partition("?schema=")
    with psycopg.connect(base) as connection:
        query = "EXPLAIN " + query.replace("{t}", f'"{schema.partition("&")[0]}".facedex_template')
        return "\n".join(line for (line,) in connection.execute(query.encode()).fetchall())


def test_a_plain_gallery_stays_plain_until_the_extension_is_required(pgvector_url):
    auto, off = pgvector_url.replace("require", "auto"), pgvector_url.replace("require", "off")
    open_store(pgvector_url).close()  # the extension is there from now on
    with open_store(off) as plain:
        plain.add([photo("ann.jpg", face(towards=(1, 2)))], SPACE)
    with open_store(auto) as plain:
        assert not isinstance(plain, SearchesItself)
    with open_store(pgvector_url) as store, open_store(off) as plain:
        assert store.nearest(unit(1, 2)[None], 2).tolist() == [[1, -1]]
        plain.add([photo("bob.jpg", face("bob.jpg", "Bob", towards=(2, 1)))], SPACE)  # fills the column too
        assert store.nearest(unit(2, 1)[None], 2, exact=True).tolist() == [[2, 1]]
    with open_store(auto) as store:
        assert isinstance(store, SearchesItself)


def test_a_server_without_the_extension_says_what_is_missing(postgres_url):
    with pytest.raises(StoreUnavailable, match="CREATE EXTENSION vector"):
        open_store(postgres_url + "&vector=require")
    with open_store(postgres_url) as store:
        assert type(store) is PostgresStore
