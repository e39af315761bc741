"""``python -m facedex.cli``."""

from facedex.cli import main

main()
