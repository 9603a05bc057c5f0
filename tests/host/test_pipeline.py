"""Pipelines in the real WebUI: what is missing is told, what is asked to be left out is, and every stage is the host's
own picture. With ControlNet and ADetailer: beside/test_pipeline_beside.py."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from pictures import assert_same_picture, difference
from PIL import Image
from server import ONE_THREAD, HostServer, Reply
from upscaler_file import FILE, NAME, write_upscaler

ROLES = {"child": "child", "watercolor": "watercolor", "science": "science"}
NEIGHBOURS = ["controlnet", "adetailer"]
SMALL = {"prompt": "a robot in space", "width": 64, "height": 96, "steps": 10, "seed": 5}
PRESET = {"preset": "science-imagination-profile-warm", "txt2img": SMALL, "recipe": {"roles": ROLES}}


@pytest.fixture(scope="module")
def host(tiny_world_models, tmp_path_factory) -> Iterator[HostServer]:
    file = write_upscaler(tmp_path_factory.mktemp("upscaler") / "x4.pth")
    with HostServer(models=tiny_world_models, checkpoint="sciart-tiny.safetensors", env=ONE_THREAD,
                    files={FILE: file}) as server:
        yield server


@pytest.fixture(autouse=True)
def as_before(host: HostServer) -> Iterator[None]:
    """The plain picture, the model and the settings are the same afterwards."""
    host.post("/probe/reset")
    plain, state, options = host.txt2img(), host.probe(), host.get("/sdapi/v1/options").json
    yield
    host.post("/probe/reset")
    assert host.txt2img().pngs[0] == plain.pngs[0] and host.probe() == state
    assert host.get("/sdapi/v1/options").json == options


def asked(host: HostServer, **more):
    return host.post("/sciart/v1/pipeline", {**PRESET, **more})


def answer(picture: str) -> Reply:
    """One picture, base64, as the host's own answers have them."""
    return Reply(200, json.dumps({"images": [picture]}).encode())


def sizes(reply) -> list[tuple[int, int]]:
    return [Image.open(io.BytesIO(png)).size for png in reply.pngs]


def test_missing_extensions_are_named_with_the_way_to_go_on(host: HostServer) -> None:
    reply = asked(host)
    assert reply.status == 422 and reply.json["detail"]["field"] == "pipeline"
    for told in ("ControlNet (https://github.com/Mikubill/sd-webui-controlnet) and ADetailer (https://",
                 "are not installed", '"without": ["controlnet", "adetailer"]'):
        assert told in reply.json["detail"]["message"]
    one = asked(host, without=["adetailer"]).json["detail"]["message"]
    assert one.startswith("ControlNet (") and "ADetailer" not in one


def test_without_them_every_stage_is_the_host_s_own(host: HostServer) -> None:
    """txt2img, img2img and Extras asked one after the other give the same pictures."""
    reply = asked(host, without=NEIGHBOURS)
    assert reply.status == 200, reply.text
    assert [stage["name"] for stage in reply.json["stages"]] == ["txt2img", "img2img", "upscale"]
    assert sizes(reply) == [(64, 96), (64, 96), (128, 192)]
    recipe = {"preset": PRESET["preset"], "roles": ROLES}
    settings = {**host.get(f"/sciart/v1/presets/{PRESET['preset']}").json["txt2img"], **SMALL,
                "alwayson_scripts": {"SciArt": {"args": [recipe]}}}
    first = host.txt2img(**settings)
    again = host.img2img(first.pictures[0], **settings, denoising_strength=0.3)
    large = host.post("/sdapi/v1/extra-single-image", {"image": again.json["images"][0], "upscaler_1": NAME,
                                                       "upscaling_resize": 2})
    own_pictures = [first.json["images"][0], again.json["images"][0], large.json["image"]]
    for picture, own in zip(reply.json["images"], own_pictures, strict=True):
        assert_same_picture(answer(picture), answer(own))


def test_sampler_size_and_clip_skip_of_the_preset(host: HostServer) -> None:
    preset = host.get("/sciart/v1/presets/science-imagination-profile-cool").json["txt2img"]
    assert preset["width"] * 3 == preset["height"] * 2
    told = asked(host, preset="science-imagination-profile-cool", without=NEIGHBOURS).json["stages"][0]["infotext"]
    assert "Sampler: DPM++ 2M, Schedule type: Karras" in told and "Clip skip: 2" in told
    warm = asked(host, without=NEIGHBOURS).json["stages"][0]["infotext"]
    assert "Sampler: DPM++ SDE, Schedule type: Karras" in warm and "Clip skip: 2" in warm


def test_its_infotext_makes_it_again(host: HostServer) -> None:
    first = asked(host, without=NEIGHBOURS, txt2img={**SMALL, "seed": -1},
                  pipeline={"img2img": {"denoising_strength": 0.5, "steps": 6}})
    infotext = first.json["stages"][-1]["infotext"]
    assert "Postprocess upscaler: R-ESRGAN 4x+" in infotext and 'SciArt pipeline: "' in infotext
    again = host.post("/sciart/v1/pipeline", {"txt2img": {"infotext": infotext}})
    assert again.status == 200, again.text
    assert again.pngs == first.pngs and Image.open(io.BytesIO(again.pngs[-1])).info["parameters"] == infotext
    assert again.json["stages"] == first.json["stages"]


def test_a_picture_of_txt2img_can_go_through_it(host: HostServer) -> None:
    """Its infotext in place of the preset's settings; the recipe in it too."""
    own = host.txt2img(**SMALL, alwayson_scripts={"SciArt": {"args": [{"loras": [{"name": "child", "weight": 0.7}]}]}})
    reply = host.post("/sciart/v1/pipeline", {"preset": PRESET["preset"], "txt2img": {"infotext": own.infotext},
                                              "without": [*NEIGHBOURS, "upscale"]})
    assert reply.status == 200, reply.text
    assert (reply.pictures[0] == own.pictures[0]).all() and sizes(reply) == [(64, 96)] * 2


def test_a_picture_with_a_hires_pass_too(host: HostServer) -> None:
    own = host.txt2img(**SMALL, enable_hr=True, hr_scale=2, hr_upscaler="Latent", hr_second_pass_steps=3, denoising_strength=0.7,
                       alwayson_scripts={"SciArt": {"args": [{"loras": [{"name": "child", "weight": 0.7}]}]}})
    asked_for = {"txt2img": {"infotext": own.infotext}}
    reply = host.post("/sciart/v1/pipeline", {**asked_for, "pipeline": {"img2img": {}}})
    assert reply.status == 200, reply.text
    assert (reply.pictures[0] == own.pictures[0]).all() and sizes(reply) == [(128, 192)] * 2
    told = host.post("/sciart/v1/influence", {**asked_for, "subsets": "solo"})
    assert told.status == 200, told.text


@pytest.mark.parametrize(("more", "field", "message"), [
    ({"preset": "nope"}, "preset", "no preset 'nope'"),
    ({"without": ["facedetailer"]}, "without", "no stage 'facedetailer'; "),
    ({"pipeline": {"img2img": {"denoising": 1}}}, "pipeline.img2img.denoising", "did you mean 'denoising_strength'"),
    ({"pipeline": {"img2img": {"denoising_strength": 2}}}, "pipeline.img2img.denoising_strength", "0"),
    ({"pipeline": {"upscale": {"upscaler": "R-ESRGAN 4"}}}, "pipeline.upscale.upscaler", "did you mean 'R-ESRGAN 4x+'"),
    ({"txt2img": {"batch_size": 2}}, "txt2img.batch_size", "a pipeline is of one picture"),
    ({"preset": "science-imagination"}, "pipeline", "no stage"),
    ({"recipe": {}}, "loras[0].role", "'child' is not bound"),
    ({"txt2img": {"infotext": 'a\nSteps: 4, Seed: 1, Size: 64x64, SciArt pipeline: "[]"'}},
     "txt2img.infotext.SciArt pipeline", "expected an object"),
])
def test_what_cannot_be_made_is_refused_naming_the_field(host: HostServer, more, field, message) -> None:
    reply = asked(host, **{"without": NEIGHBOURS, **more})
    assert reply.status == 422 and reply.json["detail"]["field"] == field, reply.text
    assert message in reply.json["detail"]["message"]


def test_an_upscaler_whose_file_cannot_be_had_is_refused_before_sampling(host: HostServer) -> None:
    """The host would print an error and stretch the picture."""
    reply = asked(host, without=NEIGHBOURS, pipeline={"upscale": {"upscaler": "R-ESRGAN 4x+ Anime6B"}})
    assert reply.status == 422 and reply.json["detail"]["field"] == "pipeline.upscale.upscaler", reply.text
    assert "cannot be downloaded" in reply.json["detail"]["message"]


def test_the_error_of_another_extension_stops_it(host: HostServer) -> None:
    """The host swallows such errors."""
    host.post("/probe/fault", {"where": "callback", "at": 2})
    reply = asked(host, without=NEIGHBOURS)
    assert reply.status == 422 and reply.json["detail"]["field"] == "txt2img", reply.text
    assert "failed: Error executing callback cfg_denoiser_callback" in reply.json["detail"]["message"]
    assert "probe: fault in callback" in reply.json["detail"]["message"]


def test_it_can_be_interrupted(host: HostServer) -> None:
    answers = []
    worker = threading.Thread(target=lambda: answers.append(asked(host, without=NEIGHBOURS,
                                                                  txt2img={**SMALL, "steps": 100})))
    worker.start()
    deadline = time.monotonic() + 120
    while host.get("/sdapi/v1/progress?skip_current_image=true").json["state"]["sampling_step"] < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    host.post("/sdapi/v1/interrupt")
    worker.join()
    assert answers[0].status == 200 and answers[0].json["cancelled"] and answers[0].json["images"] == []


def test_pictures_are_kept_where_it_is_asked_for(host: HostServer) -> None:
    assert not list(host.data.glob("output*/**/*.png"))
    reply = asked(host, without=NEIGHBOURS, save_images=True,
                  txt2img={**SMALL, "override_settings": {"eta_noise_seed_delta": 31337}})
    kept = {path.relative_to(host.data).parts[1]: path for path in host.data.glob("output*/**/*.png")}
    assert set(kept) == {"txt2img-images", "img2img-images", "extras-images"}
    saved = Image.open(kept["extras-images"])
    assert saved.size == (128, 192) and saved.info["parameters"] == reply.json["stages"][-1]["infotext"]


def test_stages_lose_nothing_between_them_whatever_format_pictures_are_kept_in(host: HostServer) -> None:
    """JPEG of the lowest quality: only what is handed out in the end is that."""
    right = asked(host, without=[*NEIGHBOURS, "upscale"]).pictures[1]
    options = {"samples_format": "jpg", "jpeg_quality": 1}
    before = {name: host.get("/sdapi/v1/options").json[name] for name in options}
    assert host.post("/sdapi/v1/options", options).status == 200
    try:
        shown = asked(host, without=[*NEIGHBOURS, "upscale"]).pictures[1]
    finally:
        host.post("/sdapi/v1/options", before)
    file = io.BytesIO()
    Image.fromarray(right).save(file, "JPEG", quality=1)
    expected = np.asarray(Image.open(file).convert("RGB"))
    assert difference(shown, expected)[1] < 1.0 < difference(right, expected)[1]
