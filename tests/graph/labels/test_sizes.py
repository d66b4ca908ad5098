"""Integers that remember where they came from: through arithmetic, torch.Size and comparisons, and where they leak."""

from __future__ import annotations

import copy
import math
import operator
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from peelcli.graph.labels.sizes import Attr, Dim, Op, Tracked, leaves, source_of, track_attributes, value_of

WIDTH, HEADS = Attr("attn", "width", None), Attr("attn", "heads", None)


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    monkeypatch.setattr(Tracked, "leaks", [])
    monkeypatch.setattr(Tracked, "matches", [])


def at(**values: int):
    """What the leaves are once units have gone."""
    return lambda leaf: values[leaf.name]


def test_arithmetic_worked_by_hand():
    width, heads = Tracked(12, WIDTH), Tracked(3, HEADS)
    each = width // heads
    assert (int(each), type(each)) == (4, Tracked)
    assert value_of(each.source, at(width=8, heads=2)) == 4
    assert value_of(each.source, at(width=6, heads=3)) == 2
    wide = 3 * each * heads - 1
    assert int(wide) == 35
    assert value_of(wide.source, at(width=8, heads=2)) == 23
    assert list(leaves(wide.source)) == [WIDTH, HEADS, HEADS]
    assert value_of((-width).source, at(width=8)) == -8
    assert value_of((20 - width % 5).source, at(width=8)) == 17


OPERATIONS = (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod)


@given(st.sampled_from(OPERATIONS), st.integers(-9, 9), st.integers(1, 9), st.integers(-9, 9), st.integers(1, 9))
def test_arithmetic_is_that_of_integers_now_and_later(apply, a, b, later_a, later_b):
    one, other = Tracked(a, WIDTH), Tracked(b, HEADS)
    for made in (apply(one, other), apply(one, b), apply(a, other)):
        assert isinstance(made, Tracked)
        assert int(made) == apply(a, b)
    later = at(width=later_a, heads=later_b)
    assert value_of(apply(one, other).source, later) == apply(later_a, later_b)
    assert value_of(apply(one, b).source, later) == apply(later_a, b)
    assert value_of(apply(a, other).source, later) == apply(a, later_b)


def test_a_plain_number_is_its_own_source():
    assert source_of(7) == 7
    assert value_of(7, at()) == 7
    assert list(leaves(7)) == []
    assert source_of(Tracked(7, WIDTH)) is WIDTH


def test_division_by_what_has_gone_to_zero_is_an_error():
    with pytest.raises(ZeroDivisionError):
        value_of(Op(operator.floordiv, (WIDTH, HEADS)), at(width=4, heads=0))


def test_a_torch_size_keeps_its_numbers():
    size = torch.Size([2, Tracked(12, WIDTH), 4])
    assert size[1].source is WIDTH
    batch, channels, *rest = size
    assert channels.source is WIDTH
    assert (batch, *rest) == (2, 4)
    assert size[-2:][0].source is WIDTH
    assert torch.zeros(2, Tracked(3, WIDTH)).shape == (2, 3)
    assert torch.zeros(12).view(Tracked(3, WIDTH), -1).shape == (3, 4)


@pytest.mark.parametrize(
    "formula",
    [float, math.sqrt, lambda n: n**-0.5, lambda n: n / 4, lambda n: 1 / n, lambda n: n**2],
)
def test_a_number_that_goes_into_a_formula_is_noted(formula):
    plain = formula(12)
    assert formula(Tracked(12, WIDTH)) == plain
    assert Tracked.leaks == [(12, WIDTH)]


@pytest.mark.parametrize("formula", [lambda n: n * 0.5, lambda n: n + 0.5, lambda n: n // 2.0])
def test_arithmetic_with_a_float_is_noted_as_well(formula):
    assert formula(Tracked(12, WIDTH)) == formula(12)
    assert Tracked.leaks == [(12, WIDTH)]


def test_what_stays_an_integer_is_no_leak():
    width = Tracked(12, WIDTH)
    assert (width + 1) * 2 // 2 == 13
    assert [0] * width == [0] * 12
    assert list(range(width))[-1] == 11
    assert Tracked.leaks == []


def test_what_was_found_equal_is_noted():
    width, heads = Tracked(12, WIDTH), Tracked(12, HEADS)
    assert width == heads
    assert [(a.source, b.source) for a, b in Tracked.matches] == [(WIDTH, HEADS)]
    assert (width != heads) is False
    assert width == 12
    assert width != Tracked(3, HEADS)
    assert len(Tracked.matches) == 2
    assert {12: "found"}[width] == "found"


def test_copies():
    width = Tracked(12, WIDTH)
    assert copy.deepcopy(width) is width
    assert type(pickle.loads(pickle.dumps(width))) is int
    assert repr(width) == str(width) == f"{width}" == "12"


def test_a_size_of_a_tensor_is_a_leaf_of_its_own():
    factor = np.arange(1, 5)
    one, other = Dim(factor, 0), Dim(factor, 0)
    assert one != other
    total = Tracked(4, one) + Tracked(4, other)
    assert list(leaves(total.source)) == [one, other]


def test_the_integers_of_modules_are_tracked():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.scale, self.flag, self.name = 3, 0.5, True, "net"
            self.window, self.sizes, self.mixed, self.empty = (2, 4), [5, 6], (1, "a"), ()
            self.norm = nn.LayerNorm((6,))

    net = Net()
    found = track_attributes(net)
    assert {(a.module, a.name, a.item): value for a, value in found.items()} == {
        ("", "heads", None): 3, ("", "window", 0): 2, ("", "window", 1): 4, ("", "sizes", 0): 5, ("", "sizes", 1): 6,
        ("norm", "normalized_shape", 0): 6,
    }  # fmt: skip
    assert net.heads.source == Attr("", "heads", None)
    assert net.norm.normalized_shape[0].source == Attr("norm", "normalized_shape", 0)
    assert type(net.window) is tuple
    assert (net.flag, net.training, net.mixed, net.name) == (True, True, (1, "a"), "net")
    assert not any(isinstance(value, Tracked) for value in (net.flag, net.training, net.mixed[0], net.scale))
