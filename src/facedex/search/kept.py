"""An index kept in a shared store, and its copy in a local folder: another machine opens it without building.

The copy is a file like that beside a SQLite gallery, mapped and kept fresh by sequence numbers; a machine that has a
recent one downloads nothing. Both are disposable: a deletion removes what the store keeps in its own transaction, and
the copies wherever somebody next looks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from facedex.errors import IndexUnavailable
from facedex.stores.contract import KeepsIndex, KeptIndex

__all__ = ["SharedIndex", "default_folder"]

_PART = 4 * 2**20
_SUFFIX = re.compile(r"(\.[0-9a-f]{8}\.rows)?")  # of the files of an index: itself, and the rows of an approximate one
_WORTH = 10_000, 0.1  # download when the store's is newer than ours by this many changes, and this share of its rows

_log = logging.getLogger("facedex.search")


def default_folder() -> Path:
    """Where the copies of this user lie."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("facedex", appauthor=False)) / "indexes"


class SharedIndex:
    """One index of one store.

    name    of the index in the store and of its local file.
    folder  of the copies of all galleries; made when needed, for this user alone.
    """

    def __init__(self, store: KeepsIndex, name: str, folder: Path | None) -> None:
        self._store = store
        self._name = name
        self.path = (folder or default_folder()) / re.sub(r"[^0-9A-Za-z]", "", store.identity)[:64] / name

    def make_folder(self) -> None:
        """Raises IndexUnavailable."""
        try:
            for place in (self.path.parent.parent, self.path.parent):
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise IndexUnavailable(
                f"'{self.path.parent}' cannot be made: {error.strerror}. Set FACEDEX_INDEXES_DIR to a folder of yours.",
                path=str(self.path.parent),
            ) from error

    def fetch(self, sequence: int | None, rows: int) -> bool:
        """Copy the store's index here when it is worth it; whether it was.

        sequence, rows  of the copy that is here; None: there is none.
        """
        kept = self._store.kept_index(self._name)
        if kept is None or (sequence is not None and kept.sequence - sequence < max(_WORTH[0], _WORTH[1] * rows)):
            return False
        try:
            self.make_folder()
            self._download(kept)
        except IndexUnavailable as error:
            _log.warning("the index kept in the store is not used: %s", error)
            return False
        return True

    def publish(self, sequence: int) -> bool:
        """Keep the local files in the store; False when something was deleted since ``sequence``."""
        return self._store.keep_index(self._name, sequence, self._parts())

    def _parts(self) -> Iterator[bytes]:
        """A line of JSON, names' ends and sizes, then the files; the one that names the others is last."""
        with contextlib.ExitStack() as stack:
            found = [*sorted(self.path.parent.glob(f"{self.path.name}.*.rows")), self.path]
            try:
                files = [stack.enter_context(open(path, "rb")) for path in found]
            except OSError as error:
                raise IndexUnavailable(
                    f"'{self.path}' cannot be read: {error.strerror}.", path=str(self.path)
                ) from error
            sizes = [os.fstat(file.fileno()).st_size for file in files]
            ends = [path.name.removeprefix(self.path.name) for path in found]
            yield json.dumps(list(zip(ends, sizes, strict=True))).encode() + b"\n"
            for file, size in zip(files, sizes, strict=True):
                while size and (part := file.read(min(_PART, size))):
                    size -= len(part)
                    yield part

    def _download(self, kept: KeptIndex) -> None:
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=self.path.parent) as folder:
            whole = Path(folder) / "whole"
            digest = hashlib.sha256()
            try:
                with open(whole, "wb") as file:
                    for part in self._store.read_index(kept):
                        digest.update(part)
                        file.write(part)
                if digest.hexdigest() != kept.sha256:
                    raise IndexUnavailable(f"the index {self._name!r} kept in the store is damaged.", name=self._name)
                for part_of, end in self._unpack(whole):
                    os.replace(part_of, self.path.with_name(self.path.name + end))
            except OSError as error:
                raise IndexUnavailable(
                    f"'{self.path}' cannot be written: {error.strerror}.", path=str(self.path)
                ) from error

    def _unpack(self, whole: Path) -> list[tuple[Path, str]]:
        unpacked = []
        with open(whole, "rb") as file:
            try:
                table = [(str(end), int(size)) for end, size in json.loads(file.readline())]
                good = all(_SUFFIX.fullmatch(end) and size >= 0 for end, size in table)
            except (ValueError, TypeError):
                good = False
            if not good:
                raise IndexUnavailable(f"the index {self._name!r} kept in the store is not ours.", name=self._name)
            for number, (end, size) in enumerate(table):
                path = whole.with_name(str(number))
                with open(path, "wb") as target:
                    while size and (part := file.read(min(_PART, size))):
                        size -= len(part)
                        target.write(part)
                unpacked.append((path, end))
        return unpacked
