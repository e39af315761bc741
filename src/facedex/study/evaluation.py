"""How right is it on these photos: everything that pairs, galleries and groups of people can say, in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from facedex.decide import DecisionPolicy, OperatingPoint, policy_for
from facedex.decide.evaluation import Density, PairAccuracy, density, operating_point, pair_accuracy
from facedex.decide.identification import Identification, OpenSet, leave_one_out, open_set
from facedex.decide.trials import ScoredPair
from facedex.engine import Engine
from facedex.errors import ArgumentInvalid, NotCalibrated, TrialsTooFew
from facedex.study.labelled import Labelled, LabelledFace
from facedex.types import PhotoFailure

__all__ = ["Evaluation", "GroupAccuracy", "Mistake", "evaluate", "policy_of"]


@dataclass(frozen=True, slots=True)
class Mistake:
    """A pair on the wrong side of most others: one person who looks like two, or two who look like one."""

    similarity: float
    confidence: float | None
    faces: tuple[LabelledFace, LabelledFace]


@dataclass(frozen=True, slots=True)
class GroupAccuracy:
    """Error rates among the people of one group, impostor pairs within it: look-alikes are more often of one group.

    point  at the match threshold; None where the group has no genuine or no impostor pairs.
    """

    group: str
    people: int
    point: OperatingPoint | None


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What was measured, on what, and with which thresholds.

    match, review      the policy's thresholds on these photos; None for a space without a policy.
    set_on             the data the policy's thresholds were set on.
    lowest_genuine, highest_impostor
                       the worst mistakes, worst first.
    identification, open_set
                       None and empty for a list of pairs: it does not say who else is who.
    no_group           people whom the table of groups does not name.
    """

    name: str
    date: str
    digest: str
    space: str
    space_id: str
    photos: int
    people: int
    faces: int
    faceless: tuple[str, ...]
    failures: tuple[PhotoFailure, ...]
    repeated: int
    contested: tuple[str, ...]
    lost_pairs: int
    genuine_trials: int
    impostor_trials: int
    match: OperatingPoint | None
    review: OperatingPoint | None
    set_on: str | None
    pairs: PairAccuracy
    density: Density
    identification: Identification | None
    open_set: tuple[OpenSet, ...]
    groups: tuple[GroupAccuracy, ...]
    no_group: tuple[str, ...]
    lowest_genuine: tuple[Mistake, ...]
    highest_impostor: tuple[Mistake, ...]

    @property
    def failure_to_acquire(self) -> float:
        """Share of photos from which no template could be made."""
        return (len(self.faceless) + len(self.failures)) / max(1, self.photos)


def policy_of(engine: Engine, labelled: Labelled) -> DecisionPolicy | None:
    """The policy of the space the faces are in; None where nobody measured it."""
    if labelled.space == engine.space:
        return engine.known_policy
    try:
        return policy_for(labelled.space, engine.settings.data_dir)
    except NotCalibrated:
        return None


def evaluate(
    engine: Engine,
    labelled: Labelled,
    *,
    groups: Mapping[str, str] | None = None,
    mistakes: int = 12,
    rounds: int = 1000,
    draws: int = 20,
) -> Evaluation:
    """Judge a model, and the policy it is used with, on labelled faces.

    groups    person → group, for error rates by group.
    mistakes  how many of the worst pairs of either kind to keep.
    rounds    of the bootstrap; draws: of people to enroll, for the open-set rates.
    """
    policy = policy_of(engine, labelled)
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    in_use = [] if policy is None else [policy.match.threshold, policy.review.threshold]
    accuracy = pair_accuracy(labelled.trials, in_use, dataset=labelled.name, date=date, rounds=rounds)
    supported = [at.point for at in accuracy.at_fmr if at.point is not None]
    judged = list(accuracy.points) or supported[-2:]
    lowest, highest = labelled.trials.worst(mistakes)

    def mistake(pair: ScoredPair) -> Mistake:
        confidence = None if policy is None else policy.confidence(min(1.0, max(-1.0, pair.similarity)))
        return Mistake(pair.similarity, confidence, (labelled.faces[pair.first], labelled.faces[pair.second]))

    by_group, no_group = _groups(labelled, groups or {}, judged[0].threshold if judged else None, date, rounds)
    searched = labelled.every_pair
    return Evaluation(
        name=labelled.name,
        date=date,
        digest=labelled.digest,
        space=str(labelled.space),
        space_id=labelled.space.id,
        photos=labelled.photos,
        people=len(labelled.trials.people),
        faces=len(labelled.faces),
        faceless=labelled.faceless,
        failures=labelled.failures,
        repeated=labelled.repeated,
        contested=labelled.contested,
        lost_pairs=labelled.lost_pairs,
        genuine_trials=labelled.trials.genuine_trials,
        impostor_trials=labelled.trials.impostor_trials,
        match=accuracy.points[0] if policy else None,
        review=accuracy.points[1] if policy else None,
        set_on=policy.match.dataset if policy else None,
        pairs=accuracy,
        density=density(labelled.trials.tally),
        identification=leave_one_out(labelled.embeddings, labelled.labels) if searched else None,
        open_set=open_set(
            labelled.embeddings,
            labelled.labels,
            [point.threshold for point in judged],
            draws=draws,
            fmrs=[point.fmr for point in judged],
        )
        if searched and judged
        else (),
        groups=by_group,
        no_group=no_group,
        lowest_genuine=tuple(mistake(pair) for pair in lowest),
        highest_impostor=tuple(mistake(pair) for pair in highest),
    )


def _groups(
    labelled: Labelled, groups: Mapping[str, str], threshold: float | None, date: str, rounds: int
) -> tuple[tuple[GroupAccuracy, ...], tuple[str, ...]]:
    if not groups or threshold is None:
        return (), ()
    people = labelled.trials.people
    if not any(person in groups for person in people):
        raise ArgumentInvalid(
            f"the table of groups names none of the {len(people)} people of {labelled.name} (such as {people[0]!r}).",
            people=len(people),
        )
    found = []
    for group in sorted(set(groups.values())):
        members = [place for place, person in enumerate(people) if groups.get(person) == group]
        try:
            part = labelled.trials.subset(members)
            point = operating_point(part, threshold, dataset=f"{labelled.name}, {group}", date=date, rounds=rounds)
        except TrialsTooFew:
            point = None
        found.append(GroupAccuracy(group, len(members), point))
    return tuple(found), tuple(person for person in people if person not in groups)
