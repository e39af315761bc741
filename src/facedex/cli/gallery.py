"""Commands on a gallery: enroll, search, people, delete, info, index."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any

import click
from rich.table import Table

from facedex.cli.common import FAILED, SOME_FAILED, Output, command, main, print_lines, progress_bar, small_faces_option
from facedex.cli.photos import plain_face, said_confidence, said_quality
from facedex.engine import Gallery
from facedex.errors import PhotoError
from facedex.report import ProbeResult, write_page, write_picture
from facedex.search.projection import Mode
from facedex.types import EnrollmentReport, Found, Where, to_plain
from facedex.vision.sources import find_photos


@main.command()
@click.argument("photos", nargs=-1, required=True)
@click.option("--label", help="The person's name; 'folder': the name of the folder each photo lies in.")
@click.option("--faces", type=click.Choice(["main", "all"]), help="Default: main with a label, all without.")
@click.option(
    "--min-quality",
    default=0.0,
    type=click.FloatRange(0, 1),
    metavar="0…1",
    help="Leave out faces of a lower quality, and say what is wrong with them; 0.5 is a sensible first try.",
)
@click.option("--meta", "pairs", multiple=True, metavar="KEY=VALUE", help="Kept with each template; may be repeated.")
@small_faces_option
@command(gallery=True, create=True)
def enroll(
    output: Output,
    gallery: Gallery,
    photos: Sequence[str],
    label: str | None,
    faces: Any,
    min_quality: float,
    pairs: Sequence[str],
    small_faces: bool,
) -> int:
    """Add photos to a gallery: files, folders or URLs. Running it again skips what is there."""
    metadata = dict(_pair(pair) for pair in pairs)
    source: Any = photos[0] if len(photos) == 1 else list(photos)
    with progress_bar(output, "enrolling", "photos") as bar:
        report = gallery.enroll(
            source,
            label=label,
            faces=faces,
            small_faces=small_faces,
            min_quality=min_quality,
            metadata=metadata,
            progress=lambda told: bar(told.done, told.total, f" · {told.enrolled} faces"),
        )
    output.show(report, lambda: _print_report(output, report))
    return SOME_FAILED if report.failures else 0


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.UsageError(f"--meta takes KEY=VALUE, got {text!r}")
    return key, value


def _print_report(output: Output, report: EnrollmentReport) -> None:
    out = output.console
    out.print(
        f"{report.enrolled} faces enrolled from {report.photos} photos in {report.seconds:.1f} s "
        f"({report.photos_per_second:.1f} photos/s)."
    )
    if report.already:
        out.print(f"{report.already} photos were enrolled before and are unchanged.")
    if report.passed_over:
        out.print(f"{report.passed_over} other faces in labelled photos were not enrolled (--faces all takes them).")
    for title, rows in (
        ("with faces below --min-quality", [(q.photo, q.message) for q in report.low_quality]),
        ("without a face", [(photo, "") for photo in report.faceless]),
        ("kept under the label they had", [(c.photo, c.message) for c in report.conflicts]),
        ("could not be used", [(f.photo, f.message) for f in report.failures]),
    ):
        if rows:
            output.log.print(f"{len({photo for photo, _ in rows})} photos {title}:", markup=False)
            for photo, message in rows:
                output.log.print(f"  {photo}  {message}".rstrip(), markup=False, soft_wrap=True)


def _moment(text: str | None) -> datetime | None:
    """A date or a date with a time; the machine's own zone when none is said."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"a time is 2026-11-22 or 2026-11-22T17:30 or …T17:30+01:00, got {text!r}") from None
    return moment if moment.tzinfo else moment.astimezone()


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a condition on candidates; the command gets it as ``where``, None without any."""
    options = (
        click.option("--label", "labels", multiple=True, help="Only candidates with this label; may be repeated."),
        click.option(
            "--not-label", "not_labels", multiple=True, help="No candidates with this label; may be repeated."
        ),
        click.option("--meta", "pairs", multiple=True, metavar="KEY=VALUE", help="Only candidates that have it."),
        click.option("--since", metavar="TIME", help="Only candidates enrolled at this date or time, or after."),
        click.option("--until", metavar="TIME", help="Only candidates enrolled before."),
    )

    @wraps(command)
    def filtered(
        *args: Any,
        labels: Sequence[str],
        not_labels: Sequence[str],
        pairs: Sequence[str],
        since: str | None,
        until: str | None,
        **rest: Any,
    ) -> Any:
        where = Where(
            labels=frozenset(labels) or None,
            not_labels=frozenset(not_labels) or None,
            metadata=dict(_pair(pair) for pair in pairs),
            enrolled_after=_moment(since),
            enrolled_before=_moment(until),
        )
        return command(*args, where=None if where == Where() else where, **rest)

    for option in reversed(options):
        filtered = option(filtered)
    return filtered


@main.command()
@click.argument("probes", nargs=-1, required=True)
@click.option("-k", default=5, show_default=True, type=click.IntRange(min=1), help="Candidates for each face.")
@click.option("--mode", type=click.Choice(["auto", "exact", "ann"]), default="auto", help="How to search.")
@click.option("--page", type=click.Path(dir_okay=False), help="Write a self-contained HTML page.")
@click.option("--picture", type=click.Path(dir_okay=False), help="Write a contact sheet (PNG, JPEG, …).")
@small_faces_option
@command(gallery=True)
@_filters
def search(
    output: Output,
    gallery: Gallery,
    probes: Sequence[str],
    k: int,
    mode: Mode,
    page: str | None,
    picture: str | None,
    where: Where | None,
    small_faces: bool,
) -> int:
    """Who is this? Ranked candidates for each face of each probe photo."""
    asked: dict[str, Any] = {"k": k, "mode": mode, "where": where, "small_faces": small_faces}
    results = [_searched(gallery, probe, asked) for source in probes for probe in find_photos(source)]
    failed = [result for result in results if result.error]
    engine = gallery.engine
    load = lru_cache(maxsize=16)(engine.load)  # the same enrolled photos come up again and again
    if page:
        write_page(page, results, load, policy=engine.known_policy, k=k)
    if picture:
        write_picture(picture, results, load, k=k)
    output.show(
        [{"probe": r.name, "error": r.error, "found": [_plain_found(f) for f in r.found]} for r in results],
        lambda: _print_results(output, results, [path for path in (picture, page) if path]),
    )
    if len(failed) == len(results):
        return FAILED
    return SOME_FAILED if failed else 0


def _searched(gallery: Gallery, probe: Any, asked: Mapping[str, Any]) -> ProbeResult:
    photo = None
    try:
        photo = gallery.engine.load(probe.source)
        return ProbeResult(probe.name, photo, tuple(gallery.search(photo, **asked)))
    except PhotoError as error:
        return ProbeResult(probe.name, photo, error=error.message)


def _plain_found(found: Found) -> dict[str, Any]:
    return {"face": plain_face(found.face, embedding=False), "candidates": to_plain(found.candidates)}


def _print_results(output: Output, results: Sequence[ProbeResult], written: Sequence[str]) -> None:
    out = output.console
    for result in results:
        out.print(result.name, markup=False, style="bold", soft_wrap=True)
        if result.error:
            output.log.print(f"  {result.error}", markup=False, soft_wrap=True)
        for number, found in enumerate(result.found, 1):
            box = ", ".join(f"{v:.0f}" for v in found.face.box)
            seen = f"detection score {found.face.detection_score:.2f}{said_quality(found.face.quality)}"
            out.print(f"  face {number} at ({box}), {seen}", style="dim")
            if not found.candidates:
                out.print("    no candidate: nobody enrolled, or nobody that passes")
            for c in found.candidates:
                out.print(
                    f"    {c.rank}. {c.label or '(no label)':24} similarity {c.similarity:6.3f}  "
                    f"{said_confidence(c.confidence)}{c.verdict:9} {c.photo or ''}",
                    markup=False,
                    soft_wrap=True,
                )
    for path in written:
        out.print(f"wrote {path}", markup=False)


@main.command()
@command(gallery=True)
def people(output: Output, gallery: Gallery) -> None:
    """Who is enrolled, with the number of templates and photos."""
    rows = gallery.people()

    def show() -> None:
        table = Table("person", "templates", "photos", box=None)
        for row in rows:
            table.add_row(row.label or "(no label)", str(row.templates), str(row.photos))
        output.console.print(table)

    output.show(rows, show)


@main.command()
@click.option("--label", help="Delete this person.")
@click.option("--photo", help="Delete what was enrolled from this photo (a path or URL).")
@click.option("--all", "everything", is_flag=True, help="Delete every template.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@command(gallery=True)
def delete(output: Output, gallery: Gallery, label: str | None, photo: str | None, everything: bool, yes: bool) -> None:
    """Delete templates for good: embedding, box, label and link, from the files too."""
    if sum((label is not None, photo is not None, everything)) != 1:
        raise click.UsageError("say what to delete: one of --label, --photo, --all")
    if not yes and not output.as_json and sys.stdin.isatty():
        what = (
            f"everything under label {label!r}" if label else f"what came from {photo}" if photo else "EVERY template"
        )
        click.confirm(f"Delete {what}? This cannot be undone", abort=True, err=True)
    deleted = gallery.delete(where=Where()) if everything else gallery.delete(label=label, photo=photo)
    output.show({"deleted": deleted}, lambda: output.console.print(f"{deleted} templates deleted"))


@main.command()
@click.option("--check", is_flag=True, help="Read everything and say what is damaged; exit code 1 if something is.")
@command(gallery=True)
def info(output: Output, gallery: Gallery, check: bool) -> int:
    """What a gallery holds, which model made it, and what its decisions rest on."""
    facts = gallery.info(check=check)
    output.show(facts, lambda: print_lines(output, [f"{key:16} {text}" for key, text in _said(facts).items()]))
    return FAILED if facts.get("problems") else 0


def _said(facts: Mapping[str, Any]) -> dict[str, str]:
    said = {key: str(value) for key, value in facts.items() if value is not None}
    point = facts.get("operating_point")
    if point is not None:
        said["match from"] = f"similarity {point.threshold:.3f}: FMR {point.fmr:.2g}, FNMR {point.fnmr:.2g}"
        said["measured on"] = f"{point.dataset}, {point.impostor_trials:,} impostor pairs, {point.date}"
        said["false alarms"] = (
            f"a stranger matches someone here with a chance of about {facts['expected_fpir']:.2%}, "
            "were comparisons independent"
        )
        del said["operating_point"], said["expected_fpir"]
    del said["indexes"]
    for saved in facts["indexes"]:
        said[f"{saved.kind} index"] = (
            f"{saved.place}: {saved.rows:,} templates, {saved.behind:,} changes behind, recall@10 {saved.recall:.4f}"
        )
    if "problems" in facts:
        said["problems"] = "; ".join(facts["problems"]) or "none found"
    return said


@main.group()
def index() -> None:
    """The saved search index of a gallery: opening a large one takes milliseconds with it."""


@index.command("build")
@click.option("--approximate", is_flag=True, help="The approximate index; needs facedex[ann]. Goes on after Ctrl-C.")
@command(gallery=True)
def index_build(output: Output, gallery: Gallery, approximate: bool) -> None:
    """Write an index beside the gallery. What is enrolled later is added by itself, what is deleted is taken out."""
    with progress_bar(output, "indexing", "faces") as bar:
        saved = gallery.build_index(approximate=approximate, progress=lambda done, total: bar(done, total or None, ""))
    text = f"{saved.place}: {saved.rows:,} templates, {saved.bytes:,} bytes, recall@10 {saved.recall:.4f}"
    output.show(saved, lambda: print_lines(output, [text]))
