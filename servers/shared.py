"""One server for many processes: begun by whoever asks first, ended with the process it was begun for.

A keeper process owns the server. It holds the lock on ``NAME.alive`` in the folder as long as it lives, so a state file
without a held lock is a leftover.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from servers import ServerFailed, server_class

_HOME = Path(__file__).parent.parent  # where `python -m servers` is found
_keepers: list[subprocess.Popen[bytes]] = []  # that we began: they live on, so nobody waits for them


def default_folder() -> Path:
    """Where ``python -m servers start`` keeps data and state."""
    return Path(tempfile.gettempdir()) / f"facedex-servers-{os.getuid()}"


def shared_url(name: str, folder: Path, until: int = 0) -> str:
    """The URL of the server of that name in a folder, started if it does not run.

    until   process id with which it ends; 0: runs until ``stop``.
    Raises  ServerFailed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder / f"{name}.lock"):
        found = running(name, folder)
        if found is not None:
            return found
        state = folder / f"{name}.json"
        state.unlink(missing_ok=True)
        keeper = subprocess.Popen(
            [sys.executable, "-m", "servers", "keep", name, str(folder), str(until)],
            cwd=_HOME,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _keepers.append(keeper)
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            if state.exists():
                facts = json.loads(state.read_text())
                if "failed" in facts:
                    raise ServerFailed(facts["failed"])
                return str(facts["url"])
            if keeper.poll() is not None and not state.exists():
                break
            time.sleep(0.02)
        raise ServerFailed(f"the keeper of {name} ended with {keeper.poll()} before its server answered")


def running(name: str, folder: Path) -> str | None:
    """The URL of a server that runs in a folder, or None."""
    facts = _facts(name, folder)
    return None if facts is None else facts.get("url")


def stop(name: str, folder: Path) -> bool:
    """End a server and its keeper; whether there was one."""
    facts = _facts(name, folder)
    if facts is None:
        return False
    os.kill(int(facts["keeper"]), signal.SIGTERM)  # alive: it holds the lock
    with open(folder / f"{name}.alive", "ab") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
    return True


def keep(name: str, folder: Path, until: int) -> None:
    """The keeper: start, tell, wait for the end of a process or for SIGTERM, stop."""
    state = folder / f"{name}.json"
    with open(folder / f"{name}.alive", "ab") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _leave)
        place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
        try:
            with server_class(name)(place / "server") as server:
                _tell(state, {"url": server.url, "keeper": os.getpid(), "server": server.pid, "folder": str(place)})
                _wait(until, server.pid or 0)
        except ServerFailed as error:
            _tell(state, {"failed": str(error)})
        except SystemExit:
            pass
        finally:
            shutil.rmtree(place, ignore_errors=True)
            if "failed" not in (json.loads(state.read_text()) if state.exists() else {}):
                state.unlink(missing_ok=True)
    if until:  # nobody asks here again; the last keeper finds the folder empty
        for end in ("json", "lock", "alive"):
            (folder / f"{name}.{end}").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _leave(*_: object) -> None:
    raise SystemExit


def _wait(*processes: int) -> None:
    """Until one of these ends; 0 stands for none."""
    waiting = [os.pidfd_open(pid) for pid in processes if pid]
    select.select(waiting, [], [])


def _tell(state: Path, facts: dict[str, object]) -> None:
    part = state.with_suffix(".part")
    part.write_text(json.dumps(facts))
    os.replace(part, state)


def _facts(name: str, folder: Path) -> dict[str, str] | None:
    try:
        with open(folder / f"{name}.alive", "rb") as alive:
            try:
                fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None  # nobody keeps it
            except BlockingIOError:
                facts: dict[str, str] = json.loads((folder / f"{name}.json").read_text())
                return facts
    except (FileNotFoundError, ValueError):
        return None


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
