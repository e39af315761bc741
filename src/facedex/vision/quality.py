"""Quality of a face: head pose, sharpness, exposure, size, what is hidden or cut off, and one score of them all.

The score estimates how likely a good photo of the same person matches this one at the shipped threshold. *Faults* lower
it: each measure counts from a knee on, before which it does no harm, with a weight; both were fitted on faces degraded
on purpose (``benchmarks/quality.py``, ``quality.json``, docs/attributes.md).

What it cannot see: a hand or a patterned scarf over the mouth, glasses, an unlike likeness (a mask, a drawing, a wax
figure), how old the photo is. Something plain over the eyes shows, and what makes the detector doubt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

import numpy as np
import numpy.typing as npt

from facedex.errors import ArgumentInvalid, DegenerateLandmarks
from facedex.models.contract import TEMPLATE_SIZE
from facedex.types import Face, Landmarks, Pose, Quality, RgbImage
from facedex.vision.alignment import similarity_transform

MEAN_FACE: Final = np.array(
    [
        [-0.5000, -0.4165, -0.6077],
        [0.5000, -0.4165, -0.6077],
        [0.0000, 0.1788, -1.1862],
        [-0.3897, 0.6890, -0.6797],
        [0.3897, 0.6890, -0.6797],
    ]
)
"""The five landmarks of a mean face: right, down and away from the camera, in distances between the eyes.

Source  MediaPipe's canonical face model (Kartynnik et al. 2019, arXiv:1907.06724): the eyes are the middle of their
        corners (vertices 33, 133 and their mirror images) at the depth of the lids, the nose is vertex 1, the corners
        of the mouth are 61 and 291.
"""
_LEVEL: Final = 5.0
"""Degrees that faces looking into the camera seem to look down by that model: YuNet marks the nose lower than it. The
median of the AT&T faces; they scatter by 4° about it, for noses differ."""

_ACROSS: Final = MEAN_FACE - MEAN_FACE.mean(axis=0)
_SOLVER: Final = _ACROSS @ np.linalg.inv(_ACROSS.T @ _ACROSS)

_FACE: Final = slice(20, 108), slice(16, 96)  # of a crop: brows to chin, hardly any hair or background
_EYES: Final = (slice(22, 42), slice(10, 34)), (slice(22, 42), slice(46, 70))  # of that part
_LUMINANCE: Final = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_BURNT: Final = 252.5
_STEP: Final = 2  # of the second difference, in pixels of the halved crop: a ninth of the eyes' distance
_NOTEWORTHY: Final = 0.5  # in logits: a fault that matters less goes without saying


def head_pose(landmarks: Landmarks) -> Pose:
    """Yaw, pitch and roll of a head from its five landmarks, by fitting ``MEAN_FACE`` under weak perspective.

    The best affine camera is linear in the landmarks; the rotation nearest to it is the pose. One pixel of error in
    the landmarks of a face with 30 between the eyes is about 2° of yaw and pitch, and so is a long nose. Landmarks
    follow a detector's habits: those of YuNet stay more upright than a tilted head.

    landmarks  (5, 2) pixels, order in docs/glossary.md#landmarks.
    Raises     ArgumentInvalid for another shape, DegenerateLandmarks when they are not finite or fix no rotation.
    Source     Weak perspective from an affine camera: DeMenthon and Davis 1995, doi:10.1007/BF01450852 (first step).
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape != (5, 2):
        raise ArgumentInvalid(f"landmarks have shape {points.shape}; expected (5, 2)", shape=points.shape)
    if not np.isfinite(points).all():
        raise _no_pose(points)
    camera = (points - points.mean(axis=0)).T @ _SOLVER  # (2, 3): the affine camera
    turn, scales, axes = np.linalg.svd(camera, full_matrices=False)
    if scales[1] < 1e-6 * max(scales[0], 1.0):
        raise _no_pose(points)
    across, down = turn @ axes  # the rows of the nearest rotation; the third follows from them
    away = np.cross(across, down)
    yaw = math.asin(min(1.0, max(-1.0, float(away[0]))))
    pitch = math.atan2(float(away[1]), float(away[2]))
    roll = math.atan2(float(down[0]), float(across[0]))
    return Pose(math.degrees(yaw), math.degrees(pitch) - _LEVEL, math.degrees(roll))


def _no_pose(points: npt.NDArray[np.float64]) -> DegenerateLandmarks:
    listed = np.round(points, 2).tolist()
    return DegenerateLandmarks(
        f"landmarks {listed} coincide, lie on a line or are not finite; they show no pose. Skip this face.",
        landmarks=listed,
    )


def assess(face: Face, crop: RgbImage, photo_size: tuple[int, int]) -> Quality:
    """The quality of one face of a photo, in a fraction of a millisecond.

    crop        the face as ``align_face`` cuts it out by default.
    photo_size  width and height of the photo in pixels, for what is cut off.
    Raises      DegenerateLandmarks.
    """
    measures = measure(face, crop, photo_size)
    score, faults = rate(measures)
    return Quality(
        score=score,
        faults=faults,
        sharpness=measures.sharpness,
        contrast=measures.contrast,
        overexposed=measures.overexposed,
        eyes=measures.eyes,
        eye_distance=measures.eye_distance,
        inside=measures.inside,
        pose=measures.pose,
    )


@dataclass(frozen=True, slots=True)
class Measures:
    """What the score is made of; the fields of ``Quality``, and the detection score."""

    sharpness: float
    contrast: float
    overexposed: float
    eyes: float
    eye_distance: float
    inside: float
    pose: Pose
    detection_score: float


def measure(face: Face, crop: RgbImage, photo_size: tuple[int, int]) -> Measures:
    """Everything that is measured of a face; see ``assess``."""
    luminance = crop[_FACE].astype(np.float32) @ _LUMINANCE
    whole = float(luminance.var())
    left, right = face.landmarks[:2]
    return Measures(
        sharpness=_sharpness(luminance),
        contrast=math.sqrt(whole) / 255,
        overexposed=float(np.count_nonzero(luminance > _BURNT)) / luminance.size,
        eyes=max(float(luminance[eye].var()) for eye in _EYES) / (whole + 1),
        eye_distance=math.hypot(*(right - left)),
        inside=_inside(face.landmarks, *photo_size),
        pose=head_pose(face.landmarks),
        detection_score=face.detection_score,
    )


def _sharpness(luminance: npt.NDArray[np.float32]) -> float:
    """Variance of the second difference, relative to all variance, in the direction that has least of it.

    The crop is halved first, which takes out most of a sensor's noise; a hard blur in one direction, of motion, takes
    the details of that direction. Since a crop has one scale, so has this measure.
    """
    height, width = luminance.shape
    halved = luminance.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    s, inner = _STEP, slice(_STEP, -_STEP)
    middle = 2 * halved[inner, inner]
    both_ways = (
        halved[inner, 2 * s :] + halved[inner, : -2 * s],
        halved[2 * s :, inner] + halved[: -2 * s, inner],
        halved[2 * s :, 2 * s :] + halved[: -2 * s, : -2 * s],
        halved[2 * s :, : -2 * s] + halved[: -2 * s, 2 * s :],
    )
    return float(min((pair - middle).var() for pair in both_ways)) / (float(halved.var()) + 1)


def _inside(landmarks: Landmarks, width: int, height: int) -> float:
    """Share of the crop's pixels that come from the photo, on a grid."""
    (a, b, x), (c, d, y) = similarity_transform(landmarks)
    scale = a * a + c * c  # of a similarity, whose inverse is its transpose over this
    steps = np.linspace(0, TEMPLATE_SIZE - 1, 15)
    across, down = (a * (steps - x)) / scale, (c * (steps - y)) / scale
    columns = across + down[:, None]
    rows = (b * (steps - x)) / scale + ((d * (steps - y)) / scale)[:, None]
    within = (columns > -0.5) & (columns < width - 0.5) & (rows > -0.5) & (rows < height - 0.5)
    return float(within.mean())


def _off_axis(pose: Pose) -> float:
    """Degrees between where the nose points and the camera."""
    return math.degrees(math.acos(math.cos(math.radians(pose.yaw)) * math.cos(math.radians(pose.pitch))))


def _lack(value: float) -> float:
    return -math.log10(max(value, 1e-4))


BADNESS: Final[Mapping[str, Callable[[Measures], float]]] = {
    "blurred": lambda m: _lack(m.sharpness),
    "low contrast": lambda m: _lack(m.contrast),
    "overexposed": lambda m: m.overexposed,
    "eyes hidden": lambda m: _lack(m.eyes),
    "small": lambda m: -math.log2(max(m.eye_distance, 1.0)),
    "cut off": lambda m: 1 - m.inside,
    "turned away": lambda m: _off_axis(m.pose) / 10,
    "hard to detect": lambda m: 10 * (1 - m.detection_score),
}
"""Name of a fault → how bad a face is in that respect; rises as it gets worse. ``quality.json`` is in these scales."""


def rate(measures: Measures) -> tuple[float, tuple[str, ...]]:
    """The score, 0…1, and the faults that lower it noticeably, the worst first."""
    intercept, shipped = weights()
    losses = {name: weight * max(0.0, BADNESS[name](measures) - knee) for name, knee, weight in shipped}
    score = 1 / (1 + math.exp(min(500.0, sum(losses.values()) - intercept)))
    faults = sorted((name for name, loss in losses.items() if loss >= _NOTEWORTHY), key=lambda name: -losses[name])
    return score, tuple(faults)


@cache
def weights() -> tuple[float, tuple[tuple[str, float, float], ...]]:
    """The shipped intercept; name, knee and weight of each fault."""
    plain = json.loads(resources.files("facedex.vision").joinpath("quality.json").read_text("utf-8"))
    return plain["intercept"], tuple((name, each["knee"], each["weight"]) for name, each in plain["faults"].items())
