"""The next step's weights, merged while a step runs: the same numbers, and nothing left to do when it comes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from mixer_bench import assert_near, dense, workload
from pretended_gpu import PretendedGpu, moved
from pretended_gpu.marks import needs_pretended_gpu

GATES = [(0.5, -0.2), (0.3, -0.2), (0.3, 0.4), (0.0, 0.4), (0.1, 0.1)]


def mixer_of(bench):
    mixer = bench.mixer(loras_of(bench), "merge")
    mixer.merges_ahead = True
    return mixer


def loras_of(bench):
    return [bench.lora(seed=1), bench.lora("attn", seed=2)]


def test_every_step_has_its_own_weights(bench, snapshot):
    x, text = bench.inputs()
    with mixer_of(bench) as mixer:
        for gates, coming in zip(GATES, [*GATES[1:], None]):
            mixer.set_gates([gates], coming)
            expected = dense(bench, x, text, loras_of(bench), gates)
            for _ in range(2):  # of a sampler that evaluates twice in a step
                assert_near(bench(x, text), expected, 2e-5)
            snapshot.assert_unwritten()


def test_a_step_that_is_another_than_was_expected_has_its_own_weights_too(bench, snapshot):
    x, text = bench.inputs()
    with mixer_of(bench) as mixer:
        for gates, coming in ((GATES[0], GATES[1]), (GATES[2], GATES[1]), (GATES[1], None)):
            mixer.set_gates([gates], coming)
            assert_near(bench(x, text), dense(bench, x, text, loras_of(bench), gates), 2e-5)


def test_a_weight_that_the_host_changes_meanwhile_is_followed(bench):
    x, text = bench.inputs()
    with mixer_of(bench) as mixer:
        mixer.set_gates([GATES[0]], GATES[1])
        bench(x, text)
        with torch.no_grad():
            bench.modules["mid_block.attentions.0.proj_in"].weight.mul_(1.5)
        mixer.set_gates([GATES[1]])
        assert_near(bench(x, text), dense(bench, x, text, loras_of(bench), GATES[1]), 2e-5)


@needs_pretended_gpu
def test_when_the_step_comes_its_gates_alone_are_left_to_do(bench):
    with PretendedGpu() as gpu:
        moved(bench.unet)
        bench.device = "gpu"
        x, text = bench.inputs()
        with gpu.counting() as plain:
            bench(x, text)
        with mixer_of(bench) as mixer:
            mixer.set_gates([GATES[0]], GATES[1])
            bench(x, text)
            mixer.set_gates([GATES[1]])
            with gpu.counting() as counts:
                bench(x, text)
        assert counts.kernels - plain.kernels == Counter(index_select=1, mul_=1) and counts.waits == plain.waits


@needs_pretended_gpu
def test_where_memory_runs_out_for_it_each_step_merges_its_own_and_it_is_said(bench):
    with PretendedGpu() as gpu:
        moved(bench.unet)
        bench.device = "gpu"
        x, text = bench.inputs()
        expected = dense(bench, x, text, loras_of(bench), GATES[1])
        with mixer_of(bench) as mixer:
            mixer.set_gates([GATES[0]])
            bench(x, text)
            gpu.memory.limit = gpu.memory.peak
            mixer.set_gates([GATES[0]], GATES[1])
            bench(x, text)
            mixer.set_gates([GATES[1]])
            assert_near(bench(x, text), expected, 2e-5)
            assert mixer.notes == ["out of GPU memory to merge ahead: each step merged its own weights"]


def test_the_limit_of_memory_holds_for_both_together(bench, snapshot):
    total = sum(bench.layers[name].weight().nbytes for name in bench.lora().layers)
    for limit in (total // 3, total, 2 * total):
        mixer = bench.mixer([bench.lora()], "auto", memory_limit=limit)
        mixer.merges_ahead = True
        mixer.choose(workload(changes=1))
        with mixer:
            mixer.set_gates([[0.5]], [0.2])
            bench(*bench.inputs())
            held = {id(weights): weights.matrices.nbytes for bracket in mixer._brackets
                    for stack in bracket._stacks for weights in (stack.weights, stack.spare) if weights is not None}
            assert limit // 4 < sum(held.values()) <= limit
