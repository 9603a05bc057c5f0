"""The peers that `benchmarks.steer` compares with do what their formulas say, on the tiny model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from benchmarks.peers.freefuse import FreeFuse, InMasks, WordBias, WordGates, first_stage, word_bias, words_of
from benchmarks.peers.prompt_aware import (
    Weighted,
    WSwitch,
    importance_by_likeness,
    importance_by_removal,
    mean_encoding,
    turns,
    without,
)
from benchmarks.peers.ways import PEERS, peer_pictures
from benchmarks.tinyworld.sampling import Pictures
from benchmarks.tinyworld.steering import prompt_of
from sciart_ext.compose.fusion import fused
from sciart_ext.mixer.cost import place_of
from sciart_ext.recipe import parse_recipe
from sciart_ext.world import MODEL

TWO = ("red striped rocket", "yellow visor robot")


@pytest.fixture(scope="module")
def pictures():
    """Of few steps: enough to see whether two ways are the same."""
    return Pictures(MODEL, steps=4)


def test_turns_are_as_long_as_the_weights_and_the_first_has_a_step_more():
    assert turns([0.5, 0.5], 8, WSwitch(period=2)) == [0, 0, 0, 1, 1, 0, 0, 1]
    assert turns([0.2, 0.4, 0.4], 8, WSwitch(period=2)) == [0, 0, 1, 1, 2, 2, 0, 1]
    assert turns([0.9, 0.001], 5, WSwitch(period=3)) == [0, 0, 0, 0, 1]  # nobody goes without


def test_the_last_steps_can_be_kept_for_the_first():
    assert turns([0.5, 0.5], 8, WSwitch(period=2, tail=3)) == [0, 0, 0, 1, 1, 0, 0, 0]


def test_words_are_taken_out_of_the_prompt_whole():
    assert without("a red rocket and a rocketeer", "red rocket") == "a and a rocketeer"
    assert without("a red rockets", "red rocket") == "a red rockets"


TEXTS = {"a b": [1.0, 1.0], "b": [0.0, 1.0], "a": [1.0, 0.0], "a b c": [1.0, 1.0]}


def encoded(text: str) -> torch.Tensor:
    return torch.tensor(TEXTS[text])


def test_a_lora_counts_in_turns_as_its_words_change_the_prompt():
    apart = 1 - 0.5**0.5
    assert importance_by_removal(encoded, "a b", ["a", "b"]) == pytest.approx([0.5, 0.5])
    whole = apart + 0.1
    assert importance_by_removal(encoded, "a b", ["a", ""]) == pytest.approx([apart / whole, 0.1 / whole])
    least = [0.05 / (0.05 + 0.1), 0.1 / (0.05 + 0.1)]  # without c the prompt says the same
    assert importance_by_removal(encoded, "a b c", ["c", ""]) == pytest.approx(least)


def test_a_lora_counts_in_composite_as_its_words_are_like_the_prompt(pictures):
    assert importance_by_likeness(encoded, "a b", ["a", ""]) == [1.0, 0.0]
    assert importance_by_likeness(encoded, "a b", ["a", "a b"]) == pytest.approx(
        [0.5**0.5 / (1 + 0.5**0.5), 1 / (1 + 0.5**0.5)])
    both = importance_by_likeness(mean_encoding(pictures), prompt_of(TWO), TWO)
    assert sum(both) == pytest.approx(1) and min(both) > 0.2


def test_weights_are_of_the_predictions():
    cond, uncond = torch.tensor([4.0, 8.0]).view(1, 2, 1, 1, 1), torch.tensor([0.0, 4.0]).view(1, 2, 1, 1, 1)
    found = fused(cond, uncond, Weighted([0.75, 0.25]).weights(cond, 0.0, lambda of: of))
    assert [float(one) for one in found] == [5.0, 1.0]


def test_bias_is_plus_gamma_on_the_own_words_and_minus_beta_on_those_of_others():
    words = torch.tensor([[True, False, False, False], [False, False, True, True]])
    assert word_bias(words, 5.0, 1.0).tolist() == [[1, 0, -5, -5], [-5, 0, 1, 1]]


def test_a_names_words_are_found_and_one_that_is_not_there_is_told(pictures):
    words = words_of(pictures.pipe.tokenizer, prompt_of(TWO), TWO)
    assert words.shape == (2, 77) and not words.all(0).any() and bool((words.sum(1) >= 3).all())
    with pytest.raises(ValueError, match="golden rocket"):
        words_of(pictures.pipe.tokenizer, prompt_of(TWO), ["golden rocket"])


def test_a_lora_acts_in_its_mask_and_not_on_the_words_of_others():
    words = torch.tensor([[True, False, False], [False, True, False]])
    masks = torch.zeros(1, 2, 4, 4)
    masks[0, 0, :, :2], masks[0, 1, :, 2:] = 1, 1
    gates = WordGates((0, 1), masks, words).of_rows((0, 1), (4, 4))
    text = gates.of("text", (0, 1), torch.zeros(2, 3, 8))
    assert text[0].T.tolist() == [[1, 0, 1], [0, 1, 1]]  # with the prompt
    assert text[1].T.tolist() == [[1, 1, 1], [1, 1, 1]]  # with the negative prompt
    place = place_of("unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q", 2)
    assert torch.equal(gates.of(place, (1,), torch.zeros(2, 16, 8))[0, :, 0].view(4, 4), masks[0, 1])


def test_the_bias_is_added_before_the_softmax_of_the_row_with_the_prompt(pictures):
    unet = pictures.pipe.unet
    cross = unet.mid_block.attentions[0].transformer_blocks[0].attn2
    hidden, text = torch.randn(2, 64, 128), torch.randn(2, 3, 128)
    words = torch.tensor([[True, False, False], [False, True, False]])
    masks = torch.zeros(1, 2, 8, 8)
    masks[0, 0, :4], masks[0, 1, 4:] = 1, 1
    with torch.no_grad(), WordBias(unet, masks, words, FreeFuse(beta=5.0, gamma=1.0)):
        found = cross(hidden, encoder_hidden_states=text)
    with torch.no_grad():
        q, k, v = (part.unflatten(-1, (cross.heads, -1)).transpose(1, 2)
                   for part in (cross.to_q(hidden), cross.to_k(text), cross.to_v(text)))
        scores = q @ k.transpose(-1, -2) * cross.scale
        scores[0, :, :32] += torch.tensor([1.0, -5.0, 0.0])
        scores[0, :, 32:] += torch.tensor([-5.0, 1.0, 0.0])
        expected = cross.to_out[0]((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        assert torch.allclose(found, expected, atol=1e-5)
        assert not torch.allclose(cross(hidden, encoder_hidden_states=text)[0], found[0], atol=1e-3)  # hooks are gone


def test_with_one_subject_all_over_and_no_bias_freefuse_is_merge(pictures):
    names = TWO[:1]
    found = peer_pictures(pictures, "freefuse", "a red striped rocket in space", names, [3, 4], {}, beta=0.0, gamma=0.0)
    merged = pictures.make("a red striped rocket in space", [3, 4], {names[0]: 1.0})
    assert np.abs(found.astype(int) - merged).max() <= 1


def test_with_one_subject_w_switch_is_merge(pictures):
    names = TWO[:1]
    found = peer_pictures(pictures, "w-switch", "a red striped rocket in space", names, [3], {})
    assert np.abs(found.astype(int) - pictures.make("a red striped rocket in space", [3], {names[0]: 1.0})).max() <= 1


def test_no_lora_acts_in_the_first_stage(pictures):
    def seen(weight):
        recipe = parse_recipe({"loras": [{"name": name.replace(" ", "-"), "weight": weight, "te_weight": 1}
                                         for name in TWO]})
        _, sampling, rows = pictures.prepared(prompt_of(TWO), recipe, InMasks, range(2))
        words = words_of(pictures.pipe.tokenizer, prompt_of(TWO), TWO)
        with torch.no_grad():
            return first_stage(rows, sampling, pictures.noise([5])[1], words, FreeFuse(stage=0.5))

    (attention, hidden), (other, _) = seen(1.0), seen(-0.5)
    assert attention.shape == (1, 2, 8, 8) and hidden.shape == (1, 64, 128)
    assert torch.equal(attention, other)


@pytest.mark.parametrize("variant", PEERS)
def test_every_peer_is_another_way_than_merge_and_the_same_again(pictures, variant):
    first, second = (peer_pictures(pictures, variant, prompt_of(TWO), TWO, [7], {"watercolor": 0.7}) for _ in range(2))
    merged = pictures.make(prompt_of(TWO), [7], dict.fromkeys(TWO, 1.0) | {"watercolor": 0.7})
    assert first.shape == (1, 128, 128, 3) and np.array_equal(first, second)
    assert np.abs(first.astype(int) - merged).mean() > 1
