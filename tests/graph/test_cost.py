"""The closed form: polynomials and tables worked by hand. On real networks: test_cost_nets.py."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peelcli.graph import cost
from peelcli.records import CostModel, Costs, Share, Size, Table, Term

# A conv from w0 to w1 channels, 3x3 on 10 positions; a linear layer on w1 channels of 4 positions and 7 others.
CONV = Term("conv", 90, (Size(0, (Share(1, 1, 1),)), Size(0, (Share(0, 1, 1),))))
LINEAR = Term("linear", 1, (Size(5), Size(7, (Share(1, 4, 1),))))
FIXED = Term("stem", 3, (Size(2), Size(4)))


def test_terms_worked_by_hand():
    assert cost.term_at(CONV, (2, 3)) == 90 * 3 * 2
    assert cost.term_at(LINEAR, (2, 3)) == 5 * (7 + 4 * 3)
    assert cost.term_at(FIXED, (2, 3)) == 24
    assert cost.evaluate((CONV, LINEAR, FIXED), (2, 3)) == 540 + 95 + 24


def test_a_share_of_bundles():
    # GroupNorm with 2 channels a bundle: 6 channels are 3 bundles, each owns 10 entries of something.
    size = Size(1, (Share(0, 10, 2),))
    assert [cost.size_at(size, (width,)) for width in (2, 4, 6)] == [11, 21, 31]


def test_groups_of_a_term():
    assert cost.groups_of(CONV) == {0, 1}
    assert cost.groups_of(LINEAR) == {1}
    assert cost.groups_of(FIXED) == frozenset()


def test_simplify_adds_up_what_no_width_changes():
    assert cost.simplify((CONV, FIXED, LINEAR, FIXED)) == (CONV, LINEAR, Term("fixed", 48, ()))
    assert cost.simplify((CONV,)) == (CONV,)


def test_a_term_between_two_groups_counts_for_both():
    model = (CONV, LINEAR, FIXED)
    assert cost.parts_of_groups(model, (2, 3)) == (540, 540 + 95)


def test_costs_are_named_right():
    model = CostModel(macs=(CONV,), params=(LINEAR,), thop=(FIXED,))
    assert cost.costs(model, (2, 3)) == Costs(macs=540, params=95, thop_macs=24)


sizes = st.builds(
    Size, st.integers(0, 9), st.lists(st.builds(Share, st.integers(0, 2), st.integers(1, 5), st.just(1))).map(tuple)
)
terms = st.lists(st.builds(Term, st.just("t"), st.integers(0, 50), st.lists(sizes, max_size=3).map(tuple)), max_size=6)
widths = st.tuples(*[st.integers(1, 8)] * 3)


@given(terms, widths)
def test_simplify_changes_no_count(polynomial, at):
    by_hand = sum(
        t.coefficient * math.prod(s.constant + sum(at[share.group] * share.num for share in s.shares) for s in t.sizes)
        for t in polynomial
    )
    assert cost.evaluate(tuple(polynomial), at) == by_hand
    assert cost.evaluate(cost.simplify(tuple(polynomial)), at) == by_hand


@given(terms, widths, st.integers(0, 2))
def test_a_wider_group_never_costs_less(polynomial, at, group):
    wider = tuple(width + (position == group) for position, width in enumerate(at))
    assert cost.evaluate(tuple(polynomial), wider) >= cost.evaluate(tuple(polynomial), at)


def test_a_table_between_and_beyond_its_knots():
    one = Size(0, (Share(0, 1, 1),))
    line = Table("line", (one,), ((16, 32, 64),), (100, 200, 600))
    assert [cost.term_at(line, (width,)) for width in (8, 16, 24, 32, 48, 64, 99)] == [
        100,
        100,
        150,
        200,
        400,
        600,
        600,
    ]
    assert cost.groups_of(line) == {0}
    grid = Table("grid", (one, Size(0, (Share(1, 1, 1),))), ((0, 2), (0, 10)), (0, 10, 20, 70))
    assert cost.term_at(grid, (0, 10)) == 10
    assert cost.term_at(grid, (2, 0)) == 20
    assert cost.term_at(grid, (1, 5)) == 25  # the mean of all four
    assert cost.term_at(Table("constant", (), (), (7,)), ()) == 7
    assert cost.evaluate((line, grid), (16, 10)) == 100 + 70


def test_a_table_whose_sizes_and_knots_do_not_match_is_no_table():
    with pytest.raises(ValueError, match="zip"):
        cost.table_at(Table("odd", (Size(1),), ((0, 1), (0, 1)), (1, 2, 3, 4)), ())
