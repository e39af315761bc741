"""``stream``, headless: a drawn video in, a video with frames and names out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drawn import ANN, BOB, Draw
from facedex import DeepFace
from facedex.errors import (
    ArgumentInvalid,
    ExportUnavailable,
    ExtraMissing,
    ModelUnknown,
    PhotoNotFound,
    PhotoUnreadable,
)
from facedex.models.synthetic import draw_photo

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
RATE, SIZE = 5, (160, 120)
KNOWN = (0, 170, 0)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A second of a wall, three of Ann."""
    path = tmp_path / "lobby.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), RATE, SIZE)
    for n in range(4 * RATE):
        writer.write(np.ascontiguousarray(draw_photo(() if n < RATE else (ANN,), size=SIZE)[:, :, ::-1]))
    writer.release()
    return path


@pytest.fixture
def people(draw: Draw, tmp_path: Path) -> Path:
    draw("people/Ann/1.jpg", ANN, variation=0.5, seed=1)
    draw("people/Bob/1.jpg", BOB, variation=0.5, seed=2)
    return tmp_path / "people"


def pictures(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    found = []
    while (read := capture.read())[0]:
        found.append(read[1][:, :, ::-1])
    capture.release()
    return found


def named(picture: np.ndarray) -> bool:
    """Whether something green, the colour of the known, is drawn."""
    near = np.abs(picture.astype(int) - KNOWN).max(axis=2) < 60
    return bool(near.sum() > 80)


def test_a_known_face_is_named_after_some_pictures_and_stays_for_a_while(
    video: Path, people: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "seen.mp4"
    DeepFace.stream(people, source=str(video), output_path=out, time_threshold=1, enable_face_analysis=False)
    told = [named(picture) for picture in pictures(out)]
    assert len(told) == 4 * RATE
    first = told.index(True)
    assert first == RATE + 5 - 1
    assert all(told[first : first + RATE + 1])
    assert not told[first + RATE + 1]
    assert told.count(True) > RATE + 1  # and again later


def test_nobody_is_named_without_a_folder_or_in_an_empty_one(video: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("", tmp_path / "empty"):
        DeepFace.stream(
            folder, enable_face_analysis=False, source=video, output_path=tmp_path / "seen.mp4", time_threshold=0
        )
        assert not any(named(picture) for picture in pictures(tmp_path / "seen.mp4"))


def test_debugging_keeps_the_pictures_with_names(
    video: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("facedex.deepface.streaming._looks", lambda engine, picture: {})
    DeepFace.stream(people, source=video, output_path="seen.mp4", time_threshold=10, debug=True)
    assert [path.name for path in tmp_path.glob("frozen_*.png")] == ["frozen_1.png"]


def test_a_window_shows_every_picture_until_q_is_pressed(
    video: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[np.ndarray] = []
    monkeypatch.setattr(cv2, "imshow", lambda name, picture: shown.append(picture))
    monkeypatch.setattr(cv2, "waitKey", lambda wait: ord("q") if len(shown) == 3 else -1)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    DeepFace.stream(people, source=video)
    assert len(shown) == 3


def test_an_opencv_without_windows_says_what_to_do(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*arguments: object) -> None:
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(cv2, "imshow", none)
    monkeypatch.setattr(cv2, "destroyAllWindows", none)
    with pytest.raises(ExtraMissing, match=r"facedex\[stream\].*output_path"):
        DeepFace.stream(source=video)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"source": "missing.mp4"}, PhotoNotFound),
        ({"source": __file__}, PhotoUnreadable),
        ({"frame_threshold": 0}, ArgumentInvalid),
        ({"time_threshold": -1}, ArgumentInvalid),
        ({"anti_spoofing": True}, ModelUnknown),
        ({"distance_metric": "far"}, ArgumentInvalid),
        ({"db_path": "missing"}, PhotoNotFound),
    ],
)
def test_what_cannot_be_streamed_says_so(
    video: Path, arguments: dict[str, object], error: type[Exception], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error):
        DeepFace.stream(**{"source": str(video), "output_path": video.with_name("out.mp4"), **arguments})


def test_a_place_that_cannot_be_written_says_so(video: Path, tmp_path: Path) -> None:
    (tmp_path / "taken.mp4").mkdir()
    with pytest.raises(ExportUnavailable):
        DeepFace.stream(source=video, output_path=tmp_path / "taken.mp4")


def test_without_opencv_the_extra_is_named(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(ExtraMissing, match=r"facedex\[stream\]"):
        DeepFace.stream(source=video)


@pytest.mark.weights
def test_how_faces_look_is_written_below_them(video: Path, tmp_path: Path) -> None:
    plain, told = tmp_path / "plain.mp4", tmp_path / "told.mp4"
    for path, analysis in ((plain, False), (told, True)):
        DeepFace.stream(source=video, output_path=path, time_threshold=1, enable_face_analysis=analysis)
    frozen = RATE + 5 - 1
    one, other = (pictures(path)[frozen].astype(int) for path in (plain, told))
    assert np.abs(one - other).max() > 50
