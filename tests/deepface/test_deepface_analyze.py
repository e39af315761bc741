"""``analyze`` tells what our networks guess, in DeepFace's words and shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import facedex
from drawn import ANN, BOB, Draw
from facedex import DeepFace
from facedex.deepface import models
from facedex.errors import ArgumentInvalid, ModelUnknown, NoFaceFound

SAMPLES = Path(__file__).parents[2] / "samples"
EMOTIONS = {"angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"}


def shape(told: dict[str, Any]) -> dict[str, str]:
    return {key: type(value).__name__ for key, value in told.items()}


@pytest.mark.weights
def test_a_face_gets_age_gender_and_emotion_in_deepfaces_shape(draw: Draw) -> None:
    faces = DeepFace.analyze(draw("party.png", ANN, BOB))
    assert [shape(face) for face in faces] == [
        {
            "emotion": "dict",
            "dominant_emotion": "str",
            "age": "int",
            "gender": "dict",
            "dominant_gender": "str",
            "region": "dict",
            "face_confidence": "float",
        }
    ] * 2
    for face, plain in zip(faces, DeepFace.represent(draw("party.png", ANN, BOB)), strict=True):
        assert face["region"] == plain["facial_area"]
        assert set(face["emotion"]) == EMOTIONS
        assert set(face["gender"]) == {"Woman", "Man"}
        for name in ("emotion", "gender"):
            assert sum(face[name].values()) == pytest.approx(100, abs=1e-3)
            assert face[name][face[f"dominant_{name}"]] == max(face[name].values())


@pytest.mark.weights
def test_a_real_portrait_is_guessed_plausibly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_make", lambda embedder, detector: facedex.Engine(detector=detector))
    (told,) = DeepFace.analyze(SAMPLES / "probes" / "barack_obama_blue_room.jpg", silent=True)
    assert told["dominant_gender"] == "Man"
    assert 30 < told["age"] < 75


@pytest.mark.weights
def test_only_what_is_asked_for_is_told_and_a_batch_is_a_list_of_lists(draw: Draw) -> None:
    photo = draw("a.png", ANN)
    assert set(DeepFace.analyze(photo, actions="age")[0]) == {"age", "region", "face_confidence"}
    assert set(DeepFace.analyze(photo, ["gender"])[0]) == {"gender", "dominant_gender", "region", "face_confidence"}
    assert [len(faces) for faces in DeepFace.analyze([photo], actions=("age",))] == [1]


@pytest.mark.weights
def test_without_a_face_it_raises_or_describes_the_whole_photo(draw: Draw) -> None:
    wall = draw("wall.png")
    with pytest.raises(NoFaceFound):
        DeepFace.analyze(wall, actions=("age",))
    (told,) = DeepFace.analyze(wall, actions=("age",), enforce_detection=False)
    assert (told["face_confidence"], told["region"]["w"]) == (0, 480)


@pytest.mark.parametrize(
    ("actions", "said"), [("race", "race"), (("age", "race"), "race"), ("mood", "mood"), ((), "actions")]
)
def test_what_has_no_network_is_refused(draw: Draw, actions: Any, said: str) -> None:
    with pytest.raises(ArgumentInvalid, match=said):
        DeepFace.analyze(draw("a.png", ANN), actions=actions)
    with pytest.raises(ModelUnknown):
        DeepFace.analyze(draw("a.png", ANN), anti_spoofing=True)
