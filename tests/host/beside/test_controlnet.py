"""sd-webui-controlnet: a pose by a T2I-Adapter of random weights, and its reference preprocessor, on the toy model."""

from __future__ import annotations

import numpy as np
import pytest
from asking import EVERY_WAY, MASKED, MERGED, OWN_ROWS, WEIGHTS, is_first_picture_other, is_first_picture_same, made
from control_files import write_adapter
from pictures import tags
from PIL import ImageOps
from server import HostServer, as_base64

from sciart_ext.pipeline.poses import pose_picture

FIGURE = pose_picture("waving", 128, 128)

POSE = {"enabled": True, "module": "none", "model": "t2i-openpose", "weight": 1.0, "processor_res": 128,
        "image": as_base64(np.asarray(FIGURE))}
MIRRORED = {**POSE, "image": as_base64(np.asarray(ImageOps.mirror(FIGURE)))}
ONLY_PROMPT = {**POSE, "control_mode": "ControlNet is more important"}
REFERENCE = {**POSE, "module": "reference_only", "model": "None"}
NOTHING = {"child": 1e-6, "watercolor": 1e-6}
HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7,
         "hr_second_pass_steps": 3, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def both(webui, tmp_path_factory) -> HostServer:
    adapter = write_adapter(tmp_path_factory.mktemp("control") / "t2i-openpose.safetensors")
    server = webui("sd-webui-controlnet", files={"models/ControlNet/t2i-openpose.safetensors": adapter})
    made(server, None, {"ControlNet": [REFERENCE]})  # it leaves attributes on modules, once
    return server


def controlled(both: HostServer, recipe: dict | None = None, unit: dict = POSE, **settings):
    return made(both, recipe, {"ControlNet": [unit]}, **settings)


@pytest.mark.parametrize("unit", [POSE, ONLY_PROMPT, REFERENCE], ids=["pose", "only prompt", "reference"])
def test_constant_weights_are_the_host_s_own(both: HostServer, as_before, unit: dict) -> None:
    alone = controlled(both, unit=unit)
    own = controlled(both, unit=unit, prompt=f"a rocket and a robot {tags(WEIGHTS)}")
    assert is_first_picture_other(alone, as_before) and is_first_picture_other(alone, own)
    assert is_first_picture_same(own, controlled(both, MERGED["constant"], unit))


@pytest.mark.parametrize("name", EVERY_WAY)
def test_both_act(both: HostServer, as_before, name: str) -> None:
    recipe = EVERY_WAY[name]
    mixed = controlled(both, recipe)
    for other in (controlled(both), made(both, recipe), controlled(both, recipe, MIRRORED)):
        assert is_first_picture_other(mixed, other)
    assert controlled(both, recipe).pngs[0] == mixed.pngs[0]


@pytest.mark.parametrize("unit", [POSE, ONLY_PROMPT], ids=["both", "only prompt"])
@pytest.mark.parametrize("name", ["composite", "spatial"])
def test_rows_of_single_loras_are_told_apart(both: HostServer, as_before, name: str, unit: dict) -> None:
    """LoRAs of next to no weight leave its picture as it is: it acts in the same rows as without them."""
    nothing = {**OWN_ROWS[name], "loras": [{"name": lora, "weight": weight} for lora, weight in NOTHING.items()]}
    assert is_first_picture_same(controlled(both, unit=unit), controlled(both, nothing, unit))


@pytest.mark.parametrize("unit", [POSE, ONLY_PROMPT], ids=["both", "only prompt"])
@pytest.mark.parametrize("more", [{}, {"override_settings": {"pad_cond_uncond": True}, "negative_prompt": "sky " * 90}],
                         ids=["short", "padded"])
def test_texts_one_after_another_are_told_apart(both: HostServer, as_before, unit: dict, more: dict) -> None:
    """As above, with masks."""
    nothing = {**MASKED, "loras": [{**MASKED["loras"][0], "weight": 1e-6}]}
    assert is_first_picture_same(controlled(both, unit=unit, **more), controlled(both, nothing, unit, **more))


def test_guidance_updates_the_latent_with_its_gradient(both: HostServer, as_before) -> None:
    steered = {**OWN_ROWS["contrastive"], "guidance": {"refine": {"0": 3}, "strength": 20.0, "masks": False}}
    losses = [[float(loss) for loss in reply.info["extra_generation_params"]["SciArt loss"].split()] for reply in
              (controlled(both, steered), made(both, steered))]
    assert losses[0][:3] == sorted(losses[0][:3], reverse=True), "each update lowers the loss"
    assert losses[0] != losses[1], "it is that of the controlled picture"


@pytest.mark.parametrize("name", list(MERGED))
def test_references_work_where_all_rows_share_their_weights(both: HostServer, as_before, name: str) -> None:
    mixed = controlled(both, MERGED[name], REFERENCE)
    assert is_first_picture_other(mixed, controlled(both, unit=REFERENCE))
    assert is_first_picture_other(mixed, made(both, MERGED[name]))


@pytest.mark.parametrize("name", [*OWN_ROWS, "masked"])
def test_references_are_refused_where_rows_or_places_differ(both: HostServer, as_before, name: str) -> None:
    refused = controlled(both, EVERY_WAY[name], REFERENCE)
    assert refused.status == 422 and refused.json["detail"]["field"] == "compose"
    assert "reference" in refused.text and "accepted: merge, switch" in refused.text


def test_hires_pass_and_further_batches(both: HostServer, as_before) -> None:
    plain = made(both, OWN_ROWS["composite"], **HIRES)
    reply = controlled(both, OWN_ROWS["composite"], n_iter=2, **HIRES)
    assert reply.status == 200 and is_first_picture_other(reply, plain)
    assert made(both, OWN_ROWS["composite"], **HIRES).pngs[0] == plain.pngs[0]
