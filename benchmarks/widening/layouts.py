"""Every layout of key names against who defines it: which layer each key is of, for SciArt and for the reference.

Layouts of diffusers, PEFT and LyCORIS are written by those packages themselves, with the real block structures of SD1,
SD2 and SDXL, a few channels wide; what diffusers reads of kohya's is looked up in the modules that it loads them into.
Those of kohya, ComfyUI, OneTrainer, A1111 and LDM are written by the rule that each states for its names, and LDM's own
names are checked against diffusers' converter of checkpoints.

    python -m benchmarks.widening.layouts

prints layouts, places (layout × family × part of the model), and layers, all equal, or ends with the first that is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import nn

from sciart_ext.lora.keys import parse_key
from sciart_ext.mixer.targets import clip_layers, diffusers_unet_layers

from .layout_writers import (
    COMFY,
    DIFFUSERS,
    FAMILIES,
    KOHYA,
    KOHYA_XL,
    Models,
    Written,
    before_5_6,
    by_lycoris,
    by_peft,
    by_rule,
    compiled,
    ldm,
    models,
    open_clip,
    parallel,
    quiet,
    read_by_diffusers,
    since_5_6,
    wrapped,
)


def targets(family: str, part: str) -> dict[str, nn.Module]:
    """SciArt's own: the module of each canonical name."""
    model = models(family).parts[part]
    layers = diffusers_unet_layers(model) if part == "unet" else clip_layers(model, part)
    return {name: target.module for name, target in layers.items()}


def check(written: Written, family: str, part: str) -> int:
    """How many keys were looked at. Raises `AssertionError` for one that is of another layer for SciArt."""
    own = targets(family, part)
    for key, module in written.items():
        parsed = parse_key(key)
        assert parsed is not None and own.get(parsed.layer) is module, f"{family} {part}: {key} is {parsed}"
    return len(written)


COUNTED = ("layouts", "places", "layers")
_WRITTEN_SLOWLY = ("PEFT", "LyCORIS", "read by diffusers")


def measure(quick: bool = False) -> dict[str, int]:
    """layouts, places and layers, all equal to the references'. quick: without those that packages write."""
    quiet()
    chosen = [place for place in places() if not (quick and any(word in place[0] for word in _WRITTEN_SLOWLY))]
    counted = [check(LAYOUTS[name].write(models(family), part), family, part) for name, family, part in chosen]
    return dict(zip(COUNTED, (len({name for name, _, _ in chosen}), len(counted), sum(counted))))


def places() -> Iterator[tuple[str, str, str]]:
    """(layout, family, part) of all that there are."""
    for name, layout in LAYOUTS.items():
        for family in layout.families:
            for part in ("unet", "te1", "te2"):
                if part in models(family).parts and part in layout.parts:
                    yield name, family, part


class Layout(NamedTuple):
    """How one program names layers; write: of one part of a model."""

    write: Callable[[Models, str], Written]
    families: tuple[str, ...] = FAMILIES
    parts: tuple[str, ...] = ("unet", "te1", "te2")


_kohya = by_rule(KOHYA, ".lora_up.weight", flat=True)
_kohya_xl = ldm(KOHYA_XL, ".lora_up.weight", flat=True)
_SD = ("SD1", "SD2")
LAYOUTS = {
    # kohya-ss/sd-scripts: networks/lora.py, and library/sdxl_model_util.py for SDXL
    "kohya": Layout(_kohya, _SD), "kohya, SDXL": Layout(_kohya_xl, ("SDXL",)),
    "kohya, read by diffusers": Layout(read_by_diffusers(_kohya), _SD),
    "kohya, SDXL, read by diffusers": Layout(read_by_diffusers(_kohya_xl), ("SDXL",)),
    "kohya, torch.compile": Layout(by_rule({part: f"{prefix}_orig_mod." for part, prefix in KOHYA.items()},
                                            ".lora_up.weight", flat=True)),
    "kohya, dots left": Layout(by_rule(KOHYA_XL, ".lora_up.weight")),
    "kohya, text encoders of transformers 5.6": Layout(by_rule(KOHYA_XL, ".lora_up.weight", text=since_5_6, flat=True)),
    "kohya's OFT": Layout(by_rule({"unet": "oft_unet_"}, ".oft_blocks", flat=True), _SD, ("unet",)),
    # LyCORIS, for kohya's trainer and for any model (SimpleTuner)
    "LyCORIS, kohya": Layout(by_lycoris(True)), "LyCORIS": Layout(by_lycoris(False), parts=("unet", "te1")),
    # diffusers: loaders/lora_conversion_utils.py, and what its own trainers wrote since 2023
    "diffusers": Layout(by_rule(DIFFUSERS, ".lora_B.weight")),
    "diffusers, text encoders of transformers 5.6": Layout(by_rule(DIFFUSERS, ".lora_B.weight", text=since_5_6)),
    "diffusers, processors": Layout(by_rule(DIFFUSERS, "_lora.up.weight", lambda name: name.replace(
        ".to_", ".processor.to_").replace(".to_out.0", ".to_out"))),
    "diffusers, linear layers": Layout(by_rule(DIFFUSERS, ".lora_linear_layer.up.weight")),
    "diffusers, lora.up": Layout(by_rule(DIFFUSERS, ".lora.up.weight")),
    "diffusers, projections of 2023": Layout(by_rule(DIFFUSERS, "_lora.up.weight", text=lambda name: re.sub(
        r"self_attn\.(q|k|v|out)_proj", r"self_attn.to_\1", before_5_6(name)))),
    # PEFT, alone and as distillation scripts put it into diffusers' layout
    "PEFT": Layout(by_peft(), parts=("unet", "te1")),
    "PEFT in diffusers": Layout(by_peft(prefixes=DIFFUSERS)),
    "PEFT, another adapter": Layout(by_peft(adapter="my style"), ("SD1",), ("unet", "te1")),
    "PEFT, parallel": Layout(by_peft(parallel, "default"), ("SD1",), ("unet", "te1")),
    "PEFT, torch.compile": Layout(by_peft(compiled, "default"), ("SD1",), ("unet", "te1")),
    "PEFT within": Layout(by_rule(wrapped("base_model.model."), ".lora_B.default.weight")),
    # ComfyUI: comfy/lora.py, model_lora_keys_unet and model_lora_keys_clip
    "ComfyUI": Layout(ldm(COMFY, ".lora_up.weight")), "ComfyUI, A and B": Layout(ldm(COMFY, ".lora_B.weight")),
    "ComfyUI, SD2's encoder": Layout(by_rule({"te1": "text_encoders.clip_h.transformer."}, ".lora_up.weight"),
                                     ("SD2",), ("te1",)),
    "ComfyUI, LDM names flat": Layout(ldm(KOHYA_XL, ".lora_up.weight", flat=True)),
    "ComfyUI, bare": Layout(by_rule({"unet": ""}, "_lora.up.weight", lambda name: name.replace(
        ".to_", ".processor.to_").replace(".to_out.0", ".to_out")), parts=("unet",)),
    "ComfyUI, LyCORIS of SimpleTuner": Layout(by_rule({"unet": "lycoris_"}, ".lokr_w1", flat=True), parts=("unet",)),
    # OneTrainer: modules/util/convert_lora_util.py
    "OneTrainer, legacy": Layout(by_rule(KOHYA_XL, ".lora_up.weight", flat=True)),
    "OneTrainer, diffusers": Layout(by_rule(DIFFUSERS, ".lora_B.weight", text=since_5_6)),
    "OneTrainer, kohya": Layout(ldm(KOHYA_XL, ".lora_up.weight", flat=True), ("SDXL",)),
    "OneTrainer, ComfyUI": Layout(ldm(COMFY, ".lora_B.weight")),
    "OneTrainer, original": Layout(ldm({"unet": ""}, ".lora_B.weight"), parts=("unet",)),
    # A1111: extensions-builtin/Lora/networks.py takes the model's own names too
    "A1111, its own names": Layout(ldm({"unet": "diffusion_model_", "te1": "transformer_"}, ".lora_up.weight",
                                        flat=True), ("SD1",), ("unet", "te1")),
    "A1111, its own names, SD2": Layout(ldm({"unet": "diffusion_model_", "te1": "model_"}, ".lora_up.weight",
                                             open_clip, flat=True), ("SD2",), ("unet", "te1")),
    "A1111, its own names, SDXL": Layout(ldm({"unet": "diffusion_model_", "te1": "0_transformer_"}, ".lora_up.weight",
                                              flat=True), ("SDXL",), ("unet", "te1")),
    "A1111, its own names, SDXL's second": Layout(ldm({"te2": "1_model_"}, ".lora_up.weight", open_clip, flat=True),
                                                  ("SDXL",), ("te2",)),
    # the names in LDM's and sgm's checkpoints
    "LDM": Layout(ldm({"unet": "model.diffusion_model.", "te1": "cond_stage_model.transformer."}, ".lora_up.weight"),
                  ("SD1",), ("unet", "te1")),
    "LDM, SD2": Layout(ldm({"unet": "model.diffusion_model.", "te1": "cond_stage_model.model."}, ".lora_up.weight",
                            open_clip), ("SD2",), ("unet", "te1")),
    "sgm": Layout(ldm({"unet": "model.diffusion_model.", "te1": "conditioner.embedders.0.transformer."},
                       ".lora_up.weight"), ("SDXL",), ("unet", "te1")),
    "sgm, second": Layout(ldm({"te2": "conditioner.embedders.1.model."}, ".lora_up.weight", open_clip), ("SDXL",),
                          ("te2",)),
}


if __name__ == "__main__":
    print(json.dumps(measure()))
