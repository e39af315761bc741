"""``analyze``: what networks guess of a face's appearance, in DeepFace's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from facedex.deepface.faces import facial_area, photos_of
from facedex.deepface.models import DEFAULT_BACKEND, DEFAULT_MODEL, SKIP, check_options, engine_for
from facedex.errors import ArgumentInvalid, NoFaceFound
from facedex.types import FaceAttributes

__all__ = ["analyze", "worded"]

ACTIONS: Final = ("emotion", "age", "gender")

_GENDERS: Final = {"female": "Woman", "male": "Man"}


def analyze(
    img_path: Any,
    actions: str | Sequence[str] = ACTIONS,
    enforce_detection: bool = True,
    detector_backend: str = DEFAULT_BACKEND,
    align: bool = True,  # noqa: ARG001 - each network gets the crop it was trained on
    expand_percentage: int = 0,
    silent: bool = False,  # noqa: ARG001 - nothing is printed
    anti_spoofing: bool = False,
) -> Any:
    """How old each face of a photo looks, which gender, what expression: guesses about a picture; docs/attributes.md.

    img_path  as of ``represent``.
    actions   any of ``"emotion"``, ``"age"``, ``"gender"``. For ``"race"`` there is no network, and it is refused.
    enforce_detection  False: a photo without a face is described as if it were one, with a face_confidence of 0.
    Returns   a list of dicts, largest face first: ``region``, ``face_confidence``, and what was asked for: ``age``
              (whole years), ``gender`` and ``emotion`` (class → 0…100 %), ``dominant_gender`` (``"Woman"``,
              ``"Man"``), ``dominant_emotion``; of several photos a list of such lists.
    Raises    NoFaceFound, PhotoError, ModelUnknown, ArgumentInvalid.
    """
    check_options(anti_spoofing=anti_spoofing)
    wanted = (actions,) if isinstance(actions, str) else tuple(actions)
    if "race" in wanted:
        raise ArgumentInvalid(
            "action 'race' is not offered: no network for it has weights with a known licence and error rates one "
            f"could stand for. Ask for {', '.join(ACTIONS)}.",
            actions=wanted,
        )
    if not wanted or set(wanted) - set(ACTIONS):
        raise ArgumentInvalid(f"actions are {actions!r}; expected some of {', '.join(ACTIONS)}.", actions=wanted)
    sources, several = photos_of(img_path)
    engine = engine_for(DEFAULT_MODEL, detector_backend)
    answers = []
    for source in sources:
        photo = engine.load(source, bgr=True)
        try:
            described = engine.analyze(photo, actions=wanted)
        except NoFaceFound:
            if enforce_detection:
                raise
            described = engine_for(DEFAULT_MODEL, SKIP).analyze(photo, actions=wanted)
        answers.append(
            [
                {
                    **worded(each),
                    "region": facial_area(each.face, photo, expand_percentage),
                    "face_confidence": round(each.face.detection_score, 2),
                }
                for each in described
            ]
        )
    return answers if several else answers[0]


def worded(attributes: FaceAttributes) -> dict[str, Any]:
    """What was guessed of a face, under DeepFace's names."""
    told: dict[str, Any] = {}
    if attributes.emotion is not None:
        told |= _percent("emotion", attributes.emotion)
    if attributes.age is not None:
        told["age"] = int(attributes.age.years)
    if attributes.gender is not None:
        told |= _percent("gender", {_GENDERS[key]: share for key, share in attributes.gender.items()})
    return told


def _percent(name: str, shares: Mapping[str, float]) -> dict[str, Any]:
    percents = {key: 100 * float(share) for key, share in shares.items()}
    return {name: percents, f"dominant_{name}": max(percents, key=percents.__getitem__)}
