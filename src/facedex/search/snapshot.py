"""An exact index in a file that is mapped, not read: opening a million faces takes milliseconds.

::

    offset 0      prologue, 64 bytes: magic, version, place and CRC-32 of the table, size of the file, own CRC-32
    offset 4096   sections, each at a multiple of 64: the arrays of every segment, little-endian
    at the end    the table, JSON: dimension, next id, owner's facts, per segment the sections with place and checksum

Small sections are checked when the file is opened, the codes before the first search trusts them, the float32 rows,
which are most of the file and only ever read a few at a time, by ``verify``. A file is written beside its final name
and moved there when it is complete and on disk. It is a copy of what a store holds: anything wrong with it is answered
by an error and a rebuild, never by a repair.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import numpy as np
import numpy.typing as npt

from facedex.errors import IndexCorrupt, IndexUnavailable, IndexVersion
from facedex.search import codes, native
from facedex.search.segment import Segment

MAGIC = b"FACEDEX\x1a"
VERSION = 1
_PROLOGUE = struct.Struct("<8sIIQQQI")  # magic, version, CRC of table, place, length, file size, CRC of these
_FIRST = 4096
_DTYPES = {
    "packed4": "|u1", "codes8": "|u1", "e4": "<f4", "e8": "<f4", "stats": "<f8", "mean": "<f4", "ids": "<i8",
    "rows": "<f4",
}  # fmt: skip
_CODES = ("packed4", "codes8")


def corrupt(path: str | PathLike[str], why: str) -> IndexCorrupt:
    return IndexCorrupt(
        f"'{os.fspath(path)}' is not a usable index: {why}. Build it again from the store.",
        path=os.fspath(path),
        why=why,
    )


def _checksum(data: npt.NDArray[np.uint8]) -> int:
    return int(native.module.checksum(data)) if native.module is not None else codes.checksum(data)


def shapes(dimension: int, n: int) -> dict[str, tuple[int, ...]]:
    wide, blocks = codes.padded(dimension), codes.blocks(n)
    return {
        "packed4": (blocks * wide * codes.BLOCK // 2,), "codes8": (blocks * wide * codes.BLOCK,), "e4": (blocks,),
        "e8": (n,), "stats": (codes.stats_size(dimension),), "mean": (wide,), "ids": (n,), "rows": (n, dimension),
    }  # fmt: skip


class Snapshot:
    """An opened file; keeps it mapped."""

    def __init__(self, path: str, data: npt.NDArray[np.uint8], table: dict[str, Any]) -> None:
        self.path = path
        self._data = data
        self._table = table
        self.dimension = int(table["dimension"])
        self.next_id = int(table["next_id"])
        self.facts: dict[str, Any] = dict(table["facts"])

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Self:
        """Map a file and check all that is small. Raises IndexCorrupt, IndexVersion, IndexUnavailable."""
        name = os.fspath(path)
        try:
            with open(name, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                head = file.read(_PROLOGUE.size)
                if len(head) < _PROLOGUE.size or head[:8] != MAGIC:
                    raise corrupt(name, "it does not begin like one" if size else "it is empty")
                _, version, table_crc, place, length, whole, crc = _PROLOGUE.unpack(head)
                if version > VERSION:
                    raise IndexVersion(
                        f"'{name}' has format {version}, this Facedex reads up to {VERSION}. "
                        f"Update Facedex, or build the index again from the store.", path=name, version=version,
                    )  # fmt: skip
                if zlib.crc32(head[: _PROLOGUE.size - 4]) != crc:
                    raise corrupt(name, "its prologue is damaged")
                if size != whole:
                    raise corrupt(name, f"it has {size} bytes of {whole}")
                if place + length > size:
                    raise corrupt(name, "its table lies outside")
                data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
        except OSError as error:
            raise IndexUnavailable(f"'{name}' cannot be read: {error.strerror}.", path=name) from error
        raw = data[place : place + length].tobytes()
        if zlib.crc32(raw) != table_crc:
            raise corrupt(name, "its table is damaged")
        try:
            opened = cls(name, data, json.loads(raw))
            for segment in opened._table["segments"]:
                for section in _DTYPES:
                    if section not in (*_CODES, "rows"):
                        opened._check(segment, section)
        except (KeyError, TypeError, ValueError) as error:
            raise corrupt(name, f"its table does not describe it ({error})") from error
        return opened

    def _bytes(self, segment: dict[str, Any], section: str) -> npt.NDArray[np.uint8]:
        place, _ = segment["sections"][section]
        shape = shapes(self.dimension, int(segment["n"]))[section]
        length = int(np.prod(shape)) * np.dtype(_DTYPES[section]).itemsize
        if not 0 <= place <= len(self._data) - length or place % 64:
            raise corrupt(self.path, f"section {section} lies outside")
        return self._data[place : place + length]

    def _check(self, segment: dict[str, Any], section: str) -> None:
        if _checksum(self._bytes(segment, section)) != segment["sections"][section][1]:
            raise corrupt(self.path, f"section {section} is damaged")

    def verify_codes(self, backend: Any) -> None:
        """Check what the kernel scans; NumPy scans the rows instead."""
        for segment in self._table["segments"] if backend is not None else ():
            for section in _CODES:
                self._check(segment, section)

    def verify(self) -> None:
        """Check every section."""
        for segment in self._table["segments"]:
            for section in _DTYPES:
                self._check(segment, section)

    def segments(self, backend: Any) -> list[Segment]:
        result = []
        for entry in self._table["segments"]:
            n = int(entry["n"])
            shape = shapes(self.dimension, n)
            a = {name: self._bytes(entry, name).view(dtype).reshape(shape[name]) for name, dtype in _DTYPES.items()}
            quantizer = codes.Quantizer(a.pop("mean"), float(a["stats"][codes.STEP4]), float(a["stats"][codes.STEP8]))
            rows, ids = a.pop("rows"), a.pop("ids")
            segment = Segment(rows, ids, quantizer, backend, a)
            segment.encoded = n
            segment.finish(n)
            result.append(segment)
        return result


@contextlib.contextmanager
def new_file(path: str | PathLike[str]) -> Iterator[BinaryIO]:
    """A file that appears under its name whole, on disk, or not at all. Raises IndexUnavailable."""
    target = Path(path)
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", suffix=".part", delete=False
        ) as file:
            temporary = file.name
            file.write(bytes(_FIRST))
            yield cast("BinaryIO", file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o600 if not target.exists() else target.stat().st_mode & 0o777)
        os.replace(temporary, target)
        temporary = ""
        if os.name == "posix":  # the new name itself must survive a power cut
            directory = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
    except OSError as error:
        raise IndexUnavailable(f"'{target}' cannot be written: {error.strerror}.", path=str(target)) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def align(file: BinaryIO) -> int:
    """Go to where a section may begin; its place."""
    file.write(bytes(-file.tell() % 64))
    return file.tell()


def write_section(file: BinaryIO, name: str, array: npt.NDArray[Any]) -> list[int]:
    """Place and checksum of a section."""
    data = np.ascontiguousarray(array, dtype=_DTYPES[name]).reshape(-1).view(np.uint8)
    place = align(file)
    file.write(data.data)
    return [place, _checksum(data)]


def checksum_of(file: BinaryIO, place: int, length: int) -> int:
    """Of what has been written there."""
    if length == 0:
        return _checksum(np.empty(0, np.uint8))
    file.flush()
    return _checksum(np.memmap(file.name, np.uint8, "r", place, (length,)))


def write_table(
    file: BinaryIO, dimension: int, entries: list[dict[str, Any]], next_id: int, facts: Mapping[str, Any]
) -> None:
    """What makes a file of the sections written so far."""
    table = json.dumps({"dimension": dimension, "next_id": next_id, "facts": dict(facts), "segments": entries}).encode()
    place = file.tell()
    file.write(table)
    head = _PROLOGUE.pack(MAGIC, VERSION, zlib.crc32(table), place, len(table), file.tell(), 0)[:-4]
    file.seek(0)
    file.write(head + struct.pack("<I", zlib.crc32(head)))


def write(
    path: str | PathLike[str], dimension: int, segments: Iterable[Segment], next_id: int, facts: Mapping[str, Any]
) -> None:
    """Write full segments without removed rows; the file appears whole or not at all. Raises IndexUnavailable."""
    with new_file(path) as file:
        entries = []
        for segment in segments:
            arrays = {**segment.arrays, "mean": segment.quantizer.mean, "ids": segment.ids, "rows": segment.rows}
            sections = {name: write_section(file, name, arrays[name]) for name in _DTYPES}
            entries.append({"n": segment.n, "sections": sections})
        write_table(file, dimension, entries, next_id, facts)
