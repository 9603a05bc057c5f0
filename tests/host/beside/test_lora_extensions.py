"""Extensions that load LoRAs themselves: what the prompt's tags do there, they do beside a recipe."""

from __future__ import annotations

import pytest
from asking import is_first_picture_same, made
from pictures import recipe

SMALL = {"steps": 4, "width": 64, "height": 64}
PROMPT = "a rocket and a robot"
TAGS = {
    "sd-webui-loractl": "<lora:child:0.5:0.1@0,1@1>",
    "sd-webui-lora-block-weight": "<lora:child:0.5:0.5:lbw=1,0,0,0,1,1,1,0.5,0.5,1,1,1,1,0,0,1,1>",
    "a1111-sd-webui-locon": "<lyco:child:0.5>",
    "a1111-sd-webui-lycoris": "<lyco:child:0.5>",
}


@pytest.fixture(scope="module", params=list(TAGS))
def both(webui, request, tiny_models):
    """A host with one of them, and its tag of a LoRA."""
    child = tiny_models / "Lora" / "child.safetensors"
    return webui(request.param, start_timeout=600.0, files={"models/LyCORIS/child.safetensors": child}), TAGS[request.param]


@pytest.mark.parametrize("execution", ["merge", "branch"])
def test_the_tag_of_one_lora_and_the_recipe_of_another(both, execution: str) -> None:
    host, tag = both
    host.post("/probe/reset")
    plain, state = made(host, **SMALL), host.probe()["weights"]
    own = made(host, prompt=f"{PROMPT} {tag}<lora:watercolor:0.5>", **SMALL)
    mixed = made(host, recipe({"watercolor": 0.5}, execution=execution), prompt=f"{PROMPT} {tag}", **SMALL)
    assert is_first_picture_same(own, mixed) and "SciArt notes" not in mixed.infotext
    host.post("/probe/reset")
    assert made(host, **SMALL).pngs[0] == plain.pngs[0] and host.probe()["weights"] == state


def test_the_same_lora_in_both_is_told(both) -> None:
    host, tag = both
    told = made(host, recipe({"child": 0.3}), prompt=f"{PROMPT} {tag}", **SMALL)
    assert f"child is also in the prompt as {tag[:11]}:…>: both weights act" in told.infotext
