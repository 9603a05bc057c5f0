"""Embeddings bundled with a LoRA: their words are known while a recipe's prompts are read, as with `<lora:…>`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pictures import assert_other_picture, assert_same_picture, with_recipe
from safetensors.torch import load_file, save_file
from server import HostServer

SAMPLING = {"steps": 6, "width": 64, "height": 64, "seed": 5, "sampler_name": "Euler", "prompt": "a zorp rocket"}
WORD = "zorp"


def vectors(width: int, seed: int) -> torch.Tensor:
    return torch.randn(2, width, generator=torch.Generator().manual_seed(seed))


EMBEDDINGS = {"tiny-sd1": ("child", {"string_to_param.*": vectors(64, 1)}),
              "tiny-sd2": ("child-v2", {"string_to_param.*": vectors(64, 2)}),
              "tiny-sdxl": ("child-xl", {"clip_l": vectors(64, 3), "clip_g": vectors(64, 4)})}


@pytest.fixture
def bundle(host: HostServer) -> Iterator[callable]:
    folder, written = host.data / "models" / "Lora", []

    def write(checkpoint: str, name: str = "bundle") -> str:
        lora, parts = EMBEDDINGS[checkpoint]
        state = {**load_file(folder / f"{lora}.safetensors"),
                 **{f"bundle_emb.{WORD}.{part}": tensor for part, tensor in parts.items()}}
        written.append(Path(save(state, folder / f"{name}-{checkpoint}.safetensors")))
        return written[-1].stem

    yield write
    for path in written:
        path.unlink()
    host.post("/sdapi/v1/refresh-loras")


def save(state, path):
    save_file(state, path)
    return path


def of_recipe(name: str, **more) -> dict:
    return with_recipe({"loras": [{"name": name, "weight": 0.6, **more}]})


@pytest.mark.parametrize("checkpoint", EMBEDDINGS)
@pytest.mark.parametrize("te_weight", [0.6, 0.0])
def test_its_word_means_what_it_means_to_the_host(host: HostServer, bundle, checkpoint: str, te_weight: float) -> None:
    host.use_checkpoint(f"{checkpoint}.safetensors")
    try:
        plain, name = host.txt2img(**SAMPLING), bundle(checkpoint)
        own = host.txt2img(**{**SAMPLING, "prompt": f"a zorp rocket <lora:{name}:{te_weight}:0.6>"})
        mixed = host.txt2img(**SAMPLING, **of_recipe(name, te_weight=te_weight))
        without = host.txt2img(**SAMPLING, **of_recipe(EMBEDDINGS[checkpoint][0], te_weight=te_weight))
        assert_other_picture(without, mixed)
        assert_same_picture(own, mixed)
        assert "is not used" not in mixed.infotext
        assert host.txt2img(**SAMPLING).pngs == plain.pngs, "the word is still known"
        assert host.txt2img(**SAMPLING, **of_recipe(name, te_weight=te_weight)).pngs == mixed.pngs
        assert WORD not in host.get("/sdapi/v1/embeddings").json["loaded"]
    finally:
        host.use_checkpoint("tiny-sd1.safetensors")


def test_one_for_another_model_is_noted(host: HostServer, bundle) -> None:
    EMBEDDINGS["wide"] = ("child", {"string_to_param.*": vectors(48, 5)})
    mixed = host.txt2img(**SAMPLING, **of_recipe(bundle("wide")))
    assert "the embedding 'zorp' that comes with a LoRA is not used: it is made for another model (48 wide" in \
        mixed.infotext
    assert_same_picture(mixed, host.txt2img(**SAMPLING, **of_recipe("child")))


def test_an_exception_leaves_no_word_behind(host: HostServer, bundle) -> None:
    name, plain = bundle("tiny-sd1"), host.txt2img(**SAMPLING)
    host.post("/probe/fault", {"where": "text_encoder", "at": 1})
    assert host.txt2img(**{**SAMPLING, "prompt": "a zorp robot"}, **of_recipe(name)).status == 500
    host.post("/probe/reset")
    assert WORD not in host.get("/sdapi/v1/embeddings").json["loaded"]
    assert host.txt2img(**SAMPLING).pngs == plain.pngs


def test_a_subject_may_be_the_word_of_an_embedding(host: HostServer, bundle) -> None:
    """Its vectors take as many columns of the attention as there are."""
    given = {"compose": "contrastive", "guidance": {"strength": 0}, "loras": [
        {"name": bundle("tiny-sd1"), "weight": 0.6, "subject": "zorp"},
        {"name": "science", "weight": 0.6, "subject": "rocket"}]}
    steered = host.txt2img(**SAMPLING, **with_recipe(given))
    assert steered.status == 200, steered.text
    assert_other_picture(steered, host.txt2img(**SAMPLING))
