"""Scheduled weights give the picture of a host whose own weights are changed at each step."""

from functools import partial

import numpy as np
import pytest
from pictures import assert_other_picture, assert_same_picture, end_schedule, tags, with_recipe
from server import HostServer

STEPS = 8
SETTINGS = {"steps": STEPS, "width": 128, "height": 128, "seed": 3}
SCHEDULES = {"child": [[0.0, 0.1], [1.0, 1.0]], "watercolor": [[0.25, 0.8], [0.75, 0.0]]}
TE_WEIGHT = 0.5


def scheduled(schedules: dict = SCHEDULES, **more) -> dict:
    return {"loras": [{"name": name, "schedule": points, "te_weight": TE_WEIGHT, **more}
                      for name, points in schedules.items()]}


def weights_over(steps: int, schedules: dict = SCHEDULES) -> dict[str, list[float]]:
    """By numpy's interpolation, independent of ours."""
    progress = np.arange(steps) / max(steps - 1, 1)
    return {name: np.interp(progress, *zip(*points)).tolist() for name, points in schedules.items()}


def by_the_host(host: HostServer, plan: dict, prompt: str = "a rocket", te: float = TE_WEIGHT, start=None, **payload):
    """The picture with the host's own LoRAs, their weights set at each step by the probe; `start`: img2img."""
    make = host.txt2img if start is None else partial(host.img2img, start)
    loras = tags(dict.fromkeys(SCHEDULES, 0.01), te=te)
    host.post("/probe/schedule", plan)
    try:
        return make(**{**SETTINGS, **payload, "prompt": f"{loras}{prompt}"})
    finally:
        end_schedule(host)


@pytest.mark.parametrize(("sampler", "steps_run", "pattern"), [
    ("Euler", STEPS, {}),
    ("Euler a", STEPS, {}),
    ("DPM++ 2M", STEPS, {}),
    ("DPM++ 2M SDE", STEPS, {}),
    ("Heun", STEPS, {"per_step": 2}),
    ("DPM++ SDE", STEPS, {"per_step": 2}),
    ("DPM++ 2S a", STEPS, {"per_step": 2}),
    ("DPM2", STEPS, {"per_step": 2}),
    # The host's timestep samplers run one step less than asked for; UniPC runs all, PLMS looks twice in its first.
    ("DDIM", STEPS - 1, {}),
    ("PLMS", STEPS - 1, {"extra_in_first": 1}),
    ("UniPC", STEPS, {}),
])
def test_a_schedule_follows_the_samplers_steps(host: HostServer, sampler, steps_run, pattern) -> None:
    own = by_the_host(host, {"weights": weights_over(steps_run), **pattern}, sampler_name=sampler)
    mixed = host.txt2img(**SETTINGS, sampler_name=sampler, **with_recipe(scheduled()))
    constant = host.txt2img(**SETTINGS, sampler_name=sampler, **with_recipe(
        {"loras": [{"name": name, "weight": TE_WEIGHT} for name in SCHEDULES]}))
    assert_other_picture(constant, mixed)
    assert_same_picture(own, mixed)


@pytest.mark.parametrize("execution", ["merge", "branch"])
def test_both_executions_follow_the_schedule(host: HostServer, execution: str) -> None:
    own = by_the_host(host, {"weights": weights_over(STEPS)})
    mixed = host.txt2img(**SETTINGS, **with_recipe({**scheduled(), "execution": execution}))
    assert_same_picture(own, mixed)


HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7,
         "hr_second_pass_steps": 6, "width": 64, "height": 64}
HIRES_STEPS_RUN = 6  # in the hires pass the host runs as many as it is asked for


def test_the_hires_pass_holds_the_weights_the_first_ended_with(host: HostServer) -> None:
    last = {name: weights[-1:] for name, weights in weights_over(STEPS).items()}
    own = by_the_host(host, {"weights": weights_over(STEPS), "hires": {"weights": last}}, **HIRES)
    mixed = host.txt2img(**{**SETTINGS, **HIRES}, **with_recipe(scheduled()))
    assert_same_picture(own, mixed)


def test_the_hires_pass_has_its_own_schedule(host: HostServer) -> None:
    hires = [[0.0, 0.9], [1.0, 0.2]]
    weights = weights_over(HIRES_STEPS_RUN, dict.fromkeys(SCHEDULES, hires))
    own = by_the_host(host, {"weights": weights_over(STEPS), "hires": {"weights": weights}}, **HIRES)
    held = host.txt2img(**{**SETTINGS, **HIRES}, **with_recipe(scheduled()))
    mixed = host.txt2img(**{**SETTINGS, **HIRES}, **with_recipe(scheduled(hires={"schedule": hires})))
    assert_other_picture(held, mixed)
    assert_same_picture(own, mixed)


def test_the_hires_prompt_has_its_own_text_encoder_weight(host: HostServer) -> None:
    prompt = "a rocket " + tags({"child": 0.6}, te=0.6)
    own = host.txt2img(**{**SETTINGS, **HIRES, "prompt": prompt,
                          "hr_prompt": "a rocket " + tags({"child": 0.6}, te=0.1)})
    mixed = host.txt2img(**{**SETTINGS, **HIRES}, **with_recipe(
        {"loras": [{"name": "child", "weight": 0.6, "hires": {"te_weight": 0.1}}]}))
    assert_same_picture(own, mixed)


def test_the_hires_pass_of_weight_0_is_without_the_lora(host: HostServer) -> None:
    own = host.txt2img(**{**SETTINGS, **HIRES, "prompt": "a rocket <lora:child:0.8>", "hr_prompt": "a rocket"})
    mixed = host.txt2img(**{**SETTINGS, **HIRES}, **with_recipe(
        {"loras": [{"name": "child", "weight": 0.8, "hires": {"weight": 0}}]}))
    encoded = host.txt2img(**{**SETTINGS, **HIRES}, **with_recipe(
        {"loras": [{"name": "child", "weight": 0.8, "te_weight": 0.8, "hires": {"weight": 0}}]}))
    assert_same_picture(own, mixed)
    assert_other_picture(own, encoded)
    assert "in the hires pass the weight is 0, but te_weight still acts" in encoded.infotext
    assert "SciArt notes" not in mixed.infotext


@pytest.mark.parametrize("execution", ["merge", "branch"])
@pytest.mark.parametrize(("schedule", "weights"), [
    ("0.2@0.5, 1@0.5", [0.2] * 4 + [1] * 4),  # no step is at progress 0.5: the fourth is before, the fifth after
    ("0,1@s3; 0,9@s3", [0.1] * 2 + [0.9] * 6),
    ("0.8:start=3:stop=6", [0, 0, 0.8, 0.8, 0.8, 0, 0, 0]),
    ([["s1", 0.1], ["s8", 0.8]], [0.1 * step for step in range(1, 9)]),
])
def test_jumps_and_steps_are_there_at_their_steps(host: HostServer, schedule, weights, execution) -> None:
    own = by_the_host(host, {"weights": {"child": weights, "watercolor": [0] * STEPS}})
    recipe = {"loras": [{"name": "child", "schedule": schedule, "te_weight": TE_WEIGHT},
                        {"name": "watercolor", "weight": 0, "te_weight": TE_WEIGHT}], "execution": execution}
    mixed = host.txt2img(**SETTINGS, **with_recipe(recipe))
    assert_same_picture(own, mixed)


def test_steps_of_the_hires_pass_are_its_own(host: HostServer) -> None:
    first, hires = [0.2] * 3 + [0.9] * 5, [0.1] * 2 + [0.7] * 4
    own = by_the_host(host, {"weights": {"child": first, "watercolor": [0] * STEPS},
                             "hires": {"weights": {"child": hires, "watercolor": [0] * HIRES_STEPS_RUN}}}, **HIRES)
    mixed = host.txt2img(**{**SETTINGS, **HIRES}, **with_recipe({"loras": [
        {"name": "child", "schedule": "0.2@s4, 0.9@s4", "te_weight": TE_WEIGHT,
         "hires": {"schedule": "0.1@s3, 0.7@s3"}}, {"name": "watercolor", "weight": 0, "te_weight": TE_WEIGHT}]}))
    assert_same_picture(own, mixed)


@pytest.mark.parametrize(("sampler", "steps_run"), [("Euler", 6), ("Heun", 6), ("DDIM", 4), ("UniPC", 5)])
def test_in_img2img_progress_runs_over_the_steps_that_are_run(host: HostServer, sampler, steps_run) -> None:
    start = host.txt2img(**SETTINGS).pictures[0]
    options = {"denoising_strength": 0.7, "sampler_name": sampler}
    plan = {"weights": weights_over(steps_run), "per_step": 2 if sampler == "Heun" else 1}
    own = by_the_host(host, plan, start=start, **options)
    mixed = host.img2img(start, **{**SETTINGS, **options}, **with_recipe(scheduled()))
    assert_same_picture(own, mixed)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("prompt", "negative", "calls"), [
    ("a rocket", "", [1, 0]),
    ("a rocket AND a robot :0.7", "", [1, 1, 0]),
    ("a [rocket:robot:0.5]", "blurry", [1, 0]),
    ("a rocket", "blurry " * 90, [1, 0]),
])
def test_a_lora_can_be_off_in_the_negative_prompt(host: HostServer, prompt, negative, calls, batched) -> None:
    """The host evaluates prompt parts and negative prompt one by one: the probe leaves the LoRA out of the last."""
    payload = {"negative_prompt": negative}
    own = by_the_host(host, {"weights": weights_over(STEPS), "calls": dict.fromkeys(SCHEDULES, calls)}, prompt=prompt,
                      te=0, override_settings={"batch_cond_uncond": False}, **payload)
    mixed = host.txt2img(**{**SETTINGS, **payload, "prompt": prompt},
                         override_settings={"batch_cond_uncond": batched},
                         **with_recipe(scheduled(apply_to="cond", te_weight=0)))
    both = host.txt2img(**{**SETTINGS, **payload, "prompt": prompt}, **with_recipe(scheduled(te_weight=0)))
    assert_other_picture(both, mixed)
    assert_same_picture(own, mixed)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("prompt", "calls"), [("a rocket", [1, 0.25]), ("a rocket AND a robot :0.7", [1, 1, 0.25])])
def test_a_lora_can_be_weaker_in_the_negative_prompt(host: HostServer, prompt, calls, batched) -> None:
    payload = {"negative_prompt": "blurry"}
    own = by_the_host(host, {"weights": weights_over(STEPS), "calls": dict.fromkeys(SCHEDULES, calls)}, prompt=prompt,
                      te=0, override_settings={"batch_cond_uncond": False}, **payload)
    recipe = scheduled(te_weight=0)
    for lora in recipe["loras"]:
        lora["negative"] = {"schedule": [[place, 0.25 * weight] for place, weight in lora["schedule"]]}
    mixed = host.txt2img(**{**SETTINGS, **payload, "prompt": prompt},
                         override_settings={"batch_cond_uncond": batched}, **with_recipe(recipe))
    both = host.txt2img(**{**SETTINGS, **payload, "prompt": prompt}, **with_recipe(scheduled(te_weight=0)))
    assert_other_picture(both, mixed)
    assert_same_picture(own, mixed)


def test_the_text_encoder_has_its_own_weight_for_the_negative_prompt(host: HostServer) -> None:
    settings = {**SETTINGS, "negative_prompt": "blurry rocket"}

    def mixed(**changes):
        return host.txt2img(**settings, **with_recipe({"loras": [{"name": "child", "weight": 0, **changes}]}))

    whole, prompt, negative = mixed(te_weight=0.9), mixed(te_weight=0.9, apply_to="cond"), mixed(
        te_weight=0.9, apply_to="uncond")
    assert_same_picture(whole, mixed(te_weight=0.9, negative={"te_weight": 0.9}))
    assert_same_picture(prompt, mixed(te_weight=0.9, negative={"te_weight": 0}))
    assert_same_picture(negative, mixed(te_weight=0, negative={"te_weight": 0.9}))
    for one, other in ((whole, prompt), (whole, negative), (prompt, negative)):
        assert_other_picture(one, other)


def test_what_does_nothing_is_told(host: HostServer) -> None:
    def notes(changes: dict, **settings) -> str:
        made = host.txt2img(**{**SETTINGS, **settings},
                            **with_recipe({"loras": [{"name": "child", "weight": 0.5, **changes}]}))
        return host.post("/sdapi/v1/png-info", {"image": made.json["images"][0]}).json["parameters"].get(
            "SciArt notes", "")

    told = "no effect at CFG scale 1, where the negative prompt does not count"
    assert notes({"apply_to": "uncond"}, cfg_scale=1) == f"loras[0].apply_to uncond: {told}"
    assert notes({"negative": {"weight": 0.1}}, cfg_scale=1) == f"loras[0].negative: {told}"
    assert notes({"apply_to": "uncond"}) == notes({"apply_to": "cond"}, cfg_scale=1) == ""
    assert notes({"apply_to": "uncond"}, cfg_scale=1, sampler_name="DDIM CFG++") == ""
    assert notes({"blocks": [1] * 12}).startswith("child: ") and "blocks that a list of 12" in notes({"blocks": [1] * 12})
    late = {"weight": None, "schedule": "0.5@s1, 1@s99", "hires": {"schedule": "1@s50"}}
    assert notes(late) == "child: a step of the schedule is after the last, 8"
    assert notes(late, **HIRES).endswith("; child: a step of the schedule is after the last of the hires pass, 6")
