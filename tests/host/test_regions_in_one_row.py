"""Regions in the rows of a plain picture in the WebUI: the standalone engine's pictures, batches, the hires pass, every
model, the infotext. More of it in `test_one_row.py`."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from one_row import HALVES, LEFT, PROMPT, RIGHT, ROBOT, ROCKET, STYLE, WHOLE, made
from one_row import in_regions as recipe_of
from pictures import assert_same_picture, difference, with_recipe
from PIL import Image

pytest.importorskip("diffusers")

from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL

ALL = (*HALVES, STYLE)


def ramp() -> str:
    """A mask that is black at the left and white at the right."""
    file = io.BytesIO()
    Image.fromarray(np.tile(np.linspace(0, 255, 32, dtype=np.uint8), (32, 1))).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


PAINTED = ({**ROCKET, "region": ramp()}, {**ROBOT, "region": [0, 0, 0.7, 0.6]})


@pytest.mark.parametrize(("loras", "feather"), [(ALL, 0.0), (ALL, 0.3), (PAINTED, 0.0)],
                         ids=["boxes", "feathered", "painted"])
@pytest.mark.parametrize("sampler", ["Euler", "Heun"])
def test_host_and_standalone_make_the_same_picture(tiny, loras, feather, sampler):
    settings = Settings(PROMPT, negative_prompt="planet", steps=8, seed=11, sampler=sampler, cfg_scale=5.0)
    recipe = parse_recipe(recipe_of(loras, prefix="", feather=feather))
    alone = generate(load_pipeline(MODEL, device="cpu"), recipe, settings, load_loras(recipe, MODEL / "loras"))
    found = made(tiny, recipe_of(loras, feather=feather), sampler_name=sampler).pictures[0]
    largest, mean = difference(np.asarray(alone.image), found)
    assert largest <= 6 and mean <= 0.7, f"largest {largest}, mean {mean:.3f}"


@pytest.mark.parametrize("prompt", ["a rocket in space", "a [rocket:rocket in space:0.5]", "a rocket" + " sky" * 90])
@pytest.mark.parametrize("padded", [False, True])
def test_a_region_that_is_everything_is_the_hosts_own_lora(tiny, prompt, padded):
    settings = {"override_settings": {"pad_cond_uncond": padded}}
    own = made(tiny, prompt=f"{prompt} <lora:sciart-tiny-red-striped-rocket:1>", **settings)
    whole = recipe_of([{**ROCKET, "region": WHOLE}])
    assert_same_picture(own, made(tiny, whole, prompt=prompt, **settings))


def test_each_region_has_rows_of_its_own_unless_told_otherwise(tiny):
    own = recipe_of(rows="own")
    del own["composition"]["rows"]
    assert made(tiny, own).pngs == made(tiny, recipe_of(rows="own")).pngs
    assert difference(made(tiny, own).pictures[0], made(tiny, recipe_of()).pictures[0])[1] > 0.1


def test_batches_are_made_picture_by_picture(tiny):
    whole = made(tiny, recipe_of(), batch_size=2, n_iter=2)
    assert len(whole.pictures) == 4
    for i in (1, 3):
        assert difference(whole.pictures[i], made(tiny, recipe_of(), seed=11 + i).pictures[0])[1] <= 1.0


@pytest.mark.parametrize(("size", "scale"), [((128, 128), 2), ((128, 192), 1.5)])
def test_the_hires_pass_has_them_unless_it_is_told_otherwise(tiny, size, scale):
    hires = {"enable_hr": True, "hr_scale": scale, "hr_upscaler": "Latent", "denoising_strength": 0.7,
             "hr_second_pass_steps": 5, "width": size[0], "height": size[1]}
    regions, merged = (made(tiny, recipe_of(hires=on), **hires) for on in (True, False))
    assert regions.pictures[0].shape[:2] == (size[1] * scale, size[0] * scale)
    assert difference(regions.pictures[0], merged.pictures[0])[1] > 1
    whole, everywhere = (made(tiny, recipe, **hires).pictures[0] for recipe in (
        recipe_of([{**ROCKET, "region": WHOLE}]), {"loras": recipe_of([ROCKET])["loras"]}))
    assert difference(whole, everywhere)[1] <= 0.1  # merged and branched differ by 0.06 here


@pytest.mark.parametrize(("checkpoint", "suffix"), [("tiny-sd1", ""), ("tiny-sdxl", "-xl"), ("tiny-sd2-v", "-v2")])
def test_whatever_the_model(host, checkpoint, suffix):
    settings = {"prompt": "a rocket and a robot", "override_settings": {"sd_model_checkpoint": checkpoint}}
    loras = [{"name": f"child{suffix}", "weight": 0.8, "region": LEFT},
             {"name": f"watercolor{suffix}", "weight": 0.8, "region": RIGHT}]
    plain = host.txt2img(**settings)
    regions = host.txt2img(**settings, **with_recipe(recipe_of(loras, "")))
    assert regions.status == 200, regions.text
    assert difference(plain.pictures[0], regions.pictures[0])[1] > 1
    assert host.txt2img(**settings).pngs == plain.pngs
    own = host.txt2img(**{**settings, "prompt": f"a rocket and a robot <lora:child{suffix}:0.8>"})
    whole = recipe_of([{**loras[0], "region": WHOLE}], "")
    assert_same_picture(own, host.txt2img(**settings, **with_recipe(whole)))


def test_its_infotext_makes_the_same_picture_again(tiny):
    first = made(tiny, recipe_of(PAINTED, feather=0.2))
    again = tiny.post("/sdapi/v1/txt2img", {"infotext": first.infotext})
    assert again.pngs == first.pngs
