"""Many photos at once: in order, bounded, and nothing lost when one of them fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from facedex.types import Box, Face
from facedex.vision.flow import Looked, flow

POINTS = np.zeros((5, 2), np.float32)


def looked(number: int, faces: int = 1) -> Looked[int]:
    """Crops whose first pixel tells whose they are."""
    found = tuple(Face(Box(0, 0, 1, 1), POINTS, 1.0) for _ in range(faces))
    crops = np.zeros((faces, 2, 2, 3), np.uint8)
    crops[:, 0, 0, 0], crops[:, 0, 0, 1] = number, range(faces)
    return Looked(number, found, crops)


def embed(crops: np.ndarray) -> np.ndarray:
    return crops[:, 0, 0, :2].astype(np.float32)


@pytest.mark.parametrize("cores", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100])
def test_results_come_in_order_each_with_its_own_faces(cores: int, count: int) -> None:
    def slow(number: int) -> Looked[int]:
        time.sleep(number % 3 / 2000)
        return looked(number, faces=number % 4)

    results = list(flow(range(count), slow, embed, cores))
    assert [number for number, _ in results] == list(range(count))
    for number, faces in results:
        rows = [face.embedding.tolist() for face in faces if face.embedding is not None]
        assert rows == [[number, face] for face in range(number % 4)]


def test_faces_of_several_photos_are_embedded_together_and_500_of_one_too() -> None:
    sizes: list[int] = []

    def counted(crops: np.ndarray) -> np.ndarray:
        sizes.append(len(crops))
        return embed(crops)

    assert len(list(flow(range(64), looked, counted, 1))) == 64
    assert sizes == [16] * 4
    ((_, faces),) = flow([7], lambda n: looked(n, faces=200), counted, 2)
    assert len(faces) == 200


def test_sources_are_taken_only_a_little_ahead() -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        number = 0
        while True:
            taken.append(number)
            yield number
            number += 1

    results = flow(endless(), lambda n: looked(n % 200), embed, 2)
    for _ in range(100):
        next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(taken) < 100 + 60


def test_what_a_photo_raises_ends_the_flow_after_all_results_before_it() -> None:
    def fails(number: int) -> Looked[int]:
        if number == 20:
            raise KeyboardInterrupt
        return looked(number)

    results = flow(range(100), fails, embed, 2)
    assert [next(results)[0] for _ in range(20)] == list(range(20))
    with pytest.raises(KeyboardInterrupt):
        next(results)


def test_no_thread_is_left_behind() -> None:
    before = threading.active_count()
    results = flow(range(1000), lambda n: looked(n % 200), embed, 3)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
