"""Counterfactual runs: each set of LoRAs as it would have come alone, split, resumed and cancelled."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from random_model import write_random_model

from sciart_ext.errors import SciArtError
from sciart_ext.influence.analysis import analyse
from sciart_ext.influence.shapley import exact_shares
from sciart_ext.influence.subsets import Question, ask
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.counterfactuals import run_sets
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings("a rocket and a robot", "noise", steps=3, seed=5, cfg_scale=3, width=64, height=64)
LORAS = [{"name": "child", "schedule": [[0, 0.2], [0.5, 0.8]]}, {"name": "watercolor", "weight": 0.6},
         {"name": "science", "weight": 0.5, "apply_to": "cond"}]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder, loras = write_random_model(tmp_path_factory.mktemp("tiny"), levels=2)
    return load_pipeline(folder, device="cpu"), loras


def made(tiny, sets=range(8), loras=LORAS, settings=SETTINGS, runs=None, **options):
    recipe = parse_recipe({"loras": loras, **options.pop("recipe", {})})
    runs = {} if runs is None else runs
    run_sets(tiny[0], recipe, settings, load_loras(recipe, tiny[1]), sets, runs, **options)
    return runs


@pytest.fixture(scope="module")
def all_runs(tiny):
    """Those of every set, not to be changed."""
    return made(tiny)


def alone(tiny, one, settings=SETTINGS, loras=LORAS, **recipe):
    kept = [lora for k, lora in enumerate(loras) if one >> k & 1]
    recipe = parse_recipe({"enabled": bool(kept), "loras": kept, **recipe})
    return np.asarray(generate(tiny[0], recipe, settings, load_loras(recipe, tiny[1])).image)


@pytest.mark.parametrize("sampler", ["Euler a", "Heun", "DPM++ 2M SDE", "DPM++ SDE", "LCM", "DDIM CFG++", "PLMS",
                                     "UniPC"])
def test_each_set_is_what_it_is_alone(tiny, sampler):
    settings = Settings("a rocket", "noise", steps=3, seed=5, cfg_scale=3, width=64, height=64, sampler=sampler)
    runs = made(tiny, [0, 1, 6, 7], settings=settings)
    for one, run in runs.items():
        expected = alone(tiny, one, settings).astype(int)
        assert np.abs(run.picture.astype(int) - expected).max() <= 2, f"set {one}"
    assert np.abs(runs[7].picture.astype(int) - runs[0].picture).mean() > 0.5


def test_sets_of_a_sampler_that_chooses_its_steps_have_trajectories_of_one_length():
    model = load_pipeline(MODEL, device="cpu"), MODEL / "loras"
    settings = replace(SETTINGS, sampler="DPM adaptive", cfg_scale=1, steps=4)
    runs = made(model, [0, 2], loras=LORAS[:2], settings=settings)
    assert {run.trajectory.shape for run in runs.values()} == {(5, 4, 8, 8)}
    assert torch.equal(runs[0].trajectory[0], runs[2].trajectory[0])
    assert not torch.equal(runs[0].trajectory[-1], runs[2].trajectory[-1])


def test_all_runs_begin_with_the_same_noise_and_end_with_their_picture(all_runs):
    first = torch.stack([run.trajectory[0] for run in all_runs.values()])
    assert (first == first[0]).all() and all_runs[7].trajectory.shape == (4, 4, 8, 8)
    last = torch.stack([run.trajectory[-1] for run in all_runs.values()])
    assert len(torch.unique(last.flatten(1), dim=0)) == 8


def test_shares_of_its_latents_sum_and_a_lora_of_weight_0_gets_exactly_nothing(tiny):
    runs = made(tiny, loras=[LORAS[0], {"name": "watercolor", "weight": 0}, LORAS[2]])
    shares = exact_shares(torch.stack([runs[one].trajectory for one in range(8)]))
    residual = shares.sum(0) - (runs[7].trajectory.double() - runs[0].trajectory.double())
    assert residual.abs().max() < 1e-12
    assert (shares[1] == 0).all() and shares[0].abs().max() > 0.01


def test_two_files_with_the_same_in_them_get_equal_shares(tiny, tmp_path):
    for name in ("child", "science"):
        shutil.copy(tiny[1] / f"{name}.safetensors", tmp_path)
    shutil.copy(tiny[1] / "child.safetensors", tmp_path / "twin.safetensors")
    loras = [{"name": name, "weight": 0.6} for name in ("child", "twin", "science")]
    runs = made((tiny[0], tmp_path), loras=loras)
    child, twin, science = exact_shares(torch.stack([runs[one].trajectory[-1] for one in range(8)]))
    assert (child - twin).abs().max() < 1e-4 * child.abs().max() < (child - science).abs().max()


def test_shares_of_six_are_estimated_from_half_the_pictures_and_hold_the_exact_ones(tiny, tmp_path):
    names = ["child", "watercolor", "science", "first", "second", "third"]
    for name, source in zip(names, ["child", "watercolor", "science"] * 2):
        shutil.copy(tiny[1] / f"{source}.safetensors", tmp_path / f"{name}.safetensors")
    loras = [{"name": name, "weight": 0.9 - 0.25 * k} for k, name in enumerate(names)]
    settings = Settings("a rocket", steps=1, seed=5, cfg_scale=3, width=64, height=64)
    question = ask(6)
    runs = made((tiny[0], tmp_path), question.sets, loras, settings)
    assert len(runs) == 32 and len(question.orders) == 12
    told = analyse(names, question, runs).shares
    made((tiny[0], tmp_path), range(64), loras, settings, runs)
    exact = analyse(names, Question(6, "all"), runs).shares
    assert told.residual < 1e-10 and float(told.parts.sum()) == pytest.approx(1) and told.orders == 12
    assert ((told.parts - exact.parts).abs() <= told.errors).all() and (told.errors > 0).all()
    assert (exact.errors == 0).all() and exact.orders is None


def test_batches_of_another_size_give_the_same(tiny, all_runs):
    split = made(tiny, at_once=3)
    for one in range(8):
        assert np.abs(all_runs[one].picture.astype(int) - split[one].picture).max() <= 2


@pytest.mark.parametrize("recipe", [{}, {"compose": "composite"}], ids=["merge", "composite"])
def test_pictures_that_do_not_fit_at_once_are_made_fewer_at_a_time_and_one_that_does_not_is_refused(tiny, recipe):
    settings = replace(SETTINGS, steps=1)
    whole = made(tiny, [0, 3, 7], settings=settings, recipe=recipe)

    def made_with(room):
        def check(module, args):
            if len(args[0]) > room:
                torch.empty(1 << 55, dtype=torch.uint8)
        with tiny[0].unet.conv_in.register_forward_pre_hook(check):
            return made(tiny, [0, 3, 7], settings=settings, recipe=recipe)

    each = 6 if recipe else 2
    for one, run in made_with(each).items():
        assert np.abs(run.picture.astype(int) - whole[one].picture).max() <= 2
    with pytest.raises(SciArtError, match=f"out of memory: {each} rows at once do not fit, 1 would; accepted: "):
        made_with(1)


def test_it_tells_its_progress_and_goes_on_where_it_was_cancelled(tiny):
    class Cancelled(Exception):
        pass

    told, runs = [], {}

    def report(done, of):
        told.append((done, of))
        if len(told) == 5:
            raise Cancelled

    before = {name: tensor.clone() for name, tensor in tiny[0].unet.state_dict().items()}
    with pytest.raises(Cancelled):
        made(tiny, runs=runs, at_once=4, on_step=report)
    assert told == [(4 * step, 24) for step in range(1, 6)] and sorted(runs) == [4, 5, 6, 7]
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny[0].unet.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny[0].unet.modules())
    kept, again = runs[5], []
    made(tiny, runs=runs, at_once=4, on_step=lambda done, of: again.append((done, of)))
    assert again == [(4 * step, 12) for step in range(1, 4)] and runs[5] is kept and sorted(runs) == list(range(8))


def test_a_steered_picture_without_one_of_its_subjects_and_without_its_style(tiny):
    loras = [{"name": "child", "weight": 0.6, "subject": "rocket"}, {"name": "science", "weight": 0.6,
             "subject": "robot"}, {"name": "watercolor", "weight": 0.5}]
    steering = {"compose": "contrastive", "guidance": {"strength": 100}}
    runs = made(tiny, [3, 5, 7], loras, recipe=steering)
    whole = alone(tiny, 7, loras=loras, **steering).astype(int)
    assert np.abs(runs[7].picture.astype(int) - whole).max() <= 2
    for one in (3, 5):
        assert np.abs(runs[one].picture.astype(int) - whole).mean() > 0.5
    unstyled = alone(tiny, 3, loras=loras, **steering).astype(int)
    assert np.abs(runs[3].picture.astype(int) - unstyled).max() <= 2
