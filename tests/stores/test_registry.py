import importlib.metadata
import os
from pathlib import Path

import pytest

from facedex.errors import ArgumentInvalid, StoreDriverMissing, StoreUnavailable, StoreUnknown
from facedex.stores import registry
from facedex.stores.memory import MemoryStore
from facedex.stores.registry import ADAPTERS, Adapter, mask, open_store, schemes
from facedex.stores.sqlite import SQLiteStore


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["faces.db", "sqlite:///faces.db", "SQLite:///faces.db", Path("faces.db"), "./faces.db"]
)
def test_a_relative_path_is_a_file_here(here, name):
    with open_store(name) as store:
        assert isinstance(store, SQLiteStore)
        assert store.path == here / "faces.db"
        assert store.url == f"sqlite:///{here.as_posix()}/faces.db"


def test_an_absolute_path_is_that_file(tmp_path):
    for name in (str(tmp_path / "a.db"), tmp_path / "a.db", f"sqlite:////{str(tmp_path)[1:]}/a.db"):
        with open_store(name) as store:
            assert store.path == tmp_path / "a.db"


@pytest.mark.parametrize(
    "name", ["with space.db", "50%.db", "what?.db", "a#b.db", "naïve&x=1.db", "C:\\faces.db", "C:/faces.db"]
)
def test_odd_names_are_just_names(here, name):
    if "/" in name:
        (here / "C:").mkdir()
    with open_store(name) as store:
        assert os.path.exists(name)
        with open_store(store.url, create=False) as again:
            assert again.path == store.path


def test_each_gallery_in_memory_is_a_new_one():
    with open_store("memory://") as one, open_store("memory://") as two:
        assert isinstance(one, MemoryStore)
        assert one is not two


def test_an_unknown_scheme_lists_the_known_ones():
    with pytest.raises(StoreUnknown, match=r"memory://, .*sqlite://") as caught:
        open_store("carrierpigeon://user:secret@coop/faces")
    assert "secret" not in str(caught.value)
    assert caught.value.scheme == "carrierpigeon"
    assert {"memory", "sqlite"} <= set(caught.value.known)


def test_without_create_a_missing_gallery_is_not_made(here):
    for name in ("faces.db", "sqlite:///faces.db", Path("faces.db")):
        with pytest.raises(StoreUnavailable, match="does not exist"):
            open_store(name, create=False)
    assert os.listdir(here) == []


@pytest.mark.parametrize(
    "name", ["", "a\0b", 7, None, "sqlite://", "sqlite:///", "sqlite://host/faces.db", "sqlite:///:memory:"]
)
def test_what_names_no_gallery_is_refused(here, name):
    with pytest.raises(ArgumentInvalid):
        open_store(name)
    assert os.listdir(here) == []


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://ann:s3cret@db:5432/faces", "postgresql://ann:***@db:5432/faces"),
        ("postgresql://ann:p@ss/w:rd@db/faces?sslmode=require", "postgresql://ann:***@db/faces?sslmode=require"),
        ("postgresql://db/faces?user=ann&password=s3cret&x=1", "postgresql://db/faces?user=ann&password=***&x=1"),
        ("qdrant://host:6333/faces?api_key=s3cret", "qdrant://host:6333/faces?api_key=***"),
        ("milvus://host?TOKEN=root:s3cret", "milvus://host?TOKEN=***"),
        ("mongodb+srv://:s3cret@host", "mongodb+srv://:***@host"),
        ("mongodb://ann@host/faces", "mongodb://ann@host/faces"),
        ("/srv/a:b@c.db", "/srv/a:b@c.db"),
        ("sqlite:////srv/a:b@c.db", "sqlite:////srv/a:b@c.db"),
        ("memory://", "memory://"),
    ],
)
def test_passwords_and_keys_are_masked(url, masked):
    assert mask(url) == masked
    assert "s3cret" not in mask(url)


def test_a_missing_driver_says_how_to_install_it(monkeypatch):
    adapter = Adapter("facedex_no_such_module", "Store", "pip install 'facedex[postgres]'")
    monkeypatch.setattr(registry, "ADAPTERS", {**registry.ADAPTERS, "postgresql": adapter})
    with pytest.raises(StoreDriverMissing, match=r"pip install 'facedex\[postgres\]'"):
        open_store("postgresql://db/faces")


def _entry_points(monkeypatch, **values):
    def find(*, group, name=None):
        assert group == "facedex.stores"
        return importlib.metadata.EntryPoints(
            importlib.metadata.EntryPoint(key, value, group) for key, value in values.items() if name in (None, key)
        )

    monkeypatch.setattr(importlib.metadata, "entry_points", find)


def test_other_peoples_adapters_join_by_an_entry_point(monkeypatch):
    _entry_points(monkeypatch, mine="facedex.stores.memory:MemoryStore", sqlite="no_such_module:Store")
    assert schemes() == tuple(sorted({*ADAPTERS, "mine"}))
    with open_store("mine://") as store:
        assert isinstance(store, MemoryStore)


def test_an_entry_point_that_is_no_store_is_refused(monkeypatch):
    _entry_points(monkeypatch, odd="os.path:join", gone="no_such_module:Store")
    with pytest.raises(StoreUnknown, match="expected a subclass"):
        open_store("odd://x")
    with pytest.raises(StoreDriverMissing):
        open_store("gone://x")
