"""FreeU knows a UNet's stages by their widths, 320 to 1280: a checkpoint of SD 1.5's size with random weights, 4 GB of
disk, some minutes."""

from __future__ import annotations

import pytest
from asking import EVERY_WAY, is_first_picture_other, is_first_picture_same, made
from beside_host import folder_of
from server import HostServer
from test_crowd import nearly_nothing

QUICK = {"steps": 2, "width": 64, "height": 64}
WIDE = {**QUICK, "width": 128, "height": 128}
"""where the deepest stage has more than one place, by which the second version divides"""
STAGES = [{"backbone_factor": 1.4, "skip_factor": 0.6}, {"backbone_factor": 1.6, "skip_factor": 0.4}, {}]


@pytest.fixture(scope="module")
def both(request, webui) -> HostServer:
    folder_of("sd-webui-freeu")
    models = request.getfixturevalue("sd15_models")
    checkpoint, = (models / "Stable-diffusion").glob("*.safetensors")
    return webui("sd-webui-freeu", models=models, checkpoint=checkpoint.name)


@pytest.mark.parametrize(("version", "size"), [("1", QUICK), ("2", WIDE)])
def test_it_acts_in_every_way(both: HostServer, version: str, size: dict) -> None:
    scripts = {"FreeU": [{"enable": True, "version": version, "stage_infos": STAGES}]}
    both.post("/probe/reset")
    plain, alone = made(both, **size), made(both, None, scripts, **size)
    state = both.probe()
    assert is_first_picture_other(plain, alone)
    for way in EVERY_WAY:
        reply = made(both, nearly_nothing(way, 0.0001), scripts, **size)
        if way == "contrastive" and version == "2":  # it writes into what the gradient needs
            assert reply.status == 422 and "sd-webui-freeu/" in reply.text, reply.text[:500]
            continue
        assert reply.status == 200, (way, reply.text[:500])
        assert way == "contrastive" or is_first_picture_same(alone, reply), way
    both.post("/probe/reset")
    assert made(both, **size).pngs[0] == plain.pngs[0] and both.probe() == state
