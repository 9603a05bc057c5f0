"""When memory runs out: it is recognised, what was held is let go, and what fits is found."""

from __future__ import annotations

import weakref

import pytest
import torch

from sciart_ext.errors import SciArtError
from sciart_ext.memory import is_out_of_memory, rows_that_fit, too_many_rows, unless_too_large


def more_than_there_is():
    return torch.empty(1 << 55, dtype=torch.uint8)


def test_what_torchs_allocator_raises_is_recognised_and_other_errors_are_not():
    with pytest.raises(RuntimeError) as caught:
        more_than_there_is()
    assert is_out_of_memory(caught.value) and is_out_of_memory(torch.cuda.OutOfMemoryError("out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_what_was_held_is_let_go_before_the_refusal_is_made():
    held = []

    def run():
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        more_than_there_is()

    def refusal():
        assert held[0]() is None
        return SciArtError("compose", "too large")

    with pytest.raises(SciArtError, match="compose: too large"):
        unless_too_large(run, refusal)


def test_without_a_refusal_the_error_itself_is_raised_and_others_always_are():
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        unless_too_large(more_than_there_is, lambda: None)
    with pytest.raises(KeyError):
        unless_too_large({}.popitem, lambda: SciArtError("compose", "never said"))
    assert unless_too_large(lambda: 7, lambda: None) == 7


@pytest.mark.parametrize("room", range(9))
def test_the_most_rows_that_fit_are_found(room):
    calls = []

    def call(rows):
        calls.append(rows)
        return torch.empty(rows) if rows <= room else more_than_there_is()

    assert rows_that_fit(call, 10) == room
    assert len(calls) <= 4


def test_an_error_that_is_not_of_memory_ends_the_search():
    with pytest.raises(ZeroDivisionError):
        rows_that_fit(lambda rows: rows // 0, 10)


@pytest.mark.parametrize(("fitting", "accepted"), [
    (19, "a batch size of 3, merge, a smaller picture"),
    (10, "a batch size of 2, merge, a smaller picture"),
    (4, "a smaller picture"),
])
def test_only_what_fits_is_advised(fitting, accepted):
    assert str(too_many_rows(20, fitting, images=4, each=5, ways_out=[(8, "merge")])) == (
        f"compose: out of memory: 20 rows at once do not fit, {fitting} would; accepted: {accepted}")
