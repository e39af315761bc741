"""The exact index answers as the float64 reference does, whatever is thrown at it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facedex.errors import ArgumentInvalid, DimensionMismatch, EmbeddingInvalid
from facedex.search import ExactIndex, reference


def unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def faces(count: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, dimension)))


def same_answer(index: ExactIndex, probes: np.ndarray, rows: np.ndarray, ids: np.ndarray, k: int) -> None:
    expected_similarities, expected_ids = reference.search(probes, rows, ids, k)
    similarities, found = index.search(probes, k)
    np.testing.assert_array_equal(found, expected_ids)
    np.testing.assert_array_equal(similarities, expected_similarities)


def test_the_same_face_scores_one_and_comes_first() -> None:
    rows = faces(50)
    similarities, ids = ExactIndex.build(rows).search(rows[17:18], k=3)
    assert ids[0, 0] == 17
    assert similarities[0, 0] == pytest.approx(1, abs=1e-6)
    assert list(similarities[0]) == sorted(similarities[0], reverse=True)


@settings(deadline=None, max_examples=150)
@given(
    count=st.integers(1, 60),
    dimension=st.sampled_from([2, 3, 16, 128]),
    k=st.integers(1, 70),
    copies=st.integers(1, 5),
    noise=st.sampled_from([0.0, 1e-8, 1e-7, 1e-6, 1.0]),
    seed=st.integers(0, 1000),
)
def test_near_ties_and_duplicates_rank_as_in_the_reference(
    count: int, dimension: int, k: int, copies: int, noise: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=dimension)
    distinct = unit(centre + noise * rng.normal(size=(count, dimension)))
    rows = np.concatenate([distinct] * copies)
    ids = rng.permutation(len(rows)).astype(np.int64) * 7
    same_answer(ExactIndex.build(rows, ids), distinct[:3], rows, ids, k)


def test_a_thousand_faces_a_rounding_error_apart_rank_as_in_the_reference() -> None:
    rng = np.random.default_rng(3)
    rows = unit(np.ones(128) + 1e-7 * rng.normal(size=(1000, 128)))
    ids = np.arange(1000, dtype=np.int64)[::-1].copy()
    same_answer(ExactIndex.build(rows, ids), rows[:2], rows, ids, 10)


def test_where_fewer_than_k_are_enrolled_the_rest_is_marked_empty() -> None:
    similarities, ids = ExactIndex.build(faces(2)).search(faces(1), k=4)
    assert list(ids[0, 2:]) == [-1, -1]
    assert list(similarities[0, 2:]) == [-np.inf, -np.inf]


def test_an_empty_index_answers_with_nobody() -> None:
    similarities, ids = ExactIndex(16).search(faces(2), k=1)
    assert ids.tolist() == [[-1], [-1]]
    assert np.isneginf(similarities).all()


def test_a_filter_gives_the_best_among_those_that_pass() -> None:
    rows = faces(40)
    ids = np.arange(40, dtype=np.int64)
    allowed = np.array([3, 9, 27], np.int64)
    _, found = ExactIndex.build(rows, ids).search(rows[:5], k=3, where=allowed)
    _, expected = reference.search(rows[:5], rows[allowed], allowed, 3)
    np.testing.assert_array_equal(found, expected)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["add", "remove"]), st.integers(0, 30)), max_size=60))
def test_added_faces_are_found_and_removed_ones_never_again(steps: list[tuple[str, int]]) -> None:
    pool, index, there = faces(31), ExactIndex(16), set[int]()
    for step, id in steps:
        if step == "add" and id not in there:
            index.add(pool[id : id + 1], np.array([id], np.int64))
            there.add(id)
        elif step == "remove":
            index.remove(np.array([id], np.int64))
            there.discard(id)
    ids = np.array(sorted(there), np.int64)
    assert len(index) == len(ids)
    assert index.contains(np.arange(31, dtype=np.int64)).tolist() == [id in there for id in range(31)]
    same_answer(index, pool[:3], pool[ids], ids, 5)


def test_a_search_leaves_its_probe_and_the_gallery_untouched() -> None:
    rows, probes = faces(20), faces(2, seed=9)
    before = rows.copy(), probes.copy()
    index = ExactIndex.build(rows)
    index.search(probes, k=5)
    rows[:] = 0
    np.testing.assert_array_equal(probes, before[1])
    same_answer(index, probes, before[0], np.arange(20, dtype=np.int64), 5)


def test_searches_go_on_while_others_enroll_and_delete() -> None:
    index, stop, broken = ExactIndex.build(faces(100)), threading.Event(), list[BaseException]()

    def search() -> None:
        try:
            while not stop.is_set():
                _, ids = index.search(faces(2, seed=5), k=5)
                assert (ids >= 0).all()
        except BaseException as error:
            broken.append(error)

    readers = [threading.Thread(target=search) for _ in range(3)]
    for reader in readers:
        reader.start()
    for start in range(100, 1100, 50):
        index.add(faces(50, seed=start), np.arange(start, start + 50, dtype=np.int64))
        index.remove(np.arange(start - 100, start - 60, dtype=np.int64))
    stop.set()
    for reader in readers:
        reader.join()
    assert broken == []


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (np.zeros((2, 16), np.float64), EmbeddingInvalid),
        (np.zeros(16, np.float32), EmbeddingInvalid),
        (np.zeros((1, 16), np.float32), EmbeddingInvalid),
        (np.full((1, 16), np.nan, np.float32), EmbeddingInvalid),
        (faces(1, dimension=17), DimensionMismatch),
    ],
    ids=["float64", "one row", "zeros", "NaN", "another dimension"],
)
def test_wrong_embeddings_are_refused_and_change_nothing(rows: np.ndarray, error: type[Exception]) -> None:
    index = ExactIndex.build(faces(3))
    with pytest.raises(error):
        index.add(rows, np.arange(10, 10 + len(rows), dtype=np.int64))
    with pytest.raises(error):
        index.search(rows, k=1)
    assert len(index) == 3


@pytest.mark.parametrize("ids", [[0, 1], [7, 7], [-2, 5]], ids=["there already", "twice", "negative"])
def test_ids_that_are_not_new_distinct_and_positive_are_refused(ids: list[int]) -> None:
    index = ExactIndex.build(faces(3))
    with pytest.raises(ArgumentInvalid):
        index.add(faces(2, seed=1), np.array(ids, np.int64))
    assert len(index) == 3


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ArgumentInvalid):
        ExactIndex.build(faces(3)).search(faces(1), k=0)
