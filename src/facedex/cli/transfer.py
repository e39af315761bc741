"""Commands that move galleries: copy, export, import."""

from __future__ import annotations

import click

from facedex.cli.common import Output, command, main, print_lines, progress_bar
from facedex.engine import Engine
from facedex.stores.parquet import ParquetSource
from facedex.stores.transfer import Transfer


@main.command()
@click.argument("source")
@click.argument("target")
@command()
def copy(output: Output, engine: Engine, source: str, target: str) -> None:
    """Copy a gallery from one URL to another, and verify it. Again after Ctrl-C: it goes on where it was."""
    with engine.open(source, create=False) as held, engine.open(target) as wanted:
        with progress_bar(output, "copying", "faces") as bar:
            done = held.copy_to(wanted, progress=lambda safe, total: bar(safe, total, ""))
        _print_transfer(output, done, f"{held.store.url} → {wanted.store.url}")


@main.command("export")
@click.argument("url", metavar="GALLERY")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@command()
def export_gallery(output: Output, engine: Engine, url: str, file: str, overwrite: bool) -> None:
    """Write a gallery to one Parquet file; needs facedex[parquet]."""
    with engine.open(url, create=False) as held:
        with progress_bar(output, "exporting", "faces") as bar:
            done = held.export_to(file, overwrite=overwrite, progress=lambda safe, total: bar(safe, total, ""))
        _print_transfer(output, done, f"{held.store.url} → {file}")


@main.command("import")
@click.argument("file", type=click.Path(dir_okay=False))
@click.argument("url", metavar="GALLERY")
@command()
def import_gallery(output: Output, engine: Engine, file: str, url: str) -> None:
    """Add what an exported file holds to a gallery, and verify it. Of a damaged file nothing arrives."""
    ParquetSource(file)  # raises, rather than make a gallery for nothing
    with engine.open(url) as wanted:
        with progress_bar(output, "importing", "faces") as bar:
            done = wanted.import_from(file, progress=lambda safe, total: bar(safe, total, ""))
        _print_transfer(output, done, f"{file} → {wanted.store.url}")


def _print_transfer(output: Output, done: Transfer, way: str) -> None:
    lines = [
        f"{way}: {done.templates:,} templates, {done.new:,} of them new, {done.faceless:,} photos without a face",
        f"verified in {done.seconds:.1f} s, digest {done.digest}",
    ]
    output.show(done, lambda: print_lines(output, lines))
