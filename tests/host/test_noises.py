"""The noise that a picture begins with in the WebUI: of several from its seed the one with the subjects farthest apart."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from pictures import assert_same_picture, difference, with_recipe
from PIL import Image
from server import HostServer

pytest.importorskip("diffusers")

from sciart_ext.guidance.noises import noise_seed
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL

PROMPT = "a rocket and a robot in space"
LORAS = [{"name": "red-striped-rocket", "weight": 1.0, "subject": "rocket", "trigger": "red striped"},
         {"name": "yellow-visor-robot", "weight": 1.0, "subject": "robot", "trigger": "yellow visor"}]
CHOSEN = re.compile(r"SciArt noise: (\d) of 3")


def recipe_of(compose="masked", noises=3, prefix="sciart-tiny-", **more):
    return {"compose": compose, "loras": [{**lora, "name": prefix + lora["name"], **more} for lora in LORAS],
            "guidance": {"noises": noises, **({"strength": 0} if compose == "contrastive" else {})}}


def made(tiny, recipe=None, **settings):
    given = {"prompt": PROMPT, "negative_prompt": "planet", "steps": 6, "seed": 11, "sampler_name": "Euler",
             "cfg_scale": 5.0, "width": 128, "height": 128}
    answer = tiny.txt2img(**{**given, **settings}, **(with_recipe(recipe) if recipe else {}))
    assert answer.status == 200, answer.text
    return answer


def chosen(infotext):
    """The number of the noise that an infotext tells, from 0 on."""
    return int(CHOSEN.search(infotext)[1]) - 1


@pytest.mark.parametrize("compose", ["masked", "contrastive"])
def test_each_picture_is_that_of_the_noise_that_its_infotext_tells(tiny: HostServer, compose):
    plain = made(tiny)
    several = made(tiny, recipe_of(compose), batch_size=2, n_iter=2)
    numbers = [chosen(infotext) for infotext in several.info["infotexts"][-4:]]
    assert len(set(numbers)) > 1, numbers
    for i, number in enumerate(numbers):
        alone = made(tiny, recipe_of(compose, noises=1), seed=noise_seed(11 + i, number))
        assert "SciArt noise" not in alone.infotext
        assert difference(several.pictures[-4 + i], alone.pictures[0])[1] <= 1.0, (i, number)
    assert made(tiny, recipe_of(compose), batch_size=2, n_iter=2).pngs == several.pngs
    assert made(tiny).pngs == plain.pngs


def test_a_grid_tells_the_noise_of_its_first_picture(tiny: HostServer):
    several = made(tiny, recipe_of(), seed=12, batch_size=2, n_iter=2, save_images=True)
    grid, *each = several.info["infotexts"]
    assert len(each) == 4 and len(set(map(chosen, each))) > 1
    assert chosen(grid) == chosen(each[0]) != chosen(each[2]), list(map(chosen, each))


def test_host_and_standalone_choose_the_same(tiny: HostServer):
    settings = Settings(PROMPT, negative_prompt="planet", steps=6, seed=14, sampler="Euler", cfg_scale=5.0)
    recipe = parse_recipe(recipe_of(prefix=""))
    alone = generate(load_pipeline(MODEL, device="cpu"), recipe, settings, load_loras(recipe, MODEL / "loras"))
    hosts = made(tiny, recipe_of(), seed=14)
    assert chosen(hosts.infotext) == chosen(alone.infotext)
    assert difference(np.asarray(alone.image), hosts.pictures[0])[1] <= 0.7


@pytest.mark.parametrize(("sampler", "source"), [
    ("Euler a", "GPU"), ("DPM++ 2M", "GPU"), ("DPM++ SDE", "NV"), ("Heun", "GPU"), ("DDIM", "CPU"), ("UniPC", "GPU"),
    ("PLMS", "GPU"), ("LCM", "NV")])
def test_every_sampler_begins_with_it_and_the_hosts_own_noises_are_left(tiny: HostServer, sampler, source):
    more = {"sampler_name": sampler, "override_settings": {"randn_source": source}, "seed": 12}
    plain, own, several = (made(tiny, recipe, **more) for recipe in (None, recipe_of(noises=1), recipe_of()))
    is_own = chosen(several.infotext) == 0
    assert (difference(own.pictures[0], several.pictures[0])[1] <= 0.5) == is_own
    assert made(tiny, recipe_of(), **more).pngs == several.pngs
    assert made(tiny, **more).pngs == plain.pngs


def test_variations_and_resized_seeds_have_noises_of_their_own(tiny: HostServer):
    more = {"subseed": 5, "subseed_strength": 0.3, "seed_resize_from_h": 64, "seed_resize_from_w": 128}
    several = made(tiny, recipe_of(), **more)
    number = chosen(several.infotext)
    other = {**more, "seed": noise_seed(11, number), "subseed": noise_seed(5, number)}
    assert_same_picture(several, made(tiny, recipe_of(noises=1), **other))


def test_the_hires_pass_goes_on_from_it(tiny: HostServer):
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7,
             "hr_second_pass_steps": 3}
    several = made(tiny, recipe_of(), **hires)
    infotext = several.infotext
    assert "SciArt notes" not in infotext and several.pictures[0].shape[0] == 256
    assert CHOSEN.search(infotext)


def test_where_a_picture_does_not_begin_with_noise_alone_a_note_tells(tiny: HostServer):
    start = made(tiny).pictures[0]
    answer = tiny.img2img(start, prompt=PROMPT, steps=6, seed=3, sampler_name="Euler", denoising_strength=0.8,
                          width=128, height=128, **with_recipe(recipe_of()))
    assert answer.status == 200, answer.text
    infotext = answer.infotext
    assert "guidance.noises: no effect here" in infotext and "SciArt noise:" not in infotext


def test_what_is_explained_is_the_picture_that_was_made(tiny: HostServer):
    picture = made(tiny, recipe_of(), seed=13)
    answer = tiny.post("/sciart/v1/influence", {"txt2img": {"infotext": picture.infotext}, "words": [], "page": False})
    assert answer.status == 200, answer.text
    everything = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.json["images"][-1]))).convert("RGB"))
    assert difference(picture.pictures[0], everything)[1] <= 1.0
