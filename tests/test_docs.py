"""The documentation is code: every block runs, every command, setting and link is real."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import models
from facedex import cli
from facedex.models.catalog import Crop, read_card
from facedex.settings import Settings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "samples" / "PROVENANCE.md"]
README = ROOT / "README.md"
MODELS = ROOT / "docs" / "models.md"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the README assumes: photos/ with one folder a person, and who.jpg."""
    import shutil

    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(ROOT / "samples" / "enroll", folder / "photos")
    shutil.copy(ROOT / "samples" / "probes" / "barack_obama_blue_room.jpg", folder / "who.jpg")
    return folder


@pytest.mark.weights
@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_python_of_a_page_runs_and_prints_what_it_says(page: Path, home: Path) -> None:
    for number, block in enumerate(blocks(page, "python")):
        done = subprocess.run([sys.executable, "-c", block], cwd=home, capture_output=True, text=True)
        assert done.returncode == 0, f"block {number}:\n{block}\n{done.stderr}"
        for told in re.findall(r"^# → (.*)$", block, re.M):
            assert squeezed(told) in squeezed(done.stdout), f"{page.name} promises {told!r}, got:\n{done.stdout}"


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\S*/photos/", "photos/", text))


@pytest.mark.weights
def test_the_shell_commands_of_the_readme_run(home: Path) -> None:
    for block in blocks(README, "shell"):
        for line in block.splitlines():
            if line.startswith("facedex "):
                command = [sys.executable, "-m", "facedex.cli", *shlex.split(line, comments=True)[1:]]
                done = subprocess.run(command, cwd=home, capture_output=True, text=True)
                assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_the_table_of_models_is_what_their_cards_say() -> None:
    assert models.table() in MODELS.read_text("utf-8"), "run python -m benchmarks.models --table"


def test_the_card_shown_to_users_is_one() -> None:
    (shown,) = blocks(MODELS, "toml")
    card = read_card(shown, "models.md")
    assert (card.name, card.dimension, card.added) == ("my-arcface", 512, True)
    assert card.crop == Crop(112, "arcface", mean=(127.5,) * 3, std=(127.5,) * 3)


def test_every_command_is_in_the_readme() -> None:
    text = README.read_text("utf-8")
    assert [name for name in cli.main.commands if f"facedex {name}" not in text] == []


def test_every_setting_is_documented() -> None:
    text = README.read_text("utf-8")
    variables = [f"FACEDEX_{name.upper()}" for name in Settings.__dataclass_fields__]
    assert [v for v in variables if v not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} → {target}"


def test_every_figure_of_the_readme_is_in_a_result_file() -> None:
    """The measured table is generated; a figure typed by hand would differ from the results."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.report", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
