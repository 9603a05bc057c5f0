"""LoRAs that share the rows of a plain picture, masked or in regions, in the WebUI: every sampler, pass and prompt, and a
clean leave."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from one_row import HALVES, PROMPT, REQUEST, ROBOT, ROCKET, SIZE, STYLE, asked, in_regions, made, masked
from pictures import assert_same_picture, difference, with_recipe
from PIL import Image
from server import ONE_THREAD, HostServer, as_base64

WAYS = {"masked": masked, "regions": in_regions}
SAMPLERS = ["Euler a", "DPM++ 2M", "DPM++ SDE", "Heun", "DDIM", "DDIM CFG++", "UniPC", "PLMS", "LCM"]
SUBJECTS = {"masked": (ROCKET, ROBOT), "regions": HALVES}
"""without a style"""


@pytest.fixture(params=WAYS)
def way(request) -> str:
    return request.param


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_has_them_and_the_host_is_left_as_it_was(tiny, way, sampler):
    plain = made(tiny, sampler_name=sampler)
    with_loras = made(tiny, WAYS[way](), sampler_name=sampler)
    assert difference(plain.pictures[0], with_loras.pictures[0])[1] > 1
    assert made(tiny, WAYS[way](), sampler_name=sampler).pngs == with_loras.pngs
    assert made(tiny, sampler_name=sampler).pngs == plain.pngs


def test_whether_rows_are_evaluated_together_or_not(tiny, way):
    both = [made(tiny, WAYS[way](), override_settings={"batch_cond_uncond": one}) for one in (False, True)]
    assert_same_picture(*both)


@pytest.mark.parametrize("prompts", [("a rocket and a robot" + " sky" * 90, "planet"), (PROMPT, "planet" + " sky" * 90)])
def test_prompts_of_other_lengths_than_the_negative_one(tiny, way, prompts):
    for padded in (False, True):
        made(tiny, WAYS[way](), prompt=prompts[0], negative_prompt=prompts[1],
             override_settings={"pad_cond_uncond": padded})


@pytest.mark.parametrize("padded", [False, True])
def test_prompts_of_one_batch_may_differ_in_length(tiny, way, padded):
    """The shorter one is as one with an empty chunk after it, which no LoRA has encoded."""
    recipe = WAYS[way]([{**lora, "te_weight": 0} for lora in HALVES])
    settings = {"override_settings": {"pad_cond_uncond": padded}}
    together = made(tiny, recipe, prompt=f"{PROMPT}|" + "sky " * 90, batch_size=2, script_name="Prompt matrix",
                    script_args=[False, False, "positive", "comma", 0], **settings).pictures[-2]
    alone = made(tiny, recipe, prompt=f"{PROMPT} BREAK BREAK", **settings).pictures[0]
    largest, mean = difference(together, alone)
    assert largest <= 4 and mean <= 0.2, f"largest {largest}, mean {mean:.3f}"
    assert difference(together, made(tiny, recipe, prompt=PROMPT, **settings).pictures[0])[0] > 8


def test_img2img_and_inpainting_have_them(tiny, way):
    start = made(tiny).pictures[0]
    mask = np.zeros((128, 128, 3), np.uint8)
    mask[:, :64] = 255
    for more in ({}, {"mask": as_base64(mask)}):
        pictures = [tiny.img2img(start, prompt=PROMPT, steps=10, seed=3, sampler_name="Euler", denoising_strength=0.8,
                                 **SIZE, **more, **with_recipe(WAYS[way](loras)))
                    for loras in (SUBJECTS[way], [dict(one, weight=0.0) for one in SUBJECTS[way]])]
        assert [answer.status for answer in pictures] == [200, 200], pictures[0].text
        assert difference(pictures[0].pictures[0], pictures[1].pictures[0])[1] > 0.5


def test_the_refiner_goes_on_in_the_same_places(tiny, way):
    refined = made(tiny, WAYS[way](), refiner_checkpoint="refiner", refiner_switch_at=0.5)
    assert difference(refined.pictures[0], made(tiny, WAYS[way]()).pictures[0])[1] <= 1.0


@pytest.mark.parametrize("flag", ["--medvram", "--lowvram"])
def test_with_little_memory_the_pictures_are_the_same(tiny, flag):
    with HostServer(models=tiny.models, checkpoint="sciart-tiny.safetensors", args=(flag,), env=ONE_THREAD) as small:
        plain = made(small)
        for recipe_of in WAYS.values():
            assert_same_picture(made(tiny, recipe_of()), made(small, recipe_of()))
        assert made(small).pngs == plain.pngs


@pytest.mark.parametrize("words", [[], ["rocket", "robot"]])
def test_what_each_lora_did_is_what_its_absence_changes(tiny, way, words):
    told = tiny.post("/sciart/v1/influence", {"txt2img": REQUEST, "recipe": WAYS[way](), "words": words})
    assert told.status == 200, told.text
    for title, left in (("all", (*SUBJECTS[way], STYLE)), ("without sciart-tiny-watercolor", SUBJECTS[way])):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(
            told.json["images"][told.json["pictures"].index(title)]))).convert("RGB"))
        largest, mean = difference(picture, made(tiny, WAYS[way](left)).pictures[0])
        assert largest <= 2 and mean <= 0.1, f"{title}: largest {largest}, mean {mean:.4f}"


@pytest.mark.parametrize(("settings", "told"), [
    ({"prompt": "a rocket AND a robot"}, " does not work with AND"),
    ({"override_settings": {"token_merging_ratio": 0.5}}, "token merging"),
    ({"override_settings": {"hypertile_enable_unet": True, "hypertile_max_tile_unet": 128}, "width": 256}, "Hypertile"),
], ids=["AND", "token merging", "Hypertile"])
def test_what_they_cannot_do_is_refused_and_the_next_picture_is_as_before(tiny, way, settings, told):
    off = {"token_merging_ratio": 0.0, "hypertile_enable_unet": False,
           "hypertile_max_tile_unet": 256}  # what is overridden stays so in this host
    plain = made(tiny, override_settings=off)
    refused = asked(tiny, WAYS[way](), **settings)
    assert refused.status == 422 and told in refused.text, refused.text[:500]
    assert made(tiny, override_settings=off).pngs == plain.pngs
