"""Ranks, strangers and galleries of several sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from crowd import crowd
from hypothesis import given, settings
from hypothesis import strategies as st

from facedex.decide import identification
from facedex.decide.identification import gallery_sizes, leave_one_out, open_set
from facedex.errors import ArgumentInvalid

AXES = np.eye(4, dtype=np.float32)
ANN, BOB, CY = AXES[0], AXES[1], AXES[2]


def between(a: np.ndarray, b: np.ndarray, similarity: float) -> np.ndarray:
    return (similarity * a + math.sqrt(1 - similarity**2) * b).astype(np.float32)


def test_leave_one_out_never_finds_the_probe_itself() -> None:
    rows = np.stack([ANN, between(ANN, CY, 0.9), BOB, between(BOB, CY, 0.9)])
    told = leave_one_out(rows, ["Ann", "Ann", "Bob", "Cy"])
    assert (told.probes, told.rank_1, told.mistakes) == (2, 1.0, ())


def test_the_rank_is_counted_in_people_and_ties_count_against_us() -> None:
    """Ann's second photo looks more like both of Bob's, and Cy's twin photo ties with Cy's own."""
    rows = np.stack([ANN, between(BOB, ANN, 0.8), BOB, between(BOB, AXES[3], 0.99), CY, CY, CY])
    told = leave_one_out(rows, ["Ann", "Ann", "Bob", "Bob", "Cy", "Cy", "Cy's twin"])
    # Ann 1 → Ann 2 (0.6) first. Ann 2 → Bob (0.8) before Ann 1 (0.6): rank 2. Both Bobs first. Both Cys tie: rank 2.
    assert told.probes == 6
    assert told.mistakes == (1, 4, 5)
    assert told.cmc == pytest.approx((0.5, 1.0, 1.0, 1.0))


@settings(deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 50, 4_000_000]))
def test_ranks_are_those_of_plain_sorting(seed: int, at_once: int) -> None:
    rows, labels = crowd(6, 3, seed, spread=1.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identification, "_SCORES_AT_ONCE", at_once)
        told = leave_one_out(rows, labels)
    wrong = []
    for probe in range(len(rows)):
        scores = rows.astype(np.float64) @ rows[probe].astype(np.float64)
        scores[probe] = -9
        wrong += [probe] if labels[int(scores.argmax())] != labels[probe] else []
    assert told.mistakes == tuple(wrong)
    assert told.rank_1 == pytest.approx(1 - len(wrong) / len(rows))
    assert list(told.cmc) == sorted(told.cmc)
    assert told.cmc[-1] == 1


def test_gallery_sizes_leave_somebody_out() -> None:
    assert gallery_sizes(40) == (1, 2, 5, 10, 20)
    assert gallery_sizes(2) == (1,)
    assert gallery_sizes(5000)[-1] == 2000
    for people in range(2, 300):
        assert all(1 <= size < people for size in gallery_sizes(people))


def test_strangers_and_mates_of_a_clean_crowd() -> None:
    rows, labels = crowd(20, 3, spread=0.1)
    told = open_set(rows, labels, [0.7, -1.0, 1.1], sizes=[5], draws=4, fmrs=[0.0, 1.0, 0.0])
    right, everything, nothing = told
    assert (right.fpir, right.fnir, right.people, right.draws) == (0, 0, 5, 4)
    assert (right.mated, right.strangers) == (4 * 5 * 2, 4 * 15 * 3)
    assert (everything.fpir, everything.fnir, everything.expected_fpir) == (1, 0, 1)
    assert (nothing.fpir, nothing.fnir) == (0, 1)


def test_more_people_enrolled_more_strangers_match() -> None:
    rows, labels = crowd(100, 2, spread=1.0)
    told = open_set(rows, labels, [0.5], sizes=[1, 10, 50], draws=20)
    rates = [each.fpir for each in told]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1]
    for each in told:
        assert each.fpir_range.low <= each.fpir <= each.fpir_range.high


def test_a_mate_behind_somebody_else_is_missed() -> None:
    """Ann's probe is above the threshold, and Bob is still more alike."""
    rows = np.stack([ANN, between(BOB, ANN, 0.8), BOB, CY, AXES[3]])
    told = open_set(rows, ["Ann", "Ann", "Bob", "Cy", "Dee"], [0.1], sizes=[3], draws=60)
    assert told[0].fnir > 0


def test_a_gallery_of_everybody_has_no_strangers() -> None:
    with pytest.raises(ArgumentInvalid, match="nobody to be a stranger"):
        open_set(*crowd(5, 2), [0.5], sizes=[5])
