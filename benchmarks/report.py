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
STORES_START, STORES_END = "<!-- stores: python -m benchmarks.report -->", "<!-- end of stores -->"
SPOILED_START, SPOILED_END = "<!-- robustness: python -m benchmarks.report -->", "<!-- end of robustness -->"


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


SHORT = (
    ("blur", "sigma 2% of the face's width", "blurred, sigma 2 % of the face's width"),
    ("blur", "sigma 4% of the face's width", "blurred, sigma 4 %"),
    ("low resolution", "face 32 pixels wide", "face 32 pixels wide"),
    ("low resolution", "face 24 pixels wide", "face 24 pixels wide"),
    ("JPEG", "quality 10", "JPEG quality 10"),
    ("darkness", "10% of the light", "a tenth of the light"),
    ("half covered", "lower half", "lower half covered"),
    ("half covered", "upper half", "upper half covered"),
    ("turned", "20°", "turned by 20°"),
    ("turned", "30°", "turned by 30°"),
)


def robustness() -> str:
    """A few lines of the first set of many people; the whole table is in docs/accuracy.md."""
    (result,) = [r for r in newest("robustness") if r["people"] > 10]
    found = {(c["condition"], c["level"]): c for c in result["conditions"]}
    rows = ["| the photo searched with | face not found | FNMR at match | with those not found |", "|---|---|---|---|"]
    for condition, level, told in SHORT:
        c = found[condition, level]
        rows.append(
            f"| {told} | {c['missed'] / c['probes']:.1%} | {interval(c['fnmr'], c['fnmr_interval'])} "
            f"| {c['fnmr_with_missed']:.1%} |"
        )
    return "\n".join(rows)


def spoiled() -> str:
    """Every condition on every set, and detection recall against face size."""
    results = newest("robustness")
    parts = []
    for r in results:
        rows = [
            "| spoiled by | how much | face not found | similarity to itself: mean, lowest "
            "| FNMR at match | FMR at match |",
            "|---|---|---|---|---|---|",
        ]
        for c in r["conditions"]:
            own = "{:.2f}, {:.2f}".format(*c["similarity_to_itself_mean_min"]) if c["missed"] < c["probes"] else "–"
            fnmr, fmr = (interval(c[rate], c[f"{rate}_interval"]) if rate in c else "–" for rate in ("fnmr", "fmr"))
            rows.append(
                f"| {c['condition']} | {c['level']} | {c['missed']} of {c['probes']} | {own} | {fnmr} | {fmr} |"
            )
        widths = " | ".join(str(w["width"]) for w in r["recall_by_face_width"])
        shares = " | ".join(f"{w['found'] / w['photos']:.0%}" for w in r["recall_by_face_width"])
        parts.append(
            f"""**{r["dataset"]}**, median face width {r["median_face_width"]:.0f} pixels, {r["date"]}:

{chr(10).join(rows)}

| face width in pixels, where detection looks | {widths} |
|---{"|---" * len(r["recall_by_face_width"])}|
| found | {shares} |
"""
        )
    return f"""Measured by `python -m benchmarks.robustness` on whole photos, through detection: spoiled photos searched
with, everybody's other photos as they are, at the shipped match threshold. FNMR is of those in which a face was found;
*similarity to itself* compares a spoiled face with the same photo unspoiled. Spoiling makes people unlike themselves,
not like each other: no false match rate was seen to rise beyond its interval. The AT&T photos are soft and tightly
cropped, and ask for larger faces than the sharper sample photos do; of these there are six: read them as examples.

{chr(10).join(parts)}"""


def vision() -> str:
    rows = [
        "| photos | how | photos/s | DeepFace 0.0.103 | ratio | decode / detect / align / embed / write, CPU ms "
        "| of the float32 limit | wrong decisions, ours / theirs |",
        "|---" * 8 + "|",
    ]
    for r in newest("vision"):
        rates, wrong = r["photos_per_second"], r["decisions"]["wrong"]
        for how, stage in r["stages"].items():
            spent = " / ".join(f"{ms:.1f}" for ms in stage["cpu_ms_a_photo"].values())
            reached = rates[how] / r["compute_limit_photos_per_second"][how]
            rows.append(
                f"| {r['dataset']} | {how} | {rates[how]} | {rates['DeepFace']} | {r['ratio'][how]} × | {spent} "
                f"| {reached:.0%} | {wrong[how]} / {wrong['DeepFace']} of {r['decisions']['pairs']:,} |"
            )
    return "\n".join(rows)


def vision_section() -> str:
    if not newest("vision"):
        return ""
    return f"""
*Beside DeepFace* (`make bench-vision`): photos to templates, both with YuNet and, unless said otherwise, SFace of the
same weights; stages on one core, the limit is what the networks' multiplications take at the rate of a float32 matrix
product; decisions on all pairs of photos, each at its own shipped threshold:

{vision()}
"""


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


def stores() -> str:
    """The stores at each size; DeepFace's rows say what it has, exact search alone."""
    found = sorted((Path(__file__).parent / "stores" / "results").glob("stores-table-*.json"))
    if not found:
        return "Not measured yet: `make bench-stores`.\n"
    report = json.loads(found[-1].read_text("utf-8"))
    rows = [
        "| store | faces | enrolled a second | exact, ms | from opening to the first answer, s | with a kept index, s "
        "| approximate, ms | recall@10 | memory, MB |",
        "|---" * 9 + "|",
    ]

    def cell(result: dict[str, Any], key: str, form: str) -> str:
        return format(result[key], form) if key in result else "–"

    for r in report["results"]:
        if "rows" not in r or "missing" in r:
            continue
        rows.append(
            f"| {r['store']} | {r['rows']:,} | {cell(r, 'faces_a_second', ',.0f')} | {cell(r, 'exact_ms', ',.2f')} "
            f"| {cell(r, 'cold_s', '.2f')} | {cell(r, 'cold_kept_s', '.3f')} | {cell(r, 'approximate_ms', ',.2f')} "
            f"| {cell(r, 'approximate_recall', '.3f')} | {cell(r, 'exact_memory_mb', '.0f')} |"
        )
    cpu = "{cpu}, {cores} cores, {simd}, Python {python}".format(**report["machine"])
    load = report["load_at_the_end"]
    return f"""Measured {report["date"]} on {cpu}, the server on the same machine, load at the end {load}
(`make bench-stores`). Generated faces of 128 dimensions; the embedding of the probe is given, also to DeepFace, which
searches its own table in the same PostgreSQL. Medians of single searches of a warm process through `Gallery.search`;
memory of our process with the exact index; recall of the approximate search.

{chr(10).join(rows)}
"""


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

*What spoils it* (`make bench-robustness`, all of it in [docs/accuracy.md](docs/accuracy.md)): the AT&T photos again,
spoiled before detection, compared with everybody's other photos as they are:

{robustness()}

*How fast* (`make bench-enroll`): decode, detect, align, embed, and for Facedex also store durably; same photos, same
weights, detection at a long side of 640, medians of interleaved runs:

{enrollment()}
{vision_section()}
*How fast it finds* (`make bench-search`): milliseconds and billion faces compared a second, exact, the 10 best, on
generated embeddings; how many times longer the others take on the same probes, each at its better number of threads:

{search()}
"""


def main() -> int:
    wrong = 0
    for page, start, end, text in (
        (ROOT / "README.md", START, END, measured),
        (ROOT / "docs" / "accuracy.md", SPOILED_START, SPOILED_END, spoiled),
        (ROOT / "docs" / "stores.md", STORES_START, STORES_END, stores),
    ):
        there = page.read_text("utf-8")
        before, rest = there.split(start)
        wanted = f"{before}{start}\n\n{text()}\n{end}{rest.split(end)[1]}"
        if "--check" not in sys.argv:
            page.write_text(wanted, "utf-8")
        elif there != wanted:
            print(f"{page.name} differs from benchmarks/results; run python -m benchmarks.report")
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
