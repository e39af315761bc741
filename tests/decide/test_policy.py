"""Operating points, bands, confidence, and a user's own policy before the shipped one."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facedex.decide import Calibration, DecisionPolicy, Interval, OperatingPoint, policy_for
from facedex.decide.confidence import Bands
from facedex.decide.policy import (
    KeptPolicy,
    forget_policy,
    keep_policy,
    kept_policy,
    policy_from_plain,
    policy_path,
    shipped_policy,
)
from facedex.errors import ArgumentInvalid, OutputUnwritable, PolicyUnreadable
from facedex.models.catalog import SFACE
from facedex.types import EmbeddingSpace, Verdict, to_plain

SPACE = EmbeddingSpace("other", "1", "0" * 64, 128, "none")


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


@settings(deadline=None)
@given(st.floats(-1, 1), st.floats(-1, 1))
def test_confidence_rises_with_similarity_and_stays_a_percentage(a: float, b: float) -> None:
    low, high = sorted((POLICY.confidence(a), POLICY.confidence(b)))
    assert 0 <= low <= high <= 100
    assert (POLICY.confidence(a) <= POLICY.confidence(b)) == (a <= b) or low == high


def test_a_space_nobody_measured_has_no_threshold() -> None:
    with pytest.raises(ArgumentInvalid, match="no operating point"):
        policy_for(SPACE)


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
        told = to_plain(policy_from_plain(plain))
        assert (told["calibration"].pop("feature"), told["calibration"].pop("bands")) == ("similarity", None)
        assert told == plain


def test_a_bigger_gallery_expects_more_false_alarms() -> None:
    assert point(0.4).fpir(1) == pytest.approx(1e-4)
    assert point(0.4).fpir(1_000_000) == pytest.approx(1, abs=1e-6)


def test_no_error_seen_still_expects_false_alarms() -> None:
    nothing_seen = replace(point(0.4), fmr=0.0, fmr_interval=Interval(0.0, 3e-4))
    assert nothing_seen.fpir(1) == pytest.approx(3e-4)


# ---- a user's own

SOURCE = {"dataset": "our badges", "people": 12}
OWN = replace(POLICY, calibration=replace(POLICY.calibration, bands=Bands(0.4, (0.1, 48.0), (60.0, 99.9))))


def test_a_users_own_policy_comes_before_the_shipped_one_and_goes_again(tmp_path: Path) -> None:
    shipped = policy_for(SFACE.space, tmp_path)
    assert shipped == shipped_policy(SFACE.space)
    path = keep_policy(SFACE.space, KeptPolicy(str(SFACE.space), OWN, SOURCE), tmp_path)
    assert policy_for(SFACE.space, tmp_path) == OWN != shipped
    kept = kept_policy(SFACE.space, tmp_path)
    assert kept is not None
    assert (kept.source, kept.space) == (SOURCE, str(SFACE.space))
    assert list(path.parent.iterdir()) == [path]
    assert forget_policy(SFACE.space, tmp_path)
    assert not forget_policy(SFACE.space, tmp_path)
    assert policy_for(SFACE.space, tmp_path) == shipped


def test_each_space_has_its_own(tmp_path: Path) -> None:
    keep_policy(SPACE, KeptPolicy("other", OWN, SOURCE), tmp_path)
    assert policy_for(SPACE, tmp_path) == OWN
    assert policy_for(SFACE.space, tmp_path) == shipped_policy(SFACE.space)


def damaged(**changes: object) -> str:
    plain = {"format": 1, "space_id": SPACE.id, "space": "other", "source": {}, **to_plain(OWN)}
    for key, value in changes.items():
        outer, _, inner = key.partition("__")
        if inner:
            plain[outer] = {**plain[outer], inner: value}
        else:
            plain[outer] = value
    return json.dumps(plain)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "{}", "\x00", damaged(format=2), damaged(space_id="another"), damaged(source=7),
        damaged(match=None), damaged(match__threshold="0.4"), damaged(match__threshold=float("nan")),
        damaged(match__threshold=0.1), damaged(match__colour="red"), damaged(match__fmr_interval=3),
        damaged(calibration__slope=True), damaged(calibration__feature="shoe size"), damaged(calibration__floor=200),
        damaged(calibration__bands={"threshold": 0.4}),
    ],
)  # fmt: skip
def test_a_damaged_one_is_refused_not_passed_over(text: str, tmp_path: Path) -> None:
    path = policy_path(SPACE, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(text, "utf-8")
    with pytest.raises(PolicyUnreadable, match="--remove") as caught:
        policy_for(SPACE, tmp_path)
    assert caught.value.path == str(path)
    assert forget_policy(SPACE, tmp_path)


def test_bytes_that_are_no_text_are_refused_too(tmp_path: Path) -> None:
    path = policy_path(SPACE, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(PolicyUnreadable):
        kept_policy(SPACE, tmp_path)


def test_a_folder_that_cannot_be_written_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputUnwritable, match="FACEDEX_DATA_DIR"):
        keep_policy(SPACE, KeptPolicy("other", OWN, SOURCE), tmp_path / "file")
    assert kept_policy(SPACE, tmp_path / "file") is None

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    keep_policy(SPACE, KeptPolicy("other", OWN, SOURCE), tmp_path)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputUnwritable, match="No space left"):
        keep_policy(SPACE, KeptPolicy("other", POLICY, SOURCE), tmp_path)
    assert policy_for(SPACE, tmp_path) == OWN
    assert len(list((tmp_path / "policies").iterdir())) == 1
