"""Patterns of a file match what Python's own matcher finds, within a budget of steps that does not depend on luck."""

from __future__ import annotations

import random
import re

import pytest

from sciart_ext.lora.pattern import LONGEST, STEP, TEST, VISIT, Budget, Pattern
from sciart_ext.lora.pattern_notation import PatternError, is_plain

STEPS = 10**7
NAMES = ["to_q", "down_blocks.0.attentions.1.to_q", "down_blocks.10.attentions.1.to_q", "a.b", "aab", "aXb", "", "a\nb",
         "encoder.layers.0.q_proj", "encoder.layers.12.k_proj", "layers.1.q_proj.base"]


def python_matches(pattern, name):
    return re.match(rf"(.*\.)?({pattern})\Z", name) is not None


def matches(pattern, name):
    return Pattern(pattern, Budget(STEPS)).matches_end_of(name)


@pytest.mark.parametrize("pattern", [
    "to_q", "attentions.1.to_q", "^to_q", "^down_blocks.*to_q", r".*\.layers\.(0|1)\.q_proj",
    r"layers\.\d+\.(?:q|k)_proj", "[qk]_proj", "[^k]_proj", "[a-c]+b", "a{2}b", "a{1,3}b", "a{,2}b", "a{2,}b", "a?a?b",
    "(a+)+b", "(a*)*", "(|a)+b", "", "a|b", "(a|b|)", r"\w+", r"\S*", r"[\w.]+q", "to_q$", "a.b", "a{x}", r"\.b", "[]]",
    "[a-cb-e_]+", r"[\w\s]+", r"[^\d.]b", r"[\-a]b",
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
            own = Pattern(pattern, Budget(STEPS))
        except (re.error, PatternError):
            continue
        compared += 1
        for name in ("ab", "aab", "b.ab", "2.1", "", "a" * 6, "{a}", "a,2"):
            assert own.matches_end_of(name) == python_matches(pattern, name), (pattern, name)
    assert compared > 300


@pytest.mark.parametrize(("pattern", "text"), [
    ("(a+)+b", "a" * 500), ("(a|a)*b", "a" * 500), ("(a*)*c", "a" * 500), ("(.*.*.*)*x", "a" * 500),
    ("a?" * 100 + "a" * 100, "a" * 100), (r"(\w+\.)+z", "a." * 250), ("(a{1,20}){1,20}b", "a" * 500)])
def test_no_pattern_takes_more_steps_than_states_times_characters(pattern, text):
    budget = Budget(STEPS)
    own = Pattern(pattern, budget)
    made = budget.left
    own.matches_end_of(text)
    most = (VISIT + TEST) * (len(own.states) + 1) * (len(text) + 2) + STEP * len(text)
    assert 0 < made - budget.left <= most


@pytest.mark.parametrize("pattern", ["(){900}", "[" + "a-b" * 150 + "]{900}", "(.?){300}"])
def test_what_is_made_of_a_pattern_counts_too(pattern):
    """Each is made once, and no hundred times."""
    budget = Budget(10**6)
    assert Pattern(pattern, budget).matches_end_of("") in (True, False)
    with pytest.raises(PatternError, match="takes too long"):
        for _ in range(1000):
            Pattern(pattern, budget)


def test_characters_that_are_seen_once_cost_what_they_take():
    """Each is compared with many states, of which none takes it."""
    budget = Budget(10**6)
    own = Pattern("(a?){300}", budget)
    with pytest.raises(PatternError, match="takes too long"):
        for number in range(0x4e00, 0x9000):
            own.matches_end_of(f".{chr(number)}")
    assert number < 0x4e00 + 2000


def test_names_of_a_kind_are_matched_with_what_is_known_of_others():
    budget = Budget(STEPS)
    own = Pattern(r".*\.layers\.(0|1)\.q_proj", budget)
    names = [f"encoder.layers.{i}.{side}_proj" for i in range(10) for side in "qkv"]
    found = [name for name in names * 100 if own.matches_end_of(name)]
    assert found == ["encoder.layers.0.q_proj", "encoder.layers.1.q_proj"] * 100
    assert STEPS - budget.left - STEP * sum(map(len, names)) * 100 < VISIT * 2000


def test_a_spent_budget_is_told():
    with pytest.raises(PatternError, match="takes too long"):
        Pattern("(a|b)*a(a|b){12}", Budget(20_000)).matches_end_of("".join(random.Random(3).choices("ab", k=500)))


@pytest.mark.parametrize("pattern", [
    "(", ")", "[", "a{99999999999}", "a{900}{2}", "(((a{90}){90}){90})", "((){999}){999}", "*a", r"(a)\1", "(?=a)",
    "(?i)a", r"a\b", "a**", "a{3,2}", "[b-a]", "a\\", "a" * (LONGEST + 1), "(" * 200 + ")" * 200])
def test_what_cannot_be_matched_in_time_is_refused(pattern):
    with pytest.raises(PatternError):
        Pattern(pattern, Budget(STEPS))


def test_a_name_is_no_pattern():
    assert is_plain("down_blocks.0.to_q") and is_plain("to-q") and not is_plain("^to_q") and not is_plain("to_(q|k)")
