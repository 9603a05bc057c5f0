"""Samplers and schedule types without a model: on data for which the best denoiser is known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from sciart_ext.errors import SciArtError
from sciart_ext.standalone.samplers import dpm_solver, making, ode, times, unipc
from sciart_ext.standalone.samplers.levels import Consistency, Exploding, Model, Predicted, Preserving, trained_alphas
from sciart_ext.standalone.samplers.making import make_sampling
from sciart_ext.standalone.samplers.names import AUTOMATIC, SAMPLERS, SCHEDULES, evenly_spaced, find, steps_run
from sciart_ext.standalone.samplers.noise import Noise
from sciart_ext.standalone.samplers.schedules import sigmas_of

MODEL = Model(trained_alphas())
MEAN, SPREAD = 0.7, 0.5
"""of the data, each number by itself: Gaussian, so that what the noise leads to is known exactly"""
SHAPE = (4, 48, 48)
pytestmark = pytest.mark.filterwarnings("ignore:Should have t[ab]")


def gaussian(x, sigma):
    """The best x₀: the mean of what may be under the noise."""
    return (SPREAD**2 * x + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)


def flowed(x, sigma, following):
    """Where the ODE takes x exactly."""
    return MEAN + (x - MEAN) * math.sqrt((SPREAD**2 + following**2) / (SPREAD**2 + sigma**2))


def run(evaluations, answer):
    """The end of a sampler that is sent answer(x, level), and the levels that it asked for."""
    found, levels = None, []
    while True:
        try:
            x, level = evaluations.send(found)
        except StopIteration as end:
            return end.value, levels
        levels.append(level)
        found = answer(x, level)


def noise_in(x, time):
    """ε of variance preserving latents."""
    alpha = float(MODEL.alphas[int(time)])
    clean = gaussian(x / alpha**0.5, ((1 - alpha) / alpha) ** 0.5)
    return (x - alpha**0.5 * clean) / (1 - alpha) ** 0.5


ANSWERS = {"DDIM CFG++": lambda x, time: (noise_in(x, time),) * 2, "LCM": lambda x, sigma: flowed(x, sigma, 0)}


def sampled(name, steps, seeds=(1,), schedule=AUTOMATIC):
    sampling = make_sampling(name, schedule, steps, MODEL)
    noise = Noise(seeds, SHAPE)
    answer = ANSWERS.get(name, noise_in if isinstance(sampling.levels, Preserving) else gaussian)
    return run(sampling.begin(noise.next(), noise), answer)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_leads_from_noise_to_the_data(name):
    found, _ = sampled(name, 120, schedule="Karras")
    assert abs(float(found.mean()) - MEAN) < 0.03 and float(found.std()) / SPREAD == pytest.approx(1, abs=0.03)


ORDERS = {
    "Euler": (ode.euler, 1, 1), "Heun": (ode.heun, 2, 2), "DPM2": (ode.dpm2, 2, 2),
    "DPM++ 2M": (dpm_solver.dpmpp_2m, 2, 2), "LMS": (ode.lms, 2, 4),  # its first step is Euler's
}


@pytest.mark.parametrize("name", ORDERS)
def test_a_deterministic_sampler_comes_as_close_as_its_order_says(name):
    sampler, least, most = ORDERS[name]
    start = torch.tensor([[[[11.0]]]]).double()
    errors = []
    for steps in (40, 80):
        sigmas = torch.linspace(math.log(10), math.log(0.3), steps + 1).double().exp().tolist()
        end, _ = run(sampler(start, sigmas), gaussian)
        errors.append(abs(float(end - flowed(start, 10, 0.3))))
    assert least - 0.35 < math.log2(errors[0] / errors[1]) < most + 0.35


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_step_of_dpm_solver_errs_as_its_order_says(order):
    start, errors = torch.tensor([[[[3.0]]]]).double(), []
    for length in (0.2, 0.1):
        following = 2 * math.exp(-length)
        end, _ = run(dpm_solver._solved(start, 2.0, following, order), gaussian)
        errors.append(abs(float(end[-1] - flowed(start, 2.0, following))))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order + 1, abs=0.3)


def test_lms_is_exact_for_cubic_slopes_once_it_has_four():
    sigmas = [5.0, 4.2, 3.1, 2.5, 1.4, 0.9, 0.2]
    ends = [run(ode.lms(torch.zeros(1), sigmas[:count]), lambda x, sigma: x - sigma * 4 * sigma**3)[0]
            for count in range(4, len(sigmas) + 1)]
    for (before, after), (sigma, following) in zip(pairwise(ends), pairwise(sigmas[3:])):
        assert float(after - before) == pytest.approx(following**4 - sigma**4, rel=1e-4)


@pytest.mark.parametrize("name", ["DDIM", "PLMS", "UniPC"])
def test_samplers_by_time_come_closer_with_more_steps(name):
    exact = None
    errors = []
    for steps in (10, 40):
        noise = Noise([1], SHAPE)
        unit = noise.next()
        if name == "UniPC":
            evaluations, last = unipc.unipc(unit, steps, MODEL.alphas), 0
        else:
            evaluations, last = making.BY_TIME[name](unit, evenly_spaced(steps), MODEL.alphas), 1
        end, levels = run(evaluations, noise_in_between)
        first, alpha = (float(MODEL.alphas[int(time)]) for time in (levels[0], last))
        exact = flowed(unit / first**0.5, ((1 - first) / first) ** 0.5, ((1 - alpha) / alpha) ** 0.5) * alpha**0.5
        errors.append(float((end - exact).abs().mean()))
    assert errors[1] < errors[0] / 3


def noise_in_between(x, time):
    """ε at times between two that were trained."""
    (moment,) = unipc_moment(time)
    clean = gaussian(x / moment.alpha, moment.sigma / moment.alpha)
    return (x - moment.alpha * clean) / moment.sigma


def unipc_moment(time):
    return [min(unipc.moments_of(999, MODEL.alphas), key=lambda one: abs(one.time - time))]


def test_cfg_plus_plus_without_a_difference_is_ddim():
    unit = Noise([3], SHAPE).next()
    ours = [run(sampler(unit, evenly_spaced(9), MODEL.alphas), answer)[0] for sampler, answer in (
        (times.ddim, noise_in), (times.ddim_cfgpp, ANSWERS["DDIM CFG++"]))]
    assert torch.equal(*ours)


def test_the_adaptive_sampler_makes_its_steps_as_long_as_the_error_allows():
    _, levels = sampled("DPM adaptive", 10)
    assert len(levels) % 3 == 0 and levels[0] == pytest.approx(14.6146, abs=1e-3)
    lengths = [math.log(a / b) for a, b in pairwise(levels[::3]) if a > b]
    assert max(lengths) > 3 * min(lengths)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "DPM adaptive"])
@pytest.mark.parametrize("steps", [3, 8, 21, 40])
def test_evaluations_are_as_many_as_the_pattern_says(name, steps):
    sampling = make_sampling(name, AUTOMATIC, steps, MODEL)
    _, levels = sampled(name, steps)
    pattern = SAMPLERS[name].pattern
    expected = sampling.steps * pattern.per_step - (pattern.per_step - 1) + pattern.extra_in_first
    assert len(levels) == expected
    assert sampling.progress(0, levels[0]) == 0
    assert sampling.progress(len(levels) - 1, levels[-1]) == (1 if sampling.steps > 1 else 0)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "DPM adaptive"])
def test_a_picture_of_a_batch_is_the_one_that_its_seed_makes_alone(name):
    batch, _ = sampled(name, 6, seeds=(4, 9))
    alone, _ = sampled(name, 6, seeds=(9,))
    other, _ = sampled(name, 6, seeds=(4,))
    assert torch.allclose(batch[1:], alone, atol=1e-5) and not torch.allclose(alone, other, atol=0.1)


def test_what_is_changed_in_place_is_what_a_sampler_goes_on_from():
    def moved(x, sigma):
        if sigma == 4.0:
            x.add_(1.0)
        return torch.zeros_like(x)

    end, _ = run(ode.euler(torch.full((1,), 8.0), [8.0, 4.0, 2.0]), moved)
    assert float(end) == (8.0 / 2 + 1) / 2


def test_the_noise_that_pictures_begin_with_is_left_as_it_is():
    noise = Noise([1], SHAPE)
    unit = noise.next()
    before = unit.clone()
    for name in ("DDIM", "Euler"):
        run(make_sampling(name, AUTOMATIC, 3, MODEL).begin(unit, noise), lambda x, level: x.mul_(2) * 0)
    assert torch.equal(unit, before)


def test_brownian_increments_are_of_one_motion():
    draw = Noise([1, 2], (1, 64, 64)).brownian([10.0, 3.0, 1.0, 0.0])
    whole, first, second = draw(10.0, 1.0), draw(10.0, 3.0), draw(3.0, 1.0)
    assert torch.allclose(whole * 9**0.5, first * 7**0.5 + second * 2**0.5, atol=1e-5)
    for one in (whole, first, second):
        assert float(one.std()) == pytest.approx(1, abs=0.03)
    assert not torch.allclose(whole[0], whole[1])


@pytest.mark.parametrize("kind", [Exploding, Consistency])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 11, 20])
def test_a_schedule_type_goes_down_from_much_noise_to_little(kind, schedule, steps):
    levels = kind(MODEL)
    sigmas = sigmas_of(schedule, steps, levels)
    assert all(a > b for a, b in pairwise(sigmas))
    end = levels.least if schedule == "KL Optimal" else 0
    assert sigmas[-1] == pytest.approx(end, rel=1e-5)
    assert len(sigmas) == steps + 1 or schedule == "DDIM"
    if steps > 1 and schedule not in ("DDIM", "Simple", "Align Your Steps"):
        assert sigmas[0] == pytest.approx(levels.largest, rel=1e-5)


def test_schedule_types_of_sdxl_are_its_own():
    levels = Exploding(MODEL)
    plain, xl = (sigmas_of("Align Your Steps", 11, levels, is_xl) for is_xl in (False, True))
    assert plain[1:4] == pytest.approx([6.475, 3.861, 2.697]) and xl[1:4] == pytest.approx([6.315, 3.771, 2.181])


@pytest.mark.parametrize("kind", [Exploding, Consistency])
def test_times_and_levels_are_inverse_where_the_model_was_trained(kind):
    levels = kind(MODEL)
    for sigma in levels.sigmas[::7].tolist():
        time = levels.time(sigma)
        assert time == pytest.approx(round(time), abs=1e-3)
        assert float(levels.sigmas_at(torch.tensor([time]))) == pytest.approx(sigma, rel=1e-4)


@pytest.mark.parametrize("kind", [Exploding, Preserving])
@pytest.mark.parametrize("level", [0, 400, 999])
def test_a_prediction_of_velocity_says_the_same_as_one_of_noise(kind, level):
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    alpha = float(MODEL.alphas[level])
    latents = clean * alpha**0.5 + noise * (1 - alpha) ** 0.5
    velocity = noise * alpha**0.5 - clean * (1 - alpha) ** 0.5
    levels = [kind(Model(trained_alphas(), name)) for name in ("epsilon", "v_prediction")]
    if kind is Exploding:
        level, latents = float(levels[0].sigmas[level]), latents / alpha**0.5
    of_noise, of_velocity = (one.found(Predicted(found, found), latents, level)
                             for one, found in zip(levels, (noise, velocity)))
    assert torch.allclose(of_noise, of_velocity, atol=1e-4)
    assert torch.allclose(of_noise, clean if kind is Exploding else noise, atol=1e-4)


def test_a_model_trained_to_no_signal_has_a_finite_level():
    alphas = trained_alphas()
    alphas[-1] = 0
    assert 4000 < Exploding(Model(alphas, "v_prediction")).largest < 5000


def test_a_model_that_predicts_something_else_is_refused():
    with pytest.raises(SciArtError, match="accepted: epsilon, v_prediction"):
        Model(trained_alphas(), "sample")


@pytest.mark.parametrize(("sampler", "schedule", "expected"), [
    ("DPM++ 2M", "Automatic", ("DPM++ 2M", "Karras")), ("DPM++ 2M Karras", "Automatic", ("DPM++ 2M", "Karras")),
    ("DPM++ 2M", "Uniform", ("DPM++ 2M", "Uniform")), ("euler", "automatic", ("Euler", "Automatic")),
    ("k_euler_a", "SGMUniform", ("Euler a", "SGM Uniform")),
    ("dpm++ 2m sde heun", "BETA", ("DPM++ 2M SDE Heun", "Beta")),
    ("DPM++ 2M SDE", "Automatic", ("DPM++ 2M SDE", "Exponential")), ("DDIM", "Automatic", ("DDIM", "Automatic")),
    ("Euler DDIM", "Karras", ("Euler", "DDIM")), ("LMS sgm_uniform", "Automatic", ("LMS", "SGM Uniform")),
    ("Restart Align Your Steps", "Automatic", ("Restart", "Align Your Steps")), ("LCM", "Simple", ("LCM", "Simple")),
    ("DPM++ 3M SDE Polyexponential", "Automatic", ("DPM++ 3M SDE", "Polyexponential")),
])
def test_names_are_the_hosts_or_their_aliases(sampler, schedule, expected):
    found, label = find(sampler, schedule)
    assert (found.name, label) == expected


@pytest.mark.parametrize(("sampler", "schedule", "field", "message"), [
    ("Eular", "Automatic", "sampler", "unknown sampler 'Eular'; did you mean 'Euler'? accepted: DDIM, DDIM CFG++, "),
    ("DPM++ 2M Karas", "Automatic", "sampler", "unknown sampler 'DPM++ 2M Karas'; did you mean 'DPM++ 2"),
    ("", "Automatic", "sampler", "unknown sampler ''; accepted: "),
    ("Karras", "Automatic", "sampler", "unknown sampler 'Karras'; "),
    ("Euler", "Karas", "scheduler", "unknown schedule type 'Karas'; did you mean 'Karras'? accepted: Align Your "),
])
def test_unknown_names_are_refused_with_all_that_there_are(sampler, schedule, field, message):
    with pytest.raises(SciArtError) as caught:
        find(sampler, schedule)
    assert caught.value.field == field and caught.value.message.startswith(message)
    names = SAMPLERS if field == "sampler" else SCHEDULES
    assert caught.value.message.count(", ") == len(names) - 1


def test_every_sampler_of_the_list_can_be_made():
    made = {*making.BY_SIGMA, *making.BY_SIGMA_WITH_NOISE, *making.BY_SIGMA_WITH_BROWNIAN, *making.BY_TIME}
    assert made | {"DPM fast", "DPM adaptive", "UniPC"} == set(SAMPLERS) and len(SAMPLERS) == 20


@pytest.mark.parametrize(("sampler", "steps", "expected"), [
    ("Euler", 1, 1), ("DPM2", 7, 7), ("DDIM", 20, 19), ("DDIM", 7, 7), ("PLMS", 12, 12), ("UniPC", 20, 20),
    ("UniPC", 3, 4), ("DDIM CFG++", 600, 999),
])
def test_samplers_by_time_run_as_many_steps_as_fit(sampler, steps, expected):
    assert steps_run(SAMPLERS[sampler], steps) == expected


@pytest.mark.parametrize(("sampler", "steps"), [("DDIM", 1), ("PLMS", 1), ("DDIM CFG++", 1), ("UniPC", 2)])
def test_too_few_steps_are_refused(sampler, steps):
    with pytest.raises(SciArtError, match=f"steps: {steps} is too few for .*; accepted: {steps + 1} or more"):
        make_sampling(sampler, AUTOMATIC, steps, MODEL)


@pytest.mark.parametrize("sampler", ["DDIM", "PLMS", "UniPC", "DPM fast", "DPM adaptive"])
def test_a_schedule_type_that_does_nothing_is_noted(sampler):
    assert make_sampling(sampler, AUTOMATIC, 5, MODEL).notes == ()
    assert make_sampling(sampler, "Karras", 5, MODEL).notes == (f"scheduler Karras: {sampler} spaces its steps itself",)


@pytest.mark.parametrize(("steps", "restarts"), [(19, 0), (20, 1), (35, 1), (36, 2)])
def test_restart_goes_back_up_as_often_as_its_steps_allow(steps, restarts):
    sigmas = sigmas_of("Karras", steps, Exploding(MODEL))
    levels = list(ode.restart_levels(sigmas))
    assert len(levels) == steps
    assert sum(after > before for (_, before), (after, _) in pairwise(levels)) == restarts
