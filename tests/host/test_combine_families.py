"""Combined files of SD 1, SD 2 and SDXL, with convolutions, as the WebUI loads them."""

from __future__ import annotations

import pytest
from pictures import assert_other_picture, assert_same_picture, with_recipe
from server import HostServer

from sciart_ext.cli import main

SETTINGS = {"steps": 6, "sampler_name": "Euler", "width": 128, "height": 128}
WEIGHTS = {"child": 0.5, "watercolor": -0.4, "science": 0.3}


@pytest.mark.parametrize(("checkpoint", "suffix"), [("tiny-sd1", ""), ("tiny-sd2", "-v2"), ("tiny-sdxl", "-xl")])
def test_the_recipes_picture_is_that_of_the_combined_file(host: HostServer, checkpoint: str, suffix: str) -> None:
    folder = host.data / "models" / "Lora"
    given = {name + suffix: weight for name, weight in WEIGHTS.items()}
    files = {method: folder / f"combined-{method}{suffix}.safetensors" for method in ("orthogonal", "dare-ties")}
    host.use_checkpoint(f"{checkpoint}.safetensors")
    try:
        plain = host.txt2img(**SETTINGS)
        for method, file in files.items():
            assert main(["combine", *(f"{name}={weight}" for name, weight in given.items()), "--lora-dir", str(folder),
                         "--method", method, "--rank", "4096", "--precision", "fp32", "--quiet", "--out", str(file)]) == 0
        host.post("/sdapi/v1/refresh-loras")
        for method, file in files.items():
            loaded = host.txt2img(**{**SETTINGS, "prompt": f"a rocket <lora:{file.stem}:1>"})
            loras = [{"name": name, "weight": weight} for name, weight in given.items()]
            mixed = host.txt2img(**SETTINGS, **with_recipe({"loras": loras, "combine": method}))
            assert_same_picture(loaded, mixed)
            assert_other_picture(plain, mixed)
    finally:
        for file in files.values():
            file.unlink(missing_ok=True)
        host.post("/sdapi/v1/refresh-loras")
        host.use_checkpoint("tiny-sd1.safetensors")
