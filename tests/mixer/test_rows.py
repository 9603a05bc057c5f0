"""Gates by row: rows are taken in order over the calls of a step, and equal runs of each row alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lora_files import factors
from torch import nn

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from mixer_bench import WITH_PRETENDED, Bench, assert_near, workload

from sciart_ext.lora.file import LoraFile
from sciart_ext.lora.low_rank import LowRank
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import Target


def one_by_one(bench, loras, x, text, rows):
    """Each row run on its own with its own gates, merged."""
    outputs = []
    with bench.mixer(loras, "merge") as mixer:
        for i, gates in enumerate(rows):
            mixer.set_gates([gates])
            outputs.append(bench(x[i:i + 1], text[i:i + 1]))
    return torch.cat(outputs)


ROWS = [(0.5, 0.0), (0.0, 0.0), (-0.3, 0.7), (1.0, 0.2)]


@pytest.mark.parametrize("device", WITH_PRETENDED)
def test_rows_with_different_gates_equal_runs_of_each_row_alone(device):
    bench = Bench(device=device)
    loras, (x, text) = [bench.lora(seed=1), bench.lora("attn", rank=4, seed=2)], bench.inputs(4)
    expected = one_by_one(bench, loras, x, text, ROWS)
    with bench.mixer(loras, "branch") as mixer:
        mixer.set_gates(ROWS)
        assert_near(bench(x, text), expected, 2e-5)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 2), (1, 3), (3, 1)])
def test_rows_are_taken_in_order_over_the_calls_of_a_step(bench, snapshot, sizes):
    loras, (x, text) = [bench.lora(seed=1), bench.lora("attn", rank=4, seed=2)], bench.inputs(4)
    expected = one_by_one(bench, loras, x, text, ROWS)
    with bench.mixer(loras, "branch") as mixer:
        for _ in range(2):  # a new step begins with the first row again
            mixer.set_gates(ROWS)
            actual = torch.cat([bench(*part) for part in zip(x.split(sizes), text.split(sizes))])
            assert_near(actual, expected, 2e-5)


def test_rows_alike_within_each_call_can_be_merged(bench, snapshot):
    rows, loras, (x, text) = [(0.5,), (0.5,), (-0.2,), (-0.2,)], [bench.lora()], bench.inputs(4)
    expected = one_by_one(bench, loras, x, text, rows)
    with bench.mixer(loras, "merge") as mixer:
        mixer.set_gates(rows)
        assert_near(torch.cat([bench(x[:2], text[:2]), bench(x[2:], text[2:])]), expected, 2e-5)


def test_silent_calls_between_those_of_a_step_are_without_loras_and_count_no_rows(bench, snapshot):
    loras, (x, text) = [bench.lora(seed=1), bench.lora("attn", rank=4, seed=2)], bench.inputs(4)
    expected, without = one_by_one(bench, loras, x, text, ROWS), bench(x, text)
    with bench.mixer(loras, "branch") as mixer:
        mixer.set_gates(ROWS)
        first = bench(x[:3], text[:3])
        with mixer.silent():
            assert_near(bench(x, text), without, 1e-6)
        assert_near(torch.cat([first, bench(x[3:], text[3:])]), expected, 2e-5)


def test_more_rows_than_gates_is_an_error(bench, snapshot):
    x, text = bench.inputs(3)
    with bench.mixer([bench.lora()], "branch") as mixer:
        mixer.set_gates([[0.5], [0.2]])
        with pytest.raises(RuntimeError, match=r"called with 3 rows in a step of 2; another extension"):
            bench(x, text)
        mixer.set_gates([[0.5], [0.1]])
        bench(x[:2], text[:2])
        with pytest.raises(RuntimeError, match=r"called with 3 rows in a step of 2"):
            bench(x[:1], text[:1])


def test_one_row_of_gates_serves_any_number_of_rows_and_calls(bench, snapshot):
    x, text = bench.inputs(4)
    with bench.mixer([bench.lora()]) as mixer:
        mixer.set_gates([[0.5]])
        whole = bench(x, text)
        assert_near(torch.cat([bench(x[:3], text[:3]), bench(x[3:], text[3:])]), whole, 2e-5)


def test_gates_that_differ_between_rows_are_refused_in_a_pass_that_was_merged(bench, snapshot):
    with bench.mixer([bench.lora()], "merge") as mixer:
        mixer.set_gates([[0.5], [0.2]])
        with pytest.raises(RuntimeError, match="gates differ between rows"):
            bench(*bench.inputs(2))


class Tiled(nn.Module):
    """What extensions do that cut pictures into tiles: inside, each row becomes several."""

    def __init__(self, tiles):
        super().__init__()
        self.tiles, self.layer = tiles, nn.Linear(6, 5)
        self.conv = nn.Conv2d(6, 5, 3)

    def forward(self, x):
        x = x[:1].expand(5, -1, -1, -1) if self.tiles == "odd" else x.repeat_interleave(self.tiles, dim=0)
        return self.layer(x.permute(0, 2, 3, 1)), self.conv(x)


def tiled(tiles):
    torch.manual_seed(0)
    root = Tiled(tiles)
    layers = {"unet_a": Target(root.layer, "weight", root), "unet_b": Target(root.conv, "weight", root)}
    lora = LoraFile("a", Path("a.safetensors"), "LoRA", "unknown", {
        "unet_a": LowRank(*factors((5, 6), 2, 0), 1.0), "unet_b": LowRank(*factors((5, 6, 3, 3), 2, 1), 1.0)})
    mixer = Mixer(root, layers, [lora], execution="branch")
    mixer.choose(workload(rows_differ=True))
    return root, mixer


def test_rows_cut_into_tiles_keep_their_gates():
    root, mixer = tiled(3)
    x, rows = torch.randn(2, 6, 4, 4), [[0.5], [-0.3]]
    with torch.no_grad(), mixer:
        mixer.set_gates(rows)
        both = root(x)
        for i, row in enumerate(rows):
            mixer.set_gates([row])
            for part, alone in zip(both, root(x[i:i + 1])):
                torch.testing.assert_close(part[3 * i:3 * i + 3], alone)


def test_an_output_that_another_hook_has_laid_out_anew_is_added_to():
    root, mixer = tiled(1)
    x = torch.randn(2, 6, 4, 4)
    with torch.no_grad():
        with mixer:
            mixer.set_gates([[0.5], [-0.3]])
            expected = root(x)[0]
        with root.layer.register_forward_hook(lambda module, args, y: y.transpose(0, 1).clone(
                memory_format=torch.contiguous_format).transpose(0, 1)), mixer:
            mixer.set_gates([[0.5], [-0.3]])
            actual = root(x)[0]
    torch.testing.assert_close(actual, expected)


def test_rows_that_cannot_be_told_apart_are_an_error():
    root, mixer = tiled("odd")
    with torch.no_grad(), mixer:
        mixer.set_gates([[0.5], [-0.3]])
        with pytest.raises(RuntimeError, match="was called with 5 rows where 2 were expected"):
            root(torch.randn(2, 6, 4, 4))


def test_gates_written_over_earlier_ones_reach_every_layer(bench, snapshot):
    """Of calls of one row and of several, with the same and with different gates, for inference and not."""
    loras, (x, text) = [bench.lora(seed=1), bench.lora("attn", rank=4, seed=2)], bench.inputs(4)
    steps = [ROWS, ROWS[::-1], ROWS[:1], ROWS[3:], ROWS[1:2], ROWS[:2] * 2, ROWS]
    expected = [one_by_one(bench, loras, x, text, rows if len(rows) > 1 else rows * 4) for rows in steps]
    with bench.mixer(loras, "branch") as mixer:
        for mode in (torch.no_grad, torch.inference_mode, torch.no_grad):
            for rows, wanted in zip(steps, expected):
                with mode():
                    mixer.set_gates(rows)
                    assert_near(bench(x, text), wanted, 2e-5)


def test_a_gradient_sees_the_gates_that_its_own_call_had(bench, snapshot):
    loras, (x, text) = [bench.lora(seed=1)], bench.inputs(1)
    bench.unet.requires_grad_(False)

    def gradient(*gates):
        """Of the sum of calls with these gates."""
        own = x.clone().requires_grad_()
        total = 0
        for gate in gates:
            mixer.set_gates([[gate]])
            bench(x, text)
            total = total + bench(own, text, grad=True).square().sum()
        mixer.set_gates([[0.1]])
        bench(x, text)
        total.backward()
        return own.grad

    with bench.mixer(loras, "branch") as mixer:
        apart = [gradient(gate) for gate in (0.5, -0.8)]
        assert_near(gradient(0.5, -0.8), sum(apart), 2e-5)
        assert (apart[0] - apart[1]).abs().max() > 0.01 * apart[0].abs().max(), "the gates must matter here"
