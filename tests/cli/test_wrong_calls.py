"""Whatever a user types wrongly is told in one line, with exit status 2, before the model is read."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sciart_ext.cli import main
from sciart_ext.presets import store
from sciart_ext.world import MODEL

P = ["--prompt", "a rocket"]
CHILD = ["--lora", "child=0.5"]
LOOKED_AT = {str(MODEL / name) for name in ("model_index.json", "unet/config.json", "vae/config.json",
                                             "text_encoder/config.json")}
"""what tells of the model before it is read; whoever reads it opens its scheduler's and tokenizer's files too"""
opened: list[str] = []


def _watch(event: str, arguments: tuple) -> None:
    if event == "open" and not isinstance(arguments[0], int):
        path = os.fsdecode(arguments[0])
        if path.startswith(str(MODEL)) and path not in LOOKED_AT and Path(path).parent.name != "loras":
            opened.append(path)


sys.addaudithook(_watch)

# (what is typed, what the line says). Words in braces are files of `folder`.
GENERATE = [
    # choices and names
    (["--sampler", "Eular"], "sampler: unknown sampler 'Eular'; did you mean 'Euler'?"),
    (["--sampler", ""], "sampler: "),
    (["--sampler", "DPM++ 2M Karas"], "sampler: unknown sampler 'DPM++ 2M Karas'"),
    (["--scheduler", "karas"], "scheduler: unknown schedule type 'karas'; did you mean 'Karras'?"),
    (["--scheduler", "none"], "scheduler: unknown schedule type 'none'"),
    (["--preset", "science"], "preset: no preset 'science'; did you mean"),
    (["--preset", "Science-Imagination"], "did you mean 'science-imagination'?"),
    (["--preset", ""], "preset"),
    (["--device", "gpu"], "device: 'gpu' is not known; did you mean 'cpu'? accepted: cpu"),
    (["--device", "cuda"], "device: there is no cuda here; accepted: cpu"),
    (["--device", "cuda:7"], "device: there is no cuda here"),
    (["--device", "mps"], "device: there is no mps here"),
    (["--device", "CUDA"], "device: 'CUDA' is not known"),
    (["--device", "0"], "device: '0' is not known"),
    (["--device", "cpu0"], "device: 'cpu0' is not known; did you mean 'cpu'?"),
    # numbers
    (["--width", "0"], "width: 0 is out of range; accepted: 64 to 8192"),
    (["--width", "-64"], "width: -64 is out of range"),
    (["--width", "100"], "width: 100 is not a multiple of 8; accepted: 96 or 104"),
    (["--width", "wide"], "width: 'wide' is not a whole number; accepted: 64 to 8192"),
    (["--width", "128.5"], "width: '128.5' is not a whole number"),
    (["--width", "100000"], "width: 100000 is out of range"),
    (["--width", "9" * 5000], "width: "),
    (["--height", "0"], "height: 0 is out of range"),
    (["--height", "130"], "height: 130 is not a multiple of 8"),
    (["--height", ""], "height: '' is not a whole number"),
    (["--steps", "0"], "steps: 0 is out of range; accepted: 1 to 1000"),
    (["--steps", "-5"], "steps: -5 is out of range"),
    (["--steps", "1001"], "steps: 1001 is out of range"),
    (["--steps", "ten"], "steps: 'ten' is not a whole number"),
    (["--steps", "2.5"], "steps: '2.5' is not a whole number"),
    (["--steps", "1", "--sampler", "UniPC"], "steps: 1 is too few for UniPC"),
    (["--seed", "-2"], "seed: -2 is out of range; accepted: -1 for a random one, or 0 to 9223372036854775807"),
    (["--seed", "9223372036854775808"], "seed: 9223372036854775808 is out of range"),
    (["--seed", "lucky"], "seed: 'lucky' is not a whole number; accepted: -1 for a random one"),
    (["--seed", "1.5"], "seed: '1.5' is not a whole number"),
    (["--cfg", "-1"], "cfg: -1.0 is out of range; accepted: 0 to 100"),
    (["--cfg", "101"], "cfg: 101.0 is out of range"),
    (["--cfg", "nan"], "cfg: 'nan' is not a number such as 7.5"),
    (["--cfg", "inf"], "cfg: 'inf' is not a number"),
    (["--cfg", "50%"], "cfg: '50%' is not a number"),
    (["--cfg", "7,5,1"], "cfg: '7,5,1' is not a number"),
    (["--clip-skip", "0"], "clip-skip: 0 is out of range; accepted: 1 to 12"),
    (["--clip-skip", "13"], "clip-skip: 13 is out of range"),
    (["--clip-skip", "9"], "clip-skip: 9 is out of range; the text encoder has 3 layers"),
    # several pictures
    (["--count", "0"], "count: 0 is out of range; accepted: 1 to 1000"),
    (["--count", "-1"], "count: -1 is out of range"),
    (["--batch", "0"], "batch: 0 is out of range; accepted: 1 to 64"),
    (["--batch", "65"], "batch: 65 is out of range"),
    (["--count", "100", "--batch", "64"], "count: 100 batches of 64 are more than 1000 pictures"),
    (["--seeds", "20-1"], "seeds: '20-1' is out of range; accepted: the smaller seed first"),
    (["--seeds", "-3"], "seeds: cannot read '-3'; accepted: such as 1-20"),
    (["--seeds", "1-"], "seeds: cannot read '1-'"),
    (["--seeds", "1,,2"], "seeds: cannot read '1,,2'"),
    (["--seeds", "a-b"], "seeds: cannot read 'a-b'"),
    (["--seeds", ""], "seeds: cannot read ''"),
    (["--seeds", "1-5000"], "seeds: '1-5000' is out of range"),
    (["--seeds", "1-900,1000-1900"], "seeds: 1801 of them; accepted: at most 1000"),
    (["--seeds", "1-3,2"], "seeds: 2 is listed twice"),
    (["--seeds", "1-3", "--seed", "5"], "seeds: --seed says otherwise"),
    (["--seed", "9223372036854775807", "--count", "2"], "seed: 9223372036854775807 has too few seeds after it"),
    (["--seeds", "1-3", "--count", "2"], "seeds: --count says otherwise"),
    # LoRAs, recipes, roles
    (["--lora", "chld=0.5"], "loras: no LoRA 'chld'; did you mean 'child'?"),
    (["--lora", "CHILD=0.5"], "loras: no LoRA 'CHILD'; did you mean 'child'?"),
    (["--lora", "Watercolour=0.5"], "did you mean 'watercolor'?"),
    (["--lora", "child"], "lora: cannot read 'child'; expected NAME=SPEC"),
    (["--lora", "child="], "lora: cannot read 'child='"),
    (["--lora", "=1"], "lora: cannot read '=1'"),
    (["--lora", ""], "lora: cannot read ''"),
    (["--lora", "child=x"], "lora child: "),
    (["--lora", "child=11"], "lora child[0].weight: 11.0 is out of range"),
    (["--lora", "child=0.5@2"], "lora child[0].progress: 2.0 is out of range"),
    (["--lora", "child=0.2@0, 0.5@"], "lora child: "),
    (["--lora", "child=0.8:start=5:start=6"], "lora child: "),
    (["--lora", "child=0.5", "--lora", "child=0.6"], "'child' is listed twice"),
    (["--lora", "{not_lora}=1"], "not_lora.safetensors: "),
    (["--lora", "{broken}=1"], "broken.safetensors: "),
    (["--lora", "{flux}=1"], "flux.safetensors: a LoRA for Flux or Chroma"),
    (["--lora", "{xl}=1"], "xl.safetensors: it is made for SDXL, and sciart-tiny is of the family SD1"),
    (["--lora", "{folder}=1"], "loras: no LoRA"),
    (["--lora", "{nowhere}.safetensors=1"], "loras: no LoRA"),
    (["--lora-dir", "{nowhere}", *CHILD], "lora-dir: "),
    (["--lora-dir", "{empty}", *CHILD], "loras: no LoRA 'child'; accepted: (nothing is available)"),
    (["--lora-dir", "{file}", *CHILD], "lora-dir: "),
    (["--recipe", "{x"], "recipe: not valid JSON"),
    (["--recipe", "[]"], "recipe: expected one JSON object, got list"),
    (["--recipe", "{nowhere}"], "recipe: "),
    (["--recipe", "{folder}"], "recipe: "),
    (["--recipe", "{binary}"], "recipe: not valid JSON"),
    (["--recipe", '{"loras": [{"name": "child"}]}'], "loras[0].weight: missing"),
    (["--recipe", '{"loras": [{"name": "child", "wieght": 1}]}'], "did you mean 'weight'?"),
    (["--recipe", '{"lora": []}'], "lora: unknown field; did you mean 'loras'?"),
    (["--recipe", '{"loras": 1}', *CHILD], "loras: expected a list, got int"),
    (["--recipe", '{"loras": [{"name": "child", "weight": 1}], "compose": "mege"}'], "compose: "),
    (["--recipe", '{"loras": [{"name": "child", "weight": NaN}]}'], "recipe: not valid JSON"),
    (["--recipe", "[" * 100_000], "recipe: not valid JSON"),
    (["--recipe", '{"loras": [{"role": "child", "weight": 1}], "roles": 1}', "--role", "child=child"],
     "roles: expected an object"),
    (["--preset", "science-imagination", "--role", "chld=child"], "no LoRA here plays 'chld'; did you mean 'child'?"),
    (["--preset", "science-imagination", "--role", "child"], "role: cannot read 'child'; expected ROLE=NAME"),
    (["--preset", "science-imagination", "--role", "=child"], "role: cannot read '=child'"),
    (["--preset", "science-imagination", "--role", "child=nobody"], "loras: no LoRA 'nobody'"),
    ([*CHILD, "--role", "child=child"], "role: no LoRA here plays 'child'; roles are those of a preset"),
    # what is in the prompt
    (["--prompt", "a <lora:chld:1>"], "prompt: '<lora:chld:1>': no LoRA 'chld'; did you mean 'child'?"),
    (["--prompt", "a <lora:child:x>"], "prompt: '<lora:child:x>': 'x' is no number"),
    (["--prompt", "a <lora:child:11>"], "prompt: '<lora:child:11>': "),
    (["--prompt", "a <lor:child:1>"], "prompt: '<lor:child:1>': unknown 'lor'; did you mean 'lora'?"),
    (["--prompt", "a <hypernet:x:1>"], "hypernetworks act in the WebUI alone"),
    (["--prompt", "a <lora:child:1> <lora:child:1>"], "this LoRA is there twice"),
    (["--prompt", "a (rocket:1.2.3)"], "prompt: "),
    (["--prompt", "a AND b", "--lora", "child=1", "--lora", "science=1", "--recipe", '{"compose": "composite"}'],
     "compose: composite does not work with AND in the prompt"),
    (["--prompt", "a <lora:child:1>", "--recipe", '{"combine": "ties", "loras": [{"name": "science", "weight": 1}]}'],
     "cannot be joined by combine ties"),
    # models
    (["--model", "{nowhere}"], "model: "),
    (["--model", "{folder}"], "not a diffusers model; there is no model_index.json in it"),
    (["--model", "{file}"], "model: notes.txt: accepted are a diffusers folder and .safetensors, .ckpt"),
    (["--model", "{broken}"], "broken.safetensors cannot be read"),
    (["--model", "{flux}"], "flux.safetensors is no checkpoint of Stable Diffusion 1, 2 and XL; it is a LoRA"),
    (["--model", "{other_model}"], "is a FluxPipeline; accepted: Stable Diffusion 1, 2 and XL"),
    (["--model", "{half_model}"], "there is no unet/config.json in it"),
    (["--model", "{broken_model}"], "model_index.json cannot be read"),
    (["--model", "{checkpoint}", "--config", "{nowhere}"], "config: "),
    (["--model", "{checkpoint}", "--config", "{folder}"], "config: "),
    # where it goes
    (["--out", "picture"], "out: 'picture' has no ending; accepted: a name that ends in .png, .jpg, .jpeg, .webp"),
    (["--out", "picture.gif"], "out: picture.gif; accepted: a name that ends in"),
    (["--out", "picture.png.txt"], "out: picture.png.txt; accepted: a name that ends in"),
    (["--out", "{folder}"], "is a folder; accepted: a file's name"),
    (["--out", "."], "out: . is a folder"),
    (["--out", ""], "out: . is a folder"),
    (["--out", "{folder_png}"], "is a folder; accepted: a file's name"),
    (["--out", "{file}/picture.png"], "picture.png: cannot be written: Not a directory"),
    (["--out", "{file}/deeper/picture.png"], "picture.png: cannot be written: Not a directory"),
    (["--out", "/proc/picture.png"], "picture.png: cannot be written"),
    (["--out", "/proc/deeper/picture.png"], "picture.png: cannot be written"),
    (["--out", f"{'x' * 300}.png"], "cannot be written: File name too long"),
    (["--out", "con.png"], "'con.png' is a name that Windows keeps for a device"),
    (["--out", "picture.png "], "out: "),
    # words of the command
    (["--promt", "x"], "--promt: no such option; did you mean --prompt?"),
    (["--Steps", "5"], "--Steps: no such option; did you mean --steps?"),
    (["--steps"], "--steps: a value is missing"),
    (["rocket"], "unexpected extra argument"),
    (["--quiet=yes"], "--quiet"),
    (["--prompt", ""], "prompt: missing; give --prompt"),
    (["--prompt", "   "], "prompt: missing; give --prompt"),
]
INFLUENCE = [
    ([], "loras: missing; give --recipe, --preset or --lora"),
    ([*CHILD, "--subsets", "some"], "subsets: 'some' is not known; accepted: solo, left-out, all"),
    ([*CHILD, "--subsets", "lone"], "subsets: 'lone' is not known"),
    ([*CHILD, "--orders", "1"], "orders: 1 is out of range; accepted: 2 to 1000"),
    ([*CHILD, "--at-once", "0"], "at-once: 0 is out of range; accepted: 1 to 256"),
    ([*CHILD, "--words", "rocket,,robot"], "words: 'rocket,,robot': a word is missing between its commas"),
    ([*CHILD, "--out", "{file}"], "is a file; accepted: a folder"),
    ([*CHILD, "--out", "/proc/influence"], "influence: cannot be written"),
    ([*CHILD, "--out", "{file}/deeper"], "deeper: cannot be written"),
    ([*CHILD, "--seed", "-2"], "seed: -2 is out of range"),
    ([*CHILD, "--device", "cuda"], "device: there is no cuda here"),
    ([*CHILD, "--model", "{nowhere}"], "model: "),
    (["--lora", "chld=1"], "did you mean 'child'?"),
    (["--recipe", '{"enabled": false, "loras": [{"name": "child", "weight": 1}]}'], "loras: missing"),
]
OTHERS = [
    (["plan"], "recipe: missing; give --recipe, --preset or --lora"),
    (["plan", *CHILD, "--steps", "0"], "steps: 0 is out of range"),
    (["plan", *CHILD, "--hires-steps", "-1"], "hires-steps: -1 is out of range; accepted: 0 to 1000"),
    (["plan", *CHILD, "--png", "plan"], "png: 'plan' has no ending; accepted: a name that ends in .png"),
    (["plan", *CHILD, "--png", "plan.jpg"], "png: plan.jpg; accepted: a name that ends in .png"),
    (["plan", *CHILD, "--png", "{folder}"], "is a folder; accepted: a file's name"),
    (["plan", *CHILD, "--png", "/proc/plan.png"], "plan.png: cannot be written"),
    (["plan", "--preset", "nope"], "preset: no preset 'nope'"),
    (["plan", "--lora", "a=1", "--lora", "a=2"], "loras[1].name: 'a' is listed twice"),
    (["presets", "show"], "name: missing"),
    (["presets", "show", "nope"], "name: no preset 'nope'"),
    (["presets", "shw", "x"], "command: 'shw' is not known; did you mean 'show'?"),
    (["presets", "delete", "science-imagination"], "shipped with SciArt"),
    (["presets", "save", "mine"], "missing"),
    (["presets", "save", "mine", "{nowhere}"], "file: "),
    (["presets", "save", "mine", "{}"], "recipe"),
    (["presets", "save", "../x", '{"title": "a", "recipe": {"loras": [{"name": "a", "weight": 1}]}}'], "name: '../x'"),
    (["presets", "save", "science-imagination", '{"title": "a", "recipe": {"loras": [{"name": "a", "weight": 1}]}}'],
     "is shipped with SciArt and cannot be replaced"),
    (["loras", "chld"], "loras: no LoRA 'chld'; did you mean 'child'?"),
    (["loras", "chld.safetensors"], "chld.safetensors: no such file; did you mean 'child.safetensors'?"),
    (["loras", "{nowhere}/x.safetensors"], "x.safetensors: no such file"),
    (["loras", "{empty}"], "holds no LoRA file"),
    (["loras", "{broken}"], "broken.safetensors: "),
    (["loras", "{file}"], "notes.txt"),
    (["loras", "--lora-dir", "{nowhere}"], "lora-dir: "),
    (["loras", "child", "--model", "{nowhere}"], "model: "),
    (["geometry"], "missing"),
    (["geometry", "child"], "loras: geometry compares LoRAs: give two or more"),
    (["geometry", "child", "chld"], "loras: no LoRA 'chld'; did you mean 'child'?"),
    (["geometry", "child", "watercolor", "--weights", "1"], "weights: 1 weights for 2 LoRAs; give one for each"),
    (["geometry", "child", "watercolor", "--weights", "1,x"], "weights: cannot read 'x'"),
    (["geometry", "child", "watercolor", "--weights", "1,99"], "weights: "),
    (["geometry", "child", "watercolor", "--out", "geometry.png"], "out: geometry.png; accepted: a name that ends in"),
    (["geometry", "child", "watercolor", "--out", "{folder}"], "is a folder"),
    (["geometry", "child", "{xl}"], "made for different models"),
    (["geometry", "child", "{flux}"], "flux.safetensors"),
    (["combine"], "loras: missing; give NAME=WEIGHT, --recipe or --preset"),
    (["combine", "child"], "lora: cannot read 'child'"),
    (["combine", "chld=1"], "did you mean 'child'?"),
    (["combine", "child=0", "watercolor=0"], "loras: every weight is 0; nothing is left to combine"),
    (["combine", "child=0.2@0,0.5@1"], "loras[0].schedule: one file has one weight of each LoRA"),
    (["combine", "child=1", "--method", "tis"], "method: 'tis' is not known; did you mean 'ties'?"),
    (["combine", "child=1", "--density", "0"], "density: 0.0 is out of range; accepted: 0.01 to 1"),
    (["combine", "child=1", "--majority", "most"], "majority: 'most' is not known; accepted: total, frequency"),
    (["combine", "child=1", "--rank", "0"], "rank: 0 is out of range; accepted: 1 to 4096"),
    (["combine", "child=1", "--svd", "fast"], "svd: 'fast' is not known; accepted: exact, randomised, auto"),
    (["combine", "child=1", "--base", "SD3"], "base: 'SD3' is not known"),
    (["combine", "child=1", "--precision", "bf16"], "precision: 'bf16' is not known"),
    (["combine", "child=1", "--seed", "-1"], "seed: -1 is out of range"),
    (["combine", "child=1", "--directions", "0"], "directions: 0 is out of range"),
    (["combine", "child=1", "--out", "both.bin"], "out: both.bin; accepted: a name that ends in .safetensors"),
    (["combine", "child=1", "--out", "{folder}"], "is a folder"),
    (["combine", "child=1", "--out", "/proc/both.safetensors"], "both.safetensors: cannot be written"),
    (["combine", "{mine}=1", "--out", "{mine}"], "is one of the LoRAs that are combined"),
    (["combine", "child=1", "{xl}=1"], "made for different models"),
    (["bake", "child=1"], "out: missing"),
    (["bake", "--out", "copy"], "loras: missing; give NAME=WEIGHT"),
    (["bake", "child=1", "--out", "copy.safetensors"], "accepted for a diffusers folder: the name of a new folder"),
    (["bake", "child=1", "--out", "{folder}"], "is there already"),
    (["bake", "child=1", "--out", "/proc/copy"], "copy: cannot be written"),
    (["bake", "child=1", "--out", "copy", "--model", "{nowhere}"], "model: "),
    (["bake", "{flux}=1", "--out", "copy"], "flux.safetensors: a LoRA for Flux or Chroma"),
    (["export-webui"], "missing"),
    (["export-webui", "{file}"], "is a file; accepted: a folder"),
    (["export-webui", "/proc/models"], "models: cannot be written"),
    (["export-webui", "models", "--name", "a/b"], "name: 'a/b'; accepted: a file's name without its ending"),
    (["export-webui", "models", "--name", ""], "name: ''; accepted"),
    (["export-webui", "models", "--name", "nul"], "name: 'nul' is a name that Windows keeps for a device"),
    (["export-webui", "models", "--model", "{folder}"], "not a diffusers model"),
    (["export-webui", "models", "--model", "{nowhere}"], "accepted: a diffusers folder of SD 1's kind"),
    (["completion"], "shell: missing"),
    (["completion", "csh"], "shell: 'csh' is not known; did you mean 'zsh'? accepted: bash, zsh, fish"),
    (["draw"], "command: 'draw' is not known"),
    (["Generate"], "command: 'Generate' is not known; did you mean 'generate'?"),
    (["--verbose"], "--verbose: no such option"),
    (["generate"], "prompt: missing; give --prompt, or a preset that has one"),
]
CALLS = [*((["generate", *P, *words], told) for words, told in GENERATE),
         *((["influence", *P, *words], told) for words, told in INFLUENCE), *OTHERS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> dict[str, Path]:
    """Files that are not what they should be."""
    place = tmp_path_factory.mktemp("wrong")
    there = {name: place / name for name in ("folder", "empty", "nowhere", "other_model", "half_model", "broken_model")}
    for name in ("folder", "empty", "other_model", "half_model", "broken_model"):
        there[name].mkdir()
    (there["folder"] / "something.txt").write_text("x", encoding="utf-8")
    there["folder_png"] = place / "folder.png"
    there["folder_png"].mkdir()
    there["file"] = place / "notes.txt"
    there["file"].write_text("no JSON, no LoRA", encoding="utf-8")
    there["binary"] = place / "recipe.json"
    there["binary"].write_bytes(bytes(range(256)))
    for name, kind in (("other_model", '{"_class_name": "FluxPipeline"}'), ("broken_model", "{"),
                       ("half_model", '{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet"]}')):
        (there[name] / "model_index.json").write_text(kind, encoding="utf-8")
    there["broken"] = place / "broken.safetensors"
    there["broken"].write_bytes(b"\x08\0\0\0\0\0\0\0not json")
    there["mine"] = Path(shutil.copyfile(MODEL / "loras" / "child.safetensors", place / "mine.safetensors"))
    save = {"not_lora": {"some.weight": torch.ones(2, 2)},
            "checkpoint": {"cond_stage_model.transformer.x": torch.ones(2)},
            "flux": {**pair("lora_unet_double_blocks_0_img_attn_qkv", 8, 12),
                     **pair("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 128, 128)},
            "xl": {**pair("lora_te2_text_model_encoder_layers_0_self_attn_q_proj", 128, 128),
                   **pair("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 128, 128)}}
    for name, tensors in save.items():
        there[name] = place / f"{name}.safetensors"
        save_file(tensors, there[name])
    return there


def pair(layer: str, rows: int, columns: int) -> dict[str, torch.Tensor]:
    return {f"{layer}.lora_down.weight": torch.ones(2, columns), f"{layer}.lora_up.weight": torch.ones(rows, 2)}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(store, "USER_DIR", tmp_path / "user")
    monkeypatch.chdir(tmp_path)


def filled(word: str, there: dict[str, Path]) -> str:
    """The word with the names in braces as paths."""
    for name, path in there.items():
        word = word.replace(f"{{{name}}}", str(path))
    return word


@pytest.mark.skipif(os.name == "nt", reason="some of the places are of POSIX")
@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU where there is none")
@pytest.mark.parametrize(("words", "told"), CALLS, ids=[" ".join(words)[:80] for words, _ in CALLS])
def test_a_wrong_call_is_one_line_and_status_2_before_the_model_is_read(capsys, folder, tmp_path, words, told):
    opened.clear()
    before = sorted(tmp_path.rglob("*"))
    status = main([filled(word, folder) for word in words])
    out, err = capsys.readouterr()
    assert (status, out) == (2, ""), err
    assert err.startswith("sciart: ") and err.count("\n") == 1 and len(err) < 1500
    assert told in err
    assert not opened, "the model was read"
    assert sorted(tmp_path.rglob("*")) == before, "something was written"


def test_the_table_is_long():
    assert len(CALLS) >= 150 and len({json.dumps(words) for words, _ in CALLS}) == len(CALLS)


@pytest.mark.parametrize("words", [
    ["generate", *P, "--steps", "1", "--width", "64", "--height", "64", "--device", "cpu"],
    ["influence", *P, *CHILD, "--steps", "1", "--width", "64", "--height", "64", "--subsets", "solo"],
    ["loras", "child", "--model", str(MODEL)], ["bake", "child=1", "--out", "copy"], ["export-webui", "models"],
], ids=lambda words: words[0])
def test_reading_the_model_would_be_seen(capsys, one_thread, words):
    opened.clear()
    assert main(words) == 0 and opened
