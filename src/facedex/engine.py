"""Where the way of the data is composed: detect → align → embed → store → search → decide.

Python, the command line and every service call this; none of them repeats a step.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress, islice
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from facedex.decide import DecisionPolicy, policy_for
from facedex.errors import (
    ArgumentInvalid,
    EmbeddingInvalid,
    FacedexError,
    ModelOutOfMemory,
    NoFaceFound,
    NotCalibrated,
    PhotoError,
    SpaceMismatch,
)
from facedex.models.added import find as find_model
from facedex.models.catalog import DEFAULT_EMBEDDER
from facedex.models.runtime import usable_cores
from facedex.search.projection import Mode, Projection, SavedIndex
from facedex.settings import Settings
from facedex.stores.contract import Added, PhotoRecord, Store
from facedex.stores.registry import open_store
from facedex.stores.transfer import Transfer, copy
from facedex.types import (
    Candidate,
    EmbeddingSpace,
    EnrollmentReport,
    Face,
    FaceAttributes,
    Found,
    Metadata,
    Person,
    Photo,
    PhotoFailure,
    StoredTemplate,
    Template,
    Verdict,
    Verification,
    Where,
)
from facedex.vision.attributes import ACTIONS, Classifier, check_actions, describe
from facedex.vision.decoding import Limits
from facedex.vision.flow import Looked, flow
from facedex.vision.images import PhotoInput, RawPhoto, read_photo
from facedex.vision.levels import Levels
from facedex.vision.pipeline import FacePipeline
from facedex.vision.sources import PhotoSource, find_photos, is_single

DEFAULT_SPACE = DEFAULT_EMBEDDER.space

FacesPerPhoto = Literal["main", "all"]

_PHOTOS_AT_ONCE = 16
_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an enrollment is, told after each acknowledged batch.

    total  None while it cannot be known, of a generator.
    """

    done: int
    total: int | None
    enrolled: int


class Engine:
    """Photos to faces, embeddings and 1:1 decisions; opens galleries. Safe to share between threads.

    pipeline  detector and embedder, ready made; None: those named, loaded on first use.
    detector, embedder
              names of models, of the catalog or added (``facedex models list``); None: those of the settings.
    policy    thresholds and confidence; None: the measured policy of the embedder's space, the user's own first.
    settings  limits, threads, folders and models; None: from the environment.
    Raises    ModelUnknown; ArgumentInvalid for a model of another task.
    """

    def __init__(
        self,
        pipeline: FacePipeline | None = None,
        *,
        detector: str | None = None,
        embedder: str | None = None,
        policy: DecisionPolicy | None = None,
        settings: Settings | None = None,
    ) -> None:
        base = settings if settings is not None else Settings.from_environment()
        for task, name in (("detect", detector), ("embed", embedder)):
            if name is not None:
                find_model(name, base.models_dir, task=task)
        self.settings = replace(base, detector=detector or base.detector, embedder=embedder or base.embedder)
        self._pipeline = pipeline
        self._policy = policy
        self._classifiers: dict[str, Classifier] = {}
        self._lock = threading.Lock()

    @property
    def pipeline(self) -> FacePipeline:
        """Detector and embedder; those named are loaded at the first call, and fetched if they are not there."""
        with self._lock:
            if self._pipeline is None:
                self._pipeline = FacePipeline.load(self.settings)
            return self._pipeline

    @property
    def space(self) -> EmbeddingSpace:
        """Where the embeddings of this engine may be compared with one another."""
        if self._pipeline is not None:
            return self._pipeline.space
        if self.settings.embedder == DEFAULT_EMBEDDER.name:
            return DEFAULT_SPACE
        return find_model(self.settings.embedder, self.settings.models_dir, task="embed").space

    @property
    def policy(self) -> DecisionPolicy:
        """Thresholds and confidence in the embedder's space.

        Raises  NotCalibrated when nobody measured them there; ``known_policy`` is None then.
        """
        if self._policy is None:
            self._policy = policy_for(self.space, self.settings.data_dir)
        return self._policy

    @property
    def known_policy(self) -> DecisionPolicy | None:
        """``policy``, or None in a space for which nobody measured one: only similarities mean something there."""
        try:
            return self.policy
        except NotCalibrated:
            return None

    def read(self, source: PhotoInput, *, bgr: bool = False) -> RawPhoto:
        """A photo's bytes and digest within the limits of the settings, not decoded yet."""
        settings = self.settings
        limits = Limits(max_bytes=settings.max_photo_bytes, max_pixels=settings.max_photo_pixels)
        return read_photo(source, bgr=bgr, limits=limits, allow_urls=settings.allow_urls)

    def load(self, source: PhotoInput | Photo, *, bgr: bool = False) -> Photo:
        """Decode a photo within the limits of the settings; see ``vision.images.load_photo``."""
        return source if isinstance(source, Photo) else self.read(source, bgr=bgr).decode()

    def detect(self, source: PhotoInput | Photo, *, small_faces: bool = False, bgr: bool = False) -> list[Face]:
        """Every face of a photo, largest first; an empty list when there is none.

        small_faces  look a second time at the full size, for faces below about a fiftieth of the photo's longer side.
        """
        return self.pipeline.find(self._levels(source, bgr)[0], small_faces=small_faces)

    def embed(self, source: PhotoInput | Photo, *, small_faces: bool = False, bgr: bool = False) -> list[Face]:
        """Every face of a photo with its embedding, largest first.

        small_faces  as for ``detect``.
        Raises       NoFaceFound: a photo without a face has no embedding.
        """
        levels, link = self._levels(source, bgr)
        faces = self.pipeline.embedded(levels, small_faces=small_faces)
        if not faces:
            raise no_face_found(link or "the photo", levels.width, levels.height)
        return faces

    def _levels(self, source: PhotoInput | Photo, bgr: bool) -> tuple[Levels, str | None]:
        if isinstance(source, Photo):
            return Levels.of(source.pixels), source.link
        raw = self.read(source, bgr=bgr)
        return raw.levels(), raw.link

    def analyze(
        self, probe: PhotoInput | Photo, *, actions: Sequence[str] = ACTIONS, bgr: bool = False
    ) -> list[FaceAttributes]:
        """What networks guess of every face of a photo, largest first: how old it looks, which gender, what expression.

        Guesses about a picture, no facts about a person; docs/attributes.md says how often they are wrong.

        actions  which of "age", "gender", "emotion"; pose and quality always come along, and need no network.
        Raises   NoFaceFound; ArgumentInvalid for another action; PhotoError; ModelError when weights are missing.
        """
        chosen = check_actions(actions)
        levels, link = self._levels(probe, bgr)
        faces = self.pipeline.find(levels)
        described = describe(levels, faces, {action: self._classifier(action) for action in chosen} if faces else {})
        if not described:
            raise no_face_found(link or "the photo", levels.width, levels.height)
        return described

    def _classifier(self, task: str) -> Classifier:
        """The network for a task, loaded at the first call."""
        with self._lock:
            if task not in self._classifiers:
                self._classifiers[task] = Classifier.load(task, self.settings)
            return self._classifiers[task]

    def verify(self, first: PhotoInput | Photo, second: PhotoInput | Photo, *, bgr: bool = False) -> Verification:
        """Are two photos of one person? Compares the main (largest) face of each.

        Raises  NoFaceFound when a photo has none.
        """
        one, other = self.embed(first, bgr=bgr)[0], self.embed(second, bgr=bgr)[0]
        assert one.embedding is not None and other.embedding is not None  # noqa: PT018
        similarity = float(np.dot(one.embedding.astype(np.float64), other.embedding.astype(np.float64)))
        policy = self.known_policy
        if policy is None:
            return Verification(similarity, None, None, None, Verdict.NOT_CALIBRATED, (one, other))
        return Verification(
            similarity=similarity,
            threshold=policy.match.threshold,
            verified=similarity >= policy.match.threshold,
            confidence=policy.confidence(similarity),
            verdict=policy.verdict(similarity),
            faces=(one, other),
        )

    def open(self, url: str | os.PathLike[str] | Store, *, create: bool = True) -> Gallery:
        """A gallery by URL: ``faces.db``, ``sqlite:///faces.db``, ``memory://``.

        create  make it when it is not there; otherwise that raises StoreUnavailable.
        Raises  StoreError when it cannot be opened, is damaged, or is not a gallery.
        """
        return Gallery(self, url if isinstance(url, Store) else open_store(url, create=create))


class Gallery:
    """The enrolled people of one store, and the search among them. Safe to share between threads."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self.engine = engine
        self.store = store
        self._projection = Projection(store, engine.settings.indexes_dir)

    # ---- enroll

    def enroll(
        self,
        source: Any,
        *,
        label: str | None = None,
        metadata: Metadata | None = None,
        faces: FacesPerPhoto | None = None,
        small_faces: bool = False,
        min_quality: float = 0.0,
        bgr: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> EnrollmentReport:
        """Add photos: a folder (with its subfolders), one photo, or a list of photos.

        label     the person; ``"folder"``: the name of the folder each photo lies in; None: unknown.
        faces     ``"main"``: the largest face of each photo, ``"all"``: every face. By default the main face
                  when there is a label, for a name belongs to one face, and all faces when there is none.
        small_faces  as for ``Engine.detect``.
        min_quality
                  0…1: faces of a lower ``Quality.score`` are not enrolled; the report says which, and what is wrong
                  with them. A photo none of whose faces is good enough is looked at again the next time.
        progress  called after each batch, which is then safe on disk.
        Returns   what was done; photos of a folder or list that cannot be used are in it, and cost nothing else.
        Raises    PhotoError when ``source`` is a single photo that cannot be used; SourceEmpty;
                  SpaceMismatch when the gallery was made with another model; StoreError.

        Photos enrolled before are recognised by their bytes and skipped, so calling again after an interruption
        goes on where it was.
        """
        if faces not in (None, "main", "all"):
            raise ArgumentInvalid(f"faces must be 'main' or 'all', got {faces!r}.", faces=faces)
        if not 0 <= min_quality <= 1:
            raise ArgumentInvalid(f"min_quality is {min_quality!r}; expected 0 to 1.", min_quality=min_quality)
        if label is not None and not label.strip():
            raise ArgumentInvalid("a label cannot be empty; leave it out for an unknown person.", label=label)
        every = label is None if faces is None else faces == "all"
        self._check_space()
        started = time.perf_counter()
        run = _Enrollment(
            self,
            label,
            dict(metadata or {}),
            every=every,
            small=small_faces,
            min_quality=min_quality,
            bgr=bgr,
            raises=is_single(source),
        )
        found = find_photos(source, report=run.failures.append)
        # A generator may hold more frames than memory does; of everything else the number is worth knowing.
        sources = found if isinstance(source, Iterator) else list(found)
        total = len(sources) if isinstance(sources, list) else None
        done = 0
        for batch in run.batches(sources):
            run.store(batch)
            done += len(batch)
            if progress is not None:
                progress(Progress(done, total, run.enrolled))
        return run.report(done, time.perf_counter() - started)

    # ---- search

    def search(
        self,
        probe: PhotoInput | Photo,
        *,
        k: int = 5,
        where: Where | None = None,
        mode: Mode = "auto",
        small_faces: bool = False,
        bgr: bool = False,
    ) -> list[Found]:
        """Who is this? The k most similar enrolled faces for each face of the probe photo, largest face first.

        where    only templates that pass are candidates.
        mode     "exact", "ann" (by the approximate index) or "auto"; see ``search.projection.Projection.search``.
        small_faces  as for ``Engine.detect``.
        Returns  one entry for each face; fewer than k candidates only where the gallery has no more.
        Raises   NoFaceFound, PhotoError; SpaceMismatch when the gallery was made with another model; StoreError.
        """
        _check_k(k)
        self._check_space()
        return self._search(self.engine.embed(probe, small_faces=small_faces, bgr=bgr), k, where, mode)

    def search_faces(
        self, faces: Sequence[Face], *, k: int = 5, where: Where | None = None, mode: Mode = "auto"
    ) -> list[Found]:
        """``search`` for faces that are embedded already, of one photo or several; one entry for each.

        Raises  EmbeddingInvalid for a face without an embedding; SpaceMismatch, StoreError.
        """
        _check_k(k)
        self._check_space()
        if any(face.embedding is None for face in faces):
            raise EmbeddingInvalid("a face has no embedding. Search with what Engine.embed gives.")
        return self._search(faces, k, where, mode) if faces else []

    def _search(self, faces: Sequence[Face], k: int, where: Where | None, mode: Mode) -> list[Found]:
        probes = np.stack([face.embedding for face in faces if face.embedding is not None])
        threads = self.engine.settings.threads
        for _ in range(_LOOKS):
            similarities, ids = self._projection.search(probes, k, mode=mode, threads=threads, where=where)
            wanted = {int(id) for id in ids.flat if id >= 0}
            stored = {each.id: each for each in self.store.get(sorted(wanted))}
            if len(stored) == len(wanted):
                break
            # Someone deleted a candidate since the index looked: the store is the truth, look again.
        return [
            Found(face, self._candidates(row, row_ids, stored))
            for face, row, row_ids in zip(faces, similarities, ids, strict=True)
        ]

    def _candidates(
        self, similarities: Iterable[float], ids: Iterable[int], stored: Mapping[int, StoredTemplate]
    ) -> tuple[Candidate, ...]:
        there = [(float(s), stored[int(id)]) for s, id in zip(similarities, ids, strict=True) if int(id) in stored]
        policy = self.engine.known_policy
        return tuple(_candidate(rank, similarity, each, policy) for rank, (similarity, each) in enumerate(there, 1))

    # ---- from place to place

    def copy_to(self, target: Gallery, *, progress: Callable[[int, int], None] | None = None) -> Transfer:
        """Copy everything into another gallery, and see that it is there; see ``stores.transfer``.

        progress  called with how many templates are safe there, and of how many.
        Returns   what was copied; calling again after an interruption goes on where it was.
        Raises    SpaceMismatch, with nothing written, for a gallery of another model; TransferMismatch when the target
                  keeps something else under the same content; ArgumentInvalid for the gallery itself; StoreError.
        """
        return copy(self.store, target.store, progress)

    def export_to(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Transfer:
        """Write everything to one Parquet file; see ``stores.parquet`` for its columns.

        Raises  ExportUnavailable, TransferMismatch, ExtraMissing without ``facedex[parquet]``, StoreError.
        """
        from facedex.stores import parquet

        return parquet.export(self.store, path, overwrite=overwrite, progress=progress)

    def import_from(
        self, path: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
    ) -> Transfer:
        """Add everything an exported file holds; of a damaged file nothing arrives.

        Raises  ExportUnavailable, ExportInvalid, ExportVersion, ExtraMissing; otherwise as ``copy_to``.
        """
        from facedex.stores import parquet

        return parquet.import_into(self.store, path, progress=progress)

    # ---- people

    def delete(
        self, *, label: str | None = None, photo: PhotoInput | Photo | None = None, where: Where | None = None
    ) -> int:
        """Remove templates for good: embedding, box, label and link, from the files too. How many were removed.

        label  a person; photo: what was enrolled from it (by its bytes); where: any condition, ``Where()`` for all.
        Raises  ArgumentInvalid unless exactly one is given.
        """
        if sum(given is not None for given in (label, photo, where)) != 1:
            raise ArgumentInvalid("say what to delete: exactly one of label=, photo=, where=.")
        if label is not None:
            where = Where(labels=frozenset({label}))
        elif photo is not None:
            digest = photo.digest if isinstance(photo, Photo) else self.engine.read(photo).digest
            where = Where(photos=frozenset({digest}))
        assert where is not None
        deleted = self.store.delete(where)
        if deleted:
            self._projection.forget()
        return deleted

    def build_index(
        self, *, approximate: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> SavedIndex:
        """Save a search index beside the gallery.

        The exact one lets a large gallery open in milliseconds; a deletion removes the file, for it holds embeddings.
        The approximate one trades candidates for memory and, in galleries of many millions, for time; its recall is
        measured and kept with it. Neither need be repeated: what is enrolled later is read from the gallery.

        progress  called with how much is done and of how much.
        Raises    ArgumentInvalid for a gallery without a place for it, or an empty one; IndexUnavailable;
                  SearchDriverMissing when the approximate one needs ``facedex[ann]``.
        """
        return self._projection.approximate(progress) if approximate else self._projection.save(progress)

    def indexes(self) -> list[SavedIndex]:
        """The indexes saved of this gallery."""
        return self._projection.saved()

    def relabel(self, ids: Iterable[int], label: str | None) -> int:
        """Give templates (by ``Candidate.template_id``) another label; how many changed."""
        return self.store.relabel(ids, label)

    def people(self) -> list[Person]:
        """Everyone enrolled, by name, the unlabeled first."""
        return self.store.people()

    def count(self, where: Where | None = None) -> int:
        """How many templates are enrolled, or pass a condition."""
        return self.store.count(where)

    def info(self, *, check: bool = False) -> dict[str, Any]:
        """What the gallery holds, which model made it, and the error rates its decisions rest on.

        check  read everything and say what is damaged under ``problems``; slow for large galleries.
        """
        space, templates = self.store.space(), self.count()
        facts: dict[str, Any] = {
            "gallery": self.store.url,
            "templates": templates,
            "people": sum(person.label is not None for person in self.people()),
            "sequence": self.store.sequence(),
            "space": str(space) if space else None,
            "space_id": space.id if space else None,
        }
        if space is not None and space == self.engine.space:
            policy = self.engine.known_policy
            if policy is not None:
                facts["operating_point"] = policy.match
                facts["expected_fpir"] = policy.match.fpir(templates)
        facts["indexes"] = self.indexes()
        if check:
            facts["problems"] = list(self.store.check())
        return facts

    def close(self) -> None:
        """Give back files and connections."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_space(self) -> None:
        held, ours = self.store.space(), self.engine.space
        if held is not None and held != ours:
            raise SpaceMismatch(
                f"gallery {self.store.url} holds embeddings of {held}, this engine makes those of {ours}; they cannot "
                "be compared. Open it with the model it was made with (embedder=NAME, --embedder NAME), or enroll into "
                "a new gallery.",
                gallery=self.store.url,
                held=held.id,
                offered=ours.id,
            )


def _candidate(rank: int, similarity: float, stored: StoredTemplate, policy: DecisionPolicy | None) -> Candidate:
    template = stored.template
    return Candidate(
        rank=rank,
        label=template.label,
        similarity=similarity,
        confidence=policy.confidence(similarity) if policy else None,
        verdict=policy.verdict(similarity) if policy else Verdict.NOT_CALIBRATED,
        photo=template.link,
        box=template.box,
        template_id=stored.id,
        metadata=template.metadata,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A photo that was looked at: known already (perhaps to show no face) when it has no digest, or failed."""

    source: PhotoSource
    digest: str | None = None
    link: str | None = None
    size: tuple[int, int] = (0, 0)
    passed_over: int = 0
    low: tuple[Face, ...] = ()
    error: FacedexError | None = None
    faceless: bool = False


class _Enrollment:
    """One call of ``Gallery.enroll``: looks at what is not known on all cores, stores batch by batch."""

    def __init__(
        self,
        gallery: Gallery,
        label: str | None,
        metadata: Metadata,
        *,
        every: bool,
        small: bool,
        min_quality: float,
        bgr: bool,
        raises: bool,
    ) -> None:
        self.gallery, self.label, self.metadata = gallery, label, metadata
        self.every, self.small, self.bgr, self.raises = every, small, bgr, raises
        self.min_quality = min_quality
        self.enrolled = self.already = self.passed_over = 0
        self.faceless: list[str] = []
        self.low_quality: list[PhotoFailure] = []
        self.conflicts: list[PhotoFailure] = []
        self.failures: list[PhotoFailure] = []

    def batches(self, sources: Iterable[PhotoSource]) -> Iterator[list[tuple[_Seen, list[Face]]]]:
        """Photos with their embedded faces, in order, as many as are stored in one transaction."""
        engine = self.gallery.engine
        seen = flow(sources, self._look, engine.pipeline.embedder.embed, engine.settings.threads or usable_cores())
        while batch := list(islice(seen, _PHOTOS_AT_ONCE)):
            yield batch

    def _look(self, source: PhotoSource) -> Looked[_Seen]:
        """From the source to aligned crops of the faces to be enrolled; on any thread."""
        try:
            raw = self.gallery.engine.read(source.source, bgr=self.bgr)
            labels = self.gallery.store.known([raw.digest]).get(raw.digest)
            if labels is not None and (not labels or self._label_of(source) in labels):
                return Looked(_Seen(source, faceless=not labels))
            pipeline, photo = self.gallery.engine.pipeline, raw.levels()
            found = pipeline.find(photo, small_faces=self.small)
            faces, crops = pipeline.crops(photo, found, None if self.every else 1)
            passed_over = 0 if self.every else max(0, len(found) - 1)
            good = [face.quality is None or face.quality.score >= self.min_quality for face in faces]
            low = tuple(face for face, enough in zip(faces, good, strict=True) if not enough)
            seen = _Seen(source, raw.digest, raw.link, (photo.width, photo.height), passed_over, low)
            return Looked(seen, tuple(compress(faces, good)), crops[good])
        except (PhotoError, ModelOutOfMemory) as error:
            return Looked(_Seen(source, error=error))

    def _label_of(self, source: PhotoSource) -> str | None:
        return source.folder if self.label == "folder" else self.label

    def store(self, batch: Sequence[tuple[_Seen, list[Face]]]) -> None:
        """Store a batch in one transaction."""
        records, sources = [], []
        for seen, faces in batch:
            if seen.error is not None:
                self._failed(seen.source, seen.error)
            elif seen.digest is None:
                self.already += 1
                if seen.faceless:
                    self.faceless.append(seen.source.name)
            else:
                self.passed_over += seen.passed_over
                self.low_quality += [self._low_quality(seen, face) for face in seen.low]
                if not faces and seen.low:  # not recorded: a lower minimum would find the photo known and pass it over
                    continue
                if not faces:
                    self._no_face(seen)
                templates = tuple(self._template(seen, seen.digest, face) for face in faces)
                records.append(PhotoRecord(seen.digest, templates))
                sources.append(seen.source)
        if not records:
            return
        for source, added in zip(sources, self.gallery.store.add(records, self.gallery.engine.space), strict=True):
            self._tally(source, added)

    def _low_quality(self, seen: _Seen, face: Face) -> PhotoFailure:
        assert face.quality is not None
        x1, y1, x2, y2 = (round(v) for v in face.box)
        faults = ", ".join(face.quality.faults) or "no single fault stands out"
        message = f"face at ({x1}, {y1}, {x2}, {y2}) has quality {face.quality.score:.2f}, below {self.min_quality}"
        return PhotoFailure(seen.source.name, "low_quality", f"{message}: {faults}")

    def _template(self, seen: _Seen, digest: str, face: Face) -> Template:
        assert face.embedding is not None
        return Template(
            photo_digest=digest,
            box=face.box,
            landmarks=face.landmarks,
            detection_score=face.detection_score,
            embedding=face.embedding,
            space_id=self.gallery.engine.space.id,
            link=seen.link,
            label=self._label_of(seen.source),
            metadata={**self.metadata, **seen.source.metadata},
        )

    def _tally(self, source: PhotoSource, added: Sequence[Added]) -> None:
        self.enrolled += sum(each.new for each in added)
        wanted = self._label_of(source)
        nameless = [each.id for each in added if not each.new and each.label is None]
        if wanted is not None and nameless:
            self.gallery.store.relabel(nameless, wanted)
        for each in added:
            if not each.new and wanted is not None and each.label not in (None, wanted):
                message = f"enrolled before as {each.label!r}, not changed to {wanted!r}"
                self.conflicts.append(PhotoFailure(source.name, "label_conflict", message))
        if added and not any(each.new for each in added):
            self.already += 1

    def _no_face(self, seen: _Seen) -> None:
        if self.raises:
            raise no_face_found(seen.source.name, *seen.size)
        self.faceless.append(seen.source.name)

    def _failed(self, source: PhotoSource, error: FacedexError) -> None:
        if self.raises:
            raise error
        self.failures.append(PhotoFailure(source.name, error.code, error.message))

    def report(self, photos: int, seconds: float) -> EnrollmentReport:
        return EnrollmentReport(
            photos=photos,
            enrolled=self.enrolled,
            already=self.already,
            faceless=tuple(self.faceless),
            passed_over=self.passed_over,
            low_quality=tuple(self.low_quality),
            conflicts=tuple(self.conflicts),
            failures=tuple(self.failures),
            seconds=seconds,
        )


def _check_k(k: int) -> None:
    if k < 1:
        raise ArgumentInvalid(f"k must be at least 1, got {k}.", k=k)


def no_face_found(name: str, width: int, height: int) -> NoFaceFound:
    return NoFaceFound(
        f"no face found in {name} ({width} × {height} pixels). "
        "Give a photo in which a face is visible and at least 20 pixels wide.",
        photo=name,
    )
