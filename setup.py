"""Builds the compiled kernels where a C compiler is at hand; without one, NumPy and Pillow do the same work slower.

FACEDEX_NO_KERNEL=1 leaves them out on purpose. With -DFACEDEX_EMULATE the AVX-512 and NEON sources of the search
compile against SIMDe: the tests do so to check them on any machine.
"""

import os
import sys
from glob import glob

from setuptools import Extension, setup

SEARCH = "src/facedex/search/kernels/"
VISION = "src/facedex/vision/kernels/"
SEARCH_SOURCES = ["portable.c", "avx2.c", "avx512vnni.c", "neon.c", "engine.c", "module.c"]
# no -ffast-math: certificates and float64 order rest on IEEE arithmetic
FLAGS = [] if sys.platform == "win32" else ["-O3", "-std=gnu11", "-pthread", "-fvisibility=hidden"]


def extension(name: str, sources: list[str], depends: list[str]) -> Extension:
    return Extension(
        name,
        sources,
        depends=depends,
        define_macros=[("Py_LIMITED_API", "0x030B0000")],
        extra_compile_args=FLAGS,
        extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
        py_limited_api=True,
        optional=True,
    )


extensions = []
if os.environ.get("FACEDEX_NO_KERNEL") != "1":
    extensions = [
        extension("facedex.search._kernel", [SEARCH + source for source in SEARCH_SOURCES], glob(SEARCH + "*.h")),
        extension("facedex.vision._kernel", [VISION + "pixels.c", VISION + "module.c"], glob(VISION + "*.h")),
    ]

setup(ext_modules=extensions, options={"bdist_wheel": {"py_limited_api": "cp311"}} if extensions else {})
