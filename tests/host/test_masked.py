"""LoRAs with masks in one row in the WebUI: the standalone engine's pictures, every sampler and pass, a clean leave."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from pictures import assert_same_picture, difference, with_recipe
from PIL import Image
from server import ONE_THREAD, HostServer, as_base64

pytest.importorskip("diffusers")

from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL

PROMPT = "a rocket and a robot in space"
ROCKET = {"name": "red-striped-rocket", "weight": 1.0, "subject": "rocket", "trigger": "red striped"}
ROBOT = {"name": "yellow-visor-robot", "weight": 1.0, "subject": "robot", "trigger": "yellow visor"}
STYLE = {"name": "watercolor", "weight": 0.5}
HALVES = ({**ROCKET, "region": [0, 0, 0.5, 1]}, {**ROBOT, "region": [0.5, 0, 1, 1]})
SIZE = {"width": 128, "height": 128}


def recipe_of(loras=(ROCKET, ROBOT, STYLE), prefix="sciart-tiny-", **more):
    return {"compose": "masked", "loras": [{**lora, "name": prefix + lora["name"]} for lora in loras], **more}


def asked(tiny: HostServer, recipe=None, **settings):
    given = {"prompt": PROMPT, "negative_prompt": "planet", "steps": 10, "seed": 11, "sampler_name": "Euler",
             "cfg_scale": 5.0, **SIZE}
    return tiny.txt2img(**{**given, **settings}, **(with_recipe(recipe) if recipe else {}))


def made(tiny, recipe=None, **settings):
    answer = asked(tiny, recipe, **settings)
    assert answer.status == 200, answer.text
    return answer


@pytest.mark.parametrize("loras", [(ROCKET, ROBOT, STYLE), HALVES], ids=["found", "given"])
@pytest.mark.parametrize("sampler", ["Euler", "Heun"])
def test_host_and_standalone_make_the_same_picture(tiny, loras, sampler):
    settings = Settings(PROMPT, negative_prompt="planet", steps=10, seed=11, sampler=sampler, cfg_scale=5.0)
    recipe = parse_recipe(recipe_of(loras, prefix=""))
    alone = generate(load_pipeline(MODEL, device="cpu"), recipe, settings, load_loras(recipe, MODEL / "loras"))
    largest, mean = difference(np.asarray(alone.image), made(tiny, recipe_of(loras), sampler_name=sampler).pictures[0])
    assert largest <= 6 and mean <= 0.7, f"largest {largest}, mean {mean:.3f}"


@pytest.mark.parametrize("prompt", ["a rocket in space", "a [rocket:rocket in space:0.5]", "a rocket" + " sky" * 90])
@pytest.mark.parametrize("padded", [False, True])
def test_a_mask_over_the_whole_picture_is_the_hosts_own_lora(tiny, prompt, padded):
    settings = {"override_settings": {"pad_cond_uncond": padded}}
    told = prompt.replace("rocket", "red striped rocket")
    own = made(tiny, prompt=f"{told} <lora:sciart-tiny-red-striped-rocket:1>", **settings)
    whole = recipe_of([{**ROCKET, "region": [0, 0, 1, 1]}], masking={"negative": 1})
    assert_same_picture(own, made(tiny, whole, prompt=prompt, **settings))


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M", "DPM++ SDE", "Heun", "DDIM", "UniPC", "PLMS", "LCM"])
def test_every_sampler_has_them_and_the_host_is_left_as_it_was(tiny, sampler):
    plain = made(tiny, sampler_name=sampler)
    masked = made(tiny, recipe_of(), sampler_name=sampler)
    assert difference(plain.pictures[0], masked.pictures[0])[1] > 1
    assert made(tiny, recipe_of(), sampler_name=sampler).pngs == masked.pngs
    assert made(tiny, sampler_name=sampler).pngs == plain.pngs


def test_batches_are_made_picture_by_picture(tiny):
    whole = made(tiny, recipe_of(guidance={"show": True}), batch_size=2, n_iter=2)
    assert len(whole.pictures) == 8
    for i in (1, 3):
        alone = made(tiny, recipe_of(), seed=11 + i)
        assert difference(whole.pictures[i], alone.pictures[0])[1] <= 1.0


@pytest.mark.parametrize("together", [True, False])
def test_whether_rows_are_evaluated_together_or_not(tiny, together):
    both = [made(tiny, recipe_of(), override_settings={"batch_cond_uncond": one}) for one in (True, together)]
    assert_same_picture(*both)


@pytest.mark.parametrize("prompts", [("a rocket and a robot" + " sky" * 90, "planet"), (PROMPT, "planet" + " sky" * 90)])
def test_prompts_of_other_lengths_than_the_negative_one(tiny, prompts):
    for padded in (False, True):
        made(tiny, recipe_of(), prompt=prompts[0], negative_prompt=prompts[1],
             override_settings={"pad_cond_uncond": padded})


@pytest.mark.parametrize("more", [{}, {"compose": "regions", "composition": {"rows": "one"}}], ids=["masked", "regions"])
@pytest.mark.parametrize("padded", [False, True])
def test_prompts_of_one_batch_may_differ_in_length(tiny, more, padded):
    """The shorter one is as one with an empty chunk after it, which no LoRA has encoded."""
    recipe = recipe_of([{**lora, "te_weight": 0} for lora in HALVES], **more)
    settings = {"override_settings": {"pad_cond_uncond": padded}}
    together = made(tiny, recipe, prompt=f"{PROMPT}|" + "sky " * 90, batch_size=2, script_name="Prompt matrix",
                    script_args=[False, False, "positive", "comma", 0], **settings).pictures[-2]
    alone = made(tiny, recipe, prompt=f"{PROMPT} BREAK BREAK", **settings).pictures[0]
    largest, mean = difference(together, alone)
    assert largest <= 4 and mean <= 0.2, f"largest {largest}, mean {mean:.3f}"
    assert difference(together, made(tiny, recipe, prompt=PROMPT, **settings).pictures[0])[0] > 8


def test_the_hires_pass_has_them_unless_it_is_told_otherwise(tiny):
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7,
             "hr_second_pass_steps": 6}
    with_masks, merged = (made(tiny, recipe_of(guidance={"hires": on}), **hires) for on in (True, False))
    assert with_masks.pictures[0].shape[0] == 256
    assert difference(with_masks.pictures[0], merged.pictures[0])[1] > 1


def test_img2img_and_inpainting_have_them(tiny):
    start = made(tiny).pictures[0]
    mask = np.zeros((128, 128, 3), np.uint8)
    mask[:, :64] = 255
    for more in ({}, {"mask": as_base64(mask)}):
        pictures = [tiny.img2img(start, prompt=PROMPT, steps=10, seed=3, sampler_name="Euler", denoising_strength=0.8,
                                 **SIZE, **more, **with_recipe(recipe_of(loras)))
                    for loras in ((ROCKET, ROBOT), [dict(one, weight=0.0) for one in (ROCKET, ROBOT)])]
        assert [answer.status for answer in pictures] == [200, 200], pictures[0].text
        assert difference(pictures[0].pictures[0], pictures[1].pictures[0])[1] > 0.5


@pytest.mark.parametrize(("checkpoint", "suffix"), [("tiny-sd1", ""), ("tiny-sdxl", "-xl"), ("tiny-sd2-v", "-v2")])
def test_whatever_the_model(host, checkpoint, suffix):
    settings = {"prompt": "a rocket and a robot", "override_settings": {"sd_model_checkpoint": checkpoint}}
    loras = [{"name": f"child{suffix}", "weight": 0.8, "subject": "rocket", "region": [0, 0, 0.5, 1]},
             {"name": f"watercolor{suffix}", "weight": 0.8, "subject": "robot", "region": [0.5, 0, 1, 1]}]
    plain = host.txt2img(**settings)
    masked = host.txt2img(**settings, **with_recipe({"compose": "masked", "loras": loras}))
    assert masked.status == 200, masked.text
    assert difference(plain.pictures[0], masked.pictures[0])[1] > 1
    assert host.txt2img(**settings).pngs == plain.pngs
    whole = {**loras[0], "region": [0, 0, 1, 1]}
    own = host.txt2img(**{**settings, "prompt": f"a rocket and a robot <lora:child{suffix}:0.8>"})
    recipe = {"compose": "masked", "loras": [whole], "masking": {"negative": 1}}
    assert_same_picture(own, host.txt2img(**settings, **with_recipe(recipe)))


def test_the_refiner_goes_on_with_the_masks(tiny):
    refined = made(tiny, recipe_of(), refiner_checkpoint="refiner", refiner_switch_at=0.5)
    assert difference(refined.pictures[0], made(tiny, recipe_of()).pictures[0])[1] <= 1.0


@pytest.mark.parametrize("flag", ["--medvram", "--lowvram"])
def test_with_little_memory_the_picture_is_the_same(tiny, flag):
    with HostServer(models=tiny.models, checkpoint="sciart-tiny.safetensors", args=(flag,), env=ONE_THREAD) as small:
        plain = made(small)
        assert_same_picture(made(tiny, recipe_of()), made(small, recipe_of()))
        assert made(small).pngs == plain.pngs


@pytest.mark.parametrize("words", [[], ["rocket", "robot"]])
def test_what_each_lora_did_is_what_its_absence_changes(tiny, words):
    request = {"prompt": PROMPT, "negative_prompt": "planet", "steps": 6, "seed": 11, "sampler_name": "Euler",
               "cfg_scale": 5.0, **SIZE}
    told = tiny.post("/sciart/v1/influence", {"txt2img": request, "recipe": recipe_of(), "words": words})
    assert told.status == 200, told.text
    for title, left in (("all", (ROCKET, ROBOT, STYLE)), ("without sciart-tiny-watercolor", (ROCKET, ROBOT))):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(
            told.json["images"][told.json["pictures"].index(title)]))).convert("RGB"))
        largest, mean = difference(picture, made(tiny, recipe_of(left), steps=6).pictures[0])
        assert largest <= 2 and mean <= 0.1, f"{title}: largest {largest}, mean {mean:.4f}"


@pytest.mark.parametrize(("settings", "told"), [
    ({"prompt": "a rocket AND a robot"}, "masked does not work with AND"),
    ({"prompt": "a rocket in space"}, "loras[1].subject"),
    ({"override_settings": {"token_merging_ratio": 0.5}}, "token merging"),
    ({"override_settings": {"hypertile_enable_unet": True, "hypertile_max_tile_unet": 128}, "width": 256}, "Hypertile"),
], ids=["AND", "not in the prompt", "token merging", "Hypertile"])
def test_what_it_cannot_do_is_refused_and_the_next_picture_is_as_before(tiny, settings, told):
    off = {"token_merging_ratio": 0.0, "hypertile_enable_unet": False,
           "hypertile_max_tile_unet": 256}  # what is overridden stays so in this host
    plain = made(tiny, override_settings=off)
    refused = asked(tiny, recipe_of(), **settings)
    assert refused.status == 422 and told in refused.text, refused.text[:500]
    assert made(tiny, override_settings=off).pngs == plain.pngs
