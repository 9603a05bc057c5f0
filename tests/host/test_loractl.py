"""Schedules against sd-webui-loractl (SCIART_LORACTL: its folder), its convention of progress taken into account.

It reads the host's `sampling_step`, which at a step's first evaluation is still that of the step before, and divides
by steps - 2.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from pictures import assert_other_picture, assert_same_picture, with_recipe
from server import ONE_THREAD, PROBE, SCIART, HostServer

LORACTL = os.environ.get("SCIART_LORACTL")
STEPS = 10
SETTINGS = {"steps": STEPS, "width": 128, "height": 128, "seed": 3, "sampler_name": "Euler"}
HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.99,
         "hr_second_pass_steps": STEPS, "width": 64, "height": 64}

pytestmark = pytest.mark.skipif(not LORACTL, reason="SCIART_LORACTL names no checkout of sd-webui-loractl")


@pytest.fixture(scope="module")
def both(tiny_models):
    """A host with SciArt and loractl."""
    extensions = {"sciart": SCIART, "sciart-probe": PROBE, "sd-webui-loractl": Path(LORACTL)}
    with HostServer(models=tiny_models, env=ONE_THREAD, extensions=extensions) as server:
        yield server


def its_weights(start: float, end: float) -> list[list[float]]:
    """Its weights at each of our steps, as points of a schedule."""
    its_progress = np.maximum(np.arange(STEPS) - 1, 0) / (STEPS - 2)
    weights = np.interp(its_progress, [0, 1], [start, end])
    return [[step / (STEPS - 1), float(weight)] for step, weight in enumerate(weights)]


@pytest.mark.parametrize(("start", "end"), [(0.1, 1.0), (0.9, 0.0)])
def test_the_first_pass(both: HostServer, start, end) -> None:
    plain = both.txt2img(**SETTINGS)
    own = both.txt2img(**{**SETTINGS, "prompt": f"a rocket <lora:child:0.5:{start}@0,{end}@1>"})
    mixed = both.txt2img(**SETTINGS, **with_recipe(
        {"loras": [{"name": "child", "schedule": its_weights(start, end), "te_weight": 0.5}]}))
    assert_other_picture(plain, own)
    assert_same_picture(own, mixed)


def test_the_hires_pass(both: HostServer) -> None:
    its = "<lora:child:te=0.5:unet=0.1@0,1@1:hrunet=0.9@0,0@1:hrte=0.5>"
    own = both.txt2img(**{**SETTINGS, **HIRES, "prompt": f"a rocket {its}"})
    mixed = both.txt2img(**{**SETTINGS, **HIRES}, **with_recipe({"loras": [
        {"name": "child", "schedule": its_weights(0.1, 1.0), "te_weight": 0.5,
         "hires": {"schedule": its_weights(0.9, 0.0)}}]}))
    assert_same_picture(own, mixed)
