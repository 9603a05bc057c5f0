"""The geometry of LoRAs as one HTML file: sentences, cosines and overlaps by depth as colours and curves, tables."""

from __future__ import annotations

import html
from itertools import combinations

import torch
from torch import Tensor

from ..report.html_page import numbers_table, page
from ..report.svg import colour_grid, line_plot
from .comparison import Comparison, Shared
from .report import in_words

DIRECTIONS = 4
"""strongest directions whose overlap is drawn"""
WARM, COLD = "213, 94, 0", "0, 144, 208"


def geometry_page(comparison: Comparison) -> str:
    """The comparison, readable without any other file."""
    return page("Geometry of LoRAs", geometry_body(comparison))


def geometry_body(comparison: Comparison) -> str:
    """What is between the page's head and foot."""
    blocks, pairs = comparison.blocks(), _pairs(comparison)
    names = list(blocks)
    cosines = [(title, [float(shared.cosines[a, b]) for shared in blocks.values()]) for title, a, b in pairs]
    overlaps = [(title, [float(shared.overlaps[DIRECTIONS][a, b]) for shared in blocks.values()])
                for title, a, b in pairs]
    said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in in_words(comparison))
    return f"""<h1>How the LoRAs lie to each other</h1>
<ul>{said}</ul>
<h2>Which way they pull, by depth</h2>
{colour_grid(cosines, names, _diverging(cosines), "Cosine of each pair in each block")}
<p>Cosine of the changes of weights: orange the same way, blue against each other; the strongest colour is
{_largest(cosines):.2f}. Blocks from the prompt (BASE) through the UNet's input and middle to its output.</p>
{line_plot(cosines, "block", "cosine", "Cosine of each pair by depth", places=names)}
<h2>How much they use the same directions</h2>
{colour_grid(overlaps, names, _sequential(overlaps), f"Overlap of the {DIRECTIONS} strongest directions in each block")}
{line_plot(overlaps, "block", "overlap", f"Overlap of the {DIRECTIONS} strongest directions by depth", places=names)}
<p>Of the {DIRECTIONS} strongest directions of both, which part is the same: 0 none, 1 all; mean over layers.</p>
<h2>How their change is spread over directions</h2>
{_spectra(comparison)}
<p>Singular values as parts of each layer's largest, mean over layers: a curve that falls early could do with a lower
rank.</p>
<h2>All together</h2>
{_table(comparison.names, comparison.whole())}
<h2>What one would lose to the other</h2>
{_removed(comparison)}
<p>Of the change of the LoRA in the row, the part within the directions of the one in the column, which orthogonal
combination would take from it at strength 1; in brackets what unrelated directions would hold by chance.</p>
"""


def _pairs(comparison: Comparison) -> list[tuple[str, int, int]]:
    return [(f"{comparison.names[a]} and {comparison.names[b]}", a, b)
            for a, b in combinations(range(len(comparison.names)), 2)]


def _largest(rows: list[tuple[str, list[float]]]) -> float:
    return max(abs(value) for _, values in rows for value in values) or 1.0


def _diverging(rows: list[tuple[str, list[float]]]):
    largest = _largest(rows)
    return lambda value: f"rgba({WARM if value > 0 else COLD}, {abs(value) / largest:.3f})"


def _sequential(rows: list[tuple[str, list[float]]]):
    largest = _largest(rows)
    return lambda value: f"rgba({WARM}, {value / largest:.3f})"


def _spectra(comparison: Comparison) -> str:
    curves = []
    for k, name in enumerate(comparison.names):
        spectra = [layer.spectra[k] / layer.spectra[k][0] for layer in comparison.layers if len(layer.spectra[k])]
        most = max(map(len, spectra), default=0)
        padded = [torch.nn.functional.pad(one, (0, most - len(one))) for one in spectra]
        curves.append((name, torch.stack(padded).mean(0).tolist() if padded else [0.0]))
    return line_plot(curves, "direction", "part of the largest", "Singular values of each LoRA", first=1)


def _table(names: tuple[str, ...], whole: Shared) -> str:
    rows = [(name, f"{float(whole.norms[k]):.3g}", str(int(whole.ranks[k])), *map(_cosine, whole.cosines[k]))
            for k, name in enumerate(names)]
    return numbers_table(["norm", "directions", *(f"cosine with {name}" for name in names)], rows)


def _cosine(value: Tensor) -> str:
    return f"{float(value):+.3f}"


def _removed(comparison: Comparison) -> str:
    whole = comparison.whole()

    def cell(a: int, b: int) -> str:
        return "" if a == b else f"{100 * float(whole.removed[a, b]):.1f} % ({100 * float(whole.chance[a, b]):.1f} %)"

    count = range(len(comparison.names))
    return numbers_table(list(comparison.names), [(name, *(cell(a, b) for b in count))
                                                  for a, name in enumerate(comparison.names)])
