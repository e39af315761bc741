"""Searching goes on while others add and remove."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_exact import random_rows, same

from facedex.search import ExactIndex


def test_many_threads_search_one_index(kernel: str) -> None:
    rows = random_rows(1, 2000, 64)
    index = ExactIndex.build(rows, kernel=kernel)
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(same, index, rows, np.arange(2000), rows[i : i + 3], 5) for i in range(0, 60, 3)]:
            done.result()


def test_a_removed_face_is_never_found_again(kernel: str) -> None:
    """Each face is removed while others ask for it; who asks after ``remove`` returned must not see it."""
    rows = random_rows(2, 400, 64)
    index = ExactIndex.build(rows, kernel=kernel)
    gone: set[int] = set()
    stop = threading.Event()

    def ask() -> int:
        rng = np.random.default_rng()
        asked = 0
        while not stop.is_set():
            surely_gone = set(gone)
            who = int(rng.integers(0, 400))
            found = index.search(rows[who : who + 1], 3)[1]
            assert not surely_gone & set(found[0].tolist())
            asked += 1
        return asked

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        for i in range(0, 400, 2):
            assert index.remove([i]) == 1
            gone.add(i)
        stop.set()
        assert sum(a.result() for a in asking) > 0
    assert len(index) == 200


def test_searches_during_enrollment_see_a_prefix(kernel: str) -> None:
    """Rows appear in the order they were added, whole, and with their own similarity."""
    rows = random_rows(3, 3000, 48)
    index = ExactIndex(48, kernel)
    index.add(rows[:10])
    stop = threading.Event()

    def ask() -> None:
        probe = rows[5:6]
        all_scores = rows @ probe[0]
        while not stop.is_set():
            before = len(index)
            similarities, ids = index.search(probe, 4)
            after = len(index)
            assert ids[0, 0] == 5
            assert ids.max() < after
            np.testing.assert_allclose(similarities[0], all_scores[ids[0]], atol=1e-5)
            best_before = np.sort(all_scores[:before])[-4:].min()
            assert similarities[0, -1] >= best_before - 1e-5

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        for start in range(10, 3000, 13):
            index.add(rows[start : start + 13])
        stop.set()
        for a in asking:
            a.result()
    same(index, rows, np.arange(3000), rows[:3], 10)


def test_an_answer_given_during_a_removal_is_asked_again(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(4, 50, 16)
    index = ExactIndex.build(rows, kernel=kernel)
    scan = index._scan
    calls = []

    def slow(*arguments: object) -> object:
        answer = scan(*arguments)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 1:
            index.remove([7])
        return answer

    monkeypatch.setattr(index, "_scan", slow)
    assert 7 not in index.search(rows[7:8], 50)[1]
    assert len(calls) == 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_can_search() -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    rows = random_rows(5, 20_000, 64)
    index = ExactIndex.build(rows)
    index.search(rows[:100], 5, threads=2)
    child = os.fork()
    if child == 0:
        good = bool((index.search(rows[:100], 5, threads=2)[1][:, 0] == np.arange(100)).all())
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
