"""What LoRAs may add to a call of SD 1.5's UNet on a GPU: kernels, and waits for it.

Its 192 layers that LoRAs usually reach, at a width of 32: neither depends on the width. Three LoRAs, two rows.
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")

from benchmarks.mixing.engine import random_lora, random_unet
from sciart_ext.lora.file import LoraFile
from sciart_ext.mixer.cost import Workload
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import diffusers_unet_layers

from . import PretendedGpu, moved
from .marks import needs_pretended_gpu

pytestmark = needs_pretended_gpu

LORAS, CHANGE, SAME, ROWS = 3, "change", "same", "rows that differ"
BUDGETS = {("merge", CHANGE): 45, ("merge", SAME): 0, ("branch", CHANGE): 600, ("branch", SAME): 600,
           ("branch", ROWS): 600}


@pytest.fixture(scope="module")
def unet():
    """(the GPU, a call, its counts without LoRAs, the layers, the UNet)."""
    with PretendedGpu() as gpu, torch.no_grad():
        unet = moved(random_unet((32,) * 4, 32, torch.float16, torch.device("cpu")))
        x, text = torch.randn(2, 4, 8, 8).half().to("gpu"), torch.randn(2, 77, 32).half().to("gpu")
        times = torch.full((2,), 500).to("gpu")

        def call():
            with gpu.counting() as counts:
                unet(x, times, text)
            return counts

        call()
        yield call, call(), diffusers_unet_layers(unet), unet


def files_of(layers, dtype):
    files = [random_lora(str(k), layers, k) for k in range(LORAS)]
    return [LoraFile(file.name, file.path, file.kind, file.base, {
        name: delta._replace(down=delta.down.to(dtype), up=delta.up.to(dtype)) for name, delta in file.layers.items()})
        for file in files]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["half files", "single files"])
@pytest.mark.parametrize("execution", ["merge", "branch"])
def test_a_call_costs_no_more_than_its_budget_and_waits_for_nothing(unet, execution, dtype):
    call, plain, layers, root = unet
    mixer = Mixer(root, layers, files_of(layers, dtype), execution=execution)
    mixer.choose(Workload(20, 20, 2, 64, 64, rows_differ=execution == "branch"))
    assert len(mixer.layer_names) == 192
    found = {}
    with mixer:
        for name, rows in (("first", [[0.5] * LORAS]), (CHANGE, [[0.6] * LORAS]), (SAME, [[0.6] * LORAS]),
                           (ROWS, [[0.6] * LORAS, [0.0] * LORAS])):
            if (execution, name) in BUDGETS or name == "first":
                mixer.set_gates(rows)
                found[name] = call()
    for name in found.keys() - {"first"}:
        kernels = found[name].kernels.total() - plain.kernels.total()
        assert kernels <= BUDGETS[execution, name], (name, found[name].kernels - plain.kernels)
        assert found[name].waits == plain.waits, name
        assert not (found[name].kernels - plain.kernels)["_to_copy"], "nothing is cast again"
