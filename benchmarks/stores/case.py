"""One store in a process of its own: ``python -m benchmarks.stores.case enroll|search|cold URL ROWS``; prints JSON.

Faces are generated (``benchmarks.search.data``), 128 dimensions; the embedding of a probe is given, not computed.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.search import data
from facedex.engine import DEFAULT_SPACE, Engine, Gallery
from facedex.errors import FacedexError
from facedex.search import reference
from facedex.settings import Settings
from facedex.stores.contract import PhotoRecord
from facedex.types import Box, Face, Template

DIMENSION, PROBES, K, BATCH = 128, 50, 10, 2_000


class Given(Engine):
    """An engine whose photos are embeddings already."""

    def embed(self, source: Any, **_: Any) -> list[Face]:
        return [Face(Box(0, 0, 100, 100), np.zeros((5, 2), np.float32), 1.0, source)]


def faces(count: int) -> npt.NDArray[np.float32]:
    """``(count, 128)`` float32; a smaller gallery is the beginning of a larger one."""
    whole = 65_536  # rows the generator makes at once
    return data.gallery(-(-count // whole) * whole, DIMENSION)[:count]


def records(rows: npt.NDArray[np.float32]) -> Iterator[PhotoRecord]:
    """A photo of one face for each row; five of a person."""
    landmarks = np.zeros((5, 2), np.float32)
    for n, row in enumerate(rows):
        digest = hashlib.sha256(f"{n}.jpg".encode()).hexdigest()
        link, label = f"/photos/{n}.jpg", f"person {n // data.TEMPLATES}"
        template = Template(digest, Box(0, 0, 100, 100), landmarks, 0.9, row, DEFAULT_SPACE.id, link, label)
        yield PhotoRecord(digest, (template,))


def memory() -> float:
    """Resident MB of this process; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return float(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


def enroll(gallery: Gallery, rows: npt.NDArray[np.float32]) -> dict[str, Any]:
    every = list(records(rows))
    started = time.perf_counter()
    for start in range(0, len(every), BATCH):
        gallery.store.add(every[start : start + BATCH], DEFAULT_SPACE)
    return {"faces_a_second": len(every) / (time.perf_counter() - started), "enrolled": gallery.count()}


def p50(search: Callable[[Any], object], probes: npt.NDArray[np.float32]) -> float:
    """Median milliseconds over the probes, one by one; the first, which loads what it needs, does not count."""
    search(probes[0])
    times = []
    for probe in probes:
        started = time.perf_counter()
        search(probe)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


def search(gallery: Gallery, rows: npt.NDArray[np.float32]) -> dict[str, Any]:
    probes = data.probes(PROBES, rows)
    result: dict[str, Any] = {}

    def exact(probe: Any) -> Any:
        return gallery.search(probe, k=K, mode="exact")

    def approximate(probe: Any) -> Any:
        return gallery.search(probe, k=K, mode="ann")

    result["exact_ms"] = p50(exact, probes)
    result["exact_memory_mb"] = memory()
    started = time.perf_counter()
    gallery.build_index(approximate=True)
    result["build_s"] = time.perf_counter() - started
    result["approximate_ms"] = p50(approximate, probes)
    numbers = np.arange(len(rows), dtype=np.int64)
    best = reference.search(rows, numbers, probes, K)[0]
    for name, how in (("exact", exact), ("approximate", approximate)):
        hits = 0
        for probe, row in zip(probes, best, strict=True):
            found = {int(str(c.photo).removeprefix("/photos/").removesuffix(".jpg")) for c in how(probe)[0].candidates}
            scores = reference.similarities(rows[sorted(found)], probe)  # recomputed: ties count, claims do not
            hits += int((scores >= row[-1] - 1e-6).sum())
        result[f"{name}_recall"] = hits / best.size
    return result


def cold(url: str, rows: npt.NDArray[np.float32]) -> dict[str, Any]:
    """From opening the gallery to its first answer, with and without an index kept for it."""
    probe = data.probes(1, rows)[0]
    result = {}
    for name in ("cold_s", "cold_kept_s"):
        started = time.perf_counter()
        with Given().open(url) as gallery:
            gallery.search(probe, k=K, mode="exact")
            result[name] = time.perf_counter() - started
            if name == "cold_s":
                gallery.build_index()
    return result


def main(what: str, url: str, count: int) -> dict[str, Any]:
    rows = faces(count)
    try:
        if what == "cold":
            return cold(url, rows)
        with Given(settings=Settings.from_environment()).open(url) as gallery:
            return enroll(gallery, rows) if what == "enroll" else search(gallery, rows)
    except FacedexError as error:
        return {"missing": str(error)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
