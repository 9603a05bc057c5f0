"""LoRAs with masks: in one row each acts where its mask is, as a dense computation of every token has it."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from kinds_bench import LAYERS, VECTORS, lora_of_kind, vector_lora
from lora_kinds import MATRICES
from mixer_bench import (
    LAYOUTS_AND_DEVICES,
    TEXT,
    WITH_PRETENDED,
    Bench,
    assert_near,
    run,
    wide_copy,
    workload,
)
from torch import nn

from sciart_ext.errors import SciArtError, UnknownRowsError, UnseenAttentionError
from sciart_ext.guidance.masked import OwnTexts
from sciart_ext.mixer.targets import NORMS, diffusers_unet_layers
from sciart_ext.mixer.token_gates import TokenGates

LAMBDAS = (0.7, -0.4, 0.3)


def halves(size=8, soft=False):
    """Masks (1, 2, h, w) of two LoRAs: the left and the right, with a hard or a soft edge."""
    ramp = torch.linspace(0, 1, size) if soft else (torch.arange(size) >= size // 2).float()
    right = ramp.expand(size, size)
    return torch.stack([1 - right, right])[None]


def spread(bench, masks, loras=(0, 1)):
    return TokenGates(loras, masks.to(bench.device))


def masked(bench, loras, gates, token_gates, x, text, views, with_masks=(0, 1)):
    """The UNet's output with the first LoRAs masked, the others merged."""
    with bench.mixer(loras, "auto", workload(), masked=with_masks) as mixer:
        mixer.token_gates = token_gates
        mixer.set_gates([gates], views=views)
        return bench(x, text)


def by_hand(bench, x, text, loras, gates, factors):
    """A float64 copy of the model, where each layer adds for each LoRA its dense ΔW x times factors(k, name, y)."""
    unet = wide_copy(bench.unet)
    for name, target in diffusers_unet_layers(unet).items():
        for k, (lora, gate) in enumerate(zip(loras, gates)):
            if name in lora.layers:
                target.module.register_forward_hook(dense_hook(lora.layers[name], gate, k, name, factors))
            if name + ".bias" in lora.layers:
                target.module.register_forward_hook(dense_hook(lora.layers[name + ".bias"], gate, k, name, factors,
                                                               True))
    return run(unet, x.double().cpu(), text.double().cpu(), bench.added)


def dense_hook(delta, gate, k, name, factors, is_bias=False):
    def add(module, args, y):
        own = module.bias if is_bias else module.weight
        channels = y.shape[1 if y.dim() == 4 else -1]
        change = delta.of(torch.zeros(channels).double() if own is None else own).double()
        shape = (1, -1, 1, 1) if y.dim() == 4 else (-1,)
        if is_bias:
            added = change.view(shape).expand_as(y)
        elif isinstance(module, NORMS):
            plain = nn.GroupNorm(module.num_groups, module.num_channels, module.eps, affine=False) \
                if isinstance(module, nn.GroupNorm) else nn.LayerNorm(module.normalized_shape, module.eps, False)
            added = plain(args[0]) * change.view(shape)
        elif y.dim() == 4:
            added = module._conv_forward(args[0], change.view_as(module.weight), None)
        else:
            added = args[0] @ change.view_as(module.weight).T
        return y + gate * factors(k, name, y) * added
    return add


def places(masks, views=None):
    """Factors of `by_hand`: the mask on the layer's own grid by plain means of squares, of each row its view's."""
    def factor(k, name, y):
        if k >= masks.shape[1]:
            return 1.0
        rows = list(views or [0] * len(y))
        mask = masks[rows, k].double()
        if name.endswith(("attn2_to_k", "attn2_to_v")):
            return 1.0
        if y.dim() == 2:
            return mask.mean((1, 2))[:, None]
        side = y.shape[-1] if y.dim() == 4 else int(y.shape[1]**0.5)
        step = mask.shape[-1] // side
        small = mask.view(len(rows), side, step, side, step).mean((2, 4))
        return small[:, None] if y.dim() == 4 else small.flatten(1)[:, :, None]
    return factor


@pytest.mark.parametrize(("layout", "device"), LAYOUTS_AND_DEVICES)
@pytest.mark.parametrize("soft", [False, True])
def test_every_token_has_what_a_dense_computation_of_it_has(layout, device, soft):
    bench = Bench(layout, device=device)
    loras = [bench.lora(seed=1), bench.lora("attn", rank=4, seed=2), bench.lora(seed=3)]
    x, text = bench.inputs(2)
    masks, views = torch.cat([halves(soft=soft), halves(soft=soft).flip(1)]), (0, 1)
    expected = by_hand(bench, x, text, loras, LAMBDAS, places(masks, views))
    assert_near(masked(bench, loras, LAMBDAS, spread(bench, masks), x, text, views), expected, 2e-5)


@pytest.mark.parametrize("device", WITH_PRETENDED)
def test_masks_that_are_one_everywhere_change_nothing(device):
    bench = Bench(device=device)
    loras = [bench.lora(seed=1), bench.lora("attn", rank=4, seed=2), bench.lora(seed=3)]
    x, text = bench.inputs(2)
    with bench.mixer(loras, "merge") as mixer:
        mixer.set_gates([LAMBDAS])
        merged = bench(x, text)
    ones = spread(bench, torch.ones(1, 2, 8, 8))
    assert_near(masked(bench, loras, LAMBDAS, ones, x, text, (0, 0)), merged, 2e-5)


@pytest.mark.parametrize("device", WITH_PRETENDED)
def test_a_place_of_one_subject_reads_the_text_of_this_subject_and_none_other(device):
    """Cross-attention with masks and texts beside the same attention with one text and one LoRA everywhere."""
    bench = Bench(device=device)
    loras = [bench.lora("attn2", seed=1), bench.lora("attn2", rank=4, seed=2)]
    attention = bench.unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.attn2")
    x, text = bench.inputs(2)
    texts = torch.cat([text, *torch.randn(2, 2, TEXT, 12, generator=torch.Generator().manual_seed(4)).to(text)], 1)
    masks, calls = halves(), []
    masks[:, :, :2] = 0  # two lines are nobody's
    with bench.mixer(loras, "branch", masked=(0, 1)) as mixer, OwnTexts(mixer, bench.layers):
        handle = attention.register_forward_hook(lambda module, args, output: calls.append((args[0].clone(), output)))
        mixer.token_gates = TokenGates((0, 1), masks.to(device), has_texts=True)
        mixer.set_gates([(0.7, -0.4)], views=(0, 0))
        bench(x, texts)
    handle.remove()
    (read, together), = calls
    for number, gates in enumerate([(0.0, 0.0), (0.7, 0.0), (0.0, -0.4)]):
        where = (masks[0].sum(0) == 0 if number == 0 else masks[0, number - 1] == 1).flatten().to(device)
        text = texts[:, number * TEXT:(number + 1) * TEXT]
        with bench.mixer(loras, "branch") as mixer, torch.no_grad():
            mixer.set_gates([gates])
            bench(x, text)  # lays the gates before the layers
            alone = attention(read, text)
        assert_near(together[:, where], alone[:, where], 2e-5)


def twice(module, args, kwargs):
    module.is_called = not getattr(module, "is_called", False)
    if module.is_called:
        module(*args, **kwargs)


def with_words_added(module, args, kwargs):
    name, = kwargs.keys() & {"encoder_hidden_states"}
    return args, {**kwargs, name: torch.cat([kwargs[name], kwargs[name][:, :1]], 1)}


def with_rows_added(module, args, kwargs):
    given = {name: torch.cat([one, one]) if isinstance(one, torch.Tensor) else one for name, one in kwargs.items()}
    return tuple(torch.cat([x, x]) for x in args), given


@pytest.mark.parametrize("change", [twice, with_words_added, with_rows_added])
def test_an_attention_that_is_called_otherwise_than_with_its_text_is_refused(change):
    bench = Bench()
    loras, (x, text) = [bench.lora("attn2", seed=1)], bench.inputs(2)
    attention = bench.unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.attn2")
    with bench.mixer(loras, "branch", masked=(0,)) as mixer:
        handle = attention.register_forward_pre_hook(change, with_kwargs=True)
        with OwnTexts(mixer, bench.layers):
            mixer.token_gates = TokenGates((0,), halves()[:, :1], has_texts=True)
            mixer.set_gates([(0.7,)], views=(0, 0))
            with pytest.raises(UnseenAttentionError, match="called twice, or with another text"):
                bench(x, torch.cat([text, text], 1))
        handle.remove()


def test_an_attention_that_is_left_out_is_refused(monkeypatch):
    bench = Bench()
    loras, (x, text) = [bench.lora("attn2", seed=1)], bench.inputs(2)
    attention = bench.unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.attn2")
    block = bench.unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0")
    with bench.mixer(loras, "branch", masked=(0,)) as mixer, OwnTexts(mixer, bench.layers):
        mixer.token_gates = TokenGates((0,), halves()[:, :1], has_texts=True)
        mixer.set_gates([(0.7,)], views=(0, 0))
        monkeypatch.setattr(block, "forward", lambda x, *args, **kwargs: x)
        with pytest.raises(UnseenAttentionError, match="1 cross-attentions did not read"):
            bench(x, torch.cat([text, text], 1))
        monkeypatch.undo()
        mixer.set_gates([(0.7,)], views=(0, 0))
        assert bench(x, torch.cat([text, text], 1)).shape == x.shape
        assert attention is block.attn2


def test_tokens_before_the_first_text_stay_where_they_are(monkeypatch):
    """ControlNet's marks of rows, which it takes away in the place of the UNet's own steps."""
    bench = Bench()
    loras, (x, text) = [bench.lora("attn2", seed=1)], bench.inputs(2)
    forward, found = bench.unet.forward, []

    def without_mark(x, time, text, **kwargs):
        assert (text[:, 0] == 1024).all()
        return forward(x, time, text[:, 1:], **kwargs)

    texts = torch.cat([text, text.flip(1)], 1)
    for is_marked in (False, True):
        if is_marked:
            monkeypatch.setattr(bench.unet, "forward", without_mark)
        with bench.mixer(loras, "branch", masked=(0,)) as mixer, OwnTexts(mixer, bench.layers):
            mixer.token_gates = TokenGates((0,), halves()[:, :1].to(bench.device), has_texts=True)
            mixer.set_gates([(0.7,)], views=(0, 0))
            mark = torch.full_like(texts[:, :1], 1024.0)
            found.append(bench(x, torch.cat([mark, texts], 1) if is_marked else texts))
    assert torch.equal(*found)


def test_rows_that_somebody_adds_within_the_model_are_refused(bench, snapshot):
    loras, (x, text) = [bench.lora("attn1", seed=1)], bench.inputs(2)
    attention = bench.unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.attn1")
    hooks = [attention.register_forward_pre_hook(with_rows_added, with_kwargs=True),
             attention.register_forward_hook(lambda module, args, y: y[:2])]
    with bench.mixer(loras, "auto", workload(), masked=(0,)) as mixer:
        mixer.token_gates = spread(bench, halves()[:, :1], loras=(0,))
        mixer.set_gates([(0.7,)], views=(0, 0))
        with pytest.raises(UnknownRowsError, match="called with 4 rows in a call of 2"):
            bench(x, text)
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("kind", MATRICES)
def test_every_kind_of_delta_keeps_to_its_mask(kind):
    bench = Bench()
    names = ["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "down_blocks.0.downsamplers.0.conv",
             "mid_block.attentions.0.transformer_blocks.0.attn2.to_v", "down_blocks.0.resnets.0.time_emb_proj"]
    loras, (x, text) = [lora_of_kind(bench, kind, names, seed) for seed in (1, 2)], bench.inputs(2)
    masks = halves()
    expected = by_hand(bench, x, text, loras, LAMBDAS[:2], places(masks))
    assert_near(masked(bench, loras, LAMBDAS[:2], spread(bench, masks), x, text, (0, 0)), expected, 2e-4)


@pytest.mark.parametrize("of", VECTORS)
def test_biases_and_norms_keep_to_their_masks(of):
    bench = Bench()
    loras, (x, text) = [vector_lora(bench.unet, VECTORS[of], of, seed) for seed in (1, 2)], bench.inputs(2)
    masks = halves(soft=True)
    expected = by_hand(bench, x, text, loras, LAMBDAS[:2], places(masks))
    assert_near(masked(bench, loras, LAMBDAS[:2], spread(bench, masks), x, text, (0, 0)), expected, 2e-5)


def test_factors_that_vary_are_masked_as_their_loras_are(bench, snapshot):
    loras, (x, text) = [bench.lora(seed=1), bench.lora(seed=2)], bench.inputs(2)
    blocks = [{"mid": [[0, 1], [1, 0.5]]}, {"out": [[0, 1], [1, 0.25]], "in": 0.5}]
    plain = [{"mid": 0.5}, {"out": 0.25, "in": 0.5}]
    found = []
    for its, gates in ((blocks, (0.7, -0.4, 0.35, -0.1)), (plain, (0.7, -0.4))):
        with bench.mixer(loras, "auto", workload(), blocks=its, masked=(0, 1)) as mixer:
            mixer.token_gates = spread(bench, halves())
            mixer.set_gates([gates], views=(0, 0))
            found.append(bench(x, text))
    assert_near(*found, 2e-5)


def test_a_row_does_not_depend_on_the_rows_beside_it(bench, snapshot):
    loras, (x, text) = [bench.lora(seed=1), bench.lora("attn", rank=4, seed=2)], bench.inputs(4)
    masks = torch.cat([halves(), halves().flip(1), halves(soft=True)])
    views, gates = (0, 2, 1, 0), [(0.5, 0.2), (0.0, 0.4), (0.5, 0.2), (1.0, 0.0)]
    alone = []
    with bench.mixer(loras, "branch", masked=(0, 1)) as mixer:
        mixer.token_gates = spread(bench, masks)
        for i in range(4):
            mixer.set_gates(gates[i:i + 1], views=views[i:i + 1])
            alone.append(bench(x[i:i + 1], text[i:i + 1]))
        for sizes in ((4,), (2, 2), (1, 3)):  # the calls of a step take its rows in order
            mixer.set_gates(gates, views=views)
            together = torch.cat([bench(*part) for part in zip(x.split(sizes), text.split(sizes))])
            assert_near(together, torch.cat(alone), 2e-5)


def test_a_gradient_passes_through_masks(bench, snapshot):
    loras, (x, text) = [bench.lora(seed=1)], bench.inputs(2)
    found = []
    for with_masks in ((0,), ()):
        with bench.mixer(loras, "branch", masked=with_masks) as mixer:
            mixer.token_gates = spread(bench, torch.ones(1, 1, 8, 8), loras=(0,))
            mixer.set_gates([(0.7,)], views=(0, 0) if with_masks else ())
            latents = x.clone().requires_grad_()
            found.append(torch.autograd.grad(bench(latents, text, grad=True).square().sum(), latents)[0])
    assert_near(*found, 2e-4)


def test_silent_calls_leave_the_masks_where_they_were(bench, snapshot):
    loras, (x, text) = [bench.lora(seed=1)], bench.inputs(2)
    without = bench(x, text)
    with bench.mixer(loras, "auto", workload(), masked=(0,)) as mixer:
        mixer.token_gates = spread(bench, halves()[:, :1], loras=(0,))
        mixer.set_gates([(0.7,)], views=(0, 0))
        expected = bench(x, text)
        mixer.set_gates([(0.7,)], views=(0, 0))
        first = bench(x[:1], text[:1])
        with mixer.silent():
            assert_near(bench(x, text), without, 1e-6)
        assert_near(torch.cat([first, bench(x[1:], text[1:])]), expected, 2e-5)


def test_rows_in_which_only_loras_without_masks_differ_need_no_masks(bench, snapshot):
    """As where masks are found, for pictures of which some have a style and some do not."""
    loras, (x, text) = [bench.lora(seed=1), bench.lora(seed=2)], bench.inputs(2)
    rows = [(0.0, 0.5), (0.0, 0.0)]
    with bench.mixer(loras, "branch") as mixer:
        mixer.set_gates(rows)
        expected = bench(x, text)
    with bench.mixer(loras, "auto", workload(rows_differ=True), masked=(0,)) as mixer:
        mixer.set_gates(rows)
        assert_near(bench(x, text), expected, 2e-5)
        mixer.set_gates([(0.0, 0.5), (0.1, 0.0)])
        with pytest.raises(RuntimeError, match="its mask is not known"):
            bench(x, text)


@pytest.mark.parametrize("execution", ["merge", "auto"])
@pytest.mark.parametrize("kind", MATRICES)
def test_a_lora_with_a_mask_does_not_see_a_merged_style_in_the_weights(snapshot, kind, execution):
    """DoRA, OFT and others of whom ΔW depends on the weight that it is added to."""
    found = {}
    for way in (execution, "branch"):
        bench = Bench()
        loras, (x, text) = [lora_of_kind(bench, kind, list(LAYERS.values()), 1), bench.lora(seed=2)], bench.inputs(2)
        with bench.mixer(loras, way, workload(), masked=(0,)) as mixer:
            assert (way == "branch") == (not mixer.merged_names)
            mixer.token_gates = spread(bench, halves()[:, :1], loras=(0,))
            mixer.set_gates([(0.7, 0.5)], views=(0, 0))
            found[way] = bench(x, text)
    assert_near(found[execution], found["branch"], 2e-5)


@pytest.mark.parametrize("execution", ["merge", "auto"])
def test_styles_are_merged_where_only_loras_with_masks_have_other_gates_in_the_negative_prompt(bench, snapshot,
                                                                                              execution):
    loras, (x, text) = [bench.lora(seed=1), bench.lora(seed=2)], bench.inputs(2)
    found = {}
    for way in (execution, "branch"):
        with bench.mixer(loras, way, workload(), masked=(0,)) as mixer:
            assert (way == "branch") == (not mixer.merged_names)
            mixer.token_gates = spread(bench, halves()[:, :1], loras=(0,))
            for style in (0.5, 0.2):
                mixer.set_gates([(0.7, style), (0.63, style)], views=(0, 0))
                found.setdefault(way, []).append(bench(x, text))
            mixer.set_gates([(0.7, 0.5), (0.63, 0.4)], views=(0, 0))
            if way != "branch":
                with pytest.raises(RuntimeError, match="the same gates in all rows"):
                    bench(x, text)
    for one, other in zip(found[execution], found["branch"]):
        assert_near(one, other, 2e-5)


def test_calls_whose_places_are_not_known_are_refused(bench, snapshot):
    loras, (x, text) = [bench.lora(seed=1)], bench.inputs(2)
    with bench.mixer(loras, "auto", workload(), masked=(0,)) as mixer:
        mixer.set_gates([(0.7,)])
        with pytest.raises(RuntimeError, match="its mask is not known"):
            bench(x, text)
        mixer.token_gates = spread(bench, halves()[:, :1], loras=(0,))
        mixer.set_gates([(0.7,)], views=(0,))
        with pytest.raises(UnknownRowsError, match="2 rows in a step of 1"):
            bench(x, text)
        mixer.set_gates([(0.7,)], views=(0, 0))
        with pytest.raises(SciArtError, match="latents of 4 × 8 where masks are 8 × 8"):
            bench(x[..., :4], text)


def test_tokens_that_were_merged_are_refused(bench, snapshot):
    """As token merging leaves them: fewer of them go into the attention than the picture has places."""
    loras, (x, text) = [bench.lora("attn1", seed=1)], bench.inputs(2)
    attention = bench.unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.attn1")

    def fewer(module, args, kwargs):
        return (args[0][:, ::2], *args[1:]), kwargs

    hooks = [attention.register_forward_pre_hook(fewer, with_kwargs=True),
             attention.register_forward_hook(lambda module, args, y: y.repeat_interleave(2, 1))]
    with bench.mixer(loras, "auto", workload(), masked=(0,)) as mixer:
        mixer.token_gates = spread(bench, halves()[:, :1], loras=(0,))
        mixer.set_gates([(0.7,)], views=(0, 0))
        with pytest.raises(SciArtError, match="got 32 tokens where the picture has 64"):
            bench(x, text)
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(("height", "width"), [(9, 13), (6, 10), (1, 5)])
def test_grids_of_any_size_have_their_places(height, width):
    bench = Bench()
    loras = [bench.lora(seed=1), bench.lora(seed=2)]
    x, text = torch.randn(1, bench.unet.config.in_channels, height, width), torch.randn(1, TEXT, 12)
    masks = torch.rand(1, 1, height, width).repeat(1, 2, 1, 1)
    found = masked(bench, loras, (0.7, 0.7), spread(bench, masks), x, text, (0,))
    once = masked(bench, loras, (0.7, 0.7), TokenGates((0, 1), masks.to(torch.float64)), x, text, (0,))
    assert found.shape == x.shape
    assert_near(found, once, 2e-5)
