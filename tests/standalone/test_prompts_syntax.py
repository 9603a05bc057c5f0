"""What a prompt says beside its words: each form as the WebUI reads it, and any text without surprises."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciart_ext.errors import SciArtError
from sciart_ext.standalone.prompts.loras import PromptLora, notes_on_negative, prompt_loras, strip_comments
from sciart_ext.standalone.prompts.syntax import (
    MAX_NESTED_EDITS,
    Part,
    held_at,
    parts_of,
    pieces_of,
    plain_text,
    texts_of,
)

BREAK = "|BREAK|"
PIECES = [
    ("", [("", 1.0)]),
    ("a red rocket", [("a red rocket", 1.0)]),
    ("a (red) rocket", [("a ", 1.0), ("red", 1.1), (" rocket", 1.0)]),
    ("((red))", [("red", 1.21)]),
    ("a (red:1.3) rocket", [("a ", 1.0), ("red", 1.3), (" rocket", 1.0)]),
    ("(red : .5 ) [blue]", [("red ", 0.5), (" ", 1.0), ("blue", 1 / 1.1)]),
    ("(red:-1)(blue:+2.)", [("red", -1.0), ("blue", 2.0)]),
    ("(a [b] (c:2):1.5)", [("a ", 1.5), ("b", 1.5 / 1.1), (" ", 1.5), ("c", 3.0)]),
    ("(a [b) c]", [("a ", 1.1), ("b", 1.0), (" c", 1 / 1.1)]),
    (r"\(red\) \[b\] c\\d e\f", [(r"(red) [b] c\d ef", 1.0)]),
    (r"(a\):1.2)", [("a)", 1.2)]),
    ("roc(ket)(s)", [("roc", 1.0), ("kets", 1.1)]),
    ("open (red rocket", [("open ", 1.0), ("red rocket", 1.1)]),
    ("open [red (b", [("open ", 1.0), ("red ", 1 / 1.1), ("b", 1.1 / 1.1)]),
    ("closed) and ] and :1.2)", [("closed) and ] and :1.2)", 1.0)]),
    ("time 12:30", [("time 12:30", 1.0)]),
    ("a BREAK b", [("a", 1.0), BREAK, ("b", 1.0)]),
    ("BREAK a\n BREAK\tBREAK b", [("", 1.0), BREAK, ("a", 1.0), BREAK, ("", 1.0), BREAK, ("b", 1.0)]),
    ("a (b BREAK c:1.2)", [("a ", 1.0), ("b", 1.2), ("BREAK", -1.2), ("c", 1.2)]),
    ("BREAKFAST breaks", [("BREAKFAST breaks", 1.0)]),
]
TEXTS = [  # prompt, steps, texts by last step
    ("a rocket", 4, [(4, "a rocket")]),
    ("[a:b:2] c", 4, [(2, "a c"), (4, "b c")]),
    ("[a:b:0.5]", 10, [(5, "a"), (10, "b")]),
    ("[b:0.25] [a::0.75]", 8, [(2, " a"), (6, "b a"), (8, "b ")]),
    ("[a:b:1.0]", 4, [(4, "a")]),
    ("[a:b:9]", 4, [(4, "a")]),
    ("[a:b:1e9999]", 4, [(4, "a")]),
    ("[a:b:0]", 4, [(4, "b")]),
    ("[a:b:-2]", 4, [(4, "b")]),
    ("[a:b: 3 ]", 4, [(3, "a"), (4, "b")]),
    ("[a|b|]x", 4, [(1, "ax"), (2, "bx"), (3, "x"), (4, "ax")]),
    ("[a:[b:c:3]:1]", 4, [(1, "a"), (3, "b"), (4, "c")]),
    ("[[a|b]:c:2]", 3, [(1, "a"), (2, "b"), (3, "c")]),
    ("([a:b:2]:1.3)", 4, [(2, "(a:1.3)"), (4, "(b:1.3)")]),
    ("[(a:1.2):[b]:2]", 4, [(2, "(a:1.2)"), (4, "[b]")]),
    (r"[a\:x:b\|:2]", 4, [(2, r"a\:x"), (4, r"b\|")]),
    (r"\[a:b:2\]", 4, [(4, r"\[a:b:2\]")]),
    ("[a] [a:b] [a:b:c] [a:b:c:2]", 4, [(4, "[a] [a:b] [a:b:c] [a:b:c:2]")]),
    ("(a:b:2) [[a:b:2]", 4, [(2, "(a:b:2) [a"), (4, "(a:b:2) [b")]),
    ("a | [b:c:2]", 4, [(4, "a | [b:c:2]")]),
    ("[b:c:2] \\", 4, [(4, "[b:c:2] \\")]),
]
PARTS = [
    ("a rocket", [("a rocket", 1.0)]),
    (" a :1.2 AND b:-.5 AND c ", [(" a", 1.2), (" b", -0.5), (" c", 1.0)]),
    ("a AND", [("a", 1.0), ("", 1.0)]),
    ("(a AND b:1.2)", [("(a", 1.0), (" b:1.2)", 1.0)]),
    ("LAND AND SANDY and", [("LAND", 1.0), (" SANDY and", 1.0)]),
    ("ratio 16:9", [("ratio 16", 9.0)]),
    ("a:1:2\n", [("a:1", 2.0)]),
]


@pytest.mark.parametrize(("text", "expected"), PIECES)
def test_brackets_weigh_what_is_in_them(text, expected):
    found = [BREAK if piece.is_break else (piece.text, pytest.approx(piece.weight)) for piece in pieces_of(text)]
    assert found == expected


@pytest.mark.parametrize(("prompt", "steps", "expected"), TEXTS)
def test_edits_make_the_texts_of_the_steps(prompt, steps, expected):
    assert texts_of(prompt, steps) == expected


@pytest.mark.parametrize(("prompt", "expected"), PARTS)
def test_and_joins_parts_with_weights(prompt, expected):
    assert parts_of(prompt) == [Part(*one) for one in expected]


def test_a_text_holds_until_its_last_step_and_after_the_end_it_is_the_first_again():
    edits = [(2, "a"), (4, "b")]
    assert [held_at(edits, evaluation) for evaluation in range(7)] == ["a", "a", "a", "b", "b", "a", "a"]


@pytest.mark.parametrize(("text", "message"), [
    ("(a:1.2.3)", "'1.2.3' is not a number, in ':1.2.3)'"), ("(a:.)", "'.' is not a number"),
    ("(" * 8000 + "a", "the weights of its brackets multiply to more than a number can be"),
    ("(a:1" + "0" * 400 + ")", "a weight of it is too large")])
def test_a_weight_that_is_none_is_refused(text, message):
    with pytest.raises(SciArtError) as raised:
        pieces_of(text)
    assert raised.value.field == "prompt" and message in raised.value.message
    with pytest.raises(SciArtError, match="prompt: a weight of it is too large"):
        parts_of("a :1" + "0" * 400)


def test_edits_may_be_nested_but_not_without_end():
    def nested(depth):
        return "[" * depth + "a" + ":2]" * depth

    assert texts_of(nested(MAX_NESTED_EDITS), 4) == [(2, ""), (4, "a")]
    with pytest.raises(SciArtError, match=f"prompt: edits are nested in edits; at most {MAX_NESTED_EDITS} deep"):
        texts_of(nested(MAX_NESTED_EDITS + 1), 4)


ANY = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(
    ["a", " ", "(", ")", "[", "]", ":", "|", "\\", "1.3", "2", ":0.5]", ":1.2)", "BREAK", "AND", "<lora:x:", ">", "#",
     "\n", ",", "é"]), max_size=30).map("".join))


@settings(max_examples=400, deadline=None)
@given(ANY, st.integers(1, 30))
def test_any_text_is_read_or_refused(text, steps):
    try:
        read, loras = prompt_loras(text)
        parts = parts_of(read)
        edits = [texts_of(part.text, steps) for part in parts]
        pieces = [pieces_of(one) for edit in edits for _, one in edit]
    except SciArtError as error:
        assert error.field == "prompt"
        return
    assert all(isinstance(lora, PromptLora) for lora in loras)
    for edit in edits:
        ends = [end for end, _ in edit]
        assert ends == sorted(set(ends)) and ends[-1] == steps and ends[0] >= 1
    for one in pieces:
        assert one and all(piece.weight == -1 for piece in one if piece.is_break)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(blacklist_characters="()[]\\:|#<", blacklist_categories=["Cs"]), max_size=60))
def test_a_text_without_marks_is_one_piece_as_it_is(text):
    if "AND" not in text and "BREAK" not in text:
        assert pieces_of(text) == [(text, 1.0, False)] and texts_of(text, 9) == [(9, text)]


def test_the_words_alone():
    assert plain_text(r"a (red:1.3) roc(ket)s [\(b\)] BREAK in space") == "a red rockets (b) in space"


LORAS = [
    ("a <lora:child:0.5> b", "a  b", ("child", 0.5, 0.5, None)),
    ("<lora:child>", "", ("child", 1.0, 1.0, None)),
    ("<lora:my child:1:0.5:4>x", "x", ("my child", 1.0, 0.5, 4)),
    ("<lyco:child:te=0.2:unet=.7:dyn=8>", "", ("child", 0.2, 0.7, 8)),
    ("<lora:child:1:te=.5>", "", ("child", 0.5, 0.5, None)),
    ("<lora:child:0.7:unet=-0.2>", "", ("child", 0.7, -0.2, None)),
    ("<lora:child:unet=0.2>", "", ("child", 1.0, 0.2, None)),
]
NOT_LORAS = [
    ("<hypernet:a:1>", "hypernetworks act in the WebUI alone; accepted: <lora:name:weight>"),
    ("<loar:a>", "unknown 'loar'; did you mean 'lora'"),
    ("<lora:a:b>", "'b' is no number; accepted: a number from -10 to 10"),
    ("<lora:a:nan>", "nan is out of range"), ("<lora:a:11>", "11.0 is out of range"), ("<lora: :1>", "no name"),
    ("<lora:a:lbw=ALL>", "unknown 'lbw'; accepted: dyn, te, unet"), ("<lora:a:1:1:1:1>", "4 numbers; accepted"),
    ("<lora:a:1><lora:a:0.5>", "this LoRA is there twice; accepted: each once"),
    ("<lora:a:dyn=0>", "dyn is '0'; accepted: a whole number"), ("<lora:a:1:1:x>", "dyn is 'x'"),
    ("".join(f"<lora:a{i}>" for i in range(33)), "33 LoRAs; at most 32 are accepted"),
]


@pytest.mark.parametrize(("prompt", "text", "expected"), LORAS)
def test_a_prompt_names_loras(prompt, text, expected):
    found, (lora,) = prompt_loras(prompt)
    assert (found, (lora.name, lora.te_weight, lora.weight, lora.rank)) == (text, expected)
    assert lora.tag in prompt


@pytest.mark.parametrize(("prompt", "message"), NOT_LORAS)
def test_what_names_none_is_refused(prompt, message):
    with pytest.raises(SciArtError) as raised:
        prompt_loras(prompt)
    assert raised.value.field == "prompt" and message in raised.value.message


def test_comments_go_before_loras_are_looked_for():
    prompt = "# a <lora:x:1>\na rocket # red\nin <lora:child:1>space#"
    assert strip_comments("a # b") == "a \n" and strip_comments("a\n# b\nc") == "a\nc"
    assert prompt_loras(prompt) == ("\na rocket \nin space\n", [PromptLora("<lora:child:1>", "child", 1, 1, None)])


def test_a_lora_in_the_negative_prompt_is_told_to_be_words():
    assert notes_on_negative("planet <lora:x:1>") == [
        "'<lora:x:1>' is in the negative prompt, where it is read as words"]
    assert notes_on_negative("planet # <lora:x:1>") == notes_on_negative("<b:c> planet") == []


def test_no_torch_is_needed():
    code = ("import sys; import sciart_ext.standalone.prompts.check; "
            "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)
