"""How fast and how right is each model of the catalog; written into its card and benchmarks/results.

python -m benchmarks.models [MODEL ...] [--dry]    all detectors and embedders when left out
python -m benchmarks.models --table                only write docs/models.md again, from the cards

Fast: processor time on one thread, the least of interleaved runs, which other work on the machine disturbs little. An
embedder runs on one aligned face; a detector on one photo of 512 × 512 with one face. Right, on the AT&T faces: an
embedder by leave-one-out rank 1 and by false non-match rates at two false match rates, with YuNet's alignment; a
detector by the photos in which it finds the one face there is.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import main_faces
from benchmarks.data import ATT_NAME, att_faces, machine, save
from facedex import Engine
from facedex.decide.evaluation import all_pairs, error_rates, threshold_at_fmr
from facedex.decide.identification import leave_one_out
from facedex.models import catalog
from facedex.models.catalog import Measured, ModelCard
from facedex.settings import Settings
from facedex.vision.detectors import load_detector
from facedex.vision.embedders import load_embedder
from facedex.vision.sources import find_photos

CARDS = Path(__file__).parent.parent / "src" / "facedex" / "models" / "cards"
PHOTO = Path(__file__).parent.parent / "samples" / "probes" / "eileen_collins_not_enrolled.png"
PAGE = Path(__file__).parent.parent / "docs" / "models.md"
START, END = "<!-- table: python -m benchmarks.models --table -->", "<!-- end of table -->"
ROUNDS = 40


def milliseconds(cards: list[ModelCard]) -> dict[str, float]:
    """Processor time of one run of each, on one thread: the least of many, interleaved."""
    photo = Engine().load(PHOTO).pixels
    work: dict[str, Any] = {}
    for card in cards:
        if card.task == "detect":
            detector = load_detector(card.name, threads=1)
            work[card.name] = lambda detector=detector: detector.detect([photo])
        else:
            embedder = load_embedder(card.name, threads=1)
            crop = np.random.default_rng(0).integers(0, 256, (1, embedder.size, embedder.size, 3)).astype(np.uint8)
            work[card.name] = lambda embedder=embedder, crop=crop: embedder.embed(crop)
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, run in work.items():
            started = time.process_time()
            run()
            times[name].append((time.process_time() - started) * 1000)
    return {name: min(values) for name, values in times.items()}


def detected(name: str) -> dict[str, int]:
    """In how many of the photos the one face is found, and where other faces are found beside it."""
    engine, detector = Engine(), load_detector(name)
    counts = [len(detector.detect([engine.load(source.source).pixels])[0]) for source in find_photos(att_faces())]
    return {"photos": len(counts), "found": sum(n > 0 for n in counts), "more": sum(n > 1 for n in counts)}


def recognized(name: str) -> dict[str, float]:
    embeddings, labels, missed = main_faces(Engine(embedder=name, settings=Settings()), att_faces())
    pairs = all_pairs(embeddings, labels)
    fnmr = {f"fnmr_at_fmr_{fmr}": error_rates(pairs, threshold_at_fmr(pairs, fmr))[1] for fmr in (1e-3, 1e-4)}
    return {"missed": len(missed), "rank_1": leave_one_out(embeddings, labels).rank_1, **fnmr}


def in_words(card: ModelCard, facts: dict[str, Any]) -> str:
    if card.task == "detect":
        more = f", more than one in {facts['more']}" if facts["more"] else ""
        return f"a face in {facts['found']} of {facts['photos']} photos{more}"
    low, lower = facts["fnmr_at_fmr_0.001"], facts["fnmr_at_fmr_0.0001"]
    return f"rank 1: {facts['rank_1']:.1%}; FNMR {low:.2%} at FMR 0.1%, {lower:.2%} at 0.01%"


def write(card: ModelCard, measured: Measured) -> None:
    """Replace the last table of the card's file."""
    path = CARDS / f"{card.name}.toml"
    text = re.sub(r"\n\[measured\].*", "", path.read_text("utf-8"), flags=re.S)
    fields = {name: getattr(measured, name) for name in Measured.__dataclass_fields__}
    lines = "\n".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items())
    path.write_text(f"{text}\n[measured]\n{lines}\n", "utf-8")
    assert catalog.read_card(path.read_text("utf-8"), path.name) == replace(card, measured=measured)


def table() -> str:
    """The models as docs/models.md shows them: what their cards say."""
    rows = [
        "| Model | Task | Weights | Licence of the weights | Dimension | ms, one thread | Accuracy here |",
        "|---" * 7 + "|",
    ]
    for card in catalog.CARDS:
        if card.task not in ("detect", "embed"):
            continue
        licence = card.licence if card.licence == catalog.UNSTATED else f"[{card.licence}]({card.licence_source})"
        speed, accuracy = (f"{m.milliseconds} ({m.run})", m.accuracy) if (m := card.measured) else ("–", "–")
        rows.append(
            f"| `{card.name}` | {card.task} | `{card.requirement}` | {licence} | {card.dimension or '–'} | {speed} "
            f"| {accuracy} |"
        )
    told = sorted({f"{m.date} on {m.machine}; {m.dataset}" for card in catalog.CARDS if (m := card.measured)})
    return "\n".join([*rows, "", f"Measured {'; '.join(told)}."])


def write_table() -> None:
    text = PAGE.read_text("utf-8")
    before, rest = text.split(START)
    PAGE.write_text(f"{before}{START}\n\n{table()}\n\n{END}{rest.split(END)[1]}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--dry", action="store_true", help="leave the cards as they are")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if options.table:
        write_table()
        return
    every = [card.name for card in catalog.CARDS if card.task in ("detect", "embed")]
    cards = [catalog.card(name) for name in options.models or every]
    facts: dict[str, Any] = {
        card.name: detected(card.name) if card.task == "detect" else recognized(card.name) for card in cards
    }
    for name, value in milliseconds(cards).items():
        facts[name]["milliseconds"] = value
    save("models", ATT_NAME, {"models": facts})
    if options.dry:
        return
    here = "{cpu}, {cores} cores, {simd}".format(**machine())
    for card in cards:
        run = "one photo of 512 × 512" if card.task == "detect" else "one aligned face"
        speed = round(facts[card.name]["milliseconds"], 1)
        date = f"{datetime.now(UTC):%Y-%m-%d}"
        write(card, Measured(date, here, speed, run, ATT_NAME, in_words(card, facts[card.name])))
    print("now: python -m benchmarks.models --table")


if __name__ == "__main__":
    main()
