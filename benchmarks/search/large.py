"""Ten million faces in bounded memory: write the index while the rows come, open it, search it, check it.

``python -m benchmarks.search.large [--rows N] [--dimension D] [--keep FILE] [--queries N]``

Each step runs in a process of its own, so that its peak memory is its own. Rows are generated, never held together;
answers are checked against float64 scores of all rows, read from the file a piece at a time.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search import data
from facedex.search import ExactIndex, reference


def resident() -> float:
    """MB of memory of its own this process holds now, mapped files left out."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


def build(path: Path, rows: int, dimension: int) -> dict[str, Any]:
    generating = 0.0

    def batches() -> Any:
        nonlocal generating
        made, start = data.batches(rows, dimension), 0
        while True:
            began = time.perf_counter()
            batch = next(made, None)
            generating += time.perf_counter() - began
            if batch is None:
                return
            yield np.arange(start, start + len(batch)), batch
            start += len(batch)

    before, began = resident(), time.perf_counter()
    ExactIndex.stream(path, batches())
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": seconds - generating, "generating_seconds": generating, "file_mb": path.stat().st_size / 1e6,
        "peak_mb": peak, "before_mb": before,
    }  # fmt: skip


def search(path: Path, rows: int, dimension: int, queries: int) -> dict[str, Any]:
    asked = data.probes(1024, next(data.batches(rows, dimension)))
    began = time.perf_counter()
    index = ExactIndex.open(path)
    opened = time.perf_counter()
    index.search(asked[:1])
    first = time.perf_counter()
    result: dict[str, Any] = {
        "open_ms": (opened - began) * 1e3, "first_ms": (first - opened) * 1e3, "hot_mb": index.hot_bytes / 1e6,
    }  # fmt: skip
    for threads in (1, 2):
        times = []
        for i in range(queries):
            began = time.perf_counter()
            index.search(asked[i % 1024 : i % 1024 + 1], threads=threads)
            times.append(time.perf_counter() - began)
        began = time.perf_counter()
        batch = index.search(asked, threads=threads)
        seconds = time.perf_counter() - began
        result[f"threads_{threads}"] = {
            "one_ms": statistics.median(times) * 1e3, "one_least_ms": min(times) * 1e3,
            "batch_1024_s": seconds, "billion_faces_a_second": rows * 1024 / seconds / 1e9,
        }  # fmt: skip
    result["own_memory_mb"] = resident()
    result["checked"] = check(index, asked[:5], batch)
    return result


def check(index: ExactIndex, asked: Any, answer: Any) -> bool:
    """The reference over pieces of all rows, merged."""
    best = [(np.empty(0, np.float64), np.empty(0, np.int64)) for _ in asked]
    for segment in index._state.segments:
        for start in range(0, segment.n, 65536):
            rows, ids = segment.rows[start : start + 65536], segment.ids[start : start + 65536]
            for q, probe in enumerate(asked):
                scores = np.concatenate([best[q][0], reference.similarities(rows, probe)])
                who = np.concatenate([best[q][1], ids])
                order = np.lexsort((who, -scores))[:10]
                best[q] = scores[order], who[order]
    return all(
        np.array_equal(answer[1][q], best[q][1]) and np.array_equal(answer[0][q], best[q][0].astype(np.float32))
        for q in range(len(asked))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--keep", type=Path, help="write the index there and leave it; search it when it is there")
    parser.add_argument("--step", choices=["build", "search"], help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.step:
        print(json.dumps(build(a.keep, a.rows, a.dimension) if a.step == "build"
                         else search(a.keep, a.rows, a.dimension, a.queries)))  # fmt: skip
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = a.keep or Path(scratch) / "faces.fdx"
        report: dict[str, Any] = {"rows": a.rows, "dimension": a.dimension}
        for step in ("build", "search"):
            if step == "build" and path.exists():
                continue
            command = [sys.executable, "-m", "benchmarks.search.large", "--rows", str(a.rows)]
            command += ["--dimension", str(a.dimension), "--queries", str(a.queries)]
            command += ["--keep", str(path), "--step", step]
            report[step] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            print(json.dumps(report, indent=1), file=sys.stderr)
        print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
