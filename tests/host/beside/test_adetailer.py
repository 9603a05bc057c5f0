"""ADetailer, with a detector that always finds a face: repaired without LoRAs, or with the same recipe, by its setting."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from asking import MERGED, OWN_ROWS, WEIGHTS, is_first_picture_other, is_first_picture_same, made
from beside_host import folder_of
from pictures import difference, tags
from server import HERE, HostServer, clean_environment, webui_folder, webui_python

ITS_DEFAULT = "dynamic_prompting,dynamic_thresholding,wildcard_recursive,wildcards,lora_block_weight,negpip,advanced_" \
              "noise"
FACE = {"ad_model": "face.pt", "ad_confidence": 0.3, "ad_mask_k": 1, "ad_mask_blur": 0,
        "ad_denoising_strength": 0.6, "ad_inpaint_only_masked_padding": 0}
WITH_US = {"override_settings": {"ad_script_names": "sciart"}}


@pytest.fixture(scope="module")
def both(webui, tmp_path_factory) -> HostServer:
    folder_of("adetailer")
    detector = tmp_path_factory.mktemp("detector") / "face.pt"
    done = subprocess.run([webui_python(webui_folder()), HERE / "beside" / "detector.py", detector],
                          env=clean_environment(), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return webui("adetailer", files={"models/adetailer/face.pt": detector},
                 args=("--ad-no-huggingface",), env={"OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "true"})


def repaired(both: HostServer, recipe: dict | None = None, face: dict | None = None, **settings):
    return made(both, recipe, {"ADetailer": [True, False, {**FACE, **(face or {})}]}, **settings)


def test_repairs_are_without_loras_by_default(both: HostServer, as_before) -> None:
    """Only the face's box differs; what the prompt's own LoRAs would do there is another picture."""
    mixed, whole = repaired(both, MERGED["constant"]), made(both, MERGED["constant"])
    changed = np.abs(mixed.pictures[0].astype(int) - whole.pictures[0]).max(-1) > 0
    assert 0.05 < changed.mean() < 0.6
    assert is_first_picture_other(mixed, repaired(both, MERGED["constant"], **WITH_US))


def test_repairs_with_the_recipe_are_the_host_s_own(both: HostServer, as_before) -> None:
    own = repaired(both, prompt=f"a rocket and a robot {tags(WEIGHTS)}")
    assert is_first_picture_same(own, repaired(both, MERGED["constant"], **WITH_US))


@pytest.mark.parametrize("name", [*MERGED, "by row", "composite", "spatial"])
def test_every_way_repairs(both: HostServer, as_before, name: str) -> None:
    recipe = {**MERGED, **OWN_ROWS}[name]
    mixed = repaired(both, recipe, **WITH_US)
    assert is_first_picture_other(mixed, repaired(both, recipe)) and "repaired nothing" not in mixed.infotext
    assert difference(mixed.pictures[0], made(both, recipe).pictures[0])[0] > 0


@pytest.mark.parametrize("name", ["contrastive", "regions"])
def test_what_tells_places_in_the_whole_picture_is_refused_there(both: HostServer, as_before, name: str) -> None:
    refused = repaired(both, OWN_ROWS[name], **WITH_US)
    assert f"ADetailer repaired nothing: compose: {name} tells where" in refused.infotext
    assert refused.pngs[0][:8] == b"\x89PNG\r\n\x1a\n"
    assert (refused.pictures[0] == made(both, OWN_ROWS[name]).pictures[0]).all()
    alone = repaired(both, OWN_ROWS[name])
    assert "repaired nothing" not in alone.infotext and is_first_picture_other(alone, refused)


def test_a_refusal_on_the_way_is_told(both: HostServer, as_before) -> None:
    """AND in its own prompt, which rows of single LoRAs cannot take."""
    refused = repaired(both, OWN_ROWS["composite"], {"ad_prompt": "a face AND a hat"}, **WITH_US)
    assert "ADetailer repaired nothing: compose: composite does not work with AND" in refused.infotext


def test_each_picture_of_a_batch_is_repaired(both: HostServer, as_before) -> None:
    batch = repaired(both, MERGED["schedule"], batch_size=2, n_iter=2, **WITH_US)
    whole = made(both, MERGED["schedule"], batch_size=2, n_iter=2)
    assert len(batch.pictures) == len(whole.pictures) == 4
    for one, other in zip(batch.pictures, whole.pictures):
        assert difference(one, other)[1] > 1.0


def test_influence_is_told_of_repaired_pictures(both: HostServer, as_before) -> None:
    """Every set of LoRAs makes, and repairs, its own picture: that of all of them is the one of the recipe."""
    settings = {"prompt": "a rocket and a robot", "steps": 6, "width": 128, "height": 128, "seed": 3,
                "sampler_name": "Euler", **WITH_US,
                "alwayson_scripts": {"ADetailer": {"args": [True, False, FACE]}}}
    told = both.post("/sciart/v1/influence", {"txt2img": settings, "recipe": MERGED["constant"], "at_once": 4})
    assert told.status == 200, told.text
    assert len(told.json["images"]) == 4
