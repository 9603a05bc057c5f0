"""Further extensions in one WebUI: dynamic prompts, a queue, regional prompts, tiles, and upscaling by tiles."""

from __future__ import annotations

import base64
import io
import time

import numpy as np
import pytest
from asking import (
    EVERY_WAY,
    MERGED,
    OWN_ROWS,
    SETTINGS,
    WEIGHTS,
    is_first_picture_other,
    is_first_picture_same,
    made,
)
from beside_host import folder_of, is_there
from host_files import write_baked
from pictures import difference, tags, with_recipe
from PIL import Image
from server import HostServer, as_base64

DYNAMIC, QUEUE, REGIONAL, TILED, UPSCALE = NAMES = (
    "sd-dynamic-prompts", "sd-webui-agent-scheduler", "sd-webui-regional-prompter",
    "multidiffusion-upscaler-for-automatic1111", "ultimate-upscale-for-automatic1111")
ITS_SETTINGS = {  # what its page of the settings saves
    "dp_ignore_whitespace": False, "dp_write_prompts_to_file": False, "dp_limit_jinja_prompts": False,
    "dp_auto_purge_cache": False, "dp_wildcard_manager_no_dedupe": False, "dp_wildcard_manager_no_sort": False,
    "dp_wildcard_manager_shuffle": False, "dp_magicprompt_batch_size": 1, "dp_parser_variant_start": "{",
    "dp_parser_variant_end": "}", "dp_parser_wildcard_wrap": "__", "dp_write_raw_template": False}
SMALL = {"steps": 4, "width": 64, "height": 64}
VARIANTS = {"Dynamic Prompts v2.17.1": [True, True, 1, False, False, False, 1.1, 1.5, 100, 0.7, True, False, True]}


COLUMNS, LATENT = ({"Regional Prompter": [
    True, False, "Matrix", "Columns", "Mask", "Prompt", "1,1", "0.2", False, False, False, calculation, [False], "0", "0",
    "0.4", None, "0", "0", False]} for calculation in ("Attention", "Latent"))
TILES = {"Tiled Diffusion": [True, "MultiDiffusion", False, True, 128, 128, 16, 16, 8, 4, "None", 1.0, False, 10, 1, 1,
                             64, False, False, False, False]}
TILED_VAE = {"Tiled VAE": [True, 256, 48, False, True, True, False]}


@pytest.fixture(scope="module")
def both(webui, tiny_models, tmp_path_factory) -> HostServer:
    baked = write_baked(tmp_path_factory.mktemp("baked") / "baked.safetensors",
                        tiny_models / "Stable-diffusion" / "tiny-sd1.safetensors",
                        {tiny_models / "Lora" / f"{name}.safetensors": weight for name, weight in WEIGHTS.items()})
    return webui(*(name for name in NAMES if is_there(name)), ui=True, settings=ITS_SETTINGS,
                 files={f"models/Stable-diffusion/{file.name}": file for file in (baked, baked.with_suffix(".yaml"))})


@pytest.fixture
def as_before(both: HostServer):
    """The plain picture and the model are the same afterwards."""
    both.post("/probe/reset")
    plain, state = made(both, **SMALL), both.probe()["weights"]
    yield plain
    both.post("/probe/reset")
    assert made(both, **SMALL).pngs[0] == plain.pngs[0] and both.probe()["weights"] == state


@pytest.mark.parametrize("name", ["constant", "composite", "contrastive"])
def test_dynamic_prompts(both: HostServer, as_before, name: str) -> None:
    """Each picture of a batch is that of its own prompt."""
    folder_of(DYNAMIC)
    recipe = {**MERGED, **OWN_ROWS}[name]
    batch = made(both, recipe, VARIANTS, prompt="a {red|blue} rocket and a robot", batch_size=2, **SMALL)
    prompts, seeds = batch.info["all_prompts"], batch.info["all_seeds"]
    assert sorted(prompts) == ["a blue rocket and a robot", "a red rocket and a robot"]
    for prompt, seed, picture in zip(prompts, seeds, batch.pictures[-2:]):
        alone = made(both, recipe, prompt=prompt, **{**SMALL, "seed": seed})
        assert difference(alone.pictures[0], picture)[0] <= 3, prompt


def test_dynamic_prompts_without_the_subject_are_refused(both: HostServer, as_before) -> None:
    folder_of(DYNAMIC)
    refused = made(both, OWN_ROWS["contrastive"], VARIANTS, prompt="a {rocket|boat} and a robot", batch_size=2, **SMALL)
    assert refused.status == 422 and "rocket" in refused.text


@pytest.mark.parametrize("name", ["schedule", "regions"])
def test_the_queue_makes_the_same_picture(both: HostServer, as_before, name: str) -> None:
    folder_of(QUEUE)
    recipe = {**MERGED, **OWN_ROWS}[name]
    settings = {"prompt": "a rocket and a robot", "seed": 3, "sampler_name": "Euler", **SMALL}
    queued = both.post("/agent-scheduler/v1/queue/txt2img", {**settings, **with_recipe(recipe)})
    assert queued.status == 200, queued.text
    task = f"/agent-scheduler/v1/task/{queued.json['task_id']}"
    deadline = time.monotonic() + 120
    while both.get(task).json["data"]["status"] in ("pending", "running") and time.monotonic() < deadline:
        time.sleep(0.5)
    done = both.get(task).json["data"]
    assert done["status"] == "done", done
    results = both.get(f"{task}/results").json["data"]
    direct = made(both, recipe, **SMALL)
    assert "SciArt" in results[0]["infotext"]
    picture = base64.b64decode(results[0]["image"].partition(",")[2])
    assert (np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")) == direct.pictures[0]).all()


@pytest.mark.parametrize("name", EVERY_WAY)
def test_regional_prompts(both: HostServer, as_before, name: str) -> None:
    folder_of(REGIONAL)
    prompt, recipe = "a rocket BREAK a robot", EVERY_WAY[name]
    alone = made(both, None, COLUMNS, prompt=prompt, **SMALL)
    assert is_first_picture_other(alone, made(both, prompt=prompt, **SMALL))
    mixed = made(both, recipe, COLUMNS, prompt=prompt, **SMALL)
    if name == "by row":  # prompt and negative prompt of other lengths are evaluated one after the other
        whole = {"loras": [{**recipe["loras"][0], "apply_to": "both"}]}
        assert is_first_picture_other(mixed, made(both, whole, COLUMNS, prompt=prompt, **SMALL))
        assert is_first_picture_same(made(both, whole, COLUMNS, prompt=prompt, cfg_scale=1, **SMALL),
                                     made(both, recipe, COLUMNS, prompt=prompt, cfg_scale=1, **SMALL))
        return
    if name not in MERGED:
        assert mixed.status == 422 and "accepted: merge, switch" in mixed.text
        return
    assert is_first_picture_other(mixed, alone)
    if name == "constant":
        assert is_first_picture_same(made(both, None, COLUMNS, prompt=f"a rocket {tags(WEIGHTS)} BREAK a robot",
                                          **SMALL), mixed)


def test_regions_in_one_row_are_refused_beside_regional_prompts(both: HostServer, as_before) -> None:
    folder_of(REGIONAL)
    recipe = {**OWN_ROWS["regions"], "composition": {"rows": "one"}}
    refused = made(both, recipe, COLUMNS, prompt="a rocket BREAK a robot", **SMALL)
    assert refused.status == 422 and "sd-webui-regional-prompter/scripts" in refused.text, refused.text[:500]
    assert "accepted: merge, switch, composition.rows own" in refused.text


@pytest.mark.parametrize("name", EVERY_WAY)
def test_regional_prompts_in_latent_mode(both: HostServer, as_before, name: str) -> None:
    """They become parts joined by AND. Tags of the prompt act in their own region alone there, and not in negative
    prompts; a recipe's LoRAs act everywhere, as those of a checkpoint into which they are baked."""
    folder_of(REGIONAL)
    prompt, recipe = "a rocket BREAK a robot", EVERY_WAY[name]
    mixed = made(both, recipe, LATENT, prompt=prompt, **SMALL)
    if name not in MERGED and name != "by row":
        assert mixed.status == 422 and "does not work with AND" in mixed.text
        return
    assert is_first_picture_other(mixed, made(both, None, LATENT, prompt=prompt, **SMALL))
    if name == "constant":
        with_baked = {"override_settings": {"sd_model_checkpoint": "baked"}, **SMALL}
        assert is_first_picture_same(mixed, made(both, None, LATENT, prompt=prompt, **with_baked))


@pytest.mark.parametrize("name", EVERY_WAY)
def test_tiled_diffusion(both: HostServer, as_before, name: str) -> None:
    folder_of(TILED)
    recipe = EVERY_WAY[name]
    large = {**SMALL, "width": 256, "height": 128}
    alone = made(both, None, TILES, **large)
    assert is_first_picture_other(alone, made(both, **large))
    mixed = made(both, recipe, TILES, **large)
    if name not in MERGED:
        assert mixed.status == 422 and "accepted: merge, switch" in mixed.text
        return
    assert is_first_picture_other(mixed, alone)
    if name == "constant":
        assert is_first_picture_same(made(both, None, TILES, prompt=f"a rocket and a robot {tags(WEIGHTS)}", **large),
                                     mixed)


def test_tiled_vae(both: HostServer, as_before) -> None:
    folder_of(TILED)
    large = {**SMALL, "width": 512, "height": 512, "steps": 1}
    own = made(both, None, TILED_VAE, prompt=f"a rocket and a robot {tags(WEIGHTS)}", **large)
    assert is_first_picture_same(own, made(both, MERGED["constant"], TILED_VAE, **large))


@pytest.mark.parametrize("name", ["constant", "schedule"])
def test_ultimate_upscale(both: HostServer, as_before, name: str) -> None:
    folder_of(UPSCALE)
    picture = np.random.default_rng(1).integers(0, 255, (64, 64, 3)).astype(np.uint8)

    def upscaled(prompt: str, given: dict | None):
        scripts = {"SciArt": {"args": [given]}} if given else {}
        return both.post("/sdapi/v1/img2img", {
            "prompt": prompt, "init_images": [as_base64(picture)], **SMALL, "seed": 3, "sampler_name": "Euler",
            "denoising_strength": 0.5, "script_name": "Ultimate SD upscale", "alwayson_scripts": scripts,
            "script_args": [None, 64, 64, 8, 32, 64, 0.35, 32, 1, True, 0, False, 8, 0, 2, 2048, 2048, 2]})

    plain, mixed = upscaled("a rocket", None), upscaled("a rocket", MERGED[name])
    assert mixed.pictures[0].shape == (128, 128, 3) and is_first_picture_other(plain, mixed)
    if name == "constant":
        own = upscaled(f"a rocket {tags(WEIGHTS)}", None)
        largest, mean = difference(own.pictures[0], mixed.pictures[0])
        assert largest <= 4 and mean <= 0.01  # each tile is made from those before it


def test_rows_in_another_order_are_noticed_where_images_have_other_loras(both: HostServer, as_before) -> None:
    """Latent mode lays out a batch by regions first, where the influence of LoRAs has other sets of them in its images.
    """
    folder_of(REGIONAL)
    asked = {"txt2img": {**SETTINGS, **SMALL, "prompt": "a rocket BREAK a robot", "negative_prompt": "",
                         "alwayson_scripts": {name: {"args": args} for name, args in LATENT.items()}},
             "recipe": MERGED["constant"], "words": []}
    refused = both.post("/sciart/v1/influence", {**asked, "at_once": 4})
    assert refused.status == 422 and "sd-webui-regional-prompter/scripts/" in refused.text, refused.text[:500]
    assert refused.json["detail"]["field"] == "at_once"
    one_by_one = both.post("/sciart/v1/influence", {**asked, "at_once": 1})
    assert one_by_one.status == 200, one_by_one.text[:500]
