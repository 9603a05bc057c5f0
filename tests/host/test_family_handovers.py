"""Models of a family that are evaluated otherwise: InstructPix2Pix's three rows of a picture, SDXL handing over."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from pictures import assert_other_picture, assert_same_picture, with_recipe
from server import HostServer, Reply

SAMPLING = {"prompt": "a rocket and a robot", "steps": 6, "width": 64, "height": 64, "seed": 5,
            "sampler_name": "Euler", "cfg_scale": 5}
START = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[:, None], (64, 1, 3))
TWO = [{"name": "child-xl", "weight": 0.5, "subject": "rocket", "region": [0, 0, 0.5, 1]},
       {"name": "science-xl", "weight": 0.5, "subject": "robot", "region": [0.5, 0, 1, 1]}]
COMPOSES = ("merge", "switch", "composite", "spatial", "regions", "contrastive")


@pytest.fixture(scope="module")
def pix2pix(host: HostServer) -> Iterator[HostServer]:
    host.use_checkpoint("tiny-pix2pix.safetensors")
    yield host
    host.use_checkpoint("tiny-sd1.safetensors")


@pytest.fixture(scope="module")
def sdxl(host: HostServer) -> Iterator[HostServer]:
    host.use_checkpoint("tiny-sdxl.safetensors")
    yield host
    host.use_checkpoint("tiny-sd1.safetensors")


@pytest.mark.parametrize("image_cfg_scale", [1.5, 1.0])
def test_gates_by_row_reach_their_rows_of_an_edited_picture(pix2pix: HostServer, image_cfg_scale: float) -> None:
    """However the host batches them: with the prompt, with the picture alone, with neither."""
    def edited(given: dict | None, **more) -> Reply:
        asked = {**SAMPLING, "image_cfg_scale": image_cfg_scale, "denoising_strength": 1.0, **more}
        return pix2pix.img2img(START, **asked, **(with_recipe(given) if given else {}))

    def row(apply_to: str) -> dict:
        return {"loras": [{"name": "child", "schedule": "0.2@0, 0.8@1", "te_weight": 0, "apply_to": apply_to}]}

    edited(None)  # what the host reads of a start picture depends on the picture that it made before
    cond, uncond = edited(row("cond")), edited(row("uncond"))
    pictures = [edited(None), cond, uncond, edited(row("both"))]
    for i, one in enumerate(pictures):
        for other in pictures[i + 1:]:
            assert_other_picture(one, other)
    for given, whole in (("cond", cond), ("uncond", uncond)):
        apart = edited(row(given), override_settings={"batch_cond_uncond": False})
        assert_same_picture(apart, whole)


def composed(compose: str) -> dict:
    unread = {"switch": (), "regions": ("region",), "contrastive": ("subject",)}.get(compose, ())
    loras = [{name: value for name, value in lora.items() if name in ("name", "weight", *unread)} for lora in TWO]
    given = {"loras": loras, "compose": compose}
    if compose == "contrastive":
        given["guidance"] = {"strength": 5, "refine": {"0": 1}, "until": 0.5}
    return given


@pytest.fixture(scope="module")
def plain(sdxl: HostServer) -> Iterator[dict[str, Reply]]:
    """Without LoRAs, handed over to each of the others; the same again when all is done."""
    pictures = {name: handed_over(sdxl, name) for name in ("tiny-sdxl-b", "tiny-sdxl-refiner")}
    assert_other_picture(*pictures.values())
    yield pictures
    for name, before in pictures.items():
        assert handed_over(sdxl, name).pngs == before.pngs


def handed_over(sdxl: HostServer, refiner: str, given: dict | None = None) -> Reply:
    handed = {"refiner_checkpoint": refiner, "refiner_switch_at": 0.5, "steps": 4}
    reply = sdxl.txt2img(**{**SAMPLING, **handed}, **(with_recipe(given) if given else {}))
    assert reply.status == 200, reply.text
    return reply


@pytest.mark.parametrize("compose", COMPOSES)
def test_another_sdxl_goes_on_in_the_same_way(sdxl: HostServer, plain: dict[str, Reply], compose: str) -> None:
    found = handed_over(sdxl, "tiny-sdxl-b", composed(compose))
    assert_other_picture(found, plain["tiny-sdxl-b"])
    assert "Refiner: tiny-sdxl-b" in found.infotext and "without the LoRAs" not in found.infotext


@pytest.mark.parametrize("compose", ["merge", "composite", "contrastive"])
def test_sdxls_own_refiner_goes_on_without_the_loras_and_says_so(sdxl: HostServer, plain: dict[str, Reply],
                                                                  compose: str) -> None:
    """Its UNet has other shapes and it has no CLIP: what was made for the base model does not fit it."""
    found = handed_over(sdxl, "tiny-sdxl-refiner", composed(compose))
    assert_other_picture(found, plain["tiny-sdxl-refiner"])
    assert "tiny-sdxl-refiner runs without the LoRAs" in found.infotext


@pytest.mark.parametrize("compose", ["masked", "contrastive"])
def test_what_a_pass_has_to_tell_is_told_where_the_refiner_has_no_loras(sdxl: HostServer, compose: str) -> None:
    loras = [{name: value for name, value in lora.items() if name != "region"} for lora in TWO]
    given = {"loras": loras, "compose": compose, "guidance": {"noises": 3}}
    found = handed_over(sdxl, "tiny-sdxl-refiner", given)
    assert "SciArt noise: " in found.infotext and "runs without the LoRAs" in found.infotext
    assert ("SciArt loss: " in found.infotext) == (compose == "contrastive")


def test_one_lora_with_a_row_of_its_own_is_handed_over_as_it_is_merged(sdxl: HostServer) -> None:
    one = {"name": "child-xl", "weight": 0.5}
    merged = handed_over(sdxl, "tiny-sdxl-b", {"loras": [one]})
    for given in ({"compose": "spatial", "loras": [one], "composition": {"recenter": 0}},
                  {"compose": "regions", "loras": [{**one, "region": [0, 0, 1, 1]}]}):
        assert_same_picture(handed_over(sdxl, "tiny-sdxl-b", given), merged)
