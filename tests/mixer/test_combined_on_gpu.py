"""Combining on a GPU: masks in bits or bools, blocks of rows of bounded memory, orders of orthogonal LoRAs."""

from __future__ import annotations

import pytest
import torch
from gpu_bench import FIRST, METHODS, POSITIVE, Bench, Root, results, targets
from pretended_gpu.marks import needs_pretended_gpu

from sciart_ext.combine import masks, sparse
from sciart_ext.mixer.gates import Gates

SPARSE = METHODS[1:]
pytestmark = needs_pretended_gpu


@pytest.mark.parametrize("case", ["ties", "dare-linear"])
def test_masks_in_bits_take_two_kernels_more(gpu, case, monkeypatch):
    counted = []
    for fits in (True, False):
        bench = Bench(case, "merge", "gpu")
        monkeypatch.setattr(type(bench.mixer._room), "holds_all", fits)
        with bench.mixer:
            bench.call(FIRST)
            with gpu.counting() as counts:
                found = bench.call(POSITIVE)
        counted.append((counts.kernels.total(), found.to("cpu")))
    assert counted[1][0] - counted[0][0] == 2 * bench.layers and torch.equal(counted[0][1], counted[1][1])


def test_masks_are_bools_where_all_layers_fit_and_bits_where_they_do_not(gpu):
    """Not by which layer comes first."""
    entries = 3 * sum(target.weight().numel() for target in targets(Root()).values() if not target.is_norm)
    kinds = []
    for limit in (10 * entries, entries - 1):
        bench = Bench("ties", "merge", "gpu", memory_limit=limit)
        bench.mixer._room.limit = limit  # of which merged weights take nothing here
        with bench.mixer:
            bench.call(FIRST)
            kinds.append({type(mask) for layer in bench.mixer._layers for mask in layer._masks.held()})
    assert kinds == [{masks.Bools}, {masks.Bits}]


def test_masks_for_which_other_things_have_left_no_room_are_sent_in_bits(gpu, monkeypatch):
    """Bools would be unpacked whole at every change, and let go of."""
    monkeypatch.setattr(sparse, "GPU_BLOCK_ENTRIES", 1)  # eight rows at a time
    bench = Bench("ties", "merge", "gpu")
    with bench.mixer:
        bench.mixer._room.used = bench.mixer._room.limit
        for gates in (FIRST, POSITIVE):
            with gpu.counting() as counts:
                bench.call(gates)
        bits = sum(layer._sendable.nbytes for layer in bench.mixer._layers)
        factors = [item for layer in bench.mixer._layers for item in layer.factors.values()]
        sent = sum(item.down.nbytes + item.up.nbytes for item in factors)
        assert not counts.waits and bits + sent < counts.crossed < bits + sent + 2048
        blocks = sum(layer.matrix_shape[0] // 8 for layer in bench.mixer._layers)
        assert counts.kernels["bitwise_and_"] == blocks > bench.layers, "unpacked a block at a time"
        bench.mixer._room.used = 0


@pytest.mark.parametrize("case", SPARSE)
def test_blocks_of_rows_give_the_same_and_bound_the_memory_that_a_change_takes(gpu, case, monkeypatch):
    whole = results(case, "merge", "gpu", (FIRST, POSITIVE))
    monkeypatch.setattr(sparse, "GPU_BLOCK_ENTRIES", 1000)
    for one, other in zip(results(case, "merge", "gpu", (FIRST, POSITIVE)), whole):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    bench = Bench(case, "merge", "gpu", dtype=torch.float16)
    layer = next(layer for layer in bench.mixer._layers if layer.name == "unet_strided")
    weight, gates = layer.target.weight().detach(), Gates([FIRST])
    merged = torch.empty_like(weight)
    with torch.no_grad():
        layer.write_merged(weight, merged, gates)
        live = gpu.memory.live
        torch.gpu.reset_peak_memory_stats()
        layer.write_merged(weight, merged, gates)
    eight_rows = 8 * weight[0].numel()
    assert 4 * 3 * eight_rows < gpu.memory.peak - live <= 23 * 3 * eight_rows < 4 * 3 * 2 * weight.numel()


@pytest.mark.parametrize("case", SPARSE[:2])
def test_one_lora_or_two_may_be_silent(gpu, case):
    """Neighbours or not, in any place."""
    for gates in ((0.0, 0.5, 0.2), (0.4, 0.0, -0.3), (0.3, 0.2, 0.0), (0.0, 0.0, 0.7)):
        found = []
        for device in ("cpu", "gpu"):
            bench = Bench(case, "merge", device)
            with bench.mixer:
                found.append(bench.call(gates).to("cpu"))
        torch.testing.assert_close(*found, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("mode", ["merge", "branch"])
def test_a_new_order_of_orthogonal_loras_solves_nothing_on_the_device_and_is_sent_without_a_wait(gpu, mode):
    bench = Bench("orthogonal", mode, "gpu")
    with bench.mixer:
        for gates in (FIRST, (0.2, 0.5, 0.4)):
            with gpu.counting() as counts:
                bench.call(gates)
            assert not any("linalg" in name or "svd" in name or "qr" in name for name in counts.kernels)
        assert not counts.waits and counts.crossed > 10_000
        with gpu.counting() as counts:
            bench.call(FIRST)
        assert not counts.waits and counts.crossed < 2048


@pytest.mark.parametrize("density", [0.01, 0.4, 1.0])
def test_the_largest_entries_are_those_that_the_cpu_finds(gpu, density):
    delta = torch.randn(37, 41, generator=torch.Generator().manual_seed(2))
    delta[:5] = delta[5:10]  # entries that are alike
    kept = masks.largest(delta, density)
    there = masks.largest(delta.to("gpu"), density)
    assert torch.equal(there.to("cpu"), kept) and torch.equal(masks.pack(there), masks.pack(kept))
