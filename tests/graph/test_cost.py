"""The closed form: polynomials worked by hand, and the same figures as independent counters on really cut networks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from peelcli import proving
from peelcli.graph import cost
from peelcli.records import CostModel, Costs, Share, Size, Subject, Table, Term
from peelcli.surgery.prune import apply_cuts
from tests.support import zoo
from tests.support.parts import conv_bn

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
    assert cost.share_of_group(model, (2, 3), 0) == 540
    assert cost.share_of_group(model, (2, 3), 1) == 540 + 95


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


# --- on real networks


def test_two_convs_and_a_linear_layer_worked_by_hand():
    # 3 -> a channels, 3x3 on 4x4 positions; a -> b, 1x1 on 2x2 positions after pooling; then 4 b features -> 5 classes
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.Conv2d(8, 6, 1, bias=False), nn.Flatten(),
        nn.Linear(24, 5),
    ).eval()  # fmt: skip
    graph = zoo.graph_of(Subject(net, (torch.randn(1, 3, 4, 4),), "net"))
    for a, b in ((8, 6), (5, 2), (1, 1)):
        assert cost.costs(graph.cost, (a, b, 5)) == Costs(
            macs=16 * 27 * a + 4 * a * b + 4 * b * 5,
            params=27 * a + a + 2 * a + a * b + 4 * b * 5 + 5,
            thop_macs=16 * 27 * a + 16 * 4 * a + 4 * a * b + 4 * b * 5,  # BatchNorm with weights: 4 an element
        )


def test_depthwise_and_grouped_convolutions_worked_by_hand():
    net = nn.Sequential(
        conv_bn(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1, groups=2), nn.Conv2d(4, 2, 1)
    )
    graph = zoo.graph_of(Subject(net.eval(), (torch.randn(1, 3, 6, 6),), "net"))
    for a, b in ((8, 4), (6, 2)):
        macs = 36 * 3 * a + 16 * 9 * a + 16 * (a // 2) * b + 16 * b * 2
        params = 3 * a + 2 * a + 10 * a + (a // 2) * b + b + 2 * b + 2
        assert (cost.costs(graph.cost, (a, b, 2)).macs, cost.costs(graph.cost, (a, b, 2)).params) == (macs, params)


@pytest.mark.parametrize("name", zoo.SOUND)
def test_predicted_is_counted(name):
    """The invariant of the whole tool, for all three counts."""
    subject = zoo.subject(name)
    graph = zoo.graph_of(subject)
    assert cost.costs(graph.cost, graph.full) == proving.counted(subject, subject.module)

    @settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
    @given(st.tuples(*(st.sampled_from(group.legal_widths()) for group in graph.groups)), st.integers(0, 99))
    def at_any_widths(widths, seed):
        slim = apply_cuts(subject.module, zoo.cuts_at(graph, widths, seed))
        assert cost.costs(graph.cost, widths) == proving.counted(subject, slim)

    at_any_widths()


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
