"""Figures as inline SVG whose colours are the page's CSS variables, so that light and dark both suit them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

INK, MUTED, GRID, CARD, WARN = "#0000e0", "#0000e1", "#0000e2", "#0000e3", "#0000e4"
SERIES = tuple(f"#0000f{i}" for i in range(8))
"""Stand-ins that no figure shows: each becomes a CSS variable of the page, `css_colour` says which."""

_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", CARD: "--card", WARN: "--warn",
              **{colour: f"--series-{i}" for i, colour in enumerate(SERIES)}}
_LABEL_SIZE = 10.5
_SVG_SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "reflexarc", "path.simplify": True}


@dataclass(frozen=True)
class Key:
    """One entry of a legend."""

    label: str
    colour: str
    """One of the stand-ins."""
    style: str = "line"
    """'line', 'broad', 'dashed', 'area', 'faint', 'dot' or 'ring'."""


@dataclass(frozen=True)
class Plot:
    """A figure with what a reader needs to understand it."""

    title: str
    """Plain text."""
    figure: Figure
    description: str
    """Plain text for those who do not see it."""
    legend: tuple[Key, ...] = ()
    note: str = ""
    """Plain text below the figure."""


def css_colour(colour: str) -> str:
    """Return the CSS value of a stand-in colour."""
    return f"var({_VARIABLES[colour]})"


def new_axes(x_label: str, y_label: str = "", width: float = 420, height: float = 240) -> tuple[Figure, Axes]:
    """Return a figure of `width` x `height` [CSS pixel] and its axes, in the report's style."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    style_axes(axes)
    axes.set_xlabel(x_label, color=MUTED, fontsize=_LABEL_SIZE)
    axes.set_ylabel(y_label, color=MUTED, fontsize=_LABEL_SIZE, labelpad=8)
    return figure, axes


def style_axes(axes: Axes) -> None:
    """Give `axes` the report's style: a quiet grid, no box."""
    axes.patch.set_alpha(0.0)
    axes.tick_params(colors=MUTED, labelsize=_LABEL_SIZE, length=0, pad=5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.grid(True, axis="y", color=GRID, linewidth=1)
    axes.set_axisbelow(True)


def plain_log_axis(axes: Axes) -> None:
    """Make the y-axis of `axes` logarithmic with plain numbers."""
    axes.set_yscale("log")
    formatter = FuncFormatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(formatter)
    low, high = axes.get_ylim()
    crowded = high / low > 30
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: "" if crowded or f"{value:e}"[0] not in "25" else f"{value:g}"))
    axes.tick_params(which="minor", colors=MUTED, labelsize=_LABEL_SIZE, length=0, pad=5)


def short(name: str, length: int = 26) -> str:
    """Return `name` cut to `length` characters."""
    return name if len(name) <= length else name[: length - 1] + "…"


def to_svg(plot: Plot, number: int) -> str:
    """Return the plot as inline SVG; `number` keeps the names inside apart from those of other figures of the page."""
    for text in plot.figure.findobj(Text):
        text.set_parse_math(False)  # a '$' in a name is a '$'
    buffer = io.StringIO()
    with matplotlib.rc_context(_SVG_SETTINGS):
        FigureCanvasSVG(plot.figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawing = buffer.getvalue()
    body = drawing[drawing.index("<svg"):]
    box = re.search(r'viewBox="([^"]+)"', body)
    assert box is not None
    inner = body[body.index(">") + 1:]
    inner = re.sub(r"<metadata>.*?</metadata>", "", inner, flags=re.DOTALL)
    inner = re.sub(r"<style[^>]*>.*?</style>", "", inner, flags=re.DOTALL)
    inner = re.sub(r"<!--.*?-->\n?", "", inner, flags=re.DOTALL)
    inner = re.sub(r"font(-family)?: ?(?:([\d.]+px) )?'DejaVu Sans'[^;\"]*", lambda m: f"font-size: {m[2]}" if m[2] else "", inner)
    inner = re.sub(r"#0000[ef]\d", lambda m: css_colour(m[0]), inner)
    prefix = f"figure{number}-"
    inner = inner.replace(' id="', f' id="{prefix}').replace("url(#", f"url(#{prefix}").replace('href="#', f'href="#{prefix}')
    return (f'<svg viewBox="{box[1]}" role="img" aria-labelledby="{prefix}title {prefix}description">'
            f'<title id="{prefix}title">{escape(plot.title)}</title>'
            f'<desc id="{prefix}description">{escape(plot.description)}</desc>{inner}')


def series_colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each name, in order, repeating after the eighth."""
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(names)}
