"""Head pose and quality: what is measured moves with what is done to a photo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageFilter

from facedex.errors import ArgumentInvalid, DegenerateLandmarks, PhotoArrayInvalid
from facedex.models.contract import ARCFACE_TEMPLATE
from facedex.types import Box, Face, Pose, Quality, RgbImage
from facedex.vision import quality
from facedex.vision.alignment import align_face
from facedex.vision.pipeline import FacePipeline
from facedex.vision.quality import BADNESS, MEAN_FACE, Measures, assess, head_pose, rate


def turned(pose: Pose) -> np.ndarray:
    """The rotation that nods, then turns, then tilts; written out anew, after the words of ``Pose``."""
    yaw, pitch, roll = np.radians([pose.yaw, pose.pitch + 5, pose.roll])  # 5°: what level faces seem to look down
    nod = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    turn = [[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]]
    tilt = [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    return np.array(tilt) @ np.array(turn) @ np.array(nod)


def landmarks(pose: Pose, scale: float = 60, shift: tuple[float, float] = (200, 150)) -> np.ndarray:
    return ((MEAN_FACE @ turned(pose).T)[:, :2] * scale + shift).astype(np.float32)


poses = st.builds(Pose, st.floats(-80, 80), st.floats(-60, 60), st.floats(-179, 179))


def apart(one: float, other: float) -> float:
    return abs((one - other + 180) % 360 - 180)


# Pose


@given(pose=poses, scale=st.floats(5, 2000), x=st.floats(-500, 5000), y=st.floats(-500, 5000))
@settings(deadline=None)
def test_a_face_projected_at_a_pose_shows_that_pose(pose: Pose, scale: float, x: float, y: float) -> None:
    found = head_pose(landmarks(pose, scale, (x, y)))
    assert apart(found.yaw, pose.yaw) < 0.5
    assert apart(found.pitch, pose.pitch) < 0.5
    assert apart(found.roll, pose.roll) < 0.5


@given(pose=poses, angle=st.floats(-170, 170))
@settings(deadline=None)
def test_turning_the_photo_only_rolls_the_head(pose: Pose, angle: float) -> None:
    points, turn = landmarks(pose), np.radians(angle)
    around = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    found, before = head_pose(around), head_pose(points)
    assert (found.yaw, found.pitch) == pytest.approx((before.yaw, before.pitch), abs=0.1)
    assert apart(found.roll, before.roll + angle) < 0.1


@given(pose=poses)
@settings(deadline=None)
def test_a_mirrored_face_looks_the_other_way(pose: Pose) -> None:
    points = landmarks(pose)
    mirrored = points[[1, 0, 2, 4, 3]] * [-1, 1]
    found, before = head_pose(mirrored), head_pose(points)
    assert found.yaw == pytest.approx(-before.yaw, abs=0.1)
    assert found.pitch == pytest.approx(before.pitch, abs=0.1)
    assert apart(found.roll, -before.roll) < 0.1


def test_left_and_right_are_those_of_the_photo() -> None:
    right, down, clockwise = (landmarks(p) for p in (Pose(30, 0, 0), Pose(0, 30, 0), Pose(0, 0, 30)))
    level = landmarks(Pose(0, 0, 0))
    middle = lambda points: points[[0, 1, 3, 4]].mean(axis=0)  # noqa: E731
    assert right[2, 0] - middle(right)[0] > 10  # the nose, from the middle of eyes and mouth
    assert (down[2] - middle(down))[1] > (level[2] - middle(level))[1] + 10
    assert clockwise[1, 1] > clockwise[0, 1] + 10  # the image-right eye is lower


def test_a_pixel_of_noise_moves_the_pose_by_a_few_degrees() -> None:
    rng = np.random.default_rng(0)
    points = landmarks(Pose(10, 0, 0), scale=40)
    found = [head_pose(points + rng.normal(0, 1, (5, 2))) for _ in range(300)]
    assert np.std([pose.yaw for pose in found]) < 5
    assert np.std([pose.pitch for pose in found]) < 5


@given(arrays.arrays(np.float32, (5, 2), elements=st.floats(width=32)))
@settings(deadline=None)
def test_any_landmarks_give_a_pose_or_a_refusal(points: np.ndarray) -> None:
    try:
        pose = head_pose(points)
    except DegenerateLandmarks:
        return
    assert np.isfinite([pose.yaw, pose.pitch, pose.roll]).all()


@pytest.mark.parametrize(
    "points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.arange(10.0).reshape(5, 2)], ids=["point", "nan", "line"]
)
def test_landmarks_that_show_no_pose_are_refused(points: np.ndarray) -> None:
    with pytest.raises(DegenerateLandmarks):
        head_pose(points)
    with pytest.raises(ArgumentInvalid, match=r"\(68, 2\)"):
        head_pose(np.zeros((68, 2)))


# Measures


def scene(seed: int = 0, side: int = 300) -> RgbImage:
    """Details of all sizes, as natural pictures have them: each octave as strong as the next."""
    rng = np.random.default_rng(seed)
    light = np.full((side, side), 128.0)
    for cells in (4, 8, 16, 32, 64, 128):
        noise = Image.fromarray(rng.normal(0, 16, (cells, cells)).astype(np.float32))
        light += np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC))
    return np.repeat(np.clip(light, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def face_at(scale: float = 1.0, shift: tuple[float, float] = (90, 90)) -> Face:
    points = (ARCFACE_TEMPLATE * scale + np.float32(shift)).astype(np.float32)
    x, y = shift
    return Face(Box(x, y, x + 112 * scale, y + 112 * scale), points, 0.95)


def looked_at(image: RgbImage, scale: float = 1.0, shift: tuple[float, float] = (90, 90)) -> Quality:
    face = face_at(scale, shift)
    return assess(face, align_face(image, face.landmarks), (image.shape[1], image.shape[0]))


@given(seed=st.integers(0, 1000), first=st.floats(0.3, 4), more=st.floats(1.3, 3))
@settings(deadline=None, max_examples=40)
def test_blur_always_takes_sharpness_and_never_adds_to_the_score(seed: int, first: float, more: float) -> None:
    picture = Image.fromarray(scene(seed))
    blurred = [np.asarray(picture.filter(ImageFilter.GaussianBlur(r))) for r in (first, first * more)]
    sharp, less, least = (looked_at(image) for image in (scene(seed), *blurred))
    assert sharp.sharpness > less.sharpness > least.sharpness
    assert sharp.score >= less.score >= least.score


@pytest.mark.parametrize("axis", [0, 1])
def test_blur_in_one_direction_counts_as_blur(axis: int) -> None:
    image = scene()
    moved = sum(np.roll(image.astype(np.float32), k, axis) for k in range(-5, 6)) / 11
    assert looked_at(moved.astype(np.uint8)).sharpness < 0.25 * looked_at(image).sharpness


@given(seed=st.integers(0, 1000), by=st.floats(1.5, 6))
@settings(deadline=None, max_examples=30)
def test_a_smaller_photo_of_a_face_is_less_sharp_and_says_its_size(seed: int, by: float) -> None:
    image = scene(seed)
    side = round(300 / by)
    scale = side / 300
    small = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX))
    before, after = looked_at(image), looked_at(small, scale, (90 * scale, 90 * scale))
    assert after.sharpness < before.sharpness
    assert after.score <= before.score
    assert after.eye_distance == pytest.approx(before.eye_distance * scale, rel=0.01)


def test_sharpness_does_not_depend_on_the_size_of_the_photo() -> None:
    image = scene()
    large = np.asarray(Image.fromarray(image).resize((1200, 1200), Image.Resampling.BICUBIC))
    assert looked_at(large, 4, (360, 360)).sharpness == pytest.approx(looked_at(image).sharpness, rel=0.1)


def test_darkness_takes_contrast_and_too_much_light_burns_out() -> None:
    image = scene()
    dark, bright = (image * 0.2).astype(np.uint8), np.clip(image * 2.5, 0, 255).astype(np.uint8)
    assert looked_at(dark).contrast < 0.3 * looked_at(image).contrast
    assert looked_at(image).overexposed == 0
    assert looked_at(bright).overexposed > 0.5


def test_something_plain_over_both_eyes_shows() -> None:
    image = scene()
    covered = image.copy()
    covered[90 + 42 : 90 + 62, 90 + 26 : 90 + 86] = 90
    assert looked_at(covered).eyes < 0.1 * looked_at(image).eyes


@pytest.mark.parametrize(("shift", "inside"), [((0, 0), 1), ((-56, 0), 0.5), ((-56, -56), 0.25), ((400, 0), 0)])
def test_the_share_of_a_face_that_lies_in_the_photo(shift: tuple[float, float], inside: float) -> None:
    assert looked_at(scene(), 1, shift).inside == pytest.approx(inside, abs=0.05)


def test_a_flat_gray_face_is_measured_and_worth_little() -> None:
    found = looked_at(np.full((300, 300, 3), 128, np.uint8))
    assert (found.sharpness, found.contrast, found.eyes) == (0, 0, 0)
    assert found.score < 0.5


def test_a_photo_of_one_pixel_has_a_quality_too() -> None:
    found = looked_at(np.zeros((1, 1, 3), np.uint8))
    assert 0 <= found.score < 0.5
    with pytest.raises(PhotoArrayInvalid):
        looked_at(np.zeros((5, 5), np.uint8))


# The score

GOOD = Measures(0.4, 0.16, 0.0, 0.5, 60.0, 1.0, Pose(0, 0, 0), 0.95)
changes = st.fixed_dictionaries(
    {
        "sharpness": st.floats(0, 1),
        "contrast": st.floats(0, 0.5),
        "overexposed": st.floats(0, 1),
        "eyes": st.floats(0, 2),
        "eye_distance": st.floats(0, 500),
        "inside": st.floats(0, 1),
        "pose": st.builds(Pose, st.floats(-90, 90), st.floats(-90, 90), st.just(0.0)),
        "detection_score": st.floats(0.5, 1),
    }
)


@given(one=changes, other=changes)
@settings(deadline=None)
def test_worse_in_one_respect_and_better_in_none_never_scores_higher(one: dict, other: dict) -> None:
    first, second = Measures(**one), Measures(**other)
    worse = all(badness(second) >= badness(first) for badness in BADNESS.values())
    assume(worse or all(badness(second) <= badness(first) for badness in BADNESS.values()))
    low, high = (second, first) if worse else (first, second)
    assert rate(low)[0] <= rate(high)[0]


@pytest.mark.parametrize("name", [name for name, *_ in quality.weights()[1]])
def test_every_shipped_fault_lowers_the_score_and_is_named(name: str) -> None:
    worst = {
        "blurred": {"sharpness": 0.003},
        "low contrast": {"contrast": 0.001},
        "overexposed": {"overexposed": 1.0},
        "eyes hidden": {"eyes": 0.0001},
        "small": {"eye_distance": 1.0},
        "cut off": {"inside": 0.0},
        "turned away": {"pose": Pose(89, 0, 0)},
        "hard to detect": {"detection_score": 0.3},
    }
    score, faults = rate(replace(GOOD, **worst[name]))
    assert score < rate(GOOD)[0]
    # Hidden eyes cost little by themselves, as fitted: the detector's doubt is the better sign of them.
    assert faults == (() if name == "eyes hidden" else (name,))


def test_a_good_face_has_no_faults() -> None:
    score, faults = rate(GOOD)
    assert score > 0.9
    assert faults == ()


@pytest.mark.weights
def test_a_real_portrait_is_good_and_a_blurred_or_distant_one_is_worse(pipeline: FacePipeline, photo: RgbImage) -> None:
    good = pipeline.faces([photo])[0][0].quality
    assert good is not None
    assert good.score > 0.9
    assert good.faults == ()
    picture = Image.fromarray(photo)
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(good.eye_distance / 7)))
    far = np.asarray(picture.resize([max(1, round(side * 8 / good.eye_distance)) for side in picture.size]))
    for face in pipeline.faces([blurred])[0][:1]:
        assert face.quality is not None
        assert face.quality.score < 0.7
        assert "blurred" in face.quality.faults
    for face in pipeline.faces([far])[0][:1]:
        assert face.quality is not None
        assert face.quality.score < good.score


@pytest.mark.weights
def test_a_mirrored_portrait_looks_the_other_way(pipeline: FacePipeline, photo: RgbImage) -> None:
    one = pipeline.faces([photo])[0][0].quality
    other = pipeline.faces([np.ascontiguousarray(photo[:, ::-1])])[0][0].quality
    assert one is not None
    assert other is not None
    assert one.pose.yaw == pytest.approx(-other.pose.yaw, abs=10)  # YuNet is no mirror
    assert one.pose.roll == pytest.approx(-other.pose.roll, abs=6)
    assert one.sharpness == pytest.approx(other.sharpness, rel=0.25)
