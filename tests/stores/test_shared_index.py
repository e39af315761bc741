"""An index built on one machine answers on another, and what was deleted is in no copy of it."""

import numpy as np
import pytest

from facedex.errors import IndexUnavailable
from facedex.search import reference
from facedex.search.projection import Projection
from facedex.stores.contract import PhotoRecord
from facedex.stores.registry import open_store
from facedex.testing.faces import SPACE, digest, face, unit
from facedex.types import Where

PROBES = np.stack([unit(1, 0, 0, 0), unit(1, 2, 3, 4)])


@pytest.fixture(params=["postgres_url", "mongodb_url"])
def store(request):
    with open_store(request.getfixturevalue(request.param)) as store:
        enroll(store, 300)
        yield store


def enroll(store, count, seed=0):
    random = np.random.default_rng(seed)
    faces = [face(f"{seed}-{n}.jpg", f"P{n % 3}", towards=random.normal(size=4)) for n in range(count)]
    store.add([PhotoRecord(f.photo_digest, (f,)) for f in faces], SPACE)


def answers_right(projection, store, mode="exact"):
    held = list(store.scan())
    rows = np.stack([h.template.embedding for h in held])
    expected = reference.search(rows, np.array([h.id for h in held], np.int64), PROBES, 5)
    found = projection.search(PROBES, 5, mode=mode)
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.fixture
def no_build(store, monkeypatch):
    """Loading everything from the store fails: only a saved index can answer."""

    def forbidden(*_, **__):
        raise AssertionError("the store was read from the beginning")

    return lambda: monkeypatch.setattr(type(store), "embedding_batches", forbidden)


@pytest.mark.parametrize("mode", ["exact", "ann"])
def test_another_machine_opens_what_one_has_built(store, no_build, tmp_path, mode):
    one = Projection(store, tmp_path / "one")
    saved = one.save() if mode == "exact" else one.approximate()
    assert (saved.rows, saved.behind) == (300, 0)
    assert saved.path.is_relative_to(tmp_path / "one")
    assert saved.path.parent.stat().st_mode & 0o777 == 0o700
    enroll(store, 20, seed=1)
    no_build()
    other = Projection(store, tmp_path / "two")
    assert other.saved() == []
    assert answers_right(other, store, mode)
    (copy,) = other.saved()
    assert copy.behind == 20
    assert answers_right(Projection(store, tmp_path / "two"), store, mode)


def test_a_deletion_reaches_the_store_and_every_copy(store, tmp_path):
    one, two = Projection(store, tmp_path / "one"), Projection(store, tmp_path / "two")
    mine = one.save().path
    assert answers_right(two, store)
    (copy,) = two.saved()
    assert store.kept_index("fdx") is not None
    with open_store(store.url) as elsewhere:  # as another process would, knowing nothing of an index
        assert elsewhere.delete(Where(labels=frozenset({"P1"}))) == 100
    assert store.kept_index("fdx") is None
    assert answers_right(one, store)
    assert answers_right(two, store)
    assert not mine.exists()
    assert not copy.path.exists()
    slept = Projection(store, tmp_path / "three")
    slept.save()
    store.delete(Where(photos=frozenset({digest("0-0.jpg")})))
    again = Projection(store, tmp_path / "three")
    assert answers_right(again, store)
    assert again.saved() == []


def test_a_deletion_while_the_index_is_kept_keeps_nothing(store, tmp_path, monkeypatch):
    real = type(store).keep_index

    def delete_first(self, name, sequence, parts):
        self.delete(Where(photos=frozenset({next(self.scan()).template.photo_digest})))
        return real(self, name, sequence, parts)

    monkeypatch.setattr(type(store), "keep_index", delete_first)
    with pytest.raises(IndexUnavailable, match="try again"):
        Projection(store, tmp_path).save()
    assert store.kept_index("fdx") is None
    monkeypatch.undo()
    assert Projection(store, tmp_path).save().rows == 297
    assert answers_right(Projection(store, tmp_path / "two"), store)


@pytest.mark.parametrize("kept", [b"", b"nonsense", b'[["../../x", 3]]\nabc', b'[["", 3]]\nabc'])
def test_a_kept_index_that_is_none_costs_time_not_answers(store, tmp_path, kept):
    assert store.keep_index("fdx", store.sequence(), [kept])
    assert answers_right(Projection(store, tmp_path / "cache"), store)
    assert list(tmp_path.rglob("x")) == []
