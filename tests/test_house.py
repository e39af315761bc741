"""The arrows between rooms point one way, and importing the house does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "facedex"

# A room may import from the rooms named; every room may import itself, types and errors.
ARROWS: dict[str, set[str]] = {
    "types": set(),
    "errors": set(),
    "settings": set(),
    "models": {"settings"},
    "vision": {"settings", "models"},
    "stores": {"settings"},
    "search": {"stores"},
    "decide": set(),
    "engine": {"settings", "vision", "models", "stores", "search", "decide"},
    "report": {"decide", "vision", "study"},
    "testing": {"stores", "search", "models", "vision"},
    "study": {"engine", "settings", "stores", "vision", "decide"},
    "deepface": {"engine", "settings", "vision", "models", "stores", "search", "decide"},
    "cli": {"engine", "settings", "models", "report", "stores", "search", "vision", "decide", "study", "facedex"},
    "facedex": {"engine", "settings", "decide", "vision", "deepface"},
}
INFERENCE_RUNTIME, DATABASES = (
    "onnxruntime",
    {
        "sqlite3": ["stores/sqlite_file.py"],
        "psycopg": ["stores/postgres_server.py"],
        "pymongo": ["stores/mongodb_server.py"],
        "neo4j": ["stores/neo4j_server.py"],
        "weaviate": ["stores/weaviate.py"],
        "qdrant_client": ["stores/qdrant.py"],
    },
)


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return "facedex" if first == "__init__.py" else first.removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide arrows"
            module = node.module or ""
            found |= {f"facedex.{alias.name}" for alias in node.names} if module == "facedex" else {module}
    return found


def rooms_imported(path: Path) -> set[str]:
    rooms = {
        name.split(".")[1] if "." in name else "facedex" for name in imports_of(path) if name.split(".")[0] == "facedex"
    }
    return rooms - {room_of(path), "types", "errors", "__version__"}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_room_imports_only_where_its_arrows_point(path: Path) -> None:
    assert rooms_imported(path) <= ARROWS[room_of(path)]


def test_every_room_has_its_arrows_written_down() -> None:
    assert {room_of(path) for path in modules()} == set(ARROWS)


def test_only_the_runtime_module_imports_the_inference_runtime() -> None:
    assert [str(p.relative_to(SOURCE)) for p in modules() if INFERENCE_RUNTIME in imports_of(p)] == [
        "models/runtime.py"
    ]


def test_only_its_own_module_imports_openvino() -> None:
    assert [str(p.relative_to(SOURCE)) for p in modules() if "openvino" in imports_of(p)] == ["models/openvino.py"]


@pytest.mark.parametrize(("driver", "homes"), DATABASES.items())
def test_only_its_adapter_imports_a_database_driver(driver: str, homes: list[str]) -> None:
    assert [str(p.relative_to(SOURCE)) for p in modules() if driver in imports_of(p)] == homes


def test_only_settings_reads_the_environment() -> None:
    readers = [
        str(path.relative_to(SOURCE))
        for path in modules()
        if any(word in path.read_text("utf-8") for word in ("os.environ", "getenv"))
    ]
    assert set(readers) <= {"settings.py", "models/weights.py"}, (
        "weights.py hands pip its own environment, nothing else"
    )


def test_importing_facedex_does_nothing(tmp_path: Path) -> None:
    script = """
import logging, os, sys, threading
before = dict(os.environ), list(logging.getLogger().handlers), os.listdir("."), threading.active_count()
import facedex
after = dict(os.environ), list(logging.getLogger().handlers), os.listdir("."), threading.active_count()
assert before == after, (before, after)
early = {"onnxruntime", "openvino", "onnx", "cv2", "rich", "click", "sqlite3"} & set(sys.modules)
assert not early, f"imported too early: {early}"
"""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
