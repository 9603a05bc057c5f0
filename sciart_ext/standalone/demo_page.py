"""The demonstration as one HTML file with everything in it."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence

from PIL import Image

from ..influence.report import effects_of
from ..recipe import compile_plan, dump_recipe
from ..report.heat import highest_of, overlaid
from ..report.html_page import page, picture
from ..report.plan_plot import plan_svg
from ..report.svg import line_style
from ..world.oracle import STYLE_PRESENT, Reading
from ..world.scenes import STYLES
from .demo import BOTH, CFG, MERGED, SAMPLER, STEERED, STEPS, Demo, Made, both_there, mean_strengths

_STYLE = """
h2 { font-size: 1.35rem; margin-top: 2.6rem }
.lead { font-size: 1.1rem; max-width: 46rem }
.prompt { margin: 1rem 0 .4rem; font-weight: 600 }
.prompt q { font-weight: 400; font-style: italic }
.strip { display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); gap: .6rem;
  max-width: calc(var(--columns) * 12.4rem) }
.strip figure { margin: 0; min-width: 0 }
.strip img { width: 100%; display: block; border-radius: .4rem }
.strip figcaption { font-size: .85rem; line-height: 1.35; margin-top: .25rem; overflow-wrap: anywhere }
.strip b { display: block }
.yes { color: light-dark(#17692e, #7fd694) }
.no { color: light-dark(#a3301f, #f2998c) }
details { margin: .5rem 0; font-size: .9rem; max-width: 100% }
summary { cursor: pointer; opacity: .8 }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .6rem .8rem; margin: .4rem 0 }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem }
.seen { border-collapse: collapse; width: 100%; max-width: 44rem }
.seen th { text-align: left; font-weight: 400; padding: .25rem .4rem .25rem 0 }
.seen td { padding: .25rem .4rem; width: 22% }
.seen span { display: block; padding: 0 .4rem; border-radius: .2rem;
  background: linear-gradient(90deg, light-dark(#9ecbf5, #2d608f) var(--part), #8883 var(--part)) }
.plans { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: 1rem }
.plans figure { margin: 0 }
@media (max-width: 44rem) { .strip { grid-template-columns: repeat(3, minmax(0, 1fr)) } }
"""


def demo_page(demo: Demo, root: str | None) -> str:
    """root: the way to the checkout that the links lead to, or None where there is none."""
    return page("SciArt: a demonstration", "\n".join([
        _head(demo), _subjects(demo), _styles(demo), _changing(demo), _influence(demo), _onward(root)]), _STYLE)


def _head(demo: Demo) -> str:
    width, height = next(iter(demo.subjects.values())).pictures[0].size
    return f"""<h1>SciArt: several LoRAs in one picture</h1>
<p class="lead">All pictures here were made on this computer, in {demo.seconds:.0f} seconds, by the tiny Stable
Diffusion that comes with SciArt: {width} × {height} pixels, {STEPS} steps of {SAMPLER}, CFG {CFG:g}. It learned from
scenes that a program draws. So another network, the <em>oracle</em>, which learned from those drawings alone, can say
what is in a picture: what the captions tell is what it sees.</p>"""


def _subjects(demo: Demo) -> str:
    merged, steered = demo.subjects[MERGED], demo.subjects[STEERED]
    kept = {title: sum(map(both_there, made.readings)) for title, made in demo.subjects.items()}
    count = len(merged.pictures)
    return f"""<h2>Two subjects: merged they are lost, steered they stay</h2>
<p>One LoRA knows a rocket with red stripes, another a robot with a yellow visor. <strong>The oracle finds both in
{kept[MERGED]} of {count} pictures when the LoRAs are merged, and in {kept[STEERED]} of {count} when each is steered to
its own word.</strong> The seeds are the first {count}, none is chosen. Over 100 seeds with this pair in space both are
there in 0.26 of the pictures merged, in 0.83 steered.</p>
{_row("Merged, as with two", merged, "&lt;lora:…&gt;")}
{_row("Steered: each LoRA on its own subject", steered)}"""


def _row(what: str, made: Made, more: str = "") -> str:
    """The pictures of one command, one for each seed."""
    captions = [_both_told(reading, seed) for reading, seed in zip(made.readings, made.order.seeds)]
    figures = [_figure(image, f"{made.order.title}, seed {seed}", caption)
               for image, seed, caption in zip(made.pictures, made.order.seeds, captions)]
    return (_prompt(f"{html.escape(what)} {f'<code>{more}</code>' if more else ''}", made.order.prompt)
            + _strip(figures) + _how(f"The command that makes these {len(figures)}, and the recipe", [made]))


def _both_told(reading: Reading, seed: int) -> str:
    there = both_there(reading)
    mark = '<b class="yes">✓ both</b>' if there else '<b class="no">✗ not both</b>'
    return f"{mark}seed {seed}: {html.escape(_objects(reading))}"


def _objects(reading: Reading) -> str:
    """Things by name, in the order of certainty; several of one kind are counted."""
    names = [one.individual or one.kind for one in reading.objects]
    return ", ".join(f"{name} ×{names.count(name)}" if names.count(name) > 1 else name
                     for name in dict.fromkeys(names)) or "nothing"


def _styles(demo: Demo) -> str:
    return f"""<h2>Three styles, each alone, and two at once</h2>
<p>The LoRAs of three hands: a child's crayons, watercolour, and science with its blueprints and machinery. Alone each
has the weight 1; together the child's has {BOTH["child"]:g} and the watercolour's {BOTH["watercolor"]:g}. All else
stays, the seed too.</p>
{_rows(demo.styles)}
<h3>How strong the oracle finds each style</h3>
{_strengths(mean_strengths(demo.styles))}
<p>Means over the {len(demo.styles)} prompts; 0 is none of it, 1 as in the drawings; from {STYLE_PRESENT:g} on the style
counts as there.</p>"""


def _changing(demo: Demo) -> str:
    plans = "".join(f"<figure>{plan_svg(compile_plan(made.order.parsed, STEPS))}<figcaption>{html.escape(title)}"
                    "</figcaption></figure>" for title, made in next(iter(demo.changing.values())).items())
    return f"""<h2>Weights that change: who comes last has the hand</h2>
<p>The same two LoRAs, from the same noise. With constant weights the picture has both styles. When one hands over to
the other in the first fifth of the steps, the picture has the style of the one that comes last, and of that alone.</p>
<div class="plans">{plans}</div>
{_rows(demo.changing)}
<h3>How strong the oracle finds each style</h3>
{_strengths(mean_strengths(demo.changing), tuple(BOTH))}"""


def _rows(rows: Mapping[str, Mapping[str, Made]]) -> str:
    """Of each prompt a strip, its prompt above and the commands below."""
    parts = []
    for prompt, by_title in rows.items():
        figures = [_figure(made.pictures[0], f"{prompt}, {title}",
                           f"<b>{html.escape(title)}</b>{html.escape(_told(made.readings[0]))}")
                   for title, made in by_title.items()]
        parts += [_prompt("", prompt), _strip(figures), _how("The commands that make these, and the recipes",
                                                             by_title.values())]
    return "\n".join(parts)


def _told(reading: Reading) -> str:
    return f"{_objects(reading)}; {_strengths_told(reading.styles)}"


def _strengths_told(styles: Mapping[str, float]) -> str:
    there = [f"{style} {strength:.2f}" for style, strength in styles.items() if strength >= STYLE_PRESENT]
    return ", ".join(there) or "no style"


def _influence(demo: Demo) -> str:
    told = demo.told
    effects = effects_of(told.influence)["alone"]
    highest = highest_of([heat.numpy() for heat in effects.heat])
    figures = [_figure(Image.fromarray(told.pictures[one]), told.title(one),
                       f"<b>{html.escape(told.title(one))}</b>{_strengths_told(demo.strengths[told.title(one)])}")
               for one in told.question.sets]
    figures += [_figure(Image.fromarray(overlaid(told.pictures[0], heat.numpy(), highest)), f"heatmap of {name}",
                        f"<b>where {html.escape(name)} acts</b>ΔE {heat.mean():.0f} on average")
                for name, heat in zip(told.influence.names, effects.heat)]
    items = "".join(f'<li style="--mark: {line_style(k)[0]}">{html.escape(said)}</li>'
                    for k, said in enumerate(sentences(demo)))
    return f"""<h2>What each LoRA did to the first picture</h2>
<p>The picture “{html.escape(str(told.made["prompt"]))}” with both LoRAs was made again without either and with each
alone, from the same noise.</p>
<ul class="sentences">{items}</ul>
{_strip(figures)}
<p>Shares are Shapley's, and sum to 100 %; ΔE is the distance of colours, of which 2 can just be seen. Curves, paths,
words and numbers: <a href="influence/index.html">the whole report</a>.</p>"""


def sentences(demo: Demo) -> list[str]:
    """What each LoRA did: its share of the change, when and where, and what the oracle misses without it."""
    told, said = demo.told, []
    for name, sentence in zip(told.influence.names, told.sentences()):
        whole = demo.strengths[told.title(told.every)][name]
        others = told.every & ~(1 << told.influence.names.index(name))
        without = demo.strengths[told.title(others)][name]
        said.append(f"{sentence}. Without it the oracle finds {max(without, 0):.2f} of the style {name}, "
                    f"with it {max(whole, 0):.2f}.")
    return said


def _onward(root: str | None) -> str:
    if root is None:
        return ""
    links = {"README.md": "what SciArt is, and how it comes into the WebUI", "docs/gallery.md": "more pictures",
             "docs/steer.md": "how LoRAs are steered", "docs/mix.md": "weights that change",
             "docs/explain.md": "how influence is measured", "docs/command-line.md": "all commands, with your own "
             "checkpoints too", "docs/figures.md": "what was measured, how often, and on what"}
    items = "".join(f'<li><a href="{root}/{path}">{path}</a>: {what}</li>' for path, what in links.items())
    return f"<h2>From here</h2><ul>{items}</ul>"


def _strengths(rows: Mapping[str, Mapping[str, float]], styles: Sequence[str] = STYLES) -> str:
    head = "".join(f"<th>{html.escape(style)}</th>" for style in styles)
    body = "".join(f"<tr><th>{html.escape(title)}</th>" + "".join(
        f'<td><span style="--part: {100 * min(max(found[style], 0), 1):.0f}%">{max(found[style], 0):.2f}</span></td>'
        for style in styles) + "</tr>" for title, found in rows.items())
    return f'<table class="seen"><tr><th></th>{head}</tr>{body}</table>'


def _prompt(what: str, prompt: str) -> str:
    return f'<p class="prompt">{what} <q>{html.escape(prompt)}</q></p>'


def _figure(image: Image.Image, told: str, caption: str) -> str:
    """caption: HTML."""
    return f"<figure>{picture(image, told)}<figcaption>{caption}</figcaption></figure>"


def _strip(figures: Sequence[str]) -> str:
    return f'<div class="strip" style="--columns: {len(figures)}">{"".join(figures)}</div>'


def _how(summary: str, made: Iterable[Made]) -> str:
    """The commands and recipes of pictures, folded away."""
    def block(one: Made) -> str:
        recipe = json.dumps(dump_recipe(one.order.parsed)) if one.order.recipe else ""
        return (f"<p>{html.escape(one.order.title)}</p><pre>{html.escape(one.order.command())}</pre>"
                + (f"<pre>{html.escape(recipe)}</pre>" if recipe else ""))

    return f"<details><summary>{summary}</summary>{''.join(map(block, made))}</details>"
