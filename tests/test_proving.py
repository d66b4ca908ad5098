"""The proofs of every run: counted against predicted and budget, and the search for what breaks them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from peelcli import planning, proving
from peelcli.graph import cost
from peelcli.records import Attribute, Costs, Cut, Limit
from peelcli.surgery.prune import apply_cuts
from tests.support import zoo

ONE = Costs(macs=100, params=10, thop_macs=120)


def test_predictions_hold_to_the_last_unit():
    assert [(c.name, c.ok, c.value) for c in proving.prediction_checks(ONE, ONE)] == [
        ("predicted_macs", True, 0.0), ("predicted_params", True, 0.0), ("predicted_thop_macs", True, 0.0)
    ]  # fmt: skip


def test_one_unit_off_is_a_failure_and_said():
    macs, params, thop = proving.prediction_checks(ONE, Costs(macs=101, params=10, thop_macs=119))
    assert (macs.ok, macs.value, macs.note) == (False, 1.0, "predicted 100, counted 101")
    assert params.ok is True
    assert (thop.ok, thop.note) == (None, "predicted 120, counted 119")  # reported, not passed


def test_budgets_are_checked_against_what_was_counted():
    macs, params = proving.budget_checks(ONE, [Limit("macs", 100), Limit("params", 8)])
    assert (macs.name, macs.ok, macs.value) == ("budget_macs", True, 1.0)
    assert (params.ok, params.value) == (False, 1.25)


@pytest.mark.parametrize("name", ["looks_at_values", "batch_of_two", "makes_tensors", "old_weight_norm"])
def test_odd_models_are_counted_like_any_other(name):
    subject = zoo.subject(name)
    graph = zoo.graph_of(subject)
    assert proving.counted(subject, subject.module) == cost.costs(graph.cost, graph.full)


def cuts_of(name: str) -> tuple[zoo.Subject, zoo.ChannelGraph, tuple[Cut, ...]]:
    subject = zoo.subject(name)
    graph = zoo.graph_of(subject)
    widths = [legal[(len(legal) - 1) // 2] for legal in (group.legal_widths() for group in graph.groups)]
    return subject, graph, zoo.cuts_at(graph, widths)


def broken(subject, graph, cuts) -> tuple[str, ...]:
    return proving.broken_groups(subject, cuts, partial(planning._predict, graph), seed=0)


def changed(cuts, name, **changes) -> tuple[Cut, ...]:
    return tuple(replace(c, group=replace(c.group, **changes)) if c.group.name == name else c for c in cuts)


def test_nothing_is_broken_in_right_cuts():
    assert broken(*cuts_of("resnet")) == ()


def test_a_group_that_does_not_run_is_found_on_shapes_alone(monkeypatch):
    subject, graph, cuts = cuts_of("resnet")
    slices = next(c.group.slices for c in cuts if c.group.name == "3.conv1")
    cuts = changed(cuts, "3.conv1", slices=tuple(s for s in slices if s.tensor != "3.conv2.weight"))
    monkeypatch.setattr(proving.verify, "equivalence", lambda *_: pytest.fail("computed"))
    assert broken(subject, graph, cuts) == ("3.conv1",)


def test_a_group_that_costs_something_else_is_found():
    subject, graph, cuts = cuts_of("resnet")
    wrong = replace(graph, cost=replace(graph.cost, params=graph.cost.params[1:]))
    assert set(broken(subject, wrong, cuts)) == {c.group.name for c in cuts if c.width < c.group.full}


def test_a_group_that_computes_something_else_is_found():
    subject, graph, cuts = cuts_of("mobilenet")
    slices = next(c.group.slices for c in cuts if c.group.name == "2.squeeze")
    shifted = tuple(
        replace(s, indices=(*s.indices[1:], s.indices[0])) if s.tensor == "2.excite.weight" else s for s in slices
    )
    assert broken(subject, graph, changed(cuts, "2.squeeze", slices=shifted)) == ("2.squeeze",)


def test_a_wrong_attribute_is_found():
    subject, graph, cuts = cuts_of("unet")
    group = next(c.group for c in cuts if c.group.name == "up")
    wrong = changed(cuts, "up", attributes=(*group.attributes, Attribute("join.0", "in_channels", None, 5)))
    # in_channels is not used by forward: neither the shapes nor the values change
    assert broken(subject, graph, wrong) == ()
    assert apply_cuts(subject.module, wrong).join[0].in_channels < 0
