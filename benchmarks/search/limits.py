"""What memory and the int8 units of this machine allow, beside what the scan's inner loops reach at D = 128.

``python -m benchmarks.search.limits [--threads N]``    needs a C compiler; prints JSON, least times of many.

gb_a_second              reading 512 MB, which no cache holds: the limit of one probe
gb_a_second_3mb          reading 3 MB again and again: 52,001 faces in 4 bits
int8_peak_billion_faces  products alone, operands in registers: the limit of a batch
scan8_billion_faces      the kernel's batch loop on one block in the cache
scan4_gb_a_second        the kernel's one-probe loop on codes in the cache
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from facedex.search import native

KERNELS = Path(native.__file__).parent / "kernels"


def limits(threads: int) -> dict[str, Any]:
    sources = [KERNELS / f"{name}.c" for name in ("portable", "avx2", "avx512vnni", "neon", "engine")]
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "limits"
        subprocess.run(
            ["cc", "-O3", "-std=gnu11", f"-I{KERNELS}", str(Path(__file__).with_suffix(".c")), *map(str, sources),
             "-lm", "-pthread", "-o", str(program)],
            check=True,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(
            subprocess.run([program, str(threads)], check=True, capture_output=True).stdout
        )
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=native.cores())
    print(json.dumps(limits(parser.parse_args().threads), indent=1))


if __name__ == "__main__":
    main()
