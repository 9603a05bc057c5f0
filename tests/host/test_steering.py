"""Contrastive guidance in the WebUI: the standalone engine's pictures, every sampler and pass, and a clean leave."""

from __future__ import annotations

import re

import numpy as np
import pytest
from pictures import difference, with_recipe
from server import HostServer, as_base64

pytest.importorskip("diffusers")

from sciart_ext.recipe import parse_recipe
from sciart_ext.report.heat import HEADER, TILE
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL

PROMPT = "a rocket and a robot in space"
SUBJECTS = [{"name": "red-striped-rocket", "weight": 1.0, "subject": "rocket", "trigger": "red striped"},
            {"name": "yellow-visor-robot", "weight": 1.0, "subject": "robot", "trigger": "yellow visor"}]
STYLE = {"name": "watercolor", "weight": 0.5}
GUIDANCE = {"refine": {"0": 3}, "strength": 10.0}
SIZE = {"width": 128, "height": 128}


def recipe_of(loras=(*SUBJECTS, STYLE), prefix="sciart-tiny-", **guidance):
    return {"compose": "contrastive", "guidance": {**GUIDANCE, **guidance},
            "loras": [{**lora, "name": prefix + lora["name"]} for lora in loras]}


def hosted(tiny: HostServer, recipe=None, prompt=PROMPT, **settings):
    given = {"negative_prompt": "planet", "steps": 10, "seed": 11, "sampler_name": "Euler", "cfg_scale": 5.0, **SIZE}
    answer = tiny.txt2img(prompt=prompt, **{**given, **settings}, **(with_recipe(recipe) if recipe else {}))
    assert answer.status == 200, answer.text
    return answer


def assert_like_standalone(tiny, loras, sampler, prompt=PROMPT, **guidance):
    settings = Settings(prompt, negative_prompt="planet", steps=10, seed=11, sampler=sampler, cfg_scale=5.0)
    recipe = parse_recipe(recipe_of(loras, prefix="", **guidance))
    alone = generate(load_pipeline(MODEL, device="cpu"), recipe, settings, load_loras(recipe, MODEL / "loras"))
    made = hosted(tiny, recipe_of(loras, **guidance), prompt, sampler_name=sampler).pictures
    assert_alike(np.asarray(alone.image), made[0])
    return alone, made


def assert_alike(expected, picture):
    largest, mean = difference(expected, picture)
    assert largest <= 6 and mean <= 0.7, f"largest {largest}, mean {mean:.3f}"


@pytest.mark.parametrize("sampler", ["Euler", "Heun"])
@pytest.mark.parametrize("guidance", [{}, {"strength": 0.0}, {"masks": False}], ids=["whole", "masks", "update"])
def test_host_and_standalone_guide_to_the_same_picture(tiny, sampler, guidance):
    assert_like_standalone(tiny, (*SUBJECTS, STYLE), sampler, **guidance)


def losses_in(answer):
    return [float(value) for value in re.search(r"SciArt loss: ([\d. ]+)", answer.infotext)[1].split()]


def test_the_losses_before_the_updates_are_in_the_infotext(tiny):
    losses = losses_in(hosted(tiny, recipe_of()))
    assert len(losses) == 5 and losses[0] > losses[-1] > 0
    assert "SciArt loss" not in hosted(tiny, recipe_of(strength=0.0)).infotext


def test_regions_are_those_of_standalone(tiny):
    halves = [{**SUBJECTS[0], "region": [0, 0, 0.5, 1]}, {**SUBJECTS[1], "region": [0.5, 0, 1, 1]}]
    _, boxed = assert_like_standalone(tiny, halves, "Euler")
    assert difference(boxed[0], hosted(tiny, recipe_of(SUBJECTS)).pictures[0])[1] > 1


def test_two_of_a_kind_are_those_of_standalone(tiny):
    pair = [SUBJECTS[0], {"name": "golden-rocket", "weight": 1.0, "subject": "rocket", "trigger": "golden"}]
    prompt = "a rocket and a rocket in space"
    _, made = assert_like_standalone(tiny, pair, "Euler", prompt)
    sooner = hosted(tiny, recipe_of(pair, opacity_crowded="1@0, 0@0.3"), prompt).pictures[0]
    assert difference(made[0], sooner)[1] > 1
    others = hosted(tiny, recipe_of(pair, opacity="1@0, 0@0.3"), prompt).pictures[0]
    assert np.array_equal(made[0], others)


def test_the_areas_are_shown_when_asked_for(tiny):
    alone, made = assert_like_standalone(tiny, SUBJECTS, "Euler", show=True)
    assert len(made) == 2
    assert_alike(*(np.asarray(sheet)[HEADER:HEADER + TILE] for sheet in (alone.subjects, made[1])))
    batch = hosted(tiny, recipe_of(SUBJECTS, show=True), batch_size=2, n_iter=2)
    plain = hosted(tiny, recipe_of(SUBJECTS), batch_size=2, n_iter=2)
    assert len(batch.pictures) == 8 and all(map(np.array_equal, plain.pictures, batch.pictures))
    assert not np.array_equal(batch.pictures[4], batch.pictures[5])


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M", "DPM++ SDE", "Heun", "DDIM", "UniPC", "PLMS"])
def test_every_sampler_is_guided_and_the_host_is_left_as_it_was(tiny, sampler):
    before = hosted(tiny, sampler_name=sampler)
    guided = hosted(tiny, recipe_of(), sampler_name=sampler)
    unguided = hosted(tiny, recipe_of(strength=0.0, masks=False), sampler_name=sampler)
    assert difference(guided.pictures[0], unguided.pictures[0])[1] > 1
    assert np.array_equal(hosted(tiny, sampler_name=sampler).pictures[0], before.pictures[0])


@pytest.mark.parametrize("guidance", [{"masks": False}, {"opacity": [[0, 0]]}], ids=["no masks", "opacity 0"])
def test_without_updates_and_own_rows_it_is_the_merge_of_a_prompt_with_the_triggers(tiny, guidance):
    merged = {"loras": recipe_of()["loras"]}
    told = PROMPT.replace("rocket", "red striped rocket").replace("robot", "yellow visor robot")
    assert_alike(hosted(tiny, merged, told).pictures[0], hosted(tiny, recipe_of(strength=0.0, **guidance)).pictures[0])


def test_batches_are_guided_picture_by_picture(tiny):
    whole = hosted(tiny, recipe_of(), batch_size=2, n_iter=2)
    assert len(whole.pictures) == 4
    for i in (1, 3):
        alone = hosted(tiny, recipe_of(), seed=11 + i)
        assert difference(whole.pictures[i], alone.pictures[0])[1] <= 1.0


def test_img2img_is_guided(tiny):
    start = hosted(tiny).pictures[0]
    made = [tiny.img2img(start, prompt=PROMPT, steps=10, seed=3, sampler_name="Euler", denoising_strength=0.8, **SIZE,
                         **with_recipe(recipe_of(**change))) for change in ({}, {"strength": 0.0, "masks": False})]
    assert [answer.status for answer in made] == [200, 200], made[0].text
    assert difference(made[0].pictures[0], made[1].pictures[0])[1] > 1


def test_the_hires_pass_is_guided(tiny):
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7,
             "hr_second_pass_steps": 6}
    guided, plain = hosted(tiny, recipe_of(), **hires), hosted(tiny, recipe_of(strength=0.0, masks=False), **hires)
    assert guided.pictures[0].shape == (256, 256, 3)
    assert difference(guided.pictures[0], plain.pictures[0])[1] > 1


def test_the_hires_pass_is_merged_by_choice(tiny):
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7,
             "hr_second_pass_steps": 6}
    guided, merged = (hosted(tiny, recipe_of(hires=on, show=True), **hires) for on in (True, False))
    assert difference(guided.pictures[0], merged.pictures[0])[1] > 1
    assert [len(answer.pictures) for answer in (guided, merged)] == [2, 2]  # a sheet of each


def test_inpainting_is_guided(tiny):
    start = hosted(tiny).pictures[0]
    mask = np.zeros_like(start)
    mask[:, 64:] = 255
    made = [tiny.img2img(start, mask=as_base64(mask), inpainting_fill=1, inpaint_full_res=False, mask_blur=0,
                         prompt=PROMPT, steps=10, seed=3, sampler_name="Euler", denoising_strength=0.8, **SIZE,
                         **with_recipe(recipe_of(**change))) for change in ({}, {"strength": 0.0, "masks": False})]
    assert [answer.status for answer in made] == [200, 200], made[0].text
    guided, unguided = (answer.pictures[0] for answer in made)
    assert difference(guided[:, 72:], unguided[:, 72:])[1] > 1
    assert difference(guided[:, :56], start[:, :56])[1] <= 1.5  # what the mask leaves, but for the autoencoder


@pytest.mark.parametrize("at", [0.5, 0.9], ids=["while own rows count", "when they do not any more"])
def test_a_refiner_goes_on_with_the_same_areas(tiny, at):
    switching = {"refiner_checkpoint": "refiner", "refiner_switch_at": at}  # the same model once more
    guidance = {"until": 1.0, "refine": {"0": 2}}
    with_refiner, without = hosted(tiny, recipe_of(**guidance), **switching), hosted(tiny, recipe_of(**guidance))
    assert "Refiner: refiner" in with_refiner.infotext
    assert_alike(without.pictures[0], with_refiner.pictures[0])
    counts = [len(losses_in(answer)) for answer in (without, with_refiner)]
    assert counts[0] == counts[1] > 10  # of both models


@pytest.mark.parametrize(("loras", "prompt", "field", "message"), [
    ([{**SUBJECTS[0], "subject": "submarine"}, SUBJECTS[1]], PROMPT, "loras[0].subject", "is not in the prompt"),
    (SUBJECTS, "a rocket AND a robot", "compose", "does not work with AND"),
    (SUBJECTS, "a [rocket:planet:0.5] and a robot", "loras[0].subject", "is not in the prompt"),
])
def test_what_cannot_be_guided_is_refused(tiny, loras, prompt, field, message):
    answer = tiny.txt2img(prompt=prompt, steps=4, seed=1, sampler_name="Euler", **SIZE, **with_recipe(recipe_of(loras)))
    assert answer.status == 422 and answer.json["detail"]["field"] == field, answer.text
    assert message in answer.json["detail"]["message"]


@pytest.mark.parametrize("prompt", ["a (rocket:1.3) and a [robot] in space", "a rocket BREAK a robot in space",
                                    "space " * 80 + "a rocket and a robot", "a [red:blue:0.5] rocket and a robot"])
def test_the_hosts_prompt_syntax_is_understood(tiny, prompt):
    guided, unguided = (hosted(tiny, recipe_of(**change), prompt) for change in ({}, {"strength": 0.0, "masks": False}))
    assert difference(guided.pictures[0], unguided.pictures[0])[1] > 1


ROOM = [  # of 2 pictures of 5 rows each
    ({"rows": 9}, {}, "compose", "10 rows at once do not fit, 9 would; accepted: a batch size of 1, the setting "
                                 "`Batch cond/uncond` off, compose merge, a smaller picture"),
    ({"rows": 4}, {}, "compose", "10 rows at once do not fit, 4 would; accepted: the setting `Batch cond/uncond` off, "
                                 "compose merge, a smaller picture"),
    ({"rows": 1}, {}, "compose", "2 rows at once do not fit, 1 would; accepted: a smaller picture"),
    ({"gradient": False}, {}, "guidance.strength", "in the gradient that an update needs; accepted: 0 (no updates), a "
                                                   "smaller batch size, a smaller picture"),
]


@pytest.mark.parametrize(("room", "guidance", "field", "message"), ROOM, ids=["9 rows", "4", "1", "no gradient"])
def test_what_does_not_fit_in_memory_is_refused_with_what_does(tiny, room, guidance, field, message):
    before = hosted(tiny, recipe_of(SUBJECTS)).pictures[0]
    tiny.post("/probe/room", room)
    try:
        refused = tiny.txt2img(prompt=PROMPT, steps=4, seed=1, sampler_name="Euler", batch_size=2, **SIZE,
                               **with_recipe(recipe_of(SUBJECTS, **guidance)))
        assert refused.status == 422 and refused.json["detail"]["field"] == field, refused.text
        assert refused.json["detail"]["message"] == f"out of memory{': ' if field == 'compose' else ' '}{message}"
    finally:
        tiny.post("/probe/room", {})
    assert np.array_equal(hosted(tiny, recipe_of(SUBJECTS)).pictures[0], before)
