"""Recorded maps against diffusers' own attention probabilities; mixed-in LoRAs, early end, clean leaving."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")

from diffusers.models.attention_processor import Attention, AttnProcessor
from random_model import random_unet

from sciart_ext.errors import UnseenAttentionError
from sciart_ext.guidance.attention import AttentionMaps
from sciart_ext.mixer.targets import diffusers_unet_layers

ROWS, HEIGHT, WIDTH, TOKENS = 3, 24, 16, 77


@pytest.fixture(scope="module")
def unet():
    return random_unet().eval()


def call(unet, latents=None):
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(ROWS, 4, HEIGHT, WIDTH, generator=generator) if latents is None else latents
    return unet(given, 500, torch.randn(ROWS, TOKENS, 64, generator=generator)).sample


def recorded(unet, level=2, **options):
    with AttentionMaps(unet, diffusers_unet_layers(unet), level) as maps:
        maps.record(ROWS)
        call(unet, **options)
        return maps.maps()


class Probabilities(AttnProcessor):
    """diffusers' own computation, which keeps what it computed."""

    def __init__(self, kept):
        super().__init__()
        self.kept = kept

    def __call__(self, attn: Attention, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        q, k = (attn.head_to_batch_dim(x) for x in (attn.to_q(hidden_states), attn.to_k(encoder_hidden_states)))
        self.kept.append(attn.get_attention_scores(q, k).unflatten(0, (len(hidden_states), -1)).mean(1))
        return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)


def test_calls_while_looking_away_are_not_recorded(unet):
    expected = recorded(unet)
    with AttentionMaps(unet, diffusers_unet_layers(unet)) as maps:
        maps.record(ROWS)
        with maps.looking_away():
            call(unet, torch.zeros(ROWS, 4, HEIGHT, WIDTH))
        call(unet)
        assert torch.equal(maps.maps(), expected)


@pytest.mark.parametrize(("level", "grid", "layers"), [(2, (6, 4), 5), (1, (12, 8), 5), (0, (24, 16), 5)])
def test_maps_are_the_models_own_probabilities(unet, level, grid, layers):
    before = dict(unet.attn_processors)
    kept = []
    unet.set_attn_processor({name: Probabilities(kept) if "attn2" in name else own for name, own in before.items()})
    call(unet)
    unet.set_attn_processor(before)
    expected = [found for found in kept if found.shape[1] == grid[0] * grid[1]]
    assert len(expected) == layers
    maps = recorded(unet, level)
    assert maps.shape == (ROWS, *grid, TOKENS)
    assert torch.allclose(maps.flatten(1, 2), torch.stack(expected).mean(0), atol=1e-6)
    assert torch.allclose(maps.sum(-1), torch.ones(ROWS, *grid), atol=1e-5)


def test_a_level_the_unet_does_not_attend_at_is_the_deepest(unet):
    assert torch.equal(recorded(unet, 7), recorded(unet, 3))
    assert recorded(unet, 3).shape[1:3] == (3, 2)  # the middle block


def test_calls_follow_one_another(unet):
    with torch.no_grad(), AttentionMaps(unet, diffusers_unet_layers(unet)) as maps:
        maps.record(2 * ROWS)
        call(unet)
        call(unet)
        assert torch.equal(*maps.maps().chunk(2))
        whole = maps.maps()[:2]
        maps.record(2)  # the rows after these are not looked at
        call(unet)
        call(unet)
        assert torch.allclose(maps.maps(), whole, atol=1e-6)


def test_ending_early_gives_the_same_maps_and_gradient(unet):
    gradients = []
    for early in (False, True):
        latents = torch.randn(ROWS, 4, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)).requires_grad_()
        ended = []
        handle = unet.conv_out.register_forward_hook(lambda *_, ended=ended: ended.append(True))
        with AttentionMaps(unet, diffusers_unet_layers(unet)) as maps:
            maps.record(ROWS)
            if early:
                with maps.stopping():
                    call(unet, latents)
            else:
                call(unet, latents)
            loss = maps.maps()[..., 3].square().sum()
        handle.remove()
        assert bool(ended) is not early
        gradients.append(torch.autograd.grad(loss, latents)[0])
    assert gradients[0].any() and torch.equal(*gradients)


def test_it_leaves_no_hooks_and_says_when_nothing_was_seen(unet):
    def hooks():
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in unet.modules())

    before = hooks()
    with AttentionMaps(unet, diffusers_unet_layers(unet)) as maps:
        assert hooks() > before
        with pytest.raises(UnseenAttentionError, match="of 1 rows was not seen"):
            maps.record(1)
            maps.maps()
    assert hooks() == before


def test_keys_are_not_matched_with_another_layers_queries(unet):
    """Where the second layer's queries are made elsewhere."""
    with AttentionMaps(unet, diffusers_unet_layers(unet), 1) as maps:
        attention = maps._layers[1].attention
        own, attention.to_q = attention.to_q, torch.nn.Linear(*reversed(attention.to_q.weight.shape), bias=False)
        maps.record(ROWS)
        try:
            with pytest.raises(UnseenAttentionError):
                call(unet)
        finally:
            attention.to_q = own
