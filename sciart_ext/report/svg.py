"""Line plots as inline SVG: axes, curves with their numbers as hover text, a legend. Colours every reader tells apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

# Okabe and Ito's colours, told apart by colour-blind readers; without their yellow and black, which vanish on
# a light or a dark page.
PALETTE = ("#0090d0", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "6 3", "2 3", "8 3 2 3")
MAX_POINTS = 200

WIDTH, PLOT_HEIGHT = 480, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 38
LEGEND_LINE, LEGEND_NAME = 19, 34
GRID_ROW = 22

_NOT_XML = "[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
"""compiled when it is first needed: that takes as long as importing all the rest"""


@dataclass(frozen=True)
class Frame:
    """Where curves are drawn, and how their steps and values map to the page.

    left, right: of the page; low, high: values; steps: points of a curve; first: the number of the first of them;
    lane: room that the curves leave at the left.
    """

    left: float
    right: float
    low: float
    high: float
    steps: int
    first: int = 1
    lane: float = 6

    def x(self, step: int) -> float:
        start, end = self.left + self.lane, self.right - 6
        return start + (end - start) * (step / (self.steps - 1) if self.steps > 1 else 0.5)

    def y(self, value: float) -> float:
        return TOP + PLOT_HEIGHT * (self.high - value) / (self.high - self.low)


def line_plot(curves: Sequence[tuple[str, Sequence[float]]], x_title: str, y_title: str, summary: str,
              first: int = 0, places: Sequence[str] = ()) -> str:
    """Named curves as one `<svg>` element, some shorter than others perhaps; first: the number of their first point;
    places: names of the points, in place of numbers; summary: what the picture says to those who cannot see it."""
    values = [value for _, curve in curves for value in curve]
    frame = Frame(LEFT, WIDTH - RIGHT, *value_range(values), max(len(curve) for _, curve in curves), first)
    names, height = legend([(name, shortened(name), *line_style(k)) for k, (name, _) in enumerate(curves)])

    def place(step: int) -> str:
        return places[step] if places else f"{x_title} {step + first}"

    drawn = [curve_svg(thinned(curve), frame, k, lambda step, value, name=name: f"{name}, {place(step)}: {value:.4g}")
             for k, (name, curve) in enumerate(curves)]
    return svg([*axes(frame, x_title, y_title, places=places), *drawn, *names],
               TOP + PLOT_HEIGHT + BOTTOM + height, summary)


def colour_grid(rows: Sequence[tuple[str, Sequence[float]]], columns: Sequence[str], colour: Callable[[float], str],
                summary: str) -> str:
    """Named rows of values as coloured cells, one `<svg>` element; columns: their names; colour(value): as CSS has it.
    """
    width, parts, y = (WIDTH - 2 * RIGHT) / len(columns), [], 4.0
    for name, values in rows:
        parts.append(text(RIGHT, y + 11, name, "start"))
        y += 16
        parts += [f'<rect x="{RIGHT + i * width:.1f}" y="{y:.1f}" width="{width:.1f}" height="{GRID_ROW}" '
                  f'fill="{colour(value)}" stroke="currentColor" stroke-opacity="0.15">'
                  f"<title>{clean(f'{name}, {columns[i]}: {value:.3g}')}</title></rect>"
                  for i, value in enumerate(values)]
        y += GRID_ROW + 6
    every = max(math.ceil(len(columns) * 30 / WIDTH), 1)
    parts += [text(RIGHT + (i + 0.5) * width, y + 8, columns[i]) for i in range(0, len(columns), every)]
    return svg(parts, y + 16, summary)


def svg(parts: Sequence[str], height: float, summary: str) -> str:
    """The element around its parts."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" class="sciart-plot" viewBox="0 0 {WIDTH} {height:g}" '
            f'role="img" aria-label={attribute(summary)} font-size="11.5" font-family="inherit" '
            f'fill="none" stroke="none">{"".join(parts)}</svg>')


def thinned(values: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """(step, value) of every step; of more than `MAX_POINTS`, evenly chosen ones with first and last."""
    last = len(values) - 1
    if last < MAX_POINTS:
        return tuple(enumerate(values))
    chosen = sorted({round(i * last / (MAX_POINTS - 1)) for i in range(MAX_POINTS)})
    return tuple((step, values[step]) for step in chosen)


def value_range(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest of a plot: zero and all values, with a little room."""
    low, high = min([0.0, *values]), max([0.0, *values])
    room = 0.08 * (high - low) or 0.5
    return low - (room if low < 0 else 0.0), high + room


def axes(frame: Frame, x_title: str, y_title: str, with_labels: bool = True,
         places: Sequence[str] = ()) -> list[str]:
    """Lines and numbers; with_labels: of the values too, not only of the steps; places: names in place of numbers."""
    bottom, parts = TOP + PLOT_HEIGHT, ['<g class="axes" stroke="currentColor">']
    for value in _ticks(frame.low, frame.high, 4):
        y = frame.y(value)
        opacity = 0.5 if value == 0 else 0.15
        parts.append(f'<line {from_to(frame.left, y, frame.right, y)} stroke-opacity="{opacity}"/>')
        if with_labels:
            parts.append(text(frame.left - 6, y + 4, f"{value:g}", "end"))
    parts.append(f'<line {from_to(frame.left, TOP, frame.left, bottom)} stroke-opacity="0.5"/>')
    if with_labels:
        middle = TOP + PLOT_HEIGHT / 2
        parts.append(text(12, middle, y_title, "middle", f'transform="rotate(-90 12 {middle:g})"'))
    for step in _step_ticks(frame.steps, frame.right - frame.left, frame.first):
        x = frame.x(step)
        parts.append(f'<line {from_to(x, bottom, x, bottom + 4)} stroke-opacity="0.5"/>')
        anchor = "end" if places and step == frame.steps - 1 > 0 else "middle"  # a name may be wider than what is left
        parts.append(text(x + (6 if anchor == "end" else 0), bottom + 16,
                          places[step] if places else str(step + frame.first), anchor))
    parts.append(text((frame.left + frame.lane + frame.right) / 2, bottom + 32, x_title))
    return [*parts, "</g>"]


def curve_svg(points: Sequence[tuple[int, float]], frame: Frame, k: int, hover: Callable[[int, float], str],
              more: str = "") -> str:
    """The k-th curve's (step, value) points; hover(step, value): what is told there; more: drawn with it."""
    return drawn_line([(frame.x(step), frame.y(value), hover(step, value)) for step, value in points],
                      *line_style(k), more)


def drawn_line(points: Sequence[tuple[float, float, str]], color: str, dashes: str, more: str = "") -> str:
    """Points of the page and what is told at each; more: drawn between line and points."""
    line = " ".join(f"{x:.1f},{y:.2f}" for x, y, _ in points)
    radius = 2.6 if len(points) <= 60 else 1.6
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.2f}" r="{radius}"><title>{clean(told)}</title></circle>'
                   for x, y, told in points)
    return (f'<g class="curve"><polyline points="{line}" stroke="{color}" stroke-width="2" '
            f'stroke-linejoin="round"{dashed(dashes)}/>{more}'
            # the wide transparent outline makes a small dot easy to point at
            f'<g fill="{color}" stroke="transparent" stroke-width="8" pointer-events="all">{dots}</g></g>')


def legend(entries: Sequence[tuple[str, str, str, str]], kinds: Sequence[str] = (),
           top: float = TOP + PLOT_HEIGHT + BOTTOM) -> tuple[list[str], float]:
    """(hover, text, colour, dash) of each line under a plot, as many beside each other as fit; and the height they
    take. kinds: classes, `entry` by default; top: where the plot ends."""
    if not entries:
        return [], 0.0
    parts, x, y = ['<g class="legend">'], float(LEFT), top + 14.0
    for (title, label, color, dashes), kind in zip(entries, kinds or ["entry"] * len(entries)):
        width = 26 + _text_width(label) + 14
        if x > LEFT and x + width > WIDTH:
            x, y = float(LEFT), y + LEGEND_LINE
        parts.append(f'<g class="{kind}"><title>{clean(title)}</title>'
                     f'<line {from_to(x, y - 4, x + 20, y - 4)} stroke="{color}" stroke-width="3"{dashed(dashes)}/>'
                     f'{text(x + 26, y, label, "start")}</g>')
        x += width
    return [*parts, "</g>"], y + 8 - top


def line_style(k: int) -> tuple[str, str]:
    """Colour and dash of the k-th curve."""
    return PALETTE[k % len(PALETTE)], dash(k)


def dash(k: int) -> str:
    return DASHES[k // len(PALETTE) % len(DASHES)]


def dashed(dashes: str) -> str:
    return f' stroke-dasharray="{dashes}"' if dashes else ""


def text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor" stroke="none" {more}>'
            f"{clean(words)}</text>")


def from_to(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'x1="{x1:.1f}" y1="{y1:.2f}" x2="{x2:.1f}" y2="{y2:.2f}"'


def shortened(name: str) -> str:
    return name if len(name) <= LEGEND_NAME else name[:LEGEND_NAME - 1] + "…"


def without_controls(words: str) -> str:
    """What XML forbids is replaced."""
    return re.sub(_NOT_XML, "\ufffd", words)


def clean(words: str) -> str:
    """As an element's text."""
    return escape(without_controls(words))


def attribute(words: str) -> str:
    """As an attribute's value, quotes included."""
    return quoteattr(without_controls(words))


def _text_width(words: str) -> float:
    """About how wide they are drawn; wide (CJK) characters count double."""
    return sum(12.5 if ord(character) > 0x1100 else 6.6 for character in words)


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from `low` to `high`, `about` so many."""
    raw = (high - low) / about
    scale = 10 ** math.floor(math.log10(raw))
    unit = next(factor * scale for factor in (1, 2, 2.5, 5, 10) if factor * scale >= raw * 0.999)
    first, last = math.ceil(low / unit - 1e-9), math.floor(high / unit + 1e-9)
    return [round(i * unit, 10) for i in range(first, last + 1)]


def _step_ticks(steps: int, width: float, first: int) -> list[int]:
    """Steps (0-based) that are labelled: the first, the last and those with round numbers between."""
    if steps == 1:
        return [0]
    unit = max(int(_ticks(0, steps, max(int(width / 60), 2))[1]), 1)
    inner = [number - first for number in range(unit, steps + first, unit)]
    return [0, *(step for step in inner if step >= unit * 0.6 and steps - 1 - step >= unit * 0.6), steps - 1]
