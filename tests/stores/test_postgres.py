"""PostgreSQL: the contract, and whatever can be wrong with a server, its tables and the way there."""

import os
import threading
import time
import uuid
from urllib.parse import urlsplit

import psycopg
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from killed_writers import check_rounds
from postgres_schemas import drop, fresh
from restarts import enroll_over_restarts

from facedex.errors import (
    ArgumentInvalid,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    StoreVersion,
)
from facedex.stores import postgres_server
from facedex.stores.postgres import PostgresStore
from facedex.stores.postgres_server import translate
from facedex.testing.faces import SPACE, face, photo
from facedex.testing.stores import StoreContract, store_machine
from facedex.types import Where


class TestPostgresStore(StoreContract):
    @pytest.fixture
    def store(self, postgres_url):
        with PostgresStore(postgres_url) as store:
            yield store

    @pytest.fixture
    def reopen(self):
        return lambda store: PostgresStore(store.url)


def test_random_histories(postgres_url):
    made = []

    def make():
        made.append(fresh(postgres_url.partition("?")[0]))
        return PostgresStore(made[-1])

    machine = store_machine(make, lambda store: PostgresStore(store.url))
    try:
        run_state_machine_as_test(machine, settings=settings(deadline=None, max_examples=15, stateful_step_count=15))
    finally:
        for url in made:
            drop(url)


def test_killed_six_times_nothing_acknowledged_is_lost(postgres_url):
    assert check_rounds(postgres_url, rounds=6, seed=1) >= 6


@pytest.mark.heavy
def test_killed_sixty_times_nothing_acknowledged_is_lost(postgres_url):
    assert check_rounds(postgres_url, rounds=60, seed=time.time_ns()) >= 60


def test_a_server_killed_in_the_middle_of_an_enrollment_loses_nothing_and_is_waited_for(servers, tmp_path):
    with servers.make("postgres", tmp_path / "server") as server, PostgresStore(server.url) as store:
        assert enroll_over_restarts(store, server) == []


@pytest.mark.parametrize("moment", ["before", "behind"])
def test_a_write_whose_commit_was_not_heard_of_counts_once(postgres_url, monkeypatch, moment):
    """The server said nothing: was it committed? It knows, so nothing is written twice or forgotten."""
    real, broken = psycopg.Transaction.__exit__, []

    def deaf(self, kind, error, trace):
        if broken or kind is not None:
            return real(self, kind, error, trace)
        broken.append(True)
        if moment == "behind":
            real(self, kind, error, trace)
        self.connection.close()
        raise psycopg.OperationalError("the connection was lost")

    with PostgresStore(postgres_url) as store:
        for call in (
            lambda: [a.new for (a,) in store.add([photo("ann.jpg", face()), photo("b.jpg", face("b.jpg"))], SPACE)],
            lambda: store.relabel(store.ids().tolist(), "Bob"),
            lambda: store.delete(Where(labels=frozenset({"Bob"}))),
        ):
            broken.clear()
            monkeypatch.setattr(psycopg.Transaction, "__exit__", deaf)
            assert call() in ([True, True], 2)
            assert broken
            monkeypatch.undo()
        assert (store.count(), store.sequence(), store.check()) == (0, 6, ())


def test_a_fork_uses_connections_of_its_own(postgres_url):
    with PostgresStore(postgres_url) as store:
        store.add([photo("ann.jpg", face())], SPACE)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                store.add([photo("bob.jpg", face("bob.jpg", "Bob"))], SPACE)
                code = 0 if store.count() == 2 else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert store.count() == 2
        store.add([photo("cid.jpg", face("cid.jpg", "Cid"))], SPACE)
        assert [p.label for p in store.people()] == ["Ann", "Bob", "Cid"]


# -- what may be wrong with the place ----------------------------------------------------------------------------------


def execute(url, *statements):
    base, _, schema = url.partition("?schema=")
    with psycopg.connect(base, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.replace("{s}", schema).encode())


def with_parts(url, **changes):
    return urlsplit(url)._replace(**changes).geturl()


def test_a_server_that_is_not_there_says_so_without_the_password(monkeypatch):
    with pytest.raises(StoreUnavailable, match=r"u:\*\*\*@127\.0\.0\.1:9/x cannot be reached") as raised:
        PostgresStore("postgresql://u:s3cret@127.0.0.1:9/x")
    assert "s3cret" not in repr(raised.value.details) + str(raised.value)


def test_a_wrong_password_says_so_without_it(postgres_url, monkeypatch):
    monkeypatch.delenv("PGPASSWORD")
    wrong = postgres_url.replace(f":{urlsplit(postgres_url).password}@", ":s3cret@")
    with pytest.raises(StoreUnavailable, match="refused the user or the password") as raised:
        PostgresStore(wrong)
    assert "s3cret" not in repr(raised.value.details) + str(raised.value)
    with pytest.raises(StoreUnavailable, match="password"):
        PostgresStore(wrong.replace("s3cret", "***"))  # as our messages show it; nothing in the environment


def test_a_database_that_does_not_exist_is_not_made(postgres_url):
    with pytest.raises(StoreUnavailable, match="does not exist"):
        PostgresStore(with_parts(postgres_url, path="/nowhere"))


def test_a_gallery_is_made_only_when_allowed(postgres_url):
    with pytest.raises(StoreUnavailable, match="Enroll some photos first"):
        PostgresStore(postgres_url, create=False)
    PostgresStore(postgres_url).close()
    PostgresStore(postgres_url, create=False).close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("?schema=a-b", "no plain name"), ("?vector=maybe", "auto, off or require"), ("?nonsense=1", "no PostgreSQL URL")],
)
def test_a_url_that_cannot_be_meant_is_refused(wrong, message):
    with pytest.raises(ArgumentInvalid, match=message):
        PostgresStore("postgresql://u:s3cret@127.0.0.1:9/x" + wrong)


@pytest.mark.parametrize("table", ["gallery (one int)", "template (id int)", "gallery (format text, version int)"])
def test_a_foreign_table_under_our_name_is_left_as_it_is(postgres_url, table):
    execute(postgres_url, 'CREATE SCHEMA "{s}"', f'CREATE TABLE "{{s}}".facedex_{table}')
    with pytest.raises(StoreForeign, match="left as they are"):
        PostgresStore(postgres_url)
    execute(postgres_url, f'DROP TABLE "{{s}}".facedex_{table.split()[0]}')


def test_our_tables_live_beside_others(postgres_url):
    execute(postgres_url, 'CREATE SCHEMA "{s}"', 'CREATE TABLE "{s}".orders (id int)')
    with PostgresStore(postgres_url) as store:
        store.add([photo("ann.jpg", face())], SPACE)
    execute(postgres_url, 'DROP TABLE "{s}".orders')


def test_two_processes_may_make_one_gallery_at_once(postgres_url):
    made, failed = [], []

    def make():
        try:
            made.append(PostgresStore(postgres_url))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len({store.identity for store in made}) == 1
    for store in made:
        store.close()


def test_an_older_schema_is_brought_up_to_date_with_all_it_holds(postgres_url):
    with PostgresStore(postgres_url) as old:
        old.add([photo("ann.jpg", face())], SPACE)
        identity = old.identity
    execute(  # what version 1 made
        postgres_url,
        'DROP TABLE "{s}".facedex_index, "{s}".facedex_index_part',
        'ALTER TABLE "{s}".facedex_gallery DROP COLUMN vector',
        'UPDATE "{s}".facedex_gallery SET version = 1',
    )
    with PostgresStore(postgres_url, create=False) as store:
        assert (store.count(), store.identity) == (1, identity)
        assert store.keep_index("fdx", store.sequence(), [b"index"])
        assert store.delete(Where()) == 1
    with PostgresStore(postgres_url) as again:
        assert (again.count(), again.sequence()) == (0, 2)


def test_a_newer_schema_is_refused(postgres_url):
    PostgresStore(postgres_url).close()
    execute(postgres_url, 'UPDATE "{s}".facedex_gallery SET version = 99')
    with pytest.raises(StoreVersion, match=r"schema version 99.*Update Facedex"):
        PostgresStore(postgres_url)


def test_a_user_who_may_only_read_reads(postgres_url, monkeypatch):
    with PostgresStore(postgres_url) as store:
        store.add([photo("ann.jpg", face())], SPACE)
    reader = f"reader_{uuid.uuid4().hex[:8]}"
    execute(
        postgres_url,
        f"CREATE USER {reader} PASSWORD 'r'",
        f'GRANT USAGE ON SCHEMA "{{s}}" TO {reader}',
    )
    url = with_parts(postgres_url, netloc=f"{reader}:r@127.0.0.1:{urlsplit(postgres_url).port}")
    try:
        with pytest.raises(StoreUnavailable, match="Grant"):
            PostgresStore(url)
        execute(postgres_url, f'GRANT SELECT ON ALL TABLES IN SCHEMA "{{s}}" TO {reader}')
        with PostgresStore(url) as store:
            assert [s.template.label for s in store.scan()] == ["Ann"]
            for call in (
                lambda: store.add([photo("bob.jpg", face("bob.jpg"))], SPACE),
                lambda: store.relabel([1], "Bob"),
                lambda: store.delete(Where()),
                lambda: store.keep_index("fdx", 1, [b"x"]),
            ):
                with pytest.raises(StoreReadOnly, match="lacks the right"):
                    call()
            assert (store.count(), store.sequence()) == (1, 1)
    finally:
        execute(postgres_url, f"DROP OWNED BY {reader}", f"DROP USER {reader}")


@pytest.mark.parametrize(
    ("edit", "call"),
    [
        ("UPDATE {t} SET embedding = '\\x00'", lambda store: store.embeddings([1])),
        ("UPDATE {t} SET embedding = '\\x00'", lambda store: list(store.embedding_batches())),
        ("UPDATE {t} SET geometry = '\\x00'", lambda store: store.get([1])),
        ("UPDATE {t} SET metadata = '[1]'", lambda store: list(store.scan())),
        ("ALTER TABLE {t} DROP COLUMN link", lambda store: list(store.scan())),
        ("DROP TABLE {t}", lambda store: store.count()),
        ("DELETE FROM {g}", lambda store: store.sequence()),
        ("UPDATE {g} SET model = 'other'", lambda store: store.space()),
    ],
)
def test_rows_edited_by_hand_are_reported_as_damage(postgres_url, edit, call):
    with PostgresStore(postgres_url) as store:
        store.add([photo("ann.jpg", face())], SPACE)
    with PostgresStore(postgres_url) as store:
        execute(postgres_url, edit.format(t='"{s}".facedex_template', g='"{s}".facedex_gallery'))
        with pytest.raises(StoreCorrupt):
            call(store)


def test_check_finds_what_was_edited_by_hand(postgres_url):
    with PostgresStore(postgres_url) as store:
        store.add([photo("ann.jpg", face()), photo("bob.jpg", face("bob.jpg"))], SPACE)
        assert store.check() == ()
        execute(postgres_url, """UPDATE "{s}".facedex_template SET content = '\\x00', sequence = 99 WHERE id = 2""")
        assert len(store.check()) == 3


def test_a_broken_connection_is_waited_for_and_a_refused_user_is_not():
    for broken in (
        "SSL SYSCALL error: EOF detected",
        "server closed the connection unexpectedly",
        "Connection refused",
    ):
        assert postgres_server._server_went_away(psycopg.OperationalError(broken))
    for refused in ('password authentication failed for user "u"', 'database "x" does not exist'):
        assert not postgres_server._server_went_away(psycopg.OperationalError(refused))


def test_every_error_of_the_driver_has_a_word_of_ours():
    def below(kind):
        yield kind
        for child in kind.__subclasses__():
            yield from below(child)

    kinds = {*below(psycopg.Error), psycopg.Warning}
    assert len(kinds) > 200
    for kind in kinds:
        said = translate(kind("out of cheese"), "postgresql://u:***@db/x")
        assert isinstance(said, StoreError)
        assert said.message.startswith("gallery postgresql://u:***@db/x ")
        assert "out of cheese" in said.reason
    assert type(translate(psycopg.errors.DiskFull(), "x")) is StoreFull
    assert type(translate(psycopg.errors.LockNotAvailable(), "x")) is StoreBusy
    assert type(translate(psycopg.errors.ReadOnlySqlTransaction(), "x")) is StoreReadOnly
    assert type(translate(psycopg.errors.UndefinedColumn(), "x")) is StoreCorrupt
    assert type(translate(psycopg.errors.InvalidPassword(), "x")) is StoreUnavailable
