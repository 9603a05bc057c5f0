"""A ControlNet proper, 320 channels wide, on a checkpoint of SD 1.5's size: random weights, 4 GB of disk, some minutes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from asking import EVERY_WAY, MASKED, MERGED, WEIGHTS, is_first_picture_other, is_first_picture_same, made
from beside_host import folder_of
from control_files import write_controlnet
from pictures import tags
from server import HostServer, Reply
from test_controlnet import MIRRORED, POSE

UNIT = {**POSE, "model": "control-openpose"}
QUICK = {"steps": 3, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def both(request, webui) -> Iterator[HostServer]:
    folder_of("sd-webui-controlnet")
    models = request.getfixturevalue("sd15_models")
    checkpoint, = (models / "Stable-diffusion").glob("*.safetensors")
    file = write_controlnet(models.parent / "control" / "control-openpose.safetensors", checkpoint)
    server = webui("sd-webui-controlnet", models=models, checkpoint=checkpoint.name,
                   files={"models/ControlNet/control-openpose.safetensors": file})
    controlled(server)
    yield server
    file.unlink()  # as the checkpoint is


@pytest.fixture
def as_before(both: HostServer) -> Iterator[Reply]:
    both.post("/probe/reset")
    plain, state = made(both, **QUICK), both.probe()
    yield plain
    both.post("/probe/reset")
    assert made(both, **QUICK).pngs[0] == plain.pngs[0] and both.probe() == state


def controlled(both: HostServer, recipe: dict | None = None, unit: dict = UNIT, **settings) -> Reply:
    return made(both, recipe, {"ControlNet": [unit]}, **{**QUICK, **settings})


def test_constant_weights_are_the_host_s_own(both: HostServer, as_before) -> None:
    alone, own = controlled(both), controlled(both, prompt=f"a rocket and a robot {tags(WEIGHTS)}")
    assert is_first_picture_other(alone, as_before) and is_first_picture_other(alone, own)
    assert is_first_picture_same(own, controlled(both, MERGED["constant"]))


@pytest.mark.parametrize("name", ["schedule", "by row", "composite", "contrastive", "masked"])
def test_both_act(both: HostServer, as_before, name: str) -> None:
    recipe = EVERY_WAY[name]
    mixed, mirrored = controlled(both, recipe), {**MIRRORED, "model": UNIT["model"]}
    for other in (controlled(both), made(both, recipe, **QUICK), controlled(both, recipe, mirrored)):
        assert is_first_picture_other(mixed, other)


def test_rows_of_single_loras_are_told_apart(both: HostServer, as_before) -> None:
    """LoRAs of next to no weight leave its picture as it is, where it acts in the prompt alone."""
    unit = {**UNIT, "control_mode": "ControlNet is more important"}
    rows = {"compose": "composite", "loras": [{"name": name, "weight": 1e-6} for name in ("child", "watercolor")]}
    texts = {**MASKED, "loras": [{**MASKED["loras"][0], "weight": 1e-6}]}
    for nothing in (rows, texts):
        assert is_first_picture_same(controlled(both, unit=unit), controlled(both, nothing, unit))
