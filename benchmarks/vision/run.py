"""Photos to stored templates beside DeepFace's represent, and where the time goes.

python -m benchmarks.vision.run [DIR --name NAME] [--rounds N] [--no-peer]

Each round runs every contestant in a process of its own, in turn, on the same photos; rates are medians, ratios medians
of the rounds' ratios. Ours decodes, detects, aligns, embeds and stores in SQLite (synchronous=FULL) on all cores;
DeepFace 0.0.103 represents one photo after the other, with YuNet and SFace of the same weights, on as many threads as
its runtimes take. DIR has one folder a person; without it the sample photos are used, at 512 × 512 and 2 megapixels.

Stages are CPU time of one core, one photo at a time; the compute limit is what the networks' multiplications would take
at the rate of a large float32 matrix product on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import SIZES, median, save, sized_samples
from benchmarks.vision import peer
from facedex.decide import policy_for
from facedex.models.catalog import card
from facedex.vision.sources import find_photos

_SMALL = {"FACEDEX_DETECT_SIZE": "320"}
_OPENVINO = {"FACEDEX_RUNTIME": "openvino"}
CONTESTANTS: dict[str, dict[str, str]] = {
    "facedex": {},
    "facedex, detection at 320": _SMALL,
    "… and SFace in int8 (OpenVINO)": _SMALL | _OPENVINO | {"FACEDEX_EMBEDDER": "sface-int8"},
    "… and dlib's network in int8 (OpenVINO)": _SMALL | _OPENVINO | {"FACEDEX_EMBEDDER": "dlib-resnet-int8"},
}
"""What we call it → the settings it runs with."""
PEER = "DeepFace"
PEER_THRESHOLD = 1 - 0.593  # DeepFace's own for SFace, as a similarity
GFLOP = {"sface": 1.148, "dlib-resnet": 0.542}  # a face
GFLOP_YUNET_PIXEL = 0.688 / 640**2


def run_facedex(photos: list[Path], target: str) -> None:
    """Enroll, and save the embeddings in the order of the photos."""
    import facedex
    from facedex.types import Where

    with tempfile.TemporaryDirectory() as folder, facedex.open(Path(folder) / "faces.db") as gallery:
        with gallery.engine.open("memory://") as warm:
            warm.enroll(photos[:1])  # models are loaded, as many photos run them, before the clock starts
        started = time.perf_counter()
        report = gallery.enroll(photos, faces="main")
        seconds = time.perf_counter() - started
        ids = gallery.store.ids(Where())
        by_link = {stored.template.link: stored.template.embedding for stored in gallery.store.get(sorted(ids))}
    nothing = np.full(128, np.nan, np.float32)
    np.save(target, np.stack([by_link.get(str(photo), nothing) for photo in photos]))
    print(json.dumps({"seconds": seconds, "faces": report.enrolled}))


def run_stages(photos: list[Path]) -> None:
    """CPU milliseconds of a photo by stage, on one core; the least of three passes, summed over the photos."""
    import facedex
    from facedex.models.runtime import share_cores
    from facedex.stores.contract import PhotoRecord
    from facedex.types import Template
    from facedex.vision.levels import Levels

    share_cores()
    engine = facedex.Engine()
    pipeline = engine.pipeline
    engine.embed(photos[0])
    spent: dict[tuple[str, Path], list[float]] = defaultdict(list)
    faces_seen = 0
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(3):
            gallery = engine.open(Path(folder) / f"{turn}.db")
            for photo in photos:
                marks = [time.process_time()]
                raw = engine.read(photo)
                levels = raw.levels()
                level = levels.at_least(pipeline.look)
                marks.append(time.process_time())
                faces = pipeline.find(levels)
                marks.append(time.process_time())
                faces, crops = pipeline.crops(levels, faces, 1)
                marks.append(time.process_time())
                rows = pipeline.embedder.embed(crops)
                marks.append(time.process_time())
                templates = tuple(
                    Template(
                        raw.digest, face.box, face.landmarks, face.detection_score, row, engine.space.id, link=raw.link
                    )
                    for face, row in zip(faces, rows, strict=True)
                )
                gallery.store.add([PhotoRecord(raw.digest, templates)], engine.space)
                marks.append(time.process_time())
                for stage, begin, end in zip(STAGES, marks, marks[1:], strict=False):
                    spent[stage, photo].append(end - begin)
                faces_seen += len(faces) if turn == 0 else 0
                assert isinstance(levels, Levels)
                assert level.pixels.size
            gallery.close()
    totals: dict[str, float] = defaultdict(float)
    for (stage, _), seconds in spent.items():
        totals[stage] += min(seconds)
    print(
        json.dumps(
            {
                "cpu_ms_a_photo": {stage: round(totals[stage] * 1e3 / len(photos), 2) for stage in STAGES},
                "faces_a_photo": faces_seen / len(photos),
            }
        )
    )


STAGES = ("decode", "detect", "align", "embed", "write")


def peak_gflops() -> float:
    """Of a float32 matrix product on all cores: the most of ten."""
    a = np.random.default_rng(0).random((1536, 1536), np.float32)
    rates = []
    for _ in range(10):
        started = time.perf_counter()
        a @ a
        rates.append(2 * a.shape[0] ** 3 / (time.perf_counter() - started) / 1e9)
    return max(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--name", help="what to call the photos of the folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peer", action="store_true", help="leave DeepFace out")
    parser.add_argument("--only", choices=["facedex", "stages"], help=argparse.SUPPRESS)
    parser.add_argument("--target", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        photos = photos_of(options.folder)
        run_stages(photos) if options.only == "stages" else run_facedex(photos, options.target)
    elif options.folder:
        compare(options.folder, options.name or options.folder.name, options.rounds, not options.no_peer)
    else:
        for name, size in SIZES.items():
            compare(sized_samples(size), name, options.rounds, not options.no_peer)


def photos_of(folder: Path) -> list[Path]:
    return [Path(photo.source).absolute() for photo in find_photos(folder)]


def told(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[:4]} failed:\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def compare(folder: Path, name: str, rounds: int, with_peer: bool) -> None:
    photos = photos_of(folder)
    ours = [sys.executable, "-m", "benchmarks.vision.run", str(folder), "--only"]
    names = [*CONTESTANTS, *([PEER] if with_peer else [])]
    seconds: dict[str, list[float]] = {contestant: [] for contestant in names}
    faces, embeddings = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        target = str(Path(temporary) / "embeddings.npy")
        interpreter = str(peer.python()) if with_peer else ""
        for _ in range(rounds):
            for contestant in names:
                if contestant == PEER:
                    command = [interpreter, "-c", peer.SCRIPT, target, *map(str, photos)]
                    answer = told(command, {"DEEPFACE_HOME": str(peer.home())})
                else:
                    answer = told([*ours, "facedex", "--target", target], CONTESTANTS[contestant])
                seconds[contestant].append(answer["seconds"])
                faces[contestant] = answer["faces"]
                embeddings[contestant] = np.load(target)
    stages = {contestant: told([*ours, "stages"], settings) for contestant, settings in CONTESTANTS.items()}
    peak = peak_gflops()
    result: dict[str, Any] = {
        "photos": len(photos),
        "rounds": rounds,
        "faces": faces,
        "photos_per_second": {c: round(median([len(photos) / s for s in times]), 1) for c, times in seconds.items()},
        "stages": stages,
        "peak_gflops": round(peak),
        "compute_limit_photos_per_second": {c: round(limit(photos, c, stages[c], peak), 1) for c in CONTESTANTS},
    }
    if with_peer:
        result["ratio"] = {
            c: round(median([p / s for p, s in zip(seconds[PEER], seconds[c], strict=True)]), 2) for c in CONTESTANTS
        }
        result["decisions"] = decisions(photos, embeddings)
    save("vision", name, result)


def limit(photos: list[Path], contestant: str, stages: dict[str, Any], peak: float) -> float:
    """Photos a second if both networks ran at ``peak`` and nothing else took any time."""
    from PIL import Image

    bound = int(CONTESTANTS[contestant].get("FACEDEX_DETECT_SIZE", 640))
    pixels = []
    for path in photos:
        with Image.open(path) as image:
            width, height = image.size
        scale = min(1.0, bound / max(width, height))
        pixels.append(np.prod([-(-round(side * scale) // 32) * 32 for side in (width, height)]))
    embedder = CONTESTANTS[contestant].get("FACEDEX_EMBEDDER", "sface").removesuffix("-int8")
    return peak / (float(np.mean(pixels)) * GFLOP_YUNET_PIXEL + stages["faces_a_photo"] * GFLOP[embedder])


def decisions(photos: list[Path], embeddings: dict[str, Any]) -> dict[str, Any]:
    """Of all pairs of photos: wrong by the folders' names, and decided otherwise than the peer, each at its own
    threshold."""
    people = [photo.parent.name for photo in photos]
    pairs = list(combinations(range(len(photos)), 2))
    one, other = np.array(pairs).T
    same = np.array([people[i] == people[j] for i, j in pairs])
    verdicts = {}
    for contestant, rows in embeddings.items():
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        embedder = CONTESTANTS.get(contestant, {}).get("FACEDEX_EMBEDDER", "sface")
        threshold = PEER_THRESHOLD if contestant == PEER else policy_for(card(embedder).space).match.threshold
        verdicts[contestant] = (unit[one] * unit[other]).sum(axis=1) >= threshold
    return {
        "pairs": len(pairs),
        "wrong": {c: int((verdict != same).sum()) for c, verdict in verdicts.items()},
        "otherwise_than_deepface": {
            c: int((verdict != verdicts[PEER]).sum()) for c, verdict in verdicts.items() if c != PEER
        },
    }


if __name__ == "__main__":
    main()
