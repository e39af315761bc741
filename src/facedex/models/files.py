"""Files of weights in a folder: whole or not at all, hashed once.

Checking a digest costs about 0.1 s for 39 MB, too much for every start. So a checked file gets a note beside it
(``….onnx.checked``) with its size, modification time and digest; while these agree the file counts as checked.
The note guards against accidents. Who can write to the folder can forge it, and could as well replace the program.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

from facedex.settings import Settings


def default_folder() -> Path:
    """Where weights are kept unless told otherwise: ``models`` in the user's cache folder for facedex."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("facedex", appauthor=False)) / "models"


def folder(models_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder in use: the parameter, else FACEDEX_MODELS_DIR, else ``default_folder``."""
    if models_dir is not None:
        return Path(models_dir)
    return Settings.from_environment().models_dir or default_folder()


def checked(path: Path, sha256: str, *, thorough: bool = False) -> bool:
    """Whether the file has the digest; by its note when that still fits, and not ``thorough``."""
    try:
        found = path.stat()
        note = {"sha256": sha256, "size": found.st_size, "mtime_ns": found.st_mtime_ns}
        beside = path.with_name(path.name + ".checked")
        if not thorough and _read_note(beside) == note:
            return True
        if digest(path) != sha256:
            return False
    except OSError:
        return False
    with contextlib.suppress(OSError):  # a read-only folder: hash again next time
        write(beside, json.dumps(note).encode(), durable=False)
    return True


def _read_note(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Whole or not at all: a temporary file beside it, then a rename."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _umask() -> int:
    """The process's umask; reading it means setting it, so the usual one stands in where the system does not say."""
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            return next(int(line.split()[1], 8) for line in lines if line.startswith("Umask:"))
    except (OSError, StopIteration, ValueError):
        return 0o022
