"""Embeddings bundled with a LoRA, standalone: their words stand for their vectors, as diffusers itself has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from random_model import write_random_model

from sciart_ext.errors import SciArtError
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.counterfactuals import run_sets
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.standalone.prompts.chunks import token_chunks, words_in
from sciart_ext.standalone.prompts.embeddings import Words, usable_words
from sciart_ext.standalone.prompts.encoding import encode

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings("a zorp rocket", steps=2, seed=5, cfg_scale=3, width=64, height=64)
VECTORS = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(model folder, LoRA folder); the LoRA `bundle` is `child` with an embedding."""
    model, loras = write_random_model(tmp_path_factory.mktemp("tiny"))
    state = load_file(loras / "child.safetensors")
    save_file({**state, "bundle_emb.zorp.string_to_param.*": VECTORS}, loras / "bundle.safetensors")
    save_file({**state, "bundle_emb.zorp.string_to_param.*": VECTORS[:, :48].contiguous()}, loras / "other.safetensors")
    return model, loras


@pytest.fixture(scope="module")
def pipe(tiny):
    return load_pipeline(tiny[0], device="cpu")


def words():
    return usable_words({"zorp": {"string_to_param.*": VECTORS}}, {"te1": 64})[0]


def paint(pipe, tiny, name, settings=SETTINGS, **more):
    recipe = parse_recipe({"loras": [{"name": name, "weight": 0.6, **more}]})
    return generate(pipe, recipe, settings, load_loras(recipe, tiny[1]))


@pytest.mark.parametrize("text", ["a zorp rocket", "zorp", "rocket, zorp, zorp"])
def test_a_word_reads_as_diffusers_own_textual_inversion_does(pipe, tiny, text):
    other = load_pipeline(tiny[0], device="cpu")
    other.load_textual_inversion({"zorp": VECTORS}, token="zorp")
    with torch.no_grad():
        expected = other.encode_prompt(text, "cpu", 1, False)[0]
    found = encode(pipe, text, 1, words=words()).tokens
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, encode(pipe, text, 1).tokens)


def test_the_picture_is_that_of_the_word_and_the_pipeline_is_left_as_it_was(pipe, tiny):
    encoder = pipe.text_encoder
    before = {name: parameter.clone() for name, parameter in encoder.named_parameters()}
    with_word, without = (np.asarray(paint(pipe, tiny, name).image) for name in ("bundle", "child"))
    assert (with_word != without).any()
    assert np.array_equal(with_word, np.asarray(paint(pipe, tiny, "bundle").image))
    assert np.array_equal(without, np.asarray(paint(pipe, tiny, "child").image))
    assert all(torch.equal(parameter, before[name]) for name, parameter in encoder.named_parameters())
    table = encoder.get_input_embeddings()
    assert not table._forward_hooks and not table._forward_pre_hooks


def test_an_embedding_for_another_model_is_noted(pipe, tiny):
    picture = paint(pipe, tiny, "other")
    assert picture.notes == ["the embedding 'zorp' that comes with a LoRA is not used: it is made for another model "
                             "(48 wide, here 64)"]
    assert np.array_equal(np.asarray(picture.image), np.asarray(paint(pipe, tiny, "child").image))
    assert not any("embedding" in note for note in paint(pipe, tiny, "bundle").notes)


def test_steering_and_word_maps_refuse_what_they_cannot_place(pipe, tiny):
    recipe = {"compose": "contrastive", "loras": [{"name": "bundle", "weight": 0.6, "subject": "rocket"}]}
    recipe = parse_recipe(recipe)
    with pytest.raises(SciArtError, match="compose: contrastive cannot place the word of an embedding"):
        generate(pipe, recipe, SETTINGS, load_loras(recipe, tiny[1]))
    recipe = parse_recipe({"loras": [{"name": "bundle", "weight": 0.6}]})
    with pytest.raises(SciArtError, match="words: the prompt has the word of an embedding"):
        run_sets(pipe, recipe, SETTINGS, load_loras(recipe, tiny[1]), [0, 1], {}, words=["rocket"])


def test_the_vectors_of_a_word_stay_in_one_chunk(pipe):
    chunks = token_chunks(pipe.tokenizer, "a " * 74 + "zorp a", words())
    assert [len(chunk) for chunk in chunks] == [74, 4]
    assert chunks[1][:3] == [-1, -2, -3]
    assert words_in(pipe.tokenizer, "a zorp", words()) and not words_in(pipe.tokenizer, "a rocket", words())


def test_two_encoders_take_a_part_each():
    parts = {"clip_l": torch.ones(2, 8), "clip_g": torch.zeros(2, 12)}
    found, notes = usable_words({"a": parts}, {"te1": 8, "te2": 12})
    assert notes == [] and found.counts == {"a": 2}
    assert torch.equal(found.vectors["te1"], parts["clip_l"]) and torch.equal(found.vectors["te2"], parts["clip_g"])
    for widths, given in (({"te1": 8}, parts), ({"te1": 8, "te2": 12}, {"string_to_param.*": torch.ones(2, 8)}),
                          ({"te1": 8}, {"x": torch.ones(76, 8)})):
        found, notes = usable_words({"a": given}, widths)
        assert found == Words({}, {}) and "the embedding 'a' that comes with a LoRA is not used" in notes[0]
