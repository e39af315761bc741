"""Five landmarks onto the ArcFace template."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from facedex.errors import ArgumentInvalid, DegenerateLandmarks, PhotoArrayInvalid
from facedex.vision.alignment import ARCFACE_TEMPLATE, align_face, align_faces, similarity_transform

angles = st.floats(-np.pi, np.pi)
scales = st.floats(0.1, 20)
shifts = st.tuples(st.floats(-200, 2000), st.floats(-200, 2000))


def moved(points: np.ndarray, angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (scale * points @ turn.T + shift).astype(np.float64)


def scene(height: int = 300, width: int = 240, seed: int = 0) -> np.ndarray:
    """Smooth random colours: neighbouring pixels differ by a few levels."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def test_a_face_that_lies_on_the_template_is_only_cut_out() -> None:
    image = scene()
    crop = align_face(image, ARCFACE_TEMPLATE + np.float32([30, 50]))
    assert crop.shape == (112, 112, 3)
    assert crop.dtype == np.uint8
    assert abs(crop.astype(int) - image[50:162, 30:142]).max() <= 1


@given(angle=angles, scale=scales, shift=shifts)
def test_the_transform_undoes_any_turn_scale_and_shift(angle: float, scale: float, shift: tuple[float, float]) -> None:
    points = moved(ARCFACE_TEMPLATE, angle, scale, shift)
    matrix = similarity_transform(points)
    np.testing.assert_allclose(points @ matrix[:, :2].T + matrix[:, 2], ARCFACE_TEMPLATE, atol=1e-4)


@given(noise=arrays.arrays(np.float64, (5, 2), elements=st.floats(-8, 8)), angle=angles)
def test_no_other_similarity_comes_closer_to_the_template(noise: np.ndarray, angle: float) -> None:
    points = moved(ARCFACE_TEMPLATE + noise, angle, 2.0, (10, 20))
    matrix = similarity_transform(points)

    def miss(m: np.ndarray) -> float:
        return float(((points @ m[:, :2].T + m[:, 2] - ARCFACE_TEMPLATE) ** 2).sum())

    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b, x, y = rng.normal(scale=[1e-3, 1e-3, 0.1, 0.1])
        assert miss(matrix + np.array([[a, -b, x], [b, a, y]])) >= miss(matrix) - 1e-9


@settings(deadline=None)
@given(angle=angles, scale=st.floats(0.3, 4), shift=st.tuples(st.floats(-150, 300), st.floats(-150, 300)))
def test_the_crop_is_that_of_opencv_inside_and_beyond_the_edge(
    angle: float, scale: float, shift: tuple[float, float]
) -> None:
    image = scene()
    points = moved(ARCFACE_TEMPLATE, angle, scale, shift).astype(np.float32)
    ours = align_face(image, points).astype(int)
    theirs = cv2.warpAffine(image, similarity_transform(points), (112, 112)).astype(int)
    difference = abs(ours - theirs)
    assert difference.mean() < 0.5
    # OpenCV rounds coordinates to 1/32 pixel: up to 255 / 32 levels where a bright edge meets the black outside.
    assert difference.max() <= 16


@pytest.mark.parametrize("turn", [0, 1, 2, 3], ids=["0°", "90°", "180°", "270°"])
def test_turning_the_photo_leaves_the_crop_as_it_was(turn: int) -> None:
    image = scene(240, 240)
    points = ARCFACE_TEMPLATE * 1.5 + np.float32([20, 30])
    turned = points.copy()
    for _ in range(turn):  # np.rot90 takes (x, y) to (y, W − 1 − x)
        turned = np.stack([turned[:, 1], 239 - turned[:, 0]], axis=1)
    crop = align_face(np.rot90(image, turn), turned)
    assert abs(crop.astype(int) - align_face(image, points)).max() <= 1


def test_enlarging_the_photo_leaves_the_crop_almost_as_it_was() -> None:
    image = scene()
    points = ARCFACE_TEMPLATE + np.float32([30, 50])
    large = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    crop = align_face(large, (points + 0.5) * 2 - 0.5)
    assert abs(crop.astype(int) - align_face(image, points)).mean() < 2


def test_a_larger_crop_shows_the_same_face() -> None:
    image = scene()
    points = ARCFACE_TEMPLATE + np.float32([30, 50])
    halved = cv2.resize(align_face(image, points, size=224), (112, 112), interpolation=cv2.INTER_AREA)
    assert abs(halved.astype(int) - align_face(image, points)).mean() < 2


def test_outside_the_photo_is_black() -> None:
    white = np.full((112, 112, 3), 255, np.uint8)
    crop = align_face(white, ARCFACE_TEMPLATE + np.float32([56, 0]))  # the face hangs over the right edge
    assert (crop[:, :55] == 255).all()
    assert (crop[:, 57:] == 0).all()


@pytest.mark.parametrize("shift", [(-1e4, 0), (1e4, 0), (0, -1e6), (0, 1e6), (3e7, -3e7)])
def test_a_face_far_outside_the_photo_is_all_black(shift: tuple[float, float]) -> None:
    assert not align_face(scene(), ARCFACE_TEMPLATE.astype(np.float64) + shift).any()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (500, 1, 3), (2, 2, 3)])
def test_photos_of_a_few_pixels_are_no_special_case(shape: tuple[int, int, int]) -> None:
    image = np.full(shape, 200, np.uint8)
    crop = align_face(image, ARCFACE_TEMPLATE)
    assert crop[0, 0].tolist() == [200, 200, 200]
    assert crop[-1, -1].tolist() == [0, 0, 0]


def test_the_last_pixels_of_a_photo_are_read_and_none_beyond() -> None:
    image = scene(112, 112)
    assert abs(align_face(image, ARCFACE_TEMPLATE).astype(int) - image).max() <= 1


def test_a_view_into_a_larger_array_gives_the_same_crop() -> None:
    image = scene()
    points = ARCFACE_TEMPLATE + np.float32([30, 50])
    mirrored = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    assert not mirrored.flags.c_contiguous
    np.testing.assert_array_equal(align_face(mirrored, points), align_face(image, points))
    np.testing.assert_array_equal(align_face(image[10:, 10:], points - 10), align_face(image, points))


def test_several_faces_are_aligned_as_each_alone() -> None:
    image = scene()
    faces = [ARCFACE_TEMPLATE + np.float32([k, 2 * k]) for k in (0, 10, 60)]
    together = align_faces(image, faces)
    assert together.shape == (3, 112, 112, 3)
    np.testing.assert_array_equal(together, [align_face(image, face) for face in faces])
    assert align_faces(image, []).shape == (0, 112, 112, 3)


def degenerate() -> dict[str, np.ndarray]:
    line = np.stack([np.arange(5.0), 2 * np.arange(5.0)], axis=1)
    not_finite, infinite = ARCFACE_TEMPLATE.copy(), ARCFACE_TEMPLATE.copy()
    not_finite[2, 1], infinite[0, 0] = np.nan, np.inf
    return {
        "on a line": line,
        "on a level line": np.stack([np.arange(5.0), np.full(5, 7.0)], axis=1),
        "in one point": np.full((5, 2), 50.0),
        "in almost one point": ARCFACE_TEMPLATE * 1e-4,
        "not a number": not_finite,
        "infinite": infinite,
    }


@pytest.mark.parametrize("name", degenerate())
def test_landmarks_that_fix_no_face_are_refused(name: str) -> None:
    with pytest.raises(DegenerateLandmarks):
        align_face(scene(), degenerate()[name])


@given(arrays.arrays(np.float32, (5, 2), elements=st.floats(width=32)))
@settings(deadline=None)
def test_any_landmarks_give_a_crop_or_a_refusal(points: np.ndarray) -> None:
    try:
        crop = align_face(scene(40, 40), points)
    except DegenerateLandmarks:
        return
    assert crop.shape == (112, 112, 3)


def test_landmarks_of_another_shape_are_refused() -> None:
    with pytest.raises(ArgumentInvalid, match=r"\(68, 2\)"):
        align_face(scene(), np.zeros((68, 2), np.float32))
    with pytest.raises(ArgumentInvalid, match="size is 0"):
        align_face(scene(), ARCFACE_TEMPLATE, size=0)


@pytest.mark.parametrize(
    "image",
    [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)],
    ids=["gray", "alpha", "floats", "empty"],
)
def test_images_of_another_kind_are_refused(image: np.ndarray) -> None:
    with pytest.raises(PhotoArrayInvalid):
        align_face(image, ARCFACE_TEMPLATE)
