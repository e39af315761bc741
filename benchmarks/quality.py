"""Does the quality score find the faces that will not match? Fits its weights, and measures what they are worth.

python -m benchmarks.quality [--fit] [DIR --name NAME]      DIR/PERSON/*.jpg; the AT&T faces when left out

Every other photo is degraded in some forty ways: blurred, shaken, shrunk, darkened, burnt out, grainy, flattened,
compressed, turned, partly covered, cut off. Each result is a probe against the undegraded photos of the same person;
what is predicted is the share of these genuine comparisons that match at the shipped threshold. ``--fit`` fits the
weights on every other person of the AT&T faces and writes ``vision/quality.json``; measured are the other people only.

Error versus discard (Grother and Tabassi 2007, doi:10.1109/TPAMI.2007.1019): probes are thrown out from the lowest
quality up, and FNMR is taken of those that stay. It must fall; ``best possible`` throws out by the outcome itself.
"""

from __future__ import annotations

import argparse
import io
import json
import timeit
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.data import ATT_NAME, att_faces, save
from facedex import Engine, Face
from facedex.types import RgbImage
from facedex.vision import quality
from facedex.vision.alignment import align_face
from facedex.vision.scaling import shrink
from facedex.vision.sources import find_photos

TARGET = Path(quality.__file__).with_suffix(".json")
EYES = 36.0  # distance in the AT&T photos; levels below are for faces of that size and scale with others
DISCARDED = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
LEVELS: dict[str, tuple[float, ...]] = {
    "blur": (1, 2, 3, 4, 6),
    "shake": (5, 9, 15),
    "small": (0.7, 0.5, 0.35, 0.25, 0.18),
    "dark": (0.3, 0.12, 0.06),
    "burnt": (2, 3.5, 6),
    "grain": (15, 30),
    "flat": (0.4, 0.15, 0.06),
    "jpeg": (20, 8, 3),
    "turn": (20, 60, 150),
    "cover": (0, 1, 2, 3, 4),
    "cut": (0, 1, 2, 3),
}
COVERS = ("lower half", "eyes", "one side", "mouth", "lower half, patterned")
CUTS = ("left", "right", "top", "bottom")
EVERY = 2  # photo is degraded; all are compared with
TWICE = 4  # combinations of two kinds for each photo


def degrade(image: RgbImage, face: Face, kind: str, level: float, rng: np.random.Generator) -> RgbImage:
    """A worse photo of the same face; lengths are in eye distances, so that faces of all sizes suffer alike."""
    scale = float(np.hypot(*(face.landmarks[1] - face.landmarks[0]))) / EYES
    picture, pixels = Image.fromarray(image), image.astype(np.float32)
    if kind == "blur":
        return np.asarray(picture.filter(ImageFilter.GaussianBlur(level * scale)))
    if kind == "shake":
        length = max(1, round(level * scale))
        angle = rng.uniform(0, np.pi)
        steps = [
            np.rint([np.sin(angle) * k, np.cos(angle) * k]).astype(int) for k in range(-(length // 2), length // 2)
        ]
        return _bytes(sum(np.roll(pixels, tuple(step), (0, 1)) for step in steps or [[0, 0]]) / max(1, len(steps)))
    if kind == "small":
        width, height = (max(1, round(side * level / scale)) for side in picture.size)
        return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    if kind == "dark":
        return _bytes(pixels * level + rng.normal(0, 3, (*pixels.shape[:2], 1)))
    if kind == "burnt":
        return _bytes(pixels * level)
    if kind == "grain":
        return _bytes(pixels + rng.normal(0, level, (*pixels.shape[:2], 1)))
    if kind == "flat":
        return _bytes((pixels - 128) * level + 128)
    if kind == "jpeg":
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=int(level))
        return np.asarray(Image.open(data).convert("RGB"))
    if kind == "turn":
        return np.asarray(picture.rotate(level, Image.Resampling.BICUBIC, expand=True))
    return _cover(image, face, int(level), rng) if kind == "cover" else _cut(image, face, int(level))


def _bytes(pixels: Any) -> RgbImage:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _cover(image: RgbImage, face: Face, which: int, rng: np.random.Generator) -> RgbImage:
    """Something plain, of a random gray, or patterned over a part of the face."""
    left, right, nose, mouth_left, mouth_right = face.landmarks
    unit = float(np.hypot(*(right - left)))
    eyes, mouth = (left[1] + right[1]) / 2, (mouth_left[1] + mouth_right[1]) / 2
    x1, y1, x2, y2 = face.box
    places = (
        (x1, nose[1] - 0.1 * unit, x2, y2 + 0.1 * unit),
        (x1, eyes - 0.35 * unit, x2, eyes + 0.35 * unit),
        (x1 - 0.2 * unit, y1 - 0.2 * unit, nose[0], y2),
        (mouth_left[0] - 0.2 * unit, mouth - 0.3 * unit, mouth_right[0] + 0.2 * unit, mouth + 0.3 * unit),
        (x1, nose[1] - 0.1 * unit, x2, y2 + 0.1 * unit),
    )
    x1, y1, x2, y2 = (max(0, int(v)) for v in places[which])
    covered = image.copy()
    patch = covered[y1:y2, x1:x2]
    cell = max(2, round(unit / 9))
    pattern = rng.integers(0, 256, (patch.shape[0] // cell + 1, patch.shape[1] // cell + 1))
    pattern = pattern.repeat(cell, 0).repeat(cell, 1)[: patch.shape[0], : patch.shape[1]]
    patch[:] = pattern[..., None] if COVERS[which].endswith("patterned") else rng.integers(0, 256)
    return covered


def _cut(image: RgbImage, face: Face, side: int) -> RgbImage:
    """The photo ends where a third of the face would still come."""
    x1, y1, x2, y2 = (max(0, int(v)) for v in face.box)
    wide, high = (x2 - x1) // 3, (y2 - y1) // 3
    parts = (image[:, x1 + wide :], image[:, : x2 - wide], image[y1 + high :], image[: y2 - high])
    return np.ascontiguousarray(parts[side])


@dataclass(frozen=True)
class Probe:
    """A degraded face: whose, how, what was measured of it, and the share of genuine comparisons that match."""

    person: str
    kind: str
    level: str
    measures: quality.Measures
    matching: float


def variants(image: RgbImage, face: Face, rng: np.random.Generator) -> Iterator[tuple[str, str, RgbImage]]:
    yield "clean", "", image
    for kind, levels in LEVELS.items():
        for level in levels:
            name = COVERS[int(level)] if kind == "cover" else CUTS[int(level)] if kind == "cut" else str(level)
            yield kind, name, degrade(image, face, kind, level, rng)
    simple = [kind for kind in LEVELS if kind not in ("cover", "cut", "turn", "small")]
    for _ in range(TWICE):
        first, second = rng.choice(simple, 2, replace=False)
        once = degrade(image, face, first, float(rng.choice(LEVELS[first])), rng)
        yield "two", "", degrade(once, face, second, float(rng.choice(LEVELS[second])), rng)


def gather(engine: Engine, folder: Path) -> tuple[list[Probe], dict[str, float]]:
    """Every degraded face that is still found, and the share of photos of each kind in which none is."""
    pipeline, threshold = engine.pipeline, engine.policy.match.threshold
    photos, faces, people = [], [], []
    for source in find_photos(folder):
        image = shrink(engine.load(source.source).pixels, 640)
        found = pipeline.faces([image])[0]
        if found:
            photos.append(image)
            faces.append(found[0])
            people.append(str(source.folder))
    enrolled, labels = np.stack([face.embedding for face in faces if face.embedding is not None]), np.array(people)
    rng = np.random.default_rng(0)
    probes: list[Probe] = []
    missed: dict[str, list[bool]] = {}
    for row, (photo, face) in enumerate(zip(photos, faces, strict=True)):
        if row % EVERY:
            continue
        others = labels == labels[row]
        others[row] = False
        made = [(kind, level, _enlarged(image, row)) for kind, level, image in variants(photo, face, rng)]
        for (kind, level, image), found in zip(made, pipeline.faces([image for *_, image in made]), strict=True):
            missed.setdefault(f"{kind} {level}".strip(), []).append(not found)
            if found and others.any():
                measures = quality.measure(found[0], align_face(image, found[0].landmarks), image.shape[1::-1])
                matching = float((enrolled[others] @ found[0].embedding >= threshold).mean())
                probes.append(Probe(people[row], kind, level, measures, matching))
        if row % 50 == 0:
            print(f"{row} of {len(photos)} photos", flush=True)
    return probes, {name: round(float(np.mean(each)), 3) for name, each in missed.items()}


def _enlarged(image: RgbImage, row: int) -> RgbImage:
    """Every other AT&T photo three times as large: faces are small there, and detection scores depend on size."""
    if row // EVERY % 2 or max(image.shape) > 200:
        return image
    size = (image.shape[1] * 3, image.shape[0] * 3)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def table(probes: list[Probe]) -> tuple[np.ndarray, np.ndarray]:
    """(N, faults) badness, (N,) share of genuine comparisons that match."""
    rows = [[badness(probe.measures) for badness in quality.BADNESS.values()] for probe in probes]
    return np.array(rows), np.array([probe.matching for probe in probes])


def fit(probes: list[Probe]) -> dict[str, Any]:
    """Logistic regression with weights of at least 0; each knee in turn where the likelihood is best, twice around."""
    values, matching = table(probes)
    names = list(quality.BADNESS)
    grids = [np.quantile(values[:, i], np.linspace(0.1, 0.9, 9)) for i in range(len(names))]
    knees = np.array([np.median(column) for column in values.T])
    loss, solution = _regress(values, matching, knees)
    for _ in range(2):
        for i, grid in enumerate(grids):
            for knee in grid:
                tried = knees.copy()
                tried[i] = knee
                other, found = _regress(values, matching, tried)
                if other < loss - 1e-6:
                    loss, solution, knees = other, found, tried
    weights = solution[1:]
    return {
        "intercept": round(float(solution[0]), 3),
        "faults": {
            name: {"knee": round(float(knee), 3), "weight": round(float(weight), 3)}
            for name, knee, weight in zip(names, knees, weights, strict=True)
            if weight > 0.02
        },
    }


def _regress(values: np.ndarray, matching: np.ndarray, knees: np.ndarray) -> tuple[float, np.ndarray]:
    from scipy.optimize import minimize

    losses = np.maximum(0, values - knees)
    scales = losses.std(axis=0) + 1e-9
    losses = losses / scales

    def deviance(w: np.ndarray) -> tuple[float, np.ndarray]:
        chance = 1 / (1 + np.exp(np.clip(losses @ w[1:] - w[0], -50, 50)))
        error = chance - matching
        value = -np.mean(matching * np.log(chance + 1e-12) + (1 - matching) * np.log(1 - chance + 1e-12))
        slope = np.concatenate([[error.mean()], -(losses * error[:, None]).mean(axis=0)])
        return float(value + 1e-4 * (w[1:] ** 2).sum()), slope + np.concatenate([[0], 2e-4 * w[1:]])

    start = np.concatenate([[3.0], np.full(values.shape[1], 0.5)])
    bounds = [(None, None)] + [(0, None)] * values.shape[1]
    found = minimize(deviance, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return float(found.fun), np.concatenate([found.x[:1], found.x[1:] / scales])


def error_versus_discard(order: np.ndarray, matching: np.ndarray) -> list[float]:
    """FNMR of what stays when the lowest of ``order`` go, for each share of ``DISCARDED``."""
    sorted_ = matching[np.argsort(order, kind="stable")]
    return [round(float(1 - sorted_[int(share * len(sorted_)) :].mean()), 4) for share in DISCARDED]


def measured(probes: list[Probe], missed: dict[str, float], engine: Engine) -> dict[str, Any]:
    values, matching = table(probes)
    scores = np.array([quality.rate(probe.measures)[0] for probe in probes])
    kinds: dict[str, list[int]] = {}
    for index, probe in enumerate(probes):
        kinds.setdefault(f"{probe.kind} {probe.level}".strip(), []).append(index)
    bands = [(scores >= low) & (scores < low + 0.2 + (low == 0.8) * 0.01) for low in (0, 0.2, 0.4, 0.6, 0.8)]
    return {
        "match_threshold": engine.policy.match.threshold,
        "people": len({probe.person for probe in probes}),
        "probes": len(probes),
        "discarded": DISCARDED,
        "fnmr": {
            "quality": error_versus_discard(scores, matching),
            "best possible": error_versus_discard(matching, matching),
            **{f"only {name}": error_versus_discard(-values[:, i], matching) for i, name in enumerate(quality.BADNESS)},
        },
        "matching_by_score": {
            f"{low:.1f}–{low + 0.2:.1f}": {
                "probes": int(band.sum()),
                "matching": round(float(matching[band].mean()), 3),
            }
            for low, band in zip((0, 0.2, 0.4, 0.6, 0.8), bands, strict=True)
            if band.any()
        },
        "by_kind": {
            name: {
                "not_found": missed[name],
                "matching": round(float(matching[each].mean()), 3),
                "quality": round(float(scores[each].mean()), 3),
            }
            for name, each in kinds.items()
        },
    }


def milliseconds(engine: Engine) -> float:
    """Of ``assess`` for one face whose crop is there, the best of many."""
    image = engine.load(next(iter(find_photos(att_faces()))).source).pixels
    (face,) = engine.pipeline.detect([image])[0]
    crop = align_face(image, face.landmarks)
    run: Callable[[], object] = lambda: quality.assess(face, crop, image.shape[1::-1])  # noqa: E731
    return round(min(timeit.repeat(run, number=20, repeat=50)) / 20 * 1000, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--name", default=ATT_NAME, help="what to call the photos")
    parser.add_argument("--fit", action="store_true", help="fit the shipped weights first")
    options = parser.parse_args()
    engine = Engine()
    probes, missed = gather(engine, options.folder or att_faces())
    if options.folder is None:
        people = sorted({probe.person for probe in probes})
        if options.fit:
            weights = fit([probe for probe in probes if probe.person in people[::2]])
            weights |= {"dataset": f"{ATT_NAME}, every other person, degraded", "date": f"{datetime.now(UTC):%Y-%m-%d}"}
            TARGET.write_text(json.dumps(weights, indent=2, ensure_ascii=False) + "\n", "utf-8")
            quality.weights.cache_clear()
        probes = [probe for probe in probes if probe.person in people[1::2]]
    save("quality", options.name, measured(probes, missed, engine) | {"assess_ms": milliseconds(engine)})


if __name__ == "__main__":
    main()
