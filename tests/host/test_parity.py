"""Constant weights give the picture of the host's own `<lora:…>`; merge and branch give the same picture."""

import pytest
from pictures import assert_other_picture, assert_same_picture, recipe, tags, with_recipe
from server import HostServer

SETTINGS = {"steps": 20, "sampler_name": "Euler", "width": 128, "height": 128}
SUFFIXES = {"tiny-sd1": "", "tiny-sd2": "-v2", "tiny-sdxl": "-xl"}
WEIGHTS = {"child": 0.5, "watercolor": 0.4, "science": 0.3}


@pytest.fixture(scope="module", params=list(SUFFIXES))
def pictures(request, host: HostServer):
    """Plain picture, the host's own, and the weights by the host's names of the files, per architecture."""
    host.use_checkpoint(f"{request.param}.safetensors")
    suffix = SUFFIXES[request.param]
    plain = host.txt2img(**SETTINGS)
    own = host.txt2img(**{**SETTINGS, "prompt": f"a rocket {tags(WEIGHTS, suffix)}"})
    yield plain, own, {name + suffix: weight for name, weight in WEIGHTS.items()}
    host.use_checkpoint("tiny-sd1.safetensors")


@pytest.mark.parametrize("execution", ["auto", "merge", "branch"])
def test_constant_weights_give_the_hosts_own_picture(host: HostServer, pictures, execution: str) -> None:
    plain, own, weights = pictures
    assert_other_picture(plain, own)
    mixed = host.txt2img(**SETTINGS, **with_recipe(recipe(weights, execution=execution)))
    assert_same_picture(own, mixed)


def test_zero_weights_give_the_plain_picture_byte_for_byte(host: HostServer, pictures) -> None:
    plain, _, weights = pictures
    mixed = host.txt2img(**SETTINGS, **with_recipe(recipe(dict.fromkeys(weights, 0.0))))
    assert (mixed.pictures[0] == plain.pictures[0]).all()


def test_each_kind_of_text_encoder_takes_its_own_weight(host: HostServer, pictures) -> None:
    plain, _, weights = pictures
    name = next(iter(weights))
    own = host.txt2img(**{**SETTINGS, "prompt": f"a rocket <lora:{name}:0.8:0>"})
    mixed = host.txt2img(**SETTINGS, **with_recipe({"loras": [{"name": name, "weight": 0, "te_weight": 0.8}]}))
    assert_other_picture(plain, own)
    assert_same_picture(own, mixed)
