"""Builds the compiled search kernel where a C compiler is at hand; without one, NumPy does the same work slower.

FACEDEX_NO_KERNEL=1   leaves it out on purpose.
FACEDEX_EMULATE=1     builds ``_kernel_emulated`` too: AVX-512 and NEON sources against SIMDe, for the tests.
"""

import os
import sys

from setuptools import Extension, setup

KERNELS = "src/facedex/search/kernels/"
SOURCES = ["portable.c", "avx2.c", "avx512vnni.c", "neon.c", "engine.c", "module.c"]
# no -ffast-math: certificates and float64 order rest on IEEE arithmetic
FLAGS = [] if sys.platform == "win32" else ["-O3", "-std=gnu11", "-pthread", "-fvisibility=hidden"]


def extension(name: str, *macros: tuple[str, str]) -> Extension:
    return Extension(
        f"facedex.search.{name}",
        [KERNELS + source for source in SOURCES],
        depends=[KERNELS + "kernels.h", KERNELS + "engine.h"],
        define_macros=[("Py_LIMITED_API", "0x030B0000"), *macros],
        extra_compile_args=FLAGS,
        extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
        py_limited_api=True,
        optional=True,
    )


extensions = [] if os.environ.get("FACEDEX_NO_KERNEL") == "1" else [extension("_kernel")]

setup(ext_modules=extensions, options={"bdist_wheel": {"py_limited_api": "cp311"}} if extensions else {})
