"""Files that are no LoRA, or one for what is not mixed here: what a file is, from its unknown keys."""

from __future__ import annotations

from collections.abc import Sequence

# What they leave in a key: checked in this order, the first that occurs names the file.
_FOREIGN = (
    ("model.diffusion_model.", "a whole checkpoint"), ("cond_stage_model.", "a whole checkpoint"),
    ("first_stage_model.", "a whole checkpoint"), ("boft_R", "BOFT of PEFT"), ("oft_R", "OFT of PEFT"),
    ("bias_indices", "LoRA with a sparse rest (LyCORIS extract)"), ("lora_down.bias", "LoRA with biases within"),
    ("lora_A.bias", "LoRA with biases within"), ("lokr_t1", "LoKr with a core in its first half"),
    ("bm.weight", "GLoRA with Tucker decomposition"), ("vera_lambda", "VeRA"), ("double_blocks", "a Flux LoRA"),
    ("single_blocks", "a Flux LoRA"), ("single_transformer_blocks", "a Flux LoRA"), ("joint_blocks", "an SD3 LoRA"),
    ("emb_params", "an embedding"), ("string_to_param", "an embedding"), ("clip_l", "an embedding"),
    ("control_model.", "a ControlNet"), ("lllite", "a ControlNet-LLLite"), ("motion_modules", "an AnimateDiff module"),
    ("encoder.down.", "a VAE"), ("up_blocks.0.resnets.0.conv1.weight", "a whole UNet"),
    ("text_model.encoder.layers.0.mlp.fc1.weight", "a whole text encoder"),
)


def name_foreign(keys: Sequence[str]) -> str | None:
    """What kind of file these unknown keys belong to; None where nothing tells."""
    text = "\n".join(keys)
    return next((name for mark, name in _FOREIGN if mark in text), None)
