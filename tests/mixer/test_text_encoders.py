"""The mixer on text encoders: transformers' CLIP and OpenCLIP's packed attention."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lora_files import TinyOpenClip, factors, tiny_clip
from torch import nn

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from mixer_bench import (
    DTYPES,
    WITH_PRETENDED,
    Interrupted,
    Snapshot,
    assert_near,
    dense_weight,
    skip_where_torch_lacks,
    wide_copy,
)

from sciart_ext.lora.blocks import group_of
from sciart_ext.lora.file import LoraFile
from sciart_ext.lora.low_rank import LowRank
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.mixture import Part, bind
from sciart_ext.mixer.targets import clip_layers, open_clip_layers


def text_lora(prefix="te1", rank=3, seed=1):
    shapes = {f"self_attn_{name}": (12, 12) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
    shapes.update({"mlp_fc1": (24, 12), "mlp_fc2": (12, 24)})
    layers = {f"{prefix}_text_model_encoder_layers_{n}_{name}":
              LowRank(*factors(shape, rank, 100 * seed + 10 * n + i), 0.5)
              for n in range(2) for i, (name, shape) in enumerate(shapes.items())}
    return LoraFile(f"text{seed}", Path(f"text{seed}.safetensors"), "LoRA", "unknown", layers)


def add_densely(wide, model, loras, gates):
    """Writes W + ΔW into the float64 copy of an OpenCLIP-like model; q, k and v are thirds of one matrix."""
    for n, (block, own) in enumerate(zip(wide.transformer.resblocks, model.transformer.resblocks)):
        stem = f"te1_text_model_encoder_layers_{n}"
        places = {"mlp_fc1": (block.mlp.c_fc.weight, own.mlp.c_fc.weight),
                  "mlp_fc2": (block.mlp.c_proj.weight, own.mlp.c_proj.weight),
                  "self_attn_out_proj": (block.attn.out_proj.weight, own.attn.out_proj.weight)}
        thirds = zip("qkv", block.attn.in_proj_weight.chunk(3), own.attn.in_proj_weight.chunk(3))
        places.update({f"self_attn_{letter}_proj": (part, own_part) for letter, part, own_part in thirds})
        with torch.no_grad():
            for name, (weight, own_weight) in places.items():
                weight.copy_(dense_weight(own_weight, f"{stem}_{name}", loras, gates))


def entries(count, **fields):
    return [SimpleNamespace(**{"blocks": {}, **fields}) for _ in range(count)]


@pytest.mark.parametrize("device", WITH_PRETENDED)
def test_text_is_encoded_with_its_gates_and_plainly_afterwards(bench, device):
    clip = tiny_clip().to(device)
    snapshot, tokens = Snapshot(clip), torch.tensor([[48, 3, 4, 5, 49]], device=device)
    loras = [text_lora(seed=1), text_lora(seed=2, rank=2)]
    layers, gates = clip_layers(clip, "te1"), (0.7, -0.4)
    mixture = bind({"unet": Part(bench.unet, bench.layers), "te1": Part(clip, layers)}, loras, entries(2), "toy")
    assert mixture.notes == ()
    wide = wide_copy(clip)
    for name, target in clip_layers(wide, "te1").items():
        target.module.weight = nn.Parameter(dense_weight(layers[name].weight(), name, loras, gates))
    with torch.no_grad():
        plain = clip(tokens).last_hidden_state
        expected = in_double_precision(wide, tokens.cpu())
        with mixture.encoding(gates):
            for _ in range(2):
                assert_near(clip(input_ids=tokens).last_hidden_state, expected, 2e-5)
        snapshot.assert_restored()
        assert torch.equal(clip(tokens).last_hidden_state, plain)
        with mixture.encoding((0.0, 0.0)):
            snapshot.assert_restored()
            assert torch.equal(clip(tokens).last_hidden_state, plain)
        with pytest.raises(Interrupted), mixture.encoding(gates):
            clip(tokens)
            raise Interrupted
        snapshot.assert_restored()
    assert (expected - plain.double().cpu()).abs().max() > 0.1


def in_double_precision(clip, tokens):
    """Older transformers fill the mask with the smallest double, which torch takes only where that is its default."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return clip(tokens).last_hidden_state
    finally:
        torch.set_default_dtype(before)


def test_block_factors_are_for_the_unet_alone(bench):
    clip = tiny_clip()
    parts = {"unet": Part(bench.unet, bench.layers), "te1": Part(clip, clip_layers(clip, "te1"))}
    lora = text_lora()
    both = LoraFile("both", lora.path, "LoRA", "unknown", {**lora.layers, **bench.lora().layers})
    mixture = bind(parts, [both], entries(1, blocks={"in": 0.0, "mid": 0.0, "out": 0.0}), "toy")
    assert len(mixture.text_encoders[0].layer_names) == 12
    assert not any(group_of(name) for name in mixture.unet.layer_names)


def test_a_mixture_has_no_mixer_for_a_text_encoder_that_no_lora_reaches(bench):
    clip = tiny_clip()
    parts = {"unet": Part(bench.unet, bench.layers), "te1": Part(clip, clip_layers(clip, "te1"))}
    mixture = bind(parts, [bench.lora()], entries(1), "toy")
    assert mixture.text_encoders == ()
    mixture.release()
    mixture.release()


@pytest.mark.parametrize("device", WITH_PRETENDED)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("names", [("",), ("q_proj",), ("k_proj", "v_proj"), ("out_proj",), ("mlp",)], ids=str)
def test_packed_attention_gives_what_dense_weights_give(bench, names, dtype, device):
    skip_where_torch_lacks(dtype, device)
    torch.manual_seed(0)
    model = TinyOpenClip().to(device, dtype).eval()
    snapshot, layers = Snapshot(model), open_clip_layers(model, "te1")
    assert not any(layers[name].can_branch for name in layers if "attn" in name)
    loras = [text_lora(seed=1), text_lora(seed=2, rank=2)]
    loras[1] = LoraFile("b", loras[1].path, "LoRA", "unknown",
                        {name: delta for name, delta in loras[1].layers.items() if any(part in name for part in names)})
    x, mixer, wide = torch.randn(2, 5, 12).to(device, dtype), Mixer(model, layers, loras), wide_copy(model)
    for gates in ((0.0, 0.6), (0.4, -0.3)):
        add_densely(wide, model, loras, gates)
        with torch.no_grad(), mixer:
            expected = wide(x.double().cpu())
            mixer.set_gates([gates])
            for _ in range(2):
                assert_near(model(x), expected, 2 * DTYPES[dtype])
        snapshot.assert_restored()


def test_packed_weights_are_followed_when_the_host_changes_them():
    torch.manual_seed(0)
    model, lora = TinyOpenClip().eval(), text_lora()
    layers, x = open_clip_layers(model, "te1"), torch.randn(2, 5, 12)
    with torch.no_grad(), Mixer(model, layers, [lora]) as mixer:
        mixer.set_gates([[0.5]])
        model(x)
        for block in model.transformer.resblocks:
            block.attn.in_proj_weight.mul_(0.5)
        wide = wide_copy(model)
        add_densely(wide, model, [lora], (0.5,))
        assert_near(model(x), wide(x.double()), 2e-5)
