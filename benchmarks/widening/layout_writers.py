"""How programs name the layers of a model: by rules that they state, or by writing and reading files themselves.

Of small models with the real block structures of SD1, SD2 and SDXL.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

FAMILIES = ("SD1", "SD2", "SDXL")
_SHORT = {
    "block_out_channels": (8, 16, 16, 16), "layers_per_block": 2, "norm_num_groups": 4, "attention_head_dim": 2,
    "cross_attention_dim": 12,
}
UNETS = {
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

    parts: dict[str, nn.Module] = {"unet": UNet2DConditionModel(sample_size=8, **UNETS[family])}
    for number, (depth, make) in enumerate(zip(_DEPTHS[family], (CLIPTextModel, CLIPTextModelWithProjection)), 1):
        parts[f"te{number}"] = make(CLIPTextConfig(num_hidden_layers=depth, **_CLIP))
    return Models(family, parts)


Written = Mapping[str, nn.Module]
"""what a reference writes: one key of each layer, and the module that it is of for the reference"""


def quiet() -> None:
    """For packages that tell much."""
    warnings.simplefilter("ignore")
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)


# Text encoders as transformers names them: before 5.6 all with `text_model.` before, but for the projection.
def before_5_6(name: str) -> str:
    return name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}"


def since_5_6(name: str) -> str:
    return name.removeprefix("text_model.")


def by_rule(prefixes: Mapping[str, str], ending: str, unet: Callable[[str], str] = str,
             text: Callable[[str], str] = before_5_6, flat: bool = False) -> Callable[[Models, str], Written]:
    """A layout that is a rule: what stands before a part's layers, how their names are changed, what comes after."""
    def write(given: Models, part: str) -> Written:
        named = given.modules(part).items()
        names = ((unet(name) if part == "unet" else text(name), module) for name, module in named)
        return {prefixes[part] + (name.replace(".", "_") if flat else name) + ending: module for name, module in names}

    return write


KOHYA = {"unet": "lora_unet_", "te1": "lora_te_", "te2": "lora_te2_"}
KOHYA_XL = {**KOHYA, "te1": "lora_te1_"}
DIFFUSERS = {"unet": "unet.", "te1": "text_encoder.", "te2": "text_encoder_2."}
COMFY = {"unet": "diffusion_model.", "te1": "text_encoders.clip_l.transformer.",
          "te2": "text_encoders.clip_g.transformer."}


def wrapped(inside: str) -> dict[str, str]:
    return {part: prefix + inside for part, prefix in DIFFUSERS.items()}


def ldm_name(name: str, family: str = "SDXL") -> str:
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
        # after the attention, but for the first block of SD 1 and 2, which has none
        return f"output_blocks.{3 * int(level) + 2}.{1 if level == '0' and family != 'SDXL' else 2}.conv"
    number = 3 * int(level) + int(index) + (side == "down_blocks")
    block = f"{'input' if side == 'down_blocks' else 'output'}_blocks.{number}.{int(kind == 'attentions')}"
    return ".".join([block, *_inside(kind, inside)])


def _inside(kind: str, names: list[str]) -> list[str]:
    resnet = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
              "conv_shortcut": "skip_connection"}
    return names if kind == "attentions" else [resnet[names[0]]]


def ldm(prefixes: Mapping[str, str], ending: str, text: Callable[[str], str] = before_5_6,
         flat: bool = False) -> Callable[[Models, str], Written]:
    def write(given: Models, part: str) -> Written:
        return by_rule(prefixes, ending, lambda name: ldm_name(name, given.family), text, flat)(given, part)

    return write


def open_clip(name: str) -> str:
    """OpenCLIP's name of a layer; its q, k and v are one, which A1111 tells apart as transformers does."""
    if "text_projection" in name:
        return name
    number, *inside = name[name.index("layers.") + len("layers."):].split(".")
    renamed = {"self_attn": "attn", "mlp": "mlp", "fc1": "c_fc", "fc2": "c_proj"}
    return ".".join(["transformer.resblocks", number, *(renamed.get(one, one) for one in inside)])


def by_peft(around: Callable[[nn.Module], nn.Module] | None = None, adapter: str | None = None,
             prefixes: Mapping[str, str] = {}) -> Callable[[Models, str], Written]:
    """As PEFT writes an adapter of a model, which something may be around; adapter: the model's own state with this
    name in it, rather than what PEFT saves."""
    def write(given: Models, part: str) -> Written:
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


def parallel(model: nn.Module) -> nn.Module:
    """As DistributedDataParallel has it, whose names torch's simpler class of the kind has too."""
    return nn.DataParallel(model)


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model)


def by_lycoris(kohya: bool) -> Callable[[Models, str], Written]:
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


def read_by_diffusers(write: Callable[[Models, str], Written]) -> Callable[[Models, str], Written]:
    """What another layout writes, and the modules into which diffusers' own reader loads it."""
    def read(given: Models, part: str) -> Written:
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
            pipeline.load_lora_into_text_encoder(found, alphas, model, prefix=DIFFUSERS[part][:-1], adapter_name="one")
        loaded = {int(module.lora_B["one"].weight.flatten()[0]): originals[id(module.base_layer)]
                  for module in model.modules() if hasattr(module, "lora_B") and "one" in module.lora_B}
        return {key: loaded[number] for number, key in enumerate(written, start=1) if number in loaded}

    return read
