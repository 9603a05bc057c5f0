"""What mixing may cost on a GPU: kernels, waits and bytes beside those of the model, of one call of its UNet.

SD 1.5 at its full size and 512², three LoRAs of rank 32 on its 192 layers, two rows of one picture, half precision.
"""

from __future__ import annotations

import functools

import pytest
import torch

pytest.importorskip("diffusers")

from diffusers import UNet2DConditionModel

from benchmarks.random_weights import lora_of
from sciart_ext.mixer.cost import Workload
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import diffusers_unet_layers

from . import moved
from .hollow import HollowGpu
from .marks import needs_pretended_gpu

pytestmark = [needs_pretended_gpu, pytest.mark.usefixtures("one_thread")]

LATENT, TEXT_WIDTH, STEPS = 64, 768, 20
CHANGED, SAME, ROWS, OTHER_ROWS = "at a change", "gates unchanged", "rows that differ", "other rows that differ"
GATES = [(SAME, [(0.5, 0.4, 0.3)]), (SAME, [(0.5, 0.4, 0.3)]), (CHANGED, [(0.2, 0.6, 0.1)]), (SAME, [(0.2, 0.6, 0.1)])]
DIFFERING = [(OTHER_ROWS, [(0.2, 0.6, 0.1), (0.2, 0.0, 0.1)]), (ROWS, [(0.5, 0.4, 0.3), (0.5, 0.0, 0.3)]),
             (OTHER_ROWS, [(0.2, 0.6, 0.1), (0.2, 0.0, 0.1)])]

# (execution, when): most kernels, and gigabytes that they move
BUDGETS = {
    ("merge", CHANGED): (45, 2.5), ("merge", SAME): (0, 0.0),
    ("branch", CHANGED): (600, 3.0), ("branch", SAME): (600, 3.0), ("branch", OTHER_ROWS): (600, 3.0),
    ("auto", CHANGED): (100, 1.6), ("auto", SAME): (75, 0.3),
}


@functools.cache
def hollow_unet():
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=LATENT, block_out_channels=(320, 640, 1280, 1280),
                                    cross_attention_dim=TEXT_WIDTH).half().eval().requires_grad_(False)
    with HollowGpu():
        return moved(unet)


@functools.cache
def counted(execution, dtype):
    """Of a call without LoRAs, and of calls with LoRAs of this precision in their files by when."""
    unet, found = hollow_unet(), {}
    layers = diffusers_unet_layers(unet)
    loras = [lora_of(name, layers, lambda shape, _: torch.zeros(shape, dtype=dtype), rank=32) for name in "abc"]
    with HollowGpu() as gpu, torch.no_grad():
        mixer = Mixer(unet, layers, loras, execution=execution)
        assert len(mixer.layer_names) == 192
        latents = torch.zeros(2, 4, LATENT, LATENT, device="gpu", dtype=torch.float16)
        text = torch.zeros(2, 77, TEXT_WIDTH, device="gpu", dtype=torch.float16)
        call = functools.partial(unet, latents, torch.full((2,), 500, device="gpu"), text)
        with gpu.counting() as plain:
            call()
        branches = execution == "branch"
        mixer.choose(Workload(STEPS, STEPS, 2, LATENT, LATENT, rows_differ=branches))
        with mixer:
            for when, gates in [*GATES, *(DIFFERING if branches else [])]:
                mixer.set_gates(gates)
                with gpu.counting() as counts:
                    call()
                found[when] = counts
    return plain, found


@pytest.mark.parametrize(("execution", "when"), BUDGETS)
def test_a_call_is_within_its_budget_and_waits_for_nothing(execution, when):
    plain, found = counted(execution, torch.float16)
    kernels, gigabytes = BUDGETS[execution, when]
    assert found[when].kernels.total() - plain.kernels.total() <= kernels, found[when].kernels - plain.kernels
    assert found[when].bytes - plain.bytes <= gigabytes * 1e9
    assert not found[when].waits


@pytest.mark.parametrize(("execution", "when"), [which for which in BUDGETS if which[0] != "auto"])
def test_files_in_single_precision_cost_no_kernel_more(execution, when):
    _, halves = counted(execution, torch.float16)
    _, singles = counted(execution, torch.float32)
    assert singles[when].kernels == halves[when].kernels and not singles[when].waits
