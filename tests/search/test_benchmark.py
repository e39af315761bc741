"""The benchmark runs, checks what it is told, and does not believe it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search import data

ROOT = Path(__file__).parents[2]


def test_the_quick_benchmark_writes_its_table(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.search.run", "--mode", "quick", "--out", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (report,) = [json.loads(p.read_text()) for p in tmp_path.glob("*.json")]
    ours = [r for r in report["results"] if r["peer"] == "facedex"]
    assert ours
    assert all(r["recall"] == 1 and r["identical"] == 1 for r in ours)
    assert "| facedex |" in next(tmp_path.glob("*.md")).read_text()


def test_the_generated_people_look_like_people() -> None:
    rows = data.gallery(5000, 128)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(rows, data.gallery(5000, 128))
    scores = np.sort(data.probes(200, rows) @ rows.T, axis=1)
    assert 0.6 < np.median(scores[:, -1]) < 0.75  # the known ones: four of five
    assert np.mean(scores[:, -1] > 0.55) == pytest.approx(0.8, abs=0.1)
    assert abs(np.median(scores)) < 0.02
