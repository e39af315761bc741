"""What may lie at a gallery's path instead of a gallery, and what may go wrong with its disk."""

import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from facedex import errors
from facedex.errors import (
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreUnavailable,
    StoreVersion,
)
from facedex.stores.contract import PhotoRecord
from facedex.stores.sqlite import SQLiteStore
from facedex.stores.sqlite_file import APPLICATION_ID, SCHEMA_VERSION, translate
from facedex.testing.faces import SPACE, digest, face, photo, unit
from facedex.types import Box, Where


@pytest.fixture
def path(tmp_path):
    return tmp_path / "faces.db"


@pytest.fixture
def gallery(path):
    """A closed gallery of 300 faces, and its path."""
    with SQLiteStore(path) as store:
        faces = [face(f"{n}.jpg", f"P{n % 3}", towards=(1, n)) for n in range(300)]
        store.add([PhotoRecord(f.photo_digest, (f,)) for f in faces], SPACE)
    return path


def edit(path, *statements):
    """The back door."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def everything(path):
    return {p.name: p.read_bytes() for p in path.parent.iterdir()}


# -- not a gallery ----------------------------------------------------------------------------------------------------

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(256)) * 40


@pytest.mark.parametrize(
    "content", [b"Ann was here.\n", JPEG, b"\0" * 5000, b"S", b"SQLite format 3\0", b"SQLite format 3\0" * 300]
)
@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_no_database_is_refused_and_left_alone(path, content, create):
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt):
        SQLiteStore(path, create=create)
    assert everything(path) == {"faces.db": content}


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@pytest.mark.parametrize(
    "mark", ["CREATE TABLE contacts (name)", "PRAGMA application_id = 7", "PRAGMA user_version = 3"]
)
def test_somebody_elses_database_is_refused_and_left_alone(path, journal, mark):
    edit(path, f"PRAGMA journal_mode = {journal}", mark)
    before = everything(path)
    with pytest.raises(StoreForeign, match="left as it is") as caught:
        SQLiteStore(path)
    assert everything(path) == before
    assert caught.value.path == str(path)


def test_somebody_elses_database_in_use_is_left_alone(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as owner:
        owner.execute("PRAGMA journal_mode = WAL")
        owner.execute("CREATE TABLE contacts (name)")
        owner.execute("INSERT INTO contacts VALUES ('Ann')")
        with pytest.raises(StoreForeign, match="contacts"):
            SQLiteStore(path)
        owner.execute("INSERT INTO contacts VALUES ('Bob')")
        assert owner.execute("SELECT count(*) FROM contacts").fetchone() == (2,)
        assert owner.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_empty_file_becomes_a_gallery(path):
    path.touch()
    with pytest.raises(StoreUnavailable, match="empty file"):
        SQLiteStore(path, create=False)
    with SQLiteStore(path) as store:
        assert store.count() == 0
    assert path.stat().st_size > 0


def test_our_files_can_be_told_by_their_header(gallery):
    header = gallery.read_bytes()[:100]
    assert header[68:72] == b"FDEX"
    assert int.from_bytes(header[60:64], "big") == SCHEMA_VERSION
    assert int.from_bytes(b"FDEX", "big") == APPLICATION_ID


def test_paths_that_cannot_be_files(tmp_path):
    with pytest.raises(StoreUnavailable, match="folder"):
        SQLiteStore(tmp_path)
    with pytest.raises(StoreUnavailable, match="no folder"):
        SQLiteStore(tmp_path / "missing" / "faces.db")
    with pytest.raises(StoreUnavailable):
        SQLiteStore(tmp_path / ("x" * 300))
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable):
        SQLiteStore(tmp_path / "file" / "faces.db")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(StoreUnavailable, match="not a regular file"):
            SQLiteStore(tmp_path / "pipe")
    assert not (tmp_path / "missing").exists()


# -- damaged, or of another time --------------------------------------------------------------------------------------


def test_a_gallery_of_a_newer_facedex_is_refused_and_left_alone(gallery):
    edit(gallery, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = gallery.read_bytes()
    with pytest.raises(StoreVersion, match="Upgrade"):
        SQLiteStore(gallery)
    assert gallery.read_bytes() == before


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.5, 0.99])
def test_a_truncated_gallery_is_refused_and_left_alone(gallery, keep):
    content = gallery.read_bytes()[: int(gallery.stat().st_size * keep)]
    gallery.write_bytes(content)
    with pytest.raises(StoreCorrupt):
        SQLiteStore(gallery)
    assert gallery.read_bytes() == content


def test_damaged_pages_never_give_wrong_answers_of_another_kind(gallery):
    """Whatever 64 bytes are overwritten: the call works, or raises one of our errors; check() tells."""
    chance = random.Random(3)
    content = gallery.read_bytes()
    told = 0
    for _ in range(60):
        at = chance.randrange(100, len(content) - 64)
        gallery.write_bytes(content[:at] + chance.randbytes(64) + content[at + 64 :])
        for extra in ("-wal", "-shm"):
            gallery.with_name(gallery.name + extra).unlink(missing_ok=True)
        try:
            with SQLiteStore(gallery) as store:
                told += store.check() != ()
                list(store.scan())
                list(store.embedding_batches())
                store.people()
                store.changes(0)
                store.add([photo("new.jpg", face("new.jpg"))], SPACE)
                store.delete(Where(labels=frozenset({"P1"})))
        except StoreError:
            told += 1
    assert told > 10


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("DELETE FROM face WHERE id = 3", "1 entries without their face"),
        ("DELETE FROM entry WHERE id = 3", "1 faces without their entry"),
        ("DELETE FROM photo WHERE id = 3", "1 entries without their photo"),
        ("DELETE FROM name WHERE text = 'P1'", "100 entries without their label"),
        (
            "UPDATE face SET content = (SELECT content FROM face WHERE id = 1) WHERE id = 2",
            "1 contents stored more than once",
        ),
        ("UPDATE face SET embedding = x'00' WHERE id = 2", "1 faces of a wrong size"),
        ("UPDATE state SET sequence = 299", "1 changes with an impossible sequence number"),
        ("INSERT INTO tombstone VALUES (300, 3)", "1 deleted templates that are still there"),
    ],
)
def test_check_finds_what_was_edited_by_hand(gallery, statement, sentence):
    with SQLiteStore(gallery) as store:
        assert store.check() == ()
        edit(gallery, statement)
        assert sentence in store.check()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE face SET embedding = x'0000' WHERE id = 2",
        "UPDATE face SET embedding = 'text' WHERE id = 2",
        "UPDATE face SET geometry = x'00' WHERE id = 2",
        "UPDATE face SET metadata = '{' WHERE id = 2",
        "UPDATE face SET link = CAST(x'ff' AS TEXT) WHERE id = 2",
        "UPDATE entry SET enrolled = 'noon' WHERE id = 2",
        "UPDATE entry SET enrolled = 9223372036854775807 WHERE id = 2",
        "UPDATE photo SET digest = 7 WHERE id = 2",
        "UPDATE space SET dimension = 3",
        "DROP TABLE photo",
        "DELETE FROM state",
    ],
)
def test_a_row_edited_by_hand_raises_our_error(gallery, statement):
    edit(gallery, statement)
    with pytest.raises(StoreCorrupt):
        _read_everything(gallery)


def _read_everything(gallery):
    with SQLiteStore(gallery) as store:
        return list(store.scan()), list(store.embedding_batches())


def test_rows_written_by_the_back_door_are_read(path):
    """The reverse of every other test here: nothing of what is read went through ``add``."""
    box, score = Box(1.5, 2.5, 3.5, 4.5), 0.5
    landmarks = np.arange(10, dtype="<f4").reshape(5, 2)
    geometry = np.array(box, "<f8").tobytes() + landmarks.tobytes() + np.array(score, "<f8").tobytes()
    with SQLiteStore(path) as store:
        edit(
            path,
            f"INSERT INTO space VALUES (1, '{SPACE.id}', 'toy', '1', '{'0' * 64}', 4, 'none')",
            f"INSERT INTO photo VALUES (5, {int(digest('ann.jpg')[:8], 16)}, 1, x'{digest('ann.jpg')}')",
            "INSERT INTO name VALUES (9, 'Ann')",
            f"""INSERT INTO face VALUES (7, 1, 1, x'{"00" * 16}', x'{geometry.hex()}',
            x'{np.array([0, 0, 1, 0], "<f4").tobytes().hex()}', NULL, '{{"n":1}}')""",
            "INSERT INTO entry VALUES (7, 8, 0, 5, 9, 1000000)",
            "INSERT INTO tombstone VALUES (6, 2)",
            "UPDATE state SET sequence = 8",
        )
        (ann,) = store.scan()
        assert (ann.id, ann.template.label, ann.template.metadata, ann.template.box) == (7, "Ann", {"n": 1}, box)
        assert (ann.template.landmarks == landmarks).all()
        assert (ann.template.detection_score, ann.template.link) == (score, None)
        assert ann.template.embedding.tolist() == [0, 0, 1, 0]
        assert ann.enrolled_at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
        assert [(c.sequence, c.kind.value, c.id) for c in store.changes(0)] == [(6, "deleted", 2), (8, "relabeled", 7)]
        assert store.known([digest("ann.jpg")]) == {digest("ann.jpg"): {"Ann"}}
        assert store.add([photo("bob.jpg", face("bob.jpg"))], SPACE)[0][0].id == 9


# -- permissions: the tests may run as root, whom no permission stops -------------------------------------------------

AS_NOBODY = """
import os, sys, resource, signal
from facedex.errors import FacedexError
from facedex.stores.sqlite import SQLiteStore
from facedex.testing.faces import *
from facedex.types import Where
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
path = sys.argv[1]
def attempt(call):
    try:
        return call()
    except FacedexError as error:
        return error.code
"""
AS_ROOT = AS_NOBODY.replace("os.getuid() == 0", "False")


def as_nobody(code, path):
    done = subprocess.run([sys.executable, "-W", "error", "-c", AS_NOBODY + code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def public():
    """A folder that everybody may enter."""
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    yield folder
    os.chmod(folder, 0o755)
    shutil.rmtree(folder)


READ_AND_TRY_TO_WRITE = """
with SQLiteStore(path) as store:
    print(store.writable, store.count(), store.sequence(), len(list(store.scan())), store.people()[0].label)
    print(attempt(lambda: store.add([photo("new.jpg", face("new.jpg"))], SPACE)))
    print(attempt(lambda: store.relabel([1], "Bob")), attempt(lambda: store.delete(Where())))
    print(store.check())
"""


@pytest.mark.parametrize("folder_mode", [0o555, 0o777])
@pytest.mark.parametrize("wal", [False, True])
def test_a_gallery_that_cannot_be_written_can_be_read(public, folder_mode, wal):
    path = os.path.join(public, "faces.db")
    with SQLiteStore(path) as store:
        store.add([photo("ann.jpg", face()), photo("bob.jpg", face("bob.jpg", "Ann"))], SPACE)
        if not wal:
            store.close()
        os.chmod(path, 0o444)
        os.chmod(public, folder_mode)
        try:
            told = as_nobody(READ_AND_TRY_TO_WRITE, path)
        finally:
            os.chmod(public, 0o755)
            os.chmod(path, 0o644)
    assert told == ["False", "2", "2", "2", "Ann", "store_read_only", "store_read_only", "store_read_only", "()"]
    with SQLiteStore(path) as store:
        assert store.count() == 2
        store.add([photo("cid.jpg", face("cid.jpg"))], SPACE)
        assert store.check() == ()


def test_a_reader_of_a_frozen_folder_notices_a_writer_with_more_rights(public):
    path = os.path.join(public, "faces.db")
    with SQLiteStore(path) as store:
        store.add([photo("ann.jpg", face())], SPACE)
    os.chmod(path, 0o644)
    code = (
        AS_NOBODY
        + """
with SQLiteStore(path) as store:
    print(store.count(), flush=True)
    sys.stdin.readline()
    print(store.count(), flush=True)
"""
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout.readline() == "1\n"
        with SQLiteStore(path) as store:
            store.add([photo("bob.jpg", face("bob.jpg"))], SPACE)
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "2\n"


def test_no_gallery_is_made_in_a_folder_that_cannot_be_written(public):
    os.chmod(public, 0o555)
    told = as_nobody("print(attempt(lambda: SQLiteStore(path)))", os.path.join(public, "faces.db"))
    assert told == ["store_read_only"]
    assert os.listdir(public) == []


def test_a_gallery_that_may_not_even_be_read_is_unavailable(public):
    path = os.path.join(public, "faces.db")
    SQLiteStore(path).close()
    os.chmod(path, 0)
    assert as_nobody("print(attempt(lambda: SQLiteStore(path)))", path) == ["store_unavailable"]


# -- full disks -------------------------------------------------------------------------------------------------------

FILL = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with SQLiteStore(path) as store:
    limit = os.path.getsize(path) + 200_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for batch in range(10_000):
        faces = [face(f"{batch}-{n}.jpg", metadata={"text": "x" * 500}) for n in range(20)]
        told = attempt(lambda: store.add([photo(f"{batch}-{n}.jpg", f) for n, f in enumerate(faces)], SPACE))
        if isinstance(told, str):
            break
        print(*[added.id for each in told for added in each])
    print(told, store.count(), store.check())
"""


def test_a_full_disk_keeps_what_was_acknowledged_and_nothing_of_the_rest(path):
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", AS_ROOT + FILL, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *batches, last = done.stdout.splitlines()
    ids = [int(word) for line in batches for word in line.split()]
    assert len(ids) >= 20
    assert last == f"store_full {len(ids)} ()"
    with SQLiteStore(path) as store:
        assert store.ids().tolist() == ids
        assert store.check() == ()
        store.add([photo("after.jpg", face("after.jpg"))], SPACE)
        assert store.count() == len(ids) + 1


def test_a_gallery_that_may_not_grow_is_full_and_goes_on_once_it_may(path):
    with SQLiteStore(path) as store:
        store.add([photo("ann.jpg", face())], SPACE)
        with store._file.writing() as connection:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
        store._file._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
        big = [face(f"{n}.jpg", metadata={"text": "x" * 2000}) for n in range(40)]
        batch = [PhotoRecord(f.photo_digest, (f,)) for f in big]
        with pytest.raises(StoreFull, match="Nothing of this call was written"):
            store.add(batch, SPACE)
        assert (store.count(), store.sequence(), store.known(f.photo_digest for f in big)) == (1, 1, {})
        assert store.check() == ()
        assert store.delete(Where()) == 1  # making room is possible
        store._file._writer.execute("PRAGMA max_page_count = 1000000")
        assert len(store.add(batch, SPACE)) == 40


# -- every error of the driver ----------------------------------------------------------------------------------------


def _subclasses(kind):
    return {kind, *(deeper for sub in kind.__subclasses__() for deeper in _subclasses(sub))}


def test_every_class_of_sqlite3s_errors_is_translated(path):
    for kind in _subclasses(sqlite3.Error) | _subclasses(sqlite3.Warning):
        if kind.__module__ == "sqlite3":
            error = translate(kind("it broke"), path)
            assert isinstance(error, StoreError)
            assert "it broke" in str(error)
            assert str(path) in str(error)


def test_every_code_of_sqlite_is_translated(path):
    codes = {name: code for name, code in vars(sqlite3).items() if name.startswith("SQLITE_") and isinstance(code, int)}
    expected = {
        "SQLITE_BUSY": "StoreBusy",
        "SQLITE_BUSY_SNAPSHOT": "StoreBusy",
        "SQLITE_LOCKED": "StoreBusy",
        "SQLITE_READONLY": "StoreReadOnly",
        "SQLITE_READONLY_DIRECTORY": "StoreReadOnly",
        "SQLITE_FULL": "StoreFull",
        "SQLITE_IOERR_WRITE": "StoreFull",
        "SQLITE_IOERR_READ": "StoreUnavailable",
        "SQLITE_CORRUPT": "StoreCorrupt",
        "SQLITE_CORRUPT_INDEX": "StoreCorrupt",
        "SQLITE_NOTADB": "StoreCorrupt",
        "SQLITE_CANTOPEN": "StoreUnavailable",
    }
    for name, code in codes.items():
        error = sqlite3.OperationalError("it broke")
        error.sqlite_errorcode, error.sqlite_errorname = code, name
        translated = translate(error, path)
        assert isinstance(translated, getattr(errors, expected.get(name, "StoreError"))), name


@pytest.mark.parametrize("kind", sorted(_subclasses(sqlite3.Error), key=repr))
def test_no_driver_error_leaves_any_method(path, kind):
    """A connection that always fails: every public method must say so in our words."""

    class Broken:
        in_transaction = False

        def execute(self, *args):
            raise kind("it broke")

        executemany = execute

        def close(self):
            pass

    store = SQLiteStore(path)
    store.add([photo("ann.jpg", face())], SPACE)
    store._file._disconnect()
    store._file._reader = store._file._writer = Broken()
    calls = [
        lambda: store.add([photo("bob.jpg", face("bob.jpg"))], SPACE),
        lambda: store.relabel([1], "Bob"),
        lambda: store.delete(Where()),
        lambda: store.get([1]),
        lambda: list(store.scan()),
        lambda: store.ids(),
        lambda: store.embeddings([1]),
        lambda: list(store.embedding_batches()),
        store.sequence,
        lambda: store.changes(0),
        lambda: store.known([digest("ann.jpg")]),
        store.people,
        store.count,
        store.check,
    ]
    for call in calls:
        with pytest.raises(StoreError):
            call()
    store.close()
    with SQLiteStore(path) as again:
        assert again.count() == 1


# -- deletion, down to the bytes --------------------------------------------------------------------------------------


def _unlike(chance, n):
    """A face each of whose values is found nowhere else."""
    name, label, note = (f"{chance.getrandbits(64):016x}" for _ in range(3))
    template = face(
        f"{name}.jpg",
        label + "y" * chance.randrange(70) if chance.random() < 0.9 else None,
        at=chance.uniform(0, 1000),
        metadata={"note": note * chance.choice([1, 1, 10, 10, 700])},  # the last reaches over several pages
        link=f"{name}/{'z' * chance.randrange(100)}.jpg",
    )
    return replace(template, embedding=unit(*(chance.uniform(-1, 1) for _ in range(4))))


def _traces(template):
    """Eight bytes of each of its values, none of which may be left."""
    values = {
        "embedding": template.embedding.tobytes(),
        "end of embedding": template.embedding.tobytes()[8:],
        "box": np.array(template.box, "<f8").tobytes(),
        "landmarks": template.landmarks.tobytes()[8:],
        "link": template.link.encode(),
        "content id": bytes.fromhex(template.content_id),
        "digest": bytes.fromhex(template.photo_digest),
        "metadata": template.metadata["note"].encode(),
        "label": (template.label or "").encode(),
    }
    return {value[:8]: name for name, value in values.items() if value}


def _found(content, traces):
    """Which of the traces occur anywhere in the content."""
    wanted = np.frombuffer(b"".join(traces), "<u8")
    seen = set()
    for offset in range(8):
        windows = np.frombuffer(content, "<u8", count=(len(content) - offset) // 8, offset=offset)
        seen |= {int(window) for window in windows[np.isin(windows, wanted)]}
    return sorted(traces[number.to_bytes(8, "little")] for number in seen)


@pytest.mark.parametrize("seed", range(2))
def test_nothing_of_a_deleted_face_is_in_the_files(path, seed, monkeypatch):
    """Random histories with page splits, compactions and renamed people; then a search for every deleted value."""
    monkeypatch.setattr(SQLiteStore, "_compact_from", 100)
    chance = random.Random(seed)
    present, traces, compactions, n = {}, {}, 0, 0
    for turn in range(12):
        with SQLiteStore(path) as store:
            faces = [_unlike(chance, n := n + 1) for _ in range(chance.randint(1, 120))]
            added = store.add([PhotoRecord(f.photo_digest, (f,)) for f in faces], SPACE)
            present.update((each[0].id, f) for each, f in zip(added, faces, strict=True))
            for number in chance.sample(sorted(present), min(len(present), 5)):
                old = present[number]
                traces |= {trace: what for trace, what in _traces(old).items() if what == "label"}
                present[number] = replace(old, label=f"{chance.getrandbits(64):016x}")
                store.relabel([number], present[number].label)
            many = len(present) * 4 // 5 if turn % 4 == 3 else chance.choice([1, 5, 60])
            leaving = chance.sample(sorted(present), min(len(present), many))
            before = _erased(store)
            gone = Where(photos=frozenset(present[number].photo_digest for number in leaving))
            assert store.delete(gone) == len(leaving)
            compactions += _erased(store) < before
            for number in leaving:
                traces |= _traces(present.pop(number))
            if chance.random() < 0.5:
                store.close()
            assert _found(_bytes_of(path), traces) == []
    with SQLiteStore(path) as store:
        assert store.check() == ()
        assert store.ids().tolist() == sorted(present)
        still = _traces(present[max(present)])
        assert _found(_bytes_of(path), still) == sorted(still.values())  # the search finds what is there
    assert compactions > 0


def _erased(store):
    with store._file.reading() as connection:
        return connection.execute("SELECT erased FROM state").fetchone()[0]


def _bytes_of(path):
    code = "import sys, glob; [sys.stdout.buffer.write(open(f, 'rb').read()) for f in glob.glob(sys.argv[1] + '*')]"
    return subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True).stdout


def test_space_of_deleted_faces_is_used_again(path, monkeypatch):
    monkeypatch.setattr(SQLiteStore, "_compact_from", 50)
    sizes = []
    with SQLiteStore(path) as store:
        for turn in range(8):
            faces = [face(f"{turn}-{n}.jpg", metadata={"text": "x" * 500}) for n in range(200)]
            store.add([PhotoRecord(f.photo_digest, (f,)) for f in faces], SPACE)
            assert store.delete(Where()) == 200
            sizes.append(path.stat().st_size)
        assert store.check() == ()
    assert sizes[-1] <= 1.2 * sizes[1]


def test_a_process_that_died_between_a_delete_and_its_scrub_leaves_that_to_the_next(path):
    code = (
        "import sys, os\nfrom facedex.stores.sqlite import SQLiteStore\nfrom facedex.testing.faces import *\n"
        "from facedex.types import Where\nstore = SQLiteStore(sys.argv[1])\n"
        "store.add([photo('ann.jpg', face(label='Ann Secret'))], SPACE)\n"
        "store._file.scrub = lambda: os._exit(0)\nstore.delete(Where())"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)
    assert b"Ann Secret" in _bytes_of(path)
    with SQLiteStore(path) as store:
        assert store.count() == 0
        assert b"Ann Secret" not in _bytes_of(path)


def test_the_digest_of_a_forgotten_photo_without_a_face_goes_too(path):
    secret = hashlib.sha256(b"sky").digest()
    with SQLiteStore(path) as store:
        store.add([PhotoRecord(secret.hex())], SPACE)
        store.delete(Where(photos=frozenset({secret.hex()})))
        assert secret not in _bytes_of(path)
