"""Approximate indexes side by side: recall@10 against exact, p50 of one query, build time, memory.

``python -m benchmarks.search.ann [--rows 200000] [--spectrum data|steep] [--quick] [CASE …]``. Each case runs in its
own process over the same seeded rows and probes. Whatever a library answers is scored again here, and duplicates count
once. A case that is not installed is left out and named.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.data import machine
from benchmarks.search import data

Rows = npt.NDArray[np.float32]
Found = npt.NDArray[np.int64]
Tuned = Iterator[tuple[str, Callable[[Rows], Found]]]
RESULTS = Path(__file__).parent.parent / "results"
K = 10


def rows_and_probes(count: int, dimension: int, spectrum: str, probes: int) -> tuple[Rows, Rows]:
    """Gallery and probes. ``steep``: the variance falls twice as fast over the dimensions."""
    gallery = data.gallery(count, dimension)
    asked = data.probes(probes, gallery)
    if spectrum == "steep":
        weights = ((np.arange(dimension) + 4.0) ** -0.35).astype(np.float32)
        for rows in (gallery, asked):
            rows *= weights
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return gallery, asked


def facedex_ann(gallery: Rows) -> Tuned:
    from facedex.search import ann

    with tempfile.TemporaryDirectory() as folder:
        index = ann.build(Path(folder) / "a", [(np.arange(len(gallery)), gallery)], gallery.shape[1])
        chosen = index.effort
        yield f"chosen: {index.facts['parameters']}", lambda p: index.search(p, K, threads=1)[1][0]
        for share, rescored in ((0.05, 128), (0.2, 256), (0.5, 512), (1.0, 1024)):
            index.effort = ann.Effort(max(1, int(share * index.facts["parameters"]["lists"])), rescored)
            yield f"{index.effort}", lambda p: index.search(p, K, threads=1)[1][0]
        index.effort = chosen


def exact(gallery: Rows) -> Tuned:
    from facedex.search import ExactIndex

    index = ExactIndex.build(gallery)
    yield "", lambda p: index.search(p, K)[1][0]


def rescored(gallery: Rows, probe: Rows, candidates: Found) -> Found:
    scores = gallery.take(candidates, axis=0) @ probe[0]
    return candidates[np.argpartition(scores, len(scores) - K)[-K:]]


def faiss_fastscan(gallery: Rows) -> Tuned:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.index_factory(gallery.shape[1], f"PQ{gallery.shape[1] // 2}x4fs", faiss.METRIC_INNER_PRODUCT)
    index.train(gallery[:65536])
    index.add(gallery)
    for count in (64, 256, 512, 1024):
        yield f"rescored {count}", lambda p, n=count: rescored(gallery, p, index.search(p, n)[1][0])  # type: ignore[misc]


def faiss_rabitq(gallery: Rows) -> Tuned:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.index_factory(gallery.shape[1], "IVF256,RaBitQfs", faiss.METRIC_INNER_PRODUCT)
    index.train(gallery[:65536])
    index.add(gallery)
    for probed, count in ((64, 256), (256, 512), (256, 2048)):
        index.nprobe = probed
        yield (
            f"probed {probed}, rescored {count}",
            lambda p, n=count: rescored(  # type: ignore[misc]
                gallery, p, index.search(p, n)[1][0]
            ),
        )


def hnswlib(gallery: Rows) -> Tuned:
    import hnswlib

    index = hnswlib.Index("ip", gallery.shape[1])
    index.init_index(len(gallery), M=16, ef_construction=100, random_seed=1)
    index.add_items(gallery)
    index.set_num_threads(1)
    for ef in (64, 256, 512, 1024):
        index.set_ef(ef)
        yield f"M 16, ef {ef}", lambda p: index.knn_query(p, K)[0][0].astype(np.int64)


def usearch(gallery: Rows) -> Tuned:
    from usearch.index import Index

    index = Index(ndim=gallery.shape[1], metric="ip", dtype="i8", connectivity=16, expansion_add=100)
    index.add(np.arange(len(gallery)), gallery)
    for ef in (64, 256, 512, 1024):
        index.expansion_search = ef
        yield (
            f"int8, expansion {ef}",
            lambda p: rescored(gallery, p, index.search(p[0], 32, threads=1).keys.astype(np.int64)),
        )


CASES: dict[str, tuple[Callable[[Rows], Tuned], str]] = {
    "facedex exact": (exact, "facedex"),
    "facedex ann": (facedex_ann, "faiss"),
    "faiss PQ fastscan": (faiss_fastscan, "faiss"),
    "faiss IVF RaBitQ": (faiss_rabitq, "faiss"),
    "hnswlib": (hnswlib, "hnswlib"),
    "usearch": (usearch, "usearch"),
}


def resident() -> int:
    """Bytes of this process in memory now, 0 where that is not told. A peak would be that of the parent."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGESIZE") if pages.exists() else 0


def run(case: str, folder: Path) -> list[dict[str, Any]]:
    """One case in this process."""
    gallery, probes = np.load(folder / "gallery.npy"), np.load(folder / "probes.npy")
    truth = np.load(folder / "truth.npy")
    before = resident()
    started, built, grown, results = time.perf_counter(), 0.0, 0, []
    for setting, ask in CASES[case][0](gallery):
        if not built:
            built, grown = time.perf_counter() - started, round((resident() - before) / 1e6)
        ask(probes[:1])
        times, hits = [], 0
        for probe, wanted in zip(probes, truth, strict=True):
            begun = time.perf_counter()
            ids = ask(probe[None])
            times.append(time.perf_counter() - begun)
            own = gallery[np.unique(ids[ids >= 0])] @ probe
            hits += int((own >= np.sort(gallery[wanted] @ probe)[0] - 1e-6).sum())  # ties by score
        results.append(
            {
                "case": case,
                "setting": setting,
                "recall_at_10": round(hits / truth.size, 4),
                "p50_ms": round(float(np.median(times)) * 1e3, 3),
                "p99_ms": round(float(np.percentile(times, 99)) * 1e3, 3),
                "build_s": round(built, 1),
                "grown_mb": grown,
            }
        )
    return results


def plot(results: list[dict[str, Any]], title: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure((8, 5), layout="constrained")
    axes = figure.subplots()
    for case in dict.fromkeys(r["case"] for r in results):
        points = sorted((r["recall_at_10"], r["p50_ms"]) for r in results if r["case"] == case)
        axes.plot(*zip(*points, strict=True), marker="o", label=case)
    axes.set(xlabel="recall@10 against exact", ylabel="one query, p50 ms", yscale="log", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--spectrum", choices=["data", "steep"], default="data")
    parser.add_argument("--quick", action="store_true", help="20,000 rows, 100 probes; nothing is kept")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        print(json.dumps(run(args.cases[0], args.inside)))
        return
    count, asked = (20_000, 100) if args.quick else (args.rows, 300)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gallery, probes = rows_and_probes(count, args.dimension, args.spectrum, asked)
        truth = np.concatenate([np.argpartition(p @ gallery.T, count - K)[-K:][None] for p in probes])
        for part, array in (("gallery", gallery), ("probes", probes), ("truth", truth)):
            np.save(folder / f"{part}.npy", array)
        for case in args.cases:
            if importlib.util.find_spec(CASES[case][1]) is None:
                print(f"{case}: {CASES[case][1]} is not installed, left out", file=sys.stderr)
                continue
            command = [sys.executable, "-m", "benchmarks.search.ann", case, "--inside", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            for result in json.loads(done.stdout.splitlines()[-1]):
                results.append(result)
                print(json.dumps(result), flush=True)
    if args.quick:
        return
    RESULTS.mkdir(exist_ok=True)
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    stem = f"{date}-ann-{count}x{args.dimension}-{args.spectrum}"
    facts = {"date": date, "machine": machine(), "rows": count, "dimension": args.dimension, "spectrum": args.spectrum}
    (RESULTS / f"{stem}.json").write_text(json.dumps({**facts, "results": results}, indent=2) + "\n", "utf-8")
    if importlib.util.find_spec("matplotlib") is not None:
        plot(results, f"{count:,} × {args.dimension}, {args.spectrum} spectrum, {date}", RESULTS / f"{stem}.png")


if __name__ == "__main__":
    main()
