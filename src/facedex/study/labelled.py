"""Labelled photos as embeddings: a folder of people, a list of pairs, or what a gallery holds under its labels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facedex.decide.trials import ListedPairs, Trials, all_pairs
from facedex.engine import Engine, Gallery, Progress
from facedex.errors import PairsUnreadable, PhotoError, SourceEmpty, SpaceMismatch, TrialsTooFew
from facedex.study.tables import ListedPhotos, read_pairs
from facedex.types import Box, Embedding, Embeddings, EmbeddingSpace, PhotoFailure
from facedex.vision.sources import find_photos

__all__ = ["Labelled", "LabelledFace", "read_labelled"]


@dataclass(frozen=True, slots=True)
class LabelledFace:
    """The main face of a photo.

    label  whose it is said to be; of a list of pairs, a name made up for everyone its lines join.
    """

    label: str
    photo: str | None
    box: Box
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Faces that somebody told apart, ready to be compared.

    embeddings  (N, D), of ``faces``, in one space.
    trials      what is compared: all pairs, or those of the list.
    every_pair  whether all of them are: then people may be searched for, too.
    photos      how many were looked at.
    faceless    photos in which no face was found: failures to acquire.
    failures    photos that could not be read.
    repeated    photos left out because the same bytes came before under the same name.
    contested   photos left out because the same bytes stand under two names.
    lost_pairs  listed pairs that could not be compared, for want of a face or because both photos are one.
    digest      of all photo digests and labels: the same digest, the same data.
    """

    name: str
    space: EmbeddingSpace
    faces: tuple[LabelledFace, ...]
    embeddings: Embeddings
    trials: Trials
    every_pair: bool
    photos: int
    faceless: tuple[str, ...] = ()
    failures: tuple[PhotoFailure, ...] = ()
    repeated: int = 0
    contested: tuple[str, ...] = ()
    lost_pairs: int = 0

    @property
    def labels(self) -> list[str]:
        return [face.label for face in self.faces]

    @property
    def digest(self) -> str:
        facts = sorted(f"{face.digest}\x1f{face.label}" for face in self.faces)
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def read_labelled(
    engine: Engine,
    source: str | os.PathLike[str],
    *,
    name: str | None = None,
    keep: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Labelled:
    """Faces with their labels from a folder with a folder per person, a list of pairs (``*.csv``), or a gallery's URL.

    keep    a gallery for the embeddings of photos: given again, it knows them, and an interrupted run goes on. Without
            it they are kept in memory only, for embeddings of people should not lie about unasked.
    Raises  TrialsTooFew, SourceEmpty, PairsUnreadable, SpaceMismatch, StoreError.
    """
    path = os.fspath(source)
    called = name or os.path.basename(os.path.normpath(path)) or path
    if os.path.isdir(path):
        return _of_folder(engine, path, called, keep, progress)
    if path.lower().endswith((".csv", ".tsv")):
        return _of_pairs(engine, path, called, keep, progress)
    with engine.open(path, create=False) as gallery:
        return _of_gallery(gallery, called)


def _of_folder(
    engine: Engine,
    path: str,
    name: str,
    keep: str | os.PathLike[str] | None,
    progress: Callable[[Progress], None] | None,
) -> Labelled:
    unreadable: list[PhotoFailure] = []
    sources = [(str(s.source), s.name, s.folder) for s in find_photos(path, report=unreadable.append)]
    top = Path(path).resolve()
    loose = [shown for photo, shown, _ in sources if Path(photo).resolve().parent == top]
    if len(loose) == len(sources):
        raise SourceEmpty(
            f"the folder {path} holds {len(loose)} photos and no folder of a person with photos in it. Give a folder "
            "with a folder for each person.",
            source=path,
        )
    named = {photo: str(folder) for photo, shown, folder in sources if shown not in loose}
    seen = _embedded(engine, list(named), keep, progress, label="folder")
    labels: dict[str, set[str]] = {}
    for photo, digest in seen.digests.items():
        labels.setdefault(digest, set()).add(named[photo])
    contested = tuple(photo for photo, digest in seen.digests.items() if len(labels[digest]) > 1)
    faces: dict[str, LabelledFace] = {}
    repeated = 0
    for photo, digest in seen.digests.items():
        if digest in faces:
            repeated += 1
        elif len(labels[digest]) == 1 and digest in seen.found:
            faces[digest] = LabelledFace(named[photo], photo, seen.found[digest][0], digest)
    embeddings = _stacked([seen.found[digest][1] for digest in faces], engine.space)
    return Labelled(
        name=name,
        space=engine.space,
        faces=tuple(faces.values()),
        embeddings=embeddings,
        trials=all_pairs(embeddings, [face.label for face in faces.values()]),
        every_pair=True,
        photos=len(sources),
        faceless=tuple(photo for photo, digest in seen.digests.items() if digest not in seen.found),
        failures=(*unreadable, *seen.failures, *(_loose(shown) for shown in loose)),
        repeated=repeated,
        contested=contested,
    )


def _loose(photo: str) -> PhotoFailure:
    return PhotoFailure(photo, "no_person", "it lies in no person's folder, so nobody can say whose it is")


def _of_pairs(
    engine: Engine,
    path: str,
    name: str,
    keep: str | os.PathLike[str] | None,
    progress: Callable[[Progress], None] | None,
) -> Labelled:
    pairs = read_pairs(path)
    photos = list(dict.fromkeys(photo for pair in pairs for photo in (pair.first, pair.second)))
    seen = _embedded(engine, photos, keep, progress)
    person = _joined(path, pairs, seen.digests)
    people = sorted(set(person.values()))
    number = {label: place for place, label in enumerate(people)}
    digests = [digest for digest in dict.fromkeys(seen.digests.values()) if digest in seen.found]
    place = {digest: at for at, digest in enumerate(digests)}
    first_photo = {digest: photo for photo, digest in reversed(seen.digests.items())}
    embeddings = _stacked([seen.found[digest][1] for digest in digests], engine.space)
    chosen: dict[tuple[int, int], bool] = {}
    lost = 0
    for pair in pairs:
        ends = sorted(place.get(seen.digests.get(photo, ""), -1) for photo in (pair.first, pair.second))
        if ends[0] < 0 or ends[0] == ends[1]:
            lost += 1
        else:
            chosen[ends[0], ends[1]] = pair.same
    if not chosen:
        raise TrialsTooFew(f"none of the {len(pairs)} pairs of {path} has a face in both photos.", pairs=len(pairs))
    a, b = np.array(list(chosen)).T
    rows = embeddings.astype(np.float64)
    who = np.array([number[person[digest]] for digest in digests])
    similarities = np.einsum("nd,nd->n", rows[a], rows[b])
    return Labelled(
        name=name,
        space=engine.space,
        faces=tuple(LabelledFace(person[d], first_photo[d], seen.found[d][0], d) for d in digests),
        embeddings=embeddings,
        trials=ListedPairs(similarities, list(chosen.values()), who[a], who[b], people, np.stack([a, b], axis=1)),
        every_pair=False,
        photos=len(photos),
        faceless=tuple(photo for photo, digest in seen.digests.items() if digest not in seen.found),
        failures=seen.failures,
        lost_pairs=lost,
    )


def _joined(path: str, pairs: Iterable[ListedPhotos], digests: Mapping[str, str]) -> dict[str, str]:
    """A person for each photo's digest: whoever "same" lines join is one. Anything else may be another."""
    above: dict[str, str] = {}

    def top(digest: str) -> str:
        while (parent := above.setdefault(digest, digest)) != digest:
            above[digest] = digest = above[parent]
        return digest

    known = [
        (pair, digests[pair.first], digests[pair.second])
        for pair in pairs
        if pair.first in digests and pair.second in digests
    ]
    for pair, first, second in known:
        one, other = top(first), top(second)
        if pair.same:
            above[max(one, other)] = min(one, other)
    for pair, first, second in known:
        if not pair.same and top(first) == top(second):
            raise PairsUnreadable(
                f"line {pair.line} of {path} says that {pair.first} and {pair.second} show two people; other lines, or "
                "their bytes, say one. Correct the list.",
                path=path,
                line=pair.line,
            )
    order = {root: place for place, root in enumerate(dict.fromkeys(top(digest) for digest in digests.values()), 1)}
    return {digest: f"person {order[top(digest)]:06d}" for digest in digests.values()}


def _of_gallery(gallery: Gallery, name: str) -> Labelled:
    space = gallery.store.space()
    faces, rows, nameless = [], [], 0
    for stored in gallery.store.scan():
        template = stored.template
        if template.label is None:
            nameless += 1
            continue
        faces.append(LabelledFace(template.label, template.link, template.box, template.photo_digest))
        rows.append(template.embedding)
    if space is None or not faces:
        raise TrialsTooFew(
            f"gallery {gallery.store.url} holds no labelled faces ({nameless} without a label). Enroll with "
            "--label folder.",
            gallery=gallery.store.url,
        )
    embeddings = _stacked(rows, space)
    trials = all_pairs(embeddings, [face.label for face in faces])
    photos = len({face.digest for face in faces})
    return Labelled(name, space, tuple(faces), embeddings, trials, every_pair=True, photos=photos)


@dataclass(frozen=True, slots=True, eq=False)
class _Embedded:
    """digests of the photos that could be read, and the main face of those that have one."""

    digests: dict[str, str]
    found: dict[str, tuple[Box, Embedding]]
    failures: tuple[PhotoFailure, ...]


def _embedded(
    engine: Engine,
    photos: Sequence[str],
    keep: str | os.PathLike[str] | None,
    progress: Callable[[Progress], None] | None,
    label: str | None = None,
) -> _Embedded:
    """Enroll the photos' main faces, then take them out of the gallery again by digest.

    label  as in ``Gallery.enroll``: what is kept is a gallery like any other.
    """
    with engine.open(keep if keep is not None else "memory://") as gallery:
        report = gallery.enroll(photos, label=label, faces="main", progress=progress)
        failures = {failure.photo: failure for failure in report.failures}
        digests: dict[str, str] = {}
        for photo in photos:
            if photo not in failures:
                try:
                    digests[photo] = engine.read(photo).digest
                except PhotoError as error:
                    failures[photo] = PhotoFailure(photo, error.code, error.message)
        wanted = set(digests.values())
        found: dict[str, tuple[Box, Embedding]] = {}
        for stored in gallery.store.scan():
            template = stored.template
            if template.photo_digest in wanted:
                before = found.get(template.photo_digest)
                if before is None or template.box.area > before[0].area:
                    found[template.photo_digest] = template.box, template.embedding
        held = gallery.store.space()
    if held is not None and held != engine.space:
        raise SpaceMismatch(f"the embeddings kept are of {held}, not {engine.space}.", held=held.id)
    return _Embedded(digests, found, tuple(failures.values()))


def _stacked(rows: Sequence[Embedding], space: EmbeddingSpace) -> Embeddings:
    return np.stack(rows) if rows else np.empty((0, space.dimension), np.float32)
