"""A pipeline's settings: what is refused by name, what overrides what, which stages are left."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from sciart_ext.errors import SciArtError
from sciart_ext.pipeline.settings import STAGES, decoded, dump_pipeline, overridden, parse_pipeline
from sciart_ext.presets import PresetStore
from sciart_ext.presets.store import check_preset

PROFILES = ("science-imagination-profile-cool", "science-imagination-profile-warm")


def data_url(picture: Image.Image, kind: str = "png") -> str:
    file = io.BytesIO()
    picture.save(file, kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.mark.parametrize("name", PROFILES)
def test_the_shipped_profiles_have_all_stages_portrait_size_and_clip_skip(name):
    preset = PresetStore().read(name).data
    assert parse_pipeline(preset["pipeline"]).stages() == list(STAGES)
    settings = preset["txt2img"]
    assert settings["width"] * 3 == settings["height"] * 2
    assert settings["override_settings"] == {"CLIP_stop_at_last_layers": 2}


def test_the_tones_come_from_the_study_s_samplers():
    cool, warm = (PresetStore().read(name).data["txt2img"] for name in PROFILES)
    assert (cool["sampler_name"], warm["sampler_name"]) == ("DPM++ 2M", "DPM++ SDE")
    assert cool["scheduler"] == warm["scheduler"] == "Karras"
    assert {**cool, "sampler_name": ""} == {**warm, "sampler_name": ""}


def test_a_stage_that_is_null_or_left_out_is_not_run():
    whole = parse_pipeline({"controlnet": {}, "img2img": None, "upscale": {}})
    assert whole.stages() == ["controlnet", "upscale"]
    assert whole.without(["controlnet"]).stages() == ["upscale"]
    assert whole.without([]) == whole


def test_it_is_read_back_as_it_is_written():
    whole = parse_pipeline({"controlnet": {"pose": "waving", "weight": 0.8}, "img2img": {"steps": 10}})
    assert parse_pipeline(dump_pipeline(whole)) == whole


def test_what_is_given_overrides_field_by_field():
    preset = {"img2img": {"denoising_strength": 0.3, "steps": 9}, "upscale": {"scale": 2}}
    assert overridden(preset, {"img2img": {"steps": 4}, "upscale": None, "adetailer": {}}) == {
        "img2img": {"denoising_strength": 0.3, "steps": 4}, "upscale": None, "adetailer": {}}
    assert preset == {"img2img": {"denoising_strength": 0.3, "steps": 9}, "upscale": {"scale": 2}}


@pytest.mark.parametrize(("data", "field", "message"), [
    ([], "pipeline", "expected an object with controlnet, adetailer, img2img, upscale"),
    ({"img2image": {}}, "pipeline.img2image", "did you mean 'img2img'"),
    ({"controlnet": {"wieght": 1}}, "pipeline.controlnet.wieght", "did you mean 'weight'"),
    ({"controlnet": {"weight": 3}}, "pipeline.controlnet.weight", "2"),
    ({"controlnet": {"pose": "sitting"}}, "pipeline.controlnet.pose", "accepted: portrait, standing, waving, or a"),
    ({"controlnet": {"pose": "data:image/png;base64,AAAA"}}, "pipeline.controlnet.pose", "cannot be read"),
    ({"controlnet": {"pose": "data:text/plain,x"}}, "pipeline.controlnet.pose", "expected a picture"),
    ({"controlnet": {"guidance_start": 0.5, "guidance_end": 0.5}}, "pipeline.controlnet.guidance_end", "not after"),
    ({"adetailer": {"with_loras": 1}}, "pipeline.adetailer.with_loras", "expected true or false"),
    ({"adetailer": {"confidence": -1}}, "pipeline.adetailer.confidence", "0"),
    ({"adetailer": {"mask_k": 11}}, "pipeline.adetailer.mask_k", "from 0 to 10"),
    ({"img2img": {"steps": 0}}, "pipeline.img2img.steps", "from 1 to 150"),
    ({"img2img": {"denoising_strength": "a"}}, "pipeline.img2img.denoising_strength", "expected a number"),
    ({"upscale": {"scale": 9}}, "pipeline.upscale.scale", "8"),
    ({"upscale": {"upscaler": ""}}, "pipeline.upscale.upscaler", "at least 1"),
])
def test_what_is_wrong_is_refused_naming_the_field(data, field, message):
    with pytest.raises(SciArtError) as caught:
        parse_pipeline(data)
    assert caught.value.field == field and message in caught.value.message


def test_a_preset_s_pipeline_is_checked():
    preset = {"recipe": {"loras": [{"name": "a", "weight": 1}]}, "pipeline": {"upscale": {"scale": 2}}}
    assert check_preset(preset)["pipeline"] == {"upscale": {"scale": 2}}
    with pytest.raises(SciArtError) as caught:
        check_preset({**preset, "pipeline": {"upscale": {"scale": 0}}})
    assert caught.value.field == "pipeline.upscale.scale"


def test_an_unknown_stage_cannot_be_left_out():
    with pytest.raises(SciArtError, match="without: no stage 'controlnets'; did you mean 'controlnet'"):
        parse_pipeline({"upscale": {}}).without(["controlnets"])


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_pictures_are_read(kind):
    assert decoded(data_url(Image.new("RGB", (4, 6), "red"), kind)).size == (4, 6)
