"""Operating points, bands, confidence, and the error rates they come from."""

from __future__ import annotations

import json
import math
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facedex.decide import Calibration, DecisionPolicy, Interval, OperatingPoint, policy_for
from facedex.decide.evaluation import (
    Pairs,
    all_pairs,
    calibrate,
    error_rates,
    leave_one_out,
    operating_point,
    threshold_at_fmr,
)
from facedex.decide.policy import policy_from_plain
from facedex.errors import ArgumentInvalid
from facedex.models.catalog import SFACE
from facedex.types import EmbeddingSpace, Verdict, to_plain

AXES = np.eye(4, dtype=np.float32)
ANN, BOB, CY = AXES[0], AXES[1], AXES[2]


def between(a: np.ndarray, b: np.ndarray, similarity: float) -> np.ndarray:
    return (similarity * a + math.sqrt(1 - similarity**2) * b).astype(np.float32)


def point(threshold: float, fmr: float = 1e-4) -> OperatingPoint:
    return OperatingPoint(
        threshold, fmr, Interval(0, 1e-3), 0.01, Interval(0, 0.02), "made up", 10, 100, 1000, "2026-01-01"
    )


POLICY = DecisionPolicy(point(0.4), point(0.3), Calibration(20, -7, 0.1, 99.9, "made up", "2026-01-01"))


def test_the_three_bands_include_their_lower_edge() -> None:
    assert [POLICY.verdict(s) for s in (0.4, math.nextafter(0.4, 0), 0.3, math.nextafter(0.3, 0))] == [
        Verdict.MATCH, Verdict.REVIEW, Verdict.REVIEW, Verdict.NO_MATCH,
    ]  # fmt: skip


def test_thresholds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ArgumentInvalid, match="review ≤ match"):
        DecisionPolicy(point(0.3), point(0.4), POLICY.calibration)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_confidence_rises_with_similarity_and_stays_a_percentage(a: float, b: float) -> None:
    low, high = sorted((POLICY.confidence(a), POLICY.confidence(b)))
    assert 0 <= low <= high <= 100
    assert (POLICY.confidence(a) <= POLICY.confidence(b)) == (a <= b) or low == high


def test_a_space_nobody_measured_has_no_threshold() -> None:
    with pytest.raises(ArgumentInvalid, match="no operating point"):
        policy_for(EmbeddingSpace("other", "1", "0" * 64, 128, "none"))


def test_the_default_model_ships_measured_operating_points() -> None:
    policy = policy_for(SFACE.space)
    for each in (policy.match, policy.review):
        assert each.dataset
        assert each.date
        assert each.impostor_trials > 10_000
        assert each.fmr_interval.low <= each.fmr <= each.fmr_interval.high
        assert each.fnmr_interval.low <= each.fnmr <= each.fnmr_interval.high
    assert policy.match.fmr <= 1e-4 < policy.review.fmr <= 1e-3
    assert policy.confidence(policy.match.threshold) > 50


def test_shipped_numbers_survive_the_way_through_json() -> None:
    text = resources.files("facedex.decide").joinpath("operating_points.json").read_text("utf-8")
    for plain in json.loads(text).values():
        del plain["space"]
        assert to_plain(policy_from_plain(plain)) == plain


def test_a_bigger_gallery_expects_more_false_alarms() -> None:
    assert point(0.4).fpir(1) == pytest.approx(1e-4)
    assert point(0.4).fpir(1_000_000) == pytest.approx(1, abs=1e-6)


def test_pairs_are_counted_once_and_split_by_person() -> None:
    rows = np.stack([ANN, between(ANN, CY, 0.8), BOB])
    pairs = all_pairs(rows, ["Ann", "Ann", "Bob"])
    assert pairs.genuine == pytest.approx([0.8])
    assert pairs.impostor == pytest.approx([0, 0])
    assert (pairs.identities, pairs.genuine_of.tolist(), pairs.impostor_of.tolist()) == (2, [0], [[0, 1], [0, 1]])


def test_error_rates_need_both_kinds_of_pairs() -> None:
    with pytest.raises(ArgumentInvalid, match="genuine and impostor"):
        all_pairs(np.stack([ANN, BOB]), ["Ann", "Bob"])
    with pytest.raises(ArgumentInvalid, match="genuine and impostor"):
        all_pairs(np.stack([ANN, ANN]), ["Ann", "Ann"])


def crowd(people: int = 30, photos: int = 4, seed: int = 1) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, 24))
    rows = np.repeat(centres, photos, axis=0) + 0.6 * rng.normal(size=(people * photos, 24))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), [f"person {n // photos}" for n in range(people * photos)]


@pytest.mark.parametrize("fmr", [1e-1, 1e-2, 1e-3])
def test_the_threshold_for_an_error_rate_keeps_it_and_is_the_lowest_that_does(fmr: float) -> None:
    pairs = all_pairs(*crowd())
    threshold = threshold_at_fmr(pairs, fmr)
    assert error_rates(pairs, threshold)[0] <= fmr
    assert error_rates(pairs, math.nextafter(threshold, -1))[0] > fmr


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


def test_calibration_puts_genuine_pairs_above_fifty_and_impostors_below() -> None:
    pairs = all_pairs(*crowd())
    calibration = calibrate(pairs, dataset="a crowd", date="2026-01-01")
    assert np.mean([calibration.confidence(s) > 50 for s in pairs.genuine]) > 0.95
    assert np.mean([calibration.confidence(s) < 50 for s in pairs.impostor]) > 0.95


def test_calibrated_confidence_matches_how_often_it_is_right() -> None:
    """Pairs that really follow a logistic curve: what is told and what happens agree."""
    rng = np.random.default_rng(0)
    similarities = rng.uniform(-0.2, 0.9, 40_000)
    same = rng.random(40_000) < 1 / (1 + np.exp(-(18 * similarities - 6.3)))
    nobody = np.zeros(0, np.intp)
    pairs = Pairs(similarities[same], similarities[~same], nobody, nobody.reshape(0, 2), 2)
    calibration = calibrate(pairs, dataset="", date="")
    prior = np.log(same.mean() / (1 - same.mean()))  # calibration takes both kinds as equally likely beforehand
    assert calibration.slope == pytest.approx(18, rel=0.05)
    assert calibration.intercept + prior == pytest.approx(-6.3, abs=0.3)


def test_leave_one_out_never_finds_the_probe_itself() -> None:
    rows = np.stack([ANN, between(ANN, CY, 0.9), BOB, between(BOB, CY, 0.9)])
    told = leave_one_out(rows, ["Ann", "Ann", "Bob", "Cy"])
    assert (told.probes, told.rank_1, told.mistakes) == (2, 1.0, ())
