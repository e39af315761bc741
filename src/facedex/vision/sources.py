"""What a user hands over to be enrolled or searched — a folder, a photo, a list of either — as single photos."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import numpy as np

from facedex.errors import ArgumentInvalid, PhotoNotFound, PhotoUnreadable, SourceEmpty
from facedex.types import Metadata, PhotoFailure
from facedex.vision.links import has_scheme, masked

__all__ = ["EXTENSIONS", "PhotoSource", "find_photos", "is_single"]

EXTENSIONS: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
"""Names that end so, in any case, are taken for photos in a folder. A photo named on its own may be called anything."""

_log = logging.getLogger("facedex.vision")


@dataclass(frozen=True, slots=True, eq=False)
class PhotoSource:
    """One photo to be read.

    source    what ``load_photo`` takes.
    name      how to call it in reports: the path as given, the link without its password, or its number in the list.
    folder    the name of the folder it lies in, for ``label="folder"``; None when it lies in none.
    metadata  of its templates, beside what is said of all photos.
    """

    source: Any
    name: str
    folder: str | None = None
    metadata: Metadata = field(default_factory=dict)


def find_photos(source: Any, *, report: Callable[[PhotoFailure], None] | None = None) -> Iterator[PhotoSource]:
    """The photos of a folder, a single photo, or an iterable of folders and photos.

    source   whatever ``load_photo`` takes, the path of a folder, or an iterable of these, which is taken from only as
             the photos are asked for.
    report   called for each subfolder that cannot be read; the others are unaffected. By default it is logged.
    Returns  an iterator. Of a folder: its photos by extension, sorted by name, then those of its subfolders, sorted;
             hidden files and folders are skipped, links are followed, and no folder is looked through twice.
             A photo of a list that is missing is among them and fails when it is read, like a damaged one.
    Raises   at the call: PhotoNotFound for a single path that does not exist, SourceEmpty for a folder or list without
             photos, ArgumentInvalid for what can be none of these.
    """
    problems: list[PhotoFailure] = []

    def note(problem: PhotoFailure) -> None:
        problems.append(problem)
        if report is not None:
            report(problem)
        else:
            _log.warning("%s", problem.message)

    photos = _photos(source, note)
    try:
        first = next(photos)
    except StopIteration:
        raise _empty(source, problems) from None
    return chain([first], photos)


def is_single(source: Any) -> bool:
    """Whether it is one photo, rather than a folder or a list of them."""
    return _is_one(source) and not (_is_path(source) and os.path.isdir(source))


def _photos(source: Any, note: Callable[[PhotoFailure], None]) -> Iterator[PhotoSource]:
    if _is_one(source):
        if _is_path(source) and not os.path.lexists(path := os.fspath(source)):
            raise PhotoNotFound(f"{_shown(path) or 'an empty path'} does not exist.", photo=_shown(path))
        yield from _of_one(source, "photo 1", note)
    elif isinstance(source, Iterable) and not isinstance(source, Mapping):
        for number, one in enumerate(source, 1):
            if not _is_one(one):
                raise ArgumentInvalid(
                    f"item {number} of the list is a {type(one).__name__}, neither a photo nor a folder.",
                    argument="source",
                    kind=type(one).__name__,
                )
            yield from _of_one(one, f"photo {number}", note)
    else:
        raise ArgumentInvalid(
            f"photos cannot be found in a {type(source).__name__}. Give a folder, a photo, or a list of them.",
            argument="source",
            kind=type(source).__name__,
        )


def _is_one(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview, np.ndarray, PhotoSource)) or hasattr(
        source, "read"
    )


def _is_path(source: Any) -> bool:
    """Whether it names something on disk; a link or data URL does not."""
    if isinstance(source, str):
        return source[:5].lower() != "data:" and not has_scheme(source)
    return isinstance(source, os.PathLike)


def _of_one(source: Any, numbered: str, note: Callable[[PhotoFailure], None]) -> Iterator[PhotoSource]:
    if isinstance(source, PhotoSource):
        yield source
    elif _is_path(source):
        path = os.fsdecode(source)
        if os.path.isdir(path):
            yield from _of_folder(path, note, set())
        else:
            yield _file(path)
    elif isinstance(source, str):
        yield PhotoSource(source, numbered if source[:5].lower() == "data:" else masked(source))
    else:
        called = getattr(source, "name", None)
        if isinstance(called, str) and os.path.isfile(called):
            yield PhotoSource(source, _shown(called), _folder_of(called))
        else:
            yield PhotoSource(source, numbered)


def _file(path: str) -> PhotoSource:
    return PhotoSource(path, _shown(path), _folder_of(path))


def _folder_of(path: str) -> str | None:
    return _shown(os.path.basename(os.path.dirname(os.path.abspath(path)))) or None


def _of_folder(top: str, note: Callable[[PhotoFailure], None], seen: set[tuple[int, int]]) -> Iterator[PhotoSource]:
    waiting = [top]
    while waiting:
        path = waiting.pop()
        try:
            facts = os.stat(path)
            if (facts.st_dev, facts.st_ino) in seen:  # a link to a folder above, or to one already looked through
                continue
            seen.add((facts.st_dev, facts.st_ino))
            with os.scandir(path) as entries:
                found = sorted((e.name, e.is_dir()) for e in entries if not e.name.startswith("."))
        except OSError as error:
            shown = _shown(path)
            message = f"the folder {shown} cannot be read: {error.strerror or error}."
            note(PhotoFailure(photo=shown, code=PhotoUnreadable.code, message=message))
            continue
        # A pipe or a link to nothing that is called a photo is passed on: reading it says what is wrong with it.
        for name, is_folder in found:
            if not is_folder and os.path.splitext(name)[1].lower() in EXTENSIONS:
                yield _file(os.path.join(path, name))
        waiting.extend(os.path.join(path, name) for name, is_folder in reversed(found) if is_folder)


def _empty(source: Any, problems: list[PhotoFailure]) -> SourceEmpty:
    unreadable = tuple(problem.photo for problem in problems)
    also = f" {len(unreadable)} of its folders could not be read: {', '.join(unreadable[:3])}." if unreadable else ""
    if _is_one(source):
        shown = _shown(os.fsdecode(source))
        return SourceEmpty(
            f"the folder {shown} holds no photos (no file ending in {', '.join(sorted(EXTENSIONS))}).{also}",
            source=shown,
            unreadable=unreadable,
        )
    return SourceEmpty(f"the list holds no photos.{also}", source="list", unreadable=unreadable)


def _shown(path: str | bytes) -> str:
    """A path as text that any terminal, JSON or database takes."""
    return os.fsdecode(path).encode("utf-8", "backslashreplace").decode()
