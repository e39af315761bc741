"""The command line: the library's twin, one function per command, one engine call each.

Exit codes: 0 done · 1 failed · 2 wrong usage · 3 done, but some photos could not be used · 130 interrupted.
"""

from facedex.cli import gallery, models, photos, study, transfer  # each adds its commands to main
from facedex.cli.common import main

__all__ = ["gallery", "main", "models", "photos", "study", "transfer"]
