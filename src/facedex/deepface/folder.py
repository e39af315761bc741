"""``find``: a photo against a folder of photos, whose gallery is kept in the folder and follows it."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from facedex.deepface.distances import Metric, check_metric, threshold_for
from facedex.deepface.faces import facial_area, opened, xywh
from facedex.deepface.models import DEFAULT_BACKEND, DEFAULT_MODEL, check_options, engine_for
from facedex.deepface.rows import Judged, check_return_type, judged, tables
from facedex.engine import Engine, Gallery, Progress, no_face_found
from facedex.errors import ArgumentInvalid, PhotoError, PhotoNotFound, SourceEmpty
from facedex.types import Where
from facedex.vision.links import has_scheme
from facedex.vision.sources import PhotoSource, find_photos

__all__ = ["Listing", "checked_folder", "find", "gallery_name"]

_log = logging.getLogger("facedex.deepface")

COLUMNS: Final = (
    *("identity", "hash", "target_x", "target_y", "target_w", "target_h", "threshold"),
    *("source_x", "source_y", "source_w", "source_h", "distance", "confidence"),
)


def find(
    img_path: Any,
    db_path: str | os.PathLike[str],
    model_name: str = DEFAULT_MODEL,
    distance_metric: Metric = "cosine",
    enforce_detection: bool = True,
    detector_backend: str = DEFAULT_BACKEND,
    align: bool = True,  # noqa: ARG001 - faces are always aligned, see docs/deepface.md
    similarity_search: bool = False,
    k: int | None = None,
    expand_percentage: int = 0,
    threshold: float | None = None,
    normalization: str = "base",
    silent: bool = False,
    refresh_database: bool = True,
    anti_spoofing: bool = False,
    datastore_format: str = "npz",  # noqa: ARG001 - the folder's gallery has one format
    return_type: str | None = None,
    batched: bool = False,
) -> list[Any]:
    """Who of a folder is this? For each face of the photo, the folder's faces within the threshold, nearest first.

    The folder's faces are kept in it, in a gallery with a hidden name, one for each model and detector. The next call
    looks at photos that are new or changed since, and forgets those that are gone.

    img_path     as of ``represent``, one photo.
    db_path      a folder on disk; its subfolders are looked through too.
    similarity_search  the threshold leaves nothing out: the most similar faces, whoever they are.
    k            at most so many for each face; None: all.
    threshold    the largest distance taken for one person; None: the measured one, see ``find_threshold``.
    silent       no progress is logged.
    refresh_database  False: the folder is not looked at again, its gallery is taken as it is.
    return_type  ``"pandas"``, ``"dict"``; None: the first where pandas is installed. ``batched=True`` is ``"dict"``.
    enforce_detection  False: a probe without a face has an answer without rows, where it would raise. Photos of the
                 folder in which nothing is found are passed over either way, and never embedded as a whole.
    Returns      a table for each face of the probe, with the columns of ``COLUMNS``.
    Raises       NoFaceFound, PhotoError, PhotoNotFound, SourceEmpty, StoreError, ModelUnknown, ArgumentInvalid.
    """
    kind = "dict" if batched else check_return_type(return_type)
    check_options(normalization=normalization, anti_spoofing=anti_spoofing)
    check_metric(distance_metric)
    engine = engine_for(model_name, detector_backend)
    limit = threshold_for(engine, distance_metric, threshold)
    photo, name = opened(engine, img_path)
    folder = checked_folder(db_path)
    with engine.open(folder / gallery_name(model_name, detector_backend), create=refresh_database) as gallery:
        paths = Listing(gallery, folder, silent).follow() if refresh_database else _kept(gallery, folder)
        faces = engine.pipeline.embedded(photo)
        if not faces and enforce_detection:
            raise no_face_found(name, photo.width, photo.height)
        areas = [facial_area(face, photo, expand_percentage) for face in faces]
        answers = judged(gallery, faces, distance_metric, limit, k=k, all_of_them=similarity_search)
    rows = [
        [row for each in some for row in _rows(each, paths, area, limit)][:k]
        for some, area in zip(answers, areas, strict=True)
    ]
    return tables(rows or [[]], COLUMNS, kind)


def _rows(found: Judged, paths: Mapping[str, list[str]], area: Mapping[str, Any], limit: float) -> list[dict[str, Any]]:
    """One row for each file that holds this very photo."""
    template = found.stored.template
    target, source = xywh(template.box), {side: area[side] for side in "xywh"}
    return [
        {
            "identity": path,
            "hash": template.photo_digest,
            **{f"target_{side}": value for side, value in target.items()},
            "threshold": limit,
            **{f"source_{side}": value for side, value in source.items()},
            "distance": found.distance,
            "confidence": found.confidence,
        }
        for path in paths.get(template.photo_digest, ())
    ]


def gallery_name(model_name: str, detector_backend: str) -> str:
    """The hidden file that keeps the faces of a folder."""
    plain = re.sub(r"[^a-z0-9]+", "-", f"{model_name}-{detector_backend}".lower())
    return f".facedex-{plain}.db"


def checked_folder(db_path: Any) -> Path:
    if isinstance(db_path, str) and has_scheme(db_path):
        raise ArgumentInvalid(
            f"db_path is {db_path!r}; expected a folder on disk. Fetch the photos first, or register and search them.",
            db_path=db_path,
        )
    if not isinstance(db_path, (str, os.PathLike)) or not os.path.isdir(db_path):
        raise PhotoNotFound(f"db_path is {db_path!r}; expected a folder that is there.", photo=str(db_path))
    return Path(db_path)


# ---------------------------------------------------------------- following the folder

_State: TypeAlias = tuple[int, int, int]
"""Size, time of the last write and of the last change of a file; nanoseconds."""

_Entries: TypeAlias = dict[str, tuple[_State, str]]
"""Path below the folder → its state and the digest of its bytes."""


class Listing:
    """What a folder held when it was last looked at, and what to do so that its gallery holds what it holds now.

    The listing lies beside the gallery as JSON and is no more than a memory of digests: without it every photo is
    read again. It is written before photos are enrolled and after others are deleted, so it always names at least
    what the gallery holds.
    """

    VERSION: Final = 1

    def __init__(self, gallery: Gallery, folder: Path, silent: bool) -> None:
        self.gallery, self.folder, self.silent = gallery, folder, silent
        self.path = _listing_path(gallery)

    def follow(self) -> dict[str, list[str]]:
        """Bring the gallery to the folder's present state. The files that hold each photo, by its digest."""
        before = _read(self.path)
        now = self._look(before or {})
        wanted = _by_digest(now, self.folder)
        held = _enrolled(self.gallery) if before is None else {digest for _, digest in before.values()}
        gone = held - wanted.keys()
        if gone:
            self.gallery.delete(where=Where(photos=frozenset(gone)))
        if now != before:
            _write(self.path, now)
        missing = wanted.keys() - self.gallery.store.known(wanted)
        if missing:
            self._enroll([wanted[digest][0] for digest in wanted if digest in missing])
        if (gone or missing) and not self.silent:
            _log.info("%s: %d photos looked at, %d forgotten", self.folder, len(missing), len(gone))
        return wanted

    def _look(self, before: _Entries) -> _Entries:
        engine, now = self.gallery.engine, _Entries()
        top = os.fspath(self.folder)
        for source in find_photos(top):
            relative = os.path.relpath(source.source, top)
            try:
                facts = os.stat(source.source)
                state = (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
                known = before.get(relative)
                digest = known[1] if known is not None and known[0] == state else _digest(engine, source.source)
            except (OSError, PhotoError) as error:
                _log.warning("%s cannot be read: %s", source.name, error)
                continue
            now[relative] = (state, digest)
        return now

    def _enroll(self, photos: list[str]) -> None:
        def told(progress: Progress) -> None:
            if not self.silent:
                _log.info("looking at photos: %d of %s", progress.done, progress.total)

        # As sources, not as paths: then one that is damaged is reported, even when it is the only one.
        report = self.gallery.enroll([PhotoSource(path, path) for path in photos], faces="all", progress=told)
        for failure in report.failures:
            _log.warning("%s", failure.message)


def _digest(engine: Engine, path: str) -> str:
    return engine.read(path).digest


def _kept(gallery: Gallery, folder: Path) -> dict[str, list[str]]:
    """The files by digest as they were when the folder was last looked at."""
    if not gallery.count():
        raise SourceEmpty(
            f"the gallery of {folder} holds no faces, and refresh_database=False lets none be enrolled.",
            source=str(folder),
        )
    entries = _read(_listing_path(gallery))
    if entries is not None:
        return _by_digest(entries, folder)
    paths: dict[str, list[str]] = {}
    for stored in gallery.store.scan():
        paths.setdefault(stored.template.photo_digest, [stored.template.link or stored.template.photo_digest])
    return paths


def _enrolled(gallery: Gallery) -> set[str]:
    """Digests of every photo the gallery knows, read from it."""
    digests = {stored.template.photo_digest for stored in gallery.store.scan()}
    after = ""
    while some := gallery.store.faceless(after):
        digests.update(some)
        after = some[-1]
    return digests


def _by_digest(entries: _Entries, folder: Path) -> dict[str, list[str]]:
    paths: defaultdict[str, list[str]] = defaultdict(list)
    for relative, (_, digest) in entries.items():
        paths[digest].append(os.path.join(folder, relative))
    return dict(paths)


def _listing_path(gallery: Gallery) -> Path:
    assert gallery.store.index_path is not None
    return gallery.store.index_path.with_suffix(".json")


def _read(path: Path) -> _Entries | None:
    """The listing; None when there is none that can be used."""
    try:
        plain = json.loads(path.read_text("utf-8"))
        if plain["version"] != Listing.VERSION:
            return None
        return {
            str(name): ((int(size), int(written), int(changed)), str(digest))
            for name, (size, written, changed, digest) in plain["photos"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(path: Path, entries: _Entries) -> None:
    plain = {
        "version": Listing.VERSION,
        "photos": {name: [*state, digest] for name, (state, digest) in entries.items()},
    }
    unfinished = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        unfinished.write_text(json.dumps(plain), "utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        _log.warning("%s cannot be written (%s); the next call reads every photo again", path, error)
        unfinished.unlink(missing_ok=True)
