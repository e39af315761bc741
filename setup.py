"""Builds the compiled search kernel where a C compiler is at hand; without one, NumPy does the same work slower.

FACEDEX_NO_KERNEL=1 leaves it out on purpose. With -DFACEDEX_EMULATE the AVX-512 and NEON sources compile against SIMDe:
the tests do so to check them on any machine.
"""

import os
import sys

from setuptools import Extension, setup

KERNELS = "src/facedex/search/kernels/"
SOURCES = ["portable.c", "avx2.c", "avx512vnni.c", "neon.c", "engine.c", "module.c"]
# no -ffast-math: certificates and float64 order rest on IEEE arithmetic
FLAGS = [] if sys.platform == "win32" else ["-O3", "-std=gnu11", "-pthread", "-fvisibility=hidden"]


def extension() -> Extension:
    return Extension(
        "facedex.search._kernel",
        [KERNELS + source for source in SOURCES],
        depends=[KERNELS + header for header in ("kernels.h", "engine.h", "panels.h")],
        define_macros=[("Py_LIMITED_API", "0x030B0000")],
        extra_compile_args=FLAGS,
        extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
        py_limited_api=True,
        optional=True,
    )


extensions = [] if os.environ.get("FACEDEX_NO_KERNEL") == "1" else [extension()]

setup(ext_modules=extensions, options={"bdist_wheel": {"py_limited_api": "cp311"}} if extensions else {})
