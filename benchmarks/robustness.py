"""What blur, distance, compression, darkness, covering and turning cost, on whole photos through detection.

python -m benchmarks.robustness [DIR --name NAME] [--probes N]     DIR/PERSON/*.jpg; AT&T and samples when left out

Some photos of each person (the probes) are spoiled and go the whole way, decoding excepted: detect, align, embed. They
are compared with everybody's other photos as they are. A probe in which no face is found counts as missed, and as a
non-match in ``fnmr_with_missed``. Detection recall against face size: photos shrunk until the face has that width, on
a gray canvas of 640 × 480, where detection looks at every pixel.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.data import ATT_NAME, SAMPLE_PHOTOS_NAME, att_faces, save
from facedex import Box, Engine
from facedex.decide.evaluation import operating_point
from facedex.decide.trials import ListedPairs
from facedex.errors import TrialsTooFew
from facedex.types import Embedding, RgbImage, to_plain
from facedex.vision.sources import find_photos

GRAY = (128, 128, 128)
WIDTHS = (8, 10, 12, 16, 20, 24, 32, 48, 64)
Spoil = Callable[[Image.Image, Box], Image.Image]


@dataclass(frozen=True)
class Clean:
    """A photo as it is, with its main face."""

    name: str
    person: str
    pixels: RgbImage
    box: Box
    embedding: Embedding


def blur(share: float) -> Spoil:
    return lambda image, box: image.filter(ImageFilter.GaussianBlur(share * box.width))


def shrink(width: float) -> Spoil:
    def spoil(image: Image.Image, box: Box) -> Image.Image:
        scale = width / box.width
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        return image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)

    return spoil


def jpeg(quality: int) -> Spoil:
    def spoil(image: Image.Image, box: Box) -> Image.Image:  # noqa: ARG001
        data = io.BytesIO()
        image.save(data, "JPEG", quality=quality)
        return Image.open(data).convert("RGB")

    return spoil


def darken(share: float) -> Spoil:
    return lambda image, _: image.point(lambda value: round(value * share))


def cover(x1: float, y1: float, x2: float, y2: float) -> Spoil:
    """Paint this part of the box (shares of its width and height) gray."""

    def spoil(image: Image.Image, box: Box) -> Image.Image:
        painted = image.copy()
        left, top = box.x1 + x1 * box.width, box.y1 + y1 * box.height
        right, bottom = box.x1 + x2 * box.width, box.y1 + y2 * box.height
        painted.paste(GRAY, (round(left), round(top), round(right), round(bottom)))
        return painted

    return spoil


def turn(degrees: float) -> Spoil:
    return lambda image, _: image.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=GRAY)


CONDITIONS: dict[str, tuple[tuple[str, Spoil], ...]] = {
    "none": (("as it is", lambda image, _: image),),
    "blur": tuple((f"sigma {share:.0%} of the face's width", blur(share)) for share in (0.01, 0.02, 0.04, 0.06, 0.08)),
    "low resolution": tuple((f"face {width} pixels wide", shrink(width)) for width in (48, 32, 24, 20, 16, 12)),
    "JPEG": tuple((f"quality {quality}", jpeg(quality)) for quality in (50, 30, 20, 10, 5)),
    "darkness": tuple((f"{share:.0%} of the light", darken(share)) for share in (0.5, 0.25, 0.1, 0.05, 0.02)),
    "half covered": (
        ("lower half", cover(0, 0.5, 1, 1)),
        ("upper half", cover(0, 0, 1, 0.5)),
        ("image-left half", cover(0, 0, 0.5, 1)),
        ("image-right half", cover(0.5, 0, 1, 1)),
    ),
    "turned": tuple((f"{degrees}°", turn(degrees)) for degrees in (10, 20, 30, 45, 60, 90, 180)),
}


def batches(probes: list[Clean]) -> Iterator[list[Clean]]:
    return (probes[start : start + 16] for start in range(0, len(probes), 16))


def clean_faces(engine: Engine, sources: Iterable[tuple[Path, str]]) -> tuple[list[Clean], list[str]]:
    """Each photo's main face, and the photos without one."""
    found, missed = [], []
    for path, person in sources:
        pixels = engine.load(path).pixels
        faces = engine.pipeline.faces([pixels])[0]
        if faces and faces[0].embedding is not None:
            found.append(Clean(path.name, person, pixels, faces[0].box, faces[0].embedding))
        else:
            missed.append(str(path))
    return found, missed


def spoiled_faces(engine: Engine, probes: list[Clean], spoil: Spoil) -> Iterator[Embedding | None]:
    for some in batches(probes):
        images = [np.asarray(spoil(Image.fromarray(clean.pixels), clean.box)) for clean in some]
        for faces in engine.pipeline.faces(images):
            yield faces[0].embedding if faces else None


def judged(engine: Engine, probes: list[Clean], gallery: list[Clean], found: list[Embedding | None]) -> dict[str, Any]:
    """Error rates of spoiled probes against everybody's other photos, at the shipped match threshold."""
    people = sorted({clean.person for clean in gallery})
    number = {person: place for place, person in enumerate(people)}
    rows = np.stack([clean.embedding for clean in gallery]).astype(np.float64)
    who = np.array([number[clean.person] for clean in gallery])
    kept = [(clean, embedding) for clean, embedding in zip(probes, found, strict=True) if embedding is not None]
    result: dict[str, Any] = {"probes": len(probes), "missed": len(probes) - len(kept)}
    if not kept:
        return result | {"fnmr_with_missed": 1.0}
    scores, first, second = [], [], []
    own = []
    for clean, embedding in kept:
        similarities = rows @ embedding.astype(np.float64)
        other = np.array([each is not clean for each in gallery])
        own.append(float(similarities[~other][0]))
        scores.append(similarities[other])
        first.append(np.full(int(other.sum()), number[clean.person]))
        second.append(who[other])
    a, b = np.concatenate(first), np.concatenate(second)
    result["similarity_to_itself_mean_min"] = [float(np.mean(own)), float(np.min(own))]
    try:
        trials = ListedPairs(np.concatenate(scores), a == b, a, b, people)
    except TrialsTooFew:
        return result
    point = operating_point(trials, engine.policy.match.threshold, dataset="", date="", rounds=300)
    mates = {person: int((who == place).sum()) - 1 for person, place in number.items()}
    genuine = sum(mates[clean.person] for clean in probes)
    lost = sum(mates[clean.person] for clean, embedding in zip(probes, found, strict=True) if embedding is None)
    below = point.fnmr * point.genuine_trials
    return result | {
        "genuine": point.genuine_trials,
        "impostor": point.impostor_trials,
        "fmr": point.fmr,
        "fmr_interval": to_plain(point.fmr_interval),
        "fnmr": point.fnmr,
        "fnmr_interval": to_plain(point.fnmr_interval),
        "fnmr_with_missed": (below + lost) / genuine,
    }


def recall_by_size(engine: Engine, probes: list[Clean]) -> list[dict[str, Any]]:
    """Of faces this wide, how many are found (IoU with where it must be at least 0.3), and what else is."""
    rows = []
    for width in WIDTHS:
        found = others = tried = 0
        for some in batches(probes):
            images, wanted = [], []
            for clean in some:
                small = shrink(width)(Image.fromarray(clean.pixels), clean.box)
                if small.width > 640 or small.height > 480:
                    continue
                canvas = Image.new("RGB", (640, 480), GRAY)
                left, top = (640 - small.width) // 2, (480 - small.height) // 2
                canvas.paste(small, (left, top))
                scale = small.width / clean.pixels.shape[1]
                wanted.append(Box(*(v * scale + (left, top)[n % 2] for n, v in enumerate(clean.box))))
                images.append(np.asarray(canvas))
            for faces, box in zip(engine.pipeline.detect(images), wanted, strict=True):
                right = [overlap(face.box, box) >= 0.3 for face in faces]
                found += any(right)
                others += len(right) - any(right)
            tried += len(images)
        rows.append({"width": width, "photos": tried, "found": found, "other_faces": others})
    return rows


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    wide, high = min(a.x2, b.x2) - max(a.x1, b.x1), min(a.y2, b.y2) - max(a.y1, b.y1)
    shared = max(0.0, wide) * max(0.0, high)
    return shared / (a.area + b.area - shared)


def measure(engine: Engine, name: str, sources: list[tuple[Path, str]], probes_each: int) -> None:
    gallery, missed = clean_faces(engine, sources)
    probes: list[Clean] = []
    for person in sorted({clean.person for clean in gallery}):
        probes += [clean for clean in gallery if clean.person == person][:probes_each]
    conditions = []
    for kind, levels in CONDITIONS.items():
        for level, spoil in levels:
            found = list(spoiled_faces(engine, probes, spoil))
            conditions.append({"condition": kind, "level": level, **judged(engine, probes, gallery, found)})
            print(conditions[-1], flush=True)
    result = {
        "photos": len(sources),
        "people": len({person for _, person in sources}),
        "missed_as_they_are": missed,
        "median_face_width": float(np.median([clean.box.width for clean in probes])),
        "match_threshold": engine.policy.match.threshold,
        "conditions": conditions,
        "recall_by_face_width": recall_by_size(engine, probes),
    }
    save("robustness", name, result)


def folder_of_people(folder: Path) -> list[tuple[Path, str]]:
    return [(Path(source.source), str(source.folder)) for source in find_photos(folder)]


def samples() -> list[tuple[Path, str]]:
    """The enrolled samples by folder, and the probes under the names their PROVENANCE gives."""
    folder = Path(__file__).parent.parent / "samples"
    people = {"barack_obama_blue_room": "Barack Obama", "eileen_collins_not_enrolled": "Eileen Collins"}
    probes = [(path, people[path.stem]) for path in sorted((folder / "probes").iterdir()) if path.stem in people]
    return folder_of_people(folder / "enroll") + probes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--name", help="what to call the photos of the folder")
    parser.add_argument("--probes", type=int, default=4, help="photos of each person that are spoiled")
    options = parser.parse_args()
    engine = Engine()
    if options.folder:
        measure(engine, options.name or options.folder.name, folder_of_people(options.folder), options.probes)
    else:
        measure(engine, SAMPLE_PHOTOS_NAME, samples(), 10)
        measure(engine, ATT_NAME, folder_of_people(att_faces()), options.probes)


if __name__ == "__main__":
    main()
