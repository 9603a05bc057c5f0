"""Every format reads as what its author's package does to a layer; and what is wrong with a file is named."""

from __future__ import annotations

import inspect

import pytest
import torch
from lora_files import pair, save

pytest.importorskip("lycoris")
pytest.importorskip("peft")

from benchmarks.widening.formats import CASES, layer_of, measure, relative_error, write
from sciart_ext.errors import SciArtError
from sciart_ext.lora.file import inspect_lora, load_lora
from sciart_ext.lora.kinds import BIAS
from sciart_ext.lora.low_rank import LowRank

STEM = "lora_unet_mid_block_attentions_0_proj_in"
LAYER = "unet_middle_block_1_proj_in"
KINDS = {"lora": "LoRA", "locon": "LoCon", "tucker": "LoCon", "dora": "DoRA", "loha": "LoHa", "lokr": "LoKr",
         "ia3": "IA3", "oft": "OFT", "boft": "BOFT", "glora": "GLoRA", "full": "full differences",
         "norm": "norm differences", "rslora": "LoRA", "patterns": "LoRA", "bias": "LoRA with biases"}
FOUR = torch.ones(4, 4)


def skip_where_peft_lacks(name):
    from peft import LoraConfig
    from peft.tuners.lokr import LoKrLayer

    if name == "peft bias" and "lora_bias" not in inspect.signature(LoraConfig).parameters:
        pytest.skip("this PEFT knows no biases")
    if name.startswith("peft lokr") and "scaling" not in inspect.getsource(LoKrLayer.get_delta_weight):
        pytest.skip("this PEFT left LoKr's alpha out of account, against what it writes")


def expected_kind(name):
    first, *rest = name.removeprefix("peft ").replace(",", "").split()
    if rest[:1] == ["dora"]:
        return f"DoRA of {KINDS[first]}"
    return "LoCon" if KINDS[first] == "LoRA" and "convolution" in name else KINDS[first]


@pytest.mark.parametrize("name", CASES)
def test_a_file_reads_as_what_its_author_does_to_the_layer(name):
    skip_where_peft_lacks(name)
    assert relative_error(name) <= 1e-5


@pytest.mark.parametrize("name", CASES)
def test_the_report_tells_the_kind_from_the_header_alone(name, tmp_path):
    skip_where_peft_lacks(name)
    torch.manual_seed(0)
    path = write(tmp_path, CASES[name].build(CASES[name].layer, layer_of(CASES[name].layer)))
    report = load_lora(path).report()
    assert report["kind"] == expected_kind(name)
    assert (report["unet_layers"], report["text_encoder_layers"]) == (1, 0)
    ranked = not any(word in name for word in ("ia3", "oft", "full", "norm", "both whole", "lokr whole"))
    assert (report["rank"] > 0) == ranked or "lokr dora" in name or "peft lokr" in name
    assert inspect_lora(path) == report


def test_the_benchmark_measures_every_format():
    skip_where_peft_lacks("peft lokr")
    quick = measure(quick=True)
    assert len(quick) > 30 and max(quick.values()) <= 1e-5


def test_a_tucker_core_is_folded_into_thin_factors(tmp_path):
    """So that such files take the quick path, and geometry is exact."""
    torch.manual_seed(0)
    reference = CASES["tucker, convolution"].build("convolution", layer_of("convolution"))
    delta, = load_lora(write(tmp_path, reference)).layers.values()
    assert isinstance(delta, LowRank) and delta.rank == delta.down.shape[0] == 4


@pytest.mark.parametrize("name", ["loha", "lokr, second factored", "lokr, first factored", "lokr, convolution"])
def test_thin_factors_of_products_are_exact(name, tmp_path):
    torch.manual_seed(0)
    reference = CASES[name].build(CASES[name].layer, layer_of(CASES[name].layer))
    delta, = load_lora(write(tmp_path, reference)).layers.values()
    thin = delta.factored()
    if name == "loha":
        assert thin.rank == delta.rank**2
    difference = thin.of(reference.module.weight).double() - reference.delta
    assert difference.abs().max() <= 1e-5 * reference.delta.abs().max()


@pytest.mark.parametrize("kind", ["dora by outputs, square", "oft, linear", "glora", "ia3 on outputs, linear"])
def test_what_depends_on_the_weight_says_so(kind, tmp_path):
    torch.manual_seed(0)
    reference = CASES[kind].build(CASES[kind].layer, layer_of(CASES[kind].layer))
    delta, = load_lora(write(tmp_path, reference)).layers.values()
    assert delta.needs_weight and delta.factored() is None
    weight = reference.module.weight.detach()
    assert not torch.allclose(delta.of(weight), delta.of(2 * weight + 1))


def test_factors_of_half_precision_are_multiplied_in_single(tmp_path):
    torch.manual_seed(0)
    reference = CASES["loha"].build("linear", layer_of("linear"))
    halved = {key: tensor.half() for key, tensor in reference.state.items()}
    wide = save(tmp_path / "wide.safetensors", {key: tensor.double() for key, tensor in halved.items()})
    thin = save(tmp_path / "thin.safetensors", halved)
    (exact,), (found,) = (load_lora(path).layers.values() for path in (wide, thin))
    weight = reference.module.weight.detach().half()
    assert found.of(weight).dtype == torch.float32
    assert (found.of(weight) - exact.of(weight)).abs().max() <= 1e-6 * exact.of(weight).abs().max()


def hada(**changed):
    state = {f"hada_{name}": torch.ones(*shape) for name, shape in
             {"w1_a": (8, 2), "w1_b": (2, 6), "w2_a": (8, 2), "w2_b": (2, 6)}.items()}
    return {f"{STEM}.{name}": tensor for name, tensor in {**state, **changed}.items() if tensor is not None}


WRONG = {
    "a LoHa without a half": (hada(hada_w2_b=None), "has no hada_w2_b matrix"),
    "a LoHa of two ranks": (hada(hada_w1_a=torch.ones(8, 3)), "hada_w1_a has rank 3, hada_w1_b has rank 2"),
    "a LoHa whose halves differ": (hada(hada_w1_a=torch.ones(9, 2)), "halves have shapes (9, 6) and (8, 6)"),
    "a LoKr without its second half": ({f"{STEM}.lokr_w1": FOUR}, "has neither lokr_w2 nor"),
    "a LoKr with half a product": ({f"{STEM}.lokr_w1": FOUR, f"{STEM}.lokr_w2_a": FOUR}, "has neither lokr_w2 nor"),
    "a LoKr with too much": ({f"{STEM}.lokr_{part}": FOUR for part in ("w1", "w2", "w2_a", "w2_b")}, "or too much"),
    "a Tucker core of another rank": ({**pair(), f"{STEM}.lora_mid.weight": torch.ones(2, 3, 3, 3)},
                                      "mid takes rank 3, down has rank 2"),
    "DoRA without a LoRA": ({f"{STEM}.dora_scale": FOUR}, "has no down matrix"),
    "DoRA of a difference": ({f"{STEM}.diff": FOUR, f"{STEM}.dora_scale": FOUR[:1]}, "beside what is no LoRA"),
    "DoRA magnitudes of two sides": ({**pair(), f"{STEM}.dora_scale": FOUR}, "dora_scale has shape (4, 4); accepted"),
    "OFT blocks that are not square": ({f"{STEM}.oft_blocks": torch.ones(2, 4, 3)},
                                       "blocks have 4, rows and columns 3"),
    "OFT blocks of two dimensions": ({f"{STEM}.oft_blocks": FOUR}, "oft_blocks has shape (4, 4); accepted: 3 or 4"),
    "BOFT of odd blocks": ({f"{STEM}.oft_blocks": torch.ones(2, 4, 3, 3)}, "accepted: of BOFT an even size"),
    "a GLoRA without a part": ({f"{STEM}.{part}.weight": FOUR for part in ("a1", "a2", "b1")}, "has no b2 matrix"),
    "IA3 of PEFT on a convolution": ({"base_model.model.mid_block.resnets.0.conv1.ia3_l": FOUR[None, :, :1, None]},
                                     "does not tell whether it scales inputs or outputs"),
    "two kinds in one layer": ({**pair(), **hada()}, "no known kind has both"),
    "a difference of five dimensions": ({f"{STEM}.diff": torch.ones(1, 1, 1, 1, 1)}, "accepted: 1 or 2 or 4"),
    "a bias of two dimensions": ({f"{STEM}.diff_b": FOUR}, "diff_b has shape (4, 4); accepted: 1 dim"),
    "a norm of no channels": ({f"{STEM}.w_norm": torch.ones(0)}, "w_norm has shape (0,)"),
}


@pytest.mark.parametrize(("state", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_layer_is_refused_by_its_name_and_fault(tmp_path, state, message):
    path = save(tmp_path / "wrong.safetensors", state)
    for read in (load_lora, inspect_lora):
        with pytest.raises(SciArtError) as caught:
            read(path)
        assert caught.value.field == "wrong.safetensors"
        assert "unet_middle_block" in caught.value.message and message in caught.value.message


def test_a_difference_of_a_bias_alone_is_read(tmp_path):
    lora = load_lora(save(tmp_path / "bias.safetensors", {f"{STEM}.diff_b": torch.arange(4.0)}))
    assert list(lora.layers) == [LAYER + BIAS] and lora.kind == "biases"
    assert torch.equal(lora.layers[LAYER + BIAS].of(torch.zeros(4)), torch.arange(4.0))


def test_a_lora_may_bring_the_difference_of_a_bias(tmp_path):
    lora = load_lora(save(tmp_path / "a.safetensors", {**pair(), f"{STEM}.diff_b": torch.ones(8)}))
    assert set(lora.layers) == {LAYER, LAYER + BIAS} and lora.kind == "LoRA with biases"
    assert lora.report()["unet_layers"] == 1


def test_embeddings_that_come_with_a_lora_are_told(tmp_path):
    state = {**pair(), "bundle_emb.word.string_to_param.*": torch.ones(2, 12), "bundle_emb.other.clip_l": FOUR,
             "bundle_emb.other.clip_g": FOUR}
    path = save(tmp_path / "a.safetensors", state)
    lora = load_lora(path)
    assert set(lora.layers) == {LAYER}
    assert {word: set(parts) for word, parts in lora.embeddings.items()} == {
        "word": {"string_to_param.*"}, "other": {"clip_l", "clip_g"}}
    assert lora.report()["embeddings"] == ["other", "word"]
    assert inspect_lora(path) == lora.report()


@pytest.mark.parametrize(("name", "base"), [
    ("lora_unet_input_blocks_7_1_transformer_blocks_3_attn2_to_q", "SDXL"),
    ("lora_te2_text_model_encoder_layers_0_mlp_fc1", "SDXL"), ("lora_unet_mid_block_attentions_0_proj_in", "unknown"),
])
def test_names_of_layers_tell_the_base_model(tmp_path, name, base):
    path = save(tmp_path / "a.safetensors", pair(name))
    assert load_lora(path).base == inspect_lora(path)["base"] == base


@pytest.mark.parametrize("width", [768, 1024, 2048])
def test_the_base_model_is_told_of_other_kinds_too(tmp_path, width):
    stem = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    state = {f"{stem}.lokr_w1": torch.ones(8, width // 16), f"{stem}.lokr_w2": torch.ones(2, 16)}
    path = save(tmp_path / "a.safetensors", state)
    assert load_lora(path).base == {768: "SD1", 1024: "SD2", 2048: "SDXL"}[width]
