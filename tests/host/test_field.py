"""A Lora folder as people have it: one bad file hides no other, names are found, and galleries know what was mixed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from field_folder import copied, lora_folder, write_oddities
from pictures import WEIGHTS, assert_other_picture, assert_same_picture, recipe, with_recipe
from plots import plot
from server import HostServer

SAMPLING = {"prompt": "a rocket", "steps": 3, "width": 64, "height": 64, "seed": 5, "sampler_name": "Euler"}
GOOD = [*WEIGHTS, "good-1", "good-2"]
MIX = dict.fromkeys(GOOD, 0.4)


@pytest.fixture
def folder(host: HostServer) -> Iterator[Path]:
    """Where files are put for the host; they are gone afterwards."""
    lora, before = lora_folder(host), set(lora_folder(host).iterdir())
    yield lora
    for path in set(lora.iterdir()) - before:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    host.post("/sdapi/v1/refresh-loras")


def listed(host: HostServer) -> dict[str, dict]:
    answer = host.get("/sciart/v1/loras")
    assert answer.status == 200, answer.text
    return {one["name"]: one for one in answer.json}


def refusal(host: HostServer, name: str) -> str:
    answer = host.txt2img(**SAMPLING, **with_recipe(recipe({**MIX, name: 0.5})))
    assert answer.status == 422, answer.text
    assert f"loras[{len(MIX)}].name" in answer.text
    return answer.text


@pytest.fixture
def oddities(host: HostServer, folder: Path) -> dict[str, str]:
    return write_oddities(host)


def test_forty_oddities_hide_no_good_lora(host: HostServer, folder: Path, oddities: dict[str, str]) -> None:
    found = listed(host)
    for name in GOOD:
        assert "error" not in found[name], found[name]
    for name, sentence in oddities.items():
        assert re.search(sentence, found[name]["error"]), (name, sentence, found[name])
    assert "no such file" in found["deleted"]["error"]
    plain = host.txt2img(**SAMPLING)
    mixed = host.txt2img(**SAMPLING, **with_recipe(recipe(MIX)))
    tags = "".join(f"<lora:{name}:{weight}>" for name, weight in MIX.items())
    assert_other_picture(plain, mixed)
    assert_same_picture(mixed, host.txt2img(**{**SAMPLING, "prompt": SAMPLING["prompt"] + tags}))
    for name, sentence in list(oddities.items())[::4]:
        assert re.search(sentence, json.loads(refusal(host, name))["errors"])
    for name in ("deleted", "a-folder", "broken-link", "nowhere"):
        assert "no LoRA" in refusal(host, name) or "no such file" in refusal(host, name)


def test_presets_and_plots_work_beside_oddities(host: HostServer, folder: Path, oddities: dict[str, str]) -> None:
    saved = host.post("/sciart/v1/presets", {"name": "field", "preset": {"title": "f", "recipe": recipe(MIX)}})
    assert saved.status == 200, saved.text
    try:
        assert_same_picture(host.txt2img(**SAMPLING, **with_recipe({"preset": "field"})),
                            host.txt2img(**SAMPLING, **with_recipe(recipe(MIX))))
    finally:
        host.request("DELETE", "/sciart/v1/presets/field")
    made = plot(host, ("[SciArt] LoRA 1 name", "good-1, watercolor"), **SAMPLING, **with_recipe(recipe({"child": 0.7})))
    assert made.status == 200, made.text
    assert len({picture.tobytes() for picture in made.pictures[1:]}) == 2


def test_a_training_name_of_two_files_says_which_they_are(host: HostServer, folder: Path) -> None:
    copied(host, "child", folder / "epochs.safetensors", ss_output_name="my style", ss_base_model_version="sd_v1")
    host.post("/sdapi/v1/refresh-loras")
    one = host.txt2img(**SAMPLING, **with_recipe(recipe({"my style": 0.7})))
    assert_same_picture(one, host.txt2img(**SAMPLING, **with_recipe(recipe({"child": 0.7}))))
    kept = one.infotext
    assert '"name":"epochs"' in kept.replace("\\", "") and "my style" not in kept
    copied(host, "watercolor", folder / "epochs-000002.safetensors", ss_output_name="my style",
           ss_base_model_version="sd_v1")
    host.post("/sdapi/v1/refresh-loras")
    answer = host.txt2img(**SAMPLING, **with_recipe(recipe({"my style": 0.7})))
    assert answer.status == 422
    assert "'my style' is the training name of 2 files; name one of them by its file: 'epochs', 'epochs-000002'" in (
        answer.json["errors"])
    assert_same_picture(one, host.txt2img(**SAMPLING, **with_recipe(recipe({"epochs": 0.7}))))


def test_a_lora_is_named_by_its_path_below_the_folder(host: HostServer, folder: Path) -> None:
    copied(host, "child", folder / "characters" / "kim.safetensors")
    copied(host, "watercolor", folder / "styles" / "kim.safetensors")
    host.post("/sdapi/v1/refresh-loras")
    for name, same in (("characters/kim", "child"), ("styles/kim", "watercolor"), ("styles\\kim", "watercolor"),
                       ("characters/kim.safetensors", "child")):
        made = host.txt2img(**SAMPLING, **with_recipe(recipe({name: 0.7})))
        assert_same_picture(made, host.txt2img(**SAMPLING, **with_recipe(recipe({same: 0.7}))))
    told = host.txt2img(**SAMPLING, **with_recipe(recipe({"characters/kim": 0.6, "styles/kim": 0.3}))).infotext
    assert "characters/kim" in told or "styles/kim" in told, "the host finds one of the two by its name alone"
    for name in ("../Lora/child", "/etc/passwd", "C:/child", "characters", "a" * 256, "가" * 256):
        assert "no LoRA" in refusal_of(host, name)


def refusal_of(host: HostServer, name: str) -> str:
    answer = host.txt2img(**SAMPLING, **with_recipe(recipe({name: 0.5})))
    assert answer.status == 422, answer.text
    return answer.text


def hashes(infotext: str) -> dict[str, str]:
    found = re.search(r'Lora hashes: "([^"]*)"', infotext)
    return dict(pair.split(": ") for pair in found[1].split(", ")) if found else {}


def test_galleries_find_the_hashes_that_the_host_writes_of_its_own(host: HostServer, folder: Path) -> None:
    """Which the test's host, that makes no hashes, reads from the files."""
    for number, name in enumerate(WEIGHTS):
        copied(host, name, folder / f"hashed {name}.safetensors", sshs_model_hash=f"{number}" * 64)
    host.post("/sdapi/v1/refresh-loras")
    weights = {f"hashed {name}": weight for name, weight in WEIGHTS.items()}
    tags = "".join(f"<lora:{name}:{weight}>" for name, weight in weights.items())
    own = hashes(host.txt2img(**{**SAMPLING, "prompt": SAMPLING["prompt"] + tags}).infotext)
    assert own == {name: f"{number}" * 12 for number, name in enumerate(weights)}
    assert hashes(host.txt2img(**SAMPLING, **with_recipe(recipe(weights))).infotext) == own
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.5}
    assert hashes(host.txt2img(**SAMPLING, **hires, **with_recipe(recipe(weights))).infotext) == own
    both = {**SAMPLING, "prompt": "a rocket <lora:hashed science:0.2>"}
    assert hashes(host.txt2img(**both, **with_recipe(recipe({"hashed child": 0.5}))).infotext) == {
        name: own[name] for name in ("hashed science", "hashed child")}
    assert not hashes(host.txt2img(**SAMPLING).infotext)
    told = host.txt2img(**SAMPLING, override_settings={"lora_add_hashes_to_infotext": False},
                        **with_recipe(recipe(weights))).infotext
    assert not hashes(told)
