"""One HTML file with everything in it: pictures as data URLs, no scripts, no network."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from facedex.decide import DecisionPolicy
from facedex.report.picture import boxed
from facedex.report.result import PhotoLoader, ProbeResult, candidate_crop, crop, said
from facedex.types import Candidate, Found

_STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --soft: #57606a; --match: #1a7f37; --review: #bf6b00;
  --no-match: #b42318 }
@media (prefers-color-scheme: dark) { :root { --line: #3d444d; --soft: #9198a1; --match: #3fb950; --review: #d29922;
  --no-match: #f85149 } }
body { font: 16px/1.45 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.05rem; margin: 0 0 .6rem; overflow-wrap: anywhere }
section { border-top: 1px solid var(--line); padding: 1.4rem 0; display: grid;
  grid-template-columns: minmax(180px, 320px) 1fr; gap: 1.6rem }
@media (max-width: 700px) { section { grid-template-columns: 1fr } }
img { display: block; border-radius: 6px; max-width: 100% } section > div > img { max-height: 340px }
.faces { display: grid; gap: 1.4rem } .face { display: flex; gap: 1rem; flex-wrap: wrap }
figure { margin: 0; width: 132px } figure img { width: 132px; height: 132px; border: 3px solid var(--c) }
figcaption { font-size: .82rem; margin-top: .3rem; overflow-wrap: anywhere } .soft { color: var(--soft) }
.bar { height: 5px; border-radius: 3px; background: var(--line); margin: .25rem 0 }
.bar i { display: block; height: 100%; border-radius: 3px; background: var(--c) }
.verdict { color: var(--c); font-weight: 600 } .match { --c: var(--match) } .review { --c: var(--review) }
.no-match { --c: var(--no-match) } .unknown, .not-calibrated { --c: var(--soft) } .error { color: var(--no-match) }
.blank { width: 132px; height: 132px; border: 3px dashed var(--line); border-radius: 6px; display: grid;
  place-items: center; font-size: .8rem; color: var(--soft); text-align: center }
"""


def write_page(
    path: str | os.PathLike[str],
    results: Sequence[ProbeResult],
    load: PhotoLoader,
    *,
    policy: DecisionPolicy | None,
    title: str = "Facedex: who is this?",
    k: int = 5,
) -> None:
    """Write results as one HTML file.

    load    link → photo, to cut out enrolled faces.
    policy  whose thresholds and error rates the page explains; None when nobody measured any.
    """
    body = "\n".join(_section(result, load, k) for result in results)
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{_STYLE}</style>
<h1>{html.escape(title)}</h1>
<p class="soft">Similarity is the cosine of two embeddings, −1…1. {_explained(policy)}
A similarity is a lead, not proof of who someone is.</p>
{body}
<p class="soft">Made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. The gallery keeps links, boxes and embeddings; pictures
are read from their own place.</p></html>
"""
    Path(path).write_text(page, "utf-8")


def _explained(policy: DecisionPolicy | None) -> str:
    if policy is None:
        return "No thresholds were measured for this model, so nothing here is a match or not."
    match, review = policy.match, policy.review
    return f"""A <b>match</b> is at or above {match.threshold:.3f}
(false match rate {match.fmr:.2g}, false non-match rate {match.fnmr:.2g}), <b>review</b> at or above
{review.threshold:.3f} (false match rate {review.fmr:.2g}); measured on {html.escape(match.dataset)},
{match.impostor_trials:,} impostor and {match.genuine_trials:,} genuine pairs, {html.escape(match.date)}.
Confidence holds where both outcomes are equally likely beforehand."""


def _section(result: ProbeResult, load: PhotoLoader, k: int) -> str:
    name = html.escape(result.name)
    if result.photo is None:
        return f'<section><h2>{name}</h2><p class="error">{html.escape(result.error or "")}</p></section>'
    picture = data_img(boxed(result, 480), f"{name} with its faces boxed")
    error = f'<p class="error">{html.escape(result.error)}</p>' if result.error else ""
    image = Image.fromarray(result.photo.pixels)
    faces = "".join(_face(image, found, load, k) for found in result.found)
    return f'<section><div><h2>{name}</h2>{picture}</div><div class="faces">{error}{faces}</div></section>'


def _face(image: Image.Image, found: Found, load: PhotoLoader, k: int) -> str:
    kind = found.best.verdict.replace(" ", "-") if found.best else "unknown"
    picture = data_img(crop(image, found.face.box, 200), "face in the probe")
    told = f"in the probe<br>detection score {found.face.detection_score:.2f}"
    probe = f'<figure class="{kind}">{picture}<figcaption class="soft">{told}</figcaption></figure>'
    return f'<div class="face">{probe}{"".join(_candidate(c, load) for c in found.candidates[:k])}</div>'


def _candidate(candidate: Candidate, load: PhotoLoader) -> str:
    cut = candidate_crop(candidate, load, 200)
    label = html.escape(candidate.label or "(no label)")
    picture = (
        data_img(cut, f"enrolled face of {label}") if cut is not None else '<div class="blank">photo not at hand</div>'
    )
    return (
        f'<figure class="{candidate.verdict.replace(" ", "-")}">{picture}<figcaption>{candidate.rank}. {label}<br>'
        f'<span class="soft">similarity {candidate.similarity:.3f}</span>'
        f'<div class="bar"><i style="width:{candidate.confidence or 0:.1f}%"></i></div>'
        f'<span class="soft">{said(candidate.confidence)}</span><br>'
        f'<span class="verdict">{candidate.verdict}</span></figcaption></figure>'
    )


def data_img(image: Image.Image, alt: str) -> str:
    """An HTML image with its bytes in it."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=88)
    return f'<img alt="{alt}" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'
