"""Groups and cost from torch-pruning's graph, the way out where the label pass fails: worked by hand, and proven."""

from __future__ import annotations

import pytest

from peelcli import proving
from peelcli.graph import cost
from peelcli.graph.depgraph import OUTPUT_REASON
from peelcli.records import ChannelGraph, Group, Locked
from peelcli.surgery import verify
from peelcli.surgery.prune import apply_cuts
from tests.support import slices, zoo
from tests.support.slices import attributes_of, one_each, slices_of


def graph_of(name: str) -> ChannelGraph:
    return zoo.graph_of(zoo.subject(name), tracer="depgraph")


def groups_of(name: str) -> dict[str, Group]:
    return slices.groups_of(name, "depgraph")


def test_of_wide_conv_groups_each_gives_a_share():
    first, second, third, _ = graph_of("wide_groups").groups
    assert first.bundles == tuple((c, c + 4) for c in range(4))
    assert slices_of(first)["1.0.weight", 1, "in"] == ((0,), (1,), (2,), (3,)) * 2
    assert second.bundles == tuple((c, c + 6) for c in range(6))
    assert ("1.0", "out_channels", None, 2) in attributes_of(second)
    assert third.bundles == tuple((c, c + 4) for c in range(4))


def test_two_filters_a_channel():
    # groups == in_channels, out = 2 * in: an equal share of each group is one filter of each
    groups = groups_of("depthwise_multiplier")
    assert groups["0.0"].locked == Locked("6 is its only legal width", "lower --align or --min-keep")
    assert groups["1.0"].bundles == (tuple(range(0, 12, 2)), tuple(range(1, 12, 2)))


def test_fewer_outputs_than_inputs_in_a_grouped_conv_are_locked_not_misread():
    group = groups_of("fewer_outputs_than_inputs")["0.0"]
    assert group.locked is not None
    assert group.slices == group.attributes == ()
    assert group.bundles == (tuple(range(12)),)


def test_norm_groups():
    groups = groups_of("group_norm")
    assert groups["0"].bundles == tuple((c, c + 4) for c in range(4))
    assert ("1", "num_channels", None, 2) in attributes_of(groups["0"])
    assert groups["3"].bundles == one_each(12)
    assert groups["6"].locked is not None  # one channel in each of six norm groups


def test_a_tied_weight_is_cut_once_where_both_uses_agree():
    group = groups_of("tied_embedding")["embed"]
    assert slices_of(group)["embed.weight", 1, "out"] == slices_of(group)["embed.weight", 1, "in"] == one_each(8)
    assert not any(piece.tensor == "out.weight" for piece in group.slices)
    assert {("embed", "embedding_dim", None, 1), ("out", "in_features", None, 1)} <= attributes_of(group)


@pytest.mark.parametrize(("name", "shared"), [("tied_linears", "2.weight"), ("shared_weight", "one.weight")])
def test_a_tied_weight_is_locked_where_its_uses_differ(name, shared):
    *locked, _ = graph_of(name).groups
    assert {group.locked.reason for group in locked} == {f"shares entries of {shared} with other channels"}


def test_a_head_that_runs_in_training_only_follows_what_it_reads():
    groups = groups_of("auxiliary")
    assert list(groups) == ["one.0", "two.0", "head.2", "aux.2"]
    assert slices_of(groups["one.0"])["aux.2.weight", 1, "in"] == one_each(8)
    assert groups["aux.2"].locked == Locked(OUTPUT_REASON)


def test_the_reasons_of_locks():
    assert "MultiheadAttention" in groups_of("attention")["embed"].locked.reason
    assert groups_of("attention")["up"].locked is None
    assert groups_of("normalised_weights")["0"].locked.reason == "0 computes its weight (a parametrization)"
    assert groups_of("old_weight_norm")["0"].locked.reason == "0 computes its weight (a parametrization)"
    assert "can't be followed from an op of kind split" in groups_of("recurrent")["two"].locked.reason
    assert groups_of("recurrent")["one"].locked is None


@pytest.mark.parametrize(
    ("name", "group", "reason"),
    [
        ("wide_first", "wide", "its channels own unequal shares of one"),  # half of them go one way, half another
        ("gated", "0", "2.0 has fewer entries than the channels that seem to reach it"),
        ("pixel_shuffle", "1", "3 has fewer entries than the channels that seem to reach it"),
    ],
)
def test_what_can_t_be_cut_evenly_is_locked(name, group, reason):
    found = groups_of(name)[group]
    assert found.locked == Locked(reason)
    assert (found.slices, found.attributes, found.legal_widths()) == ((), (), (found.full,))


def test_no_gradient_no_group():
    assert graph_of("argmax_output").groups == ()


def test_what_thop_does_not_see_is_left_out_of_its_count():
    graph = graph_of("functional_convolution")
    labels = [term.label for term in graph.cost.thop]
    assert "blur" not in labels
    assert not graph.notes


def test_what_thop_counts_beyond_the_closed_form_is_said():
    (note,) = graph_of("attention").notes
    assert note == "thop counts +204 against the closed form for reasons that no width changes"  # softmax: 12 rows x 17


@pytest.mark.parametrize("name", ["vgg_flatten", "mobilenet", "wide_groups", "group_norm", "convnext", "rms_norm"])
def test_cuts_are_proven_and_predicted(name):
    subject = zoo.subject(name)
    graph = zoo.graph_of(subject, tracer="depgraph")
    assert not any(group.blends for group in graph.groups)
    widths = zoo.some_widths(graph, seed=3)
    cuts = zoo.cuts_at(graph, widths)
    slim = apply_cuts(subject.module, cuts)
    assert cost.costs(graph.cost, widths) == proving.counted(subject, slim)
    assert verify.equivalence(subject, slim, cuts).ok is True
