"""Small faces in large photos: found at a second look, once each."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from facedex.models.synthetic import SyntheticDetector, SyntheticEmbedder, draw_photo
from facedex.types import Box, Face, RgbImage
from facedex.vision.closer import OVERLAP, TILE, _each_once, _starts
from facedex.vision.levels import Levels
from facedex.vision.pipeline import FacePipeline

POINTS = np.zeros((5, 2), np.float32)


@pytest.mark.parametrize("length", [1, 500, 640, 641, 1152, 1153, 5000])
def test_tiles_cover_a_side_and_overlap(length: int) -> None:
    starts = _starts(length)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - TILE)
    assert all(after - before <= TILE - OVERLAP for before, after in pairwise(starts))


def face(x: float, y: float, side: float, score: float = 0.9) -> Face:
    return Face(Box(x, y, x + side, y + side), POINTS, score)


def test_one_face_seen_twice_is_one_and_the_better_view_stays() -> None:
    assert [f.detection_score for f in _each_once([face(0, 0, 20, 0.8), face(1, 1, 20, 0.9)])] == [0.9]


def test_a_mouth_within_a_face_is_no_face_and_a_neighbour_is() -> None:
    large, mouth, neighbour = face(0, 0, 100), face(40, 60, 30, 0.99), face(90, 0, 30)
    assert set(_each_once([mouth, large, neighbour])) == {large, neighbour}


def paste(people: list[tuple[RgbImage, int, tuple[int, int]]], size: tuple[int, int]) -> RgbImage:
    """Photos, each made so many pixels high, on gray."""
    page = Image.new("RGB", size, (120, 120, 120))
    for photo, height, place in people:
        width = photo.shape[1] * height // photo.shape[0]
        page.paste(Image.fromarray(photo).resize((width, height), Image.Resampling.LANCZOS), place)
    return np.asarray(page)


@pytest.mark.weights
def test_faces_too_small_for_the_first_look_are_found_by_the_second(
    pipeline: FacePipeline, photos: list[RgbImage]
) -> None:
    places = [(i % 3 * 1300 + 100, i // 3 * 1400 + 300) for i in range(len(photos))]
    people = [(photo, 110, place) for photo, place in zip(photos, places, strict=True)]
    crowd = Levels.of(paste(people, (4000, 3000)))
    seen, all_of_them = pipeline.find(crowd), pipeline.find(crowd, small_faces=True)
    assert len(seen) < len(photos)
    assert len(all_of_them) == len(photos)
    for x, y in places:
        inside = [f for f in all_of_them if x <= f.box.x1 and f.box.x2 <= x + 130 and y <= f.box.y1 < y + 110]
        assert len(inside) == 1
        assert (inside[0].landmarks >= (x, y)).all()


@pytest.mark.weights
def test_a_second_look_finds_a_large_face_once(pipeline: FacePipeline, photo: RgbImage) -> None:
    large = np.asarray(Image.fromarray(photo).resize((1800, 1800 * photo.shape[0] // photo.shape[1])))
    levels = Levels.of(large)
    assert len(pipeline.find(levels, small_faces=True)) == len(pipeline.find(levels)) == 1


@pytest.mark.weights
@pytest.mark.parametrize("size", [(1, 1), (30_000, 3), (3, 30_000), (700, 700)], ids=str)
def test_photos_of_any_shape_are_looked_at_twice(pipeline: FacePipeline, size: tuple[int, int]) -> None:
    gray = np.full((size[1], size[0], 3), 128, np.uint8)
    assert pipeline.find(Levels.of(gray), small_faces=True) == []
    assert pipeline.embedded(Levels.of(gray)) == []


class Tiled(SyntheticDetector):
    """Sees nothing in larger images."""

    def detect(self, images: list[RgbImage]) -> list[list[Face]]:  # type: ignore[override]
        (image,) = images
        return [[]] if max(image.shape[:2]) > TILE else super().detect(images)


def test_tiles_are_never_larger_than_the_detector_sees() -> None:
    pipeline = FacePipeline(Tiled(), SyntheticEmbedder())
    photo = Levels.of(draw_photo((1, 2, 3, 4), size=(1900, 1500), face_size=110))
    assert pipeline.find(photo) == []
    assert len(pipeline.find(photo, small_faces=True)) == 4


@pytest.mark.weights
def test_500_faces_of_one_photo_are_found_and_embedded(pipeline: FacePipeline, photos: list[RgbImage]) -> None:
    smallest = min(photos, key=lambda p: p.size)
    people = [(smallest, 100, (i % 25 * 105, i // 25 * 105)) for i in range(500)]
    crowd = Levels.of(paste(people, (2640, 2110)))
    faces = pipeline.find(crowd, small_faces=True)
    assert len(faces) >= 495
    aligned, crops = pipeline.crops(crowd, faces)
    assert len(aligned) == len(crops) == len(faces)
