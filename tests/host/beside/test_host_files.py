"""The host's own other ways beside a recipe: hypernetworks, embeddings, DreamBooth checkpoints, SD upscale, trainers'
files."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from asking import MERGED, OWN_ROWS, WEIGHTS, is_first_picture_other, is_first_picture_same, made
from beside_host import folder_of
from host_files import write_dreambooth, write_embedding, write_hypernetwork
from pictures import recipe, tags
from server import HERE, HostServer, as_base64

PROMPT = "a rocket and a robot"
TRAINERS = {"kohya": "sd-scripts", "easyphoto": "sd-webui-EasyPhoto"}
DREAMBOOTH = {"override_settings": {"sd_model_checkpoint": "dreambooth.ckpt"}}


@pytest.fixture(scope="module")
def both(webui, tmp_path_factory, tiny_models) -> HostServer:
    folder = tmp_path_factory.mktemp("files")
    checkpoint = tiny_models / "Stable-diffusion" / "tiny-sd1.safetensors"
    dreambooth = write_dreambooth(folder / "dreambooth.ckpt", checkpoint)
    files = {"models/hypernetworks/bent.pt": write_hypernetwork(folder / "bent.pt"),
             "embeddings/sciart-word.pt": write_embedding(folder / "sciart-word.pt"),
             "models/Stable-diffusion/dreambooth.ckpt": dreambooth,
             "models/Stable-diffusion/dreambooth.yaml": dreambooth.with_suffix(".yaml")}
    return webui(files=files)


@pytest.mark.parametrize(("prompt", "more"), [
    (f"{PROMPT} <hypernet:bent:0.8>", {}), (f"{PROMPT}, sciart-word", {}), (PROMPT, DREAMBOOTH)],
    ids=["hypernetwork", "embedding", "DreamBooth"])
class TestBeside:
    def test_constant_weights_are_the_host_s_own(self, both: HostServer, as_before, prompt: str, more: dict) -> None:
        alone = made(both, prompt=prompt, **more)
        own = made(both, prompt=f"{prompt} {tags(WEIGHTS)}", **more)
        assert is_first_picture_other(alone, as_before) and is_first_picture_other(alone, own)
        assert is_first_picture_same(own, made(both, MERGED["constant"], prompt=prompt, **more))

    @pytest.mark.parametrize("name", ["schedule", "composite", "contrastive"])
    def test_both_act(self, both: HostServer, as_before, prompt: str, more: dict, name: str) -> None:
        given = {**MERGED, **OWN_ROWS}[name]
        mixed = made(both, given, prompt=prompt, **more)
        for other in (made(both, prompt=prompt, **more), made(both, given)):
            assert is_first_picture_other(mixed, other)


def test_words_of_an_embedding_can_be_a_subject(both: HostServer, as_before) -> None:
    """It takes as many columns of the attention as it has vectors."""
    given = {**OWN_ROWS["contrastive"], "loras": [
        {"name": "child", "weight": 0.8, "subject": "sciart-word"},
        {"name": "watercolor", "weight": 0.8, "subject": "robot"}]}
    assert is_first_picture_other(made(both, given, prompt="a sciart-word and a robot"),
                                  made(both, OWN_ROWS["contrastive"]))


@pytest.mark.parametrize("name", list(MERGED))
def test_sd_upscale(both: HostServer, as_before, name: str) -> None:
    """Its tiles are pictures of their own with the same recipe."""
    picture = np.random.default_rng(1).integers(0, 255, (128, 128, 3)).astype(np.uint8)

    def upscaled(prompt: str, given: dict | None):
        scripts = {"SciArt": {"args": [given]}} if given else {}
        return both.post("/sdapi/v1/img2img", {
            "prompt": prompt, "init_images": [as_base64(picture)], "steps": 6, "width": 128, "height": 128, "seed": 3,
            "sampler_name": "Euler", "denoising_strength": 0.5, "script_name": "SD upscale",
            "script_args": [None, 64, "Lanczos", 1.5], "alwayson_scripts": scripts})

    plain, mixed = upscaled(PROMPT, None), upscaled(PROMPT, MERGED[name])
    assert mixed.pictures[0].shape == (192, 192, 3) and is_first_picture_other(plain, mixed)
    if name == "constant":
        assert is_first_picture_same(upscaled(f"{PROMPT} {tags(WEIGHTS)}", None), mixed)


@pytest.mark.parametrize("trainer", list(TRAINERS))
def test_a_trainer_s_own_code_writes_what_can_be_mixed(both: HostServer, as_before, tmp_path, trainer: str) -> None:
    folder = folder_of(TRAINERS[trainer])
    path = both.data / "models" / "Lora" / f"of-{trainer}.safetensors"
    done = subprocess.run([sys.executable, HERE / "beside" / "trainers.py", trainer, folder, path], check=False,
                          capture_output=True, text=True)
    if missing := re.search(r"ModuleNotFoundError: No module named '(\w+)'", done.stderr):
        pytest.skip(f"{trainer}'s own code needs {missing[1]}")
    assert done.returncode == 0, done.stderr
    told = next(one for one in both.get("/sciart/v1/loras?refresh=true").json if one["name"] == path.stem)
    assert "error" not in told
    own = made(both, prompt=f"{PROMPT} <lora:{path.stem}:0.7>")
    mixed = made(both, recipe({path.stem: 0.7}))
    assert is_first_picture_other(own, as_before) and is_first_picture_same(own, mixed)
    assert "SciArt notes" not in mixed.infotext, "every layer is found"
