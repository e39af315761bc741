"""From a similarity to a decision: operating points, three bands, calibrated confidence.

No bare thresholds: each carries the data it was measured on, its error rates and their intervals. The numbers of
the shipped models live in ``operating_points.json`` and come from ``benchmarks/operating_points.py``; a user's own,
by ``facedex calibrate``, are kept in their data folder and come first.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import platformdirs

from facedex.decide.confidence import FEATURES, Bands, Calibration
from facedex.errors import ArgumentInvalid, NotCalibrated, OutputUnwritable, PolicyUnreadable
from facedex.types import EmbeddingSpace, Verdict, to_plain

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval of a rate, 0…1."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold with its source; meaningful only in the embedding space it was measured in.

    threshold  a similarity: at or above it two faces are taken for one person.
    fmr, fnmr  false match and false non-match rate there, 0…1, over all pairs of the dataset.
    """

    threshold: float
    fmr: float
    fmr_interval: Interval
    fnmr: float
    fnmr_interval: Interval
    dataset: str
    identities: int
    genuine_trials: int
    impostor_trials: int
    date: str

    def fpir(self, people: int) -> float:
        """The chance that a probe of nobody enrolled matches someone, in a gallery of this many faces.

        Comparisons are taken as independent, which overstates it: read it as a warning, not a measurement. Where no
        impostor pair matched, the upper end of the interval is taken for the rate: no error seen is not no error.
        """
        return -math.expm1(people * math.log1p(-min(self.fmr or self.fmr_interval.high, 1 - 1e-12)))


@dataclass(frozen=True, slots=True)
class DecisionPolicy:
    """Three bands: match at or above ``match``, review between the two thresholds, no match below ``review``."""

    match: OperatingPoint
    review: OperatingPoint
    calibration: Calibration

    def __post_init__(self) -> None:
        if not -1 <= self.review.threshold <= self.match.threshold <= 1:
            raise ArgumentInvalid(
                f"thresholds must satisfy -1 ≤ review ≤ match ≤ 1, got review {self.review.threshold} "
                f"and match {self.match.threshold}.",
                review=self.review.threshold,
                match=self.match.threshold,
            )

    def verdict(self, similarity: float) -> Verdict:
        if similarity >= self.match.threshold:
            return Verdict.MATCH
        return Verdict.REVIEW if similarity >= self.review.threshold else Verdict.NO_MATCH

    def confidence(self, similarity: float) -> float:
        return self.calibration.confidence(similarity)


def policy_for(space: EmbeddingSpace, data_dir: Path | None = None) -> DecisionPolicy:
    """The measured policy of a space: the user's own where ``facedex calibrate`` kept one, else the shipped one.

    data_dir  where the user's are kept; None: the user's data folder.
    Raises    NotCalibrated when nobody measured that space: thresholds of another one mean nothing in it.
              PolicyUnreadable when the user's own is damaged: silently deciding by another would be worse.
    """
    kept = kept_policy(space, data_dir)
    if kept is not None:
        return kept.policy
    found = shipped_policy(space)
    if found is None:
        raise NotCalibrated(
            f"no operating point was measured for the embedding space {space} (id {space.id}). "
            "Measure one on labelled photos with `facedex calibrate`, or pass policy=DecisionPolicy(…).",
            space_id=space.id,
        )
    return found


def shipped_policy(space: EmbeddingSpace) -> DecisionPolicy | None:
    """The policy that came with Facedex, None for a space it does not know."""
    return _shipped().get(space.id)


@cache
def _shipped() -> dict[str, DecisionPolicy]:
    text = resources.files("facedex.decide").joinpath("operating_points.json").read_text("utf-8")
    return {space_id: policy_from_plain(entry) for space_id, entry in json.loads(text).items()}


def policy_from_plain(plain: dict[str, Any]) -> DecisionPolicy:
    """A policy from the plain dict that ``facedex.types.to_plain`` makes of one."""

    def point(entry: dict[str, Any]) -> OperatingPoint:
        return OperatingPoint(
            **entry
            | {"fmr_interval": Interval(**entry["fmr_interval"]), "fnmr_interval": Interval(**entry["fnmr_interval"])}
        )

    def calibration(entry: dict[str, Any]) -> Calibration:
        bands = entry.get("bands")
        if bands is not None:
            bands = Bands(bands["threshold"], tuple(bands["no_match"]), tuple(bands["match"]))
        return Calibration(**entry | {"bands": bands})

    return DecisionPolicy(point(plain["match"]), point(plain["review"]), calibration(plain["calibration"]))


# ---- the user's own


@dataclass(frozen=True, slots=True)
class KeptPolicy:
    """A user's own policy with where it comes from.

    space   the embedding space it holds in, in words.
    source  dataset, date, people, photos, pairs, digest of the photos, and how the calibration did on people it was
            not fitted on; for people to read, nothing depends on it.
    """

    space: str
    policy: DecisionPolicy
    source: dict[str, Any]


def keep_policy(space: EmbeddingSpace, kept: KeptPolicy, data_dir: Path | None = None) -> Path:
    """Write a user's own policy, whole or not at all; it replaces the one before. Returns where.

    Raises  OutputUnwritable.
    """
    path = policy_path(space, data_dir)
    plain = {
        "format": _FORMAT,
        "space_id": space.id,
        "space": kept.space,
        "source": to_plain(kept.source),
        **to_plain(kept.policy),
    }
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            whole = Path(folder) / path.name
            whole.write_text(text, "utf-8")
            os.replace(whole, path)
    except OSError as error:
        raise OutputUnwritable(
            f"the calibration cannot be kept at {path}: {error.strerror or error}. "
            "Make the folder writable, or name another by FACEDEX_DATA_DIR.",
            path=str(path),
        ) from error
    return path


def kept_policy(space: EmbeddingSpace, data_dir: Path | None = None) -> KeptPolicy | None:
    """A user's own policy of a space, None when there is none.

    Raises  PolicyUnreadable.
    """
    path = policy_path(space, data_dir)
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error
    try:
        plain = json.loads(text)
        if plain["format"] != _FORMAT:
            raise _unreadable(path, f"it has format {plain['format']!r}, this Facedex reads {_FORMAT}")
        if plain["space_id"] != space.id:
            raise _unreadable(path, f"it was measured in the embedding space {plain['space_id']}")
        policy = policy_from_plain(plain)
        _check_numbers(policy)
        return KeptPolicy(str(plain["space"]), policy, dict(plain["source"]))
    except (ValueError, KeyError, TypeError, AttributeError, ArgumentInvalid) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error


def forget_policy(space: EmbeddingSpace, data_dir: Path | None = None) -> bool:
    """Remove a user's own policy; the shipped one holds again. Whether there was one.

    Raises  OutputUnwritable.
    """
    path = policy_path(space, data_dir)
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise OutputUnwritable(f"{path} cannot be removed: {error.strerror or error}.", path=str(path)) from error
    return True


def policy_path(space: EmbeddingSpace, data_dir: Path | None = None) -> Path:
    """Where a user's own policy of a space is kept."""
    folder = data_dir if data_dir is not None else platformdirs.user_data_path("facedex")
    return folder / "policies" / f"{space.id}.json"


def _check_numbers(policy: DecisionPolicy) -> None:
    """A file edited by hand may hold anything: a wrong number would decide about people."""
    calibration = policy.calibration
    numbers = [calibration.slope, calibration.intercept, calibration.floor, calibration.ceiling]
    for point in (policy.match, policy.review):
        numbers += [point.threshold, point.fmr, point.fnmr]
    if not all(isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        raise ValueError(f"not all of {numbers} are numbers")
    if calibration.feature not in FEATURES:
        raise ValueError(f"no feature is called {calibration.feature!r}")
    if not 0 <= calibration.floor <= calibration.ceiling <= 100:
        raise ValueError(f"floor {calibration.floor} and ceiling {calibration.ceiling} are not percentages in order")


def _unreadable(path: Path, why: str) -> PolicyUnreadable:
    return PolicyUnreadable(
        f"the calibration kept at {path} cannot be used: {why}. "
        "Calibrate again, or `facedex calibrate --remove` to go back to the shipped one.",
        path=str(path),
    )
