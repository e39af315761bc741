"""Is there a place where ours is slower than faiss flat? Every cell of the grid, interleaved, least times.

``python -m benchmarks.search.grid [--rows N …] [--dimensions D …] [--threads T …] [--budget SECONDS] [--out FOLDER]``

A cell is (rows, dimension, probes at once, k, threads). The two contestants run in processes of their own and take
turns; each turn begins with a rest, in which the threads of the other go to sleep, and a call that is not timed. The
figure of a turn is the least of its calls; that of a cell is the median over turns of faiss's figure by ours, and the
least of all beside it. On a shared machine the least times are the least disturbed. Answers are checked by ``run.py``
and the tests, not here.

Writes ``search-grid-DATE.json`` and ``.md``: the table of ratios, and every cell below 1.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import machine
from benchmarks.search import data
from benchmarks.search.run import Process
from facedex.search import native

ROWS = (10, 100, 1000, 10_000, 100_000, 1_000_000)
DIMENSIONS = (128, 192, 512)
PROBES = (1, 8, 64, 1024)
KS = (1, 10, 100)
TURNS = 5
REST = 0.01
MOST_VALUES = 600_000_000
"""Galleries of more float32 values than this are left out: two copies of them do not fit beside other work."""


def turn(process: Process, budget: float, **case: Any) -> float:
    seconds: list[float] = process.ask(rest=REST, warm=True, for_seconds=budget / TURNS, **case)["seconds"]
    return min(seconds)


def measure(ours: Process, theirs: Process, budget: float, **case: Any) -> dict[str, Any]:
    pairs = []
    for number in range(TURNS):
        a, b = turn(ours, budget, **case), turn(theirs, budget, **case)
        pairs.append((a, b))
        if (number + 1) * (a + b) > 2 * budget and number >= 1:  # large cases: fewer turns, not none
            break
    least = [min(pair[i] for pair in pairs) for i in (0, 1)]
    return {
        "microseconds": least[0] * 1e6, "faiss_microseconds": least[1] * 1e6,
        "ratio": statistics.median(b / a for a, b in pairs), "ratio_of_least": least[1] / least[0], "turns": len(pairs),
    }  # fmt: skip


def run(rows: list[int], dimensions: list[int], threads: list[int], budget: float) -> list[dict[str, Any]]:
    cells = []
    with tempfile.TemporaryDirectory() as scratch:
        gallery, probes = Path(scratch) / "gallery.npy", Path(scratch) / "probes.npy"
        for dimension in dimensions:
            for n in rows:
                if n * dimension > MOST_VALUES:
                    continue
                g = data.gallery(n, dimension)
                np.save(gallery, g)
                np.save(probes, data.probes(max(PROBES), g))
                del g
                pair = [Process(name, gallery) for name in ("facedex", "faiss flat")]
                for t in threads:
                    for k in KS:
                        for count in PROBES:
                            place = {"rows": n, "dimension": dimension, "probes": count, "k": k, "threads": t}
                            case = {"probes": str(probes), "first": 0, "count": count, "k": k, "threads": t}
                            found = measure(*pair, budget, **case)
                            cells.append(place | found)
                            print(*place.values(), f"{found['ratio']:.2f}", f"{found['ratio_of_least']:.2f}",
                                  f"{found['microseconds']:.1f} us", file=sys.stderr, flush=True)  # fmt: skip
                for process in pair:
                    process.close()
    return cells


def table(report: dict[str, Any]) -> str:
    """Rows × D down, k and probes across: how many times faiss flat's time is ours, by the median of turns."""
    cells = report["cells"]
    head = [(k, q) for k in KS for q in PROBES]
    lines = [
        f"{report['cpu']}, {report['cores']} cores, load {report['load']:.1f} at the start, kernel {report['kernel']}, "
        f"faiss {report['faiss']}, {report['date']}. Times of faiss flat divided by ours; k / probes across.", "",
        "| rows × D | threads | " + " | ".join(f"{k} / {q}" for k, q in head) + " |",
        "|---|---|" + "---|" * len(head),
    ]  # fmt: skip
    for place in dict.fromkeys((c["rows"], c["dimension"], c["threads"]) for c in cells):
        here = {(c["k"], c["probes"]): c for c in cells if (c["rows"], c["dimension"], c["threads"]) == place}
        shown = [f"{here[at]['ratio']:.2f}" if at in here else "" for at in head]
        lines.append(f"| {place[0]:,} × {place[1]} | {place[2]} | " + " | ".join(shown) + " |")
    slower = [c for c in cells if max(c["ratio"], c["ratio_of_least"]) < 1]
    either = [c for c in cells if min(c["ratio"], c["ratio_of_least"]) < 1]
    lines += ["", f"Of {len(cells)} cells {len(slower)} are slower by the median of turns and by the least times, "
              f"{len(either) - len(slower)} by one of the two:", ""]  # fmt: skip
    lines += [
        f"- {c['rows']:,} × {c['dimension']}, {c['probes']} probes, k = {c['k']}, {c['threads']} threads: "
        f"{c['ratio']:.2f}, least {c['ratio_of_least']:.2f} ({c['microseconds']:.0f} µs)"
        for c in either
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--dimensions", type=int, nargs="+", default=list(DIMENSIONS))
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, native.cores()}))
    parser.add_argument("--budget", type=float, default=0.3, help="seconds for one contestant in one cell, about")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    import faiss

    load = os.getloadavg()[0]
    report = {
        "date": datetime.date.today().isoformat(), "cpu": machine()["cpu"], "cores": native.cores(), "load": load,
        "kernel": native.resolve(None), "faiss": faiss.__version__, "python": platform.python_version(),
        "budget": arguments.budget,
        "cells": run(arguments.rows, arguments.dimensions, arguments.threads, arguments.budget),
    }  # fmt: skip
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = f"search-grid-{report['date']}"
    (arguments.out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (arguments.out / f"{name}.md").write_text(table(report))
    print(table(report))


if __name__ == "__main__":
    main()
