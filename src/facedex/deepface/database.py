"""``register``, ``search``, ``identify`` and ``build_index``: faces in a database, which is one of our stores."""

from __future__ import annotations

import atexit
import os
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from facedex.deepface.connections import Criteria, gallery_url
from facedex.deepface.distances import Metric, check_metric, threshold_for
from facedex.deepface.faces import opened, photos_of, xywh
from facedex.deepface.models import DEFAULT_BACKEND, DEFAULT_MODEL, check_options, engine_for
from facedex.deepface.rows import Judged, check_return_type, judged, tables
from facedex.deepface.verification import closest, decision, embeddings_of
from facedex.engine import Gallery, no_face_found
from facedex.errors import ArgumentInvalid, NoFaceFound, PhotoUnreadable, SearchDriverMissing
from facedex.stores.contract import KeepsIndex, SearchesItself
from facedex.types import Face
from facedex.vision.sources import PhotoSource, find_photos

__all__ = ["build_index", "identify", "register", "search"]

COLUMNS: Final = (
    *("id", "img_name", "model_name", "detector_backend", "aligned", "l2_normalized", "search_method"),
    *("target_x", "target_y", "target_w", "target_h", "threshold", "distance_metric", "distance", "confidence"),
)

_open: dict[tuple[str, Criteria], Gallery] = {}
_lock = threading.Lock()


def register(
    img: Any,
    img_name: str | None = None,
    model_name: str = DEFAULT_MODEL,
    detector_backend: str = DEFAULT_BACKEND,
    enforce_detection: bool = True,
    align: bool = True,
    l2_normalize: bool = False,
    expand_percentage: int = 0,  # noqa: ARG001 - what is embedded is the aligned face
    normalization: str = "base",
    anti_spoofing: bool = False,
    database_type: str | None = None,
    connection_details: Mapping[str, Any] | str | None = None,
    connection: Gallery | None = None,
) -> dict[str, int]:
    """Enroll every face of a photo or of several, each under the photo's name.

    img       as of ``represent``.
    img_name  what ``search`` calls the photo; None: its path or link as given, for others a random name.
    enforce_detection  False: photos without a face are passed over. None is ever embedded as a whole.
    database_type, connection_details, connection  where; see ``connections``.
    Returns   ``{"inserted": n}``: new faces. One that is there already (same photo bytes, same box) is not new.
    Raises    NoFaceFound, PhotoUnreadable for photos of a list, after the others were enrolled; PhotoError for a
              single one; StoreError, ModelUnknown, ArgumentInvalid.
    """
    check_options(normalization=normalization, anti_spoofing=anti_spoofing)
    sources, several = photos_of(img)
    gallery = _gallery(
        Criteria(model_name, detector_backend, align, l2_normalize),
        database_type, connection_details, connection, create=True,
    )  # fmt: skip
    named = [
        PhotoSource(found.source, found.name, metadata={"img_name": img_name or _name_of(source)})
        for source in sources
        for found in find_photos(source)
    ]
    report = gallery.enroll(named, faces="all", bgr=True)
    if not several and report.failures:
        gallery.engine.load(sources[0], bgr=True)  # raises what is wrong with it
    wrong = [f"{failure.photo}: {failure.message}" for failure in report.failures]
    if wrong:
        raise PhotoUnreadable(
            f"{len(wrong)} of {report.photos} photos cannot be used ({'; '.join(wrong[:3])}). "
            f"The {report.enrolled} faces of the others are registered.",
            photos=[failure.photo for failure in report.failures],
            inserted=report.enrolled,
        )
    if report.faceless and enforce_detection:
        raise NoFaceFound(
            f"no face found in {', '.join(report.faceless[:3])}{' …' if len(report.faceless) > 3 else ''} "
            f"({len(report.faceless)} of {report.photos} photos). The {report.enrolled} faces of the others are "
            "registered. enforce_detection=False passes over photos without a face.",
            photos=list(report.faceless),
            inserted=report.enrolled,
        )
    return {"inserted": report.enrolled}


def search(
    img: Any,
    model_name: str = DEFAULT_MODEL,
    detector_backend: str = DEFAULT_BACKEND,
    distance_metric: Metric = "cosine",
    enforce_detection: bool = True,
    align: bool = True,
    l2_normalize: bool = False,
    expand_percentage: int = 0,  # noqa: ARG001 - the answer has no box of the probe
    normalization: str = "base",
    anti_spoofing: bool = False,
    similarity_search: bool = False,
    k: int | None = None,
    database_type: str | None = None,
    connection_details: Mapping[str, Any] | str | None = None,
    connection: Gallery | None = None,
    search_method: str = "exact",
    return_type: str | None = None,
    search_type: str | None = None,
    threshold: float | None = None,
) -> list[Any]:
    """Who of the registered faces is this? For each face of the photo or photos, those within the threshold.

    similarity_search  the threshold leaves nothing out.
    k              at most so many for each face; None: all.
    search_method  ``"exact"``; ``"ann"``: by the approximate index, where one was built or the database has its own,
                   otherwise exactly. ``search_type`` is another name for it.
    threshold      the largest distance taken for one person; None: the measured one, see ``find_threshold``.
    return_type    ``"pandas"``, ``"dict"``; None: the first where pandas is installed.
    enforce_detection  False: a photo without a face adds nothing to the answer, where it would raise.
    Returns        a table for each face, nearest first, with the columns of ``COLUMNS``.
    Raises         NoFaceFound, PhotoError, StoreError, ModelUnknown, ArgumentInvalid.
    """
    kind = check_return_type(return_type)
    check_options(normalization=normalization, anti_spoofing=anti_spoofing)
    check_metric(distance_metric)
    method = search_method if search_type is None else search_type
    if method not in ("exact", "ann"):
        raise ArgumentInvalid(f"search_method is {method!r}; expected 'exact' or 'ann'.", search_method=method)
    criteria = Criteria(model_name, detector_backend, align, l2_normalize)
    gallery = _gallery(criteria, database_type, connection_details, connection, create=False)
    limit = threshold_for(gallery.engine, distance_metric, threshold)
    faces = _probes(gallery, img, enforce_detection)
    approximate = method == "ann" and _has_index(gallery)
    answers = judged(
        gallery, faces, distance_metric, limit, k=k, all_of_them=similarity_search,
        mode="ann" if approximate else "auto" if method == "ann" else "exact",
    )  # fmt: skip
    fixed = {**criteria.columns(), "search_method": method, "threshold": limit, "distance_metric": distance_metric}
    rows = [[_row(each, fixed) for each in some] for some in answers]
    return tables(rows, COLUMNS, kind)


def identify(
    img: Any,
    identity_id: int | str,
    model_name: str = DEFAULT_MODEL,
    detector_backend: str = DEFAULT_BACKEND,
    distance_metric: Metric = "cosine",
    enforce_detection: bool = True,
    align: bool = True,
    l2_normalize: bool = False,
    expand_percentage: int = 0,
    normalization: str = "base",
    anti_spoofing: bool = False,
    database_type: str | None = None,
    connection_details: Mapping[str, Any] | str | None = None,
    connection: Gallery | None = None,
) -> dict[str, Any]:
    """Is this the registered face of that id? Of a photo with several faces the most similar is compared.

    identity_id  the ``id`` of a row of ``search``.
    Returns      as ``verify``, with ``id`` and ``img_name``; ``facial_areas["img2"]`` is where the registered face was.
    Raises       ArgumentInvalid for an id that is not there; otherwise as ``verify`` and StoreError.
    """
    started = time.perf_counter()
    check_options(normalization=normalization, anti_spoofing=anti_spoofing)
    check_metric(distance_metric)
    criteria = Criteria(model_name, detector_backend, align, l2_normalize)
    gallery = _gallery(criteria, database_type, connection_details, connection, create=False)
    limit = threshold_for(gallery.engine, distance_metric, None)
    stored = gallery.store.get([int(identity_id)]) if str(identity_id).isdecimal() else []
    if not stored:
        raise ArgumentInvalid(
            f"identity_id is {identity_id!r}; no registered face of {gallery.store.url} has it. "
            "Take the id of a row of search().",
            identity_id=identity_id,
        )
    template = stored[0].template
    probes = embeddings_of(gallery.engine, model_name, img, enforce_detection, expand_percentage)
    pair = closest(probes, [(template.embedding, xywh(template.box))], distance_metric)
    return {
        **decision(gallery.engine, pair, limit),
        "model": model_name,
        "detector_backend": detector_backend,
        "similarity_metric": distance_metric,
        "id": stored[0].id,
        "img_name": template.metadata.get("img_name", template.link),
        "facial_areas": {"img1": pair[0][1], "img2": pair[1][1]},
        "time": round(time.perf_counter() - started, 2),
    }


def build_index(
    model_name: str = DEFAULT_MODEL,
    detector_backend: str = DEFAULT_BACKEND,
    align: bool = True,
    l2_normalize: bool = False,
    database_type: str | None = None,
    connection: Gallery | None = None,
    connection_details: Mapping[str, Any] | str | None = None,
    max_neighbors_per_node: int = 32,  # noqa: ARG001 - our index has other parameters
) -> None:
    """Build the approximate index of what is registered; goes on where it was when it is called again.

    Without ``facedex[ann]`` the exact index is saved instead. A database that searches by itself, or has no place for
    an index, needs none. It need not be called: ``search`` finds what was registered since, and is exact without one.

    Raises  StoreError, SearchError, ModelUnknown, ArgumentInvalid.
    """
    criteria = Criteria(model_name, detector_backend, align, l2_normalize)
    gallery = _gallery(criteria, database_type, connection_details, connection, create=False)
    store = gallery.store
    nowhere = store.index_path is None and not isinstance(store, KeepsIndex)
    if nowhere or isinstance(store, SearchesItself) or not gallery.count():
        return
    try:
        gallery.build_index(approximate=True)
    except SearchDriverMissing:
        gallery.build_index()


def _gallery(
    criteria: Criteria,
    database_type: str | None,
    details: Mapping[str, Any] | str | None,
    connection: Gallery | None,
    *,
    create: bool,
) -> Gallery:
    """The gallery of these criteria; opened once, and kept open for the process, unless the caller gave it."""
    engine = engine_for(criteria.model_name, criteria.detector_backend)
    if connection is not None:
        if not isinstance(connection, Gallery):
            raise ArgumentInvalid(
                f"connection is a {type(connection).__name__}; expected a facedex.Gallery (facedex.open(url)). For a "
                "database give connection_details or its environment variable.",
                argument="connection",
            )
        return engine.open(connection.store) if connection.engine is not engine else connection
    url = gallery_url(criteria, database_type, details)
    with _lock:
        if (url, criteria) not in _open:
            gallery = engine.open(url, create=create)
            if not _open:
                atexit.register(_close)
            _open[url, criteria] = gallery
        return _open[url, criteria]


def _close() -> None:
    """Give back files and connections, while the drivers can still do so."""
    with _lock:
        while _open:
            _open.popitem()[1].close()


def _has_index(gallery: Gallery) -> bool:
    return isinstance(gallery.store, SearchesItself) or any(saved.kind == "ann" for saved in gallery.indexes())


def _probes(gallery: Gallery, img: Any, enforce: bool) -> list[Face]:
    """The embedded faces of all photos; of one without a face none, or NoFaceFound if ``enforce``."""
    engine = gallery.engine
    faces: list[Face] = []
    for source in photos_of(img)[0]:
        photo, name = opened(engine, source)
        found = engine.pipeline.embedded(photo)
        if enforce and not found:
            raise no_face_found(name, photo.width, photo.height)
        faces += found
    return faces


def _row(found: Judged, fixed: Mapping[str, Any]) -> dict[str, Any]:
    template = found.stored.template
    row = {
        **fixed,
        "id": found.stored.id,
        "img_name": template.metadata.get("img_name", template.link),
        **{f"target_{side}": value for side, value in xywh(template.box).items()},
        "distance": found.distance,
        "confidence": found.confidence,
    }
    return {column: row[column] for column in COLUMNS}


def _name_of(source: Any) -> str:
    """What DeepFace calls a photo nobody named."""
    if isinstance(source, (str, os.PathLike)) and str(source)[:5].lower() != "data:":
        return os.fsdecode(source)
    return str(uuid.uuid4())
