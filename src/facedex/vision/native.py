"""The compiled pixel work where it was built; ``None``, and NumPy and Pillow instead, where it was not."""

from __future__ import annotations

import importlib
from types import ModuleType

module: ModuleType | None
try:
    module = importlib.import_module("facedex.vision._kernel")
except ImportError:  # no compiler at install time
    module = None
