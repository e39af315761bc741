"""Measure exact search against its peers: interleaved, each in its own process, every answer checked.

``python -m benchmarks.search.run --mode quick|table [--out FOLDER]``

quick   seconds; what the tests run.
table   the sizes of the README, exact peers and graphs.

``grid.py`` looks for places where ours is slower than faiss flat.

Writes ``search-MODE-DATE.json`` and ``.md``. A time is the median over rounds; in each round every peer answers the
same probes, one after the other. Similarities are computed here from the ids a peer returned, in float64; an id given
twice, or out of range, counts as wrong; recall counts an id as right when its similarity reaches the k-th best (ties).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import machine
from benchmarks.search import data, peers
from facedex.search import native, reference

CASES: dict[str, list[tuple[int, int, list[int], list[int], list[int], tuple[str, ...]]]] = {
    # rows, dimension, probes at once, k, threads, peers
    "quick": [(2000, 64, [1, 64], [10], [1], ("facedex", "faiss flat", "numpy"))],
    "table": [
        (52_001, 128, [1], [10], [1, 2], (*peers.EXACT, *peers.APPROXIMATE, *peers.SLOW)),
        (52_001, 128, [8, 64, 1024], [10], [1, 2], (*peers.EXACT, *peers.APPROXIMATE)),
        (1_000_000, 128, [1, 8, 64, 1024], [10], [1, 2], ("facedex", "faiss flat", "numpy")),
        (1_000_000, 512, [1, 64], [10], [1, 2], ("facedex", "faiss flat")),
    ],
}


class Process:
    """A peer in its own process."""

    def __init__(self, name: str, gallery: Path) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.search.peers", name, str(gallery)],
            cwd=Path(__file__).parents[2], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.started = self.receive()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"missing": "its process ended"}
        return answer

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.receive()

    def close(self) -> None:
        self.process.communicate()


def judge(rows: Any, probes: Any, ids: list[list[int]], k: int, best: Any) -> dict[str, float]:
    """Recall by recomputed similarity, and how many answers equal the reference's to the id."""
    right = same = 0
    for probe, found, expected in zip(probes, ids, best[1], strict=True):
        usable = [i for i in dict.fromkeys(found) if 0 <= i < len(rows)]
        wanted = expected[expected >= 0]
        floor = reference.similarities(rows[wanted[-1:]], probe)[0]
        right += int((reference.similarities(rows[usable], probe) >= floor).sum()) if usable else 0
        same += found == expected.tolist()
    return {"recall": right / (len(probes) * min(k, len(rows))), "identical": same / len(probes)}


def run(mode: str, budget: float) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for rows, dimension, counts, ks, threads, names in CASES[mode]:
            gallery, asked = Path(scratch) / "gallery.npy", Path(scratch) / "probes.npy"
            g = data.gallery(rows, dimension)
            p = data.probes(1024, g)
            np.save(gallery, g)
            np.save(asked, p)
            truth = {k: reference.search(g, np.arange(rows), p[:20], k) for k in ks}
            running = []
            for name in names:
                process = Process(name, gallery)
                if "missing" in process.started:
                    print(f"{name} left out: {process.started['missing']}", file=sys.stderr)
                    results.append({"rows": rows, "dimension": dimension, "peer": name, **process.started})
                else:
                    running.append(process)
            for k in ks:
                checked = {
                    r.name: judge(
                        g, p[:20],
                        r.ask(probes=str(asked), first=0, count=20, k=k, threads=1, repeat=1, answers=True)["ids"],
                        k, truth[k],
                    )
                    for r in running if k <= rows
                }  # fmt: skip
                for count in counts:
                    for t in threads:
                        results += measure(running, asked, rows, dimension, count, k, t, budget, checked)
            for process in running:
                process.close()
    return {
        "mode": mode, "date": datetime.date.today().isoformat(), "kernel": native.resolve(None),
        "cpu": machine()["cpu"], "cores": native.cores(), "python": platform.python_version(),
        "numpy": np.__version__, "results": results,
    }  # fmt: skip


def measure(
    running: list[Process], probes: Path, rows: int, dimension: int, count: int, k: int, threads: int, budget: float,
    checked: dict[str, Any],
) -> list[dict[str, Any]]:  # fmt: skip
    """One case: rounds over all peers until each has enough, or its time is up."""
    times: dict[str, list[float]] = {r.name: [] for r in running}
    out = set[str]()
    for turn in range(12):
        for r in running:
            if r.name in out:
                continue
            start = time.perf_counter()
            first = turn * count % 1024 if count < 1024 else 0
            repeat = 1 if turn == 0 else max(1, min(20, int(0.01 / max(times[r.name][-1], 1e-9))))
            seconds = r.ask(probes=str(probes), first=first, count=count, k=k, threads=threads, repeat=repeat)[
                "seconds"
            ]
            times[r.name] += seconds
            if (turn + 1) * (time.perf_counter() - start) > budget:
                out.add(r.name)
    base = statistics.median(times["faiss flat"]) if "faiss flat" in times else None
    results = []
    for r in running:
        median = statistics.median(times[r.name])
        results.append(
            {
                "rows": rows, "dimension": dimension, "probes": count, "k": k, "threads": threads, "peer": r.name,
                "median_ms": median * 1e3, "least_ms": min(times[r.name]) * 1e3, "runs": len(times[r.name]),
                "billion_faces_a_second": rows * count / median / 1e9, "build_seconds": r.started["build_seconds"],
                "times_faiss_flat": base / median if base else None, **checked.get(r.name, {}),
            }
        )  # fmt: skip
        print(f"{rows:>9} x {dimension}  Q {count:<5} k {k:<4} T {threads}  {r.name:<15} {median * 1e3:10.3f} ms  "
              f"{results[-1]['billion_faces_a_second']:.3f} G/s  x{results[-1]['times_faiss_flat'] or 0:.2f}",
              file=sys.stderr)  # fmt: skip
    return results


def table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['cpu']}, {report['cores']} cores, kernel {report['kernel']}, "
        f"NumPy {report['numpy']}, {report['date']}.",
        "", "| rows × D | probes | k | threads | peer | median ms | least ms | G faces/s | × faiss flat | recall |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in report["results"]:
        if "missing" in r:
            lines.append(f"| {r['rows']:,} × {r['dimension']} | | | | {r['peer']} | left out: {r['missing']} | | | | |")
            continue
        ratio = f"{r['times_faiss_flat']:.1f}" if r["times_faiss_flat"] else ""
        lines.append(
            f"| {r['rows']:,} × {r['dimension']} | {r['probes']} | {r['k']} | {r['threads']} | {r['peer']} "
            f"| {r['median_ms']:.3f} | {r['least_ms']:.3f} | {r['billion_faces_a_second']:.3f} | {ratio} "
            f"| {r.get('recall', float('nan')):.4f} |"
        )
    slower = [r for r in report["results"] if r.get("peer") == "facedex" and (r["times_faiss_flat"] or 1) < 1]
    lines += ["", f"Cases in which facedex was slower than faiss flat: {len(slower)}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=sorted(CASES), default="quick")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for one peer in one case, about")
    parser.add_argument("--only-rows", type=int, help="leave out other gallery sizes")
    arguments = parser.parse_args()
    if arguments.only_rows:
        CASES[arguments.mode] = [case for case in CASES[arguments.mode] if case[0] == arguments.only_rows]
    report = run(arguments.mode, arguments.budget)
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = f"search-{arguments.mode}-{report['date']}"
    (arguments.out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (arguments.out / f"{name}.md").write_text(table(report))
    print(table(report))


if __name__ == "__main__":
    main()
