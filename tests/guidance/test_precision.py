"""The gradient of an update in half precision: finite, and nearly that of single precision."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from sciart_ext.guidance import guide as guides
from sciart_ext.recipe import compile_plan, parse_recipe
from sciart_ext.standalone.generate import Settings
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.standalone.prompts.encoding import encode
from sciart_ext.standalone.subjects import enter_layout
from sciart_ext.world import MODEL

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPT = "a rocket and a robot in space"
RECIPE = {"compose": "contrastive", "loras": [{"name": "a", "weight": 1, "subject": "rocket", "trigger": "red"},
                                              {"name": "b", "weight": 1, "subject": "robot"}]}
NOISE = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))


def gradient_in(dtype, device="cpu", **guidance):
    """Losses and gradient of the first update, by the trained tiny model without LoRAs."""
    pipe = load_pipeline(MODEL, device=device)
    recipe = parse_recipe({**RECIPE, "guidance": guidance})
    plan = compile_plan(recipe, 20).first
    text = encode(pipe, PROMPT, 1).tokens
    pipe.unet.to(dtype)
    text = text.detach().expand(2, -1, -1).to(dtype)
    with ExitStack() as stack:
        guide = enter_layout(stack, pipe, SimpleNamespace(plan=plan), Settings(PROMPT), recipe, images=2)
        guide.first = torch.rand(2, 2, 8, 8, generator=torch.Generator().manual_seed(1))
        return guide.gradient(NOISE.to(device), lambda inputs: pipe.unet(inputs.to(dtype), 999, text))


def in_half(dtype):
    try:
        torch.ones(1, 1, dtype=dtype) @ torch.ones(1, 1, dtype=dtype)
    except RuntimeError as error:
        pytest.skip(f"torch {torch.__version__}: {error}")
    return gradient_in(dtype)


@pytest.fixture(scope="module")
def exact():
    return gradient_in(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_nearly_the_same_update(exact, dtype):
    loss, gradient = in_half(dtype)
    assert torch.allclose(loss, exact[0], rtol=0.02)
    assert torch.cosine_similarity(gradient.flatten(), exact[1].flatten(), dim=0) > 0.97


def test_the_scale_changes_nothing_in_single_precision(exact, monkeypatch):
    monkeypatch.setattr(guides, "LOSS_SCALES", (1.0,))
    assert torch.equal(gradient_in(torch.float32)[1], exact[1])


def test_a_scale_too_large_is_replaced_by_a_smaller_one(exact, monkeypatch):
    monkeypatch.setattr(guides, "LOSS_SCALES", (2.0**100, 2.0**12))
    gradient = in_half(torch.float16)[1]
    assert torch.cosine_similarity(gradient.flatten(), exact[1].flatten(), dim=0) > 0.97


def test_a_gradient_that_no_scale_mends_is_an_error(monkeypatch):
    monkeypatch.setattr(guides, "LOSS_SCALES", (float("inf"),))
    with pytest.raises(RuntimeError, match="gradient not finite"):
        gradient_in(torch.float32)


def test_images_of_other_prompts_have_each_the_loss_of_its_own_words():
    pipe = load_pipeline(MODEL, device="cpu")
    recipe = parse_recipe(RECIPE)
    plan = compile_plan(recipe, 20).first
    prompts = [PROMPT, "a robot and a rocket in space", PROMPT]
    text = torch.cat([encode(pipe, prompt, 1).tokens for prompt in prompts]).detach()
    noise, first = torch.cat([NOISE, NOISE[:1]]), torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(1))

    def gradient(chosen):
        with ExitStack() as stack:
            guides = [enter_layout(stack, pipe, SimpleNamespace(plan=plan), Settings(prompts[image]), recipe)
                      for image in chosen]
            guide = guides[0]
            words = {prompts[image]: one.words[0] for image, one in zip(chosen, guides)}
            guide.words, guide.first = [words[prompts[image]] for image in chosen], first[chosen]
            return guide.gradient(noise[chosen], lambda inputs: pipe.unet(inputs, 999, text[chosen]))

    together = gradient([0, 1, 2])
    assert len({round(loss, 4) for loss in together[0].tolist()}) == 3
    for image in range(3):
        loss, found = gradient([image])
        assert torch.allclose(together[0][image], loss[0], rtol=1e-5)
        assert torch.allclose(together[1][image], found[0], atol=1e-6 * found.abs().max().item() + 1e-7, rtol=1e-3)


def test_offloading_changes_nothing(exact):
    assert torch.equal(gradient_in(torch.float32, offload=True)[1], exact[1])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_offloading_takes_less_of_the_devices_memory_and_changes_nothing():
    def measured(offload):
        torch.cuda.reset_peak_memory_stats()
        return gradient_in(torch.float32, "cuda", offload=offload)[1], torch.cuda.max_memory_allocated()

    measured(False)
    (gradient, peak), (offloaded, lower) = measured(False), measured(True)
    assert torch.equal(gradient, offloaded) and lower < peak
