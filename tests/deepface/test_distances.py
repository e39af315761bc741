"""The four distances and the thresholds are DeepFace's in shape and ours in what they rest on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from drawn import ANN, BOB, POLICY, Draw
from facedex import DeepFace
from facedex.decide.metrics import METRICS
from facedex.deepface.distances import least_similarity
from facedex.errors import ArgumentInvalid, DimensionMismatch, EmbeddingInvalid, NoFaceFound, PhotoNotFound

VECTORS = arrays(np.float64, 8, elements=st.floats(-10, 10)).filter(lambda v: np.linalg.norm(v) > 1e-3)


@settings(deadline=None)
@given(VECTORS, VECTORS)
def test_the_four_distances_are_their_definitions(a: np.ndarray, b: np.ndarray) -> None:
    u, v = a / np.linalg.norm(a), b / np.linalg.norm(b)
    cosine = float(np.clip(u @ v, -1, 1))
    expected = {
        "cosine": 1 - cosine,
        "euclidean": np.linalg.norm(a - b),
        "euclidean_l2": np.linalg.norm(u - v),
        "angular": math.acos(cosine) / math.pi,
    }
    for metric in METRICS:
        told = DeepFace.find_distance(a.tolist(), b.tolist(), metric)
        assert told == pytest.approx(expected[metric], abs=2e-6)
        assert told == round(float(told), 6)


def test_many_against_many_is_a_matrix_with_a_row_for_each_of_the_second() -> None:
    rng = np.random.default_rng(1)
    alpha, beta = rng.normal(size=(3, 8)), rng.normal(size=(2, 8))
    for metric in METRICS:
        matrix = DeepFace.find_distance(alpha, beta, metric)
        assert matrix.shape == (2, 3)
        assert matrix[1, 2] == DeepFace.find_distance(alpha[2], beta[1], metric)


def test_a_function_of_ones_own_is_called_with_both() -> None:
    assert DeepFace.find_distance([1, 2], [3, 5], lambda a, b: float(np.abs(a - b).max())) == 3


def test_what_cannot_be_compared_says_so() -> None:
    with pytest.raises(ArgumentInvalid, match="manhattan"):
        DeepFace.find_distance([1.0], [1.0], "manhattan")
    with pytest.raises(DimensionMismatch, match=r"\(2,\) and \(3,\)"):
        DeepFace.find_distance([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ArgumentInvalid, match="shapes"):
        DeepFace.find_distance([1.0, 2.0], [[1.0, 2.0]])
    for broken in ([0.0, 0.0], [math.nan, 1.0]):
        with pytest.raises(EmbeddingInvalid):
            DeepFace.find_distance(broken, [1.0, 0.0])
    with pytest.raises(EmbeddingInvalid):
        DeepFace.find_distance([math.inf, 0.0], [1.0, 0.0], "euclidean")


@pytest.mark.parametrize("metric", METRICS)
def test_a_threshold_decides_as_the_measured_similarity_does(metric: str) -> None:
    threshold = DeepFace.find_threshold("SFace", metric)
    at = POLICY.match.threshold
    for similarity in np.linspace(-1, 1, 41):
        probe = np.array([1.0, 0.0])
        other = np.array([similarity, math.sqrt(1 - similarity**2)])
        assert (DeepFace.find_distance(probe, other, metric) <= threshold) == (similarity >= at - 1e-9)


def test_a_function_and_an_unknown_metric_have_no_threshold() -> None:
    with pytest.raises(ArgumentInvalid, match="threshold="):
        DeepFace.find_threshold("SFace", lambda a, b: 0.0)
    with pytest.raises(ArgumentInvalid, match="chebyshev"):
        DeepFace.find_threshold("SFace", "chebyshev")


@settings(deadline=None)
@given(st.sampled_from(METRICS), st.floats(0, 2), st.floats(-1, 1))
def test_no_face_within_a_threshold_is_below_the_similarity_asked_of_the_index(
    metric: str, threshold: float, similarity: float
) -> None:
    other = np.array([similarity, math.sqrt(1 - similarity**2)])
    if DeepFace.find_distance([1.0, 0.0], other, metric) <= threshold:
        assert similarity >= least_similarity(metric, threshold)


# ---- verify


def test_verify_says_yes_and_no_in_deepfaces_words(draw: Draw) -> None:
    ann, again, bob = draw("a.jpg", ANN), draw("b.jpg", ANN, variation=0.5, seed=4), draw("c.jpg", BOB)
    yes, no = DeepFace.verify(ann, again), DeepFace.verify(img1_path=ann, img2_path=bob)
    assert (yes["verified"], no["verified"]) == (True, False)
    assert yes["confidence"] > 90 > 10 > no["confidence"]
    assert yes["threshold"] == no["threshold"] == 0.5
    assert (yes["model"], yes["detector_backend"], yes["similarity_metric"]) == ("SFace", "yunet", "cosine")
    assert yes["facial_areas"]["img1"] == DeepFace.represent(ann)[0]["facial_area"]


@pytest.mark.parametrize("metric", METRICS)
def test_all_metrics_decide_alike(draw: Draw, metric: str) -> None:
    ann, again, bob = draw("a.jpg", ANN), draw("b.jpg", ANN, variation=0.5, seed=4), draw("c.jpg", BOB)
    for other in (again, bob):
        told, plain = DeepFace.verify(ann, other, distance_metric=metric), DeepFace.verify(ann, other)
        assert (told["verified"], told["confidence"]) == (plain["verified"], plain["confidence"])
        assert told["verified"] == (told["distance"] <= told["threshold"])


def test_the_closest_faces_of_two_parties_are_compared(draw: Draw) -> None:
    told = DeepFace.verify(draw("one.png", ANN, BOB), draw("other.png", 7, BOB, seed=9))
    assert told["verified"]
    assert told["facial_areas"]["img1"] == DeepFace.represent(draw("one.png", ANN, BOB))[1]["facial_area"]


def test_an_embedding_may_stand_for_a_photo(draw: Draw) -> None:
    ann, again = draw("a.jpg", ANN), draw("b.jpg", ANN, variation=0.5, seed=4)
    embedding = DeepFace.represent(ann)[0]["embedding"]
    told = DeepFace.verify(embedding, again)
    assert told["distance"] == pytest.approx(DeepFace.verify(ann, again)["distance"], abs=2e-6)
    assert set(told["facial_areas"]["img1"].values()) == {None}
    with pytest.raises(DimensionMismatch, match=r"2 numbers.*128"):
        DeepFace.verify([1.0, 2.0], again)
    with pytest.raises(ArgumentInvalid, match="numbers only"):
        DeepFace.verify(["a"] * 128, again)


def test_a_threshold_of_ones_own_wins_zero_too(draw: Draw) -> None:
    ann, again = draw("a.jpg", ANN), draw("b.jpg", ANN, variation=0.5, seed=4)
    assert DeepFace.verify(ann, ann, threshold=0.0)["verified"]
    told = DeepFace.verify(ann, again, threshold=0.0)
    assert (told["verified"], told["threshold"]) == (False, 0.0)
    assert DeepFace.verify(ann, again, threshold=1)["verified"]
    for wrong in ("0.4", True, math.nan):
        with pytest.raises(ArgumentInvalid, match="threshold"):
            DeepFace.verify(ann, again, threshold=wrong)


def test_a_metric_of_ones_own_needs_a_threshold(draw: Draw) -> None:
    ann = draw("a.jpg", ANN)
    with pytest.raises(ArgumentInvalid, match="threshold="):
        DeepFace.verify(ann, ann, distance_metric=lambda a, b: 0.25)
    assert DeepFace.verify(ann, ann, distance_metric=lambda a, b: 0.25, threshold=0.2)["verified"] is False


def test_verify_without_a_face_raises_or_compares_the_whole_photo(draw: Draw) -> None:
    ann, wall = draw("a.jpg", ANN), draw("wall.png")
    with pytest.raises(NoFaceFound, match="wall"):
        DeepFace.verify(ann, wall)
    told = DeepFace.verify(ann, wall, enforce_detection=False)
    assert told["facial_areas"]["img2"]["w"] == 480
    with pytest.raises(PhotoNotFound):
        DeepFace.verify(ann, "missing.jpg")
