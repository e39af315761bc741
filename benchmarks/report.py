"""Write the measured tables of the README from the newest results, or check that they are what it says.

python -m benchmarks.report [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
START, END = "<!-- measured: python -m benchmarks.report -->", "<!-- end of measured -->"


def newest(kind: str) -> list[dict[str, Any]]:
    """The newest result of each dataset of a kind."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(RESULTS.glob(f"*-{kind}-*.json")):
        result = json.loads(path.read_text("utf-8"))
        found[result["dataset"]] = result
    return list(found.values())


def interval(rate: float, bounds: dict[str, float]) -> str:
    return f"{rate:.2%} ({bounds['low']:.2%}–{bounds['high']:.2%})"


def accuracy() -> str:
    rows = [
        "| photos | faces missed | leave-one-out rank 1 | pairs: genuine / impostor | FMR at match | FNMR at match |",
        "|---|---|---|---|---|---|",
    ]
    for r in newest("accuracy"):
        point = r["at_match_threshold"]
        rows.append(
            f"| {r['dataset']}: {r['photos']} of {r['people']} people | {len(r['missed'])} "
            f"| {r['leave_one_out']['rank_1']:.1%} of {r['leave_one_out']['probes']} "
            f"| {point['genuine_trials']:,} / {point['impostor_trials']:,} "
            f"| {interval(point['fmr'], point['fmr_interval'])} | {interval(point['fnmr'], point['fnmr_interval'])} |"
        )
    return "\n".join(rows)


def enrollment() -> str:
    rows = ["| photos | Facedex, photos/s | plain OpenCV loop, photos/s | ratio |", "|---|---|---|---|"]
    for r in newest("enrollment"):
        rates = r["photos_per_second"]
        rows.append(f"| {r['dataset']}: {r['photos']} | {rates['facedex']} | {rates['opencv']} | {r['ratio']} × |")
    return "\n".join(rows)


PEERS = (
    "faiss flat",
    "numpy",
    "scipy cKDTree",
    "sklearn KDTree",
    "faiss HNSW",
    "hnswlib",
    "usearch",
    "annoy",
    "faceflash",
)


def search() -> str:
    """Each contestant at its better number of threads: some get slower with a second one."""
    report = json.loads(
        max((Path(__file__).parent / "search" / "results").glob("search-table-*.json")).read_text("utf-8")
    )
    best: dict[tuple[int, int, int], dict[str, dict[str, Any]]] = {}
    for r in report["results"]:
        if "missing" in r:
            continue
        case = best.setdefault((r["rows"], r["dimension"], r["probes"]), {})
        if r["peer"] not in case or r["median_ms"] < case[r["peer"]]["median_ms"]:
            case[r["peer"]] = r
    rows = [
        f"| gallery | probes at once | Facedex, ms | G faces/s | {' | '.join(PEERS)} |",
        "|---" * (4 + len(PEERS)) + "|",
    ]
    for (count, dimension, probes), case in best.items():
        ours = case["facedex"]
        cells = [
            f"{case[peer]['median_ms'] / ours['median_ms']:.1f} ×" + recall(case[peer]) if peer in case else "–"
            for peer in PEERS
        ]
        rows.append(
            f"| {count:,} × {dimension} | {probes} | {ours['median_ms']:.2f} | {ours['billion_faces_a_second']:.2f} "
            f"| {' | '.join(cells)} |"
        )
    return "\n".join(rows)


def recall(result: dict[str, Any]) -> str:
    found = result.get("recall", 1.0)
    return "" if found > 0.9999 else f" (recall {found:.2f})"


def measured() -> str:
    results = [*newest("accuracy"), *newest("enrollment")]
    machines = sorted({"{cpu}, {cores} cores, {simd}, Python {python}".format(**r["machine"]) for r in results})
    dates = sorted({r["date"] for r in results})
    threshold = results[0]["at_match_threshold"]["threshold"]
    return f"""Measured {" and ".join(dates)} on {"; ".join(machines)}. Intervals: 95 %, by bootstrap over people.

*How right* (`python -m benchmarks.accuracy`), at the shipped match threshold {threshold}, which was set on these same
photos, so that both rates are optimistic:

{accuracy()}

*How fast* (`make bench-enroll`): decode, detect, align, embed, and for Facedex also store durably; same photos, same
weights, detection at a long side of 640, medians of interleaved runs:

{enrollment()}

*How fast it finds* (`make bench-search`): milliseconds and billion faces compared a second, exact, the 10 best, on
generated embeddings; how many times longer the others take on the same probes, each at its better number of threads:

{search()}
"""


def main() -> int:
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    before, rest = text.split(START)
    after = rest.split(END)[1]
    wanted = f"{before}{START}\n\n{measured()}\n{END}{after}"
    if "--check" in sys.argv:
        if text != wanted:
            print("README.md differs from benchmarks/results; run python -m benchmarks.report")
        return int(text != wanted)
    readme.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
