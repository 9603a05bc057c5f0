"""Combined LoRAs in the WebUI: the recipe's picture is that of the file the command writes, loaded by the WebUI itself."""

from __future__ import annotations

import pytest
from pictures import assert_other_picture, assert_same_picture, with_recipe
from server import ONE_THREAD, HostServer

pytest.importorskip("diffusers")

from sciart_ext.cli import main
from sciart_ext.recipe.combining import METHODS
from sciart_ext.standalone.export import export_webui
from sciart_ext.world import MODEL

WEIGHTS = {"sciart-tiny-child": 0.65, "sciart-tiny-watercolor": 0.55, "sciart-tiny-science": -0.5}
SETTINGS = {"prompt": "a rocket and a planet in space", "steps": 6, "seed": 3, "sampler_name": "Euler", "width": 128,
            "height": 128}
COMBINING = {"density": 0.4, "seed": 5, "directions": 4, "strength": 0.6}


def combined(method: str, weights: dict[str, float] | None = None, **more) -> dict:
    loras = [{"name": name, "weight": weight} for name, weight in (weights or WEIGHTS).items()]
    return with_recipe({"loras": loras, "combine": method, "combining": COMBINING, **more})


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A WebUI with the tiny model, its LoRAs, and one combined file of each method, of full rank."""
    models = tmp_path_factory.mktemp("models")
    export_webui(MODEL, models, "sciart-tiny")
    given = [f"{name}={weight}" for name, weight in WEIGHTS.items()]
    for method in METHODS:
        assert main(["combine", *given, "--lora-dir", str(models / "Lora"), "--method", method, "--density", "0.4",
                     "--seed", "5", "--directions", "4", "--strength", "0.6", "--rank", "4096", "--precision", "fp32", "--quiet",
                     "--out", str(models / "Lora" / f"combined-{method}.safetensors")]) == 0
    with HostServer(models=models, checkpoint="sciart-tiny.safetensors", env=ONE_THREAD) as server:
        yield server


@pytest.fixture(scope="module")
def plain(host: HostServer):
    return host.txt2img(**SETTINGS)


@pytest.mark.parametrize("method", METHODS)
def test_the_recipes_picture_is_that_of_the_combined_file(host: HostServer, plain, method: str) -> None:
    prompt = f"{SETTINGS['prompt']} <lora:combined-{method}:1>"
    loaded = host.txt2img(**{**SETTINGS, "prompt": prompt})
    assert_other_picture(plain, loaded)
    for execution in ("merge", "branch"):
        assert_same_picture(loaded, host.txt2img(**SETTINGS, **combined(method, execution=execution)))


def test_each_method_makes_a_picture_of_its_own(host: HostServer) -> None:
    pictures = [host.txt2img(**SETTINGS, **combined(method)).pngs[0] for method in METHODS]
    assert len(set(pictures)) == len(METHODS)


@pytest.mark.parametrize("method", ["orthogonal", "ties", "dare-ties"])
def test_nothing_is_left_and_the_infotext_makes_it_again(host: HostServer, plain, method: str) -> None:
    host.txt2img(**SETTINGS)  # the WebUI keeps a prompt's <lora:…> until its next picture
    state = host.probe()
    picture = host.txt2img(**SETTINGS, **combined(method))
    assert host.txt2img(**SETTINGS).pngs[0] == plain.pngs[0]
    assert host.probe() == state
    assert f'"combine":"{method}"' in picture.infotext.replace('\\"', '"')
    again = host.post("/sdapi/v1/txt2img", {"infotext": picture.infotext})
    assert again.status == 200 and again.pngs[0] == picture.pngs[0]


@pytest.mark.parametrize("method", ["orthogonal", "ties"])
def test_rows_with_other_loras_are_combined_on_their_own(host: HostServer, method: str) -> None:
    """What is off in the negative prompt is absent there: a CFG scale of 1 shows the prompt's row alone."""
    loras = [{"name": name, "weight": weight, "apply_to": "cond", "te_weight": 0} for name, weight in WEIGHTS.items()]
    settings = {**SETTINGS, "cfg_scale": 1.0}
    both = combined(method)["alwayson_scripts"]["SciArt"]["args"][0]
    both = {**both, "loras": [{**lora, "apply_to": "both"} for lora in loras]}
    by_row = with_recipe({**both, "loras": loras})
    assert_same_picture(host.txt2img(**settings, **with_recipe(both)), host.txt2img(**settings, **by_row))
    assert_other_picture(host.txt2img(**SETTINGS, **with_recipe(both)), host.txt2img(**SETTINGS, **by_row))


def test_prompts_encoded_with_another_combination_are_not_taken_from_the_cache(host: HostServer) -> None:
    """Weights that reach the text encoder alone."""
    loras = [{"name": name, "weight": 0, "te_weight": weight} for name, weight in WEIGHTS.items()]
    first, second = (host.txt2img(**SETTINGS, **with_recipe({"loras": loras, "combine": method}))
                     for method in ("linear", "magnitude-prune"))
    assert first.status == second.status == 200 and first.pngs[0] != second.pngs[0]


def test_a_combination_that_is_unknown_is_refused(host: HostServer) -> None:
    refused = host.txt2img(**SETTINGS, **combined("sum"))
    assert refused.status == 422 and refused.json["detail"]["field"] == "combine"
