"""The layers of a model that LoRAs can reach, under their canonical names (`lora.names`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from ..lora.names import text_name, unet_name

NORMS = (nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True, eq=False)
class Target:
    """One weight of a model: a matrix, a convolution's kernels, a norm's weight, or a bias.

    `module.parameter` holds it, in `rows` of the parameter where several are packed into one (q, k, v of
    `nn.MultiheadAttention`). `bracket` is the module during whose call the weight must be presented.
    """

    module: nn.Module
    parameter: str
    bracket: nn.Module
    rows: slice | None = None

    @property
    def can_branch(self) -> bool:
        """Whether a forward hook on the module sees this layer's input and output."""
        return self.rows is None and not isinstance(self.bracket, nn.MultiheadAttention)

    @property
    def updated_by(self) -> nn.Module:
        """The module whose call makes a lazily updating host refresh this weight."""
        return self.module if self.can_branch else self.bracket

    @property
    def is_norm(self) -> bool:
        """Whether it is the weight or bias of a norm."""
        return isinstance(self.module, NORMS)

    @property
    def is_bias(self) -> bool:
        return self.parameter.endswith("bias")

    def weight(self) -> nn.Parameter:
        """The host's own parameter; None for a bias that the module does not have."""
        return self.module._parameters[self.parameter]

    def bias(self) -> Target:
        """The bias beside this weight."""
        return replace(self, parameter=self.parameter.replace("weight", "bias"))


def ldm_unet_layers(unet: nn.Module, by_block: bool = False) -> dict[str, Target]:
    """Layers of the LDM (and sgm) UNet, the host's. `by_block`: each block is moved to the device on its own."""
    blocks = {}
    if by_block:
        for part in ("time_embed", "middle_block"):
            blocks[part] = getattr(unet, part)
        for part in ("input_blocks", "output_blocks"):
            blocks.update({f"{part}.{i}": block for i, block in enumerate(getattr(unet, part))})
    layers = {}
    for name, module in _modules(unet):
        bracket = next((block for prefix, block in blocks.items() if name.startswith(prefix + ".")), unet)
        layers["unet_" + unet_name(name.replace(".", "_"))] = Target(module, "weight", bracket)
    return layers


def diffusers_unet_layers(unet: nn.Module) -> dict[str, Target]:
    """Layers of diffusers' `UNet2DConditionModel`."""
    return {"unet_" + unet_name(name.replace(".", "_")): Target(module, "weight", unet)
            for name, module in _modules(unet)}


def clip_layers(text_model: nn.Module, prefix: str) -> dict[str, Target]:
    """Layers of transformers' CLIP text model, of any version; `prefix` is te1 or te2 (SDXL's second)."""
    named = ((text_name(name.replace(".", "_")), module) for name, module in _modules(text_model))
    return {f"{prefix}_{name}": Target(module, "weight", text_model) for name, module in named if name}


def open_clip_layers(model: nn.Module, prefix: str) -> dict[str, Target]:
    """Layers of OpenCLIP's text transformer under transformers' names; q, k and v are rows of one parameter.

    Its blocks are called one by one and its attention uses weights of submodules without calling them, so each
    attention brackets its own.
    """
    layers = {}
    for number, block in enumerate(model.transformer.resblocks):
        stem = f"{prefix}_text_model_encoder_layers_{number}"
        width = block.attn.embed_dim
        for i, name in enumerate(("q_proj", "k_proj", "v_proj")):
            rows = slice(i * width, (i + 1) * width)
            layers[f"{stem}_self_attn_{name}"] = Target(block.attn, "in_proj_weight", block.attn, rows)
        layers[f"{stem}_self_attn_out_proj"] = Target(block.attn.out_proj, "weight", block.attn)
        layers[f"{stem}_mlp_fc1"] = Target(block.mlp.c_fc, "weight", block.mlp.c_fc)
        layers[f"{stem}_mlp_fc2"] = Target(block.mlp.c_proj, "weight", block.mlp.c_proj)
        for i, norm in enumerate((block.ln_1, block.ln_2), start=1):
            layers[f"{stem}_layer_norm{i}"] = Target(norm, "weight", norm)
    if hasattr(model, "ln_final"):
        layers[f"{prefix}_text_model_final_layer_norm"] = Target(model.ln_final, "weight", model.ln_final)
    return layers


def _modules(root: nn.Module):
    for name, module in root.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, *NORMS)) and module.weight is not None:
            yield name, module
