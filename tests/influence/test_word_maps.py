"""Attention to words over all layers and steps: of the model as its LoRAs leave it."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from random_model import write_random_model

from sciart_ext.errors import SciArtError
from sciart_ext.guidance.attention import attention_levels, probabilities
from sciart_ext.influence.word_maps import MAX_WORDS, columns_of, telling_words
from sciart_ext.mixer.targets import diffusers_unet_layers
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.counterfactuals import run_sets
from sciart_ext.standalone.generate import Settings, load_loras
from sciart_ext.standalone.models import load_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings("a rocket and a robot", "noise", steps=3, seed=5, cfg_scale=3, width=64, height=64)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder, loras = write_random_model(tmp_path_factory.mktemp("tiny"), levels=2)
    return load_pipeline(folder, device="cpu"), loras


def made(tiny, words, execution="auto", sets=(0, 1)):
    recipe = parse_recipe({"loras": [{"name": "child", "weight": 0.8}], "execution": execution})
    runs = {}
    run_sets(tiny[0], recipe, SETTINGS, load_loras(recipe, tiny[1]), sets, runs, words=words)
    return runs


def by_hand(tiny, columns):
    """Of the plain model, from its layers' own queries and keys: means over layers of a level, levels, and steps."""
    pipe = tiny[0]
    layers, seen = diffusers_unet_layers(pipe.unet), []
    attentions = [module for module in pipe.unet.modules() if hasattr(module, "to_q") and module.is_cross_attention]
    kept = {}

    def keep(name):
        return lambda module, args, output: kept.__setitem__(name, output)

    handles = [getattr(attention, part).register_forward_hook(keep((i, part)))
               for i, attention in enumerate(attentions) for part in ("to_q", "to_k")]

    def after(module, args, output):
        levels = {}
        for i, attention in enumerate(attentions):
            found = probabilities(kept[i, "to_q"][:1], kept[i, "to_k"][:1], attention.heads, attention.scale)
            side = round(found.shape[1] ** 0.5)
            levels.setdefault(side, []).append(found.view(1, side, side, -1)[..., columns].mean(-1))
        means = [torch.stack(maps).mean(0)[None] for _, maps in sorted(levels.items(), reverse=True)]
        finest = means[0].shape[-2:]
        seen.append(torch.stack([torch.nn.functional.interpolate(one, finest, mode="bilinear")
                                 for one in means]).mean(0))
        assert len(levels) == len(attention_levels(layers))

    handles.append(pipe.unet.register_forward_hook(after))
    made(tiny, [], sets=[0])
    for handle in handles:
        handle.remove()
    return torch.stack(seen).mean(0)[0, 0]


def test_they_are_the_models_own_probabilities_added_up(tiny):
    columns = columns_of(["rocket"], SETTINGS.prompt, lambda text: tokens(tiny, text), [tokens(tiny, SETTINGS.prompt)])
    found = made(tiny, ["rocket"], sets=[0])[0].words[0]
    torch.testing.assert_close(found, by_hand(tiny, columns[0]), atol=1e-6, rtol=1e-4)


def tokens(tiny, text):
    return tiny[0].tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("execution", ["merge", "branch"])
def test_a_lora_shows_in_them_however_it_is_executed(tiny, execution):
    runs = made(tiny, ["rocket", "robot"], execution=execution)
    assert runs[1].words.shape == (2, 8, 8)
    assert (runs[1].words - runs[0].words).abs().max() > 1e-4
    torch.testing.assert_close(runs[1].words, made(tiny, ["rocket", "robot"], sets=[1])[1].words, atol=1e-4, rtol=1e-3)


def test_no_hook_is_left_and_the_picture_is_the_same(tiny):
    runs = made(tiny, ["rocket"])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny[0].unet.modules())
    assert (runs[1].picture == made(tiny, [])[1].picture).all()


def test_words_that_tell_something():
    prompt = "A rocket, and a (robot:1.2) in the deep sea with a rocket"
    assert telling_words(prompt) == ["rocket", "robot", "deep", "sea"]
    assert len(telling_words(" ".join(f"word{i}" for i in range(30)))) == MAX_WORDS


def test_a_word_that_is_not_in_the_prompt_is_refused(tiny):
    with pytest.raises(SciArtError, match=r"words: 'rockets' is not in the prompt.*did you mean.*rocket"):
        made(tiny, ["rockets"])
    with pytest.raises(SciArtError, match="words: ' ' is not in the prompt"):
        made(tiny, [" "])
