"""Block weights: lists as sd-webui-lora-block-weight takes them (SCIART_LBW: its folder), and what it does not have."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pictures import assert_other_picture, assert_same_picture, with_recipe
from server import ONE_THREAD, PROBE, SCIART, HostServer

from sciart_ext.lora.blocks import LISTS

LBW = os.environ.get("SCIART_LBW")
SETTINGS = {"steps": 5, "width": 128, "height": 128, "seed": 3, "sampler_name": "Euler"}


@pytest.fixture(scope="module")
def both(tiny_models):
    """A host with SciArt and sd-webui-lora-block-weight."""
    if not LBW:
        pytest.skip("SCIART_LBW names no checkout of sd-webui-lora-block-weight")
    extensions = {"sciart": SCIART, "sciart-probe": PROBE, "sd-webui-lora-block-weight": Path(LBW)}
    with HostServer(models=tiny_models, env=ONE_THREAD, extensions=extensions) as server:
        yield server


def values(length: int) -> list[float]:
    return [round(float(value), 2) for value in np.random.default_rng(length).uniform(-0.5, 1.5, length)]


def made(host: HostServer, loras: list[dict], **settings):
    return host.txt2img(**{**SETTINGS, **settings}, **with_recipe({"loras": loras}))


@pytest.mark.parametrize(("suffix", "length"), [("", 17), ("", 26), ("-xl", 12), ("-xl", 20), ("-xl", 26)])
def test_a_list_gives_its_picture(both: HostServer, suffix: str, length: int) -> None:
    checkpoint = {"override_settings": {"sd_model_checkpoint": f"tiny-sd{'xl' if suffix else '1'}.safetensors"}}
    first, second = values(length), values(length)[::-1]
    tags = "".join(f"<lora:{name}{suffix}:{weight}:{weight}:lbw={','.join(map(str, blocks))}>" for name, weight, blocks in
                   (("child", 0.8, first), ("science", 0.6, second)))
    plain = both.txt2img(**SETTINGS, **checkpoint)
    whole = made(both, [{"name": f"child{suffix}", "weight": 0.8}, {"name": f"science{suffix}", "weight": 0.6}], **checkpoint)
    its = both.txt2img(**{**SETTINGS, **checkpoint, "prompt": f"a rocket {tags}"})
    own = made(both, [{"name": f"child{suffix}", "weight": 0.8, "blocks": first},
                      {"name": f"science{suffix}", "weight": 0.6, "blocks": ",".join(map(str, second))}], **checkpoint)
    assert_same_picture(its, own)
    for other in (plain, whole):
        assert_other_picture(own, other)


def test_a_list_is_the_factors_of_its_blocks(host: HostServer) -> None:
    blocks = values(17)
    named = dict.fromkeys((f"{side}{number:02d}" for side in ("IN", "OUT") for number in range(12)), 0.0)
    named |= dict(zip(LISTS[17], blocks))
    as_list = made(host, [{"name": "child", "weight": 0.8, "blocks": blocks}])
    assert_same_picture(as_list, made(host, [{"name": "child", "weight": 0.8, "blocks": named}]))


def test_a_kind_s_factors_sum_to_the_whole(host: HostServer) -> None:
    """A constant schedule is that number, whichever way it is carried out."""
    whole = made(host, [{"name": "child", "weight": 0.8, "te_weight": 0.8}])
    kinds = {"attention": "1@0, 1@1", "feed_forward": [[0, 1]], "convolution": 1}
    assert_same_picture(whole, made(host, [{"name": "child", "weight": 0.8, "te_weight": 0.8, "blocks": kinds}]))
    without = made(host, [{"name": "child", "weight": 0.8, "te_weight": 0.8, "blocks": {"attention": 0}}])
    assert_other_picture(whole, without)


def test_a_block_s_schedule_is_that_of_a_lora_in_that_block_alone(host: HostServer) -> None:
    """All blocks on one schedule are the LoRA on that schedule."""
    schedule = "0@0, 0.8@1"
    on_blocks = {group: "0@0, 1@1" for group in ("in", "mid", "out")}
    assert_same_picture(
        made(host, [{"name": "child", "schedule": schedule, "te_weight": 0.3}]),
        made(host, [{"name": "child", "weight": 0.8, "te_weight": 0.3, "blocks": on_blocks}]))
    part = made(host, [{"name": "child", "weight": 0.8, "te_weight": 0.3, "blocks": {"out": "0@0, 1@1", "in": 0}}])
    assert_other_picture(part, made(host, [{"name": "child", "weight": 0.8, "te_weight": 0.3}]))


def test_they_are_in_the_infotext_and_make_the_picture_again(host: HostServer) -> None:
    first = made(host, [{"name": "child", "weight": 0.8, "blocks": {"IN04": 0.2, "attention": "0.5@0, 1@1", "BASE": 0.5}}])
    assert first.status == 200, first.text
    again = host.post("/sdapi/v1/txt2img", {"infotext": first.infotext, "override_settings": {}})
    assert again.status == 200 and again.pngs[0] == first.pngs[0]


def test_what_is_wrong_is_refused(host: HostServer) -> None:
    reply = made(host, [{"name": "child", "weight": 0.8, "blocks": [1, 0, 1]}])
    assert reply.status == 422 and "accepted: lists of 12, 17, 20, 26" in reply.text
    reply = made(host, [{"name": "child", "weight": 0.8, "blocks": {"IN13": 1}}])
    assert reply.status == 422 and "loras[0].blocks.IN13" in reply.text
