"""Prompts as the standalone engine carries them out: weights, chunks, parts, edits and the prompt's own LoRAs."""

from __future__ import annotations

import dataclasses

import hypothesis
import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from hypothesis import strategies as st
from random_model import write_random_model

from sciart_ext.errors import SciArtError
from sciart_ext.recipe import Row, parse_recipe
from sciart_ext.standalone.counterfactuals import word_columns
from sciart_ext.standalone.explain import words_told
from sciart_ext.standalone.generate import Settings, encode_rows, generate, load_loras, mixture_of
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.standalone.prompt_rows import evaluations_of
from sciart_ext.standalone.prompts.check import check_prompts
from sciart_ext.standalone.prompts.chunks import COMMA_BACKTRACK, chunks_of, token_chunks, token_ids
from sciart_ext.standalone.prompts.embeddings import usable_words
from sciart_ext.standalone.prompts.encoding import encode, encode_texts
from sciart_ext.standalone.prompts.plan import PromptedPlan, load_prompt_loras, plan_with_prompt
from sciart_ext.standalone.prompts.syntax import pieces_of

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings("a rocket", "noise", steps=4, seed=5, sampler="Euler", cfg_scale=3, width=64, height=64)
OFF = parse_recipe({"enabled": False})
MERGED = parse_recipe({"loras": [{"name": "child", "weight": 0.6}]})
SUBJECTS = {"loras": [{"name": "child", "weight": 0.6, "subject": "rocket"},
                      {"name": "science", "weight": 0.6, "subject": "robot"}]}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def pipe(tiny):
    """Whose text encoder has a mean, as those of real models have."""
    pipe = load_pipeline(tiny[0], device="cpu")
    encoder = getattr(pipe.text_encoder, "text_model", pipe.text_encoder)  # transformers 4, 5
    bias = encoder.final_layer_norm.bias
    bias.data = torch.rand(len(bias), generator=torch.Generator().manual_seed(2))
    return pipe


def paint(pipe, tiny, prompt, recipe=OFF, negative="noise", **changes):
    settings = dataclasses.replace(SETTINGS, prompt=prompt, negative_prompt=negative, **changes)
    return generate(pipe, recipe, settings, load_loras(recipe, tiny[1], prompt))


def pixels(*arguments, **changes):
    return np.asarray(paint(*arguments, **changes).image).astype(int)


def rows_of(pipe, tiny, prompt, recipe=OFF, negative="noise", **changes):
    settings = dataclasses.replace(SETTINGS, prompt=prompt, negative_prompt=negative, **changes)
    plan = plan_with_prompt(recipe, prompt, settings.steps)
    return encode_rows(pipe, settings, plan, mixture_of(pipe, recipe, plan, load_loras(recipe, tiny[1], prompt), "m"))


def by_hand(pipe, ids):
    """One chunk's hidden states (77, width)."""
    tokenizer, encoder = pipe.tokenizer, pipe.text_encoder
    whole = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    whole += [tokenizer.pad_token_id] * (77 - len(whole))
    with torch.no_grad():
        return encoder(torch.tensor([whole]))[0][0]


def test_a_weight_of_one_changes_no_bit(pipe):
    plain = encode(pipe, "a red rocket", 1).tokens
    for text in ("a (red:1) rocket", "((a red rocket:2):0.5)", r"a red rocket\x"[:-2], "(a red:1.0)( rocket:1)"):
        assert torch.equal(encode(pipe, text, 1).tokens, plain), text


def test_weights_multiply_the_tokens_and_the_mean_stays(pipe):
    before, red, after = (token_ids(pipe.tokenizer, text) for text in ("a ", "red", " rocket"))
    hidden = by_hand(pipe, [*before, *red, *after])
    weights = torch.ones(77)
    weights[1 + len(before):1 + len(before) + len(red)] = 1.4
    expected = hidden * weights[:, None]
    expected = expected * hidden.mean() / expected.mean()
    found = encode(pipe, "a (red:1.4) rocket", 1).tokens[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert found.mean().item() == pytest.approx(hidden.mean().item(), rel=1e-4)
    assert not torch.allclose(found, hidden, atol=1e-3)


def test_where_there_is_no_mean_none_is_given_back(tiny):
    pipe = load_pipeline(tiny[0], device="cpu")  # its last norm has no bias
    chunk, = chunks_of(pipe.tokenizer, "a (red:1.4) rocket")
    hidden, weights = by_hand(pipe, chunk.tokens), torch.tensor([1.0, *chunk.weights])
    assert hidden.mean().abs() < 1e-6
    found = encode(pipe, "a (red:1.4) rocket", 1).tokens[0]
    torch.testing.assert_close(found[:len(weights)], hidden[:len(weights)] * weights[:, None])
    assert torch.equal(found[len(weights):], hidden[len(weights):])


def test_the_mean_is_over_the_texts_of_all_steps(pipe):
    """Of which each counts as often as it is there; as in the WebUI, which encodes them in one batch."""
    texts = ["a (red:1.8) rocket", "a rocket", "a rocket"]
    alone = {text: encode(pipe, text, 1).tokens for text in texts}
    found = encode_texts(pipe, texts)
    hidden, raw = {}, {}
    for text in set(texts):
        chunk, = chunks_of(pipe.tokenizer, text)
        hidden[text] = by_hand(pipe, chunk.tokens)
        weights = torch.tensor([1.0, *chunk.weights, *[1.0] * (76 - len(chunk.weights))])
        raw[text] = hidden[text] * weights[:, None]
    factor = sum(hidden[text].mean() for text in texts) / sum(raw[text].mean() for text in texts)
    for text in set(texts):
        torch.testing.assert_close(found[text].tokens[0], raw[text] * factor, rtol=1e-4, atol=1e-6)
        assert not torch.equal(found[text].tokens, alone[text])


def test_weights_that_no_encoder_can_carry_are_refused(pipe):
    with pytest.raises(SciArtError, match="prompt: the weights of its brackets are too large for the text encoder"):
        encode(pipe, "a (red:" + "9" * 60 + ") rocket", 1)


def test_break_begins_a_chunk(pipe):
    first, second = (token_ids(pipe.tokenizer, text) for text in ("a rocket", "a robot"))
    assert token_chunks(pipe.tokenizer, "a rocket BREAK a robot") == [first, second]
    assert token_chunks(pipe.tokenizer, "BREAK a rocket BREAK") == [[], first]
    assert token_chunks(pipe.tokenizer, "BREAK") == [[]]
    found = encode(pipe, "a rocket BREAK a robot", 1).tokens
    assert torch.equal(found, torch.cat([encode(pipe, text, 1).tokens for text in ("a rocket", "a robot")], 1))


@pytest.mark.parametrize(("before", "after", "moves"), [(54, 20, False), (55, 19, True), (60, 14, True),
                                                        (74, 0, True), (75, 0, False)])
def test_a_full_chunk_gives_what_is_after_its_last_comma_to_the_next(pipe, before, after, moves):
    """Where that is no more than so many tokens; the WebUI's setting is of 20, the comma counted."""
    one, = token_ids(pipe.tokenizer, "a")
    comma, = token_ids(pipe.tokenizer, ",")
    text = "a " * before + ", " + "a " * (after + 1)
    chunks = token_chunks(pipe.tokenizer, text)
    if before == 75:  # the comma itself is in the next
        assert chunks == [[one] * 75, [comma, one]]
    elif moves:
        assert chunks == [[one] * before + [comma], [one] * (after + 1)]
    else:
        assert chunks == [[one] * before + [comma] + [one] * after, [one]]
    assert moves == (0 < 75 - before <= COMMA_BACKTRACK)


def test_weights_go_with_their_tokens_into_the_next_chunk(pipe):
    chunks = chunks_of(pipe.tokenizer, "a " * 70 + ", (a a:1.5) (a a a a:0.5)")
    assert [len(chunk.tokens) for chunk in chunks] == [71, 6]
    assert chunks[0].weights == [1.0] * 71 and chunks[1].weights == [1.5] * 2 + [0.5] * 4


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(text=st.lists(st.sampled_from([
    "a ", "rocket", ",", " BREAK ", "(", "[", ")", "]", ":1.2)", "\\", "é", "zorp ", "a " * 30, "\0", "😀"]),
    max_size=25).map("".join))
def test_any_text_is_laid_out_in_chunks(pipe, text):
    words = usable_words({"zorp": {"string_to_param.*": torch.zeros(3, 64)}}, {"te1": 64})[0]
    chunks = chunks_of(pipe.tokenizer, text, words)
    assert all(len(chunk.tokens) == len(chunk.weights) <= 75 for chunk in chunks)
    told = "".join("" if piece.is_break else piece.text for piece in pieces_of(text))
    assert sum(token == -1 for chunk in chunks for token in chunk.tokens) <= told.count("zorp")
    for chunk in chunks:  # a word's vectors stay together
        firsts = [i for i, token in enumerate(chunk.tokens) if token == -1]
        assert all(chunk.tokens[i:i + 3] == [-1, -2, -3] for i in firsts)


def test_and_joins_predictions_by_their_weights(pipe, tiny):
    """uncond + CFG · Σ weight · (cond − uncond): a part twice at half its weight is the part."""
    whole = pixels(pipe, tiny, "a red rocket")
    assert np.abs(pixels(pipe, tiny, "a red rocket :0.5 AND a red rocket :0.5") - whole).max() <= 1
    assert np.abs(pixels(pipe, tiny, "a red rocket :2", cfg_scale=1.5) - whole).max() <= 1
    assert np.abs(pixels(pipe, tiny, "a red rocket AND noise :0.7") - whole).max() <= 1  # the negative prompt's own
    assert np.abs(pixels(pipe, tiny, "a red rocket AND a robot") - whole).max() > 5
    negative = pixels(pipe, tiny, "a red rocket", negative="noise AND stars")
    assert not np.array_equal(negative, pixels(pipe, tiny, "a red rocket"))  # where AND is a word


def test_a_weighted_part_counts_without_cfg_too(pipe, tiny):
    assert np.abs(pixels(pipe, tiny, "a red rocket :2", cfg_scale=1) - pixels(pipe, tiny, "a red rocket", cfg_scale=2)
                  ).max() <= 1
    assert paint(pipe, tiny, "it is 12:30").notes == [
        "the prompt ends with a number after a colon, which is read as its weight, 30"]


def test_parts_of_and_and_texts_of_edits_are_of_one_length(pipe, tiny):
    short, long, uncond = rows_of(pipe, tiny, "a rocket AND a [rocket:robot " + "a " * 80 + ":2] :0.5")
    assert short.embeddings.tokens.shape[1] == 154 and uncond.embeddings.tokens.shape[1] == 77
    assert torch.equal(short.embeddings.tokens[:, 77:], short.embeddings.tokens[:, 76:77].expand(-1, 77, -1))
    assert long.weight == 0.5 and [end for end, _ in long.edits] == [2, 4]
    assert torch.equal(long.at(2).tokens[:, 77:], encode(pipe, "", 1).tokens)
    assert not torch.equal(long.at(3).tokens[:, 77:], long.at(2).tokens[:, 77:])


def test_the_prompt_changes_by_evaluation(pipe, tiny):
    first, second = (pixels(pipe, tiny, text) for text in ("a red rocket", "a blue robot"))
    edited = pixels(pipe, tiny, "[a red rocket:a blue robot:1]")
    assert np.abs(edited - first).max() > 3 and np.abs(edited - second).max() > 3
    assert np.array_equal(pixels(pipe, tiny, "[a red rocket:a blue robot:0]"), second)
    assert np.array_equal(pixels(pipe, tiny, "[a red rocket:a blue robot:1.0]"), first)
    assert np.array_equal(pixels(pipe, tiny, "[a red rocket:a blue robot:3]"), first)  # steps 0 to 3
    assert evaluations_of(dataclasses.replace(SETTINGS, sampler="Heun")) == 8
    settings = dataclasses.replace(SETTINGS, prompt="a rocket", negative_prompt="[noise:stars:1]")
    assert not np.array_equal(np.asarray(generate(pipe, OFF, settings, []).image), pixels(pipe, tiny, "a rocket"))


@pytest.mark.parametrize(("tag", "entry"), [
    ("<lora:child:0.6>", {"weight": 0.6}), ("<lora:child:0.2:0.7>", {"weight": 0.7, "te_weight": 0.2}),
    ("<lora:child:unet=0.5:te=0>", {"weight": 0.5, "te_weight": 0.0})])
def test_a_lora_of_the_prompt_is_one_of_the_recipe(pipe, tiny, tag, entry):
    recipe = parse_recipe({"loras": [{"name": "child", **entry}]})
    picture = paint(pipe, tiny, f"a rocket{tag}")
    assert np.array_equal(np.asarray(picture.image), np.asarray(paint(pipe, tiny, "a rocket", recipe).image))
    assert picture.infotext.startswith(f"a rocket{tag}\nNegative prompt: noise\n") and picture.notes == []


def test_both_act_where_it_is_in_the_recipe_too(pipe, tiny):
    both, more = paint(pipe, tiny, "a rocket<lora:child:0.3>", MERGED), parse_recipe(
        {"loras": [{"name": "child", "weight": 0.9}]})
    assert both.notes == ["child is also in the prompt as <lora:child:0.3>: both weights act"]
    assert np.abs(np.asarray(both.image).astype(int) - pixels(pipe, tiny, "a rocket", more)).max() <= 2


@pytest.mark.parametrize("compose", ["switch", "composite", "spatial"])
def test_it_acts_in_all_rows_and_steps_whatever_the_recipe(tiny, compose):
    recipe = parse_recipe({**SUBJECTS, "compose": compose})
    plan, prompted = (plan_with_prompt(recipe, prompt, 6) for prompt in ("a", "a <lora:watercolor:0.4:0.7>"))
    assert isinstance(prompted, PromptedPlan) and prompted.rows() == plan.rows() and prompted.own == plan.own
    for row in plan.rows():
        assert prompted.te_gates(row) == (*plan.te_gates(row), 0.4)
        for progress in plan.progress():
            assert prompted.gates(progress, row) == (*plan.gates(progress, row), 0.7)
    assert prompted.with_only(0b10).gates(0.5, Row(own=1)) == (*plan.with_only(0b10).gates(0.5, Row(own=1)), 0.7)


def test_a_lora_can_be_cut_to_a_rank(tiny):
    whole, = load_prompt_loras("<lora:science>", tiny[1])
    cut, = load_prompt_loras("<lora:science:1:1:2>", tiny[1])
    assert whole.layers.keys() == cut.layers.keys()
    for name, delta in whole.layers.items():
        short = cut.layers[name]
        assert short.rank == 2 and short.scale == delta.scale
        assert torch.equal(short.down, delta.down[:2]) and torch.equal(short.up, delta.up[:, :2])


@pytest.mark.parametrize(("prompt", "recipe", "message"), [
    ("a <lora:chld:1>", {}, "prompt: '<lora:chld:1>': no LoRA 'chld'; did you mean 'child'"),
    ("a <hypernet:x>", {}, "prompt: '<hypernet:x>': hypernetworks act in the WebUI alone"),
    ("a <lora:child:1>", {**SUBJECTS, "combine": "ties"},
     "prompt: '<lora:child:1>' cannot be joined by combine ties; accepted: the LoRA in the recipe, or combine linear"),
    ("a rocket AND a robot", {**SUBJECTS, "compose": "composite"},
     "compose: composite does not work with AND in the prompt; accepted: merge, switch"),
    ("a rocket AND a robot", {**SUBJECTS, "compose": "contrastive"}, "compose: contrastive does not work with AND"),
    ("a [rocket:star:2] and a robot", {**SUBJECTS, "compose": "contrastive"}, "loras[0].subject: 'rocket' is not in"),
])
def test_what_cannot_be_carried_out_is_refused(pipe, tiny, prompt, recipe, message):
    with pytest.raises(SciArtError) as raised:
        paint(pipe, tiny, prompt, parse_recipe(recipe or {"enabled": False}))
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(("prompt", "negative", "recipe", "message"), [
    ("a <lora:child:x>", "", {}, "prompt: '<lora:child:x>': 'x' is no number"),
    ("a <lora:child:1>", "", {**SUBJECTS, "combine": "ties"}, "prompt: '<lora:child:1>' cannot be joined by combine"),
    ("a rocket AND a robot", "", {**SUBJECTS, "compose": "composite"}, "compose: composite does not work with AND"),
    ("a [rocket:(robot:1..3):2]", "", {}, "prompt: '1..3' is not a number"),
    ("a", "(b:1.2.3)", {}, "prompt: '1.2.3' is not a number")])
def test_prompts_are_checked_before_a_model_is_read(prompt, negative, recipe, message):
    with pytest.raises(SciArtError) as raised:
        check_prompts(parse_recipe(recipe or {"enabled": False}), prompt, negative, 4)
    assert str(raised.value).startswith(message)
    check_prompts(parse_recipe(SUBJECTS), "a (b:1.2) AND [c|d] <lora:x> # (e:1.2.3)", "f AND g", 4)


def test_files_that_were_not_loaded_are_asked_for(pipe, tiny):
    settings = dataclasses.replace(SETTINGS, prompt="a <lora:child>")
    with pytest.raises(SciArtError, match="loras: 0 files for 1 LoRAs; accepted: one for each of the recipe, then"):
        generate(pipe, OFF, settings, [])


def test_words_are_found_where_they_are(pipe, tiny):
    def columns(prompt, words):
        settings = dataclasses.replace(SETTINGS, prompt=prompt)
        return word_columns(pipe, plan_with_prompt(MERGED, prompt, 4), settings, words)

    plain, = columns("a red rocket", ["rocket"])
    for prompt in ("a red (rocket:1.3)", "(a [red] rocket)", "a red rocket # rocket", "a red rocket<lora:science>"):
        assert columns(prompt, ["rocket"]) == [plain], prompt
    broken, = columns("a red BREAK (a rocket)", ["rocket"])
    first = len(token_ids(pipe.tokenizer, "a"))
    assert broken[0] == 77 + 1 + first
    assert columns(r"a \(rocket\)", ["rocket"]) != [plain]
    for prompt in ("a rocket AND a robot", "a [red:blue:2] rocket"):
        with pytest.raises(SciArtError, match="words: the prompt has parts joined by AND, or changes by step"):
            columns(prompt, ["rocket"])
        assert words_told(dataclasses.replace(SETTINGS, prompt=prompt)) == []
    with pytest.raises(SciArtError, match="words: 'planet' is not in the prompt; accepted: a, red, rocket"):
        columns("a (red:1.3) rocket", ["planet"])
    assert words_told(dataclasses.replace(SETTINGS, prompt="a (red:1.3) BREAK rocket <lora:x>")) == ["red", "rocket"]


def test_steering_finds_words_in_brackets_and_chunks(pipe, tiny):
    recipe = parse_recipe({**SUBJECTS, "compose": "contrastive", "guidance": {"strength": 0}})
    plain, weighted, broken, edited, red = (pixels(pipe, tiny, prompt, recipe, steps=3) for prompt in (
        "a rocket and a robot", "a (rocket:1.0) and a [(robot:1.1)]", "a rocket BREAK and a robot",
        "[a red:a blue:1] rocket and a robot", "a red rocket and a robot"))
    assert np.abs(weighted - plain).max() <= 1
    assert not np.array_equal(broken, plain)
    assert not np.array_equal(edited, red)
