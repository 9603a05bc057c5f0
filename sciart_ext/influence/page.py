"""The report as one HTML file with everything in it: sentences, pictures, heatmaps, curves, paths, words, numbers."""

from __future__ import annotations

import html

import numpy as np
from PIL import Image
from torch import Tensor

from ..report.heat import coloured, highest_of, overlaid
from ..report.html_page import json_block, numbers_table, page, picture, pictures_table
from ..report.svg import line_plot, line_style
from .analysis import Effects
from .measures import PHASES
from .path_plot import QUIET, path_plot
from .paths import Paths
from .report import Report, effects_of

BACKGROUNDS = {"alone": ("alone, against the picture without LoRAs", "only {}"),
               "left_out": ("left out, against the picture with all", "without {}")}


def report_page(told: Report) -> str:
    """The report, readable without any other file."""
    return page("Influence of LoRAs", report_body(told))


def report_body(told: Report) -> str:
    """What is between the page's head and foot."""
    names = told.influence.names
    shares = told.influence.shares
    # the first that is seen, in the tab too: what to say of each, and where
    parts = ["<h1>What each LoRA did</h1>", _sentences(told), _bar(told) if shares is not None else "",
             "<h2>Where</h2>", _heat(told), "<h2>The pictures</h2>", _made(told), _pictures(told)]
    if shares is not None:
        parts += ["<h2>How much</h2>", _shares(told)]
    for kind, effects in effects_of(told.influence).items():
        parts.append(f"<h2>When: {BACKGROUNDS[kind][0]}</h2>")
        parts.append(_curves(names, effects, BACKGROUNDS[kind][0]))
    parts += ["<h2>The ways of the latents</h2>", _paths(told, told.paths)]
    if told.neighbours is not None:
        parts += ["<h2>Their neighbourhoods</h2>", _paths(told, told.neighbours)]
    if told.words:
        parts += ["<h2>What looks at which word</h2>", _words(told)]
    return "\n".join([*parts, "<h2>How it was made</h2>", json_block(told.made)])


def _made(told: Report) -> str:
    prompt = html.escape(str(told.made.get("prompt", "")))
    height, width = told.pictures[told.final].shape[:2]
    how = ", ".join(html.escape(str(part)) for part in (f"{width} × {height} pixels", *told.made.get("summary", [])))
    return f"<p>“{prompt}”: {how}. {len(told.pictures)} pictures from the same noise.</p>"


def _sentences(told: Report) -> str:
    items = "".join(f'<li style="--mark: {line_style(k)[0]}">{html.escape(sentence)}</li>'
                    for k, sentence in enumerate(told.sentences()))
    return f'<ul class="sentences">{items}</ul>'


def _bar(told: Report) -> str:
    """The positive shares, side by side."""
    positive = [max(float(part), 0) for part in told.influence.shares.parts]
    total = sum(positive) or 1
    spans = "".join(f'<span style="flex: {part / total:.4f}; background: {line_style(k)[0]}" title="{html.escape(name)}'
                    f': {100 * part:.1f} %">{html.escape(name)}</span>'
                    for k, (name, part) in enumerate(zip(told.influence.names, positive)) if part > 0)
    return f'<div class="bar">{spans}</div>'


def _shares(told: Report) -> str:
    """All shares as numbers, by phase too."""
    shares, names = told.influence.shares, told.influence.names
    rows = [(name, _percent(shares.parts[k], shares.errors[k] if shares.orders else None),
             *(_percent(phase[k]) for phase in shares.phases)) for k, name in enumerate(names)]
    exact = ("exact: every set of the LoRAs was made" if shares.orders is None else
             f"estimated from {shares.orders} orders of the LoRAs, with intervals of at least 95 %")
    return (numbers_table(["of the change", *(f"{phase} third" for phase in PHASES)], rows)
            + f"<p>Shapley shares ({exact}) of the picture's change in CIELAB, and of the latents' in each third of "
              f"the steps; they sum to 100 %, and pixel by pixel to the change within ΔE {shares.residual:.0e}. "
              "Below 0: it works against the others.</p>")


def _percent(value: Tensor, error: Tensor | None = None) -> str:
    return f"{100 * float(value):.1f} %" if error is None else f"{100 * float(value):.1f} ± {100 * float(error):.1f} %"


def _pictures(told: Report) -> str:
    sets = told.question.sets
    cells = [picture(Image.fromarray(told.pictures[one]), told.title(one)) for one in sets]
    return pictures_table([told.title(one) for one in sets], [cells])


def _heat(told: Report) -> str:
    """Heatmaps over the picture they changed, all on one scale."""
    maps: list[tuple[str, str, np.ndarray, np.ndarray]] = []
    for kind, effects in effects_of(told.influence).items():
        base = told.background(kind)
        maps += [(kind, BACKGROUNDS[kind][1].format(name), base, heat.numpy())
                 for name, heat in zip(told.influence.names, effects.heat)]
    if told.influence.shares is not None:
        maps += [("shares", f"share of {name}", told.pictures[told.every], values.numpy())
                 for name, values in zip(told.influence.names, told.influence.shares.maps)]
    highest = highest_of([values for *_, values in maps])
    rows = [[f"{_overlay(base, values, highest, f'Heatmap, {title}')}<small>{html.escape(title)}, mean ΔE "
             f"{values.mean():.1f}</small>" for of, title, base, values in maps if of == kind]
            for kind in dict.fromkeys(kind for kind, *_ in maps)]
    return (pictures_table([], rows) + _scale(highest, "ΔE")
            + "<p>CIELAB distance ΔE*ab per pixel, on one scale; about 2 is just visible.</p>")


def _overlay(base: np.ndarray, values: np.ndarray, highest: float, told: str) -> str:
    return picture(Image.fromarray(overlaid(base, values, highest)), told)


def _scale(highest: float, unit: str) -> str:
    ramp = coloured(np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(8, 0), 1)
    bar = picture(Image.fromarray(ramp), f"Colours from 0 to {highest:.3g} {unit}")
    return (f'<div class="scale">{bar}<div><span>0</span><span>{highest / 2:.3g}</span>'
            f"<span>{highest:.3g} {html.escape(unit)} and more</span></div></div>")


def _curves(names: tuple[str, ...], effects: Effects, background: str) -> str:
    curves = [(name, values.tolist()) for name, values in zip(names, effects.curves)]
    return line_plot(curves, "step", "distance of latents", f"How far each LoRA moves the latents, {background}")


def _paths(told: Report, paths: Paths) -> str:
    count = told.question.count
    styles = {told.every: ("currentColor", "")}
    styles.update({1 << k: line_style(k) for k in range(count)})
    if count > 2:
        styles.update({told.every ^ 1 << k: (line_style(k)[0], "6 3") for k in range(count)})
    drawn = [(told.title(one) if one in styles else "", points, styles.get(one, QUIET))
             for one, points in paths.points.items() if one != told.origin or paths.told is None]
    if paths.told is None:
        return path_plot(drawn, ("t-SNE 1", "t-SNE 2"), "Neighbourhoods of the latents under each set of LoRAs")
    titles = tuple(f"component {i + 1}: {100 * part:.0f} %" for i, part in enumerate(paths.told))
    return (path_plot(drawn, titles, "How the latents part from those of " + told.title(told.origin))
            + f"<p>From those of <em>{html.escape(told.title(told.origin))}</em>, which stay at one point, a dot for "
              "each step; by two principal components.</p>")


def _words(told: Report) -> str:
    """Each word's attention without LoRAs, with each alone or left out, and with all: each word on a scale of its own.
    """
    wanted = [0, *(1 << k for k in range(told.question.count)), told.every]
    if told.question.subsets == "left-out":
        wanted = [*(told.every ^ 1 << k for k in range(told.question.count)), told.every]
    sets = [one for one in dict.fromkeys(wanted) if one in told.pictures]
    rows = []
    for word, maps in told.words.items():
        low = min(float(maps[one].min()) for one in sets)
        highest = max(float(maps[one].max()) for one in sets) - low
        rows.append([f"{_overlay(told.pictures[one], (maps[one] - low).numpy(), highest, f'{word}, {told.title(one)}')}"
                     f"<small>{html.escape(word)}</small>" for one in sets])
    return (pictures_table([told.title(one) for one in sets], rows)
            + "<p>Cross-attention, mean over heads, layers and steps; each word on a scale of its own, from its lowest "
              "to its highest.</p>")
