"""Regions in the rows of a plain picture, on diffusers: equal to LoRAs that are merged, near to regions with rows of
their own, and nothing left behind."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from pngs import as_data_url, halves
from random_model import write_random_model

from sciart_ext.compose.ways import fusion_of
from sciart_ext.errors import SciArtError
from sciart_ext.recipe import compile_plan, parse_recipe
from sciart_ext.standalone.counterfactuals import run_sets
from sciart_ext.standalone.generate import (
    Settings,
    encode_rows,
    generate,
    generate_batch,
    load_loras,
    mixture_of,
    workload,
)
from sciart_ext.standalone.infotext import parse_infotext
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.standalone.sampling import Rows, Time
from sciart_ext.standalone.subjects import enter_regions
from sciart_ext.world import MODEL
from sciart_ext.world.oracle import Oracle

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings("a rocket and a robot", "noise", steps=3, seed=5, cfg_scale=3, width=96, height=64, sampler="Euler")
WHOLE, LEFT, RIGHT = [0, 0, 1, 1], [0, 0, 0.5, 1], [0.5, 0, 1, 1]
CHILD, SCIENCE = {"name": "child", "weight": 0.625}, {"name": "science", "weight": 0.75}
STYLE = {"name": "watercolor", "weight": 0.5}
HALVES = [{**CHILD, "region": LEFT}, {**SCIENCE, "region": RIGHT}, STYLE]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder, loras = write_random_model(tmp_path_factory.mktemp("tiny"), levels=2)
    return load_pipeline(folder, device="cpu"), loras


@pytest.fixture(scope="module")
def exact(tiny):
    """The same model in double precision."""
    pipe = copy.deepcopy(tiny[0])
    pipe.unet.double(), pipe.text_encoder.double()
    return pipe, tiny[1]


def recipe_of(loras, compose="regions", **composition):
    rows = {"rows": "one"} if compose == "regions" else {}
    return parse_recipe({"loras": loras, "compose": compose, "composition": {**rows, **composition}})


def everywhere(loras):
    """The same without their regions."""
    return [{field: value for field, value in lora.items() if field != "region"} for lora in loras]


def picture(tiny, loras, settings=SETTINGS, compose="regions", **more):
    recipe = recipe_of(loras, compose, **more)
    return generate(tiny[0], recipe, settings, load_loras(recipe, tiny[1]))


def pixels(made):
    return np.asarray(made.image).astype(int)


@torch.no_grad()
def predicted(model, loras, compose="regions", **composition):
    """One evaluation's prediction after CFG (1, 4, h, w), of the same latents in every call."""
    pipe, folder = model
    recipe = recipe_of(loras, compose, **composition)
    plan = compile_plan(recipe, 1).first
    mixture = mixture_of(pipe, recipe, plan, load_loras(recipe, folder), "tiny")
    called = Rows(pipe, mixture.unet, plan, encode_rows(pipe, SETTINGS, plan, mixture), SETTINGS.cfg_scale, (96, 64))
    latents = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mixture.unet.choose(workload(called, 1, latents.shape))
    with called.acting(), ExitStack() as stack:
        enter_regions(stack, pipe, called, recipe, latents.shape)
        return called.predict(latents, Time(500, torch.tensor(500)), 0.0, fusion_of(plan, recipe.composition)).guided


def grey(value):
    """A mask that is the same all over the picture."""
    return as_data_url(np.full((8, 8), value, np.uint8))


@pytest.mark.parametrize("others", [[], [STYLE]], ids=["alone", "beside a style"])
def test_a_region_over_the_whole_picture_is_the_lora_everywhere(exact, others):
    merged = predicted(exact, [CHILD, *others], "merge")
    made = predicted(exact, [{**CHILD, "region": WHOLE}, *others])
    assert torch.allclose(made, merged, rtol=1e-9, atol=1e-11)
    assert (made - predicted(exact, [dict(CHILD, weight=0.0), *others], "merge")).abs().max() > 1e-3


def test_regions_of_no_weight_are_the_base_model(exact):
    nothing = [dict(lora, weight=0.0) for lora in HALVES]
    base = predicted(exact, everywhere(nothing), "merge")
    assert torch.allclose(predicted(exact, nothing), base, rtol=1e-9, atol=1e-11)


def test_where_regions_are_alike_all_over_the_picture_both_kinds_of_rows_are_the_same_to_first_order(exact):
    """They part by the square of the weights: a tenth of those, a hundredth of what they part by."""
    def parted(scale):
        loras = [{"name": "child", "weight": 0.2 * scale, "region": grey(170)},  # 2/3 and 1, which share
                 {"name": "science", "weight": 0.3 * scale, "region": WHOLE}, {"name": "watercolor", "weight": 0.1}]
        own, one = predicted(exact, loras, rows="own"), predicted(exact, loras)
        base = predicted(exact, [dict(lora, weight=lora["weight"] if lora["name"] == "watercolor" else 0)
                                 for lora in loras])
        return (one - own).norm().item(), (own - base).norm().item()

    (far, _), (near, changed) = parted(0.1), parted(0.01)
    assert 0.005 * far < near < 0.02 * far and near < 0.1 * changed


def test_a_faint_mask_is_a_lora_of_as_little_weight_to_first_order(exact):
    def parted(scale):
        faint = predicted(exact, [{**CHILD, "weight": scale, "region": grey(51)}])
        weak = predicted(exact, [{**CHILD, "weight": scale / 5}], "merge")
        return (faint - weak).norm().item()

    assert parted(0.01) < 0.02 * parted(0.1)


def test_the_model_is_called_with_the_rows_of_a_plain_picture(tiny):
    called = []
    with tiny[0].unet.register_forward_pre_hook(lambda module, args: called.append(len(args[0]))):
        picture(tiny, HALVES, rows="one")
        picture(tiny, HALVES, rows="own")
    assert called == [2] * SETTINGS.steps + [6] * SETTINGS.steps


def test_each_individual_is_in_its_own_place():
    """The trained model, whose oracle says where who is."""
    settings, seeds = replace(SETTINGS, steps=12, cfg_scale=6, width=128, height=128), range(6)
    names, words = ("red-striped-rocket", "yellow-visor-robot"), ("a red striped rocket and a yellow visor robot")
    pipe, oracle = load_pipeline(MODEL, device="cpu"), Oracle.load()
    for sides in ((LEFT, RIGHT), (RIGHT, LEFT)):
        recipe = recipe_of([{"name": name, "weight": 1.0, "region": side} for name, side in zip(names, sides)])
        made = generate_batch(pipe, recipe, replace(settings, prompt=words), load_loras(recipe, MODEL / "loras"),
                              list(seeds))
        readings = oracle.read(np.stack([np.asarray(one.image.convert("RGB")) for one in made]))
        seen = [side[0] <= (one.box[0] + one.box[2]) / 256 <= side[2] for reading in readings
                for one in reading.objects for name, side in zip(names, sides)
                if one.individual == name.replace("-", " ")]
        assert all(seen) and len(seen) >= 8, (sides, seen)


def test_a_mask_picture_of_a_box_is_that_box(tiny):
    drawn = [{**HALVES[0], "region": as_data_url(halves(16, 24))}, *HALVES[1:]]
    boxed = pixels(picture(tiny, HALVES))
    assert np.abs(pixels(picture(tiny, drawn)) - boxed).max() <= 2
    turned = [{**HALVES[0], "region": as_data_url(255 - halves(16, 24))}, *HALVES[1:]]
    assert np.abs(pixels(picture(tiny, turned)) - boxed).mean() > 1


@pytest.mark.parametrize("rows", ["one", "own"])
def test_a_feather_softens_the_edges_of_boxes_and_pictures(tiny, rows):
    drawn = [{**HALVES[0], "region": as_data_url(halves(16, 24))}, *HALVES[1:]]
    for loras in (HALVES, drawn):
        hard, soft = (pixels(picture(tiny, loras, rows=rows, feather=feather)) for feather in (0.0, 0.5))
        assert np.abs(hard - soft).mean() > 0.1
    assert np.abs(pixels(picture(tiny, drawn, rows=rows, feather=0.5))
                  - pixels(picture(tiny, HALVES, rows=rows, feather=0.5))).max() <= 2


def test_a_picture_does_not_depend_on_its_batch(tiny):
    recipe = recipe_of(HALVES)
    loras = load_loras(recipe, tiny[1])
    for seed, one in zip((5, 9, 6), generate_batch(tiny[0], recipe, SETTINGS, loras, [5, 9, 6])):
        single = generate(tiny[0], recipe, replace(SETTINGS, seed=seed), loras)
        assert np.abs(pixels(one) - pixels(single)).max() <= 2


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ SDE", "Heun", "DDIM", "UniPC", "DPM adaptive"])
def test_it_works_with_every_kind_of_sampler(tiny, sampler):
    settings = replace(SETTINGS, sampler=sampler, width=64)
    made = pixels(picture(tiny, HALVES, settings))
    assert np.abs(made - pixels(picture(tiny, [dict(lora, weight=0.0) for lora in HALVES], settings))).mean() > 0.1
    if sampler != "DPM adaptive":  # whose steps follow from what is rounded
        whole = pixels(picture(tiny, [{**CHILD, "region": WHOLE}], settings))
        assert np.abs(whole - pixels(picture(tiny, [CHILD], settings, "merge"))).max() <= 2


@pytest.mark.parametrize("prompt", ["a [rocket:robot:0.5]", "a rocket" + " sky" * 90])
@pytest.mark.parametrize("cfg_scale", [1, 3])
def test_prompts_that_change_or_are_long_are_read_as_with_the_lora_everywhere(tiny, prompt, cfg_scale):
    settings = replace(SETTINGS, prompt=prompt, cfg_scale=cfg_scale)
    scheduled = {"name": "child", "schedule": [[0, 0.1], [1, 1]]}
    expected = pixels(picture(tiny, [scheduled, STYLE], settings, "merge"))
    assert np.abs(pixels(picture(tiny, [{**scheduled, "region": WHOLE}, STYLE], settings)) - expected).max() <= 2


def test_in_one_prompt_alone_it_is_the_lora_in_that_prompt(tiny):
    for side in ("cond", "uncond"):
        lora = {**CHILD, "apply_to": side}
        made = pixels(picture(tiny, [{**lora, "region": WHOLE}]))
        assert np.abs(made - pixels(picture(tiny, [lora], compose="merge"))).max() <= 2


def test_nothing_is_left_on_the_model(tiny):
    def state():
        hooks = [(len(module._forward_hooks), len(module._forward_pre_hooks), set(vars(module)))
                 for module in tiny[0].unet.modules()]
        return hooks, [(id(one), one._version, one.sum().item()) for one in tiny[0].unet.parameters()]

    before = state()
    picture(tiny, HALVES)
    assert state() == before


def test_what_each_lora_did_is_found_by_leaving_it_out(tiny):
    settings, recipe, runs = replace(SETTINGS, width=64), recipe_of(HALVES), {}
    run_sets(tiny[0], recipe, settings, load_loras(recipe, tiny[1]), [0, 5, 7], runs, words=["rocket"])
    for one in (0, 5, 7):
        kept = [lora if one >> k & 1 else {**lora, "weight": 0} for k, lora in enumerate(HALVES)]
        assert np.abs(pixels(picture(tiny, kept, settings)) - runs[one].picture).max() <= 2
    assert np.abs(runs[7].picture.astype(int) - runs[0].picture).mean() > 1


def test_what_does_not_fit_in_memory_is_refused_with_what_would(tiny):
    def too_much(module, args):
        if len(args[0]) > 1:
            raise RuntimeError("out of memory")

    with tiny[0].unet.conv_in.register_forward_pre_hook(too_much), \
            pytest.raises(SciArtError, match=r"out of memory: 2 rows at once do not fit.+1 would"):
        picture(tiny, HALVES)


def test_it_is_in_the_infotext_and_noted_where_it_changes_nothing(tiny):
    settings = replace(SETTINGS, steps=1, width=64)
    made = picture(tiny, HALVES, settings, feather=0.1)
    assert not made.notes
    recipe = parse_recipe(parse_infotext(made.infotext)["SciArt"])
    assert (recipe.composition.rows, recipe.composition.feather) == ("one", 0.1)
    assert "composition.rows: no effect with compose composite" in picture(
        tiny, [CHILD, STYLE], settings, "composite", **{"rows": "one"}).notes


@pytest.mark.parametrize(("loras", "more", "prompt", "told"), [
    (HALVES, {"combine": "ties"}, SETTINGS.prompt, r"combine: ties joins whole deltas.+composition.rows one: linear"),
    ([STYLE], {}, SETTINGS.prompt, r"loras\[0\].region: missing; compose regions needs a LoRA with a region"),
    (HALVES, {}, "a rocket AND a robot", r"compose: regions does not work with AND"),
    (HALVES, {"composition": {"rows": "two"}}, SETTINGS.prompt,
     r"composition.rows: unknown value; accepted: 'own', 'one'"),
], ids=["combine", "no region", "AND", "rows"])
def test_what_it_cannot_do_is_refused(tiny, loras, more, prompt, told):
    with pytest.raises(SciArtError, match=told):
        recipe = parse_recipe({"loras": loras, "compose": "regions", "composition": {"rows": "one"}, **more})
        generate(tiny[0], recipe, replace(SETTINGS, prompt=prompt), load_loras(recipe, tiny[1]))
