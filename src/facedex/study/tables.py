"""The tables people hand over: pairs of photos known to be of one person or two, and groups of people."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from facedex.errors import PairsUnreadable

__all__ = ["ListedPhotos", "read_groups", "read_pairs"]

_FIRST: Final = frozenset(
    [
        "photoa",
        "photo1",
        "a",
        "x",
        "filex",
        "file1",
        "filea",
        "img1",
        "imga",
        "imgx",
        "image1",
        "imagea",
        "left",
        "first",
        "patha",
        "path1",
    ]
)
_SECOND: Final = frozenset(
    [
        "photob",
        "photo2",
        "b",
        "y",
        "filey",
        "file2",
        "fileb",
        "img2",
        "imgb",
        "imgy",
        "image2",
        "imageb",
        "right",
        "second",
        "pathb",
        "path2",
    ]
)
_SAME: Final = frozenset(["same", "sameperson", "issame", "actual", "label", "match", "genuine", "target"])
_TRUE: Final = frozenset(["1", "1.0", "true", "yes", "y", "same", "sameperson", "genuine", "match", "positive"])
_FALSE: Final = frozenset(
    [
        "0",
        "0.0",
        "false",
        "no",
        "n",
        "different",
        "differentperson",
        "differentpersons",
        "impostor",
        "nonmatch",
        "negative",
        "-1",
    ]
)
_PERSON: Final = frozenset(["person", "label", "name", "identity"])
_GROUP: Final = frozenset(["group", "class"])


@dataclass(frozen=True, slots=True)
class ListedPhotos:
    """One line of a list of pairs.

    line  its number in the file, the header being 1.
    """

    line: int
    first: str
    second: str
    same: bool


def read_pairs(path: str | os.PathLike[str]) -> list[ListedPhotos]:
    """Pairs of photos from a CSV file with a header.

    Columns photo_a, photo_b, same, in any order and case, or what others call them (file_x, img1, left …; actual,
    label …); values 1/0, true/false, yes/no, same/different. Separated by comma, semicolon or tab. Relative paths start
    at the file's own folder.

    Raises  PairsUnreadable naming the line.
    """
    folder = Path(path).resolve().parent
    rows = []
    for line, (first, second, same) in _rows(path, {"photo_a": _FIRST, "photo_b": _SECOND, "same": _SAME}):
        value = _bare(same) if same.strip() != "-1" else "-1"
        if value not in _TRUE | _FALSE:
            raise _problem(path, f"line {line} says same is {same!r}; expected 1 or 0, true or false, yes or no", line)
        rows.append(ListedPhotos(line, _placed(folder, first), _placed(folder, second), value in _TRUE))
    if not rows:
        raise _problem(path, "it has a header and no pairs", 1)
    return rows


def read_groups(path: str | os.PathLike[str]) -> dict[str, str]:
    """The group of each person from a CSV file with the columns person and group.

    Raises  PairsUnreadable naming the line.
    """
    found: dict[str, str] = {}
    for line, (person, group) in _rows(path, {"person": _PERSON, "group": _GROUP}):
        if found.setdefault(person, group) != group:
            raise _problem(path, f"line {line} puts {person!r} in {group!r}, an earlier one in {found[person]!r}", line)
    if not found:
        raise _problem(path, "it has a header and no people", 1)
    return found


def _rows(path: str | os.PathLike[str], columns: dict[str, frozenset[str]]) -> Iterator[tuple[int, list[str]]]:
    """Each line's number and the values of the columns, none of them empty."""
    try:
        text = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise _problem(path, f"it cannot be read as text ({getattr(error, 'strerror', None) or error})", 0) from error
    lines = text.splitlines()
    header = lines[0] if lines else ""
    separator = max(",;\t", key=header.count)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        names = [_bare(name) for name in next(reader, [])]
        places = []
        for column, known in columns.items():
            at = [place for place, name in enumerate(names) if name in known]
            if len(at) != 1:
                raise _problem(
                    path,
                    f"its header {header[:80]!r} has {'no column' if not at else 'several columns'} for {column}; "
                    f"expected {separator.join(columns)}",
                    1,
                )
            places.append(at[0])
        for row in reader:
            if not any(value.strip() for value in row):
                continue
            values = [row[place].strip() if place < len(row) else "" for place in places]
            if not all(values):
                raise _problem(path, f"line {reader.line_num} has nothing for {' or '.join(columns)}", reader.line_num)
            yield reader.line_num, values
    except csv.Error as error:
        raise _problem(path, f"line {reader.line_num} is no CSV ({error})", reader.line_num) from error


def _bare(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum() or character == ".")


def _placed(folder: Path, name: str) -> str:
    return name if "://" in name else str(folder / name)


def _problem(path: str | os.PathLike[str], what: str, line: int) -> PairsUnreadable:
    return PairsUnreadable(f"{os.fspath(path)} is not the table it should be: {what}.", path=os.fspath(path), line=line)
