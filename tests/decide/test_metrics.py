"""Distances, and the exact ways between them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facedex.decide.metrics import METRICS, convert, distance, from_similarity, similarity, to_similarity
from facedex.errors import ArgumentInvalid, DimensionMismatch, EmbeddingInvalid

ANN, BOB = [3.0, 4.0], [4.0, 3.0]  # norm 5, cosine 24/25
CONVERTIBLE = ("cosine", "euclidean_l2", "angular")
HIGHEST = {"cosine": 2.0, "euclidean_l2": 2.0, "angular": 1.0}


def test_the_four_distances_of_two_short_vectors() -> None:
    told = {metric: float(distance(ANN, BOB, metric)) for metric in METRICS}
    assert told == pytest.approx(
        {
            "cosine": 1 - 24 / 25,
            "euclidean": math.sqrt(2),
            "euclidean_l2": math.sqrt(2) / 5,
            "angular": math.acos(24 / 25) / math.pi,
        }
    )
    assert similarity(ANN, BOB) == pytest.approx(24 / 25)


def test_opposite_and_equal_vectors_are_the_ends_of_each_metric() -> None:
    assert [float(distance([1, 0], [-1, 0], metric)) for metric in METRICS] == pytest.approx([2, 2, 2, 1])
    assert [float(distance([1, 2], [1, 2], metric)) for metric in METRICS] == [0, 0, 0, 0]


def test_lengths_matter_to_euclidean_alone() -> None:
    longer = [30.0, 40.0]
    same = [m for m in METRICS if distance(longer, BOB, m) == pytest.approx(float(distance(ANN, BOB, m)))]
    assert same == ["cosine", "euclidean_l2", "angular"]


def test_nearly_equal_vectors_keep_their_digits() -> None:
    """1 − cosine in float64 knows nothing below 1e-16; the angle here is 1e-9 of a radian."""
    assert distance([1.0, 0.0], [1.0, 1e-9], "angular") == pytest.approx(1e-9 / math.pi, rel=1e-6)


@pytest.mark.parametrize("wanted", CONVERTIBLE)
@pytest.mark.parametrize("given_", CONVERTIBLE)
@settings(deadline=None)
@given(st.floats(0, 1))
def test_there_and_back_is_the_same_distance(given_: str, wanted: str, share: float) -> None:
    value = share * HIGHEST[given_]
    back = float(convert(convert(value, given_, wanted), wanted, given_))
    assert back == pytest.approx(value, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("wanted", CONVERTIBLE)
@pytest.mark.parametrize("given_", CONVERTIBLE)
@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_conversion_keeps_the_order_so_a_threshold_stays_one(given_: str, wanted: str, shares: list[float]) -> None:
    values = np.sort(shares) * HIGHEST[given_]
    assert (np.diff(convert(values, given_, wanted)) >= -1e-15).all()


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_a_threshold_decides_alike_in_every_metric(seed: int, dimension: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 30, dimension))
    threshold = 0.25
    away = np.abs(similarity(a, b) - threshold) > 1e-9
    for metric in CONVERTIBLE:
        near = distance(a, b, metric) <= from_similarity(threshold, metric)
        assert (near == (similarity(a, b) >= threshold))[away].all()


@settings(deadline=None)
@given(st.floats(-1, 1))
def test_similarity_falls_as_distance_rises(value: float) -> None:
    for metric in CONVERTIBLE:
        assert to_similarity(from_similarity(value, metric), metric) == pytest.approx(value, abs=1e-7)
        assert from_similarity(value, metric) >= from_similarity(min(1.0, value + 0.01), metric)


def test_euclidean_of_vectors_as_they_are_is_not_convertible_and_says_so() -> None:
    for one, other in (("euclidean", "cosine"), ("angular", "euclidean")):
        with pytest.raises(ArgumentInvalid, match="depends on their norms"):
            convert(0.5, one, other)


@pytest.mark.parametrize(("value", "metric"), [(-0.1, "cosine"), (2.1, "euclidean_l2"), (1.1, "angular")])
def test_a_distance_outside_its_metric_is_refused(value: float, metric: str) -> None:
    with pytest.raises(ArgumentInvalid, match="lies in 0…"):
        to_similarity(value, metric)


def test_what_has_no_direction_or_no_value_is_refused() -> None:
    with pytest.raises(EmbeddingInvalid, match="zero"):
        distance([0, 0], [1, 0], "cosine")
    with pytest.raises(EmbeddingInvalid, match="finite"):
        similarity([math.nan, 0], [1, 0])
    with pytest.raises(DimensionMismatch):
        similarity([1, 0, 0], [1, 0])
    with pytest.raises(ArgumentInvalid, match="no metric is called 'manhattan'"):
        distance([1], [1], "manhattan")
    with pytest.raises(ArgumentInvalid, match="-1…1"):
        from_similarity(1.5, "cosine")


def test_vectors_of_any_length_that_float64_holds_are_compared() -> None:
    assert similarity([1e200, 1e200], [1e-200, 1e-200]) == pytest.approx(1)
