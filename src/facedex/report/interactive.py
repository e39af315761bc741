"""Pages to turn and point at: one file each, with a script of our own (``*.js`` beside this), nothing fetched."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np

from facedex.decide.evaluation import Curve, Density
from facedex.report.figures import GENUINE, IMPOSTOR, PALETTE, Panel, write_text

__all__ = ["write_embeddings_page", "write_scores_page"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #57606a; --line: #d0d7de; --paper: #ffffff }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --paper: #0d1117 } }
body { font: 16px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 1500px; padding: 0 1rem;
  color: var(--ink); background: var(--paper) }
h1 { font-size: 1.35rem; margin: 0 0 .3rem } h2 { font-size: 1rem; margin: 0 0 .2rem; font-weight: 600 }
p { margin: .3rem 0; max-width: 75ch } .soft { color: var(--soft) }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 1.2rem; margin-top: 1rem }
canvas { width: 100%; height: 460px; border: 1px solid var(--line); border-radius: 8px; touch-action: none;
  cursor: grab }
#tip { position: fixed; pointer-events: none; background: var(--ink); color: var(--paper); padding: .25rem .5rem;
  border-radius: 5px; font-size: .85rem; display: none; max-width: 40ch; overflow-wrap: anywhere; z-index: 9 }
input[type=range] { width: 100% } output { font-variant-numeric: tabular-nums }
.rates { display: flex; gap: 2rem; flex-wrap: wrap; font-size: 1.05rem; margin: .6rem 0 }
svg { width: 100%; height: auto; display: block } b.genuine { color: #2f8fd0 } b.impostor { color: #d55e00 }
"""


def write_embeddings_page(path: str | os.PathLike[str], panels: Sequence[Panel], title: str) -> None:
    """Faces as points to turn, zoom and point at; pointing at one shows its name and lights up its person everywhere.

    panels  one a model, or a gallery.
    """
    people = sorted({label for panel in panels for label in panel.labels})
    number = {person: place for place, person in enumerate(people)}
    plain = []
    for panel in panels:
        points = panel.layout.points - panel.layout.points.mean(axis=0)
        reach = float(np.linalg.norm(points, axis=1).max()) or 1.0
        kept = panel.layout.kept
        method = panel.layout.method.upper()
        plain.append(
            {
                "title": panel.title,
                "told": f"{method}: {kept:.0%} of the variance" if kept is not None else method,
                "axes": panel.layout.method == "pca",
                "points": np.round(points / reach, 4).tolist(),
                "who": [number[label] for label in panel.labels],
                "names": list(panel.names if panel.names is not None else panel.labels),
            }
        )
    turn = "Drag to turn, scroll to zoom." if panels[0].layout.points.shape[1] == 3 else "Scroll to zoom."
    body = f"""<h1>{html.escape(title)}</h1>
<p class="soft">Each point is a face, its colour and shape a person. {turn} Point at a face for its name.
What is near in a projection need not be near in the embedding space.</p>
<div class="panels"></div><div id="tip"></div>"""
    data = {"people": people, "colours": list(PALETTE), "panels": plain}
    write_text(path, _page(title, body, data, "points.js"))


def write_scores_page(
    path: str | os.PathLike[str],
    density: Density,
    curve: Curve,
    thresholds: Mapping[str, float],
    title: str,
) -> None:
    """Densities with a threshold to drag; both error rates follow it."""
    low, high = float(density.similarity[0]), float(density.similarity[-1])
    top = max(float(density.genuine.max()), float(density.impostor.max()))

    def x(value: float) -> float:
        return 40 + (value - low) / (high - low) * 920

    def area(values: object, colour: str) -> str:
        points = " ".join(
            f"{x(float(s)):.1f},{330 - float(v) / top * 270:.1f}"
            for s, v in zip(density.similarity, np.asarray(values), strict=True)
        )
        return (
            f'<polygon points="40,330 {points} 960,330" fill="{colour}" fill-opacity=".25"/>'
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
        )

    def named(name: str, values: object, colour: str) -> str:
        peak = int(np.asarray(values).argmax())
        height = 330 - float(np.asarray(values)[peak]) / top * 270
        return (
            f'<text x="{x(float(density.similarity[peak])):.0f}" y="{height - 8:.0f}" fill="{colour}" '
            f'text-anchor="middle" font-weight="600">{name}</text>'
        )

    ticks = [tick for tick in np.round(np.arange(-1, 1.01, 0.1), 1) if low <= tick <= high]
    axis = "".join(
        f'<line x1="{x(t):.0f}" x2="{x(t):.0f}" y1="330" y2="336" stroke="currentColor"/>'
        f'<text x="{x(t):.0f}" y="354" text-anchor="middle" fill="currentColor">{t:.1f}</text>'
        for t in ticks
    )
    shown = sorted(((value, name) for name, value in thresholds.items() if low <= value <= high), reverse=True)
    # The highest threshold's name stands at its right, the others' at their left: they never meet.
    marks = "".join(
        f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="22" y2="330" stroke="currentColor" stroke-dasharray="5 4"/>'
        f'<text x="{x(value) + (-6 if place else 6):.0f}" y="{30 + 20 * max(0, place - 1)}" fill="currentColor" '
        f'text-anchor="{"end" if place else "start"}">{html.escape(name)} {value:.3f}</text>'
        for place, (value, name) in enumerate(shown)
    )
    start = next(iter(thresholds.values()), (low + high) / 2)
    body = f"""<h1>{html.escape(title)}</h1>
<p class="soft">Move the threshold: pairs at or above it are taken for one person.</p>
<svg viewBox="0 0 1000 380" font-size="15" role="img" aria-label="densities of genuine and impostor similarities">
{area(density.impostor, IMPOSTOR)}{area(density.genuine, GENUINE)}
{named("impostor pairs", density.impostor, IMPOSTOR)}{named("genuine pairs", density.genuine, GENUINE)}{marks}
<line x1="40" x2="960" y1="330" y2="330" stroke="currentColor"/>{axis}
<text x="500" y="376" text-anchor="middle" fill="currentColor">similarity (cosine)</text>
<line id="line" y1="20" y2="330" stroke="currentColor" stroke-width="3"/></svg>
<input type="range" aria-label="threshold" min="{low:.3f}" max="{high:.3f}" step="0.001" value="{start:.3f}">
<div class="rates"><span>threshold <b><output id="t"></output></b></span>
<span>false match rate <b class="impostor"><output id="fmr"></output></b></span>
<span>false non-match rate <b class="genuine"><output id="fnmr"></output></b></span></div>"""
    data = {
        "low": low,
        "high": high,
        "thresholds": curve.thresholds.tolist(),
        "fmr": curve.fmr.tolist(),
        "fnmr": curve.fnmr.tolist(),
    }
    write_text(path, _page(title, body, data, "scores.js"))


def _page(title: str, body: str, data: object, script: str) -> str:
    code = resources.files("facedex.report").joinpath(script).read_text("utf-8")
    plain = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{_STYLE}</style>
{body}
<script type="application/json" id="data">{plain}</script>
<script>{code}</script></html>
"""
