"""The demonstration as one HTML file with everything in it."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from .. import __version__
from ..plan import compile_plan
from ..plan_plot import plan_svg
from ..recipe import Recipe, dump_recipe
from ..world.oracle import Reading

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem }
.scroll { overflow-x: auto }
.pictures td, .pictures th { padding: .25rem; text-align: center; vertical-align: top; font-weight: normal }
.pictures img { width: 11rem; image-rendering: pixelated; display: block }
.pictures small { opacity: .7 }
.numbers td, .numbers th { padding: .2rem 1rem; text-align: right; font-weight: normal }
.numbers th:first-child { text-align: left }
meter { width: 6rem; vertical-align: middle }
svg { max-width: 44rem; width: 100%; display: block }
pre { background: #8882; padding: 1rem; overflow: auto }
"""


@dataclass(frozen=True)
class Shown:
    """A picture and what the oracle sees in it."""

    picture: Image.Image
    reading: Reading


def demo_page(settings, scenes: Mapping[str, Mapping[str, Shown]], recipe: Recipe, changing: Recipe,
              strengths: Mapping[str, Mapping[str, float]], moved: Mapping[str, tuple[float, float]]) -> str:
    """scenes: prompt → title → picture; strengths: title → style → strength; moved: LoRA → (alone, left out), ΔE."""
    titles = [title for title in next(iter(scenes.values())) if not title.startswith("without ")]
    heads = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    rows = "".join(f"<tr>{''.join(_cell(prompt, title, shown[title]) for title in titles)}</tr>"
                   f'<tr><td colspan="{len(titles)}"><small>“{html.escape(prompt)}”</small></td></tr>'
                   for prompt, shown in scenes.items())
    styles = list(next(iter(strengths.values())))
    seen = "".join(
        f"<tr><th>{html.escape(title)}</th>" + "".join(_meter(strengths[title][style]) for style in styles) + "</tr>"
        for title in titles)
    change = "".join(f"<tr><th>{html.escape(name)}</th><td>{alone:.1f}</td><td>{left_out:.1f}</td></tr>"
                     for name, (alone, left_out) in moved.items())
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>SciArt demonstration</title>
<style>{_STYLE}</style>
<h1>Three styles, each alone and mixed</h1>
<p>The preset <em>Science imagination</em> on SciArt's own tiny model: {_size(scenes)} pixels, seed {settings.seed},
{settings.steps} steps of {html.escape(settings.sampler)}, CFG {settings.cfg_scale:g}. The model was trained on scenes
that a program draws; so another network, the oracle, trained on such drawings alone, can say what is in a picture.</p>
<div class="scroll"><table class="pictures"><tr>{heads}</tr>{rows}</table></div>
<h2>How strong each style is</h2>
<p>Said by the oracle, 0 to 1, mean of the scenes.</p>
<table class="numbers"><tr><th></th>{''.join(f'<th>{html.escape(style)}</th>' for style in styles)}</tr>{seen}</table>
<h2>How far each LoRA moves the picture</h2>
<table class="numbers"><tr><th>LoRA</th><th>alone, from the base</th><th>left out of the mixture</th></tr>
{change}</table>
<p>Mean CIELAB distance ΔE over all pixels; about 2 is just visible.</p>
<h2>The changing mixture's weights over the steps</h2>
{plan_svg(compile_plan(changing, settings.steps))}
<h2>Recipes</h2>
<pre>{_json(recipe)}</pre>
<pre>{_json(changing)}</pre>
<p>SciArt {__version__}</p>
</html>
"""


def _cell(prompt: str, title: str, shown: Shown) -> str:
    seen = ", ".join(one.individual or one.kind for one in shown.reading.objects) or "nothing"
    return (f'<td><img src="{_data_url(shown.picture)}" alt="{html.escape(f"{prompt}, {title}")}">'
            f"<small>{html.escape(seen)}</small></td>")


def _meter(strength: float) -> str:
    return f'<td>{max(strength, 0):.2f} <meter value="{max(strength, 0):.3f}" max="1"></meter></td>'


def _size(scenes: Mapping[str, Mapping[str, Shown]]) -> str:
    width, height = next(iter(next(iter(scenes.values())).values())).picture.size
    return f"{width} × {height}"


def _json(recipe: Recipe) -> str:
    return html.escape(json.dumps(dump_recipe(recipe), ensure_ascii=False, indent=2))


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
