"""LoRAs with masks in one row in the WebUI: the standalone engine's pictures, batches, the hires pass, every model. More of
it in `test_one_row.py`."""

from __future__ import annotations

import numpy as np
import pytest
from one_row import HALVES, PROMPT, ROBOT, ROCKET, STYLE, WHOLE, asked, made
from one_row import masked as recipe_of
from pictures import assert_same_picture, difference, with_recipe

pytest.importorskip("diffusers")

from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL


@pytest.mark.parametrize("loras", [(ROCKET, ROBOT, STYLE), HALVES], ids=["found", "given"])
@pytest.mark.parametrize("sampler", ["Euler", "Heun"])
def test_host_and_standalone_make_the_same_picture(tiny, loras, sampler):
    settings = Settings(PROMPT, negative_prompt="planet", steps=8, seed=11, sampler=sampler, cfg_scale=5.0)
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
    whole = recipe_of([{**ROCKET, "region": WHOLE}], masking={"negative": 1})
    assert_same_picture(own, made(tiny, whole, prompt=prompt, **settings))


def test_batches_are_made_picture_by_picture(tiny):
    whole = made(tiny, recipe_of(guidance={"show": True}), batch_size=2, n_iter=2)
    assert len(whole.pictures) == 8
    for i in (1, 3):
        alone = made(tiny, recipe_of(), seed=11 + i)
        assert difference(whole.pictures[i], alone.pictures[0])[1] <= 1.0


def test_the_hires_pass_has_them_unless_it_is_told_otherwise(tiny):
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7,
             "hr_second_pass_steps": 6}
    with_masks, merged = (made(tiny, recipe_of(guidance={"hires": on}), **hires) for on in (True, False))
    assert with_masks.pictures[0].shape[0] == 256
    assert difference(with_masks.pictures[0], merged.pictures[0])[1] > 1


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
    whole = {**loras[0], "region": WHOLE}
    own = host.txt2img(**{**settings, "prompt": f"a rocket and a robot <lora:child{suffix}:0.8>"})
    recipe = {"compose": "masked", "loras": [whole], "masking": {"negative": 1}}
    assert_same_picture(own, host.txt2img(**settings, **with_recipe(recipe)))


def test_a_subject_that_is_not_in_the_prompt_is_refused(tiny):
    refused = asked(tiny, recipe_of(), prompt="a rocket in space")
    assert refused.status == 422 and "loras[1].subject" in refused.text, refused.text[:500]
