"""How much of a GPU's memory merged weights take: by rule, not by what is free; one step back where it runs out;
nothing that stays."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from mixer_bench import assert_near, dense, workload
from pretended_gpu import moved
from pretended_gpu.marks import needs_pretended_gpu

from sciart_ext.errors import SciArtError
from sciart_ext.mixer.device import total_memory
from sciart_ext.mixer.mixer import MERGED_SHARE

CUDA = torch.device("cuda")  # as the host has it: without an index
CONSTANT = workload(changes=1)


class StrictCuda:
    """`torch.cuda.mem_get_info` as strict as that of torch 2.1.2, on a card of which `free` bytes are free."""

    def __init__(self, total: int, free: int):
        self.total, self.free = total, free

    def __call__(self, device=None) -> tuple[int, int]:
        if isinstance(device, str):
            device = torch.device(device)
        if isinstance(device, torch.device) and device.index is None:
            raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{device}")
        if device is not None and not isinstance(device, (torch.device, int)):
            raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{device}")
        return self.free, self.total


@pytest.mark.parametrize("device", [CUDA, torch.device("cuda", 0)])
def test_a_card_is_asked_for_its_memory_in_a_way_that_every_torch_understands(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "mem_get_info", StrictCuda(2**33, 17))
    assert total_memory(device) == 2**33


def model_bytes(bench):
    return sum(weight.nbytes for weight in bench.unet.parameters())


def choice(bench, loras, monkeypatch, total, free, **options):
    monkeypatch.setattr(torch.cuda, "mem_get_info", StrictCuda(total, free))
    mixer = bench.mixer(loras, work=CONSTANT, device=CUDA, **options)
    return mixer.merged_names, mixer.notes


def test_what_is_merged_does_not_depend_on_the_memory_that_is_free(bench, monkeypatch):
    loras = [bench.lora()]
    factors = sum(factor.nbytes for delta in loras[0].layers.values() for factor in (delta.down, delta.up))
    total = model_bytes(bench) * 3 // 2 + factors
    chosen = [choice(bench, loras, monkeypatch, total, free) for free in (0, 10_000, total)]
    assert chosen[0] == chosen[1] == chosen[2]
    names, (note,) = chosen[0]
    taken = sum(bench.layers[name].weight().nbytes for name in names)
    assert 0 < taken <= MERGED_SHARE * (total - model_bytes(bench) - factors) < model_bytes(bench)
    assert note == (f"{len(names)} of {len(loras[0].layers)} layers were merged where {len(loras[0].layers)} would be "
                    "with more GPU memory; the others branched")


def test_a_card_with_room_merges_every_layer_and_says_nothing(bench, monkeypatch):
    names, notes = choice(bench, [bench.lora()], monkeypatch, 100 * model_bytes(bench), 0)
    assert names == set(bench.lora().layers) and notes == []


def test_a_limit_of_the_recipe_is_no_note(bench, monkeypatch):
    names, notes = choice(bench, [bench.lora()], monkeypatch, 100 * model_bytes(bench), 0, memory_limit=10_000)
    assert 0 < len(names) < len(bench.lora().layers) and notes == []


@pytest.fixture
def on_gpu(bench, gpu):
    moved(bench.unet)
    bench.device = "gpu"
    return bench


@needs_pretended_gpu
@pytest.mark.parametrize("work", [CONSTANT, workload()])
def test_where_merged_weights_do_not_fit_after_all_every_layer_branches_and_it_is_said(on_gpu, gpu, work):
    loras, (x, text) = [on_gpu.lora(seed=1), on_gpu.lora("attn", seed=2)], on_gpu.inputs()
    expected = dense(on_gpu, x, text, loras, (0.5, -0.2))
    plain = gpu.memory.live
    mixer = on_gpu.mixer(loras, work=work)
    assert mixer.merged_names == set(mixer.layer_names) and mixer.notes == []
    with mixer:
        mixer.set_gates([(0.5, -0.2)])
        refuse_large_allocations(gpu, mixer)
        assert_near(on_gpu(x, text), expected, 2e-5)
        assert mixer.merged_names == set() and mixer.merged_bytes() == 0
        assert mixer.notes == ["out of GPU memory for merged weights: the layers branched instead"]
        assert_near(on_gpu(x, text), expected, 2e-5)
    assert gpu.memory.live == plain


def refuse_large_allocations(gpu, mixer):
    """From now on there is no memory for the largest stack of merged weights, but for everything else."""
    largest = max(len(stack.layers) * math.prod(stack.layers[0].matrix_shape) * 4 for stack in mixer._stacks)
    allocated = gpu.memory.allocated

    def allocate(storage):
        if storage.nbytes() == largest:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        allocated(storage)

    gpu.memory.allocated = allocate


@needs_pretended_gpu
def test_where_merging_is_asked_for_it_is_not_silently_replaced(on_gpu, gpu):
    mixer = on_gpu.mixer([on_gpu.lora()], "merge")
    with pytest.raises(torch.cuda.OutOfMemoryError), mixer:
        mixer.set_gates([[0.5]])
        refuse_large_allocations(gpu, mixer)
        on_gpu(*on_gpu.inputs())


@needs_pretended_gpu
def test_factors_that_do_not_fit_are_refused_with_what_would(on_gpu, gpu):
    x, text = on_gpu.inputs()
    gpu.memory.limit = gpu.memory.live
    with pytest.raises(SciArtError, match=r"loras: out of memory: the factors of .* accepted: fewer LoRAs"):
        with on_gpu.mixer([on_gpu.lora()], "merge") as mixer:
            mixer.set_gates([[0.5]])
            on_gpu(x, text)


@needs_pretended_gpu
@pytest.mark.parametrize("execution", ["merge", "branch", "auto"])
def test_after_a_pass_nothing_stays_on_a_gpu_unless_it_is_asked_to(on_gpu, gpu, execution):
    loras, (x, text) = [on_gpu.lora()], on_gpu.inputs()
    plain = gpu.memory.live
    mixer = on_gpu.mixer(loras, execution)
    for keeps in (False, True):
        mixer.keeps = keeps
        with mixer:
            mixer.set_gates([[0.5]])
            on_gpu(x, text)
            assert gpu.memory.live > plain
        assert (gpu.memory.live > plain) == keeps
    mixer.release()
    assert gpu.memory.live == plain


@needs_pretended_gpu
def test_what_is_kept_serves_the_next_pass_without_a_kernel(on_gpu, gpu):
    loras, (x, text) = [on_gpu.lora()], on_gpu.inputs()
    with gpu.counting() as plain:
        on_gpu(x, text)
    mixer, counted = on_gpu.mixer(loras, "merge"), []
    mixer.keeps = True
    for _ in range(2):
        with mixer, gpu.counting() as counts:
            mixer.set_gates([[0.5]])
            on_gpu(x, text)
        counted.append(counts)
    assert counted[0].kernels.total() > plain.kernels.total()
    assert counted[1].kernels - plain.kernels == Counter(index_select=1, mul_=1), "but for the gates"
