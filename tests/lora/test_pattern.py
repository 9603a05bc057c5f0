"""Patterns of a file match what Python's own matcher finds, within a budget of steps that does not depend on luck."""

from __future__ import annotations

import random
import re

import pytest

from sciart_ext.lora.pattern import LONGEST, STEP, VISIT, Budget, Pattern
from sciart_ext.lora.pattern_notation import PatternError, is_plain

STEPS = 10**7
NAMES = ["to_q", "down_blocks.0.attentions.1.to_q", "down_blocks.10.attentions.1.to_q", "a.b", "aab", "aXb", "", "a\nb",
         "encoder.layers.0.q_proj", "encoder.layers.12.k_proj", "layers.1.q_proj.base"]


def python_matches(pattern, name):
    return re.match(rf"(.*\.)?({pattern})\Z", name) is not None


def matches(pattern, name):
    return Pattern(pattern).matches_end_of(name, Budget(STEPS))


@pytest.mark.parametrize("pattern", [
    "to_q", "attentions.1.to_q", "^to_q", "^down_blocks.*to_q", r".*\.layers\.(0|1)\.q_proj",
    r"layers\.\d+\.(?:q|k)_proj", "[qk]_proj", "[^k]_proj", "[a-c]+b", "a{2}b", "a{1,3}b", "a{,2}b", "a{2,}b", "a?a?b",
    "(a+)+b", "(a*)*", "(|a)+b", "", "a|b", "(a|b|)", r"\w+", r"\S*", r"[\w.]+q", "to_q$", "a.b", "a{x}", r"\.b", "[]]",
    "[a-]b", ".*", ".+?q", "(?:ab)?"])
def test_it_matches_what_python_matches(pattern):
    for name in NAMES:
        assert matches(pattern, name) == python_matches(pattern, name), name


def test_random_patterns_match_what_python_matches():
    dice = random.Random(5)
    compared = 0
    for _ in range(3000):
        pattern = "".join(dice.choice("aab.b|()*+?[^]{}2,1\\dw$") for _ in range(dice.randint(1, 9)))
        try:
            re.compile(f"({pattern})")
            own = Pattern(pattern)
        except (re.error, PatternError):
            continue
        compared += 1
        for name in ("ab", "aab", "b.ab", "2.1", "", "a" * 6, "{a}", "a,2"):
            assert own.matches_end_of(name, Budget(STEPS)) == python_matches(pattern, name), (pattern, name)
    assert compared > 300


@pytest.mark.parametrize(("pattern", "text"), [
    ("(a+)+b", "a" * 500), ("(a|a)*b", "a" * 500), ("(a*)*c", "a" * 500), ("(.*.*.*)*x", "a" * 500),
    ("a?" * 100 + "a" * 100, "a" * 100), (r"(\w+\.)+z", "a." * 250), ("(a{1,20}){1,20}b", "a" * 500)])
def test_no_pattern_takes_more_steps_than_states_times_characters(pattern, text):
    own = Pattern(pattern)
    budget = Budget(VISIT * len(own.states) * (len(text) + 2) + STEP * len(text))
    own.matches_end_of(text, budget)
    assert budget.left >= 0


def test_names_of_a_kind_are_matched_with_what_is_known_of_others():
    own, budget = Pattern(r".*\.layers\.(0|1)\.q_proj"), Budget(STEPS)
    names = [f"encoder.layers.{i}.{side}_proj" for i in range(10) for side in "qkv"]
    found = [name for name in names * 100 if own.matches_end_of(name, budget)]
    assert found == ["encoder.layers.0.q_proj", "encoder.layers.1.q_proj"] * 100
    assert STEPS - budget.left - STEP * sum(map(len, names)) * 100 < VISIT * 1000


def test_a_spent_budget_is_told():
    with pytest.raises(PatternError, match="takes too long"):
        Pattern("(a|b)*a(a|b){12}").matches_end_of("".join(random.Random(3).choices("ab", k=500)), Budget(20_000))


@pytest.mark.parametrize("pattern", [
    "(", ")", "[", "a{99999999999}", "a{900}{2}", "(((a{90}){90}){90})", "((){999}){999}", "*a", r"(a)\1", "(?=a)",
    "(?i)a", r"a\b", "a**", "a{3,2}", "[b-a]", "a\\", "a" * (LONGEST + 1), "(" * 200 + ")" * 200])
def test_what_cannot_be_matched_in_time_is_refused(pattern):
    with pytest.raises(PatternError):
        Pattern(pattern)


def test_a_name_is_no_pattern():
    assert is_plain("down_blocks.0.to_q") and is_plain("to-q") and not is_plain("^to_q") and not is_plain("to_(q|k)")
