"""`python -m benchmarks.thumbnails`: the pictures of the shipped presets, made with each preset's recipe and
settings on the tiny model.

It knows its own small world: it gets prompts of that, not the presets' own, its own size, no hires pass, and the LoRAs
of the same names. One prompt for all of a kind: what differs between the pictures is the preset.
"""

from __future__ import annotations

import argparse

import torch

from sciart_ext.presets import BUILTIN_DIR, PresetStore, resolve
from sciart_ext.presets.pictures import as_webp
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone import prepare
from sciart_ext.world import MODEL

PROMPT = "a submarine in the sea"
SUBJECTS = {2: "a rocket and a robot in the sky", 3: "a rocket, a robot and a submarine in space"}
PORTRAIT = "a robot in the sky"
PLAYED_BY = {"rocket": "red-striped-rocket", "robot": "yellow-visor-robot", "submarine": "purple-submarine"}
TRIGGERS = {"rocket": "red striped", "robot": "yellow visor", "submarine": "purple"}
SEEDS = {"two-subjects": 1, "two-subjects-science-imagination": 8, "three-subjects": 7}


def main() -> None:
    """Writes NAME.webp beside each shipped NAME.json."""
    parser = argparse.ArgumentParser(description="Makes the pictures of the shipped presets.")
    parser.add_argument("names", nargs="*", help="default: all")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    prepare()
    from sciart_ext.standalone.generate import Settings, generate, load_loras
    from sciart_ext.standalone.models import load_pipeline

    torch.set_num_threads(1)
    pipe, store = load_pipeline(MODEL, device="cpu"), PresetStore()
    for name in options.names or [path.stem for path in sorted(BUILTIN_DIR.glob("*.json"))]:
        preset = store.read(name)
        data = preset.data["recipe"]
        loras = [{**lora, "trigger": TRIGGERS[lora["role"]]} if lora["role"] in TRIGGERS else lora
                 for lora in data["loras"]]
        roles = {role: PLAYED_BY.get(role, role) for role in preset.roles()}
        recipe = resolve(parse_recipe({**data, "loras": loras, "roles": roles}), store)
        given = preset.data["txt2img"]
        about = len(roles.keys() & PLAYED_BY.keys())
        prompt = SUBJECTS[about] if about else PORTRAIT if "profile" in name else PROMPT
        settings = Settings(prompt, steps=given["steps"],
                            sampler=given["sampler_name"], scheduler=given["scheduler"], cfg_scale=given["cfg_scale"],
                            seed=SEEDS.get(name, given["seed"]) if options.seed is None else options.seed)
        picture = generate(pipe, recipe, settings, load_loras(recipe, MODEL / "loras"), MODEL.name)
        path = BUILTIN_DIR / f"{name}.webp"
        path.write_bytes(as_webp(picture.image))
        print(f"{path}: {path.stat().st_size} bytes", flush=True)


if __name__ == "__main__":
    main()
