"""Every kernel under test: those that run here, and the others' sources compiled against SIMDe."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import platform
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from facedex.search import native

KERNELS = Path(native.__file__).parent / "kernels"
SOURCES = ["portable.c", "avx2.c", "avx512vnni.c", "neon.c", "engine.c", "module.c"]
EMULATED = ("avx512vnni", "neon")
NAMES = ("numpy", "portable", "avx2", *EMULATED)


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The extension with AVX-512 and NEON in terms of plain C: same source, same answers, no speed."""
    compiler = shutil.which("cc")
    if compiler is None or not (KERNELS / "module.c").exists():
        pytest.skip("no C compiler or no sources: kernels of other machines cannot be emulated")
    if platform.machine() != "x86_64" or not Path("/usr/include/simde").exists():
        pytest.skip("SIMDe (libsimde-dev, on x86-64) is not installed: kernels of other machines cannot be emulated")
    target = tmp_path_factory.mktemp("emulated") / "_kernel.so"
    include = sysconfig.get_path("include")
    flags = ["-O1", "-std=gnu11", "-shared", "-fPIC", "-pthread", "-DFACEDEX_EMULATE", f"-I{include}", "-w"]
    built = subprocess.run(
        [compiler, *flags, *(str(KERNELS / s) for s in SOURCES), "-lm", "-o", str(target)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if built.returncode and "Python.h" in built.stderr:
        pytest.skip("Python.h is not installed: kernels of other machines cannot be emulated")
    assert built.returncode == 0, built.stderr
    loader = importlib.machinery.ExtensionFileLoader("_kernel", str(target))
    spec = importlib.util.spec_from_loader("_kernel", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=NAMES)
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of each kernel in turn, ready to be passed as ``kernel=``."""
    name: str = request.param
    if name in native.kernels():
        yield name
        return
    if name not in EMULATED:
        pytest.skip(f"{name} does not run here" if native.module else "the compiled kernel was not built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "module", request.getfixturevalue("emulated"))
        yield name
