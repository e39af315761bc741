"""Error rates, curves and their intervals, beside small cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from crowd import crowd, pairwise
from hypothesis import given, settings
from hypothesis import strategies as st

from facedex.decide.evaluation import (
    FMR_LEVELS,
    all_pairs,
    density,
    error_rates,
    operating_point,
    pair_accuracy,
    threshold_at_fmr,
)
from facedex.decide.trials import ListedPairs
from facedex.errors import ArgumentInvalid


def listed(genuine: list[float], impostor: list[float]) -> ListedPairs:
    """Each pair of people of its own."""
    count = len(genuine) + len(impostor)
    first = np.arange(count)
    second = np.where(first < len(genuine), first, first + count)
    return ListedPairs([*genuine, *impostor], first < len(genuine), first, second, [str(n) for n in range(2 * count)])


@pytest.mark.parametrize("fmr", [1e-1, 1e-2, 1e-3])
def test_the_threshold_for_an_error_rate_keeps_it_and_is_the_lowest_that_does(fmr: float) -> None:
    pairs = all_pairs(*crowd())
    threshold = threshold_at_fmr(pairs, fmr)
    assert error_rates(pairs, threshold)[0] <= fmr
    assert error_rates(pairs, threshold - 1e-5)[0] > fmr


def test_no_threshold_keeps_an_error_rate_where_two_names_share_a_picture() -> None:
    with pytest.raises(ArgumentInvalid, match="Look at the labels"):
        threshold_at_fmr(listed([0.9], [1.0, 1.0, 0.1]), 0.1)
    told = pair_accuracy(listed([0.9], [1.0] * 40), dataset="", date="", rounds=20)
    assert [at.point for at in told.at_fmr] == [None] * 5


def test_an_operating_point_reports_its_errors_with_intervals_around_them() -> None:
    pairs = all_pairs(*crowd())
    threshold = threshold_at_fmr(pairs, 0.02)
    measured = operating_point(pairs, threshold, dataset="a crowd", date="2026-01-01")
    assert (measured.fmr, measured.fnmr) == error_rates(pairs, threshold)
    assert measured.fmr_interval.low < measured.fmr < measured.fmr_interval.high
    assert (measured.identities, measured.genuine_trials, measured.impostor_trials) == (30, 180, 6960)


def test_no_error_in_n_trials_supports_about_three_in_n() -> None:
    pairs = all_pairs(*crowd())
    assert operating_point(pairs, 1.0, dataset="", date="").fmr_interval.high == pytest.approx(3 / 6960)


def test_the_curve_of_four_pairs_by_hand() -> None:
    """Genuine 0.9, 0.4; impostor 0.6, 0.1. Three of four comparisons of the two kinds are the right way round."""
    told = pair_accuracy(listed([0.9, 0.4], [0.6, 0.1]), [0.5], dataset="", date="", rounds=20)
    assert told.auc == 0.75
    assert told.eer == 0.5
    assert 0.4 <= told.eer_threshold <= 0.6
    assert (told.points[0].fmr, told.points[0].fnmr) == (0.5, 0.5)
    assert [at.needed for at in told.at_fmr] == [30, 300, 3000, 30_000, 300_000]
    assert [at.point for at in told.at_fmr] == [None] * 5


def test_ties_count_half_for_the_area() -> None:
    assert pair_accuracy(listed([0.5], [0.5]), dataset="", date="", rounds=20).auc == 0.5
    assert pair_accuracy(listed([0.9], [0.1]), dataset="", date="", rounds=20).auc == 1.0
    assert pair_accuracy(listed([0.1], [0.9]), dataset="", date="", rounds=20).auc == 0.0


def test_thresholds_are_told_for_the_rates_that_the_pairs_support() -> None:
    told = pair_accuracy(all_pairs(*crowd()), dataset="", date="", rounds=50)
    assert [at.fmr for at in told.at_fmr] == list(FMR_LEVELS)
    assert [at.point is None for at in told.at_fmr] == [False, False, False, True, True]  # 6,960 pairs
    for at in told.at_fmr:
        assert at.point is None or at.point.fmr <= at.fmr
    rising = [at.point.threshold for at in told.at_fmr if at.point is not None]
    assert rising == sorted(rising)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_area_and_equal_error_rate_are_those_of_the_plain_definition(seed: int) -> None:
    rows, labels = crowd(8, 3, seed, spread=1.2)
    genuine, impostor = pairwise(rows, labels)
    told = pair_accuracy(all_pairs(rows, labels), dataset="", date="", rounds=20)
    right = (genuine[:, None] > impostor[None, :]).mean() + (genuine[:, None] == impostor[None, :]).mean() / 2
    assert told.auc == pytest.approx(right, abs=1e-3)
    fmr, fnmr = (impostor >= told.eer_threshold).mean(), (genuine < told.eer_threshold).mean()
    assert told.eer == pytest.approx((fmr + fnmr) / 2)
    steps = np.concatenate([genuine, impostor])
    assert abs(fmr - fnmr) <= min(abs((impostor >= t).mean() - (genuine < t).mean()) for t in steps) + 1e-9


def test_curves_fall_and_rise_between_their_ends_with_intervals_around_them() -> None:
    rows, labels = crowd(spread=1.0)
    curve = pair_accuracy(all_pairs(rows, labels), dataset="", date="", rounds=200).curve
    assert (np.diff(curve.thresholds) > 0).all()
    assert (np.diff(curve.fmr) <= 0).all()
    assert (np.diff(curve.fnmr) >= 0).all()
    assert (curve.fmr[0], curve.fnmr[0], curve.fmr[-1]) == (1, 0, 0)
    middle = (curve.fmr > 0.01) & (curve.fmr < 0.5)
    assert (curve.fmr_low <= curve.fmr + 0.01)[middle].all()
    assert (curve.fmr_high >= curve.fmr - 0.01)[middle].all()


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Forty samples of people from one population: about 95 % of the intervals hold what thousands of people show."""
    truth = all_pairs(*crowd(600, 3, seed=99, spread=0.9))
    threshold = 0.35
    fmr, fnmr = error_rates(truth, threshold)
    held = np.zeros(2)
    for seed in range(40):
        told = operating_point(all_pairs(*crowd(40, 3, seed, spread=0.9)), threshold, dataset="", date="", rounds=300)
        held += [
            told.fmr_interval.low <= fmr <= told.fmr_interval.high,
            told.fnmr_interval.low <= fnmr <= told.fnmr_interval.high,
        ]
    assert (held >= 33).all(), held


def test_intervals_of_area_and_equal_error_rate_hold_their_values() -> None:
    told = pair_accuracy(all_pairs(*crowd(spread=1.0)), dataset="", date="", rounds=300)
    assert told.auc_interval.low < told.auc < told.auc_interval.high
    assert told.eer_interval.low < told.eer < told.eer_interval.high
    assert told.eer_interval.high - told.eer_interval.low < 0.1


def test_the_same_seed_gives_the_same_intervals() -> None:
    pairs = all_pairs(*crowd())
    one, other = (operating_point(pairs, 0.4, dataset="", date="", rounds=50, seed=3) for _ in range(2))
    assert one == other


def test_densities_integrate_to_one_and_peak_where_the_scores_are() -> None:
    told = density(all_pairs(*crowd()).tally)
    step = told.similarity[1] - told.similarity[0]
    assert told.genuine.sum() * step == pytest.approx(1, abs=0.02)
    assert told.impostor.sum() * step == pytest.approx(1, abs=0.02)
    assert told.similarity[told.genuine.argmax()] > told.similarity[told.impostor.argmax()] + 0.3
    assert math.isfinite(density(listed([0.5], [0.5]).tally).genuine.max())


def test_one_person_with_a_pair_among_singles_still_gets_an_interval() -> None:
    """Draws that leave the one genuine pair out do not count as draws without an error."""
    missed = ListedPairs([0.1, 0.2, 0.3], [True, False, False], [0, 0, 1], [0, 1, 2], ["Ann", "Bob", "Cy"])
    told = operating_point(missed, 0.5, dataset="", date="", rounds=200)
    assert (told.fnmr, told.fnmr_interval.low, told.fnmr_interval.high) == (1, 1, 1)
    assert math.isfinite(pair_accuracy(missed, [0.5], dataset="", date="", rounds=200).eer_interval.high)
