"""Guidance on each architecture of the host: SD 1, SD 2 and SDXL, random weights at toy size."""

from __future__ import annotations

import re

import numpy as np
import pytest
from pictures import difference, with_recipe
from server import HostServer

SETTINGS = {"prompt": "a rocket and a robot", "steps": 6, "sampler_name": "Euler", "width": 128, "height": 128}
SUFFIXES = {"tiny-sd1": "", "tiny-sd2": "-v2", "tiny-sdxl": "-xl"}


@pytest.fixture(scope="module", params=list(SUFFIXES))
def suffix(request, host: HostServer):
    host.use_checkpoint(f"{request.param}.safetensors")
    yield SUFFIXES[request.param]
    host.use_checkpoint("tiny-sd1.safetensors")


def guided(host: HostServer, suffix: str, **guidance):
    loras = [{"name": name + suffix, "weight": 0.5, "subject": subject}
             for name, subject in (("child", "rocket"), ("watercolor", "robot"))]
    reply = host.txt2img(**SETTINGS, **with_recipe({"loras": loras, "compose": "contrastive", "guidance": guidance}))
    assert reply.status == 200, reply.text
    return reply


def test_it_is_guided_and_leaves_nothing_behind(host: HostServer, suffix: str) -> None:
    before, untouched = host.txt2img(**SETTINGS), host.probe()
    whole = guided(host, suffix, strength=20, until=0.5, refine={"0": 3}, show=True)
    losses = [float(value) for value in re.search(r"SciArt loss: ([\d. ]+)", whole.infotext)[1].split()]
    assert len(losses) == 5 and np.isfinite(losses).all()  # three, then one before each of two more steps
    assert len(whole.pictures) == 2  # and the sheet
    without_updates = guided(host, suffix, strength=0)
    assert difference(whole.pictures[0], without_updates.pictures[0])[1] > 0.5
    assert difference(without_updates.pictures[0], before.pictures[0])[1] > 0.5
    assert host.probe() == untouched
    assert np.array_equal(host.txt2img(**SETTINGS).pictures[0], before.pictures[0])
