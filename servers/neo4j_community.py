"""Neo4j 5.26 LTS, Community Edition, from Maven Central: the real one, started by a few lines of Java."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

import platformdirs

from servers.base import Server, ServerFailed, listens

VERSION = "5.26.12"
PASSWORD = "loopback-only"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>facedex</groupId><artifactId>neo4j-for-tests</artifactId><version>1</version>
<dependencies><dependency><groupId>org.neo4j</groupId><artifactId>neo4j</artifactId><version>{VERSION}</version>
</dependency></dependencies></project>
"""


class Neo4j(Server):
    """One database, user neo4j, with a password."""

    name = "neo4j"
    seconds: ClassVar[float] = 120.0

    @classmethod
    def unavailable_reason(cls) -> str | None:
        if shutil.which("java") is None or shutil.which("javac") is None:
            return "neo4j needs a Java 17 development kit: apt install openjdk-17-jdk-headless"
        if not _jars().exists() and shutil.which("mvn") is None:
            return "neo4j comes from Maven Central: apt install maven"
        return None

    @classmethod
    def fetch(cls) -> None:
        jars = _jars()
        jars.parent.parent.mkdir(parents=True, exist_ok=True)
        with open(jars.parent.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if jars.exists():
                return
            partial = jars.parent.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            (partial / "pom.xml").write_text(_POM)
            got = subprocess.run(
                ["mvn", "-q", "-B", f"{_PLUGIN}:copy-dependencies", "-DoutputDirectory=lib", "-DincludeScope=runtime"],
                cwd=partial, capture_output=True, text=True,
            )  # fmt: skip
            if got.returncode:
                raise ServerFailed(f"Maven could not fetch Neo4j {VERSION}:\n{got.stdout[-2000:]}{got.stderr[-500:]}")
            partial.rename(jars.parent)

    @property
    def url(self) -> str:
        return f"bolt://neo4j:{PASSWORD}@127.0.0.1:{self.port}"

    def prepare(self) -> None:
        self.fetch()
        (self.folder / "home").mkdir()

    def command(self) -> list[str]:
        return [
            "java", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "--add-opens=java.base/java.nio=ALL-UNNAMED", "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
            "-cp", f"{_jars()}/*", str(Path(__file__).with_name("Neo4jServer.java")),
            str(self.folder / "home"), str(self.port), PASSWORD,
        ]  # fmt: skip

    def answers(self) -> bool:
        if not listens(self.port):
            return False
        import neo4j
        from neo4j.exceptions import GqlError

        address = f"bolt://127.0.0.1:{self.port}"
        try:
            with neo4j.GraphDatabase.driver(address, auth=("neo4j", PASSWORD), max_transaction_retry_time=0) as driver:
                driver.execute_query("RETURN 1", database_="neo4j")
        except (GqlError, OSError):
            return False
        return True


def _jars() -> Path:
    return platformdirs.user_cache_path("facedex-servers") / f"neo4j-{VERSION}" / "lib"
