"""Measure the stores on real servers, and DeepFace's search beside ours on the same PostgreSQL.

``python -m benchmarks.stores.run --mode quick|table [--only STORE…] [--out FOLDER]``

quick   seconds, 500 faces; what the tests run.
table   100,000 faces enrolled, searched at 10,000 and 100,000.

Each store and size is a process of its own; the server, on this machine too, is not counted in its memory. Writes
``stores-MODE-DATE.json``, from which ``python -m benchmarks.report`` writes the table of ``docs/stores.md``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.data import machine
from benchmarks.search import data
from benchmarks.stores import case, deepface
from servers import server_class

ROOT = Path(__file__).parents[2]
STORES: dict[str, tuple[str | None, str, str]] = {
    # name → server, path and query of the gallery; one for each size, so that nothing is kept when it is opened first
    "sqlite": (None, "faces{count}.db", ""),
    "postgres": ("postgres", "postgres", "schema=faces{count}"),
    "pgvector": ("pgvector", "postgres", "schema=faces{count}&vector=require"),
    "mongodb": ("mongodb", "faces{count}", ""),
    "neo4j": ("neo4j", "faces{count}", ""),
    "weaviate": ("weaviate", "faces{count}", ""),
}
SIZES = {"quick": (500,), "table": (10_000, 100_000)}


def run(url: str, count: int, what: str, cache: Path) -> dict[str, Any]:
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"} | {
        "FACEDEX_INDEXES_DIR": str(cache)
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.stores.case", what, url, str(count)],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        return {"missing": done.stderr[-500:]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(name: str, sizes: tuple[int, ...], folder: Path, peer: bool) -> list[dict[str, Any]]:
    """One store at every size."""
    server, path, query = STORES[name]
    if server is None:
        return _sizes(name, f"{folder}/{path}", sizes, folder)
    found = server_class(server)
    reason = found.unavailable_reason()
    if reason is not None:
        return [{"store": name, "missing": reason}]
    with found(folder / "server") as started:
        parts = urlsplit(started.url)
        gallery = parts._replace(path=f"/{path}", query="&".join(part for part in (parts.query, query) if part))
        results = _sizes(name, gallery.geturl(), sizes, folder)
        if peer:
            results += _deepface(started.url, sizes, folder)
        return results


def _sizes(name: str, url: str, sizes: tuple[int, ...], folder: Path) -> list[dict[str, Any]]:
    results = []
    for count in sizes:
        result: dict[str, Any] = {"store": name, "rows": count}
        for what in ("enroll", "cold", "search"):
            result |= run(url.format(count=count), count, what, folder / "cache")
        print(json.dumps(result), flush=True)
        results.append(result)
    return results


def _deepface(url: str, sizes: tuple[int, ...], folder: Path) -> list[dict[str, Any]]:
    results = []
    for count in sizes:
        rows = case.faces(count)
        probes = data.probes(case.PROBES, rows)
        np.save(folder / "rows.npy", rows)
        np.save(folder / "probes.npy", probes)
        answer = deepface.measure(url, folder / "rows.npy", folder / "probes.npy", 5)
        found = answer.pop("found", [])
        best = [{f"/photos/{n}.jpg" for n in np.argsort(-(rows @ probe))[: case.K]} for probe in probes]
        if found:
            hits = [len(right.intersection(some)) for right, some in zip(best, found, strict=False)]
            answer["exact_recall"] = sum(hits) / (case.K * len(found))
        results.append({"store": "deepface 0.0.103 on postgres", "rows": count, **answer})
        print(json.dumps(results[-1]), flush=True)
    return results


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=list(SIZES), default="quick")
    parser.add_argument("--only", nargs="*", choices=list(STORES), default=list(STORES))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args(arguments)
    results = []
    for name in given.only:
        with tempfile.TemporaryDirectory(prefix="facedex-bench-") as folder:
            os.chmod(folder, 0o711)
            peer = name == "postgres" and given.mode == "table"
            results += measure(name, SIZES[given.mode], Path(folder), peer)
    date = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    report = {"date": date, "machine": machine(), "load_at_the_end": round(load, 1), "results": results}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / f"stores-{given.mode}-{date}.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return int(any("missing" in result for result in results))


if __name__ == "__main__":
    sys.exit(main())
