"""``stream``: faces of a camera or a video, searched in a folder of photos, drawn into the picture."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from facedex.deepface.attributes import worded
from facedex.deepface.distances import Metric, check_metric, threshold_for
from facedex.deepface.folder import Listing, checked_folder, gallery_name
from facedex.deepface.models import DEFAULT_BACKEND, DEFAULT_MODEL, check_options, engine_for
from facedex.deepface.rows import judged
from facedex.engine import Engine, Gallery
from facedex.errors import (
    ArgumentInvalid,
    ExportUnavailable,
    ExtraMissing,
    NoFaceFound,
    PhotoNotFound,
    PhotoUnreadable,
    SourceEmpty,
)
from facedex.types import Box, Face, RgbImage
from facedex.vision.levels import Levels

__all__ = ["stream"]

_log = logging.getLogger("facedex.deepface")

_WINDOW: Final = "facedex"
_FRAMES_A_SECOND: Final = 25.0  # where a camera does not say
_SEEN, _KNOWN = (67, 67, 67), (0, 170, 0)

Write = Callable[[RgbImage], bool]
"""Takes a picture; whether to go on."""


def stream(
    db_path: str | os.PathLike[str] = "",
    model_name: str = DEFAULT_MODEL,
    detector_backend: str = DEFAULT_BACKEND,
    distance_metric: Metric = "cosine",
    enable_face_analysis: bool = True,
    source: Any = 0,
    time_threshold: int = 5,
    frame_threshold: int = 5,
    anti_spoofing: bool = False,
    output_path: str | os.PathLike[str] | None = None,
    debug: bool = False,
) -> None:
    """Watch a camera or a video until it ends, or until q is pressed in the window.

    Faces are framed. After ``frame_threshold`` pictures in a row with a face, each is searched in the folder; the
    picture with the names stays for ``time_threshold`` seconds.

    db_path      a folder as of ``find``; empty: nobody is searched.
    source       number of a camera, or the path of a video.
    enable_face_analysis  also say how each face looks, below it: age, gender, expression, as ``analyze``.
    output_path  a video file (mp4) to write instead of showing a window.
    debug        pictures with names are also written to the current folder, as ``frozen_1.png`` and so on.
    Raises       ExtraMissing without OpenCV, or without its windows when one is wanted; PhotoNotFound,
                 PhotoUnreadable, ExportUnavailable, ModelUnknown, ArgumentInvalid.
    """
    check_options(anti_spoofing=anti_spoofing)
    check_metric(distance_metric)
    for name, number in (("time_threshold", time_threshold), ("frame_threshold", frame_threshold)):
        if number < (1 if name == "frame_threshold" else 0):
            raise ArgumentInvalid(f"{name} is {number}; expected more.", argument=name, value=number)
    cv2 = _opencv()
    engine = engine_for(model_name, detector_backend)
    with ExitStack() as open_now:
        file_name = gallery_name(model_name, detector_backend)
        people = open_now.enter_context(_people(engine, db_path, file_name, distance_metric))
        frames, rate, size = open_now.enter_context(_frames(cv2, source))
        write = open_now.enter_context(_output(cv2, output_path, rate, size))
        in_a_row = frozen = shown = 0
        kept: RgbImage | None = None
        for picture in frames:
            if frozen and kept is not None:
                frozen -= 1
                if not write(kept):
                    break
                continue
            photo = Levels.of(picture)
            faces = engine.pipeline.find(photo)
            in_a_row = in_a_row + 1 if faces else 0
            drawn = _drawn(picture, faces, {})
            if in_a_row >= frame_threshold:
                in_a_row, frozen, shown = 0, round(time_threshold * rate), shown + 1
                embedded = engine.pipeline.embedded(photo)
                looks = _looks(engine, picture) if enable_face_analysis else {}
                drawn = kept = _drawn(picture, embedded, people.names(embedded), looks)
                if debug:
                    Image.fromarray(kept).save(f"frozen_{shown}.png")
            if not write(drawn):
                break


@dataclass(frozen=True, slots=True, eq=False)
class _People:
    """Who may be in the picture: a folder's gallery, if there is one, and how near is near enough."""

    gallery: Gallery | None
    paths: Mapping[str, Sequence[str]]
    metric: Metric
    limit: float

    def names(self, faces: Sequence[Face]) -> dict[int, str]:
        """What to write at each face that is known, by its place in the list."""
        names: dict[int, str] = {}
        if self.gallery is None:
            return names
        for place, found in enumerate(judged(self.gallery, faces, self.metric, self.limit, k=1)):
            if found:
                path = Path(self.paths[found[0].stored.template.photo_digest][0])
                sure = "" if found[0].confidence is None else f"  {found[0].confidence:.0f} %"
                names[place] = f"{path.parent.name}/{path.stem}{sure}"
                _log.info("%s, distance %.3f", path, found[0].distance)
        return names


@contextmanager
def _people(engine: Engine, db_path: Any, file_name: str, metric: Metric) -> Iterator[_People]:
    """The search in a folder, brought up to date once."""
    limit = threshold_for(engine, metric, None)
    if not db_path:
        yield _People(None, {}, metric, limit)
        return
    folder = checked_folder(db_path)
    with engine.open(folder / file_name) as gallery:
        try:
            paths = Listing(gallery, folder, silent=True).follow()
        except SourceEmpty as error:
            _log.warning("%s Nobody is searched.", error)
            paths = {}
        yield _People(gallery if paths else None, paths, metric, limit)


def _looks(engine: Engine, picture: RgbImage) -> dict[Box, str]:
    """What to write below each face, by its box: how it looks to the networks."""
    try:
        described = engine.analyze(picture)
    except NoFaceFound:  # none that can be aligned
        return {}
    return {
        each.face.box: "{age}, {dominant_gender}, {dominant_emotion}".format_map(worded(each)) for each in described
    }


def _drawn(
    picture: RgbImage, faces: Sequence[Face], names: Mapping[int, str], looks: Mapping[Box, str] = MappingProxyType({})
) -> RgbImage:
    if not faces:
        return picture
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    size = max(12, picture.shape[0] // 30)
    font = ImageFont.load_default(size)
    for place, face in enumerate(faces):
        colour = _KNOWN if place in names else _SEEN
        draw.rectangle(tuple(face.box), outline=colour, width=2)
        if place in names:
            where = (face.box.x1, max(0.0, face.box.y1 - size - 6))
            draw.rectangle(draw.textbbox(where, names[place], font=font), fill=colour)
            draw.text(where, names[place], fill=(255, 255, 255), font=font)
        if face.box in looks:
            draw.text((face.box.x1, face.box.y2 + 2), looks[face.box], fill=(255, 255, 255), font=font)
    return np.asarray(image)


@contextmanager
def _frames(cv2: Any, source: Any) -> Iterator[tuple[Iterator[RgbImage], float, tuple[int, int]]]:
    """The pictures of a source as RGB, how many a second, and their width and height."""
    path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    if path is not None and "://" not in path and not os.path.exists(path):
        raise PhotoNotFound(f"the video {path} does not exist.", photo=path)
    capture = cv2.VideoCapture(int(source) if path is None else path)
    try:
        if not capture.isOpened():
            what = f"camera {source}" if path is None else f"the video {path}"
            raise PhotoUnreadable(
                f"{what} cannot be opened. Give the number of a camera or a video.", photo=str(source)
            )
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        size = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))

        def pictures() -> Iterator[RgbImage]:
            while True:
                there, picture = capture.read()
                if not there:
                    return
                yield np.ascontiguousarray(picture[:, :, ::-1])

        yield pictures(), rate if 0 < rate < 1000 else _FRAMES_A_SECOND, size
    finally:
        capture.release()


@contextmanager
def _output(cv2: Any, path: str | os.PathLike[str] | None, rate: float, size: tuple[int, int]) -> Iterator[Write]:
    """Where pictures go: a video file, or a window."""
    if path is None:
        yield _window(cv2)
        cv2.destroyAllWindows()
        return
    Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(os.fspath(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
    try:
        if not writer.isOpened():
            raise ExportUnavailable(f"the video {path} cannot be written. Name an .mp4 file.", path=str(path))

        def write(picture: RgbImage) -> bool:
            writer.write(np.ascontiguousarray(picture[:, :, ::-1]))
            return True

        yield write
    finally:
        writer.release()


def _window(cv2: Any) -> Write:
    def show(picture: RgbImage) -> bool:
        try:
            cv2.imshow(_WINDOW, np.ascontiguousarray(picture[:, :, ::-1]))
            return bool((cv2.waitKey(1) & 0xFF) != ord("q"))
        except cv2.error as error:
            raise ExtraMissing(
                "this OpenCV has no windows (opencv-python-headless), or there is no display. Install "
                "'facedex[stream]' instead of it, or pass output_path= to write a video.",
                extra="stream",
            ) from error

    return show


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise ExtraMissing(
            "cameras and videos need OpenCV. Install it: pip install 'facedex[stream]'.", extra="stream"
        ) from error
    module: ModuleType = cv2
    return module
