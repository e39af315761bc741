"""The compiled kernel where it was built; ``None`` and NumPy where it was not."""

from __future__ import annotations

import importlib
import os
from functools import cache
from types import ModuleType

from facedex.errors import ArgumentInvalid

module: ModuleType | None
try:
    module = importlib.import_module("facedex.search._kernel")
except ImportError:  # no compiler at install time
    module = None

NUMPY = "numpy"


def kernels() -> list[str]:
    """Names of the kernels that run here, the default first; ``numpy`` always does."""
    return [*(module.kernels() if module else ()), NUMPY]


def resolve(kernel: str | None) -> str:
    """The kernel of that name, the best for ``None``. Raises ArgumentInvalid when it does not run here."""
    names = kernels()
    if kernel is None:
        return names[0]
    if kernel not in names:
        raise ArgumentInvalid(f"Kernel {kernel!r} does not run here; these do: {', '.join(names)}.", kernel=kernel)
    return kernel


@cache
def cores() -> int:
    """CPUs this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
