"""Groups of coupled channels, worked by hand: names, slices, attributes, bundles and reasons to be locked."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peelcli.graph.labels.trace import OUTPUT_REASON
from peelcli.records import Subject
from tests.support import zoo
from tests.support.parts import conv_bn, head, image
from tests.support.slices import attributes_of, blocks, groups_of, one_each, slices_of

BOTH_TRACERS = pytest.mark.parametrize("tracer", ["labels", "depgraph"])


@BOTH_TRACERS
def test_a_chain_worked_by_hand(tracer):
    first, second, third, last = zoo.graph_of(zoo.subject("vgg_flatten"), tracer=tracer).groups
    assert (first.name, first.full, first.layers) == ("0.0", 8, ("0.0", "0.1", "2.0"))
    assert slices_of(first) == {
        ("0.0.weight", 0, "out"): one_each(8),
        **{(f"0.1.{n}", 0, "out"): one_each(8) for n in ("weight", "bias", "running_mean", "running_var")},
        ("2.0.weight", 1, "in"): one_each(8),
    }
    assert attributes_of(first) == {
        ("0.0", "out_channels", None, 1), ("0.1", "num_features", None, 1), ("2.0", "in_channels", None, 1)
    }  # fmt: skip
    # a channel of 2 x 3 positions is six neighbouring columns of the linear layer behind the flatten
    assert slices_of(second)["5.weight", 1, "in"] == blocks(12, 6)
    assert ("5", "in_features", None, 6) in attributes_of(second)
    assert slices_of(third) == {
        ("5.weight", 0, "out"): one_each(20),
        ("5.bias", 0, "out"): one_each(20),
        ("8.weight", 1, "in"): one_each(20),
    }
    assert last.locked.reason == OUTPUT_REASON
    assert last.legal_widths() == (5,)


def test_a_residual_stream_is_one_group():
    groups = groups_of("resnet")
    assert list(groups) == ["0.0", "1.conv1", "2.conv1", "2.conv2", "3.conv1", "4.2"]
    assert groups["0.0"].layers == ("0.0", "0.1", "1.conv1", "1.conv2", "1.bn2", "2.conv1", "2.short")
    assert {(t, d, r) for t, d, r in slices_of(groups["2.conv2"]) if r == "in"} == {
        ("3.conv1.weight", 1, "in"), ("4.2.weight", 1, "in")
    }  # fmt: skip
    assert slices_of(groups["2.conv2"])["2.short.weight", 0, "out"] == one_each(10)


def test_a_depthwise_conv_goes_with_both_neighbours():
    group = groups_of("mobilenet")["2.expand.0"]
    assert group.layers == (
        "2.expand.0", "2.expand.1", "2.depthwise.0", "2.depthwise.1", "2.squeeze", "2.excite", "2.project.0"
    )  # fmt: skip
    assert slices_of(group)["2.depthwise.0.weight", 0, "out"] == one_each(24)
    assert {a for a in attributes_of(group) if a[0] == "2.depthwise.0"} == {
        ("2.depthwise.0", name, None, 1) for name in ("in_channels", "out_channels", "groups")
    }


def test_a_depthwise_conv_on_the_input_stays_as_the_input_does():
    groups = groups_of("depthwise_first")
    assert list(groups) == ["0", "1", "3.2"]
    assert groups["0"].locked is not None
    others = [piece for name, group in groups.items() if name != "0" for piece in group.slices]
    assert not any(piece.tensor.startswith("0.") for piece in others)


def test_narrow_conv_groups_go_as_a_whole():
    group = groups_of("narrow_groups")["1.0"]
    assert group.bundles == blocks(6, 2)
    assert (group.full, group.step, group.floor) == (12, 2, 2)
    assert {a for a in attributes_of(group) if a[0] == "2.0"} == {
        ("2.0", "in_channels", None, 2), ("2.0", "out_channels", None, 2), ("2.0", "groups", None, 1)
    }  # fmt: skip
    assert slices_of(group)["2.0.weight", 0, "out"] == one_each(12)


def test_of_wide_conv_groups_each_gives_a_share():
    first, second, third, _ = zoo.graph_of(zoo.subject("wide_groups")).groups
    assert first.bundles == tuple((c, c + 4) for c in range(4))
    # one column reads all channels of a bundle, and is written down for the first of them
    assert slices_of(first)["1.0.weight", 1, "in"] == (*one_each(4), *[()] * 4)
    assert second.bundles == tuple((c, c + 6) for c in range(6))
    assert ("1.0", "out_channels", None, 2) in attributes_of(second)
    assert third.bundles == tuple((c, c + 4) for c in range(4))


def test_two_filters_a_channel():
    # groups == in_channels, out = 2 * in: a channel takes its conv group and both filters with it
    group = groups_of("depthwise_multiplier")["0.0"]
    assert group.bundles == one_each(6)
    assert slices_of(group)["1.0.weight", 0, "out"] == slices_of(group)["2.weight", 1, "in"] == blocks(6, 2)
    assert {a for a in attributes_of(group) if a[0] == "1.0"} == {
        ("1.0", "in_channels", None, 1), ("1.0", "out_channels", None, 2), ("1.0", "groups", None, 1)
    }  # fmt: skip


def test_fewer_outputs_than_inputs_in_a_grouped_conv():
    # six groups of two inputs and one output: two channels of the stem go with one filter
    group = groups_of("fewer_outputs_than_inputs")["0.0"]
    assert (group.full, group.step, group.floor, group.bundles) == (12, 2, 2, blocks(6, 2))
    rows, columns = slices_of(group)["1.weight", 0, "out"], slices_of(group)["3.weight", 1, "in"]
    assert [rows[a] + rows[b] for a, b in group.bundles] == [columns[a] + columns[b] for a, b in group.bundles]
    assert [rows[a] + rows[b] for a, b in group.bundles] == list(one_each(6))
    assert {a for a in attributes_of(group) if a[0] == "1"} == {
        ("1", "in_channels", None, 2), ("1", "out_channels", None, 1), ("1", "groups", None, 1)
    }  # fmt: skip


def test_norm_groups():
    groups = groups_of("group_norm")
    assert groups["0"].bundles == tuple((c, c + 4) for c in range(4))
    assert ("1", "num_channels", None, 2) in attributes_of(groups["0"])
    assert groups["3"].bundles == one_each(12)
    assert groups["6"].bundles == one_each(6)  # one channel in each of six norm groups
    assert {a for a in attributes_of(groups["6"]) if a[0] == "7"} == {
        ("7", "num_channels", None, 1), ("7", "num_groups", None, 1)
    }  # fmt: skip


@BOTH_TRACERS
def test_a_transposed_conv_has_its_dimensions_the_other_way_round(tracer):
    groups = groups_of("unet", tracer)
    assert slices_of(groups["up"])["up.weight", 1, "out"] == one_each(6)
    assert slices_of(groups["down2.0"])["up.weight", 0, "in"] == one_each(12)
    assert slices_of(groups["up"])["join.0.weight", 1, "in"] == one_each(6)
    assert slices_of(groups["down1.0"])["join.0.weight", 1, "in"] == one_each(8, start=6)


@BOTH_TRACERS
def test_concatenations_shift_the_indices(tracer):
    groups = groups_of("densenet", tracer)
    assert slices_of(groups["0"])["3.weight", 0, "out"] == one_each(8)
    assert slices_of(groups["1.conv2"])["3.weight", 0, "out"] == one_each(4, start=8)
    assert slices_of(groups["2.conv2"])["4.weight", 1, "in"] == one_each(4, start=12)


def test_a_concatenation_added_to_a_wide_stream():
    groups = groups_of("cat_then_add")
    assert list(groups) == ["one", "two", "head.2"]
    assert slices_of(groups["one"])["wide.weight", 0, "out"] == one_each(6)
    assert slices_of(groups["two"])["wide.weight", 0, "out"] == one_each(8, start=6)
    assert ("wide", "out_channels", None, 1) in attributes_of(groups["two"])


@BOTH_TRACERS
def test_bare_parameters_and_layer_norms(tracer):
    group = groups_of("convnext", tracer)["0"]
    assert slices_of(group)["2.scale", 0, "out"] == one_each(8)
    assert {("1", "normalized_shape", 0, 1), ("2.norm", "normalized_shape", 0, 1)} <= attributes_of(group)
    scales = slices_of(groups_of("parameter_scale", tracer)["conv"])
    assert scales["gamma", 1, "out"] == scales["beta", 0, "out"] == one_each(8)
    assert not any(tensor == "gain" for tensor, *_ in scales)


@BOTH_TRACERS
def test_halves_that_meet_go_in_pairs(tracer):
    group = groups_of("chunks", tracer)["both"]
    assert group.bundles == tuple((c, c + 6) for c in range(6))
    columns = slices_of(group)["head.2.weight", 1, "in"]
    assert [columns[a] + columns[b] for a, b in group.bundles] == [(c,) for c in range(6)]


def test_a_module_called_twice_is_read_and_written_by_the_same_channels():
    group = groups_of("called_twice")["stem.0"]
    assert slices_of(group)["again.weight", 0, "out"] == slices_of(group)["again.weight", 1, "in"] == one_each(8)


def test_a_tied_weight_is_cut_once_where_both_uses_agree():
    group = groups_of("tied_embedding")["embed"]
    assert slices_of(group)["embed.weight", 1, "in"] == slices_of(group)["down.weight", 0, "out"] == one_each(8)
    assert sum(piece.tensor == "embed.weight" for piece in group.slices) == 1
    assert not any(piece.tensor == "out.weight" for piece in group.slices)
    assert {("embed", "embedding_dim", None, 1), ("out", "in_features", None, 1)} <= attributes_of(group)


@pytest.mark.parametrize(
    ("name", "shared", "uses"),
    [("tied_linears", "2.weight", ("2", "4")), ("shared_weight", "one.weight", ("one", "two"))],
)
def test_what_a_tied_weight_makes_goes_with_what_it_reads(name, shared, uses):
    group, last = zoo.graph_of(zoo.subject(name)).groups
    assert (group.locked, last.locked.reason) == (None, OUTPUT_REASON)
    assert slices_of(group)[shared, 0, "out"] == slices_of(group)[shared, 1, "in"] == one_each(group.full)
    assert {layer for layer, *_ in attributes_of(group)} >= set(uses)


@BOTH_TRACERS
def test_every_output_keeps_its_shape(tracer):
    groups = groups_of("tuple_output", tracer)
    assert [name for name, group in groups.items() if group.locked] == ["two.0", "head.2"]
    assert {group.locked.reason for group in groups.values() if group.locked} == {OUTPUT_REASON}
    assert slices_of(groups["one.0"])["two.0.weight", 1, "in"] == one_each(8)


def test_an_output_that_goes_on_inside():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = conv_bn(3, 8), nn.Conv2d(8, 6, 1), head(6)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            x = self.two(self.one(x))
            return [torch.relu_(x), self.head(x)]

    graph = zoo.graph_of(Subject(Net().eval(), (image(),), "net"))
    assert [(g.name, g.locked is None) for g in graph.groups] == [("one.0", True), ("two", False), ("head.2", False)]


def test_a_shared_activation_at_the_output_locks_only_what_comes_out_of_it_there():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = (nn.Conv2d(a, b, 1) for a, b in ((3, 8), (8, 6), (6, 4)))
            self.relu = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu(self.three(self.relu(self.two(self.relu(self.one(x))))))

    graph = zoo.graph_of(Subject(Net().eval(), (image(),), "net"))
    assert [(g.name, g.locked is None) for g in graph.groups] == [("one", True), ("two", True), ("three", False)]


def test_a_head_that_runs_in_training_only_follows_what_it_reads():
    groups = groups_of("auxiliary")
    assert list(groups) == ["one.0", "two.0", "head.2", "aux.2"]
    assert slices_of(groups["one.0"])["aux.2.weight", 1, "in"] == one_each(8)
    assert groups["aux.2"].locked.reason == OUTPUT_REASON


def test_a_forward_that_wants_more_in_training_is_followed_in_eval_mode():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.head, self.loss = conv_bn(3, 8), head(8), nn.Linear(5, 1)

        def forward(self, x: torch.Tensor, target: torch.Tensor | None = None) -> torch.Tensor:
            out = self.head(self.one(x))
            return (self.loss(out) - target) ** 2 if self.training else out

    graph = zoo.graph_of(Subject(Net().eval(), (image(),), "net"))
    assert [(g.name, g.locked is None) for g in graph.groups] == [("one.0", True), ("head.2", False)]


def test_the_reasons_of_locks():
    flipped, response = groups_of("flipped")["conv.0"].locked, groups_of("response_norm")["0"].locked
    assert flipped.reason.startswith("its channels change their order (shape_nets.py:")
    assert response.reason.endswith(" in 2")  # the layer, where no line of the user's code runs it
    padded = groups_of("padded_shortcut")["two.0"].locked
    assert padded.reason.startswith("it meets what can't go (shape_nets.py:")


def test_a_size_that_is_fixed_in_the_code_is_a_lock_with_a_remedy():
    locked = groups_of("fixed_view")["two.0"].locked
    assert locked.reason.startswith("a size of 128 is fixed in the code (view) (shape_nets.py:")
    assert locked.remedy == "export it to .pt2 and prune that"
    assert groups_of("fixed_view")["fc1"].locked is None


def test_only_what_a_literal_slice_counts_is_locked():
    groups = groups_of("slice_and_join")
    assert [(g.name, g.full, g.locked is None) for g in groups.values()] == [
        ("both.0", 4, False), ("both.0#2", 8, True), ("more.0", 6, True), ("head.2", 5, False)
    ]  # fmt: skip
    assert groups["both.0"].locked.reason.startswith("a size of 4 is fixed in the code (a slice) (shape_nets.py:")
    assert slices_of(groups["both.0#2"])["both.0.weight", 0, "out"] == one_each(8, start=4)
    assert slices_of(groups["both.0#2"])["head.2.weight", 1, "in"] == one_each(8, start=6)


def test_of_a_padded_shortcut_only_what_meets_the_padding_stays():
    groups = groups_of("padded_shortcut")
    assert slices_of(groups["one.0"])["two.0.weight", 0, "out"] == one_each(8, start=2)
    assert slices_of(groups["two.0"])["two.0.weight", 0, "out"] == ((0,), (1,), (10,), (11,))


def test_a_wide_layer_that_meets_a_concatenation_is_two_groups():
    first, second, _ = zoo.graph_of(zoo.subject("wide_first")).groups
    assert (first.name, second.name) == ("wide", "wide#2")
    assert slices_of(first)["wide.weight", 0, "out"] == slices_of(first)["one.weight", 0, "out"] == one_each(6)
    assert slices_of(second)["wide.weight", 0, "out"] == slices_of(second)["head.2.weight", 1, "in"] == one_each(8, 6)
    assert slices_of(second)["two.weight", 0, "out"] == one_each(8)


@pytest.mark.parametrize(
    ("name", "group", "bundles", "reader"),
    [
        ("gated", "0", tuple((c, c + 6) for c in range(6)), "2.0.weight"),
        ("pixel_shuffle", "1", blocks(6, 4), "3.weight"),
        ("recurrent", "lstm", tuple((c, c + 6, c + 12, c + 18) for c in range(6)), "fc.weight"),  # the four gates
    ],
)
def test_channels_of_which_several_make_one(name, group, bundles, reader):
    found = groups_of(name)[group]
    assert (found.bundles, found.locked) == (bundles, None)
    columns = slices_of(found)[reader, 1, "in"]
    assert [sum((columns[c] for c in bundle), ()) for bundle in bundles] == list(one_each(6))


def test_an_attention_goes_by_whole_heads_and_its_numbers_follow():
    group = groups_of("attention")["embed"]
    assert group.bundles == blocks(2, 4)
    assert {(name, loss) for layer, name, _, loss in attributes_of(group) if layer == "attn"} == {
        ("num_heads", 1), ("embed_dim", 4), ("kdim", 4), ("vdim", 4)
    }  # fmt: skip
    rows = slices_of(group)["attn.in_proj_weight", 0, "out"]
    head = {row for channel in group.bundles[0] for row in rows[channel]}
    assert head == {*range(4), *range(8, 12), *range(16, 20)}  # its queries, keys and values


@pytest.mark.parametrize("name", ["normalised_weights", "old_weight_norm"])
def test_a_computed_weight_is_cut_in_what_it_is_computed_from(name):
    first = zoo.graph_of(zoo.subject(name)).groups[0]
    assert (first.full, first.locked) == (8, None)
    directions = [piece for piece in first.slices if piece.tensor.endswith(("original1", "weight_v"))]
    assert [(piece.dim, piece.indices) for piece in directions] == [(0, one_each(8))]


def test_a_model_that_is_one_layer():
    (group,) = zoo.graph_of(Subject(nn.Conv2d(3, 8, 3), (image(),), "conv")).groups
    assert (group.name, group.locked.reason) == ("weight", OUTPUT_REASON)


def test_channels_behind_an_argmax_stay_and_those_before_may_go():
    first, last = zoo.graph_of(zoo.subject("argmax_output")).groups
    assert (first.name, first.locked) == ("net.0.0", None)
    assert last.locked.reason.startswith("argmax goes over all its channels (odd_nets.py:")
