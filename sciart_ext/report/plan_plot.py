"""A plan as a picture: inline SVG for panel and API, PNG for files. One curve per LoRA, a panel per pass."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import SciArtError
from ..recipe import PassPlan, Plan
from .svg import (
    BOTTOM,
    LEFT,
    PALETTE,
    PLOT_HEIGHT,
    RIGHT,
    TOP,
    WIDTH,
    Frame,
    axes,
    clean,
    drawn_line,
    from_to,
    legend,
    line_style,
    shortened,
    svg,
    thinned,
    value_range,
    without_controls,
)

TE_LANE, GAP = 22, 14
TE_DASH = "3 1.5"
NEGATIVE_DASH = "1.5 3"

_APPLIES = {"both": "", "cond": " (prompt only)", "uncond": " (negative prompt only)"}


@dataclass(frozen=True)
class _Curve:
    """One LoRA in one pass: what is drawn."""

    number: int
    """of the LoRA"""
    name: str
    steps: int
    te_weight: float
    points: tuple[tuple[int, float], ...]
    negative: bool = False
    """its weights in the negative prompt, where they are others"""


def plan_svg(plan: Plan) -> str:
    """The plan as one `<svg>` element: weights over the steps, each point's numbers as its hover text."""
    passes = _passes(plan)
    frames = _frames(plan, *_range(passes))
    names, legend_height = _legend(plan.first, any(curve.negative for curves in passes for curve in curves))
    parts = []
    titles = ["step"] if plan.hires is None else ["step of the first pass", "step of the hires pass"]
    for i, (frame, curves, title) in enumerate(zip(frames, passes, titles)):
        parts += axes(frame, title, "weight", with_labels=i == 0)
        parts += [_curve_svg(curve, frame) for curve in curves]
    if len(frames) == 2:
        x = (frames[0].right + frames[1].left) / 2
        parts.append(f'<line class="divider" {from_to(x, TOP, x, TOP + PLOT_HEIGHT + 20)} '
                     'stroke="currentColor" stroke-opacity="0.6" stroke-dasharray="4 3"/>')
    return svg([*parts, *names], TOP + PLOT_HEIGHT + BOTTOM + legend_height, _summary(plan))


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
    subplots = figure.subplots(1, len(passes), sharey=True, squeeze=False,
                           width_ratios=_shares(plan))[0]
    for axis, curves, title in zip(subplots, passes, ("step", "hires step")):
        for curve in curves:
            color, style = PALETTE[curve.number % len(PALETTE)], _png_dash(curve)
            axis.plot([step + 1 for step, _ in curve.points], [weight for _, weight in curve.points],
                      color=color, linestyle=style, marker="o", markersize=3, label=_literal(curve.name))
            axis.axhline(curve.te_weight, xmax=0.03, color=color, linestyle=(0, (2, 1)))
        axis.set_xlabel(title)
        axis.set_ylim(*_range(passes))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    subplots[0].set_ylabel("weight")
    if passes[0]:
        handles, labels = subplots[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _passes(plan: Plan) -> list[list[_Curve]]:
    """The curves of the first pass and, where there is one, of the hires pass; numbers are `plan.table`'s."""
    return [[curve for k, lora in enumerate(table["loras"]) for curve in _curves(k, lora, table["steps"])]
            for table in plan.table().values() if table is not None]


def _curves(k: int, lora: dict, steps: int) -> Iterator[_Curve]:
    """Its weights, and those in the negative prompt where they are others."""
    yield _Curve(k, lora["name"] + _APPLIES[lora["apply_to"]], steps, lora["te_weight"], thinned(lora["weights"]))
    if "negative" in lora:
        negative = lora["negative"]
        yield _Curve(k, f"{lora['name']} (negative prompt)", steps, negative["te_weight"], thinned(negative["weights"]),
                     True)


def _range(passes: Iterable[Iterable[_Curve]]) -> tuple[float, float]:
    return value_range([value for curves in passes for curve in curves
                        for value in (curve.te_weight, *(weight for _, weight in curve.points))])


def _shares(plan: Plan) -> list[float]:
    """How the width is divided between the passes: by steps, but never less than 30 percent."""
    if plan.hires is None:
        return [1.0]
    share = plan.first.steps / (plan.first.steps + plan.hires.steps)
    share = min(max(share, 0.3), 0.7)
    return [share, 1 - share]


def _frames(plan: Plan, low: float, high: float) -> list[Frame]:
    shares = _shares(plan)
    room = WIDTH - LEFT - RIGHT - GAP * (len(shares) - 1)
    middle = LEFT + room * shares[0]
    frames = [Frame(LEFT, middle, low, high, plan.first.steps, lane=TE_LANE)]
    if plan.hires is not None:
        frames.append(Frame(middle + GAP, WIDTH - RIGHT, low, high, plan.hires.steps, lane=TE_LANE))
    return frames


def _curve_svg(curve: _Curve, frame: Frame) -> str:
    y = frame.y(curve.te_weight)
    color, dashes = _style(curve)
    text_encoder = (f'<line class="te" {from_to(frame.left + 1, y, frame.left + 13, y)} stroke="{color}" '
                    f'stroke-width="2.5" stroke-dasharray="{TE_DASH}">'
                    f"<title>{clean(curve.name)}, text encoder: {curve.te_weight:g}</title></line>")
    points = [(frame.x(step), frame.y(weight), f"{curve.name}, step {step + 1} of {curve.steps}: {weight:g}")
              for step, weight in curve.points]
    return drawn_line(points, color, dashes, text_encoder)


def _style(curve: _Curve) -> tuple[str, str]:
    color, dashes = line_style(curve.number)
    return color, NEGATIVE_DASH if curve.negative else dashes


def _legend(plan: PassPlan, has_negative: bool) -> tuple[list[str], float]:
    """The LoRAs' names, and what the dashes of the text encoder and of the negative prompt are."""
    if not plan.loras:
        return [], 0.0
    entries = [(lora.label, shortened(lora.label) + _APPLIES[lora.apply_to], *line_style(k))
               for k, lora in enumerate(plan.loras)]
    keys = [("weight of the text encoder", "text encoder", "currentColor", TE_DASH)]
    if has_negative:
        keys.append(("weight in the negative prompt", "negative prompt", "currentColor", NEGATIVE_DASH))
    return legend([*entries, *keys], ["entry"] * len(entries) + ["key"] * len(keys))


def _png_dash(curve: _Curve) -> str | tuple:
    _, dashes = _style(curve)
    return (0, tuple(float(length) for length in dashes.split())) if dashes else "-"


def _summary(plan: Plan) -> str:
    passes = f"{plan.first.steps} steps" + (f" and {plan.hires.steps} hires steps" if plan.hires else "")
    return f"Weights of {', '.join(lora.label for lora in plan.first.loras) or 'no LoRA'} over {passes}"


def _literal(name: str) -> str:
    """`name` so that matplotlib draws it as it is: not as mathematics, nor hidden for its leading `_`."""
    name = without_controls(name).replace("$", r"\$")
    return "\u200b" + name if name.startswith("_") else name
