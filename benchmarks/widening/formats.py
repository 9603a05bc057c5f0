"""Every LoRA file format against who defines it: ΔW as SciArt reads it, and as LyCORIS or PEFT compute it.

Each case builds the reference's own module for one layer, fills it with random numbers, lets it write its own file, and
compares what the file reads as with what the module does to the weight. `python -m benchmarks.widening.formats
[--quick]` prints it.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sciart_ext.lora.file import load_lora
from sciart_ext.lora.kinds import BIAS

INPUTS, OUTPUTS, RANK = 24, 32, 4
LINEAR, CONVOLUTION = "mid_block.attentions.0.proj_in", "mid_block.resnets.0.conv1"
NORM_MODULES = (nn.GroupNorm, nn.LayerNorm)
NORMS = {"group norm": "mid_block.resnets.0.norm1", "layer norm": "mid_block.attentions.0.transformer_blocks.0.norm1"}


class Reference(NamedTuple):
    """What a package writes of one layer, and does to it: in float64 ΔW and Δb, None where it changes no bias."""

    module: nn.Module
    state: dict[str, Tensor]
    configuration: dict | None
    delta: Tensor
    bias: Tensor | None = None


class Case(NamedTuple):
    """One format: who defines it and of which layer's file it is."""

    package: str
    layer: str
    build: Callable[[str, nn.Module], Reference]


def measure(quick: bool = False) -> dict[str, float]:
    """For each format the largest difference of ΔW (and Δb), over the largest number of the reference's."""
    names = [name for name in CASES if not quick or "convolution" not in name]
    return {name: relative_error(name) for name in names}


def relative_error(name: str) -> float:
    """Of one case."""
    case = CASES[name]
    torch.manual_seed(len(name))
    module = layer_of(case.layer)
    reference = case.build(case.layer, module)
    module = reference.module
    with tempfile.TemporaryDirectory() as folder:
        lora = load_lora(write(Path(folder), reference))
    error = 0.0
    for ending, parameter, expected in (("", module.weight, reference.delta), (BIAS, module.bias, reference.bias)):
        found = [delta for layer, delta in lora.layers.items() if layer.endswith(BIAS) == (ending == BIAS)]
        if len(found) != (expected is not None):
            raise AssertionError(f"{name}: {len(found)} deltas{ending}, the reference changes "
                                 f"{'it' if expected is not None else 'nothing there'}")
        if found:
            weight = torch.zeros(expected.shape) if parameter is None else parameter.detach()
            difference = found[0].of(weight).double() - expected
            error = max(error, float(difference.abs().max() / expected.abs().max()))
    return error


def write(folder: Path, reference: Reference) -> Path:
    """The file, as the package would name and describe it."""
    peft = reference.configuration is not None
    path = folder / ("adapter_model.safetensors" if peft else "lora.safetensors")
    save_file({key: tensor.detach().contiguous().clone() for key, tensor in reference.state.items()}, path)
    if peft:
        (folder / "adapter_config.json").write_text(json.dumps(reference.configuration), encoding="utf-8")
    return path


def layer_of(kind: str) -> nn.Module:
    """A layer with a bias, and weights of the size that trained ones have."""
    module = {"linear": lambda: nn.Linear(INPUTS, OUTPUTS), "square": lambda: nn.Linear(OUTPUTS, OUTPUTS),
              "convolution": lambda: nn.Conv2d(INPUTS, OUTPUTS, 3),
              "square convolution": lambda: nn.Conv2d(OUTPUTS, OUTPUTS, 3),
              "group norm": lambda: nn.GroupNorm(4, OUTPUTS), "layer norm": lambda: nn.LayerNorm(OUTPUTS)}[kind]()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.2)
    return module


def _module_name(kind: str) -> str:
    return NORMS.get(kind) or (CONVOLUTION if "convolution" in kind else LINEAR)


# LyCORIS


def lycoris(name: str, renamed: dict[str, str] | None = None, prefix: str = "lora_unet_",
            **options) -> Callable[[str, nn.Module], Reference]:
    """A module of LyCORIS; renamed: how an older version of it called the tensors."""
    def build(kind: str, layer: nn.Module) -> Reference:
        from lycoris import modules

        stem = prefix + _module_name(kind).replace(".", "_")
        own = getattr(modules, name)(stem, layer, **{"lora_dim": RANK, "alpha": 2.0, **options})
        _randomize(own)
        parts = {"diff": own.weight, "diff_b": own.bias} if name == "FullModule" else \
            own.custom_state_dict() or own.state_dict()
        state = {f"{stem}.{(renamed or {}).get(part, part)}": tensor.clone() for part, tensor in parts.items()}
        if name == "FullModule":  # its forward wants the whole network
            change = [value.detach().double() for value in own.get_diff_weight()]
        else:
            change = _change(layer, own)
        return Reference(layer, state, None, *change)

    return build


def oft_diag(kind: str, layer: nn.Module) -> Reference:
    """LyCORIS before 3 wrote the rotations themselves."""
    from lycoris.modules import DiagOFTModule

    stem = "lora_unet_" + _module_name(kind).replace(".", "_")
    own = DiagOFTModule(stem, layer, lora_dim=RANK)
    _randomize(own)
    return Reference(layer, {f"{stem}.oft_diag": own.get_r()}, None, *_change(layer, own))


@torch.no_grad()
def _randomize(module: nn.Module) -> None:
    """What begins at zero or one becomes random around it, matrices entirely."""
    for parameter in module.parameters():
        if parameter.dim() < 2 or parameter.numel() == max(parameter.shape):
            parameter.add_(0.3 * torch.randn_like(parameter))
        else:
            parameter.normal_(std=0.4)


# What a module does to its layer, by its own forward


@torch.no_grad()
def _change(layer: nn.Module, changed: nn.Module) -> tuple[Tensor, Tensor | None]:
    """ΔW and Δb from the outputs, which are linear in the inputs: of no input, and of each input alone."""
    dtype = torch.float64
    if "oft" in getattr(changed, "name", ""):  # LyCORIS inverts in float32, and that alone
        dtype = torch.float32
    layer, changed = layer.to(dtype), changed.to(dtype)
    if isinstance(layer, NORM_MODULES):
        inputs = torch.randn(64, *([OUTPUTS, 2, 2] if isinstance(layer, nn.GroupNorm) else [OUTPUTS]), dtype=dtype)
        added = (changed(inputs) - layer(inputs)).double()
        plain = layer(inputs).double()
        channels = plain.movedim(1, -1).reshape(-1, OUTPUTS), added.movedim(1, -1).reshape(-1, OUTPUTS)
        normed = (channels[0] - layer.bias.double()) / layer.weight.double()
        solved = [torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], 1), y[:, None]).solution[:, 0]
                  for x, y in zip(normed.T, channels[1].T)]
        weight, bias = torch.stack(solved, 1)
    else:
        shape = (layer.weight[0].numel(), *layer.weight.shape[1:])
        ones = torch.eye(shape[0], dtype=dtype).reshape(shape)
        bias = (changed(torch.zeros_like(ones[:1])) - layer(torch.zeros_like(ones[:1]))).double().flatten()
        outputs = (changed(ones) - layer(ones)).double().flatten(1) - bias
        weight = outputs.T.reshape(layer.weight.shape)
    layer.float()
    return weight, bias if bias.abs().max() > 1e-6 else None


# PEFT


def peft(config: str, **options) -> Callable[[str, nn.Module], Reference]:
    """An adapter of PEFT around a model with this one layer."""
    def build(kind: str, layer: nn.Module) -> Reference:
        import peft as package
        from peft.utils import get_peft_model_state_dict

        name = _module_name(kind)
        before = copy.deepcopy(layer)
        adapter = package.get_peft_model(_nested(name, layer), getattr(package, config)(target_modules=[name],
                                                                                        **options)).eval()
        _randomize(nn.ParameterList(parameter for parameter in adapter.parameters() if parameter.requires_grad))
        state = {key: tensor.clone() for key, tensor in get_peft_model_state_dict(adapter).items()}
        configuration = json.loads(json.dumps(adapter.peft_config["default"].to_dict(), default=_as_json))
        return Reference(before, state, configuration, *_change(before, adapter.base_model.model.get_submodule(name)))

    return build


def _nested(name: str, layer: nn.Module) -> nn.Module:
    root = nn.Module()
    module = root
    *path, last = name.split(".")
    for part in path:
        module.add_module(part, nn.Module())
        module = getattr(module, part)
    module.add_module(last, layer)
    return root


def _as_json(value: object) -> object:
    return sorted(value) if isinstance(value, set) else str(value)


_OFT = {"lora_dim": 8, "alpha": 1.0}
_PATTERN = r"attentions\.\d+\.proj_in"
_OLD_GLORA = {"a1.weight": "a2.weight", "a2.weight": "a1.weight", "b1.weight": "b2.weight", "b2.weight": "b1.weight"}
CASES: dict[str, Case] = {
    "lora": Case("LyCORIS", "linear", lycoris("LoConModule")),
    "locon, convolution": Case("LyCORIS", "convolution", lycoris("LoConModule")),
    "tucker, convolution": Case("LyCORIS", "convolution", lycoris("LoConModule", use_tucker=True)),
    **{f"{kind}dora by {side}, {layer}": Case("LyCORIS", layer, lycoris(module, weight_decompose=True,
                                                                        wd_on_out=side == "outputs", **options))
       for kind, module, options in (("", "LoConModule", {}), ("loha ", "LohaModule", {}),
                                     ("lokr ", "LokrModule", {"factor": 4}))
       for side in ("outputs", "inputs") for layer in ("linear", "convolution", "square", "square convolution")},
    "loha": Case("LyCORIS", "linear", lycoris("LohaModule")),
    "loha, convolution": Case("LyCORIS", "convolution", lycoris("LohaModule")),
    "loha tucker, convolution": Case("LyCORIS", "convolution", lycoris("LohaModule", use_tucker=True)),
    "lokr, second factored": Case("LyCORIS", "linear", lycoris("LokrModule", lora_dim=2, factor=4)),
    "lokr, both factored": Case("LyCORIS", "linear", lycoris("LokrModule", lora_dim=1, decompose_both=True)),
    "lokr, both whole": Case("LyCORIS", "linear", lycoris("LokrModule", lora_dim=64, factor=4)),
    "lokr, first factored": Case("LyCORIS", "linear", lycoris("LokrModule", lora_dim=3, decompose_both=True,
                                                              factor=4, unbalanced_factorization=True)),
    "lokr, convolution": Case("LyCORIS", "convolution", lycoris("LokrModule", lora_dim=2, factor=4)),
    "lokr whole, convolution": Case("LyCORIS", "convolution", lycoris("LokrModule", full_matrix=True, factor=4)),
    "lokr tucker, convolution": Case("LyCORIS", "convolution", lycoris("LokrModule", lora_dim=2, factor=4,
                                                                       use_tucker=True)),
    **{f"ia3 on {side}, {layer}": Case("LyCORIS", layer, lycoris("IA3Module", train_on_input=side == "inputs"))
       for side in ("outputs", "inputs") for layer in ("linear", "convolution")},
    **{f"oft{more}, {layer}": Case("LyCORIS", layer, lycoris("DiagOFTModule", **_OFT, **options))
       for more, options in (("", {}), (" constrained", {"constraint": 0.02}), (" rescaled", {"rescaled": True}))
       for layer in ("linear", "convolution")},
    "oft of kohya": Case("LyCORIS", "linear", lycoris("DiagOFTModule", prefix="oft_unet_", constraint=0.02, **_OFT)),
    "oft diag, linear": Case("LyCORIS", "linear", oft_diag),
    "oft diag, convolution": Case("LyCORIS", "convolution", oft_diag),
    **{f"boft{more}, {layer}": Case("LyCORIS", layer, lycoris("ButterflyOFTModule", **_OFT, **options))
       for more, options in (("", {}), (" constrained", {"constraint": 0.02}), (" rescaled", {"rescaled": True}))
       for layer in ("linear", "convolution")},
    "glora": Case("LyCORIS", "linear", lycoris("GLoRAModule")),
    "glora of old, square": Case("LyCORIS", "square", lycoris("GLoRAModule", _OLD_GLORA)),
    "glora of old": Case("LyCORIS", "linear", lycoris("GLoRAModule", _OLD_GLORA)),
    "glora, convolution": Case("LyCORIS", "convolution", lycoris("GLoRAModule")),
    "full": Case("LyCORIS", "linear", lycoris("FullModule")),
    "full, convolution": Case("LyCORIS", "convolution", lycoris("FullModule")),
    "norm, group norm": Case("LyCORIS", "group norm", lycoris("NormModule")),
    "norm, layer norm": Case("LyCORIS", "layer norm", lycoris("NormModule")),
    "peft lora": Case("PEFT", "linear", peft("LoraConfig", r=RANK, lora_alpha=6)),
    "peft rslora": Case("PEFT", "linear", peft("LoraConfig", r=RANK, lora_alpha=6, use_rslora=True)),
    "peft patterns": Case("PEFT", "linear", peft("LoraConfig", r=2, lora_alpha=6, rank_pattern={_PATTERN: RANK},
                                                 alpha_pattern={_PATTERN: 3})),
    "peft bias": Case("PEFT", "linear", peft("LoraConfig", r=RANK, lora_alpha=6, lora_bias=True)),
    **{f"peft dora, {layer}": Case("PEFT", layer, peft("LoraConfig", r=RANK, lora_alpha=6, use_dora=True))
       for layer in ("linear", "square", "convolution", "square convolution")},
    **{f"peft {kind}, {layer}": Case("PEFT", layer, peft(config, r=2, alpha=3, **options))
       for kind, config, options in (("loha", "LoHaConfig", {}), ("loha tucker", "LoHaConfig",
                                                                   {"use_effective_conv2d": True}),
                                     ("lokr", "LoKrConfig", {}), ("lokr tucker", "LoKrConfig",
                                                                   {"use_effective_conv2d": True}))
       for layer in ("linear", "convolution")},
    "peft lokr, both whole": Case("PEFT", "linear", peft("LoKrConfig", r=64, alpha=32)),
    "peft ia3 on outputs": Case("PEFT", "linear", peft("IA3Config", feedforward_modules=[])),
    "peft ia3 on inputs": Case("PEFT", "linear", peft("IA3Config", feedforward_modules=[LINEAR])),
}


if __name__ == "__main__":
    for name, error in measure("--quick" in sys.argv[1:]).items():
        print(f"{name:40s} {error:.1e}")
