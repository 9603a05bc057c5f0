"""Kinds of deltas and ways of combining on a GPU: what the CPU gives, without waiting for the device, in few kernels,
and nothing that stays. What it takes is counted on a pretended one."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from gpu_bench import CASES, FIRST, METHODS, MODES, POSITIVE, SECOND, THIRD, Bench, Root, results, targets
from lora_files import TinyOpenClip
from lora_kinds import MATRICES, NEED_THE_WEIGHT, delta_of_kind
from pretended_gpu import PretendedGpu
from pretended_gpu.marks import needs_pretended_gpu

from sciart_ext.lora.file import LoraFile
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import open_clip_layers
from sciart_ext.recipe.combining import Combination, CombiningSettings

pytestmark = needs_pretended_gpu


GATES = (FIRST, SECOND, (0.0, 0.0, 0.0), (0.5, 0.0, 0.3), FIRST, THIRD, THIRD)


@functools.cache
def on_cpu(case, mode):
    return results(case, mode, "cpu", GATES)


@functools.cache
def on_gpu(case, mode, limit):
    """Results, and what the last two calls took: a change of gates, and the same gates again."""
    with PretendedGpu() as gpu:
        bench, found, counted = Bench(case, mode, "gpu", memory_limit=limit), [], []
        with bench.mixer:
            for gates in GATES:
                with gpu.counting() as counts:
                    output = bench.call(gates)
                found.append(output.to("cpu"))
                counted.append(counts)
    return found, *counted[-2:]


@pytest.mark.parametrize("limit", [None, 0])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_it_is_what_the_cpu_gives(case, mode, limit):
    for here, there in zip(on_cpu(case, mode), on_gpu(case, mode, limit)[0]):
        torch.testing.assert_close(there, here, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("limit", [None, 0])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_nothing_waits_for_the_device(case, mode, limit):
    """But when the files' tensors are seen for the first time."""
    _, change, again = on_gpu(case, mode, limit)
    assert not change.waits and not again.waits
    if limit is None:
        assert change.crossed <= 2048 and not again.crossed  # gates, and the places of rows, alone


# Kernels of one layer: merged, at a change of gates; branched, in a call, its own not counted; where rows differ.
BUDGET = {
    "loha": (5, 8, 8), "loha with cores": (9, 12, 12), "full": (1, 4, 4), "dora by outputs": (10, 13, 13),
    "dora by inputs": (10, 13, 13), "dora of loha": (12, 15, 15), "ia3 by outputs": (3, 6, 6),
    "ia3 by inputs": (3, 6, 6), "oft": (5, 8, 8), "boft": (9, 12, 12), "glora": (8, 10, 11), "orthogonal": (2, 3, 7),
    "ties": (13, 3, 7), "dare-linear": (4, 3, 7), "dare-ties": (13, 3, 7), "magnitude-prune": (4, 3, 7),
}


@pytest.mark.parametrize("case", BUDGET)
def test_it_takes_few_kernels(gpu, case):
    counted = []
    for mode in MODES[:3]:
        bench = Bench(case, mode, "gpu", dtype=torch.float16)
        with gpu.counting() as plain, torch.no_grad():
            bench.root(bench.x)
        with bench.mixer:
            bench.call(FIRST)
            with gpu.counting() as counts:
                bench.call(POSITIVE if mode == "merge" else FIRST)
        counted.append((counts.kernels.total() - plain.kernels.total()) / bench.layers)
    assert all(found <= most for found, most in zip(counted, BUDGET[case])), counted


@pytest.mark.parametrize("limit", [None, 0])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", ["loha", "full", "oft", "norms", "orthogonal", "ties"])
def test_nothing_stays_on_the_device_after_a_pass(gpu, case, mode, limit):
    bench = Bench(case, mode, "gpu", memory_limit=limit)
    before, outputs = gpu.memory.live, []
    for _ in range(2):
        with bench.mixer:
            outputs.append(bench.call(FIRST).to("cpu"))
        assert gpu.memory.live == before and bench.mixer._room.used == 0
    assert torch.equal(*outputs)
    assert all(tensor.device.type == "cpu" for lora in bench.loras for delta in lora.layers.values()
               for tensor in delta.tensors)


@pytest.mark.parametrize("case", ["loha", "dora by outputs", "glora", "oft", "orthogonal", "ties"])
def test_a_hosts_autocast_does_not_round_what_is_merged(gpu, case):
    found = []
    for enabled in (False, True):
        bench = Bench(case, "merge", "gpu")
        with bench.mixer, torch.autocast("gpu", torch.float16, enabled=enabled):
            bench.call(FIRST)
            found.append([slot.merged.to("cpu") for slot in bench.mixer._slots.values()])
    assert all(torch.equal(one, other) for one, other in zip(*found))


@pytest.mark.parametrize("case", ["full", "dora by outputs", "glora", "orthogonal", "ties", "dare-linear"])
def test_merged_weights_are_channels_last_where_the_models_are(gpu, case):
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        bench = Bench(case, "merge", "gpu", layout=layout)
        with bench.mixer:
            bench.call(FIRST)
            with gpu.counting() as counts:
                found.append(bench.call(POSITIVE))
            slot = next(slot for slot in bench.mixer._slots.values() if slot.target.module is bench.root.conv)
            assert slot.merged.is_contiguous(memory_format=layout) and not counts.waits
    torch.testing.assert_close(*(one.to("cpu") for one in found), rtol=2e-5, atol=2e-5)


class Host:
    """Keeps a copy of each weight in main memory, for its own networks are in the model."""

    def __init__(self):
        self.copies = {tuple(target.weight().shape): target.weight().detach().clone()
                       for target in targets(Root()).values()}

    def untouched(self, target):
        return self.copies[tuple(target.weight().shape)]

    def add_networks(self, root):
        with torch.no_grad():
            for target in targets(root).values():
                target.weight().mul_(1.25)


@pytest.mark.parametrize("limit", [None, 0])
@pytest.mark.parametrize("case", sorted(NEED_THE_WEIGHT))
def test_a_copy_that_the_host_keeps_of_its_own_weight_is_sent_once_or_not_waited_for(gpu, case, limit):
    outputs = []
    for device in ("cpu", "gpu"):
        host = Host()
        bench = Bench(case, "merge", device, memory_limit=limit, untouched=host.untouched)
        host.add_networks(bench.root)
        with bench.mixer:
            outputs.append([bench.call(gates).to("cpu") for gates in (FIRST, SECOND)])
            with gpu.counting() as counts:
                bench.call(THIRD)
            host.copies = {shape: 2 * copy for shape, copy in host.copies.items()}
            outputs[-1].append(bench.call(FIRST).to("cpu"))
    assert not counts.waits and (limit == 0 or counts.crossed <= 2048)
    for here, there in zip(*outputs):
        torch.testing.assert_close(there, here, rtol=2e-5, atol=2e-5)
    assert (outputs[1][2] - outputs[1][0]).abs().max() > 1e-3, "another copy is another delta"


@pytest.mark.parametrize("case", [*sorted(MATRICES), *METHODS])
def test_packed_attention_is_merged_without_a_wait(gpu, case):
    """q, k and v are thirds of one parameter."""
    outputs = []
    for device in ("cpu", "gpu"):
        torch.manual_seed(0)
        model = TinyOpenClip().eval().to(device)
        layers = {name: target for name, target in open_clip_layers(model, "te1").items() if not target.is_norm}
        shapes = {name: (12, 12) if "attn" in name else target.weight().shape for name, target in layers.items()}
        loras = [LoraFile(f"a{k}", Path(f"a{k}.safetensors"), "any", "unknown", {
            name: delta_of_kind(case if case in MATRICES else "thin factors", shape, 10 * k + i)
            for i, (name, shape) in enumerate(shapes.items())}) for k in range(2)]
        combination = Combination(case, CombiningSettings(directions=1)) if case in METHODS else None
        x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1)).to(device)
        with torch.no_grad(), Mixer(model, layers, loras, combination=combination) as mixer:
            for gates in ((0.4, 0.3), (0.3, 0.2)):
                mixer.set_gates([gates])
                with gpu.counting() as counts:
                    model(x)
            outputs.append(model(x).to("cpu"))
    torch.testing.assert_close(*outputs, rtol=2e-5, atol=2e-5)
    assert not counts.waits
