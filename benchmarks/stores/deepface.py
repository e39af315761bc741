"""DeepFace 0.0.103's own exact search over PostgreSQL, in an environment of its own, which this makes.

Its table is filled directly with the same embeddings, as ``register`` would fill it but for the picture of the face.
The embedding of a probe is given to it, as to ours; everything else of ``search`` is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import platformdirs

REQUIREMENTS = [
    "deepface==0.0.103", "werkzeug", "opencv-contrib-python-headless>=4.11,<5", "pandas", "psycopg[binary]",
]  # fmt: skip

SCRIPT = """
import hashlib, json, sys, time
import numpy as np, psycopg
from deepface.modules import datastore
from deepface.modules.database import postgres

url, rows, probes, rounds = sys.argv[1], np.load(sys.argv[2]), np.load(sys.argv[3]), int(sys.argv[4])
with psycopg.connect(url) as connection:
    connection.execute(postgres.CREATE_EMBEDDINGS_TABLE_SQL)
    (there,) = connection.execute("SELECT count(*) FROM embeddings").fetchone()
    columns = "img_name, face, face_shape, model_name, detector_backend, embedding, face_hash, embedding_hash"
    with connection.cursor().copy(f"COPY embeddings ({columns}) FROM STDIN") as copy:
        for n in range(there, len(rows)):
            name = hashlib.sha256(f"{n}".encode()).hexdigest()
            copy.write_row((f"/photos/{n}.jpg", b"", [0], "SFace", "yunet", rows[n].tolist(), name, name))

def given(**_):
    return [{"embedding": probe, "facial_area": {"x": 0, "y": 0, "w": 100, "h": 100}}]

setattr(datastore, "__get_embeddings", given)
times, found = [], []
for probe in probes[:rounds].tolist():
    started = time.perf_counter()
    (answer,) = datastore.search(
        img=None, model_name="SFace", detector_backend="yunet", distance_metric="cosine", similarity_search=True, k=10,
        database_type="postgres", connection_details=url, search_method="exact",
    )
    times.append(time.perf_counter() - started)
    found.append(list(answer["img_name"]))
print(json.dumps({"exact_ms": sorted(times)[len(times) // 2] * 1e3, "found": found}))
"""


def python() -> Path:
    """The interpreter of its environment, made on first use."""
    folder = Path(platformdirs.user_cache_dir("facedex", appauthor=False)) / "benchmarks" / "deepface-0.0.103-stores"
    interpreter = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(interpreter), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        (folder / "done").touch()
    return interpreter


def measure(url: str, rows: Path, probes: Path, rounds: int) -> dict[str, Any]:
    """Median milliseconds of one exact search among the rows, and the pictures it found for each probe."""
    done = subprocess.run(
        [str(python()), "-c", SCRIPT, url, str(rows), str(probes), str(rounds)], capture_output=True, text=True
    )
    if done.returncode:
        return {"missing": done.stderr[-500:]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
