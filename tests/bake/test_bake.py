"""A baked checkpoint holds what the mixer makes, in every precision; nothing else in it, and no original, changes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lora_files import TinyOpenClip, raw_safetensors, save, tiny_unet
from lora_kinds import MATRICES, bias_delta, delta_of_kind, norm_delta
from safetensors import safe_open
from safetensors.torch import load_file, save_file

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from random_model import write_random_model

from benchmarks.widening.layout_writers import ldm_name
from sciart_ext.bake import baking, changed
from sciart_ext.bake.baking import METADATA_KEY, bake
from sciart_ext.bake.checkpoint import read_checkpoint
from sciart_ext.bake.places import ldm_places
from sciart_ext.cli import main
from sciart_ext.errors import SciArtError
from sciart_ext.lora.file import LoraFile
from sciart_ext.mixer.cost import Workload
from sciart_ext.mixer.mixture import bind
from sciart_ext.recipe import compile_plan, parse_recipe
from sciart_ext.recipe.combining import METHODS
from sciart_ext.standalone.export import ldm_tensors
from sciart_ext.standalone.generate import Settings, generate, load_loras, model_parts
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.whole_file import NoRoomError

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings("a rocket", "noise", steps=3, seed=5, cfg_scale=3, width=64, height=64, sampler="Euler")
MIX = {"loras": [
    {"name": "child", "weight": 0.8, "te_weight": 0.3,
     "blocks": {"in": 0.5, "OUT05": -1, "convolution": "0.7@0, 0.7@1"}},
    {"name": "watercolor", "schedule": "0.55@0.2, 0.55@0.9"},
    {"name": "science", "weight": 0, "te_weight": -0.6},
]}
COMBINING = {"density": 0.4, "seed": 3, "directions": 2, "strength": 0.7}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def original(tiny, tmp_path_factory):
    """The model as an LDM checkpoint of single precision."""
    path = tmp_path_factory.mktemp("checkpoints") / "original.safetensors"
    save_file(dict(ldm_tensors(tiny[0])), path, {"format": "pt", "modelspec.hash_sha256": "0x1", "kept": "é"})
    return path


def mix(method="linear"):
    return parse_recipe({**MIX, "combine": method, "combining": COMBINING})


def presented(tiny, recipe):
    """The weights that a mixer shows while the parts of the model are called, by canonical layer name."""
    pipe = load_pipeline(tiny[0], device="cpu")
    parts = model_parts(pipe)
    mixture = bind(parts, load_loras(recipe, tiny[1]), recipe.loras, "tiny", "merge", combination=recipe.combination)
    shown = {}

    def keep(part):
        def hook(*_):
            shown.update({name: target.weight().clone() for name, target in part.layers.items()})
        return hook

    plan = compile_plan(recipe, 1).first
    mixture.unet.choose(Workload(1, 1, 1, 8, 8, 77))
    with mixture.unet, torch.no_grad():
        mixture.unet.set_gates([plan.gates(0.0)])
        handle = pipe.unet.conv_out.register_forward_hook(keep(parts["unet"]))
        pipe.unet(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 77, 64))
        handle.remove()
    with mixture.encoding(plan.te_gates()), torch.no_grad():
        (norm,) = (one for name, one in pipe.text_encoder.named_modules() if name.endswith("final_layer_norm"))
        handle = norm.register_forward_hook(keep(parts["te1"]))
        pipe.text_encoder(torch.zeros(1, 77, dtype=torch.long))
        handle.remove()
    return shown


@pytest.mark.parametrize("method", METHODS)
def test_every_layer_is_what_the_mixer_shows(tiny, original, tmp_path, method):
    recipe = mix(method)
    baked = bake(original, tmp_path / "baked.safetensors", recipe, load_loras(recipe, tiny[1]))
    before, after, shown = load_file(original), load_file(baked.path), presented(tiny, recipe)
    places = ldm_places(read_checkpoint(original))
    assert places.keys() == shown.keys() and list(after) == list(before)
    changed = 0
    for name, place in places.items():
        torch.testing.assert_close(after[place.weight], shown[name], rtol=1e-5, atol=2e-6, msg=name)
        changed += not torch.equal(after[place.weight], before[place.weight])
    assert changed == baked.changed > 150 and baked.tensors == len(before) and baked.notes == ()
    layers = {place.weight for place in places.values()}
    assert all(torch.equal(after[key], before[key]) for key in before if key not in layers)


def converted(original, path, dtype_of):
    save_file({key: value.to(dtype_of(key)) for key, value in load_file(original).items()}, path)
    return path


DTYPES = {
    "half": lambda key: torch.float16, "bfloat16": lambda key: torch.bfloat16, "double": lambda key: torch.float64,
    "mixed": lambda key: (torch.float16 if "attn1" in key else torch.bfloat16 if "attn2" in key else torch.float32),
    "eight bits": lambda key: torch.float8_e4m3fn if "attn1" in key else torch.float16,
}


@pytest.mark.parametrize("name", DTYPES)
def test_each_tensor_keeps_its_precision_and_is_rounded_once(tiny, original, tmp_path, name):
    path = converted(original, tmp_path / "original.safetensors", DTYPES[name])
    recipe = mix()
    loras = load_loras(recipe, tiny[1])
    after = load_file(bake(path, tmp_path / "baked.safetensors", recipe, loras).path)
    before, places = load_file(path), ldm_places(read_checkpoint(path))
    assert {key: value.dtype for key, value in after.items()} == {key: value.dtype for key, value in before.items()}
    layer = "unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    weight = before[places[layer].weight].double()
    delta = 0.4 * loras[0].layers[layer].of(weight).double() + 0.55 * loras[1].layers[layer].of(weight).double()
    exact, found = (weight + delta).to(before[places[layer].weight].dtype), after[places[layer].weight]
    assert torch.allclose(found.double(), weight + delta, rtol=1e-6) if exact.dtype == torch.float64 else (
        found.float() == exact.float()).float().mean() > 0.99


@pytest.mark.parametrize("method", ["linear", "ties"])
def test_its_picture_is_the_mixtures(tiny, original, tmp_path, method):
    recipe = mix(method)
    loras = load_loras(recipe, tiny[1])
    baked = bake(original, tmp_path / "baked.safetensors", recipe, loras).path
    off = parse_recipe({"enabled": False})

    def picture(path, recipe, loras):
        return np.asarray(generate(load_pipeline(path, tiny[0], "cpu"), recipe, SETTINGS, loras).image).astype(int)

    mixed = picture(original, recipe, loras)
    assert np.abs(picture(baked, off, []) - mixed).max() <= 1
    assert np.abs(picture(original, off, []) - mixed).mean() > 3


def test_a_diffusers_folder_is_baked_too(tiny, tmp_path):
    recipe = mix()
    loras = load_loras(recipe, tiny[1])
    out = tmp_path / "baked"
    baked = bake(tiny[0], out, recipe, loras)
    off = parse_recipe({"enabled": False})
    pictures = [np.asarray(generate(load_pipeline(path, device="cpu"), one, SETTINGS, own).image).astype(int)
                for path, one, own in ((out, off, []), (tiny[0], recipe, loras), (tiny[0], off, []))]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1 and np.abs(pictures[2] - pictures[1]).mean() > 3
    assert baked.changed > 150 and not (out / "loras").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["baked"]


def sdxl(path):
    """A checkpoint with SDXL's layout of names, a few channels wide, and its weights by canonical layer name."""
    torch.manual_seed(0)
    unet, text = tiny_unet("sdxl"), TinyOpenClip()
    state = {f"model.diffusion_model.{ldm_name(name.rpartition('.')[0])}.{name.rpartition('.')[2]}": value
             for name, value in unet.state_dict().items() if "norm" not in name.split(".")[-2]}
    state |= {f"conditioner.embedders.1.model.{name}": value for name, value in text.state_dict().items()}
    state["conditioner.embedders.1.model.text_projection"] = torch.randn(12, 8)
    state["conditioner.embedders.1.model.ln_final.weight"] = torch.randn(12)
    state["first_stage_model.decoder.conv_in.weight"] = torch.randn(4, 4)
    state["conditioner.embedders.0.transformer.text_model.embeddings.position_ids"] = torch.arange(77)
    save_file({key: value.clone().contiguous() for key, value in state.items()}, path)
    return path, state


TEXT = "conditioner.embedders.1.model."
PACKED = [(f"te2_text_model_encoder_layers_1_self_attn_{name}", slice(12 * i, 12 * i + 12))
          for i, name in enumerate(("q_proj", "k_proj", "v_proj"))]


def lora(layers, name="kind"):
    return LoraFile(name, Path(f"{name}.safetensors"), "", "unknown", layers)


@pytest.mark.parametrize("kind", MATRICES)
def test_every_kind_of_lora_is_baked_into_every_kind_of_layer(tmp_path, kind):
    path, state = sdxl(tmp_path / "sdxl.safetensors")
    layers = {"unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k": "model.diffusion_model.input_blocks.4.1."
              "transformer_blocks.1.attn2.to_k.weight",
              "unet_output_blocks_2_upsampler_conv": "model.diffusion_model.output_blocks.2.2.conv.weight",
              "unet_input_blocks_3_0_op": "model.diffusion_model.input_blocks.3.0.op.weight",
              "te2_text_model_encoder_layers_0_mlp_fc1": f"{TEXT}transformer.resblocks.0.mlp.c_fc.weight",
              "te2_text_model_encoder_layers_0_self_attn_out_proj":
              f"{TEXT}transformer.resblocks.0.attn.out_proj.weight"}
    deltas = {name: delta_of_kind(kind, state[key].shape, seed) for seed, (name, key) in enumerate(layers.items())}
    deltas |= {name: delta_of_kind(kind, (12, 12), seed) for seed, (name, _) in enumerate(PACKED[1:], start=9)}
    deltas["te2_text_projection"] = delta_of_kind(kind, (8, 12), 20)
    recipe = parse_recipe({"loras": [{"name": "kind", "weight": 0.7, "te_weight": -0.4}]})
    baked = bake(path, tmp_path / "baked.safetensors", recipe, [lora(deltas)])
    after = load_file(baked.path)
    for name, key in layers.items():
        weight = 0.7 if name.startswith("unet") else -0.4
        torch.testing.assert_close(after[key], state[key] + weight * deltas[name].of(state[key]), msg=name)
    packed, before = after[f"{TEXT}transformer.resblocks.1.attn.in_proj_weight"], state[
        f"{TEXT}transformer.resblocks.1.attn.in_proj_weight"]
    assert torch.equal(packed[:12], before[:12])
    for name, rows in PACKED[1:]:
        torch.testing.assert_close(packed[rows], before[rows] - 0.4 * deltas[name].of(before[rows]))
    projection = state[f"{TEXT}text_projection"].t()
    torch.testing.assert_close(after[f"{TEXT}text_projection"].t(),
                               projection - 0.4 * deltas["te2_text_projection"].of(projection.contiguous()))
    same = {key for key in state if torch.equal(after[key], state[key])}
    assert len(state) - len(same) == baked.changed == 7


def test_norms_and_biases_are_baked(tmp_path):
    path, state = sdxl(tmp_path / "sdxl.safetensors")
    deltas = {
        "te2_text_model_encoder_layers_0_layer_norm1": norm_delta(12, 1),
        "te2_text_model_encoder_layers_0_layer_norm1.bias": bias_delta(12, 2),
        "te2_text_model_final_layer_norm": norm_delta(12, 3),
        "unet_input_blocks_4_1_proj_in.bias": bias_delta(16, 4),
        "te2_text_model_encoder_layers_1_self_attn_k_proj.bias": bias_delta(12, 5)}
    recipe = parse_recipe({"loras": [{"name": "kind", "weight": 0.5}]})
    after = load_file(bake(path, tmp_path / "baked.safetensors", recipe, [lora(deltas)]).path)
    block = f"{TEXT}transformer.resblocks."
    for key, rows, name in ((f"{block}0.ln_1.weight", slice(12), "te2_text_model_encoder_layers_0_layer_norm1"),
                            (f"{block}0.ln_1.bias", slice(12), "te2_text_model_encoder_layers_0_layer_norm1.bias"),
                            (f"{TEXT}ln_final.weight", slice(12), "te2_text_model_final_layer_norm"),
                            ("model.diffusion_model.input_blocks.4.1.proj_in.bias", slice(16),
                             "unet_input_blocks_4_1_proj_in.bias"),
                            (f"{block}1.attn.in_proj_bias", slice(12, 24),
                             "te2_text_model_encoder_layers_1_self_attn_k_proj.bias")):
        torch.testing.assert_close(after[key][rows], state[key][rows] + 0.5 * deltas[name].value)
    assert sum(not torch.equal(after[key], state[key]) for key in state) == 5


def test_a_bias_that_the_model_does_not_have_is_refused(tmp_path):
    path, _ = sdxl(tmp_path / "sdxl.safetensors")
    deltas = {"unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.bias": bias_delta(16)}
    recipe = parse_recipe({"loras": [{"name": "kind", "weight": 0.5}]})
    with pytest.raises(SciArtError, match=r"^kind\.safetensors: changes the bias of unet_input_.*, which sdxl has not"):
        bake(path, tmp_path / "baked.safetensors", recipe, [lora(deltas)])
    recipe = parse_recipe({"loras": [{"name": "kind", "weight": 0.5, "blocks": {"in": 0}}, {"name": "b", "weight": 1}]})
    other = lora({"unet_input_blocks_4_1_proj_in.bias": bias_delta(16)}, "b")
    assert bake(path, tmp_path / "baked.safetensors", recipe, [lora(deltas), other]).changed == 1


def test_what_was_baked_is_in_the_metadata_beside_what_was_there(tiny, original, tmp_path):
    for name, source in (("one", original), ("two", tmp_path / "one.safetensors")):
        assert main(["bake", f"child={len(name)}", "--lora-dir", str(tiny[1]), "--method", "ties", "--quiet", "--model",
                     str(source), "--out", str(tmp_path / f"{name}.safetensors")]) == 0
    with safe_open(tmp_path / "two.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["kept"] == "é" and metadata["format"] == "pt" and "modelspec.hash_sha256" not in metadata
    first, second = json.loads(metadata[METADATA_KEY])
    assert first["model"] == "original.safetensors" and second["model"] == "one.safetensors"
    assert first["loras"] == [{"name": "child", "file": "child.safetensors", "weight": 3}]
    assert first["combine"] == "ties"


def test_no_original_is_written_over_however_it_is_called(tiny, original, tmp_path, monkeypatch, capsys):
    content = original.read_bytes()
    copy = tmp_path / "folder" / "original.safetensors"
    copy.parent.mkdir()
    copy.write_bytes(content)
    os.link(copy, tmp_path / "hard.safetensors")
    (tmp_path / "soft.safetensors").symlink_to(copy)
    (tmp_path / "dangling.safetensors").symlink_to(tmp_path / "nowhere.safetensors")
    (tmp_path / "there.safetensors").write_bytes(b"")
    monkeypatch.chdir(copy.parent)
    for out, message in (("original.safetensors", "is original.safetensors itself"),
                         ("../folder/../folder/original.safetensors", "itself"), ("../hard.safetensors", "itself"),
                         ("../soft.safetensors", "itself"), (str(copy), "itself"),
                         ("../there.safetensors", "is there already"), ("../dangling.safetensors", "is there already"),
                         (str(tiny[1] / "child.safetensors"), "is there already"),
                         ("x.ckpt", "a name that ends in .safetensors")):
        assert main(["bake", "child=1", "--lora-dir", str(tiny[1]), "--quiet", "--model", str(copy), "--out", out]) == 2
        told = capsys.readouterr().err
        assert told.startswith("sciart: out: ") and message in told
    assert copy.read_bytes() == content == original.read_bytes()
    assert main(["bake", "child=1", "--lora-dir", str(tiny[1]), "--quiet", "--model", str(tiny[0]), "--out",
                 str(tiny[0] / "inside")]) == 2
    assert "is in the model itself" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "message"), [
    ({"loras": [{"name": "child", "schedule": "0@0, 1@1"}]}, r"loras\[0\].schedule: one file has one weight"),
    ({"loras": [{"name": "child", "weight": 1, "apply_to": "cond"}]}, r"loras\[0\].apply_to: one file has one weight"),
    ({"loras": [{"name": "child", "weight": 0}]}, "loras: every weight is 0; nothing is left to bake"),
])
def test_weights_that_a_checkpoint_cannot_hold_are_refused(tiny, original, tmp_path, given, message):
    recipe = parse_recipe(given)
    with pytest.raises(SciArtError, match=message):
        bake(original, tmp_path / "baked.safetensors", recipe, load_loras(recipe, tiny[1]))
    assert not list(tmp_path.iterdir())


def test_what_is_no_model_is_refused(tiny, original, tmp_path):
    recipe = parse_recipe({"loras": [{"name": "child", "weight": 1}]})
    loras, out = load_loras(recipe, tiny[1]), tmp_path / "out.safetensors"
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(original.read_bytes()[:-5])
    page = tmp_path / "page.safetensors"
    page.write_bytes(b"<!doctype html><html>")
    for model, message in ((tiny[1] / "science.safetensors", "is no checkpoint of Stable Diffusion 1, 2 or XL"),
                           (tmp_path / "none.safetensors", "no such file"), (cut, "damaged: it has"),
                           (page, "an HTML page"), (Path(__file__), "accepted: a .safetensors checkpoint")):
        with pytest.raises(SciArtError, match=message):
            bake(model, out, recipe, loras)
    assert not out.exists()


@pytest.mark.parametrize(("header", "message"), [
    ({"__metadata__": [1]}, "not a table of tensors"), ({"__metadata__": {"a": 1}}, "not a table of texts"),
    ([1], "not a table of tensors"), ({"a": 1}, "not a table of tensors"), (b"{", "not valid JSON"),
    ({"a": {"dtype": [1], "shape": [1], "data_offsets": [0, 4]}}, "is not told as a tensor is"),
    ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, "is not told as a tensor is"),
    ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 4]}}, "which is not its shape"),
])
def test_a_strangers_checkpoint_is_refused(tmp_path, header, message):
    path = raw_safetensors(tmp_path / "a.safetensors", header, bytes(4))
    with pytest.raises(SciArtError, match=message):
        read_checkpoint(path)


def test_loras_that_do_not_fit_are_refused_or_noted(original, tmp_path):
    stem = "unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    wide = lora({stem: delta_of_kind("thin factors", (99, 32))})
    recipe = parse_recipe({"loras": [{"name": "kind", "weight": 1}]})
    with pytest.raises(SciArtError, match=rf"{stem} has shape \(99, 32\), the layer of original has \(32, 32\)"):
        bake(original, tmp_path / "a.safetensors", recipe, [wide])
    partly = lora({stem: delta_of_kind("thin factors", (32, 32)),
                   "unet_input_blocks_99_1_x": delta_of_kind("full", (4, 4))})
    baked = bake(original, tmp_path / "a.safetensors", recipe, [partly])
    assert baked.changed == 1 and "1 of 2 layers are not in original" in baked.notes[0]


def test_numbers_too_large_for_the_precision_are_refused(original, tmp_path):
    path = converted(original, tmp_path / "half.safetensors", DTYPES["half"])
    stem = "unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    recipe = parse_recipe({"loras": [{"name": "kind", "weight": 10}]})
    with pytest.raises(SciArtError, match="would hold numbers too large for F16; accepted: lower weights"):
        bake(path, tmp_path / "a.safetensors", recipe, [lora({stem: delta_of_kind("full", (32, 32), size=1e5)})])
    assert [one.name for one in tmp_path.iterdir()] == ["half.safetensors"]


def test_only_what_changes_is_read_into_memory_one_after_the_other(tiny, original, tmp_path, monkeypatch):
    read, told, own = [], [], changed.read_tensor
    monkeypatch.setattr(changed, "read_tensor", lambda *given: read.append(given[2]) or own(*given))
    recipe = mix()
    baked = bake(original, tmp_path / "baked.safetensors", recipe, load_loras(recipe, tiny[1]),
                 lambda *now: told.append(now))
    assert len(read) == baked.changed < baked.tensors
    assert told == [(i + 1, baked.tensors) for i in range(baked.tensors)]


@pytest.mark.parametrize("folder", [False, True])
def test_what_fails_on_the_way_leaves_nothing(tiny, original, tmp_path, monkeypatch, folder):
    class Full:
        def __init__(self, *_):
            raise OSError(28, "No space left on device")

    recipe = mix()
    monkeypatch.setattr(baking, "memoryview", Full, raising=False)
    with pytest.raises(NoRoomError, match="cannot be written: No space left"):
        bake(tiny[0] if folder else original, tmp_path / ("out" if folder else "out.safetensors"), recipe,
             load_loras(recipe, tiny[1]))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_before_the_work(tiny, original, tmp_path, monkeypatch):
    monkeypatch.setattr(baking.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    recipe = mix()
    with pytest.raises(SciArtError, match=r"^out: the copy takes \d+ MB, .* has 0 MB left"):
        bake(original, tmp_path / "out.safetensors", recipe, load_loras(recipe, tiny[1]))


def test_notes_of_what_stays_outside(tiny, original, tmp_path):
    state = {**load_file(original), "model_ema.decay": torch.ones(1)}
    path = save(tmp_path / "ema.safetensors", state)
    recipe = parse_recipe({"loras": [{"name": "child", "weight": 1}]})
    child = replace(load_loras(recipe, tiny[1])[0], embeddings={"kim": {"clip_l": torch.ones(1, 8)}})
    notes = bake(path, tmp_path / "out.safetensors", recipe, [child]).notes
    assert "the embeddings that come with it (kim)" in notes[0] and "(model_ema) stays as it was" in notes[1]


def test_the_command_tells_what_it_did_and_copies_the_configuration(tiny, original, tmp_path, capsys):
    original.with_suffix(".yaml").write_text("model: {}")
    out = tmp_path / "new" / "baked.safetensors"
    more = json.dumps({"loras": [{"name": "science", "weight": 1}]})
    assert main(["bake", "child=0.5", "--recipe", more, "--lora-dir", str(tiny[1]), "--model", str(original), "--out",
                 str(out), "--quiet"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-3].endswith("tensors are changed") and told[-2:] == [str(out), str(out.with_suffix(".yaml"))]
    assert out.with_suffix(".yaml").read_text() == "model: {}"
