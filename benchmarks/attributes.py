"""How steady and how right are the guesses of age, gender and expression: by group, where there are labels.

python -m benchmarks.attributes [DIR --women NAME,NAME --name NAME]      DIR/PERSON/*.jpg; the AT&T faces when left out

The AT&T faces come without names, ages or expressions; their description counts 4 women among the 40 people, and whom
we take for these four is our own reading of the photos. Ages are unknown: what can be measured is how far the guesses
for one person scatter over ten photos taken within two years, and how far they move when a photo is mirrored, which
changes nobody's age.
"""

from __future__ import annotations

import argparse
import timeit
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import ATT_NAME, att_faces, save
from facedex import Engine
from facedex.types import FaceAttributes
from facedex.vision.attributes import ACTIONS, CLASSES, Classifier, describe
from facedex.vision.levels import Levels
from facedex.vision.sources import find_photos

ATT_WOMEN = "s08,s10,s32,s35"


def gender(described: dict[str, list[FaceAttributes]], women: set[str]) -> dict[str, Any]:
    """Errors at the larger probability, by group; a person counts as wrong when most of their photos are."""
    groups = {}
    for group, other in (("female", "male"), ("male", "female")):
        people = [person for person in described if (person in women) == (group == "female")]
        wrong = {
            person: [each.gender[other] > each.gender[group] for each in described[person] if each.gender]
            for person in people
        }
        photos = [each for person in people for each in wrong[person]]
        groups[group] = {
            "people": len(people),
            "photos": len(photos),
            "photos_wrong": int(sum(photos)),
            "people_mostly_wrong": sum(sum(each) > len(each) / 2 for each in wrong.values()),
            "people_with_any_wrong": sum(any(each) for each in wrong.values()),
        }
    return groups


def age(described: dict[str, list[FaceAttributes]], mirrored: dict[str, list[FaceAttributes]]) -> dict[str, float]:
    """How far the guesses for one person lie apart, in years."""
    years = [np.array([each.age.years for each in faces if each.age]) for faces in described.values()]
    again = [np.array([each.age.years for each in faces if each.age]) for faces in mirrored.values()]
    spreads = [each.age.spread for faces in described.values() for each in faces if each.age]
    return {
        "standard_deviation_within_a_person": round(float(np.sqrt(np.mean([each.var(ddof=1) for each in years]))), 2),
        "largest_range_within_a_person": round(float(max(np.ptp(each) for each in years)), 1),
        "median_change_when_mirrored": round(
            float(np.median(np.abs(np.concatenate(years) - np.concatenate(again)))), 2
        ),
        "median_spread_the_network_gives": round(float(np.median(spreads)), 2),
    }


def emotion(described: dict[str, list[FaceAttributes]], mirrored: dict[str, list[FaceAttributes]]) -> dict[str, Any]:
    """Which expressions are named, and how often another one for the mirrored photo."""
    names = CLASSES["emotion"]
    first, other = (
        [max(names, key=each.emotion.__getitem__) for faces in each_of.values() for each in faces if each.emotion]
        for each_of in (described, mirrored)
    )
    return {
        "named": {name: first.count(name) for name in names},
        "another_when_mirrored": round(float(np.mean([a != b for a, b in zip(first, other, strict=True)])), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--name", default=ATT_NAME, help="what to call the photos")
    parser.add_argument("--women", default=ATT_WOMEN, help="folders that show women, with commas between; others: men")
    options = parser.parse_args()
    engine = Engine()
    described: dict[str, list[FaceAttributes]] = {}
    mirrored: dict[str, list[FaceAttributes]] = {}
    for source in find_photos(options.folder or att_faces()):
        pixels = engine.load(source.source).pixels
        for kept, image in ((described, pixels), (mirrored, np.ascontiguousarray(pixels[:, ::-1]))):
            kept.setdefault(str(source.folder), []).append(engine.analyze(image)[0])
    levels, faces = Levels.of(pixels), engine.detect(pixels)[:1]
    ready = {action: Classifier.load(action, engine.settings) for action in ACTIONS}

    def milliseconds(*actions: str) -> float:
        chosen = {action: ready[action] for action in actions}
        return round(min(timeit.repeat(lambda: describe(levels, faces, chosen), number=5, repeat=20)) / 5 * 1000, 2)

    save(
        "attributes",
        options.name,
        {
            "photos": sum(map(len, described.values())),
            "people": len(described),
            "gender": gender(described, set(options.women.split(","))),
            "age_years": age(described, mirrored),
            "emotion": emotion(described, mirrored),
            "ms_a_face": {"pose and quality": milliseconds(), **{action: milliseconds(action) for action in ACTIONS}},
        },
    )


if __name__ == "__main__":
    main()
