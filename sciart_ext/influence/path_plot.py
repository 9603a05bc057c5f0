"""Paths in two dimensions as inline SVG: on equal scales, a dot for each step, from which one reads its number."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..report.svg import LEFT, RIGHT, TOP, WIDTH, drawn_line, from_to, legend, shortened, svg, text

HEIGHT = 300
QUIET = ("#888888", "1 3")


def path_plot(paths: Sequence[tuple[str, Tensor, tuple[str, str]]], titles: tuple[str, str], summary: str) -> str:
    """(name, points (steps + 1, 2), (colour, dash)) of each; titles: of the axes. Unnamed ones are not in the legend.
    """
    every = [tuple(point) for _, points, _ in paths for point in points.tolist()]
    left, right = min(x for x, _ in every), max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)
    scale = min((WIDTH - LEFT - RIGHT - 20) / (right - left or 1), (HEIGHT - 50) / (high - low or 1))
    middle = (LEFT + WIDTH - RIGHT) / 2, TOP + (HEIGHT - 30) / 2

    def placed(x: float, y: float) -> tuple[float, float]:
        return middle[0] + (x - (left + right) / 2) * scale, middle[1] - (y - (low + high) / 2) * scale

    lines = []
    for name, points, style in reversed(paths):
        lines.append(drawn_line([(*placed(x, y), f"{name or 'other set'}, step {step}")
                                 for step, (x, y) in enumerate(points.tolist())], *style))
    names, height = legend([(name, shortened(name), *style) for name, _, style in paths if name], top=TOP + HEIGHT)
    bottom = TOP + HEIGHT - 26
    frame = ['<g class="axes" stroke="currentColor" stroke-opacity="0.5">',
             f'<line {from_to(LEFT, bottom, WIDTH - RIGHT, bottom)}/><line {from_to(LEFT, TOP, LEFT, bottom)}/>',
             text((LEFT + WIDTH - RIGHT) / 2, bottom + 18, titles[0]),
             text(LEFT - 14, (TOP + bottom) / 2, titles[1], "middle",
                  f'transform="rotate(-90 {LEFT - 14} {(TOP + bottom) / 2:g})"'), "</g>"]
    return svg([*frame, *lines, *names], TOP + HEIGHT + height, summary)
