"""Measure the thresholds and the calibration that Facedex ships, and write them where it reads them.

python -m benchmarks.operating_points [EMBEDDER ...]    the default one when left out

Data: the AT&T faces, so that anyone can repeat it. Match: the lowest threshold at which no more than one impostor
pair in 10,000 matches. Review: one in 1,000.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.accuracy import main_faces
from benchmarks.data import ATT_NAME, att_faces
from facedex import DecisionPolicy, Engine
from facedex.decide.confidence import calibrate
from facedex.decide.evaluation import all_pairs, operating_point, threshold_at_fmr
from facedex.types import to_plain

TARGET = Path(__file__).parent.parent / "src" / "facedex" / "decide" / "operating_points.json"
MATCH_FMR, REVIEW_FMR = 1e-4, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("embedders", nargs="*", default=["sface"], metavar="EMBEDDER")
    for embedder in parser.parse_args().embedders:
        measure(Engine(embedder=embedder))


def measure(engine: Engine) -> None:
    """Measure one embedder and write its operating points beside those of the others."""
    embeddings, labels, missed = main_faces(engine, att_faces())
    pairs = all_pairs(embeddings, labels)
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    dataset = f"{ATT_NAME}, {len(missed)} faces missed"

    def point(fmr: float) -> float:
        return round(threshold_at_fmr(pairs, fmr) + 0.0005, 3)

    policy = DecisionPolicy(
        match=operating_point(pairs, point(MATCH_FMR), dataset=dataset, date=date),
        review=operating_point(pairs, point(REVIEW_FMR), dataset=dataset, date=date),
        calibration=calibrate(pairs, dataset=dataset, date=date),
    )
    shipped = json.loads(TARGET.read_text("utf-8")) if TARGET.exists() else {}
    shipped[engine.space.id] = {"space": str(engine.space)} | to_plain(policy)
    TARGET.write_text(json.dumps(shipped, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(json.dumps(shipped[engine.space.id], indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
