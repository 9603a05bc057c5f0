"""The demonstration as one HTML file with everything in it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from ..influence.page import report_body
from ..influence.report import Report
from ..recipe import Recipe, compile_plan, dump_recipe
from ..report.html_page import json_block, numbers_table, page, picture, pictures_table
from ..report.plan_plot import plan_svg
from ..world.oracle import Reading


@dataclass(frozen=True)
class Shown:
    """A picture and what the oracle sees in it."""

    picture: Image.Image
    reading: Reading


def demo_page(settings, scenes: Mapping[str, Mapping[str, Shown]], recipe: Recipe, changing: Recipe,
              strengths: Mapping[str, Mapping[str, float]], reports: Sequence[Report]) -> str:
    """scenes: prompt → title → picture; strengths: title → style → strength; reports: of each scene."""
    titles = [title for title in next(iter(scenes.values())) if not title.startswith("without ")]
    rows = [[_cell(prompt, title, shown[title]) for title in titles] for prompt, shown in scenes.items()]
    styles = list(next(iter(strengths.values())))
    seen = [(title, *(_meter(strengths[title][style]) for style in styles)) for title in titles]
    names = reports[0].influence.names
    shares = [(name, *(f"{100 * float(told.influence.shares.parts[k]):.0f} %" for told in reports))
              for k, name in enumerate(names)]
    return page("SciArt demonstration", f"""
<h1>Three styles, each alone and mixed</h1>
<p>The preset <em>Science imagination</em> on SciArt's own tiny model: {_size(scenes)} pixels, seed {settings.seed},
{settings.steps} steps of {html.escape(settings.sampler)}, CFG {settings.cfg_scale:g}. The model was trained on scenes
that a program draws; so another network, the oracle, trained on such drawings alone, can say what is in a picture.</p>
{pictures_table(titles, rows)}
<h2>How strong each style is</h2>
<p>Said by the oracle, 0 to 1, mean of the scenes.</p>
{numbers_table(styles, seen)}
<h2>The changing mixture's weights over the steps</h2>
{plan_svg(compile_plan(changing, settings.steps))}
<h2>Which LoRA made how much of each picture</h2>
{numbers_table(list(scenes), shares)}
<p>Shapley shares of the change from the picture without LoRAs; more of the first picture below.</p>
{report_body(reports[0])}
<h2>Recipes</h2>
{json_block(dump_recipe(recipe))}
{json_block(dump_recipe(changing))}
""")


def _cell(prompt: str, title: str, shown: Shown) -> str:
    seen = ", ".join(one.individual or one.kind for one in shown.reading.objects) or "nothing"
    return f"{picture(shown.picture, f'{prompt}, {title}')}<small>{html.escape(seen)}</small>"


def _meter(strength: float) -> str:
    return f'{max(strength, 0):.2f} <meter value="{max(strength, 0):.3f}" max="1"></meter>'


def _size(scenes: Mapping[str, Mapping[str, Shown]]) -> str:
    width, height = next(iter(next(iter(scenes.values())).values())).picture.size
    return f"{width} × {height}"
