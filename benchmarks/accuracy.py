"""How right is it on labelled photos: missed faces, leave-one-out rank-1, error rates at the shipped threshold.

python -m benchmarks.accuracy [DIR --name NAME]      DIR/PERSON/*.jpg; the AT&T faces when left out
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.data import ATT_NAME, att_faces, save
from facedex import Engine
from facedex.decide.evaluation import all_pairs, operating_point
from facedex.decide.identification import leave_one_out
from facedex.types import Embeddings, to_plain
from facedex.vision.sources import find_photos


def main_faces(engine: Engine, folder: Path) -> tuple[Embeddings, list[str], list[str]]:
    """(N, D) embeddings of each photo's main face, their labels (the folders), and the photos without a face."""
    embeddings, labels, missed = [], [], []
    for source in find_photos(folder):
        faces = engine.pipeline.faces([engine.load(source.source).pixels])[0]
        if faces:
            embeddings.append(faces[0].embedding)
            labels.append(str(source.folder))
        else:
            missed.append(source.name)
    return np.stack(embeddings), labels, missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--name", default=ATT_NAME, help="what to call the photos")
    options = parser.parse_args()
    engine = Engine()
    embeddings, labels, missed = main_faces(engine, options.folder or att_faces())
    pairs, identified, policy = all_pairs(embeddings, labels), leave_one_out(embeddings, labels), engine.policy
    genuine, impostor = (np.concatenate(column) for column in zip(*pairs.scores(), strict=True))
    save(
        "accuracy",
        options.name,
        {
            "photos": len(labels) + len(missed),
            "people": len(set(labels)),
            "missed": missed,
            "leave_one_out": {"probes": identified.probes, "rank_1": identified.rank_1},
            "genuine_similarity_min_1st_percentile_median": [float(v) for v in np.quantile(genuine, [0, 0.01, 0.5])],
            "impostor_similarity_median_99th_percentile_max": [float(v) for v in np.quantile(impostor, [0.5, 0.99, 1])],
            "at_match_threshold": to_plain(
                operating_point(pairs, policy.match.threshold, dataset=options.name, date="")
            ),
            "at_review_threshold": to_plain(
                operating_point(pairs, policy.review.threshold, dataset=options.name, date="")
            ),
        },
    )


if __name__ == "__main__":
    main()
