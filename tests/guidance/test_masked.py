"""LoRAs with masks in one row, on diffusers: what each place has of them and reads, and what is left behind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from random_model import write_random_model

from sciart_ext.errors import SciArtError
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.counterfactuals import run_sets
from sciart_ext.standalone.generate import Settings, generate, generate_batch, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL
from sciart_ext.world.oracle import Oracle

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings("a rocket and a robot", "noise", steps=3, seed=5, cfg_scale=3, width=96, height=64)
ROCKET = {"name": "child", "weight": 0.6, "subject": "rocket", "trigger": "red"}
ROBOT = {"name": "science", "weight": 0.6, "subject": "robot"}
STYLE = {"name": "watercolor", "weight": 0.5}
HALVES = [{**ROCKET, "region": [0, 0, 0.5, 1]}, {**ROBOT, "region": [0.5, 0, 1, 1]}]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder, loras = write_random_model(tmp_path_factory.mktemp("tiny"), levels=2)
    return load_pipeline(folder, device="cpu"), loras


def recipe_of(loras, compose="masked", **more):
    return parse_recipe({"loras": loras, "compose": compose, **more})


def picture(tiny, loras, settings=SETTINGS, compose="masked", **more):
    recipe = recipe_of(loras, compose, **more)
    return generate(tiny[0], recipe, settings, load_loras(recipe, tiny[1]))


def pixels(made):
    return np.asarray(made.image).astype(int)


def test_each_lora_changes_its_own_place(tiny):
    plain, made = pixels(picture(tiny, [STYLE], compose="merge")), pixels(picture(tiny, [*HALVES, STYLE]))
    assert np.array_equal(made, pixels(picture(tiny, [*HALVES, STYLE])))
    assert np.abs(made - plain).mean() > 0.5


def test_each_individual_is_in_its_own_place():
    """The trained model, whose oracle says where who is."""
    loras = [{"name": "red-striped-rocket", "weight": 1.0, "subject": "rocket", "trigger": "red striped"},
             {"name": "yellow-visor-robot", "weight": 1.0, "subject": "robot", "trigger": "yellow visor"}]
    settings, seeds = replace(SETTINGS, steps=12, cfg_scale=6, width=128, height=128), range(6)
    pipe, oracle = load_pipeline(MODEL, device="cpu"), Oracle.load()
    for sides in (((0, 0, 0.5, 1), (0.5, 0, 1, 1)), ((0.5, 0, 1, 1), (0, 0, 0.5, 1))):
        recipe = recipe_of([dict(lora, region=side) for lora, side in zip(loras, sides)])
        made = generate_batch(pipe, recipe, settings, load_loras(recipe, MODEL / "loras"), list(seeds))
        readings = oracle.read(np.stack([np.asarray(one.image.convert("RGB")) for one in made]))
        found = [any(one.individual == name.replace("-", " ") and side[0] <= (one.box[0] + one.box[2]) / 256 <= side[2]
                     for one in reading.objects) for reading in readings
                 for name, side in zip([lora["name"] for lora in loras], sides)]
        assert sum(found) >= 9, found


@pytest.mark.parametrize("prompt", ["a rocket", "a [rocket:rocket in space:0.5]", "a rocket" + " sky" * 90])
def test_a_mask_over_the_whole_picture_is_the_lora_everywhere(tiny, prompt):
    whole = {**ROCKET, "region": [0, 0, 1, 1]}
    settings = replace(SETTINGS, prompt=prompt)
    merged = replace(settings, prompt=prompt.replace("rocket", "red rocket"))
    expected = pixels(picture(tiny, [ROCKET, STYLE], merged, "merge"))
    made = picture(tiny, [whole, STYLE], settings, masking={"negative": 1})
    assert np.abs(pixels(made) - expected).max() <= 2


@pytest.mark.parametrize("share", [0, 0.5])
def test_in_the_negative_prompt_s_row_it_has_a_part_of_its_weight(tiny, share):
    whole = {**ROCKET, "region": [0, 0, 1, 1]}
    settings = replace(SETTINGS, prompt="a rocket")
    weights = {"weight": 0.6 * share, "te_weight": 0.6}
    expected = pixels(picture(tiny, [{**ROCKET, "negative": weights}, STYLE],
                              replace(settings, prompt="a red rocket"), "merge"))
    made, all_of_it = (pixels(picture(tiny, [whole, STYLE], settings, masking={"negative": one}))
                       for one in (share, 1))
    assert np.abs(made - expected).max() <= 2 < np.abs(made - all_of_it).max()


def test_loras_of_no_weight_leave_the_base_with_the_texts_of_their_subjects(tiny):
    nothing = [dict(lora, weight=0.0) for lora in HALVES]
    made = pixels(picture(tiny, nothing))
    assert np.abs(made - pixels(picture(tiny, HALVES))).mean() > 0.5
    same = [dict(lora, trigger=None, subject="rocket") for lora in nothing]
    one_text = replace(SETTINGS, prompt="a rocket and a rocket")
    plain = recipe_of([], "merge", enabled=False)
    expected = pixels(generate(tiny[0], plain, one_text, []))
    assert np.abs(pixels(picture(tiny, same, one_text)) - expected).max() <= 2


def test_a_picture_does_not_depend_on_its_batch(tiny):
    recipe = recipe_of([ROCKET, ROBOT, STYLE], guidance={"show": True})
    loras = load_loras(recipe, tiny[1])
    made = generate_batch(tiny[0], recipe, SETTINGS, loras, [5, 9, 6])
    for seed, one in zip((5, 9, 6), made):
        single = generate(tiny[0], recipe, replace(SETTINGS, seed=seed), loras)
        assert np.abs(pixels(one) - pixels(single)).max() <= 2
        assert np.abs(np.asarray(one.subjects).astype(int) - np.asarray(single.subjects)).mean() < 0.5


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ SDE", "Heun", "DDIM", "UniPC", "DPM adaptive"])
def test_it_works_with_every_kind_of_sampler(tiny, sampler):
    settings = replace(SETTINGS, sampler=sampler, width=64)
    made = pixels(picture(tiny, HALVES, settings))
    assert np.abs(made - pixels(picture(tiny, [dict(lora, weight=0.0) for lora in HALVES], settings))).mean() > 0.1


def test_without_cfg_there_is_no_negative_row(tiny):
    settings = replace(SETTINGS, cfg_scale=1)
    assert np.abs(pixels(picture(tiny, HALVES, settings)) - pixels(picture(tiny, HALVES))).mean() > 0.5


def test_schedules_and_prompts_that_change_act_in_their_places(tiny):
    scheduled = [dict(lora, weight=None, schedule=[[0, 0.1], [1, 1]]) for lora in HALVES]
    assert np.abs(pixels(picture(tiny, scheduled)) - pixels(picture(tiny, HALVES))).mean() > 0.1
    edited = replace(SETTINGS, prompt="a [blue:green:0.5] rocket and a robot")
    assert np.abs(pixels(picture(tiny, HALVES, edited)) - pixels(picture(tiny, HALVES))).mean() > 0.1


def test_what_is_in_the_place_of_the_unet_s_own_steps_has_the_mixture_s_text_alone(tiny, monkeypatch):
    """As ControlNet, which reads it too."""
    seen, forward = [], tiny[0].unet.forward

    def watched(*args, **kwargs):
        seen.append(kwargs["encoder_hidden_states"])
        return forward(*args, **kwargs)

    monkeypatch.setattr(tiny[0].unet, "forward", watched)
    picture(tiny, [dict(lora, trigger=None) for lora in HALVES])
    masked, seen[:] = [*seen], []
    picture(tiny, [dict(STYLE, weight=0.0)], compose="merge")
    assert len(masked) == len(seen) == SETTINGS.steps
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(masked, seen))


def test_nothing_is_left_on_the_model(tiny):
    def state():
        hooks = [(len(module._forward_hooks), len(module._forward_pre_hooks), set(vars(module)))
                 for module in tiny[0].unet.modules()]
        return hooks, [(id(one), one._version, one.sum().item()) for one in tiny[0].unet.parameters()]

    before = state()
    picture(tiny, [ROCKET, ROBOT, STYLE])
    assert state() == before


@pytest.mark.parametrize("loras", [[*HALVES, STYLE], [ROCKET, ROBOT, STYLE]], ids=["regions given", "found"])
def test_what_each_lora_did_is_found_by_leaving_it_out(tiny, loras):
    recipe, runs = recipe_of(loras), {}
    settings, sets = replace(SETTINGS, width=64), [0b111, 0b110, 0b011, 0b000]
    run_sets(tiny[0], recipe, settings, load_loras(recipe, tiny[1]), sets, runs, words=["rocket"])
    for one, left in ((0b111, loras), (0b011, loras[:2])):
        alone = pixels(picture(tiny, left, settings))
        assert np.abs(runs[one].picture.astype(int) - alone).max() <= 2
    for one in (0b110, 0b011):
        assert np.abs(runs[0b111].picture.astype(int) - runs[one].picture).mean() > 0.1
    without = {}
    run_sets(tiny[0], recipe, settings, load_loras(recipe, tiny[1]), sets, without)
    assert np.array_equal(without[0b111].picture, runs[0b111].picture)


@pytest.mark.parametrize("first", [True, False], ids=["in the look ahead", "in a step"])
def test_what_does_not_fit_in_memory_is_refused_with_what_would(tiny, first):
    tokens, seen = 77 if first else 3 * 77, []

    def too_much(module, args):
        if len(args[0]) > 1 and seen[-1] == tokens:
            raise RuntimeError("out of memory")

    hooks = [tiny[0].unet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["encoder_hidden_states"].shape[1]), with_kwargs=True),
        tiny[0].unet.conv_in.register_forward_pre_hook(too_much)]
    try:
        with pytest.raises(SciArtError, match=r"out of memory: 2 rows at once do not fit, 1 would"):
            picture(tiny, [ROCKET, ROBOT])
    finally:
        for hook in hooks:
            hook.remove()
    picture(tiny, [ROCKET, ROBOT])


@pytest.mark.parametrize(("loras", "more", "prompt", "told"), [
    (HALVES, {"combine": "ties"}, SETTINGS.prompt, r"combine: ties joins whole deltas.+compose masked: linear"),
    ([STYLE], {}, SETTINGS.prompt, r"loras\[0\].subject: missing; compose masked needs a LoRA with a subject"),
    (HALVES, {}, "a rocket AND a robot", r"compose: masked does not work with AND"),
    (HALVES, {}, "a rocket", r"loras\[1\].subject: 'robot' is not in the prompt"),
    (HALVES, {"masking": {"negative": -1}}, SETTINGS.prompt, r"masking.negative: -1 is out of range"),
    (HALVES, {"masking": {"threshold": 2}}, SETTINGS.prompt, r"masking.threshold: 2 is out of range"),
], ids=["combine", "no subject", "AND", "not in the prompt", "negative", "threshold"])
def test_what_it_cannot_do_is_refused(tiny, loras, more, prompt, told):
    with pytest.raises(SciArtError, match=told):
        picture(tiny, loras, replace(SETTINGS, prompt=prompt), **more)
