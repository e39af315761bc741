"""Age, gender and expression: the networks answer as their originals do, and what is wrong is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import facedex
from drawn import ANN
from facedex.errors import ArgumentInvalid, ModelInvalid, NoFaceFound, WeightsMissing
from facedex.models.catalog import CARDS, card
from facedex.models.recipes import emotion
from facedex.models.runtime import Model
from facedex.models.synthetic import draw_photo
from facedex.settings import Settings
from facedex.types import Face, RgbImage
from facedex.vision.attributes import ACTIONS, CLASSES, Classifier, describe
from facedex.vision.levels import Levels
from facedex.vision.pipeline import FacePipeline

GOLDEN = Path(__file__).parent.parent / "golden" / "attributes"


@pytest.fixture(scope="session")
def classifiers(pipeline: FacePipeline) -> dict[str, Classifier]:
    """The real networks; skipped where the pipeline is."""
    return {action: Classifier.load(action, Settings()) for action in ACTIONS}


@pytest.mark.weights
@pytest.mark.parametrize("action", ACTIONS)
def test_a_network_answers_as_in_its_original_runtime(classifiers: dict[str, Classifier], action: str) -> None:
    expected = json.loads((GOLDEN / "expected.json").read_text("utf-8"))
    stems = [stem for stem in expected if stem.endswith(f"-{action}")]
    assert len(stems) == 3
    crops = np.stack([np.asarray(Image.open(GOLDEN / f"{stem}.png")) for stem in stems])
    found = classifiers[action].probabilities(crops)
    assert abs(found - np.array([expected[stem] for stem in stems])).max() < 1e-5


@pytest.mark.weights
def test_every_face_is_described_in_full_and_together_as_alone(
    classifiers: dict[str, Classifier], pipeline: FacePipeline, photo: RgbImage
) -> None:
    faces = pipeline.detect([photo])[0]
    (alone,) = describe(Levels.of(photo), faces[:1], classifiers)
    together = describe(Levels.of(photo), [faces[0]] * 40, classifiers)[-1]
    assert alone.age is not None
    assert alone.gender is not None
    assert alone.emotion is not None
    assert 0 < alone.age.years < 81
    assert 0 < alone.age.spread < 40
    assert tuple(alone.gender) == CLASSES["gender"]
    assert tuple(alone.emotion) == CLASSES["emotion"]
    assert sum(alone.gender.values()) == pytest.approx(1)
    assert sum(alone.emotion.values()) == pytest.approx(1)
    assert alone.quality == alone.face.quality
    assert alone.pose == alone.quality.pose
    assert together.age is not None
    assert together.age.years == pytest.approx(alone.age.years, abs=1e-3)


@pytest.mark.weights
def test_a_photo_is_read_the_same_from_rgb_and_from_opencvs_bgr(photos: list[RgbImage]) -> None:
    engine, photo = facedex.Engine(), photos[0]
    one, other = engine.analyze(photo)[0], engine.analyze(np.ascontiguousarray(photo[..., ::-1]), bgr=True)[0]
    assert (one.age, one.gender, one.emotion) == (other.age, other.gender, other.emotion)


@pytest.mark.weights
def test_only_what_was_asked_for_is_answered(photos: list[RgbImage]) -> None:
    (found, *_) = facedex.Engine().analyze(photos[0], actions=("age",))
    assert found.age is not None
    assert (found.gender, found.emotion) == (None, None)
    (found, *_) = facedex.Engine().analyze(photos[0], actions="gender")
    assert found.gender is not None


def test_pose_and_quality_need_no_network(engine: facedex.Engine) -> None:
    (found,) = engine.analyze(draw_photo([ANN]), actions=())
    assert (found.age, found.gender, found.emotion) == (None, None, None)
    assert abs(found.pose.yaw) < 2
    assert found.face.quality == found.quality


def test_a_photo_without_a_face_has_nothing_to_describe(engine: facedex.Engine) -> None:
    for photo in (draw_photo([]), np.zeros((1, 1, 3), np.uint8), np.zeros((3, 3000, 3), np.uint8)):
        with pytest.raises(NoFaceFound, match="no face found"):
            engine.analyze(photo, actions=())


def test_faces_that_cannot_be_aligned_are_left_out() -> None:
    bent = Face(facedex.Box(0, 0, 10, 10), np.full((5, 2), 5, np.float32), 0.9)
    assert describe(Levels.of(np.zeros((20, 20, 3), np.uint8)), [bent], {}) == []


def test_an_action_nobody_can_answer_is_refused_before_anything_is_loaded(engine: facedex.Engine) -> None:
    with pytest.raises(ArgumentInvalid, match=r"'race'.*on purpose") as caught:
        engine.analyze(draw_photo([ANN]), actions=("age", "race"))
    assert caught.value.known == ACTIONS


def test_missing_weights_are_answered_with_the_command_that_brings_them(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"dlib-age.*`facedex models pull"):
        Classifier.load("age", Settings(models_dir=tmp_path))


@pytest.mark.weights
def test_a_network_under_another_ones_card_is_refused(classifiers: dict[str, Classifier]) -> None:
    with pytest.raises(ModelInvalid, match="dlib-age"):
        Classifier(classifiers["gender"].model, card("dlib-age"))
    with pytest.raises(ArgumentInvalid, match="describes no classifier"):
        Classifier(classifiers["gender"].model, card("sface"))


@pytest.mark.weights
def test_answers_that_are_no_probabilities_are_not_passed_on(
    classifiers: dict[str, Classifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = classifiers["gender"]
    monkeypatch.setattr(Model, "run", lambda self, feed: {"probabilities": np.full((1, 2), np.nan, np.float32)})
    with pytest.raises(ModelInvalid, match="no probabilities"):
        network.probabilities(np.zeros((1, 32, 32, 3), np.uint8))


def test_each_action_has_one_network_in_the_catalog() -> None:
    assert [sum(card.task == action for card in CARDS) for action in ACTIONS] == [1, 1, 1]


@pytest.mark.parametrize("data", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(200)], ids=["empty", "text", "torn"])
def test_a_file_that_is_not_the_emotion_network_is_no_network(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        emotion.mini_xception(data)
