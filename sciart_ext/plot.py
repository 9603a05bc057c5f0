"""A plan as a picture: inline SVG for panel and API, PNG for files. One curve per LoRA, a panel per pass."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from .errors import SciArtError
from .plan import PassPlan, Plan

# Okabe and Ito's colours, told apart by colour-blind readers; without their yellow and black, which vanish on
# a light or a dark page.
PALETTE = ("#0090d0", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "6 3", "2 3", "8 3 2 3")
MAX_POINTS = 200

WIDTH, PLOT_HEIGHT = 480, 150
LEFT, RIGHT, TOP, BOTTOM, TE_LANE, GAP = 46, 10, 10, 38, 22, 14
LEGEND_LINE, LEGEND_NAME = 19, 34

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_APPLIES = {"both": "", "cond": " (prompt only)", "uncond": " (negative prompt only)"}


@dataclass(frozen=True)
class _Curve:
    """One LoRA in one pass: what is drawn."""

    name: str
    steps: int
    te_weight: float
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class _Frame:
    """Where one pass is drawn, and how its steps and weights map to the page."""

    left: float
    right: float
    low: float
    high: float
    steps: int

    def x(self, step: int) -> float:
        start, end = self.left + TE_LANE, self.right - 6
        return start + (end - start) * (step / (self.steps - 1) if self.steps > 1 else 0.5)

    def y(self, weight: float) -> float:
        return TOP + PLOT_HEIGHT * (self.high - weight) / (self.high - self.low)


def plan_svg(plan: Plan) -> str:
    """The plan as one `<svg>` element: weights over the steps, each point's numbers as its hover text."""
    passes = _passes(plan)
    low, high = _range(passes)
    frames = _frames(plan, low, high)
    legend, legend_height = _legend(plan.first)
    height = TOP + PLOT_HEIGHT + BOTTOM + legend_height
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" class="sciart-plot" viewBox="0 0 {WIDTH} {height:g}" '
             f'role="img" aria-label={_attribute(_summary(plan))} font-size="11.5" font-family="inherit" '
             'fill="none" stroke="none">']
    titles = ["step"] if plan.hires is None else ["step of the first pass", "step of the hires pass"]
    for i, (frame, curves, title) in enumerate(zip(frames, passes, titles)):
        parts += _axes(frame, title, with_labels=i == 0)
        parts += [_curve_svg(curve, frame, k) for k, curve in enumerate(curves)]
    if len(frames) == 2:
        x = (frames[0].right + frames[1].left) / 2
        parts.append(f'<line class="divider" {_from_to(x, TOP, x, TOP + PLOT_HEIGHT + 20)} '
                     'stroke="currentColor" stroke-opacity="0.6" stroke-dasharray="4 3"/>')
    return "".join([*parts, *legend, "</svg>"])


def plan_png(plan: Plan, width: int = 960, height: int = 480) -> bytes:
    """The plan as a PNG of `width` x `height` pixels, on white; needs matplotlib, which the host installs."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SciArtError("plot", f"a PNG needs matplotlib, which is not installed here ({error}); "
                                  "ask for the SVG, or install matplotlib") from None
    passes = _passes(plan)
    dpi = 100
    figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi, layout="constrained")
    axes = figure.subplots(1, len(passes), sharey=True, squeeze=False,
                           width_ratios=_shares(plan))[0]
    for axis, curves, title in zip(axes, passes, ("step", "hires step")):
        for k, curve in enumerate(curves):
            color, style = PALETTE[k % len(PALETTE)], _png_dash(k)
            axis.plot([step + 1 for step, _ in curve.points], [weight for _, weight in curve.points],
                      color=color, linestyle=style, marker="o", markersize=3, label=_literal(curve.name))
            axis.axhline(curve.te_weight, xmax=0.03, color=color, linestyle=(0, (2, 1)))
        axis.set_xlabel(title)
        axis.set_ylim(*_range(passes))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("weight")
    if passes[0]:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _passes(plan: Plan) -> list[list[_Curve]]:
    """The curves of the first pass and, where there is one, of the hires pass; numbers are `plan.table`'s."""
    return [[_Curve(lora["name"] + _APPLIES[lora["apply_to"]], table["steps"], lora["te_weight"],
                    _thinned(lora["weights"])) for lora in table["loras"]]
            for table in plan.table().values() if table is not None]


def _thinned(weights: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """(step, weight) of every step; of more than `MAX_POINTS`, evenly chosen ones with first and last."""
    last = len(weights) - 1
    if last < MAX_POINTS:
        return tuple(enumerate(weights))
    chosen = sorted({round(i * last / (MAX_POINTS - 1)) for i in range(MAX_POINTS)})
    return tuple((step, weights[step]) for step in chosen)


def _range(passes: Iterable[Iterable[_Curve]]) -> tuple[float, float]:
    """Lowest and highest weight of the plot: zero and all weights, with a little room."""
    values = [0.0]
    for curve in (curve for curves in passes for curve in curves):
        values += [curve.te_weight, *(weight for _, weight in curve.points)]
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.5
    return low - (room if low < 0 else 0.0), high + room


def _shares(plan: Plan) -> list[float]:
    """How the width is divided between the passes: by steps, but never less than 30 percent."""
    if plan.hires is None:
        return [1.0]
    share = plan.first.steps / (plan.first.steps + plan.hires.steps)
    share = min(max(share, 0.3), 0.7)
    return [share, 1 - share]


def _frames(plan: Plan, low: float, high: float) -> list[_Frame]:
    shares = _shares(plan)
    room = WIDTH - LEFT - RIGHT - GAP * (len(shares) - 1)
    middle = LEFT + room * shares[0]
    frames = [_Frame(LEFT, middle, low, high, plan.first.steps)]
    if plan.hires is not None:
        frames.append(_Frame(middle + GAP, WIDTH - RIGHT, low, high, plan.hires.steps))
    return frames


def _axes(frame: _Frame, title: str, with_labels: bool) -> list[str]:
    bottom, parts = TOP + PLOT_HEIGHT, ['<g class="axes" stroke="currentColor">']
    for weight in _ticks(frame.low, frame.high, 4):
        y = frame.y(weight)
        opacity = 0.5 if weight == 0 else 0.15
        parts.append(f'<line {_from_to(frame.left, y, frame.right, y)} stroke-opacity="{opacity}"/>')
        if with_labels:
            parts.append(_text(frame.left - 6, y + 4, f"{weight:g}", "end"))
    parts.append(f'<line {_from_to(frame.left, TOP, frame.left, bottom)} stroke-opacity="0.5"/>')
    if with_labels:
        middle = TOP + PLOT_HEIGHT / 2
        parts.append(_text(12, middle, "weight", "middle", f'transform="rotate(-90 12 {middle:g})"'))
    for step in _step_ticks(frame.steps, frame.right - frame.left):
        x = frame.x(step)
        parts.append(f'<line {_from_to(x, bottom, x, bottom + 4)} stroke-opacity="0.5"/>')
        parts.append(_text(x, bottom + 16, str(step + 1)))
    parts.append(_text((frame.left + TE_LANE + frame.right) / 2, bottom + 32, title))
    return [*parts, "</g>"]


def _curve_svg(curve: _Curve, frame: _Frame, k: int) -> str:
    color, dash = PALETTE[k % len(PALETTE)], _dash(k)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    line = " ".join(f"{frame.x(step):.1f},{frame.y(weight):.2f}" for step, weight in curve.points)
    y = frame.y(curve.te_weight)
    radius = 2.6 if len(curve.points) <= 60 else 1.6
    points = "".join(
        f'<circle cx="{frame.x(step):.1f}" cy="{frame.y(weight):.2f}" r="{radius}">'
        f"<title>{_clean(curve.name)}, step {step + 1} of {curve.steps}: {weight:g}</title></circle>"
        for step, weight in curve.points)
    return (f'<g class="curve"><polyline points="{line}" stroke="{color}" stroke-width="2" '
            f'stroke-linejoin="round"{dashed}/>'
            f'<line class="te" {_from_to(frame.left + 1, y, frame.left + 13, y)} '
            f'stroke="{color}" stroke-width="2.5" stroke-dasharray="3 1.5">'
            f"<title>{_clean(curve.name)}, text encoder: {curve.te_weight:g}</title></line>"
            # the wide transparent outline makes a small dot easy to point at
            f'<g fill="{color}" stroke="transparent" stroke-width="8" pointer-events="all">{points}</g></g>')


def _legend(plan: PassPlan) -> tuple[list[str], float]:
    """The names under the plot, as many on a line as fit; and the height they take."""
    if not plan.loras:
        return [], 0.0
    entries = [("entry", lora.label, _shortened(lora.label) + _APPLIES[lora.apply_to],
                PALETTE[k % len(PALETTE)], _dash(k)) for k, lora in enumerate(plan.loras)]
    entries.append(("key", "weight of the text encoder", "text encoder", "currentColor", "3 1.5"))
    parts, x, y = ['<g class="legend">'], float(LEFT), TOP + PLOT_HEIGHT + BOTTOM + 14.0
    for kind, title, text, color, dash in entries:
        width = 26 + _text_width(text) + 14
        if x > LEFT and x + width > WIDTH:
            x, y = float(LEFT), y + LEGEND_LINE
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<g class="{kind}"><title>{_clean(title)}</title>'
                     f'<line {_from_to(x, y - 4, x + 20, y - 4)} stroke="{color}" stroke-width="3"{dashed}/>'
                     f'{_text(x + 26, y, text, "start")}</g>')
        x += width
    return [*parts, "</g>"], y + 8 - (TOP + PLOT_HEIGHT + BOTTOM)


def _shortened(name: str) -> str:
    return name if len(name) <= LEGEND_NAME else name[:LEGEND_NAME - 1] + "…"


def _text(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor" stroke="none" {more}>'
            f"{_clean(text)}</text>")


def _from_to(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'x1="{x1:.1f}" y1="{y1:.2f}" x2="{x2:.1f}" y2="{y2:.2f}"'


def _text_width(text: str) -> float:
    """About how wide `text` is drawn; wide (CJK) characters count double."""
    return sum(12.5 if ord(character) > 0x1100 else 6.6 for character in text)


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from `low` to `high`, `about` so many."""
    raw = (high - low) / about
    scale = 10 ** math.floor(math.log10(raw))
    unit = next(factor * scale for factor in (1, 2, 2.5, 5, 10) if factor * scale >= raw * 0.999)
    first, last = math.ceil(low / unit - 1e-9), math.floor(high / unit + 1e-9)
    return [round(i * unit, 10) for i in range(first, last + 1)]


def _step_ticks(steps: int, width: float) -> list[int]:
    """Steps (0-based) that are labelled: the first, the last and round numbers between."""
    if steps == 1:
        return [0]
    unit = max(int(_ticks(0, steps, max(int(width / 60), 2))[1]), 1)
    inner = [step for step in range(unit - 1, steps - 1, unit) if step > 0 and steps - 1 - step >= unit * 0.6]
    return [0, *(step for step in inner if step >= unit * 0.6), steps - 1]


def _dash(k: int) -> str:
    return DASHES[k // len(PALETTE) % len(DASHES)]


def _png_dash(k: int) -> str | tuple:
    dash = _dash(k)
    return (0, tuple(float(length) for length in dash.split())) if dash else "-"


def _summary(plan: Plan) -> str:
    passes = f"{plan.first.steps} steps" + (f" and {plan.hires.steps} hires steps" if plan.hires else "")
    return f"Weights of {', '.join(lora.label for lora in plan.first.loras) or 'no LoRA'} over {passes}"


def _literal(name: str) -> str:
    """`name` so that matplotlib draws it as it is: not as mathematics, nor hidden for its leading `_`."""
    name = _NOT_XML.sub("\ufffd", name).replace("$", r"\$")
    return "\u200b" + name if name.startswith("_") else name


def _clean(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))


def _attribute(text: str) -> str:
    return quoteattr(_NOT_XML.sub("\ufffd", text))
