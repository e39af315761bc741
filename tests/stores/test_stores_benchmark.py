"""The benchmark of the stores runs, and recomputes what it is told."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_quick_benchmark_writes_its_results(tmp_path):
    command = [sys.executable, "-m", "benchmarks.stores.run", "--mode", "quick", "--out", str(tmp_path)]
    done = subprocess.run([*command, "--only", "sqlite"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (report,) = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    (result,) = report["results"]
    assert (result["store"], result["rows"], result["enrolled"], result["exact_recall"]) == ("sqlite", 500, 500, 1)
