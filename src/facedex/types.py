"""The values that travel through the house, all frozen.

``source → Photo → Face → Template → store → Candidate → decision``
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import PurePath
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

RgbImage: TypeAlias = npt.NDArray[np.uint8]
"""``(H, W, 3)`` uint8, RGB, upright."""

Landmarks: TypeAlias = npt.NDArray[np.float32]
"""``(5, 2)`` float32 pixels: image-left eye, image-right eye, nose tip, image-left and image-right mouth corner."""

Embedding: TypeAlias = npt.NDArray[np.float32]
"""``(D,)`` float32, L2 norm 1."""

Embeddings: TypeAlias = npt.NDArray[np.float32]
"""``(N, D)`` float32, each row of L2 norm 1."""

MetadataValue: TypeAlias = str | int | float | bool | None

Metadata: TypeAlias = Mapping[str, MetadataValue]
"""What a user says of a template beyond its label: flat, JSON values only."""


class Box(NamedTuple):
    """A face's rectangle in pixels of the upright photo, origin top-left; may reach beyond the photo's edge."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def width(self) -> float:
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        return max(0.0, self.width) * max(0.0, self.height)


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A decoded photo.

    pixels  upright RGB.
    digest  SHA-256 (hex) of the bytes it was decoded from; of shape and pixels for an array.
    link    where it came from: an absolute path, a URL, or None for bytes and arrays.
    """

    pixels: RgbImage
    digest: str
    link: str | None = None

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a head is turned to, in degrees; (0, 0, 0) looks into the camera. Left and right are those of the photo.

    yaw    where the nose points across: right is positive.
    pitch  where it points up or down: down is positive.
    roll   how the head is tilted in the picture: clockwise is positive.
    """

    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True, slots=True)
class Quality:
    """How much of a face a photo shows to an embedder, and what stands in the way; see ``vision.quality``.

    score         0…1: the estimated chance that a good photo of the same person matches this one.
    faults        what lowers the score, the worst first, such as ``("blurred", "turned away")``; often empty.
    sharpness     energy of details a ninth of the eyes' distance apart, relative to all contrast; sharp is about 0.4.
    contrast      standard deviation of the luminance, 0…0.5.
    overexposed   share of the face that is burnt out, 0…1.
    eyes          variance about the eye that shows more of it, relative to the face; near 0 where both are hidden.
    eye_distance  pixels of the photo between the eyes.
    inside        share of the aligned crop that lies within the photo, 0…1.
    """

    score: float
    faults: tuple[str, ...]
    sharpness: float
    contrast: float
    overexposed: float
    eyes: float
    eye_distance: float
    inside: float
    pose: Pose


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A face a detector found.

    detection_score  0…1 from the detector; not a confidence about who it is.
    embedding        None until embedded.
    quality          None until embedded or analyzed.
    """

    box: Box
    landmarks: Landmarks
    detection_score: float
    embedding: Embedding | None = None
    quality: Quality | None = None


@dataclass(frozen=True, slots=True)
class Age:
    """How old a face looks to a network: years, and the spread (standard deviation) of its own answer in years.

    The spread says how undecided the network is, not how wrong: docs/attributes.md has measured errors.
    """

    years: float
    spread: float


@dataclass(frozen=True, slots=True, eq=False)
class FaceAttributes:
    """What networks guess of a face's appearance; no fact about the person. None: not asked for.

    gender   probabilities of "female" and "male", sum 1: the two classes the network was trained on.
    emotion  probabilities of "angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", sum 1: of the
             expression, not of what is felt.
    """

    face: Face
    age: Age | None
    gender: Mapping[str, float] | None
    emotion: Mapping[str, float] | None
    pose: Pose
    quality: Quality


@dataclass(frozen=True, slots=True)
class EmbeddingSpace:
    """Where embeddings may be compared with one another: same space, same meaning.

    id   hash of model, version, weight digest, dimension and preprocessing.
    """

    model: str
    version: str
    weights_sha256: str
    dimension: int
    preprocessing: str

    @property
    def id(self) -> str:
        facts = (self.model, self.version, self.weights_sha256, str(self.dimension), self.preprocessing)
        return hashlib.sha256("\x1f".join(facts).encode()).hexdigest()[:32]

    def __str__(self) -> str:
        return f"{self.model}-{self.version}@sha256:{self.weights_sha256[:8]}… ({self.dimension}-d)"


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """One face as a gallery keeps it: where it was seen, whose it is said to be, its embedding. Never the picture."""

    photo_digest: str
    box: Box
    landmarks: Landmarks
    detection_score: float
    embedding: Embedding
    space_id: str
    link: str | None = None
    label: str | None = None
    metadata: Metadata = field(default_factory=dict)

    @property
    def content_id(self) -> str:
        """Same photo bytes, same box (whole pixels), same space: same id, on every store and machine."""
        x1, y1, x2, y2 = self.box
        box = f"{round(x1)}\x1f{round(y1)}\x1f{round(x2)}\x1f{round(y2)}"
        return hashlib.sha256(f"{self.photo_digest}\x1f{box}\x1f{self.space_id}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, eq=False)
class StoredTemplate:
    """A template after enrollment.

    id           rises with every enrollment and is never used again; the index knows it by this.
    enrolled_at  UTC.
    """

    id: int
    template: Template
    enrolled_at: datetime


@dataclass(frozen=True, slots=True)
class Where:
    """Which templates a search, count or delete is about; every condition given must hold.

    labels, not_labels                 the label is (not) one of these; None stands for "no label".
    photos                             the photo's digest is one of these.
    metadata                           each key has exactly this value.
    enrolled_after, enrolled_before    UTC, after inclusive, before exclusive.
    """

    labels: frozenset[str | None] | None = None
    not_labels: frozenset[str | None] | None = None
    photos: frozenset[str] | None = None
    metadata: Metadata = field(default_factory=dict)
    enrolled_after: datetime | None = None
    enrolled_before: datetime | None = None

    def passes(self, stored: StoredTemplate) -> bool:
        """Whether a template meets every condition: the meaning that each store's own query must reproduce."""
        template = stored.template
        return (
            (self.labels is None or template.label in self.labels)
            and (self.not_labels is None or template.label not in self.not_labels)
            and (self.photos is None or template.photo_digest in self.photos)
            and all(
                key in template.metadata
                and template.metadata[key] == value
                and type(template.metadata[key]) is type(value)
                for key, value in self.metadata.items()
            )
            and (self.enrolled_after is None or stored.enrolled_at >= self.enrolled_after)
            and (self.enrolled_before is None or stored.enrolled_at < self.enrolled_before)
        )


class Verdict(StrEnum):
    """The three bands of a decision; and none, in an embedding space for which nobody measured thresholds."""

    MATCH = "match"
    REVIEW = "review"
    NO_MATCH = "no match"
    NOT_CALIBRATED = "not calibrated"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer of a search.

    rank        1 is best.
    similarity  cosine, −1…1, higher is more alike.
    confidence  calibrated 0…100 % that both faces are one person; see ``facedex.decide`` for on what. None where the
                verdict is ``NOT_CALIBRATED``.
    photo       link of the enrolled photo, box in it.
    """

    rank: int
    label: str | None
    similarity: float
    confidence: float | None
    verdict: Verdict
    photo: str | None
    box: Box
    template_id: int
    metadata: Metadata = field(default_factory=dict)

    def __str__(self) -> str:
        name = self.label if self.label is not None else "(no label)"
        sure = "" if self.confidence is None else f"confidence {self.confidence:.1f} %  "
        return (
            f"{self.rank}. {name}  similarity {self.similarity:.3f}  {sure}{self.verdict}  {self.photo or '(no link)'}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a search says of one face of the probe photo."""

    face: Face
    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate | None:
        return self.candidates[0] if self.candidates else None


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """One 1:1 decision.

    verified  similarity is at or above the threshold of the operating point. None, as threshold and confidence, where
              the verdict is ``NOT_CALIBRATED``: nobody knows what a similarity means there.
    """

    similarity: float
    threshold: float | None
    verified: bool | None
    confidence: float | None
    verdict: Verdict
    faces: tuple[Face, Face]


@dataclass(frozen=True, slots=True)
class Person:
    """A label of a gallery and how much is enrolled under it."""

    label: str | None
    templates: int
    photos: int


@dataclass(frozen=True, slots=True)
class PhotoFailure:
    """A photo, or a face of it, that was not enrolled, and why; the others were."""

    photo: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class EnrollmentReport:
    """What an enrollment did.

    photos            photos looked at, those of every other row included.
    enrolled          new templates.
    already           photos skipped because the gallery has them (same bytes, same label).
    faceless          photos in which no face was found, now or when they were enrolled before.
    passed_over       faces not enrolled because a labelled photo gives its main face only.
    low_quality       faces not enrolled because their quality is below the minimum asked for, and what is wrong.
    conflicts         faces enrolled before under another label, which was kept.
    failures          photos that could not be read.
    seconds           wall time.
    """

    photos: int = 0
    enrolled: int = 0
    already: int = 0
    faceless: tuple[str, ...] = ()
    passed_over: int = 0
    low_quality: tuple[PhotoFailure, ...] = ()
    conflicts: tuple[PhotoFailure, ...] = ()
    failures: tuple[PhotoFailure, ...] = ()
    seconds: float = 0.0

    @property
    def photos_per_second(self) -> float:
        return self.photos / self.seconds if self.seconds else 0.0


def to_plain(value: Any) -> Any:
    """A JSON-ready copy of any value above: arrays to lists, dataclasses to dicts, times to ISO 8601."""
    import dataclasses

    if isinstance(value, Box):
        return [float(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (bytes, PurePath)):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(v) for v in value]
    return value
