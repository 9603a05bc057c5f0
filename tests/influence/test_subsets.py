"""Which pictures a question needs: no more than it takes, and everything it takes."""

from __future__ import annotations

import pytest

from sciart_ext.errors import SciArtError
from sciart_ext.influence.shapley import steps_of
from sciart_ext.influence.subsets import ORDERS, ask


def test_each_alone_each_left_out_or_all():
    assert ask(3, "solo").sets == [0, 1, 2, 4]
    assert ask(3, "left-out").sets == [6, 5, 3, 7]
    assert ask(3).sets == [0, 1, 2, 4, 6, 5, 3, 7] and ask(3).orders is None


def test_more_than_four_are_sampled_unless_all_sets_are_no_more():
    assert len(ask(4).sets) == 16 and ask(4).orders is None
    seven = ask(7)
    assert len(seven.orders) == ORDERS and len(seven.sets) < 128
    assert {after for order in seven.orders for _, after, _ in steps_of(order)} <= set(seven.sets)
    assert {1 << k for k in range(7)} | {127 ^ 1 << k for k in range(7)} <= set(seven.sets)
    assert ask(5, orders=100).orders is None and len(ask(5, orders=100).sets) == 32
    assert len(ask(4, orders=2).orders) == 2


def test_the_same_question_has_the_same_pictures():
    assert ask(8, seed=3) == ask(8, seed=3) != ask(8, seed=4)


@pytest.mark.parametrize(("asked", "field"), [
    ({"count": 3, "subsets": "some"}, "subsets"), ({"count": 0}, "loras"), ({"count": 17}, "loras"),
    ({"count": 5, "orders": 1}, "orders")])
def test_what_cannot_be_asked_is_refused(asked, field):
    with pytest.raises(SciArtError, match=field):
        ask(**asked)
