"""A user's own thresholds and confidence, measured on photos of people they know."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from facedex.decide import DecisionPolicy, OperatingPoint
from facedex.decide.confidence import Feature, Reliability, reliability
from facedex.decide.confidence import calibrate as fit
from facedex.decide.evaluation import operating_point, threshold_at_fmr
from facedex.decide.policy import KeptPolicy, shipped_policy
from facedex.errors import ArgumentInvalid, TrialsTooFew
from facedex.study.labelled import Labelled

__all__ = ["CalibrationStudy", "calibrate"]


@dataclass(frozen=True, slots=True)
class CalibrationStudy:
    """A calibration ready to be kept.

    reliability       on people it was not fitted on; None where there are too few to split, and why.
    measured_thresholds
                      False: the photos support no threshold at the rates wanted, so the shipped ones stand, with their
                      error rates on these photos.
    """

    kept: KeptPolicy
    reliability: Reliability | None
    why_not: str | None
    measured_thresholds: bool

    @property
    def policy(self) -> DecisionPolicy:
        return self.kept.policy


def calibrate(
    labelled: Labelled,
    *,
    feature: Feature = "similarity",
    rescale: bool = False,
    match_fmr: float = 1e-4,
    review_fmr: float = 1e-3,
) -> CalibrationStudy:
    """Fit a confidence and set thresholds on labelled faces.

    feature     what the regression sees; see ``decide.confidence.Feature``.
    rescale     confidences become 51…100 from the match threshold on and 0…49 below it.
    match_fmr, review_fmr
                the false match rates the thresholds are set for, review the larger one. Fewer than 3 / rate impostor
                pairs do not support one; then the shipped thresholds stand.
    Raises      ArgumentInvalid where they do not support one and nothing is shipped for the space; as
                ``decide.confidence.calibrate``.
    """
    if not 0 < match_fmr <= review_fmr < 1:
        raise ArgumentInvalid(
            f"false match rates must satisfy 0 < match ≤ review < 1, got {match_fmr:g} and {review_fmr:g}.",
            match_fmr=match_fmr,
            review_fmr=review_fmr,
        )
    trials, date = labelled.trials, f"{datetime.now(UTC):%Y-%m-%d}"
    needed = round(3 / match_fmr)
    measured = trials.impostor_trials >= needed
    if measured:
        thresholds = [threshold_at_fmr(trials, fmr) for fmr in (match_fmr, review_fmr)]
    else:
        shipped = shipped_policy(labelled.space)
        if shipped is None:
            raise ArgumentInvalid(
                f"a false match rate of {match_fmr:g} needs {needed:,} impostor pairs, {labelled.name} has "
                f"{trials.impostor_trials:,}, and no thresholds are shipped for {labelled.space}. Give more people, or "
                f"--match-fmr {max(3 / trials.impostor_trials, match_fmr):.1g} and a larger --review-fmr.",
                needed=needed,
                impostor_trials=trials.impostor_trials,
            )
        thresholds = [shipped.match.threshold, shipped.review.threshold]
    match, review = (_point(labelled, threshold, date) for threshold in thresholds)
    rescale_at = match.threshold if rescale else None
    calibration = fit(trials, dataset=labelled.name, date=date, feature=feature, rescale_at=rescale_at)
    checked, why_not = None, None
    try:
        checked = reliability(trials, feature=feature, rescale_at=rescale_at)
    except (TrialsTooFew, ArgumentInvalid) as error:
        why_not = error.message
    source = {
        "dataset": labelled.name,
        "date": date,
        "people": len(trials.people),
        "photos": labelled.photos,
        "faces": len(labelled.faces),
        "genuine_trials": trials.genuine_trials,
        "impostor_trials": trials.impostor_trials,
        "digest": labelled.digest,
        "thresholds": f"FMR {match_fmr:g} and {review_fmr:g} on these photos" if measured else "as shipped",
        "cross_validation": checked,
    }
    kept = KeptPolicy(str(labelled.space), DecisionPolicy(match, review, calibration), source)
    return CalibrationStudy(kept, checked, why_not, measured)


def _point(labelled: Labelled, threshold: float, date: str) -> OperatingPoint:
    return operating_point(labelled.trials, threshold, dataset=labelled.name, date=date, rounds=1000)
