"""Each kind of LoRA file gives the picture of the host's own `<lora:…>`; and where the host is wrong, the right one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from format_files import (
    CONVOLUTION,
    NORM,
    UNET,
    UNET_LAYER,
    boft,
    dora,
    full,
    glora,
    ia3,
    layers_of,
    loha,
    loha_with_cores,
    lokr,
    lokr_of_products,
    lokr_whole,
    lora,
    norm,
    oft,
    oft_rescaled,
    tucker,
    write_kind,
)
from pictures import assert_other_picture, assert_same_picture, difference, recipe, with_recipe
from safetensors.torch import load_file, save_file
from server import HostServer

SAMPLING = {"steps": 6, "width": 64, "height": 64, "seed": 5, "sampler_name": "Euler"}
# to a layer that has no bias the host adds one once, and then fails at every picture
WITH_BIAS = re.compile(r"(attn\d\.to_out\.0|ff\.net\.0\.proj|ff\.net\.2)\.weight$")
# name: layers, parts, what the host calls the UNet's part of a key
KINDS = {
    "tucker": (CONVOLUTION, tucker, "lora_unet_"), "loha": (UNET_LAYER, loha, "lora_unet_"),
    "loha-conv": (CONVOLUTION, loha, "lora_unet_"), "loha-cores": (CONVOLUTION, loha_with_cores, "lora_unet_"),
    "lokr": (UNET_LAYER, lokr, "lora_unet_"), "lokr-products": (UNET_LAYER, lokr_of_products, "lora_unet_"),
    "lokr-whole": (UNET_LAYER, lokr_whole, "lora_unet_"), "lokr-conv": (CONVOLUTION, lokr, "lora_unet_"),
    "lokr-conv-whole": (CONVOLUTION, lokr_whole, "lora_unet_"), "dora": (UNET_LAYER, dora(1), "lora_unet_"),
    "dora-conv": (CONVOLUTION, dora(1), "lora_unet_"), "dora-loha": (UNET_LAYER, dora(1, loha), "lora_unet_"),
    "ia3-in": (UNET_LAYER, ia3(True), "lora_unet_"), "ia3-out": (UNET_LAYER, ia3(False), "lora_unet_"),
    "oft": (UNET_LAYER, oft(), "lora_unet_"), "oft-constrained": (UNET_LAYER, oft(0.02), "lora_unet_"),
    "oft-kohya": (re.compile(r"attn\d\.to_[qk]\.weight$"), oft(0.02), "oft_unet_"),
    "oft-rescaled": (CONVOLUTION, oft_rescaled, "lora_unet_"), "boft": (UNET_LAYER, boft, "lora_unet_"),
    "glora-old": (UNET_LAYER, glora("old"), "lora_unet_"), "full": (WITH_BIAS, full, "lora_unet_"),
    "full-conv": (CONVOLUTION, full, "lora_unet_"), "norm": (NORM, norm, "lora_unet_"),
}
XL = ["lokr", "dora", "loha"]


@pytest.fixture(scope="module")
def folder(host: HostServer) -> Iterator[Path]:
    """Where files are put for the host; they are gone afterwards."""
    folder = host.data / "models" / "Lora"
    before = set(folder.iterdir())
    yield folder
    for path in set(folder.iterdir()) - before:
        path.unlink()
    host.post("/sdapi/v1/refresh-loras")


def checkpoint(host: HostServer, name: str) -> Path:
    return host.data / "models" / "Stable-diffusion" / f"{name}.safetensors"


def compare(host: HostServer, weights: dict[str, float], executions=("auto", "branch")) -> None:
    """The host's own picture against ours."""
    plain = host.txt2img(**SAMPLING)
    tags = "".join(f"<lora:{name}:{weight}>" for name, weight in weights.items())
    own = host.txt2img(**{**SAMPLING, "prompt": f"a rocket {tags}"})
    assert_other_picture(plain, own)
    assert "lora errors" not in own.text.lower()
    for execution in executions:
        assert_same_picture(own, host.txt2img(**SAMPLING, **with_recipe(recipe(weights, execution=execution))))
    assert host.txt2img(**SAMPLING).pngs == plain.pngs


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_gives_the_hosts_own_picture(host: HostServer, folder: Path, kind: str) -> None:
    wanted, parts, prefix = KINDS[kind]
    write_kind(folder / f"kind-{kind}.safetensors", checkpoint(host, "tiny-sd1"), wanted, parts, prefix)
    compare(host, {f"kind-{kind}": 0.7})


@pytest.mark.parametrize("kind", XL)
def test_a_kind_gives_the_hosts_own_picture_of_sdxl(host: HostServer, folder: Path, kind: str) -> None:
    """With both text encoders; the second packs q, k and v into one parameter."""
    wanted, parts, prefix = KINDS[kind]
    host.use_checkpoint("tiny-sdxl.safetensors")
    try:
        write_kind(folder / f"kind-{kind}-xl.safetensors", checkpoint(host, "tiny-sdxl"), wanted, parts, prefix)
        compare(host, {f"kind-{kind}-xl": 0.6}, ("auto",))
    finally:
        host.use_checkpoint("tiny-sd1.safetensors")


def test_several_kinds_give_the_hosts_own_picture_where_it_is_right(host: HostServer, folder: Path) -> None:
    """It computes a kind that depends on the weight from what earlier networks left: such a one must come first."""
    for kind in ("oft", "loha", "lokr-conv", "norm"):
        wanted, parts, prefix = KINDS[kind]
        write_kind(folder / f"kind-{kind}.safetensors", checkpoint(host, "tiny-sd1"), wanted, parts, prefix)
    compare(host, {"kind-oft": 0.5, "kind-loha": 0.4, "kind-lokr-conv": 0.6, "kind-norm": 0.5})


def merged_picture(host: HostServer, changed: dict[str, torch.Tensor]):
    """Of a checkpoint whose weights are these, which only the file tells the host."""
    weights = load_file(checkpoint(host, "tiny-sd1"))
    save_file({**weights, **{key: value.to(weights[key].dtype) for key, value in changed.items()}},
              checkpoint(host, "tiny-sd1-changed"))
    configuration = checkpoint(host, "tiny-sd1").with_suffix(".yaml").read_bytes()
    checkpoint(host, "tiny-sd1-changed").with_suffix(".yaml").write_bytes(configuration)
    host.post("/sdapi/v1/refresh-checkpoints")
    try:
        host.use_checkpoint("tiny-sd1-changed.safetensors")
        return host.txt2img(**SAMPLING)
    finally:
        host.use_checkpoint("tiny-sd1.safetensors")
        checkpoint(host, "tiny-sd1-changed").unlink()


def dora_by_outputs(parts, weight):
    """Each output's row has the length that its magnitude says (arXiv 2402.09353, equation 5; as PEFT and LyCORIS)."""
    scale = parts["alpha"] / len(parts["lora_down.weight"])
    direction = weight + (scale * parts["lora_up.weight"].flatten(1) @ parts["lora_down.weight"].flatten(1)
                          ).reshape(weight.shape)
    return parts["dora_scale"] * direction / direction.flatten(1).norm(dim=1).view(parts["dora_scale"].shape)


def glora_of_new(parts, weight):
    """W + W·a1·a2 + b1·b2, times alpha / rank, as LyCORIS itself does since version 3."""
    a1, a2, b1, b2 = (parts[f"{name}.weight"] for name in ("a1", "a2", "b1", "b2"))
    return weight + parts["alpha"] / len(a2) * (weight @ a1 @ a2 + b1 @ b2)


def ia3_of_convolutions(parts, weight):
    """Each output channel has its own factor."""
    return weight * (1 + parts["weight"].view(-1, 1, 1, 1))


UNET_ALONE = re.compile(r"(attn\d\.to_[qkv]|ff\.net\.0\.proj)\.weight$")
DISAGREE = {
    "dora-by-outputs": (UNET_ALONE, dora(0), dora_by_outputs),
    "dora-by-outputs-conv": (CONVOLUTION, dora(0), dora_by_outputs),
    "glora-new": (UNET_ALONE, glora("new", alpha=2.0), glora_of_new),
    "ia3-conv": (CONVOLUTION, ia3(False), ia3_of_convolutions),
}


@pytest.mark.parametrize("kind", DISAGREE)
def test_where_the_host_is_wrong_the_picture_is_that_of_the_authors_formula(host: HostServer, folder: Path,
                                                                            kind: str) -> None:
    wanted, parts, formula = DISAGREE[kind]
    file = write_kind(folder / f"kind-{kind}.safetensors", checkpoint(host, "tiny-sd1"), wanted, parts)
    state, changed = load_file(file), {}
    for key, name, weight in layers_of(checkpoint(host, "tiny-sd1"), wanted):
        assert key.startswith(UNET)
        own = {part[len(name) + 1:]: tensor.double() for part, tensor in state.items() if part.startswith(f"{name}.")}
        changed[key] = formula(own, weight.double())
    right = merged_picture(host, changed)
    assert_other_picture(host.txt2img(**SAMPLING), right)
    for execution in ("auto", "branch"):
        mixed = host.txt2img(**SAMPLING, **with_recipe(recipe({f"kind-{kind}": 1.0}, execution=execution)))
        assert_same_picture(right, mixed)
    own = host.txt2img(**{**SAMPLING, "prompt": f"a rocket <lora:kind-{kind}:1>"})
    assert difference(own.pictures[0], right.pictures[0])[1] > 1.0, "the host has become right: say so in relative.py"


def test_the_order_of_kinds_that_depend_on_the_weight_does_not_matter(host: HostServer, folder: Path) -> None:
    """As it does in the host."""
    for kind in ("dora", "oft"):
        wanted, parts, prefix = KINDS[kind]
        write_kind(folder / f"kind-{kind}.safetensors", checkpoint(host, "tiny-sd1"), wanted, parts, prefix)
    weights = {"kind-dora": 0.8, "kind-oft": 0.9}
    one, other = (host.txt2img(**SAMPLING, **with_recipe(recipe(dict(order))))
                  for order in (weights.items(), reversed(weights.items())))
    assert_same_picture(one, other)
    first, second = (host.txt2img(**{**SAMPLING, "prompt": "a rocket " + "".join(
        f"<lora:{name}:{weight}>" for name, weight in order)}) for order in (weights.items(), reversed(weights.items())))
    assert difference(first.pictures[0], second.pictures[0])[1] > 1.0, "the host's order no longer matters"


@pytest.mark.parametrize("execution", ["auto", "branch"])
def test_a_lora_in_the_prompt_does_not_change_what_a_recipes_dora_does(host: HostServer, folder: Path,
                                                                       execution: str) -> None:
    """It starts from the checkpoint's own weight, as beside a LoRA of the recipe."""
    wanted, parts, prefix = KINDS["dora"]
    write_kind(folder / "kind-dora.safetensors", checkpoint(host, "tiny-sd1"), wanted, parts, prefix)
    together = host.txt2img(**SAMPLING, **with_recipe(recipe({"child": 0.7, "kind-dora": 0.8})))
    apart = host.txt2img(**{**SAMPLING, "prompt": "a rocket <lora:child:0.7>"},
                         **with_recipe(recipe({"kind-dora": 0.8}, execution=execution)))
    assert_same_picture(together, apart)


def test_the_list_tells_kind_rank_and_layers(host: HostServer, folder: Path) -> None:
    host.post("/sdapi/v1/refresh-loras")
    for kind, (told, rank) in {"loha": ("LoHa", 4), "dora": ("DoRA", 4), "norm": ("norm differences", 0),
                               "boft": ("BOFT", 0), "lokr": ("LoKr", 4)}.items():
        wanted, parts, prefix = KINDS[kind]
        write_kind(folder / f"kind-{kind}.safetensors", checkpoint(host, "tiny-sd1"), wanted, parts, prefix)
        listed = {entry["name"]: entry for entry in host.get("/sciart/v1/loras?refresh=true").json}
        entry = listed[f"kind-{kind}"]
        assert (entry["kind"], entry["rank"]) == (told, rank)
        assert entry["unet_layers"] > 10


def test_the_hosts_own_lora_is_still_the_same(host: HostServer, folder: Path) -> None:
    """Guards the writer of these files: a plain LoRA by it is the host's too."""
    write_kind(folder / "kind-plain.safetensors", checkpoint(host, "tiny-sd1"), UNET_LAYER, lora)
    compare(host, {"kind-plain": 0.7})
