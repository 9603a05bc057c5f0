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
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

from sciart_ext.lora.keys import parse_key
from sciart_ext.mixer.targets import clip_layers, diffusers_unet_layers

FAMILIES = ("SD1", "SD2", "SDXL")
_SHORT = {
    "block_out_channels": (8, 16, 16, 16), "layers_per_block": 2, "norm_num_groups": 4, "attention_head_dim": 2,
    "cross_attention_dim": 12,
}
_UNETS = {
    "SD1": _SHORT, "SD2": {**_SHORT, "use_linear_projection": True},
    "SDXL": {
        "block_out_channels": (8, 16, 16), "layers_per_block": 2, "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 3), "attention_head_dim": (2, 4, 4), "cross_attention_dim": 12,
        "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 32,
    },
}
_CLIP = {"vocab_size": 50, "hidden_size": 12, "intermediate_size": 24, "num_attention_heads": 2,
         "max_position_embeddings": 9, "bos_token_id": 48, "eos_token_id": 49, "projection_dim": 12}
_DEPTHS = {"SD1": (2,), "SD2": (2,), "SDXL": (2, 11)}


class Models(NamedTuple):
    """The parts of a model by their names: unet, te1 and, of SDXL, te2."""

    family: str
    parts: dict[str, nn.Module]

    def modules(self, part: str) -> dict[str, nn.Module]:
        """Its linear layers and convolutions, by their names in diffusers or transformers."""
        return {name: module for name, module in self.parts[part].named_modules()
                if isinstance(module, (nn.Linear, nn.Conv2d))}


@lru_cache(len(FAMILIES))
def models(family: str) -> Models:
    """The real classes in miniature."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    parts: dict[str, nn.Module] = {"unet": UNet2DConditionModel(sample_size=8, **_UNETS[family])}
    for number, (depth, make) in enumerate(zip(_DEPTHS[family], (CLIPTextModel, CLIPTextModelWithProjection)), 1):
        parts[f"te{number}"] = make(CLIPTextConfig(num_hidden_layers=depth, **_CLIP))
    return Models(family, parts)


Written = Mapping[str, nn.Module]
"""what a reference writes: one key of each layer, and the module that it is of for the reference"""


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


def quiet() -> None:
    """For packages that tell much."""
    warnings.simplefilter("ignore")
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)


class Layout(NamedTuple):
    """How one program names layers; write: of one part of a model."""

    write: Callable[[Models, str], Written]
    families: tuple[str, ...] = FAMILIES
    parts: tuple[str, ...] = ("unet", "te1", "te2")


# Text encoders as transformers names them: before 5.6 all with `text_model.` before, but for the projection.
def _old(name: str) -> str:
    return name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}"


def _new(name: str) -> str:
    return name.removeprefix("text_model.")


def _by_rule(prefixes: Mapping[str, str], ending: str, unet: Callable[[str], str] = str,
             text: Callable[[str], str] = _old, flat: bool = False) -> Callable[[Models, str], Written]:
    """A layout that is a rule: what stands before a part's layers, how their names are changed, what comes after."""
    def write(given: Models, part: str) -> Written:
        named = given.modules(part).items()
        names = ((unet(name) if part == "unet" else text(name), module) for name, module in named)
        return {prefixes[part] + (name.replace(".", "_") if flat else name) + ending: module for name, module in names}

    return write


_KOHYA = {"unet": "lora_unet_", "te1": "lora_te_", "te2": "lora_te2_"}
_KOHYA_XL = {**_KOHYA, "te1": "lora_te1_"}
_DIFFUSERS = {"unet": "unet.", "te1": "text_encoder.", "te2": "text_encoder_2."}
_COMFY = {"unet": "diffusion_model.", "te1": "text_encoders.clip_l.transformer.",
          "te2": "text_encoders.clip_g.transformer."}


def _wrapped(inside: str) -> dict[str, str]:
    return {part: prefix + inside for part, prefix in _DIFFUSERS.items()}


def ldm_name(name: str) -> str:
    """A module of diffusers' UNet by its name in LDM's."""
    whole = {"conv_in": "input_blocks.0.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
             "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
             "add_embedding.linear_2": "label_emb.0.2"}
    if name in whole:
        return whole[name]
    side, *rest = name.split(".")
    if side == "mid_block":
        kind, index, *inside = rest
        block = "middle_block.1" if kind == "attentions" else f"middle_block.{2 * int(index)}"
        return ".".join([block, *_inside(kind, inside)])
    level, kind, index, *inside = rest
    if kind == "downsamplers":
        return f"input_blocks.{3 * int(level) + 3}.0.op"
    if kind == "upsamplers":
        # after the attention, where the block has one: SD's first up block and SDXL's last have none
        return f"output_blocks.{3 * int(level) + 2}.{{}}.conv"
    number = 3 * int(level) + int(index) + (side == "down_blocks")
    block = f"{'input' if side == 'down_blocks' else 'output'}_blocks.{number}.{int(kind == 'attentions')}"
    return ".".join([block, *_inside(kind, inside)])


def _inside(kind: str, names: list[str]) -> list[str]:
    resnet = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
              "conv_shortcut": "skip_connection"}
    return names if kind == "attentions" else [resnet[names[0]]]


def _in_ldm(family: str) -> Callable[[str], str]:
    def rename(name: str) -> str:
        first = name.startswith("up_blocks.0.") and family != "SDXL"
        return ldm_name(name).format(1 if first else 2)

    return rename


def _ldm(prefixes: Mapping[str, str], ending: str, text: Callable[[str], str] = _old,
         flat: bool = False) -> Callable[[Models, str], Written]:
    def write(given: Models, part: str) -> Written:
        return _by_rule(prefixes, ending, _in_ldm(given.family), text, flat)(given, part)

    return write


def _open_clip(name: str) -> str:
    """OpenCLIP's name of a layer; its q, k and v are one, which A1111 tells apart as transformers does."""
    if "text_projection" in name:
        return name
    number, *inside = name[name.index("layers.") + len("layers."):].split(".")
    renamed = {"self_attn": "attn", "mlp": "mlp", "fc1": "c_fc", "fc2": "c_proj"}
    return ".".join(["transformer.resblocks", number, *(renamed.get(one, one) for one in inside)])


def _by_peft(around: Callable[[nn.Module], nn.Module] | None = None, adapter: str | None = None,
             prefixes: Mapping[str, str] = {}) -> Callable[[Models, str], Written]:
    """As PEFT writes an adapter of a model, which something may be around; adapter: the model's own state with this
    name in it, rather than what PEFT saves."""
    def write(given: Models, part: str) -> Written:
        import copy

        from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

        model = copy.deepcopy(given.parts[part])
        originals = dict(zip((id(module) for module in model.modules()), given.parts[part].modules()))
        config = LoraConfig(r=1, target_modules=list(given.modules(part)))
        adapted = get_peft_model(model, config, adapter_name=adapter or "default")
        layers = {name: originals[id(module.base_layer)] for name, module in adapted.named_modules()
                  if hasattr(module, "base_layer")}
        if adapter is None:
            state = {key: key for key in get_peft_model_state_dict(adapted) if ".lora_B." in key}
        else:
            outer = around(adapted) if around else adapted
            plain = {id(parameter): name for name, parameter in adapted.named_parameters()}
            state = {key: plain[id(parameter)] for key, parameter in outer.named_parameters() if ".lora_B." in key}
        return {prefixes.get(part, "") + key: layers[name[:name.index(".lora_B.")]] for key, name in state.items()}

    return write


def _parallel(model: nn.Module) -> nn.Module:
    """As DistributedDataParallel has it, whose names torch's simpler class of the kind has too."""
    return nn.DataParallel(model)


def _compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model)


def _by_lycoris(kohya: bool) -> Callable[[Models, str], Written]:
    """As LyCORIS' network for kohya's trainer, or its own for any model, names its modules."""
    def write(given: Models, part: str) -> Written:
        from lycoris import LycorisNetwork, create_lycoris
        from lycoris.kohya import LycorisNetworkKohya

        quiet()
        if kohya:
            LycorisNetworkKohya.apply_preset({"unet_target_module": ["Transformer2DModel", "ResnetBlock2D",
                                                                     "Downsample2D", "Upsample2D"],
                                              "unet_target_name": []})
            texts = [model for name, model in given.parts.items() if name != "unet"]
            network = LycorisNetworkKohya(texts if len(texts) > 1 else texts[0], given.parts["unet"], lora_dim=1,
                                          conv_lora_dim=1, alpha=1, conv_alpha=1)
            loras = network.unet_loras if part == "unet" else network.text_encoder_loras
        else:
            LycorisNetwork.apply_preset({"target_module": ["Linear", "Conv2d"]})
            loras = create_lycoris(given.parts[part], 1.0, linear_dim=1, conv_dim=1).loras
        own = set(map(id, given.parts[part].modules()))
        named = {f"{lora.lora_name}.lora_up.weight": lora.org_module[0] for lora in loras}
        return {name: module for name, module in named.items() if id(module) in own}

    return write


def _read_by_diffusers(write: Callable[[Models, str], Written]) -> Callable[[Models, str], Written]:
    """What another layout writes, and the modules into which diffusers' own reader loads it."""
    def read(given: Models, part: str) -> Written:
        import copy

        from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

        pipeline = StableDiffusionXLPipeline if given.family == "SDXL" else StableDiffusionPipeline
        written = write(given, part)
        state = {}
        for number, (key, module) in enumerate(written.items(), start=1):
            stem, out, inputs = key.removesuffix(".lora_up.weight"), *module.weight.shape[:2]
            kernel = module.weight.shape[2:]
            state[f"{stem}.lora_down.weight"] = torch.ones(1, inputs, *kernel)
            state[key] = torch.full((out, 1, *[1] * len(kernel)), float(number))
        unet = given.parts["unet"]
        found, alphas, *_ = pipeline.lora_state_dict(state, unet_config=unet.config)
        model = copy.deepcopy(given.parts[part])
        originals = dict(zip((id(module) for module in model.modules()), given.parts[part].modules()))
        if part == "unet":
            pipeline.load_lora_into_unet(found, alphas, model, adapter_name="one")
        else:
            pipeline.load_lora_into_text_encoder(found, alphas, model, prefix=_DIFFUSERS[part][:-1], adapter_name="one")
        loaded = {int(module.lora_B["one"].weight.flatten()[0]): originals[id(module.base_layer)]
                  for module in model.modules() if hasattr(module, "lora_B") and "one" in module.lora_B}
        return {key: loaded[number] for number, key in enumerate(written, start=1) if number in loaded}

    return read


_kohya = _by_rule(_KOHYA, ".lora_up.weight", flat=True)
_kohya_xl = _ldm(_KOHYA_XL, ".lora_up.weight", flat=True)
_SD = ("SD1", "SD2")
LAYOUTS = {
    # kohya-ss/sd-scripts: networks/lora.py, and library/sdxl_model_util.py for SDXL
    "kohya": Layout(_kohya, _SD), "kohya, SDXL": Layout(_kohya_xl, ("SDXL",)),
    "kohya, read by diffusers": Layout(_read_by_diffusers(_kohya), _SD),
    "kohya, SDXL, read by diffusers": Layout(_read_by_diffusers(_kohya_xl), ("SDXL",)),
    "kohya, torch.compile": Layout(_by_rule({part: f"{prefix}_orig_mod." for part, prefix in _KOHYA.items()},
                                            ".lora_up.weight", flat=True)),
    "kohya, dots left": Layout(_by_rule(_KOHYA_XL, ".lora_up.weight")),
    "kohya, text encoders of transformers 5.6": Layout(_by_rule(_KOHYA_XL, ".lora_up.weight", text=_new, flat=True)),
    "kohya's OFT": Layout(_by_rule({"unet": "oft_unet_"}, ".oft_blocks", flat=True), _SD, ("unet",)),
    # LyCORIS, for kohya's trainer and for any model (SimpleTuner)
    "LyCORIS, kohya": Layout(_by_lycoris(True)), "LyCORIS": Layout(_by_lycoris(False), parts=("unet", "te1")),
    # diffusers: loaders/lora_conversion_utils.py, and what its own trainers wrote since 2023
    "diffusers": Layout(_by_rule(_DIFFUSERS, ".lora_B.weight")),
    "diffusers, text encoders of transformers 5.6": Layout(_by_rule(_DIFFUSERS, ".lora_B.weight", text=_new)),
    "diffusers, processors": Layout(_by_rule(_DIFFUSERS, "_lora.up.weight", lambda name: name.replace(
        ".to_", ".processor.to_").replace(".to_out.0", ".to_out"))),
    "diffusers, linear layers": Layout(_by_rule(_DIFFUSERS, ".lora_linear_layer.up.weight")),
    "diffusers, lora.up": Layout(_by_rule(_DIFFUSERS, ".lora.up.weight")),
    "diffusers, projections of 2023": Layout(_by_rule(_DIFFUSERS, "_lora.up.weight", text=lambda name: re.sub(
        r"self_attn\.(q|k|v|out)_proj", r"self_attn.to_\1", _old(name)))),
    # PEFT, alone and as distillation scripts put it into diffusers' layout
    "PEFT": Layout(_by_peft(), parts=("unet", "te1")),
    "PEFT in diffusers": Layout(_by_peft(prefixes=_DIFFUSERS)),
    "PEFT, another adapter": Layout(_by_peft(adapter="my style"), ("SD1",), ("unet", "te1")),
    "PEFT, parallel": Layout(_by_peft(_parallel, "default"), ("SD1",), ("unet", "te1")),
    "PEFT, torch.compile": Layout(_by_peft(_compiled, "default"), ("SD1",), ("unet", "te1")),
    "PEFT within": Layout(_by_rule(_wrapped("base_model.model."), ".lora_B.default.weight")),
    # ComfyUI: comfy/lora.py, model_lora_keys_unet and model_lora_keys_clip
    "ComfyUI": Layout(_ldm(_COMFY, ".lora_up.weight")), "ComfyUI, A and B": Layout(_ldm(_COMFY, ".lora_B.weight")),
    "ComfyUI, SD2's encoder": Layout(_by_rule({"te1": "text_encoders.clip_h.transformer."}, ".lora_up.weight"),
                                     ("SD2",), ("te1",)),
    "ComfyUI, LDM names flat": Layout(_ldm(_KOHYA_XL, ".lora_up.weight", flat=True)),
    "ComfyUI, bare": Layout(_by_rule({"unet": ""}, "_lora.up.weight", lambda name: name.replace(
        ".to_", ".processor.to_").replace(".to_out.0", ".to_out")), parts=("unet",)),
    "ComfyUI, LyCORIS of SimpleTuner": Layout(_by_rule({"unet": "lycoris_"}, ".lokr_w1", flat=True), parts=("unet",)),
    # OneTrainer: modules/util/convert_lora_util.py
    "OneTrainer, legacy": Layout(_by_rule(_KOHYA_XL, ".lora_up.weight", flat=True)),
    "OneTrainer, diffusers": Layout(_by_rule(_DIFFUSERS, ".lora_B.weight", text=_new)),
    "OneTrainer, kohya": Layout(_ldm(_KOHYA_XL, ".lora_up.weight", flat=True), ("SDXL",)),
    "OneTrainer, ComfyUI": Layout(_ldm(_COMFY, ".lora_B.weight")),
    "OneTrainer, original": Layout(_ldm({"unet": ""}, ".lora_B.weight"), parts=("unet",)),
    # A1111: extensions-builtin/Lora/networks.py takes the model's own names too
    "A1111, its own names": Layout(_ldm({"unet": "diffusion_model_", "te1": "transformer_"}, ".lora_up.weight",
                                        flat=True), ("SD1",), ("unet", "te1")),
    "A1111, its own names, SD2": Layout(_ldm({"unet": "diffusion_model_", "te1": "model_"}, ".lora_up.weight",
                                             _open_clip, flat=True), ("SD2",), ("unet", "te1")),
    "A1111, its own names, SDXL": Layout(_ldm({"unet": "diffusion_model_", "te1": "0_transformer_"}, ".lora_up.weight",
                                              flat=True), ("SDXL",), ("unet", "te1")),
    "A1111, its own names, SDXL's second": Layout(_ldm({"te2": "1_model_"}, ".lora_up.weight", _open_clip, flat=True),
                                                  ("SDXL",), ("te2",)),
    # the names in LDM's and sgm's checkpoints
    "LDM": Layout(_ldm({"unet": "model.diffusion_model.", "te1": "cond_stage_model.transformer."}, ".lora_up.weight"),
                  ("SD1",), ("unet", "te1")),
    "LDM, SD2": Layout(_ldm({"unet": "model.diffusion_model.", "te1": "cond_stage_model.model."}, ".lora_up.weight",
                            _open_clip), ("SD2",), ("unet", "te1")),
    "sgm": Layout(_ldm({"unet": "model.diffusion_model.", "te1": "conditioner.embedders.0.transformer."},
                       ".lora_up.weight"), ("SDXL",), ("unet", "te1")),
    "sgm, second": Layout(_ldm({"te2": "conditioner.embedders.1.model."}, ".lora_up.weight", _open_clip), ("SDXL",),
                          ("te2",)),
}


if __name__ == "__main__":
    print(json.dumps(measure()))
