"""What networks guess of a face's appearance: age, gender, expression. Guesses about a picture, not facts.

Each network takes the face cut out as it was trained on, and answers with probabilities of its classes.
docs/attributes.md says how often they are wrong, and about whom. There is no network for race, and none that tells a
live face from a picture of one: docs/decisions/0019-no-anti-spoofing.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, DegenerateLandmarks, ModelInvalid
from facedex.models import catalog, weights
from facedex.models.catalog import ModelCard
from facedex.models.runtime import Model
from facedex.settings import Settings
from facedex.types import Age, Face, FaceAttributes, Landmarks, RgbImage
from facedex.vision.alignment import TEMPLATE_SIZE, align_face, similarity_transform
from facedex.vision.embedders import network_input
from facedex.vision.levels import Levels
from facedex.vision.quality import assess

ACTIONS: Final = ("age", "gender", "emotion")
"""What can be asked for; also the tasks of the networks' cards."""
CLASSES: Final[Mapping[str, tuple[Any, ...]]] = {
    "age": (0.25, *range(1, 81)),  # years; the first class is everyone below one
    "gender": ("female", "male"),
    "emotion": ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
}
"""Task → what each of a network's answers stands for."""
_FINEST: Final = 4


class Classifier:
    """A network from aligned crops to the probabilities of its classes. Safe to share between threads.

    card  of the weights in ``model``; its ``crop`` says what goes in, its task what comes out.
    """

    BATCH: Final = 32
    """Faces in one run: bounds the memory of a photo of hundreds."""

    def __init__(self, model: Model, card: ModelCard) -> None:
        classes = CLASSES.get(card.task, ())
        takes, gives = [port.shape for port in model.inputs], [port.shape for port in model.outputs]
        if card.crop is None or not classes:
            raise ArgumentInvalid(
                f"the card of {card.name!r} describes no classifier of faces (task {card.task!r}); there are "
                f"{', '.join(CLASSES)}",
                model=card.name,
                task=card.task,
            )
        size, channels = card.crop.size, card.crop.channels
        expected = (channels, size, size) if card.crop.layout == "nchw" else (size, size, channels)
        if takes != [(None, *expected)] or gives != [(None, len(classes))]:
            raise ModelInvalid(
                f"{model.path} takes {takes} and gives {gives}; by its card {card.name!r} takes any number of "
                f"{'×'.join(map(str, expected))} and gives as many of {len(classes)}. {card.remedy}",
                path=str(model.path),
                model=card.name,
            )
        self.model, self.card, self.crop = model, card, card.crop
        self.classes = classes

    @classmethod
    def load(cls, task: str, settings: Settings, *, progress: weights.Progress | None = None) -> Classifier:
        """The catalog's network for a task, its weights fetched if need be and allowed.

        Raises  ArgumentInvalid for a task of no such network; else as ``weights.ensure`` and ``Model.load``.
        """
        check_actions((task,))
        card = next(card for card in catalog.CARDS if card.task == task)
        fetch = not settings.offline and settings.models_dir is None
        return cls(Model.load(weights.ensure(card, settings.models_dir, fetch, progress), settings.threads), card)

    def probabilities(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(N, size, size, 3) uint8, RGB, aligned as the card says → (N, classes), each row of sum 1.

        Raises  ModelInvalid when an answer is no probability: the weights are damaged, or another model's.
        """
        name = self.model.inputs[0].name
        rows = [
            self.model.run({name: network_input(crops[start : start + self.BATCH], self.crop)})
            for start in range(0, len(crops), self.BATCH)
        ]
        found = np.concatenate([np.zeros((0, len(self.classes)), np.float32), *(next(iter(r.values())) for r in rows)])
        sums = found.sum(axis=1)
        if not ((found >= 0).all() and (abs(sums - 1) < 1e-3).all()):
            raise ModelInvalid(
                f"{self.model.path.name} gave answers that are no probabilities. {self.card.remedy}",
                path=str(self.model.path),
                model=self.card.name,
            )
        return np.asarray(found / sums[:, None], np.float32)


def check_actions(actions: Sequence[str]) -> tuple[str, ...]:
    """The actions asked for; one may be given as plain text.

    Raises  ArgumentInvalid for what nobody can answer.
    """
    chosen = (actions,) if isinstance(actions, str) else tuple(actions)
    unknown = [action for action in chosen if action not in ACTIONS]
    if unknown:
        why = " There is no model for race, on purpose." if "race" in unknown else ""
        raise ArgumentInvalid(
            f"nothing here answers {', '.join(map(repr, unknown))}; there are {', '.join(ACTIONS)}.{why}",
            actions=chosen,
            known=ACTIONS,
        )
    return chosen


def describe(photo: Levels, faces: Sequence[Face], classifiers: Mapping[str, Classifier]) -> list[FaceAttributes]:
    """Pose, quality, and the answers of these classifiers, for each face in the order given.

    A face whose landmarks cannot be aligned is left out, as it is when faces are embedded.

    classifiers  action → network; the other actions are None in the answers.
    Raises       PhotoUnreadable when the photo turns out to be damaged.
    """
    described = []
    for face in faces:
        try:
            crop = cut(photo, face.landmarks, TEMPLATE_SIZE, "arcface")
            quality = assess(face, crop, (photo.width, photo.height))
        except DegenerateLandmarks:
            continue
        described.append(replace(face, quality=quality))
    answers = {action: _answers(photo, described, network) for action, network in classifiers.items()}
    return [
        FaceAttributes(
            face=face,
            age=_age(answers["age"][row]) if "age" in answers else None,
            gender=_named("gender", answers["gender"][row]) if "gender" in answers else None,
            emotion=_named("emotion", answers["emotion"][row]) if "emotion" in answers else None,
            pose=face.quality.pose,
            quality=face.quality,
        )
        for row, face in enumerate(described)
        if face.quality is not None
    ]


def cut(photo: Levels, landmarks: Landmarks, size: int, alignment: str, finest: int = 1) -> RgbImage:
    """An aligned crop, from a level of the photo at which it need not be enlarged.

    finest  cut at up to this many times the size and average: sampling a large face for a small crop would skip most of
            its pixels.
    """
    level = photo.reduced_by(1 / _scale(landmarks, size, alignment))
    points = level.inward(landmarks)
    times = max(1, min(finest, round(1 / _scale(points, size, alignment))))
    crop = align_face(level.pixels, points, size * times, alignment)
    if times == 1:
        return crop
    averaged = crop.reshape(size, times, size, times, 3).mean(axis=(1, 3))
    return np.asarray(np.rint(averaged), np.uint8)


def _scale(landmarks: Landmarks, size: int, alignment: str) -> float:
    """Pixels of the crop to one of the photo."""
    return float(np.hypot(*similarity_transform(landmarks, size, alignment)[:, 0]))


def _answers(photo: Levels, faces: Sequence[Face], network: Classifier) -> npt.NDArray[np.float32]:
    size, alignment = network.crop.size, network.crop.alignment
    crops = [cut(photo, face.landmarks, size, alignment, _FINEST) for face in faces]
    return network.probabilities(np.stack(crops) if crops else np.zeros((0, size, size, 3), np.uint8))


def _age(probabilities: npt.NDArray[np.float32]) -> Age:
    """Mean and standard deviation of the years the network deems possible."""
    years, chances = np.array(CLASSES["age"], np.float64), probabilities.astype(np.float64)
    mean = float(chances @ years)
    return Age(years=mean, spread=float(np.sqrt(chances @ (years - mean) ** 2)))


def _named(task: str, probabilities: npt.NDArray[np.float32]) -> dict[str, float]:
    return {name: float(chance) for name, chance in zip(CLASSES[task], probabilities, strict=True)}
