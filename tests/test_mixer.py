"""The mixer on real UNets and text encoders: two executions with one result, and a model left as it was."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lora_files import TinyOpenClip, deltas_for, factors, matrices, tiny_clip, tiny_unet
from torch import nn

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from sciart_ext.errors import SciArtError
from sciart_ext.lora.file import LoraFile
from sciart_ext.lora.kinds import LowRank
from sciart_ext.lora.names import block_of, layer_name
from sciart_ext.mixer import mixer as mixer_module
from sciart_ext.mixer.cost import Workload
from sciart_ext.mixer.fit import check_fit
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.mixture import Part, bind
from sciart_ext.mixer.targets import Target, clip_layers, diffusers_unet_layers, open_clip_layers

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]
DTYPES = {torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
EXECUTIONS = ["merge", "branch"]
TEXT = 3


# --- what the tests are made of -----------------------------------------------------------------------------------

class Bench:
    """A UNet, inputs for it, and LoRAs that reach its layers."""

    def __init__(self, layout="sd1", dtype=torch.float32, device="cpu", **changes):
        self.unet = tiny_unet(layout, **changes).to(device, dtype)
        self.modules = matrices(self.unet)
        self.layers = diffusers_unet_layers(self.unet)
        self.dtype, self.device, self.added = dtype, device, layout == "sdxl"

    def lora(self, pattern="", rank=2, seed=1, dtype=torch.float32, alpha=None, size=1.0):
        """A LoRA on the layers whose diffusers name contains one of the patterns."""
        patterns = (pattern,) if isinstance(pattern, str) else pattern
        names = {name: module for name, module in self.modules.items() if any(part in name for part in patterns)}
        deltas = deltas_for(names, rank, seed, dtype, size)
        scale = 1.0 if alpha is None else alpha / rank
        layers = {layer_name(f"unet.{name}"): LowRank(*pair, scale) for name, pair in deltas.items()}
        return LoraFile(f"lora{seed}", Path(f"lora{seed}.safetensors"), "LoRA", "unknown", layers)

    def inputs(self, rows=2, seed=0):
        generator = torch.Generator().manual_seed(seed)
        channels = self.unet.config.in_channels
        x = torch.randn(rows, channels, 8, 8, generator=generator).to(self.device, self.dtype)
        text = torch.randn(rows, TEXT, 12, generator=generator).to(self.device, self.dtype)
        return x, text

    def __call__(self, x, text, grad=False):
        return run(self.unet, x, text, self.added, grad)

    def mixer(self, loras, execution="auto", work=None, **options):
        """A mixer that has chosen for a pass in which rows may differ only where it branches."""
        mixer = Mixer(self.unet, self.layers, loras, execution=execution, **options)
        mixer.choose(work or workload(rows_differ=execution == "branch"))
        return mixer


@functools.cache
def shared_bench(layout, dtype, device):
    """For tests that say themselves that they leave it as it was."""
    return Bench(layout, dtype, device)


def run(unet, x, text, added=False, grad=False):
    """The UNet's output at time 7."""
    extra = {"text_embeds": x.new_zeros(len(x), 8) + 0.1, "time_ids": x.new_ones(len(x), 6)} if added else None
    with torch.set_grad_enabled(grad):
        return unet(x, 7, text, added_cond_kwargs=extra).sample


def workload(rows_differ=False, calls=20, changes=20):
    return Workload(calls, changes, 2, 8, 8, TEXT, rows_differ)


def dense_weight(weight, name, loras, gates, blocks=None):
    """W + Σ λ·s·b·B·A in float64, from the files' factors alone; flattened matrices, in the weight's shape."""
    total = weight.detach().double().cpu()
    for k, (lora, gate) in enumerate(zip(loras, gates)):
        if name in lora.layers:
            down, up, scale = lora.layers[name]
            factor = blocks[k].get(block_of(name), 1.0) if blocks else 1.0
            delta = up.double().flatten(1) @ down.double().flatten(1)
            total = total + gate * scale * factor * delta.view(total.shape)
    return total


def wide_copy(model):
    """A float64 copy on the CPU, without the hooks that are on the model now."""
    wide = copy.deepcopy(model).double().cpu()
    for module in wide.modules():
        for hooks in Snapshot.HOOKS:
            getattr(module, hooks).clear()
    return wide


def dense_unet(bench, loras, gates, blocks=None):
    """A float64 copy of the UNet that has the LoRAs added to its weights."""
    unet = wide_copy(bench.unet)
    for name, target in diffusers_unet_layers(unet).items():
        original = bench.layers[name].weight()
        target.module.weight = nn.Parameter(dense_weight(original, name, loras, gates, blocks))
    return unet


def dense(bench, x, text, loras, gates, blocks=None):
    return run(dense_unet(bench, loras, gates, blocks), x.double().cpu(), text.double().cpu(), bench.added)


def assert_near(actual, expected, tolerance):
    """Within `tolerance` of the largest number expected."""
    error = (actual.double().cpu() - expected.double().cpu()).abs().max() / expected.double().abs().max()
    assert error < tolerance, f"relative error {error:.2e}"


class Snapshot:
    """What a model is made of, to say afterwards whether it was left as it was."""

    HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called", "_forward_hooks_with_kwargs",
             "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks")

    def __init__(self, model):
        self.model = model
        self.parameters = dict(model.named_parameters())
        self.versions = {name: parameter._version for name, parameter in self.parameters.items()}
        self.values = {name: value.clone() for name, value in model.state_dict().items()}
        self.attributes = {name: set(vars(module)) for name, module in model.named_modules()}
        self.hooks = self.count_hooks()

    def count_hooks(self):
        return {name: [len(getattr(module, hooks)) for hooks in self.HOOKS]
                for name, module in self.model.named_modules()}

    def assert_unwritten(self):
        """The parameters are the same objects with the same bits, never written."""
        now = dict(self.model.named_parameters())
        assert now.keys() == self.parameters.keys()
        for name, parameter in now.items():
            assert parameter is self.parameters[name], name
            assert parameter._version == self.versions[name], name
        for name, value in self.model.state_dict().items():
            assert torch.equal(_bits(value), _bits(self.values[name])), name

    def assert_restored(self):
        """And no hook or attribute is left."""
        self.assert_unwritten()
        assert self.count_hooks() == self.hooks
        assert {name: set(vars(module)) for name, module in self.model.named_modules()} == self.attributes


def _bits(tensor):
    return tensor.clone(memory_format=torch.contiguous_format).flatten().view(torch.uint8)


@pytest.fixture(scope="module", autouse=True)
def one_thread_in_full_precision():
    before = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_num_threads(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def snapshot(bench):
    """The model is looked at before and after every test that asks for this."""
    taken = Snapshot(bench.unet)
    yield taken
    taken.assert_restored()


# --- two executions, one result -----------------------------------------------------------------------------------

KINDS = {
    "attention to_q": ("sd1", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"),
    "cross-attention to_k": ("sd1", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"),
    "attention to_out": ("sd1", "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"),
    "feed-forward in": ("sd1", "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj"),
    "feed-forward out": ("sd1", "up_blocks.2.attentions.1.transformer_blocks.0.ff.net.2"),
    "proj_in, convolution": ("sd1", "down_blocks.0.attentions.1.proj_in"),
    "proj_in, linear": ("sdxl", "down_blocks.1.attentions.1.proj_in"),
    "proj_out, linear": ("sdxl", "up_blocks.0.attentions.2.proj_out"),
    "3 × 3": ("sd1", "down_blocks.1.resnets.0.conv1"),
    "1 × 1": ("sd1", "down_blocks.1.resnets.0.conv_shortcut"),
    "strided": ("sd1", "down_blocks.0.downsamplers.0.conv"),
    "upsampler": ("sd1", "up_blocks.1.upsamplers.0.conv"),
    "first convolution": ("sd1", "conv_in"),
    "last convolution": ("sd1", "conv_out"),
    "time embedding": ("sd1", "time_embedding.linear_1"),
    "time projection": ("sd1", "mid_block.resnets.1.time_emb_proj"),
    "size embedding": ("sdxl", "add_embedding.linear_2"),
    "circular 3 × 3": ("sd1", "down_blocks.1.resnets.0.conv1"),
    "circular strided": ("sd1", "down_blocks.0.downsamplers.0.conv"),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_gives_what_the_dense_weight_gives_under_both_executions(kind, dtype, device, monkeypatch):
    layout, name = KINDS[kind]
    bench = shared_bench(layout, dtype, device)
    if kind.startswith("circular"):  # as the host does for tiling
        for module in bench.modules.values():
            if isinstance(module, nn.Conv2d):
                monkeypatch.setattr(module, "padding_mode", "circular")
    snapshot = Snapshot(bench.unet)
    loras = [bench.lora(name, rank=2, seed=1, dtype=torch.float16, alpha=3.0, size=3.0),
             bench.lora(name, rank=5, seed=2, dtype=torch.bfloat16, size=3.0)]
    canonical, gates = layer_name(f"unet.{name}"), (0.7, -0.4)
    assert canonical in loras[0].layers
    module, outputs = bench.modules[name], {}
    for execution in EXECUTIONS:
        mixer, seen = bench.mixer(loras, execution), []
        assert (mixer.merged_names == set(mixer.layer_names)) == (execution == "merge")
        with mixer:
            mixer.set_gates([gates])
            with module.register_forward_hook(lambda module, args, y, seen=seen: seen.append((args[0], y))):
                bench(*bench.inputs())
        x, outputs[execution] = seen[0]
        wide = wide_copy(module)
        with torch.no_grad():
            plain = wide(x.double().cpu())
            wide.weight.copy_(dense_weight(module.weight, canonical, loras, gates))
            expected = wide(x.double().cpu())
        assert_near(outputs[execution], expected, DTYPES[dtype])
        assert (expected - plain).abs().max() > 5 * DTYPES[dtype] * expected.abs().max(), "the LoRA must matter here"
    assert_near(outputs["branch"], outputs["merge"], DTYPES[dtype])
    snapshot.assert_restored()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
@pytest.mark.parametrize("execution", [*EXECUTIONS, "auto"])
def test_loras_on_all_layers_at_once_give_what_dense_weights_give(layout, execution, device):
    bench = Bench(layout, device=device)
    snapshot = Snapshot(bench.unet)
    loras = [bench.lora(rank=2, seed=1, alpha=1.0, dtype=torch.float16), bench.lora(("attn", "conv1"), rank=3, seed=2),
             bench.lora("ff.net", rank=8, seed=3, dtype=torch.float64)]
    x, text = bench.inputs()
    mixer = bench.mixer(loras, execution)
    for gates in ((0.5, 0.0, 0.0), (0.5, -0.3, 0.2), (0.0, 0.6, 0.1)):
        with mixer:
            mixer.set_gates([gates])
            actual = bench(x, text)
        assert_near(actual, dense(bench, x, text, loras, gates), 2e-5)
        snapshot.assert_restored()


def test_both_executions_agree_when_memory_is_channels_last(bench):
    bench.unet.to(memory_format=torch.channels_last)
    assert not bench.modules["conv_in"].weight.is_contiguous()
    snapshot = Snapshot(bench.unet)
    loras, (x, text) = [bench.lora()], bench.inputs()
    expected = dense(bench, x, text, loras, (0.5,))
    for execution in EXECUTIONS:
        with bench.mixer(loras, execution) as mixer:
            mixer.set_gates([[0.5]])
            assert_near(bench(x.to(memory_format=torch.channels_last), text), expected, 2e-5)
    snapshot.assert_restored()


def test_block_factors_scale_the_blocks_of_their_own_lora(bench, snapshot):
    loras, (x, text) = [bench.lora(seed=1), bench.lora(seed=2)], bench.inputs()
    blocks = [{"in": 1.0, "mid": 0.0, "out": 0.5}, {"in": 0.0}]
    gates = (0.6, 0.4)
    expected = dense(bench, x, text, loras, gates, blocks)
    for execution in EXECUTIONS:
        with bench.mixer(loras, execution, blocks=blocks) as mixer:
            mixer.set_gates([gates])
            assert_near(bench(x, text), expected, 2e-5)
    assert (expected - dense(bench, x, text, loras, gates)).abs().max() > 1e-2


def test_layers_that_all_block_factors_turn_off_are_not_touched(bench):
    mixer = bench.mixer([bench.lora()], blocks=[{"in": 0.0, "mid": 0.0, "out": 0.0}])
    assert {block_of(name) for name in mixer.layer_names} == {None}


# --- rows ---------------------------------------------------------------------------------------------------------

def one_by_one(bench, loras, x, text, rows):
    """Each row run on its own with its own gates, merged."""
    outputs = []
    with bench.mixer(loras, "merge") as mixer:
        for i, gates in enumerate(rows):
            mixer.set_gates([gates])
            outputs.append(bench(x[i:i + 1], text[i:i + 1]))
    return torch.cat(outputs)


ROWS = [(0.5, 0.0), (0.0, 0.0), (-0.3, 0.7), (1.0, 0.2)]


@pytest.mark.parametrize("device", DEVICES)
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


# --- nothing is changed -------------------------------------------------------------------------------------------

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
    assert mixer.merged_bytes() == 0
    assert torch.equal(bench(x, text), plain)


class Interrupted(Exception):
    pass


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
    merge, left = mixer_module.merge, []

    def out_of_memory(*args):
        merge(*args)
        if left and left.pop() == "fail":
            raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(mixer_module, "merge", out_of_memory)
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

    monkeypatch.setattr("sciart_ext.mixer.layer.Layer.add_branch", out_of_memory)
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


# --- what is rebuilt, and when ------------------------------------------------------------------------------------

@pytest.fixture
def rebuilt(monkeypatch):
    """The names of the layers that have been merged since it was cleared."""
    names, merge = [], mixer_module.merge

    def counted(layers, *args):
        names.extend(layer.name for layer in layers)
        merge(layers, *args)

    monkeypatch.setattr(mixer_module, "merge", counted)
    return names


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


# --- gradients ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
def test_gradients_reach_the_input_alike_under_both_executions(layout):
    bench = Bench(layout)
    loras, (x, text) = [bench.lora(seed=1), bench.lora("attn", seed=2)], bench.inputs()
    gates, gradients = (0.5, 0.3), {}
    for execution in EXECUTIONS:
        x_own, text_own = x.clone().requires_grad_(), text.clone().requires_grad_()
        with bench.mixer(loras, execution) as mixer:
            mixer.set_gates([gates])
            loss = bench(x_own, text_own, grad=True).square().sum()
            gradients[execution] = torch.autograd.grad(loss, (x_own, text_own))
    wide = dense_unet(bench, loras, gates)
    x_own, text_own = x.double().requires_grad_(), text.double().requires_grad_()
    expected = torch.autograd.grad(run(wide, x_own, text_own, bench.added, grad=True).square().sum(), (x_own, text_own))
    for i in range(2):
        assert_near(gradients["merge"][i], expected[i], 1e-4)
        assert_near(gradients["branch"][i], expected[i], 1e-4)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_gradients_do_not_build_up_in_the_model(bench, snapshot, execution):
    bench.unet.requires_grad_(False)
    x, text = bench.inputs()
    with bench.mixer([bench.lora()], execution) as mixer:
        mixer.set_gates([[0.5]])
        bench(x.requires_grad_(), text, grad=True).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in bench.unet.parameters())


# --- what fits ----------------------------------------------------------------------------------------------------

def test_a_lora_for_four_channels_fits_an_inpainting_model_of_nine():
    plain, bench = Bench(), Bench(in_channels=9)
    lora, (x, text) = plain.lora("conv_in"), bench.inputs()
    assert lora.layers["unet_input_blocks_0_0"].down.shape[1] == 4
    assert check_fit([lora], bench.layers, "a model") == []
    down, up, scale = lora.layers["unet_input_blocks_0_0"]
    padded = torch.cat([down, torch.zeros(len(down), 5, 3, 3)], dim=1)
    wide = LoraFile("wide", lora.path, "LoRA", "unknown", {"unet_input_blocks_0_0": LowRank(padded, up, scale)})
    for execution in EXECUTIONS:
        with bench.mixer([lora], execution) as mixer:
            mixer.set_gates([[0.5]])
            assert_near(bench(x, text), dense(bench, x, text, [wide], (0.5,)), 2e-5)


def test_a_convolution_of_one_by_one_takes_matrices_and_a_linear_layer_takes_kernels():
    for layout, name in (("sd1", "down_blocks.0.attentions.0.proj_in"), ("sdxl", "down_blocks.1.attentions.0.proj_in")):
        bench = Bench(layout)
        lora, (x, text) = bench.lora(name), bench.inputs()
        canonical = layer_name(f"unet.{name}")
        down, up, scale = lora.layers[canonical]
        other = (down.flatten(1), up.flatten(1)) if layout == "sd1" else (down[..., None, None], up[..., None, None])
        swapped = LoraFile("b", lora.path, "LoRA", "unknown", {canonical: LowRank(*other, scale)})
        assert check_fit([swapped], bench.layers, "a model") == []
        for execution in EXECUTIONS:
            with bench.mixer([swapped], execution) as mixer:
                mixer.set_gates([[0.5]])
                assert_near(bench(x, text), dense(bench, x, text, [lora], (0.5,)), 2e-5)


LAYER = "unet_middle_block_1_transformer_blocks_0_attn2_to_k"


def lora_of(layers, base="SDXL"):
    return LoraFile("child", Path("child.safetensors"), "LoRA", base, layers)


@pytest.mark.parametrize(("down", "up", "shape"), [
    ((2, 2048), (16, 2), (16, 2048)), ((2, 12), (32, 2), (32, 12)), ((2, 12, 3, 3), (16, 2, 1, 1), (16, 12, 3, 3)),
])
def test_a_lora_of_another_shape_is_refused_with_both_shapes(bench, down, up, shape):
    lora = lora_of({LAYER: LowRank(torch.ones(down), torch.ones(up), 1.0)})
    with pytest.raises(SciArtError) as caught:
        check_fit([bench.lora(), lora], bench.layers, "toy.safetensors (SD1)")
    assert caught.value.field == "child.safetensors"
    assert caught.value.message == (f"{LAYER} has shape {shape}, the layer of toy.safetensors (SD1) has (16, 12); "
                                    "it is made for SDXL")
    with pytest.raises(ValueError, match=r"child\.safetensors: .* does not fit"):
        Mixer(bench.unet, bench.layers, [lora])


def test_layers_that_the_model_lacks_are_noted(bench):
    delta = LowRank(*factors((16, 12), 2, 0), 1.0)
    lora = lora_of({LAYER: delta, "unet_label_emb_0_0": delta, "te2_text_model_encoder_layers_0_mlp_fc1": delta})
    assert check_fit([bench.lora(), lora], bench.layers, "toy") == [
        "child: 2 of 3 layers are not in toy and were left out (first: unet_label_emb_0_0)"]
    assert Mixer(bench.unet, bench.layers, [lora]).layer_names == [LAYER]


@pytest.mark.parametrize(("base", "made_for"), [("SDXL", "; it is made for SDXL"), ("unknown", "")])
def test_a_lora_that_fits_no_layer_is_refused(bench, base, made_for):
    lora = lora_of({"unet_label_emb_0_0": LowRank(*factors((16, 12), 2, 0), 1.0)}, base)
    with pytest.raises(SciArtError) as caught:
        check_fit([lora], bench.layers, "toy")
    assert caught.value.field == "child.safetensors"
    assert caught.value.message == f"fits no layer of toy{made_for}; its first layer is unet_label_emb_0_0"


# --- text encoders ------------------------------------------------------------------------------------------------

def text_lora(prefix="te1", rank=3, seed=1):
    shapes = {f"self_attn_{name}": (12, 12) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
    shapes.update({"mlp_fc1": (24, 12), "mlp_fc2": (12, 24)})
    layers = {f"{prefix}_text_model_encoder_layers_{n}_{name}":
              LowRank(*factors(shape, rank, 100 * seed + 10 * n + i), 0.5)
              for n in range(2) for i, (name, shape) in enumerate(shapes.items())}
    return LoraFile(f"text{seed}", Path(f"text{seed}.safetensors"), "LoRA", "unknown", layers)


def add_densely(wide, model, loras, gates):
    """Writes W + ΔW into the float64 copy of an OpenCLIP-like model; q, k and v are thirds of one matrix."""
    for n, (block, own) in enumerate(zip(wide.transformer.resblocks, model.transformer.resblocks)):
        stem = f"te1_text_model_encoder_layers_{n}"
        places = {"mlp_fc1": (block.mlp.c_fc.weight, own.mlp.c_fc.weight),
                  "mlp_fc2": (block.mlp.c_proj.weight, own.mlp.c_proj.weight),
                  "self_attn_out_proj": (block.attn.out_proj.weight, own.attn.out_proj.weight)}
        thirds = zip("qkv", block.attn.in_proj_weight.chunk(3), own.attn.in_proj_weight.chunk(3))
        places.update({f"self_attn_{letter}_proj": (part, own_part) for letter, part, own_part in thirds})
        with torch.no_grad():
            for name, (weight, own_weight) in places.items():
                weight.copy_(dense_weight(own_weight, f"{stem}_{name}", loras, gates))


def entries(count, **fields):
    return [SimpleNamespace(**{"blocks": {}, **fields}) for _ in range(count)]


@pytest.mark.parametrize("device", DEVICES)
def test_text_is_encoded_with_its_gates_and_plainly_afterwards(bench, device):
    clip = tiny_clip().to(device)
    snapshot, tokens = Snapshot(clip), torch.tensor([[48, 3, 4, 5, 49]], device=device)
    loras = [text_lora(seed=1), text_lora(seed=2, rank=2)]
    layers, gates = clip_layers(clip, "te1"), (0.7, -0.4)
    mixture = bind({"unet": Part(bench.unet, bench.layers), "te1": Part(clip, layers)}, loras, entries(2), "toy")
    assert mixture.notes == ()
    wide = wide_copy(clip)
    for name, target in clip_layers(wide, "te1").items():
        target.module.weight = nn.Parameter(dense_weight(layers[name].weight(), name, loras, gates))
    with torch.no_grad():
        plain = clip(tokens).last_hidden_state
        expected = wide(tokens.cpu()).last_hidden_state
        with mixture.encoding(gates):
            for _ in range(2):
                assert_near(clip(input_ids=tokens).last_hidden_state, expected, 2e-5)
        snapshot.assert_restored()
        assert torch.equal(clip(tokens).last_hidden_state, plain)
        with mixture.encoding((0.0, 0.0)):
            snapshot.assert_restored()
            assert torch.equal(clip(tokens).last_hidden_state, plain)
        with pytest.raises(Interrupted), mixture.encoding(gates):
            clip(tokens)
            raise Interrupted
        snapshot.assert_restored()
    assert (expected - plain.double().cpu()).abs().max() > 0.1


def test_block_factors_are_for_the_unet_alone(bench):
    clip = tiny_clip()
    parts = {"unet": Part(bench.unet, bench.layers), "te1": Part(clip, clip_layers(clip, "te1"))}
    lora = text_lora()
    both = LoraFile("both", lora.path, "LoRA", "unknown", {**lora.layers, **bench.lora().layers})
    mixture = bind(parts, [both], entries(1, blocks={"in": 0.0, "mid": 0.0, "out": 0.0}), "toy")
    assert len(mixture.text_encoders[0].layer_names) == 12
    assert not any(block_of(name) for name in mixture.unet.layer_names)


def test_a_mixture_has_no_mixer_for_a_text_encoder_that_no_lora_reaches(bench):
    clip = tiny_clip()
    parts = {"unet": Part(bench.unet, bench.layers), "te1": Part(clip, clip_layers(clip, "te1"))}
    mixture = bind(parts, [bench.lora()], entries(1), "toy")
    assert mixture.text_encoders == ()
    mixture.close()
    mixture.close()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("names", [("",), ("q_proj",), ("k_proj", "v_proj"), ("out_proj",), ("mlp",)], ids=str)
def test_packed_attention_gives_what_dense_weights_give(bench, names, dtype, device):
    torch.manual_seed(0)
    model = TinyOpenClip().to(device, dtype).eval()
    snapshot, layers = Snapshot(model), open_clip_layers(model, "te1")
    assert not any(layers[name].can_branch for name in layers if "attn" in name)
    loras = [text_lora(seed=1), text_lora(seed=2, rank=2)]
    loras[1] = LoraFile("b", loras[1].path, "LoRA", "unknown",
                        {name: delta for name, delta in loras[1].layers.items() if any(part in name for part in names)})
    x, mixer, wide = torch.randn(2, 5, 12).to(device, dtype), Mixer(model, layers, loras), wide_copy(model)
    for gates in ((0.0, 0.6), (0.4, -0.3)):
        add_densely(wide, model, loras, gates)
        with torch.no_grad(), mixer:
            expected = wide(x.double().cpu())
            mixer.set_gates([gates])
            for _ in range(2):
                assert_near(model(x), expected, 2 * DTYPES[dtype])
        snapshot.assert_restored()


def test_packed_weights_are_followed_when_the_host_changes_them():
    torch.manual_seed(0)
    model, lora = TinyOpenClip().eval(), text_lora()
    layers, x = open_clip_layers(model, "te1"), torch.randn(2, 5, 12)
    with torch.no_grad(), Mixer(model, layers, [lora]) as mixer:
        mixer.set_gates([[0.5]])
        model(x)
        for block in model.transformer.resblocks:
            block.attn.in_proj_weight.mul_(0.5)
        wide = wide_copy(model)
        add_densely(wide, model, [lora], (0.5,))
        assert_near(model(x), wide(x.double()), 2e-5)
