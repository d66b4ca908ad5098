"""Rounds of cutting: bounds between the original and the budget, and cuts of cuts as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from peelcli.errors import PlanError
from peelcli.records import ChannelGraph, CostModel, Costs, Cut, Group, Limit
from peelcli.regimen import Training
from peelcli.rounds import joined, legal_as, limits_of, training_of

BEFORE = Costs(macs=8000, params=1000, thop_macs=9000)


def group(name, full, step=2, floor=2):
    return Group(name, (name,), full, step, floor, tuple((c,) for c in range(full)), (), ())


def cut(name, full, kept, score=0.0):
    return Cut(group(name, full), len(kept), tuple(kept), score)


def test_each_round_leaves_the_same_share_of_the_last():
    final = (Limit("macs", 1000), Limit("params", 1000))
    bounds = [[limit.bound for limit in limits_of(number, 3, final, BEFORE)] for number in (1, 2, 3)]
    assert bounds == [[4000, 1000], [2000, 1000], [1000, 1000]]


def test_one_round_is_the_budget():
    assert limits_of(1, 1, (Limit("macs", 7),), BEFORE) == (Limit("macs", 7),)


def test_rounds_share_the_training():
    whole = Training(epochs=6, checkpoints=Path("run"))
    part = training_of(2, 3, whole)
    assert (part.epochs, part.checkpoints) == (2.0, Path("run/round-2"))
    assert training_of(1, 4, Training(steps=2)).steps == 1
    assert training_of(1, 1, whole) is whole


def test_cuts_of_cuts_are_numbered_as_in_the_original():
    first = (cut("a", 6, [0, 2, 3, 5]), cut("b", 4, [1, 2]))
    second = (cut("a", 4, [1, 3], score=0.5), cut("b", 2, [0, 1]))
    both = joined(first, second)
    assert [(c.group.full, c.width, c.kept) for c in both] == [(6, 2, (2, 5)), (4, 2, (1, 2))]
    assert both[0].score == 0.5


def test_groups_that_changed_are_said():
    with pytest.raises(PlanError, match=r"the groups change once the model is cut \(a\)"):
        joined((cut("a", 6, [0, 2]),), (cut("b", 2, [0]),))


def test_widths_stay_legal_in_the_original():
    slim = ChannelGraph((group("a", 12, step=1, floor=1), group("new", 5, 1, 1)), CostModel((), (), ()))
    earlier = (Cut(group("a", 24, step=8, floor=4), 12, tuple(range(12)), 0.0),)
    assert [g.legal_widths() for g in legal_as(slim, earlier).groups] == [(4, 12), (1, 2, 3, 4, 5)]
