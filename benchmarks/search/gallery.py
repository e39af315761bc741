"""A whole gallery in one SQLite file: opening it, the first answer, and what filters cost, beside a search without.

``python -m benchmarks.search.gallery [--rows 1000000] [--keep FOLDER]``. Embeddings are generated (``data``), labels,
times and metadata too. Opening and the first answer are measured in processes of their own, with the file's pages in
the cache. Writes ``results/DATE-gallery-ROWSx128.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import machine, median
from benchmarks.search import data
from facedex.search.projection import Projection
from facedex.stores.contract import PhotoRecord
from facedex.stores.sqlite import SQLiteStore
from facedex.types import Box, EmbeddingSpace, Template, Where

RESULTS = Path(__file__).parent.parent / "results"
DIMENSION = 128
SPACE = EmbeddingSpace("generated", "1", "0" * 64, DIMENSION, "none")
START = datetime(2026, 1, 1, tzinfo=UTC)
GATES = ("north", "south", "east", "west")
ROUNDS = 60


def records(rows: int) -> Iterator[list[PhotoRecord]]:
    """Photos with one face each: five of each person, one a second, seen at one of four gates."""
    landmarks = np.arange(10, dtype=np.float32).reshape(5, 2)
    n = 0
    for batch in data.batches(rows, DIMENSION, size=20_000):
        photos = []
        for embedding in batch:
            digest = hashlib.sha256(n.to_bytes(8)).hexdigest()
            template = Template(
                digest, Box(0, 0, 100, 120), landmarks, 0.9, embedding, SPACE.id,
                f"https://example.org/{n}.jpg", f"P{n // 5}", {"gate": GATES[n % len(GATES)]},
            )  # fmt: skip
            photos.append(PhotoRecord(digest, (template,), START + timedelta(seconds=n)))
            n += 1
        yield photos


def filters(rows: int) -> dict[str, Where]:
    """Conditions that let all but one person, a quarter, half and a hundredth of the gallery pass."""
    return {
        "not one person": Where(not_labels=frozenset({"P0"})),
        "one gate of four": Where(metadata={"gate": "north"}),
        "the later half": Where(enrolled_after=START + timedelta(seconds=rows // 2)),
        "the last hundredth, one gate": Where(
            metadata={"gate": "east"}, enrolled_after=START + timedelta(seconds=rows - rows // 100)
        ),
    }


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def opened(path: Path, probes: Path) -> dict[str, float]:
    """In a fresh process: from the path to the first answer."""
    asked = np.load(probes)
    started = time.perf_counter()
    with SQLiteStore(path) as store:
        projection = Projection(store)
        projection.search(asked[:1], 10)
        return {"first_answer_ms": (time.perf_counter() - started) * 1e3}


def asked_with_filters(path: Path, rows: int, probes: Path) -> dict[str, Any]:
    """Each filter interleaved with a search without; the first of each kind reads columns and is told apart."""
    asked = np.load(probes)
    with SQLiteStore(path) as store:
        search = Projection(store).search
        search(asked[:1], 10)
        result: dict[str, Any] = {"the very first filter, ms": timed(lambda: search(asked[:1], 10, where=Where()))}
        conditions = filters(rows)
        result["first"] = {name: timed(lambda w=w: search(asked[:1], 10, where=w)) for name, w in conditions.items()}
        times: dict[str, list[float]] = {"none": [], **{name: [] for name in conditions}}
        for turn in range(ROUNDS):
            probe = asked[turn : turn + 1]
            times["none"].append(timed(lambda p=probe: search(p, 10)))
            for name, where in conditions.items():
                times[name].append(timed(lambda p=probe, w=where: search(p, 10, where=w)))
        result["p50"] = {name: median(values) for name, values in times.items()}
        result["ratio"] = {
            name: median([a / b for a, b in zip(values, times["none"], strict=True)]) for name, values in times.items()
        }
        return result


def run(rows: int, folder: Path) -> dict[str, Any]:
    path, probes = folder / "faces.db", folder / "probes.npy"
    np.save(probes, data.probes(ROUNDS, data.gallery(min(rows, 100_000), DIMENSION)))
    started = time.perf_counter()
    with SQLiteStore(path) as store:
        for photos in records(rows):
            store.add(photos, SPACE)
        added = rows / (time.perf_counter() - started)
        started = time.perf_counter()
        Projection(store).save()
        built = time.perf_counter() - started

    def elsewhere(*arguments: str) -> Any:
        command = [sys.executable, "-m", "benchmarks.search.gallery", *arguments, str(path), str(probes)]
        command += ["--rows", str(rows)]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)

    firsts = [elsewhere("--inside", "opened")["first_answer_ms"] for _ in range(5)]
    return {
        "templates": rows,
        "added_per_second": added,
        "index_seconds": built,
        "index_bytes": path.with_name("faces.db.fdx").stat().st_size,
        "gallery_bytes": path.stat().st_size,
        "open_and_first_answer_ms": median(firsts),
        "filters_ms": elsewhere("--inside", "filters"),
    }


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return round(value, 2) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="folder for the gallery; default: a temporary one")
    parser.add_argument("--inside", nargs=3, metavar=("WHAT", "GALLERY", "PROBES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        what, path, probes = arguments.inside
        inside = opened(Path(path), Path(probes)) if what == "opened" else None
        print(json.dumps(inside or asked_with_filters(Path(path), arguments.rows, Path(probes))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        date = f"{datetime.now(UTC):%Y-%m-%d}"
        result = {"date": date, "machine": machine(), **rounded(run(arguments.rows, folder))}
    print(json.dumps(result, indent=2))
    if arguments.rows >= 100_000:
        name = f"{date}-gallery-{arguments.rows}x{DIMENSION}.json"
        (RESULTS / name).write_text(json.dumps(result, indent=2) + os.linesep, "utf-8")


if __name__ == "__main__":
    main()
