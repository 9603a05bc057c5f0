"""`make demo`: the tiny model's pictures without LoRAs, with each, and with the mixture, side by side on one page."""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .. import __version__
from ..plan import compile_plan
from ..plot import plan_svg
from ..recipe import Recipe, dump_recipe, parse_recipe
from . import prepare

PROMPT = "A colorful science fantasy illustration of a rocket over an alien planet, watercolor textures"
RECIPE = {
    "loras": [
        {"name": "child", "schedule": [[0, 0.2], [0.5, 0.65]]},
        {"name": "watercolor", "weight": 0.55},
        {"name": "science", "schedule": [[0, 0.9], [0.6, 0.3]], "curve": "cosine"},
    ]
}


def main() -> None:
    """Writes `index.html` and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--model", type=Path, help="default: the tiny model, made on the spot")
    parser.add_argument("--lora-dir", type=Path, help="has child, watercolor and science; default: the tiny ones")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    prepare()
    started = time.perf_counter()
    page = make_demo(args.out, args.model, args.lora_dir, args.steps)
    print(f"{page} ({time.perf_counter() - started:.0f} s)")


def make_demo(out: Path, model: Path | None = None, lora_dir: Path | None = None, steps: int = 20) -> Path:
    """The page of the demonstration. Returns its path."""
    from .generate import Settings, generate, load_loras
    from .infotext import save_png
    from .models import load_pipeline
    from .tiny import make_tiny

    out.mkdir(parents=True, exist_ok=True)
    if model is None:
        torch.set_num_threads(1)  # its layers are too small to share, and threads that wait for each other slow it down
        model, tiny_loras = make_tiny(out / "tiny")
        lora_dir = lora_dir or tiny_loras
    pipe = load_pipeline(model)
    settings = Settings(PROMPT, steps=steps, seed=777, cfg_scale=6.0)
    recipe = parse_recipe(RECIPE)
    pictures = {}
    for title, part in parts_of(recipe).items():
        picture = generate(pipe, part, settings, load_loras(part, lora_dir), model.name)
        pictures[title] = picture.image.convert("RGB")
        save_png(picture.image, out / f"{title.replace(' ', '_')}.png", picture.infotext)
        print(f"{title}: {picture.seconds:.1f} s", flush=True)
    page = out / "index.html"
    page.write_text(demo_page(recipe, settings, pictures), encoding="utf-8")
    return page


def parts_of(recipe: Recipe) -> dict[str, Recipe]:
    """The recipes to compare: `base` without LoRAs, `only NAME`, `without NAME`, and `mixture`."""
    names = [lora.label for lora in recipe.loras]
    parts = {"base": parse_recipe({"enabled": False})}
    parts.update({f"only {name}": _keep(recipe, {name}) for name in names})
    parts["mixture"] = recipe
    parts.update({f"without {name}": _keep(recipe, set(names) - {name}) for name in names})
    return parts


def difference(first: Image.Image, second: Image.Image) -> float:
    """Mean CIELAB distance ΔE*ab (CIE 1976) of two RGB pictures over their pixels."""
    distance = np.linalg.norm(to_lab(np.asarray(first)) - to_lab(np.asarray(second)), axis=-1)
    return float(distance.mean())


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """8-bit sRGB (h, w, 3) to CIELAB under D65 (IEC 61966-2-1; CIE 15)."""
    value = rgb.astype(np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                       [0.0193339, 0.1191920, 0.9503041]])
    xyz = linear @ matrix.T / matrix.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def demo_page(recipe: Recipe, settings, pictures: dict[str, Image.Image]) -> str:
    """One HTML file with everything in it."""
    names = [lora.label for lora in recipe.loras]
    shown = ["base", *(f"only {name}" for name in names), "mixture"]
    figures = "".join(f'<figure><img src="{_data_url(pictures[title])}" alt="{html.escape(title)}">'
                      f"<figcaption>{html.escape(title)}</figcaption></figure>" for title in shown)
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{difference(pictures[f'only {name}'], pictures['base']):.1f}</td>"
        f"<td>{difference(pictures[f'without {name}'], pictures['mixture']):.1f}</td></tr>" for name in names)
    plan = compile_plan(recipe, settings.steps)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>SciArt demonstration</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }}
.pictures {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: 1rem }}
figure {{ margin: 0 }} figure img {{ width: 100%; image-rendering: pixelated }} figcaption {{ text-align: center }}
td, th {{ padding: .2rem 1rem; text-align: right }} th:first-child {{ text-align: left }}
svg {{ max-width: 44rem; display: block }}
pre {{ background: #8882; padding: 1rem; overflow: auto }}
</style>
<h1>One seed, three LoRAs, one mixture</h1>
<p>“{html.escape(settings.prompt)}”, seed {settings.seed}, {settings.steps} steps of {html.escape(settings.sampler)},
CFG {settings.cfg_scale:g}. With the built-in tiny model, whose weights are random, pictures are patterns: they show
that each LoRA acts and how far, not what a trained one would paint.</p>
<div class="pictures">{figures}</div>
<h2>Weights over the steps</h2>
{plan_svg(plan)}
<h2>How far each LoRA moves the picture</h2>
<table><tr><th>LoRA</th><th>alone, from the base</th><th>left out of the mixture</th></tr>{rows}</table>
<p>Mean CIELAB distance ΔE over all pixels; about 2 is just visible.</p>
<h2>Recipe</h2>
<pre>{html.escape(json.dumps(dump_recipe(recipe), ensure_ascii=False, indent=2))}</pre>
<p>SciArt {__version__}</p>
</html>
"""


def _keep(recipe: Recipe, names: set[str]) -> Recipe:
    return recipe.copy(update={"loras": [lora for lora in recipe.loras if lora.label in names]})


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    main()
