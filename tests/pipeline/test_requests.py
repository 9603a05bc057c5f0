"""What the stages ask: img2img takes over what makes the picture; models are found by a part of their names."""

from __future__ import annotations

import pytest

from sciart_ext.errors import SciArtError
from sciart_ext.pipeline.requests import img2img_of, model_named, repair_settings
from sciart_ext.pipeline.settings import ADetailer, Img2Img

MODELS = ["None", "control_v11p_sd15_canny [d14c016b]", "control_v11p_sd15_openpose [cab727d4]",
          "OpenPoseXL2 [72a4faf9]"]


def test_img2img_takes_over_what_makes_the_picture():
    txt2img = {"prompt": "a", "seed": 3, "steps": 20, "width": 64, "height": 96, "enable_hr": True, "hr_scale": 2,
               "denoising_strength": 0.7, "scheduler": None, "override_settings": {"CLIP_stop_at_last_layers": 2}}
    asked = img2img_of(txt2img, Img2Img(), {"loras": []}, "PNG", (128, 192))
    assert asked == {"prompt": "a", "seed": 3, "steps": 20, "override_settings": {"CLIP_stop_at_last_layers": 2},
                     "init_images": ["PNG"], "width": 128, "height": 192, "denoising_strength": 0.3,
                     "alwayson_scripts": {"SciArt": {"args": [{"loras": []}]}}}
    assert img2img_of(txt2img, Img2Img(steps=8), {}, "PNG", (64, 96))["steps"] == 8


@pytest.mark.parametrize(("wanted", "sdxl", "name"), [
    ("openpose", False, "control_v11p_sd15_openpose [cab727d4]"), ("openpose", True, "OpenPoseXL2 [72a4faf9]"),
    ("openposexl2", False, "OpenPoseXL2 [72a4faf9]"), ("control_v11p_sd15_canny [d14c016b]", True, MODELS[1])])
def test_a_model_is_found_by_its_name_or_a_part_of_it(wanted, sdxl, name):
    assert model_named(wanted, MODELS, sdxl, "model") == name


@pytest.mark.parametrize(("names", "accepted"), [(MODELS, "accepted: control_v11p_sd15_canny"),
                                                 (["None"], "(none is installed)")])
def test_a_model_that_is_not_there_is_refused(names, accepted):
    with pytest.raises(SciArtError) as caught:
        model_named("depth", names, False, "pipeline.controlnet.model")
    assert caught.value.field == "pipeline.controlnet.model" and accepted in caught.value.message


@pytest.mark.parametrize(("before", "with_loras", "after"), [
    ("dynamic_prompting,wildcards", True, "dynamic_prompting,wildcards,sciart"),
    ("wildcards, sciart", True, "wildcards,sciart"), ("wildcards,SciArt", False, "wildcards"), ("", False, "")])
def test_whether_we_take_part_in_repairs(before, with_loras, after):
    asked = repair_settings(ADetailer(with_loras=with_loras), before)
    assert asked == {"ad_only_selected_scripts": True, "ad_script_names": after}
