"""What every server has in common: a process of ours, its folder, its port, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

_LEASH = Path(__file__).with_name("leash.py")


class ServerFailed(Exception):
    """A server did not start, or went away; the end of its log is in the message."""


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def let_through(folder: Path) -> None:
    """Let a server that runs as somebody else pass through temporary folders of ours; it sees no names in them."""
    temporary = Path(tempfile.gettempdir()).resolve()
    for place in (folder.resolve(), *folder.resolve().parents):
        if place.is_relative_to(temporary) and place != temporary:
            place.chmod(place.stat().st_mode | 0o011)


class Server(ABC):
    """One server of our own. ``start`` after ``stop`` or ``kill`` finds the same data under the same URL.

    folder  for its data and log; made when missing.
    """

    name: ClassVar[str]
    """As in ``servers.SERVERS`` and FACEDEX_REQUIRE_SERVERS."""

    user: ClassVar[str] = ""
    """Who it runs as where we are root, for servers that refuse root."""

    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    seconds: ClassVar[float] = 60.0
    """How long a start or a stop may take."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    # -- what a server says of itself ----------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def unavailable_reason(cls) -> str | None:
        """Why it cannot be had on this machine and what to install; None: it can. Quick, starts nothing."""

    @classmethod  # noqa: B027 - most come as wheels
    def fetch(cls) -> None:
        """Get or build what does not come as a wheel, once; it stays in the user's cache. Raises ServerFailed."""

    @property
    @abstractmethod
    def url(self) -> str:
        """How a client reaches it, credentials included."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what the first start needs: folders, configuration, accounts."""

    @abstractmethod
    def command(self) -> list[str]:
        """The server in the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves now; asked again and again while it starts. Raises nothing."""

    def environment(self) -> Mapping[str, str]:
        """Variables to add to ours."""
        return {}

    # -- its life ------------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """Of the process while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def start(self) -> str:
        """Start and wait until it answers. Returns the URL. Raises ServerFailed."""
        if self.pid is not None:
            return self.url
        reason = self.unavailable_reason()
        if reason is not None:
            raise ServerFailed(reason)
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
        if self.user and os.geteuid() == 0:
            let_through(self.folder)
        if not self.log.exists():
            self.prepare()
        leash = [sys.executable, "-S", "-E", str(_LEASH), str(os.getpid()), str(int(self.stop_signal)), self.user]
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [*leash, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment()},
                cwd=self.folder,
                start_new_session=True,  # a Ctrl-C is for us; and its own children are one group with it
            )
        deadline = time.monotonic() + self.seconds
        while not self.answers():
            if self._process.poll() is not None:
                raise ServerFailed(
                    f"{self.name} ended with {self._process.returncode} while it started:\n{self._tail()}"
                )
            if time.monotonic() > deadline:
                self.kill()
                raise ServerFailed(f"{self.name} did not answer within {self.seconds:.0f} s:\n{self._tail()}")
            time.sleep(0.02)
        return self.url

    def stop(self) -> None:
        """End it in order; what it acknowledged is on disk."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(self.seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL, its children too: as if the machine had lost its power, but for the caches of the disk."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # the group was made for it
            self._process.wait(self.seconds)
        self._process = None

    def restart(self) -> str:
        """Stop it if it runs, and start it again. Returns the URL, which is the same."""
        self.stop()
        return self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _tail(self) -> str:
        try:
            return self.log.read_text("utf-8", "replace")[-2000:]
        except OSError as error:
            return f"(no log: {error})"


def listens(port: int) -> bool:
    """Whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
