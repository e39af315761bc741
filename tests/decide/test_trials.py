"""Pairs are compared in blocks, counted on a grid, and lose nothing by it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from crowd import crowd, pairwise
from hypothesis import given, settings
from hypothesis import strategies as st

from facedex.decide import trials
from facedex.decide.evaluation import all_pairs
from facedex.decide.trials import GRID, ListedPairs, Tally
from facedex.errors import ArgumentInvalid, EmbeddingInvalid, TrialsTooFew

AXES = np.eye(4, dtype=np.float32)
ANN, BOB, CY = AXES[0], AXES[1], AXES[2]


def between(a: np.ndarray, b: np.ndarray, similarity: float) -> np.ndarray:
    return (similarity * a + math.sqrt(1 - similarity**2) * b).astype(np.float32)


def test_pairs_are_counted_once_and_split_by_person() -> None:
    pairs = all_pairs(np.stack([ANN, between(ANN, CY, 0.8), BOB]), ["Ann", "Ann", "Bob"])
    ((genuine, impostor),) = pairs.scores()
    assert genuine == pytest.approx([0.8])
    assert impostor == pytest.approx([0, 0])
    assert (pairs.people, pairs.genuine_trials, pairs.impostor_trials) == (("Ann", "Bob"), 1, 2)


def test_error_rates_need_both_kinds_of_pairs() -> None:
    for rows, names in (([ANN, BOB], ["Ann", "Bob"]), ([ANN, ANN], ["Ann", "Ann"]), ([ANN], ["Ann"])):
        with pytest.raises(TrialsTooFew, match="genuine and impostor"):
            all_pairs(np.stack(rows), names)
    with pytest.raises(TrialsTooFew):
        all_pairs(np.empty((0, 4), np.float32), [])
    with pytest.raises(TrialsTooFew):
        ListedPairs([0.5], [True], [0], [0], ["Ann"])


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ArgumentInvalid, match="as many labels"):
        all_pairs(np.stack([ANN, BOB]), ["Ann"])
    with pytest.raises(EmbeddingInvalid):
        all_pairs(np.stack([ANN * np.nan, ANN, BOB]), ["Ann", "Ann", "Bob"])
    with pytest.raises(EmbeddingInvalid):
        ListedPairs([math.nan, 0.1], [True, False], [0, 0], [0, 1], ["Ann", "Bob"])


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50))
def test_the_tally_counts_exactly_what_reaches_each_threshold(scores: list[float]) -> None:
    counts = trials._counted(np.array(scores))
    at_or_above = np.cumsum(counts[::-1])[::-1]
    for place in {0, 50_000, 100_000, 141_900, 200_000, *np.searchsorted(GRID, scores).clip(0, 200_000).tolist()}:
        assert at_or_above[place] == sum(score >= GRID[place] for score in scores)


def test_scores_on_a_threshold_of_the_grid_reach_it() -> None:
    counts = trials._counted(GRID)
    assert (counts == 1).all()
    assert trials._counted(np.nextafter(GRID[1:], -2)).tolist() == [1] * 200_000 + [0]
    assert trials._counted(np.array([1.0000001, -1.0000001])).nonzero()[0].tolist() == [0, 200_000]


@pytest.mark.parametrize("at_once", [1, 500, 4_000_000])
def test_blocks_of_any_size_say_the_same(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = crowd(12, 3)
    monkeypatch.setattr(trials, "_SCORES_AT_ONCE", at_once)
    genuine, impostor = pairwise(rows, labels)
    pairs = all_pairs(rows, labels)
    told = [np.concatenate(column) for column in zip(*pairs.scores(), strict=True)]
    assert np.sort(told[0]) == pytest.approx(np.sort(genuine))
    assert np.sort(told[1]) == pytest.approx(np.sort(impostor))
    low, high = pairs.worst(5)
    assert [p.similarity for p in low] == pytest.approx(np.sort(genuine)[:5])
    assert [p.similarity for p in high] == pytest.approx(np.sort(impostor)[::-1][:5])
    for pair in low + high:
        assert float(rows[pair.first] @ rows[pair.second]) == pytest.approx(pair.similarity, abs=1e-6)
        assert (labels[pair.first] == labels[pair.second]) == (pair in low)
    fmr, fnmr = pairs.error_rates([0.2, 0.5])
    assert fmr == pytest.approx([(impostor >= t).mean() for t in (0.2, 0.5)])
    assert fnmr == pytest.approx([(genuine < t).mean() for t in (0.2, 0.5)])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 7), st.sampled_from([1, 7, 4_000_000]))
def test_resampling_counts_a_pair_as_often_as_its_people(seed: int, people: int, at_once: int) -> None:
    """Against all pairs listed one by one: another way to the same number."""
    rng = np.random.default_rng(seed)
    rows, _ = crowd(people, 3, seed)
    labels = [f"p{rng.integers(people)}" for _ in rows] + ["a", "a", "b"]
    rows = np.concatenate([rows, rows[:3]])
    whole, monkey = all_pairs(rows, labels), pytest.MonkeyPatch()
    number = {name: place for place, name in enumerate(whole.people)}
    a, b = np.triu_indices(len(rows), 1)
    who = np.array([number[name] for name in labels])
    listed = ListedPairs(
        (rows.astype(float) @ rows.T.astype(float))[a, b], who[a] == who[b], who[a], who[b], whole.people
    )
    draws = rng.multinomial(len(number), np.full(len(number), 1 / len(number)), size=9).astype(float)
    thresholds = np.array([0.5, -1.0, 0.1, 0.9])
    with monkey.context() as patch:
        patch.setattr(trials, "_SCORES_AT_ONCE", at_once)
        for one, other in zip(whole.resampled(thresholds, draws), listed.resampled(thresholds, draws), strict=True):
            assert one == pytest.approx(other, abs=1e-6, nan_ok=True)
    everyone_once = np.ones((1, len(number)))
    for one, other in zip(whole.resampled(thresholds, everyone_once), whole.error_rates(thresholds), strict=True):
        assert one[0] == pytest.approx(other)


@settings(deadline=None)
@given(st.integers(0, 100))
def test_the_order_of_photos_and_the_names_of_people_do_not_matter(seed: int) -> None:
    rows, labels = crowd(6, 3)
    order = np.random.default_rng(seed).permutation(len(rows))
    shuffled = all_pairs(rows[order], [f"renamed {labels[place]}" for place in order])
    assert (shuffled.tally.genuine == all_pairs(rows, labels).tally.genuine).all()
    assert (shuffled.tally.impostor == all_pairs(rows, labels).tally.impostor).all()


def test_a_subset_holds_the_pairs_of_its_people_only() -> None:
    rows, labels = crowd(6, 3)
    part = all_pairs(rows, labels).subset([0, 5])
    kept = [n for n, label in enumerate(labels) if label in ("person 0", "person 5")]
    genuine, impostor = pairwise(rows[kept], [labels[n] for n in kept])
    assert np.sort(next(part.scores())[0]) == pytest.approx(np.sort(genuine))
    assert (part.genuine_trials, part.impostor_trials) == (len(genuine), len(impostor))


def test_listed_pairs_split_and_keep_the_names_of_their_faces() -> None:
    listed = ListedPairs(
        [0.9, 0.2, 0.4, 0.1], [True, True, False, False], [0, 1, 0, 1], [0, 1, 1, 2], ["Ann", "Bob", "Cy"],
        [[0, 1], [2, 3], [0, 2], [2, 4]],
    )  # fmt: skip
    low, high = listed.worst(1)
    assert (low[0].similarity, low[0].first, low[0].second) == (0.2, 2, 3)
    assert (high[0].similarity, high[0].first, high[0].second) == (0.4, 0, 2)
    part = listed.subset([0, 1])
    assert (part.genuine_trials, part.impostor_trials, part.people) == (2, 1, ("Ann", "Bob"))
    with pytest.raises(TrialsTooFew):
        listed.subset([0])


def test_a_tally_turns_into_rates() -> None:
    genuine, impostor = np.zeros(len(GRID), np.int64), np.zeros(len(GRID), np.int64)
    genuine[[150_000, 180_000]] = 1  # similarities 0.5 and 0.8
    impostor[[100_000, 150_000]] = 1  # 0.0 and 0.5
    tally = Tally(genuine, impostor)
    assert [tally.fmr[k] for k in (0, 100_000, 100_001, 150_000, 150_001)] == [1, 1, 0.5, 0.5, 0]
    assert [tally.fnmr[k] for k in (0, 150_000, 150_001, 180_000, 180_001)] == [0, 0, 0.5, 0.5, 1]


def test_a_draw_without_a_genuine_pair_says_nothing_rather_than_no_error() -> None:
    rows, labels = crowd(3, 2)
    pairs = all_pairs(rows[:4], [*labels[:2], "single 1", "single 2"])
    fmr, fnmr = pairs.resampled(np.array([0.5]), np.array([[0.0, 1.0, 1.0], [2.0, 0.0, 0.0]]))
    assert np.isnan(fnmr).tolist() == [[True], [False]]
    assert np.isnan(fmr).tolist() == [[False], [True]]
