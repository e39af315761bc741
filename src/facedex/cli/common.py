"""What the commands share: where output goes, options, errors as one line and an exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import facedex
from facedex.engine import Engine
from facedex.errors import FacedexError
from facedex.settings import Settings
from facedex.types import to_plain

FAILED, SOME_FAILED, INTERRUPTED = 1, 3, 130

P = ParamSpec("P")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(facedex.__version__, prog_name="facedex")
def main() -> None:
    """Finds a face among millions: photos in, people out.

    \b
    facedex enroll photos/ --label folder     the folder is the person
    facedex search who.jpg                    ranked candidates with a decision

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some photos could not be used, 130 interrupted.
    """


@dataclass(frozen=True, slots=True)
class Output:
    """Where results go: plain text for people, or one JSON document on standard output."""

    as_json: bool
    console: Console
    log: Console

    def show(self, plain: Any, people: Callable[[], None]) -> None:
        if self.as_json:
            click.echo(json.dumps(to_plain(plain), ensure_ascii=False))
        else:
            people()


def command(
    *, gallery: bool = False, create: bool = False
) -> Callable[[Callable[..., int | None]], Callable[..., None]]:
    """What every command shares: --json, the models, and errors as one line and an exit code.

    gallery  the command works on one, named by --gallery; otherwise it is given the engine.
    create   a gallery that is not there is made; elsewhere a name spelled wrong should not become an empty gallery.
    """

    def wrap(run: Callable[..., int | None]) -> Callable[..., None]:
        @wraps(run)
        def command(
            *,
            as_json: bool,
            gallery_url: str | None = None,
            models_dir: str | None = None,
            detector: str | None = None,
            embedder: str | None = None,
            **options: Any,
        ) -> None:
            output = Output(as_json, Console(highlight=False), Console(stderr=True, highlight=False))
            try:
                settings = Settings.from_environment()
                if models_dir is not None:
                    settings = replace(settings, models_dir=Path(models_dir))
                engine = Engine(detector=detector, embedder=embedder, settings=settings)
                if gallery:
                    with engine.open(gallery_url or settings.gallery, create=create) as opened:
                        code = run(output, opened, **options)
                else:
                    code = run(output, engine, **options)
            except FacedexError as error:
                if as_json:
                    click.echo(json.dumps({"error": _problem(error)}, ensure_ascii=False, default=str))
                else:
                    click.echo(f"facedex: {error.message}", err=True)
                sys.exit(FAILED)
            except KeyboardInterrupt:
                click.echo("facedex: interrupted. What was acknowledged is safe; the same command goes on.", err=True)
                sys.exit(INTERRUPTED)
            except BrokenPipeError:  # the reader of our output went away, as `head` does
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(0)
            sys.exit(code or 0)

        command = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")(command)
        command = click.option(
            "--models-dir",
            type=click.Path(file_okay=False),
            help="Folder with the weights; nothing is fetched into it.",
        )(command)
        for option, default in (("--embedder", "sface"), ("--detector", "yunet")):
            command = click.option(
                option,
                metavar="NAME",
                help=f"See `facedex models list`. Default: FACEDEX_{option[2:].upper()}, else {default}.",
            )(command)
        if gallery:
            command = click.option(
                "--gallery",
                "gallery_url",
                metavar="URL",
                help="faces.db, sqlite:///faces.db, … Default: FACEDEX_GALLERY, else faces.db.",
            )(command)
        return command

    return wrap


def _problem(error: FacedexError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "details": to_plain(error.details)}


small_faces_option = click.option("--small-faces", is_flag=True, help="Look a second time at the full size; slower.")


@contextmanager
def progress_bar(output: Output, doing: str, unit: str) -> Iterator[Callable[[int, int | None, str], None]]:
    """A progress bar with rate and time left, on a terminal; call it with done, total and a note."""
    bar = Progress(
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} " + unit + "/s{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=output.log,
        disable=not output.log.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None, rate="…", note="")

        def told(done: int, total: int | None, note: str) -> None:
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(task, completed=done, total=total, note=note, rate=f"{speed:.1f}" if speed else "…")

        yield told


def print_lines(output: Output, lines: Sequence[object]) -> None:
    for line in lines:
        output.console.print(str(line), markup=False, soft_wrap=True)
