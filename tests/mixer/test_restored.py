"""The mixer leaves the model as it was, whatever happens, and rebuilds only what changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from mixer_bench import EXECUTIONS, Interrupted, Snapshot, assert_near, dense, workload

from sciart_ext.errors import SciArtError
from sciart_ext.lora.names import layer_name
from sciart_ext.mixer.merged import MergedStack
from sciart_ext.mixer.mixture import Part, bind
from sciart_ext.recipe import parse_recipe


@pytest.mark.parametrize("execution", [*EXECUTIONS, "auto"])
def test_zero_gates_give_the_plain_output_exactly(bench, snapshot, execution):
    x, text = bench.inputs()
    plain = bench(x, text)
    with bench.mixer([bench.lora(seed=1), bench.lora(seed=2)], execution) as mixer:
        mixer.set_gates([[0.0, 0.0]])
        assert torch.equal(bench(x, text), plain)
        mixer.set_gates([[0.5, 0.1]])
        assert not torch.equal(bench(x, text), plain)
        mixer.set_gates([[0.0, 0.0]])
        assert torch.equal(bench(x, text), plain)
        mixer.set_gates([[0.0, 0.0], [0.0, 0.0]])
        assert torch.equal(bench(x, text), plain)


def test_a_row_of_zero_gates_is_plain_beside_a_row_that_is_not(bench, snapshot):
    x, text = bench.inputs()
    plain = bench(x, text)
    with bench.mixer([bench.lora()], "branch") as mixer:
        mixer.set_gates([[0.8], [0.0]])
        mixed = bench(x, text)
    assert torch.equal(mixed[1], plain[1])
    assert not torch.equal(mixed[0], plain[0])


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_the_weights_are_never_written_and_the_next_output_is_plain(bench, snapshot, execution):
    x, text = bench.inputs()
    plain = bench(x, text)
    mixer = bench.mixer([bench.lora()], execution)
    with mixer:
        mixer.set_gates([[0.5]])
        bench(x, text)
        snapshot.assert_unwritten()  # also between the calls of a pass
    snapshot.assert_restored()
    mixer.release()
    assert mixer.merged_bytes() == 0
    assert torch.equal(bench(x, text), plain)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("place", ["conv_in", "mid_block.resnets.0.conv1", "conv_out"])
def test_an_exception_within_the_model_leaves_it_as_it_was(bench, snapshot, execution, place):
    def interrupt(module, args):
        raise Interrupted

    x, text = bench.inputs()
    plain, lora = bench(x, text), bench.lora()
    with pytest.raises(Interrupted), bench.mixer([lora], execution) as mixer:
        mixer.set_gates([[0.5]])
        with bench.modules[place].register_forward_pre_hook(interrupt):
            try:
                bench(x, text)
            finally:
                snapshot.assert_unwritten()
    snapshot.assert_restored()
    assert torch.equal(bench(x, text), plain)


def test_an_exception_while_merging_leaves_the_model_as_it_was_and_can_be_repeated(bench, snapshot, monkeypatch):
    x, text = bench.inputs()
    plain, loras = bench(x, text), [bench.lora()]
    write, left = MergedStack.write, []

    def out_of_memory(*args):
        write(*args)
        if left and left.pop() == "fail":
            raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(MergedStack, "write", out_of_memory)
    with bench.mixer(loras, "merge") as mixer:
        for before, gate, after in ((None, 0.5, 0.5), (0.5, 0.2, 0.5), (0.5, 0.2, 0.2)):
            if before is not None:
                mixer.set_gates([[before]])
                bench(x, text)
            left[:] = ["fail", "pass", "pass"]
            mixer.set_gates([[gate]])
            with pytest.raises(torch.cuda.OutOfMemoryError):
                bench(x, text)
            snapshot.assert_unwritten()
            mixer.set_gates([[after]])
            assert_near(bench(x, text), dense(bench, x, text, loras, (after,)), 2e-5)
    snapshot.assert_restored()
    assert torch.equal(bench(x, text), plain)


def test_an_exception_while_branching_leaves_the_model_as_it_was(bench, snapshot, monkeypatch):
    def out_of_memory(*args):
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr("sciart_ext.mixer.branch.LinearBranch.add", out_of_memory)
    with pytest.raises(torch.cuda.OutOfMemoryError), bench.mixer([bench.lora()], "branch") as mixer:
        mixer.set_gates([[0.5]])
        bench(*bench.inputs())


def test_an_exception_between_the_calls_leaves_the_model_as_it_was(bench, snapshot):
    with pytest.raises(Interrupted), bench.mixer([bench.lora()]) as mixer:
        mixer.set_gates([[0.5]])
        bench(*bench.inputs())
        raise Interrupted


def test_closing_twice_is_harmless_and_a_mixer_can_be_used_again(bench, snapshot):
    loras, (x, text) = [bench.lora()], bench.inputs()
    mixer = bench.mixer(loras)
    mixer.close()
    for _ in range(2):
        with mixer:
            mixer.set_gates([[0.5]])
            assert_near(bench(x, text), dense(bench, x, text, loras, (0.5,)), 2e-5)
            mixer.close()
            mixer.close()
            snapshot.assert_restored()


def test_other_hooks_on_the_model_stay(bench):
    seen = []
    for name in ("conv_in", "mid_block.attentions.0.proj_in"):
        bench.modules[name].register_forward_hook(lambda *args: seen.append(1))
    bench.unet.register_forward_pre_hook(lambda *args: seen.append(1))
    snapshot = Snapshot(bench.unet)
    for execution in EXECUTIONS:
        with bench.mixer([bench.lora()], execution) as mixer:
            mixer.set_gates([[0.5]])
            bench(*bench.inputs())
    snapshot.assert_restored()
    assert len(seen) == 6


def test_a_mixer_in_use_is_not_entered_or_changed(bench, snapshot):
    mixer = bench.mixer([bench.lora()])
    with mixer:
        with pytest.raises(RuntimeError, match="in use"):
            mixer.choose(workload())
        with pytest.raises(RuntimeError, match="in use"):
            mixer.__enter__()


@pytest.mark.parametrize("rows", [[], [[]], [[0.5]], [[0.5, 0.5, 0.5]], [[0.5, 0.5], [0.5]], [[0.5, float("nan")]],
                                  [[float("inf"), 0.0]]])
def test_wrong_gates_are_refused(bench, snapshot, rows):
    with bench.mixer([bench.lora(seed=1), bench.lora(seed=2)]) as mixer:
        with pytest.raises(ValueError, match="gates"):
            mixer.set_gates(rows)
        with pytest.raises(RuntimeError, match="before its gates were set"):
            bench(*bench.inputs())


def test_gates_of_an_earlier_pass_do_not_reach_the_next(bench, snapshot):
    mixer = bench.mixer([bench.lora()])
    with mixer:
        mixer.set_gates([[0.5]])
        bench(*bench.inputs())
    with mixer, pytest.raises(RuntimeError, match="before its gates were set"):
        bench(*bench.inputs())


def test_only_layers_whose_gates_changed_are_rebuilt(bench, snapshot, rebuilt):
    loras, (x, text) = [bench.lora(), bench.lora("mid_block.attentions.0.proj", seed=2)], bench.inputs()
    few = set(loras[1].layers)
    assert len(few) == 2
    with bench.mixer(loras, "merge") as mixer:
        for gates, expected in (((0.5, 0.2), set(loras[0].layers)), ((0.5, 0.2), set()), ((0.5, 0.3), few),
                                ((0.5, 0.0), few), ((0.0, 0.3), few), ((0.0, 0.0), set()), ((0.0, 0.3), set()),
                                ((0.5, 0.3), set(loras[0].layers))):
            rebuilt.clear()
            mixer.set_gates([gates])
            actual = bench(x, text)
            assert len(rebuilt) == len(set(rebuilt))
            assert set(rebuilt) <= expected, gates
            if expected:
                assert set(rebuilt) >= few
            assert_near(actual, dense(bench, x, text, loras, gates), 2e-5)


def test_a_weight_that_the_host_changes_is_followed(bench, rebuilt):
    loras, (x, text) = [bench.lora()], bench.inputs()
    name = "down_blocks.0.attentions.0.proj_in"
    module = bench.modules[name]
    with bench.mixer(loras, "merge") as mixer:
        mixer.set_gates([[0.5]])
        bench(x, text)
        rebuilt.clear()
        with torch.no_grad():
            module.weight.mul_(1.5)
        assert_near(bench(x, text), dense(bench, x, text, loras, (0.5,)), 2e-5)
        assert rebuilt == [layer_name(f"unet.{name}")]
        replaced = nn.Parameter(module.weight.detach() - 0.3)
        with torch.no_grad():  # its count of changes tells nothing
            while replaced._version < module.weight._version:
                replaced.mul_(1.0)
        assert replaced._version == module.weight._version
        module.weight = replaced
        assert_near(bench(x, text), dense(bench, x, text, loras, (0.5,)), 2e-5)
        assert len(rebuilt) == 2
    assert module.weight is replaced


def test_a_model_that_is_cast_between_passes_is_followed(bench):
    loras, (x, text) = [bench.lora()], bench.inputs()
    mixer = bench.mixer(loras, "merge")
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.bfloat16, 1e-1), (torch.float32, 2e-5)):
        bench.unet.to(dtype)
        with mixer:
            mixer.set_gates([[0.5]])
            assert_near(bench(x.to(dtype), text.to(dtype)), dense(bench, x, text, loras, (0.5,)), tolerance)


def test_the_host_is_asked_to_update_each_weight_before_it_is_read(bench, snapshot):
    primed = []
    mixer = bench.mixer([bench.lora("mid_block.attentions")], "merge", prime=primed.append)
    with mixer:
        mixer.set_gates([[0.5]])
        bench(*bench.inputs())
    assert {id(module) for module in primed} == {
        id(module) for name, module in bench.modules.items() if "mid_block.attentions" in name}


def test_the_host_is_asked_once_a_pass_and_again_when_its_networks_change(bench, snapshot):
    primed, networks = [], ["none"]
    lora = bench.lora("mid_block.attentions")
    mixer = bench.mixer([lora], "merge", prime=primed.append, primed_for=lambda: networks[0])
    counts = []
    for state in ("none", "none", "another", "another"):
        networks[0] = state
        with mixer:
            for gate in (0.5, 0.5, 0.3):
                mixer.set_gates([[gate]])
                bench(*bench.inputs())
            networks[0] = "changed within the pass"
            bench(*bench.inputs())
        counts.append(len(primed))
    assert counts == [2 * (i + 1) * len(lora.layers) for i in range(4)]


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_on_a_cpu_factors_are_held_once_in_the_precision_of_their_files(bench, execution):
    lora, (x, text) = bench.lora(dtype=torch.float16), bench.inputs()
    expected = dense(bench, x, text, [lora], (0.5,))
    with bench.mixer([lora], execution) as mixer:
        mixer.set_gates([[0.5]])
        assert_near(bench(x, text), expected, 2e-5)
        for stack in mixer._stacks:
            used = stack.on(x.device, x.dtype)
            assert used.down.dtype == used.up.dtype == torch.float16
            assert (used.down.data_ptr(), used.up.data_ptr()) == (stack.down.data_ptr(), stack.up.data_ptr())


def test_merged_weights_stay_within_the_memory_limit(bench, snapshot):
    loras, (x, text) = [bench.lora()], bench.inputs()
    total = sum(bench.layers[name].weight().nbytes for name in loras[0].layers)
    expected = dense(bench, x, text, loras, (0.5,))
    for limit in (0, total // 10, total // 2, 10 * total):
        with bench.mixer(loras, "auto", workload(changes=1), memory_limit=limit) as mixer:
            mixer.set_gates([[0.5]])
            assert_near(bench(x, text), expected, 2e-5)
            held = mixer.merged_bytes()
        assert held <= limit
        assert (held > 0) == (limit > 0)
        assert held >= min(limit, total) // 4


def test_merging_every_layer_is_refused_where_the_limit_is_too_low(bench, snapshot):
    lora = bench.lora()
    total = sum(bench.layers[name].weight().nbytes for name in lora.layers)
    entries = parse_recipe({"loras": [{"name": "a", "weight": 1.0}]}).loras
    parts = {"unet": Part(bench.unet, bench.layers)}
    assert bind(parts, [lora], entries, "toy", "merge", memory_limit=total).unet.touched_bytes() == total
    with pytest.raises(SciArtError, match=r"memory_limit_mb.*merge holds"):
        bind(parts, [lora], entries, "toy", "merge", memory_limit=total - 1)
    for execution in ("auto", "branch"):
        bind(parts, [lora], entries, "toy", execution, memory_limit=0)
