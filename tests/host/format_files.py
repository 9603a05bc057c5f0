"""LoRA files of other kinds for the toy checkpoints, under the keys that their trainers write."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

Parts = dict[str, Tensor]
Random = Callable[..., Tensor]

UNET = "model.diffusion_model."
UNET_LAYER = re.compile(r"(attn\d\.to_[qkv]|attn\d\.to_out\.0|ff\.net\.0\.proj|ff\.net\.2)\.weight$")
CONVOLUTION = re.compile(r"(in_layers\.2|out_layers\.3)\.weight$")
NORM = re.compile(r"(in_layers\.0|out_layers\.0|norm\d?)\.weight$")
CLIP = re.compile(r"(?:cond_stage_model|conditioner\.embedders\.0)\.transformer\.(text_model\.encoder\.layers\.\d+\."
                  r"(?:self_attn\.(?:q|k|v|out)_proj|mlp\.fc\d))\.weight$")
OPEN_CLIP = re.compile(r"conditioner\.embedders\.1\.model\.transformer\.resblocks\.(\d+)\.(attn\.in_proj_weight|"
                       r"attn\.out_proj\.weight|mlp\.c_fc\.weight|mlp\.c_proj\.weight)$")


def layers_of(checkpoint: Path, wanted: re.Pattern) -> Iterator[tuple[str, str, Tensor]]:
    """(key in the checkpoint, kohya's name of the layer, weight) of the layers of the UNet and its text encoders."""
    with safe_open(checkpoint, framework="pt") as file:
        xl = any(key.startswith("conditioner.") for key in file.keys())
        for key in file.keys():
            if key.startswith(UNET) and wanted.search(key):
                yield key, "lora_unet_" + key[len(UNET):-len(".weight")].replace(".", "_"), file.get_tensor(key)
            elif (match := CLIP.match(key)) and wanted is UNET_LAYER:
                yield key, f"lora_te{1 if xl else ''}_{match[1].replace('.', '_')}", file.get_tensor(key)
            elif (match := OPEN_CLIP.match(key)) and wanted is UNET_LAYER:
                stem, weight = f"lora_te2_text_model_encoder_layers_{match[1]}_", file.get_tensor(key)
                if match[2] == "attn.in_proj_weight":
                    yield from ((key, f"{stem}self_attn_{letter}_proj", third)
                                for letter, third in zip("qkv", weight.chunk(3)))
                else:
                    name = {"attn.out_proj.weight": "self_attn_out_proj", "mlp.c_fc.weight": "mlp_fc1",
                            "mlp.c_proj.weight": "mlp_fc2"}[match[2]]
                    yield key, stem + name, weight


def write_kind(path: Path, checkpoint: Path, wanted: re.Pattern, parts: Callable[[Random, Tensor], Parts],
               prefix: str = "lora_unet_") -> Path:
    """A file of one kind for these layers; parts: what the kind has of a layer with this weight."""
    generator, state = torch.Generator().manual_seed(5), {}

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    for _, name, weight in layers_of(checkpoint, wanted):
        for part, tensor in parts(random, weight).items():
            state[f"{name.replace('lora_unet_', prefix)}.{part}"] = tensor.contiguous()
    save_file(state, path)
    return path


def lora(random: Random, weight: Tensor, rank: int = 4, alpha: float = 2.0) -> Parts:
    """Of a fourth of the weight's size."""
    down = random(rank, *weight.shape[1:]) / math.sqrt(weight[0].numel())
    up = 0.25 * rank / alpha * random(len(weight), rank, *[1] * (weight.dim() - 2)) / math.sqrt(rank)
    return {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(alpha)}


def tucker(random: Random, weight: Tensor) -> Parts:
    rank, inputs, kernel = 4, weight.shape[1], weight.shape[2:]
    return {"lora_down.weight": random(rank, inputs, 1, 1) / math.sqrt(inputs), "alpha": torch.tensor(2.0),
            "lora_mid.weight": random(rank, rank, *kernel) / math.sqrt(kernel.numel()),
            "lora_up.weight": 0.2 * random(len(weight), rank, 1, 1) / rank**0.5}


def loha(random: Random, weight: Tensor) -> Parts:
    rank, out, inputs = 4, len(weight), weight[0].numel()
    return {"hada_w1_a": random(out, rank) / 2, "hada_w1_b": random(rank, inputs),
            "hada_w2_a": 0.5 * random(out, rank) / 2, "hada_w2_b": random(rank, inputs) / math.sqrt(inputs),
            "alpha": torch.tensor(2.0)}


def loha_with_cores(random: Random, weight: Tensor) -> Parts:
    rank, out, (inputs, *kernel) = 3, len(weight), weight.shape[1:]
    return {"hada_w1_a": random(rank, out) / 2, "hada_w1_b": random(rank, inputs) / 2,
            "hada_w2_a": random(rank, out) / 2, "hada_w2_b": 0.2 * random(rank, inputs) / math.sqrt(inputs),
            "hada_t1": random(rank, rank, *kernel) / 2, "hada_t2": random(rank, rank, *kernel) / 2,
            "alpha": torch.tensor(3.0)}


def lokr(random: Random, weight: Tensor) -> Parts:
    out, inputs, kernel = len(weight), weight.shape[1], math.prod(weight.shape[2:])
    return {"lokr_w1": 0.5 * random(4, 4), "alpha": torch.tensor(2.0), "lokr_w2_a": random(out // 4, 4) / 2,
            "lokr_w2_b": random(4, inputs // 4 * kernel) / math.sqrt(inputs * kernel)}


def lokr_of_products(random: Random, weight: Tensor) -> Parts:
    first = {"lokr_w1_a": random(4, 2), "lokr_w1_b": 0.5 * random(2, 4)}
    return {**first, **{name: part[:, :2] if name.endswith("a") else part[:2] for name, part in
                        lokr(random, weight).items() if name.startswith("lokr_w2")}, "alpha": torch.tensor(1.0)}


def lokr_whole(random: Random, weight: Tensor) -> Parts:
    out, (inputs, *kernel) = len(weight), weight.shape[1:]
    return {"lokr_w1": 0.5 * random(4, 4), "alpha": torch.tensor(7.0),
            "lokr_w2": 0.5 * random(out // 4, inputs // 4, *kernel) / math.sqrt(weight[0].numel())}


def dora(axis: int, inner: Callable[[Random, Tensor], Parts] = lora) -> Callable[[Random, Tensor], Parts]:
    """Magnitudes of about the weight's own norms, by outputs (axis 0, (out, 1)) or by inputs (axis 1, (1, in))."""
    def parts(random: Random, weight: Tensor) -> Parts:
        others = [dim for dim in range(weight.dim()) if dim != axis]
        norms = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
        return {**inner(random, weight), "dora_scale": norms * (1 + 0.2 * random(*norms.shape))}

    return parts


def ia3(on_input: bool) -> Callable[[Random, Tensor], Parts]:
    def parts(random: Random, weight: Tensor) -> Parts:
        channels = weight.shape[1 if on_input else 0]
        shape = (channels,) if weight.dim() == 2 else (1, channels, 1, 1)
        return {"weight": 0.3 * random(*shape), "on_input": torch.tensor(int(on_input))}

    return parts


def oft(alpha: float = 0.0) -> Callable[[Random, Tensor], Parts]:
    return lambda random, weight: {"oft_blocks": 0.1 * random(4, len(weight) // 4, len(weight) // 4),
                                   "alpha": torch.tensor(alpha)}


def oft_rescaled(random: Random, weight: Tensor) -> Parts:
    return {**oft()(random, weight), "rescale": 1 + 0.1 * random(len(weight), *[1] * (weight.dim() - 1))}


def boft(random: Random, weight: Tensor) -> Parts:
    return {"oft_blocks": 0.1 * random(2, len(weight) // 8, 8, 8), "alpha": torch.tensor(0.0)}


def glora(order: str, rank: int = 4, alpha: float = 4.0) -> Callable[[Random, Tensor], Parts]:
    """order: old, as LyCORIS wrote it before 3, which the host knows; or new."""
    def parts(random: Random, weight: Tensor) -> Parts:
        out, inputs = weight.shape
        a = random(inputs, rank) / math.sqrt(inputs), 0.3 * random(rank, inputs) / rank**0.5
        b = 0.3 * random(out, rank) / rank**0.5, random(rank, inputs) / math.sqrt(inputs)
        first, second = ("1", "2") if order == "new" else ("2", "1")
        return {f"a{first}.weight": a[0], f"a{second}.weight": a[1], f"b{first}.weight": b[0],
                f"b{second}.weight": b[1], "alpha": torch.tensor(alpha)}

    return parts


def full(random: Random, weight: Tensor) -> Parts:
    return {"diff": 0.25 * random(*weight.shape) / math.sqrt(weight[0].numel()), "diff_b": 0.1 * random(len(weight))}


def norm(random: Random, weight: Tensor) -> Parts:
    return {"w_norm": 0.2 * random(len(weight)), "b_norm": 0.2 * random(len(weight))}
