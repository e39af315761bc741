"""How an approximate index lies on disk: a small file that is replaced as a whole, and float32 rows that are mapped.

::

    NAME                  prologue, 64 bytes: magic, version, place, length and CRC-32 of the table, file size, token
                          sections at multiples of 64: ids, removed rows, rotation, codes, checksums of the rows
                          the table at the end, JSON: facts, and place, length and CRC-32 of every section
    NAME.<token>.rows     header, 4096 bytes: magic, version, dimension, token; then rows, little-endian float32

Rows are only ever appended, so the file that names them can be older than they are: what it does not count is not
there. Removed rows are overwritten with zeros once the file that calls them removed is on disk. Nothing is repaired:
the store is the truth, and a damaged index is built again.
"""

from __future__ import annotations

import contextlib
import glob
import json
import mmap
import os
import re
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from facedex.errors import IndexCorrupt, IndexUnavailable, IndexVersion

if sys.platform != "win32":
    import fcntl

MAGIC = b"FACEANN\x1a"
ROWS_MAGIC = b"FACEROW\x1a"
VERSION = 1
CHUNK = 4096
"""Rows that share one checksum."""
_PROLOGUE = struct.Struct(
    "<8sIIQQQ16s4xI"
)  # magic, version, CRC of table, its place, length, file size, token; own CRC
_ROWS_HEADER = struct.Struct("<8sII32s")  # magic, version, dimension, token
_ROWS_START = 4096
_ROWS_NAME = re.compile(r"\.[0-9a-f]{8}\.rows$")


@dataclass(frozen=True, slots=True)
class Contents:
    """What an index file says.

    facts     the JSON part; its keys ``rows``, ``dimension`` and ``token`` are the file's own.
    sections  byte arrays by name.
    prologue  the first bytes of the file; they change whenever anything in it does.
    """

    facts: dict[str, Any]
    sections: dict[str, npt.NDArray[np.uint8]]
    prologue: bytes = b""


def corrupt(path: Path, why: str) -> IndexCorrupt:
    return IndexCorrupt(f"'{path}' is not a usable index: {why}. Build it again.", path=str(path), why=why)


def unavailable(path: Path, what: str, error: OSError) -> IndexUnavailable:
    return IndexUnavailable(f"'{path}' cannot be {what}: {error.strerror or error}.", path=str(path))


def rows_path(path: Path, token: str) -> Path:
    return path.with_name(f"{path.name.removesuffix('.building')}.{token[:8]}.rows")


def read(path: Path) -> Contents:
    """The contents of an index file, every byte checked. Raises IndexCorrupt, IndexVersion, IndexUnavailable."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise unavailable(path, "read", error) from error
    if len(raw) < _PROLOGUE.size or raw[:8] != MAGIC:
        raise corrupt(path, "it does not begin like one" if raw else "it is empty")
    _, version, table_crc, place, length, size, token, crc = _PROLOGUE.unpack_from(raw)
    if version > VERSION:
        raise IndexVersion(
            f"'{path}' has format {version}, this Facedex reads up to {VERSION}. Update Facedex, or build it again.",
            path=str(path),
            version=version,
        )
    if zlib.crc32(raw[: _PROLOGUE.size - 4]) != crc:
        raise corrupt(path, "its prologue is damaged")
    if size != len(raw) or place + length > size:
        raise corrupt(path, f"it has {len(raw)} bytes of {size}")
    view = memoryview(raw)
    if zlib.crc32(view[place : place + length]) != table_crc:
        raise corrupt(path, "its table is damaged")
    try:
        table = json.loads(bytes(view[place : place + length]))
        sections = {}
        for name, (start, count, check) in table["sections"].items():
            if not 0 <= start <= start + count <= size or zlib.crc32(view[start : start + count]) != check:
                raise corrupt(path, f"section {name} is damaged")
            sections[name] = np.frombuffer(raw, np.uint8, count, start)
        facts = table["facts"]
        if facts["token"] != token.hex() or facts["rows"] < 0 or facts["dimension"] < 1:
            raise corrupt(path, "its facts are not possible")
    except (KeyError, TypeError, ValueError) as error:
        raise corrupt(path, f"its table does not describe it ({error})") from error
    return Contents(facts, sections, raw[: _PROLOGUE.size])


def prologue(path: Path) -> bytes:
    """The first bytes of a file, empty when there is none. Raises IndexUnavailable."""
    try:
        with open(path, "rb") as file:
            return file.read(_PROLOGUE.size)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise unavailable(path, "read", error) from error


def is_ours(path: Path) -> bool:
    """Whether a file begins like an index of ours, whole or not."""
    return prologue(path)[:8] == MAGIC


def sweep(path: Path) -> None:
    """Delete rows that neither the index at this path nor a half-built one beside it counts."""
    wanted = {rows_path(path, token) for token in (_token_of(path), _token_of(building_path(path))) if token}
    for found in path.parent.glob(f"{glob.escape(path.name)}.*.rows"):
        if found not in wanted and _ROWS_NAME.search(found.name):
            with contextlib.suppress(OSError):  # Windows keeps mapped files
                found.unlink()


def building_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.building")


def _token_of(path: Path) -> str | None:
    head = prologue(path)
    if len(head) < _PROLOGUE.size or head[:8] != MAGIC:
        return None
    return str(_PROLOGUE.unpack(head)[6].hex())


def write(path: Path, contents: Contents) -> bytes:
    """Replace an index file, whole or not at all, on disk when this returns. Returns its prologue.

    Raises  IndexUnavailable; a file that was there before is then untouched.
    """
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
        ) as file:
            temporary = file.name
            file.write(bytes(_PROLOGUE.size))
            places = {}
            for name, data in contents.sections.items():
                file.write(bytes(-file.tell() % 64))
                places[name] = [file.tell(), data.nbytes, zlib.crc32(data.data)]
                file.write(data.data)
            table = json.dumps({"facts": contents.facts, "sections": places}).encode()
            place = file.tell()
            file.write(table)
            token = bytes.fromhex(contents.facts["token"])
            head = _PROLOGUE.pack(MAGIC, VERSION, zlib.crc32(table), place, len(table), file.tell(), token, 0)[:-4]
            head += struct.pack("<I", zlib.crc32(head))
            file.seek(0)
            file.write(head)
            file.flush()
            os.fsync(file.fileno())
        move(Path(temporary), path)
        temporary = ""
        return head
    except OSError as error:
        raise unavailable(path, "written", error) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def move(source: Path, target: Path) -> None:
    """Rename, and have the new name on disk too, so that it survives a power cut."""
    os.replace(source, target)
    if os.name == "posix":
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


@contextlib.contextmanager
def one_writer(path: Path) -> Iterator[None]:
    """Keeps other processes from writing the index at this path meanwhile. Raises IndexUnavailable when one does."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        file = open(lock, "ab")  # noqa: SIM115, the lock lives as long as the file is open
    except OSError as error:
        raise unavailable(path, "written", error) from error
    with file:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise IndexUnavailable(
                    f"'{path}' is being written by another process; wait for it to finish.", path=str(path)
                ) from error
        yield


class Rows:
    """Float32 rows: those in the file are mapped, newer ones wait in memory until ``flush``."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._mapped = np.empty((0, dimension), np.float32)
        self._tail = np.empty((0, dimension), np.float32)
        self._waiting = 0

    @classmethod
    def open(cls, path: Path, dimension: int, token: str, count: int) -> Self:
        """The first ``count`` rows of a file. Raises IndexCorrupt, IndexUnavailable."""
        rows = cls(dimension)
        try:
            with open(path, "rb") as file:
                head = file.read(_ROWS_HEADER.size)
                if head != _ROWS_HEADER.pack(ROWS_MAGIC, VERSION, dimension, token.encode()):
                    raise corrupt(path, "its embeddings belong to another index")
                rows._map(path, file, count)
        except OSError as error:
            raise unavailable(path, "read", error) from error
        return rows

    @staticmethod
    def create(path: Path, dimension: int, token: str) -> None:
        """A file without rows, readable by its owner only: embeddings are biometric data. Raises IndexUnavailable."""
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(_ROWS_HEADER.pack(ROWS_MAGIC, VERSION, dimension, token.encode()).ljust(_ROWS_START, b"\0"))
        except OSError as error:
            raise unavailable(path, "written", error) from error

    def __len__(self) -> int:
        return len(self._mapped) + self._waiting

    @property
    def waiting_bytes(self) -> int:
        return self._tail.nbytes

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        end = self._waiting + len(rows)
        if end > len(self._tail):
            grown = np.empty((max(end, 2 * len(self._tail), 256), self.dimension), np.float32)
            grown[: self._waiting] = self._tail[: self._waiting]
            self._tail = grown
        self._tail[self._waiting : end] = rows
        self._waiting = end

    def take(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """A copy of some rows, ``(n, D)``."""
        if not self._waiting:
            return self._mapped.take(positions, axis=0)
        taken = np.empty((len(positions), self.dimension), np.float32)
        old = positions < len(self._mapped)
        taken[old] = self._mapped.take(positions[old], axis=0)
        taken[~old] = self._tail.take(positions[~old] - len(self._mapped), axis=0)
        return taken

    def part(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows from start to before stop; a view where it can be."""
        edge = len(self._mapped)
        if stop <= edge:
            return self._mapped[start:stop]
        tail = self._tail[max(start - edge, 0) : stop - edge]
        return tail if start >= edge else np.concatenate([self._mapped[start:], tail])

    def flush(self, path: Path) -> None:
        """Append what waits to the file, which holds all other rows, and map them. Raises IndexUnavailable."""
        if not self._waiting:
            return
        edge, count = len(self._mapped), len(self)
        try:
            with open(path, "r+b") as file:
                file.seek(_ROWS_START + edge * self.dimension * 4)
                file.write(np.ascontiguousarray(self._tail[: self._waiting], "<f4").data)
                file.flush()
                self._map(path, file, count)
        except OSError as error:
            raise unavailable(path, "written", error) from error
        self._tail, self._waiting = self._tail[:0].copy(), 0

    def checksums(self, start: int, stop: int, removed: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
        """CRC-32 of chunks ``start`` to before ``stop``, as if removed rows held zeros: they soon will."""
        sums = []
        for chunk in range(start, stop):
            first, last = chunk * CHUNK, min(len(self), (chunk + 1) * CHUNK)
            rows, gone = self.part(first, last), removed[first:last]
            if gone.any():
                rows = rows.copy()
                rows[gone] = 0
            sums.append(zlib.crc32(np.ascontiguousarray(rows, "<f4").data))
        return np.array(sums, np.uint32)

    def _map(self, path: Path, file: IO[bytes], count: int) -> None:
        size = _ROWS_START + count * self.dimension * 4
        have = os.fstat(file.fileno()).st_size
        if have < size:
            raise corrupt(path, f"it has {have} bytes of {size}")
        if count:
            mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
            if hasattr(mapped, "madvise") and hasattr(mmap, "MADV_RANDOM"):
                mapped.madvise(mmap.MADV_RANDOM)  # a few rows far apart: read-ahead would only fill memory
            flat = np.frombuffer(mapped, "<f4", count * self.dimension, _ROWS_START)
            self._mapped = flat.reshape(count, self.dimension)


def sync(path: Path) -> None:
    """Wait until a file's bytes are on disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def erase(path: Path, dimension: int, positions: npt.NDArray[np.int64]) -> None:
    """Overwrite rows of a file with zeros. Raises IndexUnavailable."""
    try:
        with open(path, "r+b") as file:
            for position in positions.tolist():
                file.seek(_ROWS_START + position * dimension * 4)
                file.write(bytes(dimension * 4))
    except OSError as error:
        raise unavailable(path, "written", error) from error
