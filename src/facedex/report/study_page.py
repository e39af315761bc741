"""An evaluation as one HTML file: what was measured, on what, how sure, and the faces it went wrong on."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Sequence

from facedex.decide import Interval, OperatingPoint
from facedex.report.figures import cmc_figure, det_figure, inline_svg, roc_figure, scores_figure, write_text
from facedex.report.mistakes import pair_picture
from facedex.report.page import data_img
from facedex.report.result import PhotoLoader
from facedex.study import Evaluation, Mistake

__all__ = ["write_evaluation_page"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #57606a; --line: #d0d7de; --paper: #ffffff; --tile: #f6f8fa;
  --genuine: #0072b2; --impostor: #d55e00 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --paper: #0d1117;
  --tile: #161b22; --genuine: #56b4e9; --impostor: #ff8a3d } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; color: var(--ink);
  background: var(--paper) }
h1 { font-size: 1.5rem; margin-bottom: .3rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem }
h3 { font-size: 1rem; margin: 0 0 .3rem } .soft { color: var(--soft) } p { max-width: 80ch; margin: .4rem 0 }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: .8rem; margin: 1.2rem 0 }
.tile { background: var(--tile); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem }
.tile b { display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums } .tile span { color: var(--soft);
  font-size: .85rem; display: block }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 1.4rem }
@media (max-width: 500px) { .figures { grid-template-columns: 1fr } }
svg { width: 100%; height: auto } .wide { max-width: 900px }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem }
th, td { text-align: right; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); white-space: nowrap }
th { color: var(--soft); font-weight: 600 } th:first-child, td:first-child { text-align: left }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 1rem } figure { margin: 0 }
figure img { width: 100%; border-radius: 6px; display: block } figcaption { font-size: .84rem; overflow-wrap: anywhere }
li { overflow-wrap: anywhere }
"""


def write_evaluation_page(path: str | os.PathLike[str], evaluation: Evaluation, load: PhotoLoader) -> None:
    """Write the report.

    load    link → photo, for the pictures of the worst mistakes.
    Raises  PlotDriverMissing, OutputUnwritable.
    """
    e = evaluation
    title = html.escape(f"How right is it: {e.name}")
    body = "\n".join(
        part
        for part in (_tiles(e), _thresholds(e), _curves(e), _searches(e), _groups(e), _mistakes(e, load), _photos(e))
    )
    write_text(
        path,
        f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{_STYLE}</style>
<h1>{title}</h1>
<p class="soft">{e.photos:,} photos of {e.people:,} people, {e.genuine_trials:,} genuine and
{e.impostor_trials:,} impostor pairs; model {html.escape(e.space)}; {e.date}. Data digest {e.digest[:12]}….</p>
{body}
<h2>How to read this</h2>
<p>A <b>genuine</b> pair shows one person, an <b>impostor</b> pair two. <b>FMR</b> is the share of impostor pairs at or
above a threshold, <b>FNMR</b> the share of genuine pairs below it. Intervals are 95 %, by drawing people (not pairs)
again and again; where no error was seen in N pairs, the upper end is 3/N: no error seen is not no error. All rates hold
for photos and people like these, and say nothing of others.</p></html>
""",
    )


def _tiles(e: Evaluation) -> str:
    tiles = []
    if e.match is not None:
        at = f"at the match threshold {e.match.threshold:.3f}"
        tiles += [
            ("false match rate", _rate(e.match.fmr), f"{_range(e.match.fmr_interval)} {at}"),
            ("false non-match rate", _rate(e.match.fnmr), f"{_range(e.match.fnmr_interval)} {at}"),
        ]
    if e.identification is not None:
        probes = f"of {e.identification.probes:,} photos, each searched among all others"
        tiles.append(("right person first", f"{e.identification.rank_1:.2%}", probes))
    pairs = e.pairs
    tiles += [
        ("equal error rate", _rate(pairs.eer), f"{_range(pairs.eer_interval)} at {pairs.eer_threshold:.3f}"),
        ("area under ROC", f"{pairs.auc:.5f}", f"{pairs.auc_interval.low:.5f}–{pairs.auc_interval.high:.5f}"),
        ("failure to acquire", _rate(e.failure_to_acquire), f"{_without(e)} of {e.photos:,} photos without a template"),
    ]
    inner = "".join(
        f'<div class="tile"><span>{name}</span><b>{value}</b><span>{html.escape(note)}</span></div>'
        for name, value, note in tiles
    )
    return f'<div class="tiles">{inner}</div>'


def _without(e: Evaluation) -> int:
    return len(e.faceless) + len(e.failures)


def _thresholds(e: Evaluation) -> str:
    rows = [(name, point) for name, point in (("match", e.match), ("review", e.review)) if point is not None]
    shown = [_point_row(f"{name} (in use)", point) for name, point in rows]
    for at in e.pairs.at_fmr:
        if at.point is not None:
            shown.append(_point_row(f"for FMR {at.fmr:g}", at.point))
        else:
            why = (
                f"needs {at.needed:,} impostor pairs"
                if e.impostor_trials < at.needed
                else "no threshold up to 1 keeps it"
            )
            shown.append([f"for FMR {at.fmr:g}", "–", why, "", "", ""])
    source = f"<p>The thresholds in use were set on: {html.escape(e.set_on)}.</p>" if e.set_on else ""
    head = ["", "threshold", "FMR", "95 %", "FNMR", "95 %"]
    return f"<h2>Thresholds</h2>{_table(head, shown)}{source}"


def _point_row(name: str, point: OperatingPoint) -> list[str]:
    rates = [_rate(point.fmr), _range(point.fmr_interval), _rate(point.fnmr), _range(point.fnmr_interval)]
    return [name, f"{point.threshold:.3f}", *rates]


def _curves(e: Evaluation) -> str:
    in_use = {name: point for name, point in (("match", e.match), ("review", e.review)) if point is not None}
    thresholds = {name: point.threshold for name, point in in_use.items()}
    rates = {name: (point.fmr, point.fnmr) for name, point in in_use.items()}
    scores = inline_svg(scores_figure(e.density, thresholds, ""), "densities of genuine and impostor similarities")
    det = inline_svg(det_figure(e.pairs.curve, rates), "false non-match rate against false match rate")
    roc = inline_svg(roc_figure(e.pairs.curve, rates), "true match rate against false match rate")
    return f"""<h2>Similarities</h2><div class="wide">{scores}</div>
<h2>Curves</h2><div class="figures"><div><h3>DET</h3>{det}</div><div><h3>ROC</h3>{roc}</div></div>
<p class="soft">Shaded: 95 % intervals of each rate at the same threshold.</p>"""


def _searches(e: Evaluation) -> str:
    if e.identification is None:
        return "<p class='soft'>A list of pairs does not say who else is who, so nothing is said of searches.</p>"
    rows = []
    for each in e.open_set:
        expected = "" if each.expected_fpir is None else _rate(each.expected_fpir)
        told = [_rate(each.fpir), _range(each.fpir_range), expected, _rate(each.fnir), _range(each.fnir_range)]
        rows.append([f"{each.people:,}", f"{each.threshold:.3f}", *told, f"{each.strangers:,} / {each.mated:,}"])
    head = [
        "people enrolled",
        "threshold",
        "FPIR",
        "of draws",
        "expected",
        "FNIR",
        "of draws",
        "probes: strangers / mates",
    ]
    table = _table(head, rows) if rows else "<p>Too few people to leave some out as strangers.</p>"
    cmc = inline_svg(cmc_figure(e.identification), "share of probes whose person is among the k best")
    return f"""<h2>Searching</h2>
<p>Open set: one photo each of some people is enrolled, everyone's other photos are searched. <b>FPIR</b>: strangers who
match someone. <b>FNIR</b>: enrolled people who are not found first, or below the threshold. People were drawn
{e.open_set[0].draws if e.open_set else 0} times; 95 % of the draws lie in the ranges told. <i>Expected</i> is what the
FMR would give were comparisons independent, 1 − (1 − FMR)ⁿ.</p>{table}
<div class="figures"><div><h3>Closed set: rank</h3>{cmc}</div></div>"""


def _groups(e: Evaluation) -> str:
    if not e.groups:
        return ""
    rows = []
    for each in e.groups:
        if each.point is None:
            rows.append([html.escape(each.group), str(each.people), "too few pairs", "", "", "", ""])
        else:
            trials = f"{each.point.impostor_trials:,} / {each.point.genuine_trials:,}"
            rows.append([html.escape(each.group), str(each.people), trials, *_point_row("", each.point)[2:]])
    head = ["group", "people", "pairs: impostor / genuine", "FMR", "95 %", "FNMR", "95 %"]
    rest = f"<p>{len(e.no_group)} people are in no group.</p>" if e.no_group else ""
    return f"""<h2>By group</h2>{_table(head, rows)}{rest}<p>Impostor pairs are of two people of one group. Groups whose
intervals overlap were not shown to differ; nor were they shown to be alike.</p>"""


def _mistakes(e: Evaluation, load: PhotoLoader) -> str:
    return f"""<h2>Same person, least alike</h2>{_pairs(e.lowest_genuine, load)}
<h2>Different people, most alike</h2>{_pairs(e.highest_impostor, load)}
<p class="soft">Look here first: a wrong label looks like a wrong model.</p>"""


def _pairs(mistakes: Iterable[Mistake], load: PhotoLoader) -> str:
    shown = []
    for mistake in mistakes:
        first, second = (html.escape(face.label) for face in mistake.faces)
        names = first if first == second else f"{first} · {second}"
        files = " · ".join(html.escape(os.path.basename(face.photo or "(no link)")) for face in mistake.faces)
        confidence = "" if mistake.confidence is None else f", confidence {mistake.confidence:.1f} %"
        picture = data_img(pair_picture(mistake, load, 160), f"faces of {names}")
        shown.append(
            f"<figure>{picture}<figcaption><b>{mistake.similarity:.3f}</b>{confidence}<br>{names}<br>"
            f'<span class="soft">{files}</span></figcaption></figure>'
        )
    return f'<div class="pairs">{"".join(shown)}</div>'


def _photos(e: Evaluation) -> str:
    parts = [
        _list("Photos in which no face was found", e.faceless),
        _list("Photos that could not be used", [f"{failure.photo}: {failure.message}" for failure in e.failures]),
        _list("Photos left out because they stand under two names", e.contested),
    ]
    told = []
    if e.repeated:
        told.append(f"{e.repeated} photos were left out because the same bytes came before under the same name.")
    if e.lost_pairs:
        told.append(f"{e.lost_pairs} listed pairs could not be compared.")
    return "".join(parts) + "".join(f"<p>{line}</p>" for line in told)


def _list(title: str, lines: Sequence[str], most: int = 50) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines[:most])
    more = f"<p>… and {len(lines) - most} more.</p>" if len(lines) > most else ""
    return f"<h2>{title}: {len(lines)}</h2><ul>{items}</ul>{more}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'


def _rate(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.1e}" if value < 5e-4 else f"{value:.2%}"


def _range(interval: Interval) -> str:
    return f"{_rate(interval.low)}–{_rate(interval.high)}"
