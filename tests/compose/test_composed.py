"""Composed pictures on diffusers: what a plain loop over pipelines with merged LoRAs gives, and what is left behind."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from diffusers import EulerDiscreteScheduler
from pngs import as_data_url, halves
from random_model import write_random_model
from safetensors.torch import load_file

from sciart_ext.errors import SciArtError
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.counterfactuals import run_sets
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.infotext import parse_infotext
from sciart_ext.standalone.models import load_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings("a rocket and a robot", "noise", steps=4, seed=5, cfg_scale=3, width=96, height=64, sampler="Euler")
WEIGHTS = {"child": 0.6, "watercolor": 0.5, "science": 0.7}
LORAS = [{"name": name, "weight": weight} for name, weight in WEIGHTS.items()]
HALVES = [{**LORAS[0], "region": [0, 0, 0.5, 1]}, {**LORAS[1], "region": [0.5, 0, 1, 1]}, LORAS[2]]
SAMPLED = [("switch", "Euler"), ("switch", "Heun"), ("composite", "DPM++ 2M"), ("composite", "DPM++ SDE"),
           ("spatial", "Euler a"), ("spatial", "UniPC"), ("regions", "Heun"), ("regions", "Euler")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder, loras = write_random_model(tmp_path_factory.mktemp("tiny"), levels=2)
    return load_pipeline(folder, device="cpu"), loras


@pytest.fixture(scope="module")
def in_halves(tiny):
    """A picture that several tests look at."""
    return composed(tiny, "regions", HALVES)


@pytest.fixture(scope="module")
def merge_of_one(tiny):
    return composed(tiny, "merge", LORAS[:1])


def composed(tiny, compose, loras=LORAS, settings=SETTINGS, **composition):
    recipe = parse_recipe({"loras": loras, "compose": compose, "composition": composition})
    return generate(tiny[0], recipe, settings, load_loras(recipe, tiny[1]))


def pixels(picture):
    return np.asarray(picture.image).astype(int)


def differs(a, b):
    return np.abs(pixels(a) - pixels(b)).mean()


def merged(module, prefix, folder, weights):
    """A copy of a model with LoRAs added to its weights."""
    module = copy.deepcopy(module)
    for name, weight in weights.items():
        tensors = load_file(folder / f"{name}.safetensors")
        for path, layer in module.named_modules():
            stem = prefix + path.replace(".", "_")
            if f"{stem}.alpha" in tensors:
                down, up = (tensors[f"{stem}.lora_{part}.weight"].float() for part in ("down", "up"))
                delta = float(tensors[f"{stem}.alpha"]) / len(down) * (up.flatten(1) @ down.flatten(1))
                layer.weight.data += weight * delta.view_as(layer.weight)
    return module


def encoded(tiny, text, weights):
    pipe, folder = tiny
    whole = hasattr(pipe.text_encoder, "text_model")  # as before transformers 5
    encoder = merged(pipe.text_encoder, "lora_te_" if whole else "lora_te_text_model_", folder, weights)
    ids = pipe.tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    return encoder(ids)[0]


class Loop:
    """Denoising as one would write it: the UNet with LoRAs in its weights, called for one row after another."""

    def __init__(self, tiny, encode_with, settings=SETTINGS):
        self.tiny, self.settings = tiny, settings
        self.unets = {}
        self.texts = [encoded(tiny, text, encode_with) for text in (SETTINGS.prompt, SETTINGS.negative_prompt)]

    def unet(self, names):
        if names not in self.unets:
            self.unets[names] = merged(self.tiny[0].unet, "lora_unet_", self.tiny[1],
                                       {name: WEIGHTS[name] for name in names})
        return self.unets[names]

    def both(self, latents, time, names, texts=None):
        """What the LoRAs of these names predict with the prompt and without."""
        return [self.unet(tuple(names))(latents, time, text).sample for text in texts or self.texts]

    @torch.no_grad()
    def picture(self, predict):
        """predict(step, the model's input, time) → the predictions with and without the prompt."""
        pipe = self.tiny[0]
        scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="linspace")
        scheduler.set_timesteps(self.settings.steps)
        latents = torch.randn(1, 4, SETTINGS.height // 8, SETTINGS.width // 8,
                              generator=torch.Generator().manual_seed(SETTINGS.seed)) * scheduler.init_noise_sigma
        for step, time in enumerate(scheduler.timesteps):
            cond, uncond = predict(step, scheduler.scale_model_input(latents, time), time)
            latents = scheduler.step(uncond + SETTINGS.cfg_scale * (cond - uncond), time, latents).prev_sample
        decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
        return np.asarray(pipe.image_processor.postprocess(decoded, output_type="pil")[0]).astype(int)


def assert_same(picture, expected):
    assert np.abs(pixels(picture) - expected).max() <= 2


def test_switch_is_a_loop_that_changes_the_lora_after_every_so_many_steps(tiny):
    settings = replace(SETTINGS, steps=8)
    loop = Loop(tiny, {"child": WEIGHTS["child"]}, settings)
    order = ["child", "child", "child", "watercolor", "watercolor", "science", "science", "child"]
    expected = loop.picture(lambda step, latents, time: loop.both(latents, time, [order[step]]))
    switched = composed(tiny, "switch", settings=settings, period=2)
    assert_same(switched, expected)
    assert differs(switched, composed(tiny, "merge", settings=settings)) > 1


def test_composite_is_a_loop_that_averages_over_the_loras(tiny):
    loop = Loop(tiny, WEIGHTS)

    def predict(step, latents, time):
        each = [loop.both(latents, time, [name]) for name in WEIGHTS]
        return [torch.stack(of).mean(0) for of in zip(*each)]

    assert_same(composed(tiny, "composite"), loop.picture(predict))


def test_spatial_is_a_loop_that_weighs_every_patch_by_its_distance_from_the_base_model(tiny):
    texts = {name: [encoded(tiny, text, {name: WEIGHTS[name]} if name else {})
                    for text in (SETTINGS.prompt, SETTINGS.negative_prompt)] for name in (None, *WEIGHTS)}
    loop = Loop(tiny, {})
    alphas = tiny[0].scheduler.alphas_cumprod

    def predict(step, latents, time):
        each = [loop.both(latents, time, [name] if name else [], texts[name]) for name in (None, *WEIGHTS)]
        noise = [alphas[int(time)]**0.5 * cond + (1 - alphas[int(time)])**0.5 * latents for cond, _ in each]  # of v
        height, width = latents.shape[-2:]
        shares = torch.zeros(len(WEIGHTS), height, width)
        for y in range(0, height, 2):
            for x in range(0, width, 2):
                of = [one[0, :, y:y + 2, x:x + 2].flatten() for one in noise]
                distance = torch.stack([1 - F.cosine_similarity(one, of[0], dim=0) for one in of[1:]])
                shares[:, y:y + 2, x:x + 2] = (distance / 0.05).softmax(0)[:, None, None]
        cond, uncond = (sum(share * one[part] for share, one in zip(shares, each[1:])) for part in (0, 1))
        return cond, 0.5 * each[0][1] + 0.5 * uncond

    expected = loop.picture(predict)
    assert_same(composed(tiny, "spatial", temperature=0.05), expected)
    assert np.abs(pixels(composed(tiny, "spatial", temperature=50)) - expected).max() > 5


def test_regions_are_a_loop_that_puts_predictions_side_by_side(tiny, in_halves):
    rows = {"left": ["child", "science"], "right": ["watercolor", "science"]}
    texts = {name: [encoded(tiny, text, {one: WEIGHTS[one] for one in names})
                    for text in (SETTINGS.prompt, SETTINGS.negative_prompt)] for name, names in rows.items()}
    loop = Loop(tiny, {})

    def predict(step, latents, time):
        left, right = (loop.both(latents, time, rows[name], texts[name]) for name in rows)
        half = latents.shape[-1] // 2
        return [torch.cat([a[..., :half], b[..., half:]], -1) for a, b in zip(left, right)]

    assert_same(in_halves, loop.picture(predict))


def test_a_mask_picture_of_a_box_is_that_box(tiny, in_halves):
    drawn = [{**HALVES[0], "region": as_data_url(halves(16, 24))}, *HALVES[1:]]
    assert_same(composed(tiny, "regions", drawn), pixels(in_halves))
    turned = [{**HALVES[0], "region": as_data_url(255 - halves(16, 24))}, *HALVES[1:]]
    assert differs(composed(tiny, "regions", turned), in_halves) > 1


def test_a_feather_softens_the_edge_between_regions(tiny, in_halves):
    assert differs(in_halves, composed(tiny, "regions", HALVES, feather=0.5)) > 0.1


@pytest.mark.parametrize("compose", ["composite", "spatial", "regions", "switch"])
def test_one_lora_everywhere_is_merge(tiny, merge_of_one, compose):
    one = [{**LORAS[0], "region": [0, 0, 1, 1]}] if compose == "regions" else LORAS[:1]
    found = composed(tiny, compose, one, **({"recenter": 0} if compose == "spatial" else {}))
    assert_same(found, pixels(merge_of_one))


@pytest.mark.parametrize(("compose", "sampler"), SAMPLED)
def test_it_works_with_every_sampler(tiny, compose, sampler):
    settings = replace(SETTINGS, steps=3, width=64, sampler=sampler)
    found = composed(tiny, compose, HALVES if compose == "regions" else LORAS, settings,
                     **({"period": 1} if compose == "switch" else {}))
    assert differs(found, composed(tiny, "merge", LORAS, settings)) > 0.1


@pytest.mark.parametrize("compose", ["composite", "spatial", "regions"])
def test_without_cfg_there_are_no_negative_rows(tiny, compose):
    loras, settings = HALVES if compose == "regions" else LORAS, replace(SETTINGS, cfg_scale=1, steps=2, width=64)
    first = composed(tiny, compose, loras, settings)
    assert np.array_equal(pixels(first), pixels(composed(tiny, compose, loras, replace(settings, negative_prompt=""))))
    assert differs(first, composed(tiny, "merge", loras=LORAS, settings=settings)) > 0.1


@pytest.mark.parametrize("compose", ["switch", "composite", "spatial", "regions"])
def test_it_repeats_and_leaves_the_pipeline_as_it_was(tiny, compose):
    before = {name: tensor.clone() for name, tensor in tiny[0].unet.state_dict().items()}
    loras, settings = HALVES if compose == "regions" else LORAS, replace(SETTINGS, steps=2, width=64)
    first, again = (composed(tiny, compose, loras, settings) for _ in range(2))
    assert np.array_equal(pixels(first), pixels(again))
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny[0].unet.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny[0].unet.modules())


@pytest.mark.parametrize("compose", ["switch", "composite", "spatial", "regions"])
def test_counterfactuals_are_the_pictures_with_the_other_loras_at_zero(tiny, compose):
    loras, settings = HALVES if compose == "regions" else LORAS, replace(SETTINGS, steps=3, width=64)
    composition = {"period": 1} if compose == "switch" else {}
    recipe = parse_recipe({"loras": loras, "compose": compose, "composition": composition})
    runs = {}
    run_sets(tiny[0], recipe, settings, load_loras(recipe, tiny[1]), (0, 1, 5, 7), runs)
    for one in (0, 1, 5, 7):
        kept = [lora if one >> k & 1 else {**lora, "weight": 0} for k, lora in enumerate(loras)]
        assert np.abs(pixels(composed(tiny, compose, kept, settings, **composition)) - runs[one].picture).max() <= 2
    assert np.abs(runs[7].picture.astype(int) - runs[0].picture).mean() > 1


def test_words_are_seen_where_the_loras_rows_look(tiny):
    recipe = parse_recipe({"loras": LORAS[:2], "compose": "composite"})
    settings, runs = replace(SETTINGS, steps=1, width=64), {}
    run_sets(tiny[0], recipe, settings, load_loras(recipe, tiny[1]), [3], runs, words=["rocket"])
    each = []
    for k in (0, 1):
        alone = {}
        entries = [{**lora, "weight": lora["weight"] if k == i else 0, "te_weight": lora["weight"]}
                   for i, lora in enumerate(LORAS[:2])]
        one = parse_recipe({"loras": entries})
        run_sets(tiny[0], one, settings, load_loras(one, tiny[1]), [3], alone, words=["rocket"])
        each.append(alone[3].words)
    assert torch.allclose(runs[3].words, (each[0] + each[1]) / 2, atol=1e-6)
    assert not torch.allclose(each[0], each[1], atol=1e-4)


def test_rows_that_do_not_fit_in_memory_are_refused_with_what_does(tiny):
    def check(module, args):
        if len(args[0]) > 3:
            torch.empty(1 << 55, dtype=torch.uint8)

    settings = replace(SETTINGS, steps=1, width=64)
    before = pixels(composed(tiny, "composite", settings=settings))
    with tiny[0].unet.conv_in.register_forward_pre_hook(check), pytest.raises(SciArtError) as refused:
        composed(tiny, "composite", settings=settings)
    assert str(refused.value) == ("compose: out of memory: 6 rows at once do not fit, 3 would; accepted: compose "
                                  "merge, a smaller picture")
    assert np.array_equal(pixels(composed(tiny, "composite", settings=settings)), before)


def test_settings_that_change_nothing_are_noted_and_all_are_in_the_infotext(tiny):
    picture = composed(tiny, "switch", [{**HALVES[0], "subject": "rocket"}, *LORAS[1:]], period=3,
                       feather=0.1, patch=4)
    assert ("composition.patch, composition.feather, loras[0].region: no effect with compose switch"
            in picture.notes)
    recipe = parse_recipe(parse_infotext(picture.infotext)["SciArt"])
    assert recipe.compose == "switch" and recipe.composition.period == 3 and recipe.composition.feather == 0.1
    assert not composed(tiny, "regions", HALVES, replace(SETTINGS, steps=1), feather=0.1).notes
