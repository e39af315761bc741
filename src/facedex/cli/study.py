"""Commands that judge on labelled photos: evaluate, calibrate, plot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import click
from rich.table import Table

from facedex.cli.common import SOME_FAILED, Output, command, main, print_lines, progress_bar
from facedex.decide.confidence import FEATURES, Feature, Reliability
from facedex.decide.layout import LayoutMethod, lay_out
from facedex.decide.policy import OperatingPoint, forget_policy, keep_policy, kept_policy, policy_path
from facedex.engine import Engine, Progress
from facedex.report import figures, interactive
from facedex.report.mistakes import write_mistakes
from facedex.report.study_page import write_evaluation_page
from facedex.study import CalibrationStudy, Evaluation, Labelled, evaluate, read_groups, read_labelled
from facedex.study import calibrate as calibrate_on
from facedex.study.evaluation import policy_of

_SOURCE = click.argument("source")
_KEEP = click.option("--keep", metavar="URL", help="A gallery to keep the embeddings in, so that a second run is fast.")
_NAME = click.option("--name", help="What to call the photos; the name of the folder or file otherwise.")


def _labelled(output: Output, engine: Engine, source: str, name: str | None, keep: str | None) -> Labelled:
    with progress_bar(output, "embedding", "photos") as bar:
        return read_labelled(
            engine, source, name=name, keep=keep, progress=lambda told: bar(told.done, told.total, _faces(told))
        )


def _faces(told: Progress) -> str:
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
@command()
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
    print_lines(output, lines)
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
    print_lines(output, [f"wrote {path}" for path in written])


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
@command()
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
    print_lines(output, lines)


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
@command()
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
    output.show({"written": list(out)}, lambda: print_lines(output, [f"wrote {path}" for path in out]))
    return _left_out(output, labelled)


@plot.command("embeddings")
@click.argument("sources", nargs=-1, required=True)
@_KEEP
@_OUT
@click.option("--model", "names", multiple=True, help="An embedder for photos; several are drawn side by side.")
@click.option("--dimensions", type=click.Choice(["2", "3"]), default="2", show_default=True)
@click.option("--method", type=click.Choice(["pca", "umap"]), default="pca", help="umap needs facedex[umap].")
@command()
def plot_embeddings(
    output: Output,
    engine: Engine,
    sources: Sequence[str],
    keep: str | None,
    out: Sequence[str],
    names: Sequence[str],
    dimensions: str,
    method: LayoutMethod,
) -> int:
    """Faces as points, coloured by person; one panel a source and model, side by side.

    SOURCES: folders with a folder per person, or galleries, each of the model it was enrolled with.
    """
    kinds = [_kind(path) for path in out]
    if keep and len(names) > 1:
        raise click.UsageError("--keep names one gallery, and a gallery holds the embeddings of one model")
    engines = [Engine(embedder=name, settings=engine.settings) for name in names] or [engine]
    read = [_labelled(output, each, source, None, keep) for source in sources for each in engines]
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
    output.show({"written": list(out)}, lambda: print_lines(output, [f"wrote {path}" for path in out]))
    return max(_left_out(output, labelled) for labelled in read)


def _kind(path: str) -> str:
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in ("png", "svg", "html"):
        raise click.UsageError(f"--out takes a .png, .svg or .html file, got {path!r}")
    return kind
