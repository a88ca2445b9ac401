"""The page: its looks, and the few kinds of blocks it is made of. Every text that comes from outside is escaped here."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from experiments.report.drawing import Key, Plot, css_colour, to_svg


@dataclass(frozen=True)
class Tile:
    """A key figure."""

    label: str
    value: str
    note: str = ""


class Page:
    """Collects blocks and returns them as one HTML document that asks for nothing from outside."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []
        self._figures = 0
        self._open = False

    def header(self, eyebrow: str, title: str, sentence: str, badge: tuple[str, bool] | None) -> None:
        """Open the page; `badge` is a word and whether it is good news."""
        mark = f'<span class="badge {"good" if badge[1] else "open"}">{escape(badge[0])}</span>' if badge else ""
        self._parts.append(f'<header><p class="eyebrow">{escape(eyebrow)}</p><h1>{escape(title)} {mark}</h1>'
                           f'<p class="lead">{escape(sentence)}</p></header>')

    def section(self, title: str, text: str = "") -> None:
        """Begin a section; the blocks that follow belong to it."""
        self._close()
        self._open = True
        lead = f'<p class="about">{escape(text)}</p>' if text else ""
        self._parts.append(f"<section><h2>{escape(title)}</h2>{lead}")

    def tiles(self, tiles: Sequence[Tile]) -> None:
        """Show key figures."""
        items = "".join(f'<div class="tile"><dt>{escape(t.label)}</dt><dd><span class="value">{escape(t.value)}</span>'
                        f'<span class="note">{escape(t.note)}</span></dd></div>' for t in tiles)
        self._parts.append(f'<dl class="tiles">{items}</dl>')

    def notice(self, text: str) -> None:
        """Say what is missing and why."""
        self._parts.append(f'<p class="notice">{escape(text)}</p>')

    def legend(self, keys: Sequence[Key]) -> None:
        """Show a legend that several plots share."""
        self._parts.append(_legend(keys))

    def plots(self, plots: Iterable[Plot | None], columns: int | str = 2) -> None:
        """Show plots in a grid that becomes one column on a phone; None is left out. Two that lead: `columns` of 'lead'."""
        shown = [self._plot(plot) for plot in plots if plot is not None]
        if shown:
            self._parts.append(f'<div class="grid columns-{columns}">{"".join(shown)}</div>')

    def videos(self, videos: Sequence[tuple[Path, str, str]], columns: int | str = 2) -> None:
        """Show videos (path, title, caption) side by side, carried within the page; `columns` as in `plots`."""
        figures = []
        for path, title, caption in videos:
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            figures.append(f'<figure class="card video"><video controls loop muted autoplay playsinline aria-label="{escape(title)}" '
                           f'src="data:video/mp4;base64,{data}"></video><figcaption><strong>{escape(title)}</strong> '
                           f"{escape(caption)}</figcaption></figure>")
        self._parts.append(f'<div class="grid columns-{columns}">{"".join(figures)}</div>')

    def command(self, text: str) -> None:
        """Show a command to type."""
        self._parts.append(f'<pre class="command"><code>{escape(text)}</code></pre>')

    def table(self, summary: str, head: Sequence[str], rows: Iterable[Sequence[str]], numeric: bool,
              unfolded: bool = False) -> None:
        """Show a table, folded away under `summary` or not; `numeric`: all but the first two columns are aligned as numbers."""
        kind = ' class="numeric"' if numeric else ""
        titles = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        self._parts.append(f'<details{" open" if unfolded else ""}><summary>{escape(summary)}</summary>'
                           f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(summary)}">'
                           f"<table{kind}><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div></details>")

    def document(self, footer: str) -> str:
        """Return the whole document."""
        self._close()
        return ("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
                f'<link rel="icon" href="data:,"><title>{escape(self._title)}</title><style>{_STYLE}</style></head>\n<body><main>'
                + "\n".join(self._parts) + f"</main><footer>{escape(footer)}</footer>{_SCRIPT}</body></html>\n")

    def _plot(self, plot: Plot) -> str:
        self._figures += 1
        note = f'<p class="small">{escape(plot.note)}</p>' if plot.note else ""
        legend = _legend(plot.legend) if plot.legend else ""
        return (f'<figure class="card"><figcaption><h3>{escape(plot.title)}</h3>{legend}</figcaption>'
                f"{to_svg(plot, self._figures)}{note}</figure>")

    def _close(self) -> None:
        if self._open:
            self._parts.append("</section>")
        self._open = False


def _legend(keys: Sequence[Key]) -> str:
    items = "".join(f'<li><span class="key {key.style}" style="--key: {css_colour(key.colour)}"></span>{escape(key.label)}</li>'
                    for key in keys)
    return f'<ul class="legend">{items}</ul>'


# A person who asked their machine for less motion sees the videos stand still.
_SCRIPT = ("<script>if (matchMedia('(prefers-reduced-motion: reduce)').matches)"
           " document.querySelectorAll('video').forEach(v => { v.autoplay = false; v.pause(); });</script>")

_STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #16191f; --muted: #5c6470; --grid: #e4e7ec; --line: #dfe3e8; --warn: #c22f3d;
  --good: #0f7a55; --good-back: #dcf3e8; --open-back: #e9ebef;
  --series-0: #2461d6; --series-1: #d4691b; --series-2: #0f8a63; --series-3: #8449c4; --series-4: #c73d6b; --series-5: #a17a05;
  --series-6: #1487a0; --series-7: #6b7280;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1217; --card: #181c23; --ink: #eceff4; --muted: #9ba5b3; --grid: #2a303a; --line: #2a303a; --warn: #ff7680;
    --good: #5fdcaa; --good-back: #123428; --open-back: #262c36;
    --series-0: #75a6ff; --series-1: #ffa05c; --series-2: #4fd3a2; --series-3: #c39bff; --series-4: #ff86ad; --series-5: #e3c04f;
    --series-6: #5fcbe0; --series-7: #a3acb9;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.55; -webkit-text-size-adjust: 100%;
  font-family: Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, footer { max-width: 1120px; margin: 0 auto; padding: 0 20px; }
header { padding: 52px 0 8px; }
.eyebrow { margin: 0 0 6px; color: var(--muted); font-size: .82rem; letter-spacing: .08em; text-transform: uppercase; }
h1 { margin: 0; font-size: clamp(1.9rem, 5vw, 2.8rem); line-height: 1.12; letter-spacing: -.02em; overflow-wrap: anywhere; }
.badge { display: inline-block; vertical-align: middle; margin-left: 6px; padding: 3px 12px; border-radius: 99px; font-size: .85rem;
  letter-spacing: 0; font-weight: 600; line-height: 1.6; }
.badge.good { color: var(--good); background: var(--good-back); }
.badge.open { color: var(--muted); background: var(--open-back); }
.lead { margin: 14px 0 0; font-size: 1.16rem; max-width: 46em; }
section { margin-top: 52px; }
h2 { margin: 0 0 4px; font-size: 1.42rem; letter-spacing: -.01em; }
h3 { margin: 0; font-size: 1rem; font-weight: 600; overflow-wrap: anywhere; }
.about { margin: 0 0 18px; color: var(--muted); max-width: 52em; }
h2 + .grid, h2 + details { margin-top: 16px; }
.tiles { display: grid; grid-template-columns: repeat(6, 1fr); gap: 12px; margin: 28px 0 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px; }
dt { color: var(--muted); font-size: .84rem; }
dd { margin: 0; }
.value { display: block; font-size: 1.55rem; font-weight: 650; letter-spacing: -.02em; white-space: nowrap; }
.note { display: block; color: var(--muted); font-size: .8rem; line-height: 1.35; }
.grid { display: grid; gap: 16px; }
.grid + .grid, .legend + .grid, .notice + .grid { margin-top: 16px; }
.columns-2 { grid-template-columns: repeat(2, minmax(0, 1fr)); }
.columns-3 { grid-template-columns: repeat(3, minmax(0, 1fr)); }
.columns-lead { grid-template-columns: minmax(0, 1.62fr) minmax(0, 1fr); }
.card { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 16px 18px 12px; min-width: 0; }
.card svg { display: block; width: 100%; height: auto; margin-top: 10px; overflow: visible; stroke-linejoin: round; }
.small { margin: 8px 0 4px; color: var(--muted); font-size: .84rem; line-height: 1.45; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 4px 0 0; padding: 0; color: var(--muted);
  font-size: .84rem; }
.legend li { display: inline-flex; align-items: center; gap: 7px; }
.key { flex: none; width: 18px; height: 0; border-top: 2.5px solid var(--key); border-radius: 2px; }
.key.dashed { height: 2.5px; border: 0; background: repeating-linear-gradient(90deg, var(--key) 0 5px, transparent 5px 8px); }
.key.broad { border-top-width: 5px; opacity: .38; }
.key.area { width: 12px; height: 12px; border: 0; border-radius: 3px; background: var(--key); }
.key.faint { width: 12px; height: 12px; border: 0; border-radius: 3px; background: var(--key); opacity: .3; }
.key.dot { width: 9px; height: 9px; border: 0; border-radius: 50%; background: var(--key); }
.key.ring { width: 10px; height: 10px; border: 2px solid var(--key); border-radius: 50%; }
.video { padding: 0; overflow: hidden; }
.video video { display: block; width: 100%; height: auto; aspect-ratio: 4 / 3; }
.video figcaption { padding: 12px 18px 14px; color: var(--muted); }
.video strong { color: var(--ink); }
.notice { margin: 16px 0 0; padding: 12px 16px; border-left: 3px solid var(--muted); background: var(--card); border-radius: 0 10px 10px 0;
  color: var(--muted); overflow-wrap: anywhere; }
.command { margin: 0; padding: 14px 18px; overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .92rem; }
details { margin-top: 12px; background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
summary { padding: 12px 18px; cursor: pointer; font-weight: 600; }
.scroll { overflow-x: auto; padding: 0 18px 14px; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px 6px 0; text-align: left; border-top: 1px solid var(--line); vertical-align: top; }
thead th { border-top: 0; color: var(--muted); font-weight: 500; white-space: nowrap; }
.numeric th:nth-child(n+3), .numeric td:nth-child(n+3) { text-align: right; white-space: nowrap; }
footer { margin-top: 56px; padding-bottom: 48px; color: var(--muted); font-size: .84rem; overflow-wrap: anywhere; }
:focus-visible { outline: 2px solid var(--series-0); outline-offset: 2px; }
@media (max-width: 1000px) {
  .tiles { grid-template-columns: repeat(3, 1fr); }
  .columns-3 { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .columns-lead { grid-template-columns: minmax(0, 1fr); }
}
@media (max-width: 700px) {
  main, footer { padding-left: 14px; padding-right: 14px; }
  header { padding-top: 30px; }
  .lead { font-size: 1.05rem; }
  section { margin-top: 40px; }
  .tiles { grid-template-columns: repeat(2, 1fr); }
  .columns-2, .columns-3, .columns-lead { grid-template-columns: minmax(0, 1fr); }
  .columns-2 svg text { font-size: 12px !important; }
  .columns-lead figure:first-child svg text { font-size: 13px !important; }
  .card { padding: 14px 12px 10px; }
  .card.video { padding: 0; }
}
@media print { body { background: none; } .card, .tile { break-inside: avoid; } }
"""
