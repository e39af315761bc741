"""Calibration: genuine above 50, impostor below, and as right as it says on people it has not seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from crowd import crowd
from hypothesis import given, settings
from hypothesis import strategies as st

from facedex.decide.confidence import FEATURES, Bands, Calibration, calibrate, reliability
from facedex.decide.evaluation import all_pairs
from facedex.decide.trials import ListedPairs
from facedex.errors import ArgumentInvalid, TrialsTooFew

CROWD = all_pairs(*crowd())
GENUINE, IMPOSTOR = (np.concatenate(column) for column in zip(*CROWD.scores(), strict=True))


@pytest.mark.parametrize("feature", FEATURES)
def test_genuine_pairs_are_above_fifty_and_impostors_below_in_every_metric(feature: str) -> None:
    calibration = calibrate(CROWD, dataset="a crowd", date="2026-01-01", feature=feature)
    assert np.mean([calibration.confidence(s) > 50 for s in GENUINE]) > 0.95
    assert np.mean([calibration.confidence(s) < 50 for s in IMPOSTOR]) > 0.95


def test_metrics_that_are_one_line_give_one_confidence() -> None:
    by = {feature: calibrate(CROWD, dataset="", date="", feature=feature) for feature in FEATURES}
    for similarity in (-0.3, 0.2, 0.35, 0.6, 1.0):
        told = {feature: calibration.confidence(similarity) for feature, calibration in by.items()}
        assert told["cosine"] == pytest.approx(told["similarity"], abs=1e-6)
        assert told["euclidean"] == told["euclidean_l2"]


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("rescale_at", [None, 0.35])
@settings(deadline=None)
@given(a=st.floats(-1, 1), b=st.floats(-1, 1))
def test_confidence_never_falls_as_similarity_rises(feature: str, rescale_at: float | None, a: float, b: float) -> None:
    calibration = FITTED[feature, rescale_at]
    low, high = sorted((a, b))
    assert 0 <= calibration.confidence(low) <= calibration.confidence(high) + 1e-9 <= 100 + 1e-9


FITTED = {
    (feature, at): calibrate(CROWD, dataset="", date="", feature=feature, rescale_at=at)
    for feature in FEATURES
    for at in (None, 0.35)
}


def test_calibrated_confidence_matches_how_often_it_is_right() -> None:
    """Pairs that really follow a logistic curve: what is told and what happens agree."""
    rng = np.random.default_rng(0)
    similarities = rng.uniform(-0.2, 0.9, 40_000)
    same = rng.random(40_000) < 1 / (1 + np.exp(-(18 * similarities - 6.3)))
    nobody = np.zeros(40_000, np.int64)
    calibration = calibrate(ListedPairs(similarities, same, nobody, nobody, ["Ann", "Bob"]), dataset="", date="")
    prior = np.log(same.mean() / (1 - same.mean()))  # calibration takes both kinds as equally likely beforehand
    assert calibration.slope == pytest.approx(18, rel=0.05)
    assert calibration.intercept + prior == pytest.approx(-6.3, abs=0.3)


def test_rescaling_fills_51_to_100_and_0_to_49() -> None:
    bands = Bands(0.4, no_match=(1.0, 30.0), match=(40.0, 80.0))
    calibration = Calibration(10, -4, 0.1, 99.9, "", "", bands=bands)
    assert bands.rescaled(0.4, 40.0) == 51
    assert bands.rescaled(0.9, 80.0) == 100
    assert bands.rescaled(0.9, 60.0) == pytest.approx(75.5)
    assert bands.rescaled(0.3, 1.0) == 0
    assert bands.rescaled(0.3, 30.0) == 30  # a side never reaches further out than it did
    assert bands.rescaled(0.39, 99.0) == 30
    assert Bands(0.4, (1.0, 49.5), (60.0, 80.0)).rescaled(0.39, 49.5) == 49
    assert Bands(0.4, (1.0, 49.5), (60.0, 80.0)).rescaled(0.4, 60.0) == 60
    assert calibration.confidence(math.nextafter(0.4, 0)) <= 49 < 51 <= calibration.confidence(0.4)


def test_rescaled_decisions_are_at_least_51_and_at_most_49() -> None:
    calibration = FITTED["similarity", 0.35]
    told = {s: calibration.confidence(float(s)) for s in np.linspace(-1, 1, 401)}
    assert all(c >= 51 if s >= 0.35 else c <= 49 for s, c in told.items())
    with pytest.raises(ArgumentInvalid, match="nothing to rescale"):
        calibrate(CROWD, dataset="", date="", rescale_at=1.0)
    with pytest.raises(ArgumentInvalid, match="nothing to rescale"):
        calibrate(CROWD, dataset="", date="", rescale_at=-1.0)


def test_labels_the_wrong_way_round_give_no_confidence() -> None:
    upside_down = ListedPairs([0.1, 0.2, 0.8, 0.9], [True, True, False, False], [0, 1, 0, 1], [0, 1, 1, 0], ["a", "b"])
    for feature in FEATURES:
        with pytest.raises(ArgumentInvalid, match="Look at the labels"):
            calibrate(upside_down, dataset="", date="", feature=feature)
    with pytest.raises(ArgumentInvalid, match="no feature is called 'nose'"):
        calibrate(CROWD, dataset="", date="", feature="nose")


def test_perfectly_separated_pairs_do_not_become_certain() -> None:
    clean = all_pairs(*crowd(spread=0.1))
    calibration = calibrate(clean, dataset="", date="")
    assert math.isfinite(calibration.slope)
    assert calibration.confidence(1.0) == 100 * (1 - 1 / (clean.genuine_trials + 2))
    assert calibration.confidence(-1.0) > 0


def test_reliability_judges_people_the_calibration_has_not_seen() -> None:
    told = reliability(all_pairs(*crowd(60, 4, spread=1.0)))
    assert told.folds == 5
    assert told.ece < 10
    assert 0 < told.cllr < 0.6
    assert told.log_loss == pytest.approx(told.cllr * math.log(2))
    rising = [each.observed for each in told.bins if each.genuine + each.impostor > 100]
    assert rising[-1] > 90
    assert rising[0] < 10


def test_reliability_of_a_calibration_that_knows_nothing_is_one_bit() -> None:
    """Genuine and impostor pairs alike: the best to say is about 50 %, which costs a bit."""
    rng = np.random.default_rng(0)
    people = 40
    own = np.repeat(np.arange(people), 50)
    first = np.concatenate([own, own])
    second = np.concatenate([own, (own + 1 + np.arange(len(own)) % (people - 1)) % people])
    similarity = rng.uniform(0, 1, len(first)) + 0.02 * (first == second)
    told = reliability(
        ListedPairs(similarity, first == second, first, second, [str(n) for n in range(people)]), folds=2
    )
    assert told.cllr == pytest.approx(1, abs=0.05)
    assert all(40 <= each.told <= 60 for each in told.bins)


def test_too_few_people_cannot_be_split() -> None:
    few = all_pairs(*crowd(3, 3))
    with pytest.raises(TrialsTooFew, match="cannot be split"):
        reliability(few)
    assert reliability(all_pairs(*crowd(5, 2))).folds == 2
