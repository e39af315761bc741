"""Drawings for print and page: curves, densities, points. Matplotlib draws; the colours are Okabe and Ito's."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from facedex.decide.confidence import Reliability
from facedex.decide.evaluation import Curve, Density
from facedex.decide.identification import Identification
from facedex.decide.layout import Layout
from facedex.errors import OutputUnwritable, PlotDriverMissing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "GENUINE", "IMPOSTOR", "PALETTE", "Panel", "cmc_figure", "det_figure", "embeddings_figure", "inline_svg",
    "reliability_figure", "roc_figure", "save_figure", "scores_figure", "write_bytes", "write_text",
]  # fmt: skip

GENUINE: Final = "#0072b2"
IMPOSTOR: Final = "#d55e00"
PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#555555")
"""Told apart by people who see few colours; beyond these, shapes tell."""

MARKERS: Final = "os^DvPX*<>"
_INK: Final = "#1f2328"
_SOFT: Final = "#6e7781"
_STYLE: Final[Mapping[str, Any]] = {
    "font.size": 12, "axes.titlesize": 13, "axes.labelsize": 12, "legend.fontsize": 11, "axes.titlelocation": "left",
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "svg.fonttype": "none", "svg.hashsalt": "facedex",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": _SOFT, "text.color": _INK,
    "axes.labelcolor": _INK, "axes.titlecolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "axes.grid": True,
    "grid.color": _SOFT, "grid.alpha": 0.25, "grid.linewidth": 0.8, "axes.axisbelow": True, "lines.linewidth": 2,
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One model's faces.

    names  what to show for each face when it is pointed at; their labels when None.
    """

    title: str
    layout: Layout
    labels: Sequence[str]
    names: Sequence[str] | None = None


@contextmanager
def _drawing(width: float, height: float) -> Iterator[Figure]:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotDriverMissing(
            "drawing curves needs matplotlib: pip install 'facedex[plot]'; --json and HTML plots do without.",
            extra="plot",
        ) from error
    with mpl.rc_context(dict(_STYLE)):
        yield Figure(figsize=(width, height), layout="constrained", dpi=144)


def scores_figure(density: Density, thresholds: Mapping[str, float], title: str) -> Figure:
    """Where the similarities of genuine and impostor pairs lie, the thresholds drawn."""
    with _drawing(9, 4.8) as figure:
        axes = figure.add_subplot()
        for name, values, colour in (
            ("impostor pairs", density.impostor, IMPOSTOR),
            ("genuine pairs", density.genuine, GENUINE),
        ):
            axes.fill_between(density.similarity, values, color=colour, alpha=0.25, linewidth=0)
            axes.plot(density.similarity, values, color=colour)
            peak = int(values.argmax())
            axes.annotate(
                name, (density.similarity[peak], values[peak]), (0, 6), textcoords="offset points", color=colour,
                ha="center", va="bottom", weight="bold",
            )  # fmt: skip
        top = max(float(density.genuine.max()), float(density.impostor.max()))
        # Threshold names stand on the side where the other one does not.
        ordered = sorted(thresholds.items(), key=lambda item: item[1])
        for place, (name, value) in enumerate(ordered):
            last = place == len(ordered) - 1
            axes.axvline(value, color=_INK, linewidth=1.2, linestyle="-" if last else "--")
            axes.annotate(
                f"{name} {value:.3f}", (value, top * 1.12), (5 if last else -5, 0), textcoords="offset points",
                ha="left" if last else "right", va="center",
            )  # fmt: skip
        axes.set(ylim=(0, top * 1.2), xlabel="similarity (cosine)", ylabel="density", title=title)
        axes.set_yticks([])
        axes.grid(visible=False)
    return figure


def det_figure(curve: Curve, points: Mapping[str, tuple[float, float]]) -> Figure:
    """False non-match rate against false match rate, both on logarithmic scales, with 95 % intervals.

    points  name → (fmr, fnmr).
    """
    return _rates(curve, points, curve.fnmr, (curve.fnmr_low, curve.fnmr_high), "false non-match rate", "log", 0)


def roc_figure(curve: Curve, points: Mapping[str, tuple[float, float]]) -> Figure:
    """True match rate against false match rate."""
    bounds = 1 - curve.fnmr_high, 1 - curve.fnmr_low
    return _rates(curve, points, 1 - curve.fnmr, bounds, "true match rate (1 − FNMR)", "linear", 1)


def _rates(
    curve: Curve,
    points: Mapping[str, tuple[float, float]],
    values: Any,
    bounds: tuple[Any, Any],
    label: str,
    scale: str,
    flip: int,
) -> Figure:
    with _drawing(5.6, 4.6) as figure:
        axes: Any = figure.add_subplot()
        seen = curve.fmr > 0
        lowest = float(curve.fmr[seen].min())
        axes.set_xscale("log")
        axes.set_yscale(scale)
        axes.fill_between(
            curve.fmr[seen], *(b[seen] for b in bounds), color=GENUINE, alpha=0.2, linewidth=0, step="post"
        )
        axes.plot(curve.fmr[seen], values[seen], color=GENUINE, drawstyle="steps-post")
        floor = float(values[values > 0].min()) if scale == "log" and (values > 0).any() else 0.0
        for name, (fmr, fnmr) in points.items():
            x, y = max(fmr, lowest), (1 - fnmr if flip else max(fnmr, floor / 2))
            axes.plot([x], [y], "o", color=_INK, markersize=6, clip_on=False, zorder=5)
            axes.annotate(name, (x, y), (8, -14 if flip else 6), textcoords="offset points")
        axes.set(xlabel="false match rate", ylabel=label, xlim=(lowest / 1.5, 1))
        if scale == "log":
            axes.set_ylim(floor / 2.5 or None, 1)
        else:
            shown = float(values[seen].min())
            _share_axis(axes, shown - 0.05 * (1 - shown) - 0.002)
    return figure


def _share_axis(axes: Any, low: float) -> None:
    """From about ``low`` to 1 and a little air, no tick above 1."""
    low = max(0.0, low)
    axes.set_ylim(low, 1 + (1 - low) * 0.04)
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= 1 + 1e-9])


def cmc_figure(identification: Identification) -> Figure:
    """The share of probes whose person is among the k best."""
    with _drawing(5.6, 4.0) as figure:
        axes = figure.add_subplot()
        ranks = np.arange(1, len(identification.cmc) + 1)
        axes.plot(ranks, identification.cmc, color=GENUINE, marker="o", markersize=4)
        axes.annotate(
            f"rank 1: {identification.rank_1:.2%}", (1, identification.rank_1), (10, -16), textcoords="offset points"
        )
        low = min(identification.cmc)
        axes.set(
            xlabel="rank k (people)", ylabel="right person among the k best", ylim=(low - max(0.02, 1 - low), 1.01)
        )
        axes.set_xticks([rank for rank in (1, 2, 5, 10, 20) if rank <= len(ranks)])
    return figure


def reliability_figure(told: Reliability) -> Figure:
    """How often it was one person, against the confidence told; the area of a dot is its share of the pairs."""
    with _drawing(5.2, 5.0) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 100], [0, 100], color=_SOFT, linewidth=1.2, linestyle="--")
        axes.annotate("as told", (78, 80), rotation=45, color=_SOFT, ha="center", va="bottom", rotation_mode="anchor")
        x, y = [each.told for each in told.bins], [each.observed for each in told.bins]
        same, other = sum(b.genuine for b in told.bins), sum(b.impostor for b in told.bins)
        share = [each.genuine / (2 * same) + each.impostor / (2 * other) for each in told.bins]
        axes.plot(x, y, color=GENUINE, linewidth=1)
        axes.scatter(x, y, s=[25 + 500 * each for each in share], color=GENUINE, alpha=0.75, linewidths=0)
        axes.set(xlim=(-5, 105), ylim=(-5, 105), xlabel="confidence told, %", ylabel="one person, %", aspect="equal")
        axes.set_title(f"expected calibration error {told.ece:.1f} %, Cllr {told.cllr:.3f}")
    return figure


def embeddings_figure(panels: Sequence[Panel]) -> Figure:
    """Faces as points coloured by person, one panel a model; names at the people's middles where there are few."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    solid = panels[0].layout.points.shape[1] == 3
    with _drawing(6.2 * columns, 5.6 * rows) as figure:
        for place, panel in enumerate(panels, 1):
            axes = figure.add_subplot(rows, columns, place, projection="3d" if solid else None)
            _points(axes, panel)
    return figure


def _points(axes: Any, panel: Panel) -> None:
    people = sorted(set(panel.labels))
    labels, points = np.asarray(panel.labels), panel.layout.points
    for number, person in enumerate(people):
        mine = points[labels == person]
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number // len(PALETTE) % len(MARKERS)]
        axes.scatter(*mine.T, color=colour, marker=marker, s=36, alpha=0.85, linewidths=0)
    if len(people) <= 16:
        middles = {person: np.median(points[labels == person], axis=0) for person in people}
        for number, person in enumerate(people):
            at = middles[person]
            colour = PALETTE[number % len(PALETTE)]
            if len(at) == 3:
                axes.text(*at, f"  {person}", color=colour, weight="bold", fontsize=11)
            else:
                above = at[0], points[labels == person][:, 1].max()
                axes.annotate(
                    person, above, (0, 8), textcoords="offset points", color=colour, weight="bold", ha="center",
                    fontsize=11, bbox={"facecolor": "white", "alpha": 0.55, "linewidth": 0, "pad": 0.5},
                )  # fmt: skip
    kept = panel.layout.kept
    told = f"{panel.layout.method.upper()}" + (f", {kept:.0%} of the variance" if kept is not None else "")
    axes.set_title(f"{panel.title}\n{told}", fontsize=12)
    axes.set_xticklabels([])
    axes.set_yticklabels([])
    if points.shape[1] == 3:
        axes.set_zticklabels([])
    elif panel.layout.method == "pca":
        axes.set(xlabel="PC 1", ylabel="PC 2", aspect="equal", adjustable="datalim")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG or SVG, by the suffix; the same figure, the same bytes.

    Raises  OutputUnwritable.
    """
    kind = Path(path).suffix.lower().lstrip(".")
    data = io.BytesIO()
    import matplotlib as mpl

    with mpl.rc_context(dict(_STYLE)):
        figure.savefig(data, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    write_bytes(path, data.getvalue())


def inline_svg(figure: Figure, alt: str) -> str:
    """The figure as an SVG element; its ink is the page's text colour, its lines ``--genuine`` and ``--impostor``."""
    import html

    import matplotlib as mpl

    data = io.StringIO()
    with mpl.rc_context(dict(_STYLE)):
        figure.savefig(data, format="svg", metadata={"Date": None}, transparent=True)
    text = data.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    for drawn, shown in ((_INK, "currentColor"), (GENUINE, "var(--genuine)"), (IMPOSTOR, "var(--impostor)")):
        text = text.replace(drawn, shown)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alt)}" ', 1)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a page.

    Raises  OutputUnwritable.
    """
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file.

    Raises  OutputUnwritable.
    """
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise OutputUnwritable(
            f"{os.fspath(path)} cannot be written: {error.strerror or error}. Name a file in a folder that is there.",
            path=os.fspath(path),
        ) from error
