"""With weights in eight bits several LoRAs act together; in the host, with its cached weights, the last one alone does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from pictures import assert_same_picture, difference, recipe, with_recipe
from safetensors.torch import load_file, save_file
from server import ONE_THREAD, HostServer

SAMPLING = {"steps": 6, "width": 64, "height": 64, "seed": 5, "sampler_name": "Euler"}
WEIGHTS = {"watercolor": 0.5, "child": 0.7}


@pytest.fixture(scope="module")
def host(tiny_models) -> Iterator[HostServer]:
    settings = {"fp8_storage": "Enable", "cache_fp16_weight": True}
    with HostServer(models=tiny_models, env=ONE_THREAD, settings=settings) as server:
        yield server


def test_two_loras_act_as_one_file_of_both(host: HostServer) -> None:
    folder, joined = host.data / "models" / "Lora", {}
    files = {name: load_file(folder / f"{name}.safetensors") for name in WEIGHTS}
    for stem in {key.split(".")[0] for key in files["child"]}:
        own = [files[name] for name in WEIGHTS]
        ups = [weight * float(file[f"{stem}.alpha"]) / len(file[f"{stem}.lora_down.weight"])
               * file[f"{stem}.lora_up.weight"].float() for file, weight in zip(own, WEIGHTS.values())]
        joined[f"{stem}.lora_up.weight"] = torch.cat(ups, 1)
        joined[f"{stem}.lora_down.weight"] = torch.cat([file[f"{stem}.lora_down.weight"].float() for file in own])
    save_file(joined, folder / "joined.safetensors")
    both = host.txt2img(**SAMPLING, **with_recipe(recipe({"joined": 1.0})))
    assert "FP8 weight: Enable" in both.infotext
    # on a CPU the host computes in bfloat16 then: pictures are near, not the same
    away = [difference(both.pictures[0], host.txt2img(**SAMPLING, **with_recipe(recipe({name: weight}))).pictures[0])[1]
            for name, weight in WEIGHTS.items()]
    for execution in ("auto", "merge", "branch"):
        mixed = host.txt2img(**SAMPLING, **with_recipe(recipe(WEIGHTS, execution=execution)))
        assert difference(both.pictures[0], mixed.pictures[0])[1] < min(away) / 4


def test_in_the_host_the_last_one_alone_acts(host: HostServer) -> None:
    """It starts from its cached weight for each of them. Should this fail, it has become right."""
    tags = "".join(f"<lora:{name}:{weight}>" for name, weight in WEIGHTS.items())
    together = host.txt2img(**{**SAMPLING, "prompt": f"a rocket {tags}"})
    last = host.txt2img(**{**SAMPLING, "prompt": "a rocket <lora:child:0.7>"})
    assert_same_picture(together, last)
