"""What is no LoRA, or one for other models, is told by its own name and where it belongs; no LoRA is taken for it."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from foreign_files import BYTES, FAMILIES, THINGS, TUNERS, json_config, lora_for, nested, pairs, whole, zip_of_others
from lora_files import LAYOUTS, deltas_for, dotted, kohya, ldm, matrices, pair, raw_safetensors, save, tiny_unet

from sciart_ext.errors import SciArtError
from sciart_ext.lora.file import inspect_lora, load_lora
from sciart_ext.lora.foreign import KNOWN, name_foreign
from sciart_ext.lora.opened import SMALL_TENSOR
from sciart_ext.world import MODEL

FOREIGN = {**THINGS, **{name: (tensors, lora_for(family)) for name, (tensors, family) in FAMILIES.items()}}
SUFFIXES = (".safetensors", ".pt")


def refusal(path: Path) -> str:
    """What the list and the reader say alike."""
    told = set()
    for read in (inspect_lora, load_lora):
        with pytest.raises(SciArtError) as caught:
            read(path)
        assert caught.value.field == path.name
        told.add(caught.value.message)
    (message,) = told
    assert "\n" not in message and len(message) < 400
    return message


def write(path: Path, tensors) -> Path:
    if path.suffix == ".safetensors":
        return save(path, tensors)
    torch.save({key: tensor.clone() for key, tensor in tensors.items()}, path)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", FOREIGN)
def test_it_is_told_what_a_file_is(tmp_path, name, suffix):
    tensors, sentence = FOREIGN[name]
    assert refusal(write(tmp_path / f"file{suffix}", tensors)) == sentence


@pytest.mark.parametrize("name", ["checkpoint", "VAE", "ESRGAN", "SD3 of diffusers"])
def test_a_large_file_is_told_by_its_header(tmp_path, name):
    tensors, sentence = FOREIGN[name]
    assert refusal(save(tmp_path / "file.safetensors", {**tensors, "z": torch.zeros(2**20 + SMALL_TENSOR)})) == sentence


@pytest.mark.parametrize("dtype", ["I64", "F8_E4M3", "U8"])
def test_a_checkpoint_with_other_precisions_is_one(tmp_path, dtype):
    size = 8 if dtype == "I64" else 1
    path = raw_safetensors(tmp_path / "a.safetensors", {
        "cond_stage_model.transformer.text_model.embeddings.position_ids":
            {"dtype": dtype, "shape": [1, 77], "data_offsets": [0, 77 * size]}}, bytes(77 * size))
    assert refusal(path) == THINGS["checkpoint"][1]


PICKLED = {
    "embedding of a WebUI": ({"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(2, 768)},
                              "name": "kim", "step": 500, "sd_checkpoint": None}, THINGS["embedding of a WebUI"][1]),
    "first embeddings": ({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": torch.nn.ParameterDict(
        {"a": torch.nn.Parameter(torch.ones(2, 768))})}, THINGS["embedding of a WebUI"][1]),
    "hypernetwork": ({320: (OrderedDict(whole("linear.0.weight")), OrderedDict(whole("linear.0.weight"))), "step": 9,
                      "layer_structure": [1, 2, 1]}, "a hypernetwork; put it into the hypernetworks folder"),
    "IP-Adapter": (nested(THINGS["IP-Adapter"][0]), THINGS["IP-Adapter"][1]),
    "IP-Adapter FaceID": (nested(THINGS["IP-Adapter FaceID"][0]), THINGS["IP-Adapter FaceID"][1]),
    "upscaler": ({"params_ema": OrderedDict(whole("conv_first.weight", "body.0.rdb1.conv1.weight"))},
                 THINGS["ESRGAN"][1]),
    "compact upscaler": ({"params": OrderedDict(whole("body.0.weight", "body.2.weight"))}, THINGS["ESRGAN"][1]),
    "checkpoint": ({"state_dict": THINGS["checkpoint"][0], "epoch": 3}, THINGS["checkpoint"][1]),
    "checkpoint with its trainer": ({"state_dict": THINGS["checkpoint"][0], "callbacks": {int: 3}},
                                    THINGS["checkpoint"][1]),
    "motion module": ({"state_dict": {f"module.{key}": value for key, value in THINGS["motion module"][0].items()}},
                      THINGS["motion module"][1]),
}


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "in turn"])
@pytest.mark.parametrize("name", PICKLED)
def test_it_is_told_what_a_pickle_is(tmp_path, name, archive):
    content, sentence = PICKLED[name]
    path = tmp_path / "file.pt"
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    assert refusal(path) == sentence


@pytest.mark.parametrize("key", TUNERS)
def test_what_made_it_is_told(tmp_path, key):
    told = refusal(save(tmp_path / "a.safetensors", whole(key)))
    assert told == f"{TUNERS[key]} is not supported; supported are {KNOWN}"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", BYTES)
def test_it_is_told_what_is_no_file_of_tensors(tmp_path, name, suffix):
    content, sentence = BYTES[name]
    (tmp_path / f"file{suffix}").write_bytes(content)
    with pytest.raises(SciArtError, match=sentence):
        load_lora(tmp_path / f"file{suffix}")
    refusal(tmp_path / f"file{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_archives_and_configurations_are_told(tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    zip_of_others(path)
    assert "a ZIP archive" in refusal(path) and "unpack it" in refusal(path)
    json_config(path)
    assert refusal(path).startswith("JSON, ")


def test_a_file_with_the_other_ending_is_told(tmp_path):
    torch.save(pair(), tmp_path / "a.safetensors")
    assert refusal(tmp_path / "a.safetensors") == ("a PyTorch file under a name that says safetensors; give it the "
                                                   "ending .pt")
    torch.save(pair(), tmp_path / "b.safetensors", _use_new_zipfile_serialization=False)
    assert "give it the ending .pt" in refusal(tmp_path / "b.safetensors")
    path = save(tmp_path / "c.safetensors", pair()).rename(tmp_path / "c.pt")
    assert refusal(path) == "a safetensors file under another name; give it the ending .safetensors"


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "in turn"])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_half_a_download_is_told(tmp_path, share, archive):
    path = save(tmp_path / "a.safetensors", pairs("unet.mid_block.attentions.0.proj_in", out=900, inputs=900))
    path.write_bytes(path.read_bytes()[:int(share * path.stat().st_size)])
    assert "beyond the end of the file" in refusal(path) and "download it again" in refusal(path)
    path = tmp_path / "a.pt"
    torch.save(pairs("unet.mid_block.attentions.0.proj_in", out=900, inputs=900), path,
               _use_new_zipfile_serialization=archive)
    path.write_bytes(path.read_bytes()[:int(share * path.stat().st_size)])
    assert "damaged" in refusal(path) or "download it again" in refusal(path)


def proper() -> dict[str, dict[str, torch.Tensor]]:
    """LoRAs of all layers of both UNets in every dialect, and of parts alone."""
    states = {}
    for layout in LAYOUTS:
        deltas = deltas_for(matrices(tiny_unet(layout)))
        states |= {f"{layout} of kohya": kohya(deltas, alpha=1), f"{layout} of diffusers": dotted(deltas),
                   f"{layout} of PEFT": dotted(deltas, "base_model.model."),
                   f"{layout} of old diffusers": dotted(deltas, down=".lora.down.weight", up=".lora.up.weight"),
                   f"{layout} as LDM": kohya(ldm(deltas)),
                   f"{layout} of ComfyUI": dotted(ldm(deltas), "diffusion_model."),
                   f"{layout} of processors": {key.replace(".to_", ".processor.to_"): value for key, value in
                                               dotted(deltas, down="_lora.down.weight", up="_lora.up.weight").items()}}
    for text in ("text_model.encoder.layers.0.mlp.fc1", "text_model.encoder.layers.11.self_attn.q_proj"):
        pair_of = {text: (torch.ones(2, 768), torch.ones(768, 2))}
        states |= {f"{prefix}{text}": kohya(pair_of, prefix) for prefix in ("lora_te_", "lora_te1_", "lora_te2_")}
        states |= {f"{prefix}{text}": dotted(pair_of, prefix) for prefix in (
            "text_encoder.", "text_encoder_2.", "base_model.model.", "", "text_encoders.clip_l.transformer.")}
    for part in ("hada_w1_a", "lokr_w1", "oft_blocks", "ia3_l", "diff", "w_norm", "a1.weight", "on_input"):
        states[part] = whole(f"lora_unet_down_blocks_1_attentions_0_norm.{part}")
        states[f"dotted {part}"] = whole(f"unet.conv_in.{part}")
    states["added conditioning"] = pairs("lora_unet_add_embedding_linear_1", inputs=2816, out=1280)
    states["a third text encoder beside"] = states["sdxl of kohya"] | pairs(
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q")
    states["a bundled embedding"] = states["sdxl of kohya"] | whole("bundle_emb.kim.clip_l", "bundle_emb.kim.clip_g")
    states["a counter beside"] = states["sd1 of kohya"] | whole("step", "logit_scale")
    return states


PROPER = proper()


@pytest.mark.parametrize("name", PROPER)
def test_no_lora_is_taken_for_something_else(name):
    sizes = {key: tuple(tensor.shape) for key, tensor in PROPER[name].items()}
    for metadata in ({}, {"ss_base_model_version": "sdxl_base_v1-0"}, {"modelspec.architecture": "flux-1-dev/lora"}):
        assert name_foreign(sizes, metadata) is None


def test_the_tiny_models_loras_are_loras():
    for path in (MODEL / "loras").glob("*.safetensors"):
        assert load_lora(path).layers


@pytest.mark.parametrize(("name", "metadata", "family"), [
    ("Flux or Chroma, attention alone", {"modelspec.architecture": "chroma/lora"}, "Chroma"),
    ("Flux or Chroma, attention alone", {"ss_base_model_version": "flux1"}, "Flux"),
    ("Flux Kontext of musubi", {"modelspec.architecture": "hunyuan-video/lora"}, "HunyuanVideo"),
    ("Flux of kohya", {"ss_base_model_version": "sdxl_base_v1-0"}, "Flux"),
    ("Wan of musubi", {"modelspec.architecture": "flux-1-dev/lora"}, "Wan"),
])
def test_what_a_file_says_of_itself_decides_between_equal_names(name, metadata, family):
    sizes = {key: tuple(tensor.shape) for key, tensor in FAMILIES[name][0].items()}
    assert name_foreign(sizes, metadata) == lora_for(family)


def test_names_that_were_made_to_take_long_do_not():
    sizes = {"a" * 250 + f"_{i:05}_blocks_" + "0_" * 100: (1,) for i in range(2000)}
    assert name_foreign(sizes, {}) is None
