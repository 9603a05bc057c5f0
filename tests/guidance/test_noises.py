"""The noise that a picture begins with: of several from its seed the one in which the subjects lie farthest apart."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from random_model import write_random_model

from sciart_ext.errors import SciArtError
from sciart_ext.guidance.noises import Glimpse, as_large, least_distance, noise_seed
from sciart_ext.influence.batches import in_batches
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.counterfactuals import run_sets
from sciart_ext.standalone.generate import Settings, generate_batch, load_loras
from sciart_ext.standalone.models import load_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings("a rocket and a robot", "noise", sampler="Euler", steps=3, cfg_scale=3, width=96, height=64)
LORAS = [{"name": "child", "weight": 0.6, "subject": "rocket", "trigger": "red"},
         {"name": "science", "weight": 0.6, "subject": "robot"}, {"name": "watercolor", "weight": 0.5}]
BOXES = [{**LORAS[0], "region": [0, 0, 0.5, 1]}, {**LORAS[1], "region": [0.5, 0, 1, 1]}]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder, loras = write_random_model(tmp_path_factory.mktemp("tiny"), levels=2)
    return load_pipeline(folder, device="cpu"), loras


def recipe_of(compose, noises, loras=LORAS):
    return parse_recipe({"loras": loras, "compose": compose, "guidance": {"noises": noises, "strength": 0}
                         if compose == "contrastive" else {"noises": noises}})


def made(tiny, compose, noises, seeds, loras=LORAS):
    recipe = recipe_of(compose, noises, loras)
    return generate_batch(tiny[0], recipe, SETTINGS, load_loras(recipe, tiny[1]), seeds)


def pixels(one):
    return np.asarray(one.image).astype(int)


def chosen(one):
    """The number of the noise that its infotext tells, from 0 on."""
    return int(re.search(r"SciArt noise: (\d+) of 3", one.infotext)[1]) - 1


def test_noises_of_one_seed_and_of_its_neighbours_are_others():
    seeds = {noise_seed(seed, number) for seed in range(100) for number in range(16)}
    assert len(seeds) == 1600 and all(0 <= seed < 2**32 for seed in seeds)
    assert noise_seed(7, 0) == 7 and noise_seed(2**40, 0) == 2**40


def test_the_distance_is_that_of_the_two_nearest_subjects():
    attention = torch.full((2, 3, 12, 12), 0.2)
    for image, corners in enumerate((((2, 2), (2, 9), (9, 2)), ((2, 2), (2, 5), (9, 9)))):
        for subject, (down, across) in enumerate(corners):
            attention[image, subject, down - 1:down + 2, across - 1:across + 2] = 0.5 + 0.1 * subject
    torch.testing.assert_close(least_distance(attention), torch.tensor([7.0, 3.0]))
    torch.testing.assert_close(least_distance(attention[:, :2]), torch.tensor([7.0, 3.0]))
    assert least_distance(attention[:, :1]).tolist() == [0, 0]
    assert least_distance(torch.ones(1, 2, 4, 4)).tolist() == [0]  # nothing is seen of either


def test_of_each_image_the_noise_is_taken_in_which_the_subjects_are_farther_apart():
    one, two = (Glimpse(torch.full((2, 1, 1, 1), float(k)), torch.tensor([[k == 1], [k == 1]]), torch.tensor(apart),
                        torch.full((2,), k)) for k, apart in ((0, [0.5, 0.1]), (1, [0.4, 0.2])))
    found = one.or_farther_apart(two)
    assert found.noise.tolist() == [0, 1] and found.attention.flatten().tolist() == [0.0, 1.0]
    assert found.alike.tolist() == [[False], [True]] and found.apart == pytest.approx([0.5, 0.2])


def test_another_noise_is_as_large_as_the_latents_are():
    unit, other = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    size = torch.tensor([3.0, 0.5]).view(-1, 1, 1, 1)
    torch.testing.assert_close(as_large(unit, other, unit * size), other * size)


@pytest.mark.parametrize("compose", ["masked", "contrastive"])
def test_the_picture_is_that_of_the_noise_that_its_infotext_tells(tiny, compose):
    seeds = [0, 1, 2, 3]
    several = made(tiny, compose, 3, seeds)
    numbers = [chosen(one) for one in several]
    assert len(set(numbers)) > 1, numbers
    expected = made(tiny, compose, 1, [noise_seed(seed, number) for seed, number in zip(seeds, numbers)])
    assert "SciArt noise" not in expected[0].infotext and not several[0].notes
    for one, its in zip(several, expected):
        assert np.abs(pixels(one) - pixels(its)).max() <= 2


def test_a_picture_is_the_same_alone_and_in_a_batch(tiny):
    seeds = [3, 4]
    for seed, one in zip(seeds, made(tiny, "masked", 3, seeds)):
        alone, = made(tiny, "masked", 3, [seed])
        assert chosen(alone) == chosen(one)
        assert np.abs(pixels(alone) - pixels(one)).max() <= 2


def batches(unet, most):
    """A list that gets the rows of each call of the UNet; where they are more than `most`, memory runs out."""
    seen = []

    def count(module, args):
        seen.append(len(args[0]))
        if len(args[0]) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    return seen, unet.conv_in.register_forward_pre_hook(count)


@pytest.mark.parametrize("compose", ["masked", "contrastive"])
def test_all_noises_are_looked_at_in_one_batch(tiny, compose):
    def calls(noises):
        seen, handle = batches(tiny[0].unet, 100)
        with handle:
            made(tiny, compose, noises, [3, 4])
        return seen

    one, three = calls(1), calls(3)
    ahead = len(one) - SETTINGS.steps
    assert len(three) == len(one) and three[ahead:] == one[ahead:]
    assert three[:ahead] == [3 * rows for rows in one[:ahead]] and max(three) == 12


def test_where_they_do_not_fit_in_memory_fewer_are_looked_at_at_once(tiny):
    expected = made(tiny, "masked", 3, [3, 4])
    seen, handle = batches(tiny[0].unet, 8)
    with handle:
        found = made(tiny, "masked", 3, [3, 4])
    assert seen.index(4) == seen.count(12) == 1  # what does not fit is tried once
    assert [chosen(one) for one in found] == [chosen(one) for one in expected]
    for one, its in zip(found, expected):
        assert np.abs(pixels(one) - pixels(its)).max() <= 2


def test_where_one_noise_does_not_fit_it_is_refused(tiny):
    _, handle = batches(tiny[0].unet, 1)
    with handle, pytest.raises(SciArtError, match=r"out of memory: 4 rows at once do not fit .*, 1 would"):
        made(tiny, "masked", 3, [3, 4])


@pytest.mark.parametrize("loras", [BOXES, LORAS[:1]], ids=["all have regions", "one subject"])
def test_where_there_is_nothing_to_choose_by_a_note_tells(tiny, loras):
    one, = made(tiny, "masked", 3, [1], loras)
    assert "SciArt noise" not in one.infotext
    assert any(note.startswith("guidance.noises: no effect here") for note in one.notes)
    assert np.array_equal(pixels(one), pixels(made(tiny, "masked", 1, [1], loras)[0]))


@pytest.mark.parametrize(("seed", "at_once"), [(0, 1), (1, 8)])
def test_counterfactuals_begin_with_the_noise_of_the_picture_with_all_loras(tiny, seed, at_once):
    recipe, settings = recipe_of("masked", 3), replace(SETTINGS, seed=seed)
    loras, runs = load_loras(recipe, tiny[1]), {}
    picture, = made(tiny, "masked", 3, [seed])
    run_sets(tiny[0], recipe, settings, loras, [0b111, 0b011], runs, at_once)
    run_sets(tiny[0], recipe, settings, loras, [0, 0b100, 0b111], runs, at_once)
    assert {run.noise for run in runs.values()} == {chosen(picture)}
    assert np.abs(runs[0b111].picture.astype(int) - pixels(picture)).max() <= 2
    begins = [run.trajectory[0] for run in runs.values()]
    for begin in begins:
        torch.testing.assert_close(begin, begins[0])


@pytest.mark.parametrize("at_once", [1, 8])
@pytest.mark.parametrize("seed", [1, 5])
def test_each_lora_alone_begins_with_that_noise_too(tiny, seed, at_once):
    """Though the question is not about the picture with all of them."""
    own = [LORAS[2], *LORAS[:2]]
    recipe, runs = recipe_of("masked", 3, own), {}
    run_sets(tiny[0], recipe, replace(SETTINGS, seed=seed), load_loras(recipe, tiny[1]), [0, 1, 2, 4], runs, at_once)
    picture, = made(tiny, "masked", 3, [seed], own)
    assert {run.noise for run in runs.values()} == {chosen(picture)} and runs.keys() == {0, 1, 2, 4, 7}


def test_a_way_that_looks_at_no_attention_says_so(tiny):
    recipe = parse_recipe({"loras": LORAS[:2], "compose": "contrastive",
                           "guidance": {"noises": 3, "strength": 0, "masks": False}})
    one, = generate_batch(tiny[0], recipe, SETTINGS, load_loras(recipe, tiny[1]), [1])
    assert any(note.startswith("guidance.noises: no effect here") for note in one.notes)
    recipe = parse_recipe({"loras": LORAS[2:], "guidance": {"noises": 3, "show": True}})
    one, = generate_batch(tiny[0], recipe, SETTINGS, load_loras(recipe, tiny[1]), [1])
    assert "guidance.noises, guidance.show: no effect with compose merge" in one.notes


def test_a_subject_that_has_no_place_is_told(tiny):
    whole = [{**LORAS[0], "region": [0, 0, 1, 1]}, LORAS[1]]
    told = "robot: found no place of its own in 1 of 1 pictures, where its LoRA does nothing"
    assert told in made(tiny, "masked", 1, [1], whole)[0].notes
    assert told not in made(tiny, "contrastive", 1, [1], whole)[0].notes
    assert not made(tiny, "masked", 1, [1])[0].notes


@pytest.mark.parametrize("noises", [0, 17, 1.5, True, "4", None])
def test_what_is_no_number_of_noises_is_refused(noises):
    with pytest.raises(SciArtError, match=r"guidance\.noises: expected a whole number from 1 to 16"):
        recipe_of("masked", noises)


def test_the_set_with_all_loras_is_made_first():
    asked = []
    in_batches(range(4), 1, lambda batch: asked.append(list(batch)) or dict.fromkeys(batch), {}, int)
    assert asked == [[3], [2], [1], [0]]
