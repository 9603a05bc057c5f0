"""Combined files: what is in them, that others load them, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pytest
import torch
from lora_files import kohya, matrices, save, tiny_unet
from safetensors import safe_open
from safetensors.torch import load_file

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from diffusers import EulerDiscreteScheduler
from random_model import write_random_model

from sciart_ext.cli import main
from sciart_ext.combine import writing
from sciart_ext.combine.files import combine_files
from sciart_ext.combine.metadata import METADATA_KEY
from sciart_ext.combine.sparse import dense
from sciart_ext.combine.writing import write_combined
from sciart_ext.errors import SciArtError
from sciart_ext.lora.file import load_lora
from sciart_ext.recipe import parse_recipe
from sciart_ext.recipe.combining import METHODS
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings("a rocket", "noise", steps=3, seed=5, cfg_scale=3, width=64, height=64, sampler="Euler")
LORAS = ["child=0.65", "watercolor=0.55", "science=-0.4"]
COMBINING = {"density": 0.4, "seed": 3, "directions": 2, "strength": 0.7}
OPTIONS = ["--density", "0.4", "--seed", "3", "--directions", "2", "--strength", "0.7"]
OFF = parse_recipe({"enabled": False})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("tiny"), levels=2)


@pytest.fixture(scope="module")
def pipe(tiny):
    return load_pipeline(tiny[0], device="cpu")


@pytest.fixture(scope="module")
def plain(pipe):
    """diffusers' own picture without a LoRA."""
    return by_diffusers(pipe)


@pytest.fixture(scope="module")
def linear(pipe, tiny):
    return by_sciart(pipe, tiny, recipe("linear"))


def command(tiny, out, *options, loras=LORAS):
    return main(["combine", *loras, "--lora-dir", str(tiny[1]), "--out", str(out), "--quiet", *map(str, options)])


def recipe(method, **more):
    loras = [{"name": name, "weight": float(weight)} for name, weight in (text.split("=") for text in LORAS)]
    return parse_recipe({"loras": loras, "combine": method, "combining": COMBINING, **more})


def by_diffusers(pipe, file=None):
    """diffusers' own picture with its own loading of the file."""
    scheduler = pipe.scheduler
    pipe.scheduler = EulerDiscreteScheduler.from_config(scheduler.config, timestep_spacing="linspace")
    try:
        if file is not None:
            pipe.load_lora_weights(file.parent, weight_name=file.name)
        return np.asarray(pipe("a rocket", negative_prompt="noise", num_inference_steps=3, guidance_scale=3, width=64,
                               height=64, generator=torch.Generator().manual_seed(5)).images[0]).astype(int)
    finally:
        pipe.scheduler = scheduler
        if file is not None:
            pipe.unload_lora_weights()


def by_sciart(pipe, tiny, given):
    return np.asarray(generate(pipe, given, SETTINGS, load_loras(given, tiny[1])).image).astype(int)


@pytest.mark.parametrize("method", METHODS)
def test_diffusers_makes_of_the_file_the_picture_that_the_recipe_makes(pipe, tiny, plain, linear, tmp_path, method):
    out = tmp_path / "combined.safetensors"
    assert command(tiny, out, "--method", method, *OPTIONS, "--rank", 4096, "--precision", "fp32") == 0
    own = by_sciart(pipe, tiny, recipe(method))
    assert np.abs(by_diffusers(load_pipeline(tiny[0], device="cpu"), out) - own).max() <= 2
    assert np.abs(own - plain).mean() > 3
    if method in ("orthogonal", "ties"):
        for execution in ("merge", "branch"):
            assert np.abs(by_sciart(pipe, tiny, recipe(method, execution=execution)) - own).max() <= 2
        assert np.abs(linear - own).mean() > 1


@pytest.mark.parametrize("method", METHODS)
def test_a_file_holds_the_combination_and_says_what_it_is(tiny, tmp_path, capsys, method):
    out = tmp_path / "new" / "combined.safetensors"
    assert command(tiny, out, "--method", method, *OPTIONS, "--rank", 6, "--precision", "fp32") == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split(" ×")[0] for line in told[:3]] == ["child", "watercolor", "science"]
    assert told[3].startswith(f"{method} of 3 in 96 layers, rank 6; the reduction's error is ")
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    data = json.loads(metadata[METADATA_KEY])
    assert data["method"] == method and data["rank"] == 6
    assert [(one["name"], one["file"], one["weight"]) for one in data["loras"]] == [
        ("child", "child.safetensors", 0.65), ("watercolor", "watercolor.safetensors", 0.55),
        ("science", "science.safetensors", -0.4)]
    assert ("seed" in data) == method.startswith("dare") and ("directions" in data) == (method == "orthogonal")
    combined = combine_files(load_loras(recipe(method), tiny[1]), recipe(method), rank=6)
    assert data["error"] == pytest.approx(combined.error) and 0.1 < combined.error < 1
    assert [one["removed"] for one in data["loras"]] == pytest.approx(combined.removed(), abs=1e-6)
    written = load_lora(out)
    assert written.layers.keys() == combined.layers.keys()
    for name, delta in written.layers.items():
        up, down = combined.layers[name].reduced[:2]
        assert delta.rank == 6 and delta.scale == 1.0
        torch.testing.assert_close(dense(delta), (up @ down).float(), rtol=1e-5, atol=1e-6)
    assert metadata["ss_output_name"] == "combined" and list(tmp_path.rglob("*.tmp")) == []


@pytest.mark.parametrize("method", ["linear", "orthogonal"])
def test_products_lose_nothing_at_the_sum_of_their_ranks(tiny, method):
    combined = combine_files(load_loras(recipe(method), tiny[1]), recipe(method))
    assert combined.error < 1e-7
    assert {layer.rank for layer in combined.layers.values()} == {4 + 8 + 6}


def test_what_is_removed_is_told(tiny):
    files = load_loras(recipe("linear"), tiny[1])
    assert combine_files(files, recipe("linear")).removed() == (0, 0, 0)
    first, second, third = combine_files(files, recipe("orthogonal")).removed()
    assert first == 0 and 0 < second < third < 1
    for method in ("dare-linear", "magnitude-prune"):
        removed = combine_files(files, recipe(method)).removed()
        assert all(share == pytest.approx(0.6, abs=0.01) if method == "dare-linear" else 0.02 < share < 0.4
                   for share in removed)


def test_one_lora_alone_is_itself(tiny, tmp_path):
    for method in ("linear", "orthogonal", "ties"):
        out = tmp_path / f"{method}.safetensors"
        assert command(tiny, out, "--method", method, "--density", 1, "--precision", "fp32",
                       loras=["child=1", "science=0"]) == 0
        one, other = load_lora(out), load_lora(tiny[1] / "child.safetensors")
        assert one.layers.keys() == other.layers.keys()
        for name, delta in one.layers.items():
            torch.testing.assert_close(dense(delta), dense(other.layers[name]).float(), rtol=1e-4, atol=1e-5)


def test_the_same_command_writes_the_same_bytes_and_another_seed_others(tiny, tmp_path):
    files = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for file, seed in zip(files, (1, 1, 2)):
        assert command(tiny, file, "--method", "dare-ties", "--seed", seed) == 0
    first, again, other = (load_file(file) for file in files)
    assert all(torch.equal(tensor, again[key]) for key, tensor in first.items())
    assert not all(torch.equal(tensor, other[key]) for key, tensor in first.items())


def test_fp16_is_half_the_size_and_rounds_to_a_thousandth(tiny, tmp_path):
    for precision in ("fp16", "fp32"):
        assert command(tiny, tmp_path / f"{precision}.safetensors", "--precision", precision) == 0
    sizes = [(tmp_path / f"{precision}.safetensors").stat().st_size for precision in ("fp16", "fp32")]
    assert sizes[0] < 0.6 * sizes[1]
    assert {tensor.dtype for tensor in load_file(tmp_path / "fp16.safetensors").values()} == {torch.float16}
    rough, fine = (load_lora(tmp_path / f"{precision}.safetensors") for precision in ("fp16", "fp32"))
    for name, delta in fine.layers.items():
        assert float((dense(rough.layers[name]) - dense(delta)).norm() / dense(delta).norm()) < 1e-3


@pytest.fixture
def mixed(tmp_path):
    """Two LoRAs of other ranks and layers: linear layers and convolutions, attention and residual blocks."""
    modules = matrices(tiny_unet())
    for i, (name, rank, pattern) in enumerate((("one", 3, "attn"), ("two", 5, "conv"))):
        chosen = {key: module for key, module in modules.items() if pattern in key or "proj_in" in key}
        generator = torch.Generator().manual_seed(i)
        deltas = {}
        for key, module in chosen.items():
            out, inputs, *kernel = module.weight.shape
            deltas[key] = (torch.randn(rank, inputs, *kernel, generator=generator) * 0.1,
                           torch.randn(out, rank, *[1] * len(kernel), generator=generator) * 0.1)
        save(tmp_path / f"{name}.safetensors", kohya(deltas, alpha=2.0))
    return tmp_path


@pytest.mark.parametrize("method", METHODS)
def test_loras_of_other_ranks_and_layers_and_convolutions(mixed, method):
    out = mixed / "out.safetensors"
    assert main(["combine", "one=0.7", "two=-0.5", "--lora-dir", str(mixed), "--method", method, "--density", "1",
                 "--rank", "4096", "--precision", "fp32", "--quiet", "--out", str(out)]) == 0
    one, two, both = (load_lora(mixed / f"{name}.safetensors") for name in ("one", "two", "out"))
    assert both.kind == "LoCon" and both.layers.keys() == one.layers.keys() | two.layers.keys()
    kernels = set()
    for name, delta in both.layers.items():
        parts = [(lora.layers[name], weight) for lora, weight in ((one, 0.7), (two, -0.5)) if name in lora.layers]
        kernels.add(tuple(delta.down.shape[2:]))
        assert tuple(delta.down.shape[1:]) == tuple(parts[0][0].down.shape[1:])
        if len(parts) == 1 or method in ("linear", "dare-linear", "magnitude-prune"):
            wanted = sum(weight * dense(part) for part, weight in parts)
            torch.testing.assert_close(dense(delta), wanted, rtol=1e-4, atol=1e-5)
    assert {(), (1, 1), (3, 3)} >= kernels >= {(1, 1), (3, 3)}


def test_progress_is_told_layer_by_layer(tiny):
    told = []
    combine_files(load_loras(recipe("linear"), tiny[1]), recipe("linear"), on_layer=lambda *now: told.append(now))
    assert told == [(i + 1, 96) for i in range(96)]


@pytest.mark.parametrize(("loras", "options", "message"), [
    (["child=0@0, 1@1"], [], "loras[0].schedule: one file has one weight"),
    (["child=0", "science=0"], [], "loras: every weight is 0"),
    (["chld=1"], [], "loras: no LoRA 'chld'; did you mean 'child'?"),
    (["child"], [], "lora: cannot read 'child'"),
    (["child=1", "child=2"], [], "loras[1].name: 'child' is listed twice"),
    (LORAS, ["--method", "sum"], "method: 'sum' is not known; accepted: linear, orthogonal, ties"),
    (LORAS, ["--density", "2"], "density: 2.0 is out of range"),
    (LORAS, ["--majority", "all"], "majority: 'all' is not known; accepted: total, frequency"),
    (LORAS, ["--seed", "-1"], "seed: -1 is out of range; accepted: 0 to 4294967295"),
    (LORAS, ["--strength", "2"], "strength: 2.0 is out of range; accepted: 0 to 1"),
    (LORAS, ["--directions", "0"], "directions: 0 is out of range; accepted: 1 to 4096"),
    (LORAS, ["--rank", "0"], "rank: 0 is out of range; accepted: 1 to 4096"),
    (LORAS, ["--svd", "fast"], "svd: 'fast' is not known; accepted: exact, randomised, auto"),
    (LORAS, ["--precision", "fp8"], "precision: 'fp8' is not known; accepted: fp16, fp32"),
])
def test_what_cannot_be_combined_is_refused(tiny, tmp_path, capsys, loras, options, message):
    assert command(tiny, tmp_path / "out.safetensors", *options, loras=loras) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", [{"apply_to": "cond"}, {"hires": {"weight": 1}}])
def test_weights_that_a_file_cannot_hold_are_refused(tiny, more):
    given = parse_recipe({"loras": [{"name": "child", "weight": 1}, {"name": "science", "weight": 1, **more}]})
    with pytest.raises(SciArtError, match=f"{next(iter(more))}: one file has one weight of each LoRA"):
        combine_files(load_loras(given, tiny[1]), given)


def test_a_schedule_that_changes_is_refused_wherever_it_is(tiny):
    for more, field in (({"weight": None, "schedule": "0.2@0, 1@1"}, "schedule"),
                        ({"blocks": {"OUT03": "0@0, 1@1"}}, "blocks.OUT03")):
        given = parse_recipe({"loras": [{"name": "child", "weight": 1}, {"name": "science", "weight": 1, **more}]})
        with pytest.raises(SciArtError, match=rf"^loras\[1\]\.{field}: one file has one weight of each LoRA, which"):
            combine_files(load_loras(given, tiny[1]), given)
    given = parse_recipe({"compose": "switch", "loras": [{"name": name, "weight": 1} for name in ("child", "science")]})
    with pytest.raises(SciArtError, match=r"^compose: one file has one weight of each LoRA in the whole picture"):
        combine_files(load_loras(given, tiny[1]), given)


CONSTANT = {"loras": [
    {"name": "child", "weight": 0.8, "te_weight": 0.3, "blocks": {"in": 0.5, "mid": 0, "convolution": "0.7@0, 0.7@1"}},
    {"name": "watercolor", "schedule": "0.55@0.2, 0.55@0.9", "curve": "cosine", "blocks": {"BASE": 0.5, "OUT04": -1}},
    {"name": "science", "weight": 0, "te_weight": -0.6},
]}


@pytest.mark.parametrize("method", ["linear", "ties", "orthogonal"])
def test_constant_factors_of_blocks_and_of_text_encoders_are_in_the_file(pipe, tiny, plain, tmp_path, method):
    given = {**CONSTANT, "combine": method, "combining": COMBINING}
    out = tmp_path / "combined.safetensors"
    assert main(["combine", "--recipe", json.dumps(given), "--lora-dir", str(tiny[1]), "--out", str(out), "--quiet",
                 "--rank", "4096", "--precision", "fp32"]) == 0
    own = by_sciart(pipe, tiny, parse_recipe(given))
    assert np.abs(by_diffusers(load_pipeline(tiny[0], device="cpu"), out) - own).max() <= 2
    assert np.abs(own - plain).mean() > 3
    with safe_open(out, "pt") as file:
        loras = json.loads(file.metadata()[METADATA_KEY])["loras"]
    assert [(one["weight"], one.get("te_weight")) for one in loras] == [(0.8, 0.3), (0.55, 0.275), (0, -0.6)]
    assert loras[0]["blocks"] == {"in": 0.5, "mid": 0, "convolution": 0.7} and "blocks" not in loras[2]


def test_a_recipe_and_arguments_are_one(tiny, tmp_path, capsys):
    out = tmp_path / "combined.safetensors"
    assert main(["combine", "science=0.2", "--lora", "watercolor=0.5@0", "--recipe",
                 json.dumps({"combine": "ties", "loras": [{"name": "child", "weight": 1, "blocks": {"out": 0}}]}),
                 "--lora-dir", str(tiny[1]), "--out", str(out), "--quiet"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("child × 1 (with block weights): ") and told[3].startswith("ties of 3 in 96 layers")
    assert main(["combine", "--quiet", "--out", str(out)]) == 2
    assert "loras: missing; give NAME=WEIGHT, --recipe or --preset" in capsys.readouterr().err
    assert main(["combine", "--recipe", '{"loras": [{"name": "child", "weight": 1, "blocks": {"out": 0, "in": 0, '
                 '"mid": 0, "BASE": 0}}]}', "--lora-dir", str(tiny[1]), "--out", str(out), "--quiet"]) == 2
    assert "loras: every weight is 0 in the layers that the LoRAs have" in capsys.readouterr().err


def test_a_file_of_another_kind_or_one_of_the_sources_is_not_written(tiny, capsys, tmp_path):
    assert command(tiny, tmp_path / "out.ckpt") == 2
    assert "out: out.ckpt; accepted: a name that ends in .safetensors" in capsys.readouterr().err
    before = (tiny[1] / "child.safetensors").read_bytes()
    assert command(tiny, tiny[1] / "child.safetensors") == 2
    assert "is one of the LoRAs that are combined" in capsys.readouterr().err
    assert (tiny[1] / "child.safetensors").read_bytes() == before


def lora_of_base(path, width):
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    return save(path, {f"{stem}.lora_down.weight": torch.ones(2, width), f"{stem}.lora_up.weight": torch.ones(6, 2)})


def test_files_for_different_models_are_refused(tmp_path, capsys):
    lora_of_base(tmp_path / "sd1.safetensors", 768)
    lora_of_base(tmp_path / "sdxl.safetensors", 2048)
    lora_of_base(tmp_path / "narrow.safetensors", 12)
    lora_of_base(tmp_path / "wide.safetensors", 14)
    for names, message in (
            (("sd1", "sdxl"), "different models: sd1 (SD1), sdxl (SDXL)"),
            (("narrow", "wide"), "different models: narrow (unknown), wide (unknown); unet_input_blocks_1_1_"
                                 "transformer_blocks_0_attn2_to_k has shapes (6, 12) and (6, 14)")):
        assert main(["combine", *(f"{name}=1" for name in names), "--lora-dir", str(tmp_path), "--quiet",
                     "--out", str(tmp_path / "out.safetensors")]) == 2
        assert message in capsys.readouterr().err


def test_numbers_too_large_for_half_precision_are_refused(tmp_path):
    combined = combine_files([load_lora(lora_of_base(tmp_path / "a.safetensors", 768))],
                             parse_recipe({"loras": [{"name": "a", "weight": 10}]}))
    layer = next(iter(combined.layers))
    huge = combined.layers[layer]._replace(reduced=combined.layers[layer].reduced._replace(up=torch.full((6, 2), 1e6)))
    combined.layers[layer] = huge
    with pytest.raises(SciArtError, match="too large for fp16; accepted: fp32"):
        write_combined(combined, tmp_path / "out.safetensors")
    write_combined(combined, tmp_path / "out.safetensors", "fp32")


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    combined = combine_files([load_lora(lora_of_base(tmp_path / "a.safetensors", 768))],
                             parse_recipe({"loras": [{"name": "a", "weight": 1}]}))
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"before")

    def fail(tensors, path, metadata):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(writing, "save_file", fail)
    with pytest.raises(SciArtError, match=r"^out\.safetensors: cannot be written: disk full"):
        write_combined(combined, out)
    assert out.read_bytes() == b"before" and sorted(os.listdir(tmp_path)) == ["a.safetensors", "out.safetensors"]


def host_version(metadata):
    """The family that AUTOMATIC1111 v1.10.1 takes a file for: NetworkOnDisk.detect_version."""
    if str(metadata.get("ss_base_model_version", "")).startswith("sdxl_"):
        return "SDXL"
    if str(metadata.get("ss_v2", "")) == "True":
        return "SD2"
    return "SD1" if metadata else "Unknown"


SPECIFIED = {"SD1": ("sd_v1", "stable-diffusion-v1/lora"), "SD2": ("sd_v2", None),
             "SDXL": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora")}


def combined_metadata(folder, *options):
    out = folder / "both.safetensors"
    assert main(["combine", "a=1", "b=0.5", "--lora-dir", str(folder), "--quiet", "--out", str(out), *options]) == 0
    with safe_open(out, "pt") as file:
        return file.metadata() or {}


@pytest.mark.parametrize(("width", "base"), [(768, "SD1"), (1024, "SD2"), (2048, "SDXL")])
def test_the_metadata_are_in_the_words_that_others_read(tmp_path, width, base):
    for name in "ab":
        lora_of_base(tmp_path / f"{name}.safetensors", width)
    metadata = combined_metadata(tmp_path)
    assert host_version(metadata) == base
    version, architecture = SPECIFIED[base]
    assert metadata["ss_base_model_version"] == version and metadata["ss_v2"] == str(base == "SD2")
    assert metadata["ss_network_module"] == "networks.lora" and metadata["ss_output_name"] == "both"
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("4", "4")
    assert metadata.get("modelspec.architecture") == architecture
    if architecture:
        assert metadata["modelspec.merged_from"] == "a, b" and metadata["modelspec.title"] == "both"
    content = (tmp_path / "both.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    assert metadata["sshs_model_hash"] == hashlib.sha256(content[start:]).hexdigest()
    assert len(metadata["sshs_legacy_hash"]) == 8
    assert load_lora(tmp_path / "both.safetensors").base == base


def layer_of(path, stem, down, up):
    return save(path, {f"{stem}.lora_down.weight": torch.ones(down), f"{stem}.lora_up.weight": torch.ones(up)})


def test_a_file_of_unknown_base_is_hidden_by_no_host(tmp_path, capsys):
    for name in "ab":
        layer_of(tmp_path / f"{name}.safetensors", "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_2",
                 (2, 12), (6, 2))
    assert combined_metadata(tmp_path) == {}
    assert "which base model they are made for is not known" in capsys.readouterr().out
    for base in SPECIFIED:
        assert host_version(combined_metadata(tmp_path, "--base", base)) == base
    out = ["--quiet", "--out", str(tmp_path / "x.safetensors")]
    assert main(["combine", "a=1", "--lora-dir", str(tmp_path), "--base", "Flux", *out]) == 2
    assert "base: 'Flux' is not known; accepted: SD1, SD2, SDXL" in capsys.readouterr().err
    lora_of_base(tmp_path / "c.safetensors", 768)
    assert main(["combine", "c=1", "--lora-dir", str(tmp_path), "--base", "SDXL", *out]) == 2
    assert "base: SDXL, but the LoRAs are made for SD1" in capsys.readouterr().err


@pytest.mark.parametrize(("layers", "base"), [
    ([("lora_unet_down_blocks_0_attentions_0_proj_in", (2, 320, 1, 1), (320, 2, 1, 1))], "SD1"),
    ([("lora_unet_down_blocks_0_attentions_0_proj_in", (2, 320), (320, 2))], "SD2"),
    ([("lora_unet_up_blocks_3_attentions_0_transformer_blocks_0_attn1_to_q", (2, 320), (320, 2)),
      ("lora_te_text_model_encoder_layers_0_mlp_fc1", (2, 768), (3072, 2))], "SD1"),
    ([("lora_te_text_model_encoder_layers_0_mlp_fc1", (2, 1024), (4096, 2))], "SD2"),
    ([("lora_te_text_model_encoder_layers_0_mlp_fc1", (2, 768), (3072, 2))], "unknown"),
    ([("lora_unet_down_blocks_1_attentions_0_proj_in", (2, 640), (640, 2))], "unknown"),
])
def test_the_base_is_derived_from_layers_that_not_all_have(tmp_path, layers, base):
    state = {}
    for stem, down, up in layers:
        state |= {f"{stem}.lora_down.weight": torch.ones(down), f"{stem}.lora_up.weight": torch.ones(up)}
    lora = load_lora(save(tmp_path / "a.safetensors", state))
    assert combine_files([lora], parse_recipe({"loras": [{"name": "a", "weight": 1}]})).base == base
