"""Every way that LoRAs act, on every family of models: nothing else changes, and where the host can do it too, its
picture is ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from format_files import UNET_LAYER, dora, loha, write_kind
from pictures import assert_other_picture, assert_same_picture, difference, with_recipe
from server import HostServer, Reply, as_base64

SAMPLING = {"prompt": "a rocket and a robot", "steps": 3, "width": 64, "height": 64, "seed": 5,
            "sampler_name": "Euler", "cfg_scale": 5}
RAMP = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (64, 1))
START = np.stack([RAMP, RAMP.T, np.full_like(RAMP, 90)], -1)
MASK = np.zeros_like(START)
MASK[:, 16:] = 255
INPAINTING = {"mask": as_base64(MASK), "denoising_strength": 0.9, "mask_blur": 0, "inpainting_fill": 1}
DEFAULTS = {"fp8_storage": "Disable", "token_merging_ratio": 0.0, "hypertile_enable_unet": False,
            "hypertile_max_tile_unet": 256}
WEIGHT = 0.5


@dataclass(frozen=True)
class Family:
    """checkpoint; suffix of its LoRAs' names; options of the host, of `DEFAULTS`; payload of the request; img2img: from
    a picture; apart: how far two routes to one picture may be apart, as a share of what the LoRA changes, where the
    host itself rounds more than elsewhere."""

    checkpoint: str = "tiny-sd1"
    suffix: str = ""
    options: dict = field(default_factory=dict)
    payload: dict = field(default_factory=dict)
    img2img: bool = False
    apart: float | None = None


FAMILIES = {
    "sd1": Family(),
    "inpainting": Family("tiny-sd1-inpainting", img2img=True, payload=INPAINTING),
    "pix2pix": Family("tiny-pix2pix", img2img=True, payload={"image_cfg_scale": 1.5, "denoising_strength": 1.0}),
    "sd2": Family("tiny-sd2", "-v2"),
    "sd2 v": Family("tiny-sd2-v", "-v2"),
    "sdxl": Family("tiny-sdxl", "-xl"),
    "sdxl inpainting": Family("tiny-sdxl-inpainting", "-xl", img2img=True, payload=INPAINTING),
    # the host adds a LoRA to the weight in eight bits
    "fp8": Family(options={"fp8_storage": "Enable"}, apart=0.5),
    "token merging": Family(options={"token_merging_ratio": 0.5}),
    "hypertile": Family(options={"hypertile_enable_unet": True, "hypertile_max_tile_unet": 128},
                        payload={"width": 256, "steps": 2}),
}


def lora(name: str, **more) -> dict:
    return {"name": name, "weight": WEIGHT, **more}


TWO = [lora("child"), lora("science")]
ONE = [lora("child")]
SUBJECTS = [lora("child", subject="rocket"), lora("science", subject="robot")]
HALVES = [lora("child", region=[0, 0, 0.5, 1]), lora("science", region=[0.5, 0, 1, 1])]
LIST = [1, 1, 0.5, 0, 1, 0.5, 0, 1, 1, 1, 0.5, 1, 0, 1, 1, 0.5, 1]
WAYS = {
    "merge": {"loras": TWO},
    "switch": {"compose": "switch", "composition": {"period": 1}, "loras": TWO},
    "composite": {"compose": "composite", "loras": TWO},
    "spatial": {"compose": "spatial", "loras": TWO},
    "regions": {"compose": "regions", "loras": HALVES},
    "contrastive": {"compose": "contrastive", "loras": SUBJECTS, "guidance": {"strength": 5, "refine": {"0": 1}, "until": 0.5}},
    "orthogonal": {"combine": "orthogonal", "loras": TWO},
    "ties": {"combine": "ties", "loras": TWO},
    "blocks by list": {"loras": [lora("child", blocks=LIST), TWO[1]]},
    "blocks by kind": {"loras": [lora("child", blocks={"attention": 0.5, "feed_forward": 0}), TWO[1]]},
    "blocks by schedule": {"loras": [lora("child", blocks={"in": "0@0, 1@1", "OUT03": "1@0, 0@1"}), TWO[1]]},
}
ROWS = ("composite", "spatial", "regions", "contrastive")
WHOLE = [lora("child", region=[0, 0, 1, 1])]
# one LoRA, in a way in which it is merged after all
ALONE = {
    "merge": {"loras": ONE},
    "switch": {"compose": "switch", "loras": ONE},
    "composite": {"compose": "composite", "loras": ONE},
    "spatial": {"compose": "spatial", "loras": ONE, "composition": {"recenter": 0}},
    "regions": {"compose": "regions", "loras": WHOLE},
    "orthogonal": {"combine": "orthogonal", "loras": ONE},
    "ties": {"combine": "ties", "loras": ONE, "combining": {"density": 1}},
    "blocks by list": {"loras": [lora("child", blocks=[1] * 26)]},
    "blocks by schedule": {"loras": [lora("child", blocks={"in": "1@0, 1@1", "attention": 1, "feed_forward": "1@0, 1@1"})]},
}


@dataclass
class Host:
    """The host with a family's model and options; what its pictures are without us, with a LoRA of its own and none."""

    server: HostServer
    family: Family
    name: str
    plain: Reply | None = None
    alone: Reply | None = None
    state: dict | None = None

    def ask(self, recipe: dict | None = None, tags: str = "", **more) -> Reply:
        payload = {**SAMPLING, **self.family.payload, **more}
        payload["prompt"] += tags
        if recipe is not None:
            named = [{**one, "name": one["name"] + self.family.suffix} for one in recipe["loras"]]
            payload.update(with_recipe({**recipe, "loras": named}))
        return self.server.img2img(START, **payload) if self.family.img2img else self.server.txt2img(**payload)

    def picture(self, recipe: dict | None = None, tags: str = "", **more) -> Reply:
        reply = self.ask(recipe, tags, **more)
        assert reply.status == 200, reply.text
        return reply

    def assert_same(self, found: Reply, own: Reply) -> None:
        if self.family.apart is None:
            assert_same_picture(found, own)
        else:
            change = difference(own.pictures[0], self.plain.pictures[0])[1]
            assert difference(found.pictures[0], own.pictures[0])[1] <= self.family.apart * change

    def assert_plain_again(self) -> None:
        assert self.picture().pngs == self.plain.pngs


@contextmanager
def loaded(server: HostServer, family: Family) -> Iterator[None]:
    """The family's checkpoint and options."""
    server.use_checkpoint(f"{family.checkpoint}.safetensors")
    try:
        assert server.post("/sdapi/v1/options", {**DEFAULTS, **family.options}).status == 200
        yield
    finally:
        assert server.post("/sdapi/v1/options", DEFAULTS).status == 200
        if "fp8_storage" in family.options:
            server.use_checkpoint("tiny-sd2.safetensors")  # else the host goes on with weights rounded to eight bits
        server.use_checkpoint("tiny-sd1.safetensors")


@pytest.fixture(scope="module", params=FAMILIES)
def of(request, host: HostServer) -> Iterator[Host]:
    family = FAMILIES[request.param]
    one = Host(host, family, request.param)
    if family.options:
        without = one.picture()
    with loaded(host, family):
        one.picture()  # what the host reads of a start picture depends on the picture that it made before
        one.plain, one.alone = one.picture(), one.picture(tags=f"<lora:child{family.suffix}:{WEIGHT}>")
        assert_other_picture(one.plain, one.alone)
        if family.options:
            assert difference(one.plain.pictures[0], without.pictures[0])[0] > 2, "the option does nothing"
        assert one.picture().pngs == one.plain.pngs
        one.state = host.probe()
        yield one


@pytest.mark.parametrize("way", WAYS)
def test_a_way_acts_and_the_next_picture_is_plain(of: Host, way: str) -> None:
    if of.name == "pix2pix" and way in ROWS:
        refused = of.ask(WAYS[way])
        assert refused.status == 422 and refused.json["detail"]["field"] == "compose", refused.text
        assert "InstructPix2Pix models; accepted: merge, switch; or in img2img an image CFG scale of 1" in refused.text
    else:
        found = of.picture(WAYS[way])
        assert_other_picture(found, of.plain)
        if way == "contrastive":
            losses = [float(value) for value in re.search(r"SciArt loss: ([-\w. ]+)", found.infotext)[1].split()]
            assert losses and np.isfinite(losses).all()
    of.assert_plain_again()


@pytest.mark.parametrize("way", ALONE)
def test_one_lora_alone_gives_the_hosts_own_picture(of: Host, way: str) -> None:
    if of.name != "pix2pix" or way not in ROWS:
        of.assert_same(of.picture(ALONE[way]), of.alone)
        return
    other = {"image_cfg_scale": 1.0}
    own = of.picture(tags=f"<lora:child:{WEIGHT}>", **other)
    assert_other_picture(own, of.alone)
    of.assert_same(of.picture(ALONE[way], **other), own)


@pytest.mark.parametrize("kind", [loha, dora(1)], ids=["loha", "dora"])
def test_a_file_of_another_kind_gives_the_hosts_own_picture(of: Host, kind) -> None:
    folder = of.server.data / "models"
    path = folder / "Lora" / f"another{of.family.suffix}.safetensors"
    write_kind(path, folder / "Stable-diffusion" / f"{of.family.checkpoint}.safetensors", UNET_LAYER, kind)
    try:
        own = of.picture(tags=f"<lora:{path.stem}:{WEIGHT}>")
        found = of.picture({"loras": [lora("another")]})
    finally:
        path.unlink()
        of.server.post("/sdapi/v1/refresh-loras")
    assert_other_picture(own, of.plain)
    of.assert_same(found, own)


def test_the_model_is_untouched_by_all_of_these(of: Host) -> None:
    """Its parameters, hooks and attributes: a digest of them takes as long as a picture."""
    of.picture(WAYS["merge"])
    if of.name != "pix2pix":
        of.picture(WAYS["contrastive"])
    assert of.server.probe() == of.state
