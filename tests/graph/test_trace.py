"""Groups of coupled channels, worked by hand: names, slices, attributes, bundles and reasons to be locked."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from peelcli.errors import TraceError, UsageError
from peelcli.graph import cost, trace
from peelcli.graph.depgraph import OUTPUT_REASON
from peelcli.graph.legal import Legality
from peelcli.records import Group, Locked, Subject
from peelcli.tensors import named_tensors
from tests.support import zoo
from tests.support.parts import conv_bn, head, image


def one_each(count: int, start: int = 0) -> tuple[tuple[int, ...], ...]:
    return tuple((start + channel,) for channel in range(count))


def blocks(count: int, size: int, start: int = 0) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(range(start + k * size, start + (k + 1) * size)) for k in range(count))


def slices_of(group: Group) -> dict[tuple[str, int, str], tuple[tuple[int, ...], ...]]:
    return {(piece.tensor, piece.dim, piece.role): piece.indices for piece in group.slices}


def attributes_of(group: Group) -> set[tuple[str, str, int | None, int]]:
    return {(a.module, a.name, a.item, a.per_bundle) for a in group.attributes}


def groups_of(name: str) -> dict[str, Group]:
    return {group.name: group for group in zoo.graph_of(zoo.subject(name)).groups}


def test_a_chain_worked_by_hand():
    first, second, third, last = zoo.graph_of(zoo.subject("vgg_flatten")).groups
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
    assert last.locked == Locked(OUTPUT_REASON)
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


def test_a_depthwise_conv_on_the_input_is_no_group():
    groups = groups_of("depthwise_first")
    assert list(groups) == ["1", "3.2"]
    assert not any(piece.tensor.startswith("0.") for group in groups.values() for piece in group.slices)


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


def test_a_transposed_conv_has_its_dimensions_the_other_way_round():
    groups = groups_of("unet")
    assert slices_of(groups["up"])["up.weight", 1, "out"] == one_each(6)
    assert slices_of(groups["down2.0"])["up.weight", 0, "in"] == one_each(12)
    assert slices_of(groups["up"])["join.0.weight", 1, "in"] == one_each(6)
    assert slices_of(groups["down1.0"])["join.0.weight", 1, "in"] == one_each(8, start=6)


def test_concatenations_shift_the_indices():
    groups = groups_of("densenet")
    assert slices_of(groups["0"])["3.weight", 0, "out"] == one_each(8)
    assert slices_of(groups["1.conv2"])["3.weight", 0, "out"] == one_each(4, start=8)
    assert slices_of(groups["2.conv2"])["4.weight", 1, "in"] == one_each(4, start=12)


def test_a_concatenation_added_to_a_wide_stream():
    groups = groups_of("cat_then_add")
    assert list(groups) == ["one", "two", "head.2"]
    assert slices_of(groups["one"])["wide.weight", 0, "out"] == one_each(6)
    assert slices_of(groups["two"])["wide.weight", 0, "out"] == one_each(8, start=6)
    assert ("wide", "out_channels", None, 1) in attributes_of(groups["two"])


def test_bare_parameters_and_layer_norms():
    group = groups_of("convnext")["0"]
    assert slices_of(group)["2.scale", 0, "out"] == one_each(8)
    assert {("1", "normalized_shape", 0, 1), ("2.norm", "normalized_shape", 0, 1)} <= attributes_of(group)
    scales = slices_of(groups_of("parameter_scale")["conv"])
    assert scales["gamma", 1, "out"] == scales["beta", 0, "out"] == one_each(8)
    assert not any(tensor == "gain" for tensor, *_ in scales)


def test_halves_that_meet_go_in_pairs():
    group = groups_of("chunks")["both"]
    assert group.bundles == tuple((c, c + 6) for c in range(6))
    columns = slices_of(group)["head.2.weight", 1, "in"]
    assert [columns[a] + columns[b] for a, b in group.bundles] == [(c,) for c in range(6)]


def test_a_module_called_twice_is_read_and_written_by_the_same_channels():
    group = groups_of("called_twice")["stem.0"]
    assert slices_of(group)["again.weight", 0, "out"] == slices_of(group)["again.weight", 1, "in"] == one_each(8)


def test_a_tied_weight_is_cut_once_where_both_uses_agree():
    group = groups_of("tied_embedding")["embed"]
    assert slices_of(group)["embed.weight", 1, "out"] == slices_of(group)["embed.weight", 1, "in"] == one_each(8)
    assert not any(piece.tensor == "out.weight" for piece in group.slices)
    assert {("embed", "embedding_dim", None, 1), ("out", "in_features", None, 1)} <= attributes_of(group)


@pytest.mark.parametrize(("name", "shared"), [("tied_linears", "2.weight"), ("shared_weight", "one.weight")])
def test_a_tied_weight_is_locked_where_its_uses_differ(name, shared):
    *locked, _ = zoo.graph_of(zoo.subject(name)).groups
    assert {group.locked.reason for group in locked} == {f"shares entries of {shared} with other channels"}


def test_every_output_keeps_its_shape():
    groups = groups_of("tuple_output")
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
    assert groups["aux.2"].locked == Locked(OUTPUT_REASON)


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


def test_a_model_that_is_one_layer():
    (group,) = zoo.graph_of(Subject(nn.Conv2d(3, 8, 3), (image(),), "conv")).groups
    assert (group.name, group.locked) == ("", Locked(OUTPUT_REASON))


def test_no_gradient_no_group():
    assert zoo.graph_of(zoo.subject("argmax_output")).groups == ()


# --- wishes


def test_ignored_layers_keep_their_width():
    graph = zoo.graph_of(zoo.subject("resnet"), ignore=("1.conv*",))
    locked = {group.name: group.locked for group in graph.groups if group.locked}
    remedy = "narrow the --ignore pattern"
    assert locked == {
        "0.0": Locked("ignored by '1.conv*'", remedy),  # 1.conv2 writes to the stream
        "1.conv1": Locked("ignored by '1.conv*'", remedy),
        "4.2": Locked(OUTPUT_REASON),
    }


def test_reading_from_an_ignored_layer_is_no_lock():
    graph = zoo.graph_of(zoo.subject("vgg_flatten"), ignore=("2.0",))
    assert [group.name for group in graph.groups if group.locked] == ["2.0", "8"]


def test_an_ignore_that_matches_nothing_is_refused():
    with pytest.raises(UsageError, match=r"--ignore 'layer1\.\*' matches no layer"):
        zoo.graph_of(zoo.subject("resnet"), ignore=("layer1.*",))


def test_the_only_legal_width_is_a_lock():
    graph = zoo.graph_of(zoo.subject("mlp"), Legality(align=8))
    assert [(g.full, g.step, g.floor, g.locked is None) for g in graph.groups] == [
        (12, 8, 8, True), (10, 8, 8, True), (3, 8, 3, False)
    ]  # fmt: skip
    graph = zoo.graph_of(zoo.subject("mlp"), Legality(align=16))
    assert graph.groups[0].locked == Locked("12 is its only legal width", "lower --align or --min-keep")
    assert graph.full == graph.least == (12, 10, 3)


def test_lock_keeps_the_first_reason():
    graph = zoo.graph_of(zoo.subject("mlp"))
    again = trace.lock(graph, ("0", "4"), Locked("for the test"))
    assert [g.locked.reason if g.locked else "" for g in again.groups] == ["for the test", "", OUTPUT_REASON]
    assert again.cost is graph.cost


# --- what must not matter


@pytest.mark.parametrize("name", ["resnet", "densenet", "convnext", "shuffle", "c2f", "tied_embedding", "shared_head"])
def test_two_traces_are_equal(name):
    assert zoo.graph_of(zoo.subject(name)) == zoo.graph_of(zoo.subject(name))


@pytest.mark.parametrize("name", ["resnet", "group_norm", "mobilenet", "vgg_flatten", "tuple_output"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_of_the_weights_does_not_matter(name, dtype):
    subject = zoo.subject(name)
    other = Subject(copy.deepcopy(subject.module).to(dtype), tuple(x.to(dtype) for x in subject.inputs), name)
    assert zoo.graph_of(other) == zoo.graph_of(subject)


@pytest.mark.parametrize("name", ["resnet", "convnext", "tied_embedding", "parameter_scale"])
def test_neither_frozen_weights_nor_the_mode_nor_the_batch_matter(name):
    subject = zoo.subject(name)
    graph = zoo.graph_of(subject)
    subject.module.requires_grad_(False).train()
    assert zoo.graph_of(subject) == graph
    batch = tuple(torch.cat([x, x, x]) for x in subject.inputs)
    assert zoo.graph_of(Subject(subject.module, batch, name)) == graph
    with torch.no_grad():
        assert zoo.graph_of(subject) == graph


@pytest.mark.parametrize("name", ["resnet", "group_norm", "tied_embedding", "auxiliary", "looks_at_values"])
def test_the_original_is_not_touched(name):
    module = zoo.subject(name).module.train()
    inputs = zoo.subject(name).inputs
    frozen = next(module.parameters())
    frozen.requires_grad_(False)
    before = {n: (t, t.clone(), t.requires_grad, t.grad) for n, t in named_tensors(module)}
    shape_of_modules = {n: (m.training, len(m._forward_hooks), set(vars(m))) for n, m in module.named_modules()}
    zoo.graph_of(Subject(module, inputs, name))
    after = dict(named_tensors(module))
    assert after.keys() == before.keys()
    for n, (tensor, values, flag, grad) in before.items():
        assert after[n] is tensor
        assert torch.equal(tensor, values)
        assert (tensor.requires_grad, tensor.grad) == (flag, grad)
    assert {n: (m.training, len(m._forward_hooks), set(vars(m))) for n, m in module.named_modules()} == shape_of_modules


def test_a_model_that_does_not_run_is_refused():
    with pytest.raises(TraceError, match="does not run on its example"):
        zoo.graph_of(Subject(nn.Linear(3, 4), (torch.randn(1, 5),), "net"))


# --- thop's count and notes


def test_what_thop_does_not_see_is_left_out_of_its_count():
    graph = zoo.graph_of(zoo.subject("functional_convolution"))
    labels = [term.label for term in graph.cost.thop]
    assert "blur" not in labels
    assert not graph.notes


def test_what_thop_counts_beyond_the_closed_form_is_said():
    (note,) = zoo.graph_of(zoo.subject("attention")).notes
    assert note == "thop counts +204 against the closed form for reasons that no width changes"  # softmax: 12 rows x 17


def test_a_forward_that_needs_several_samples_is_counted_whole():
    graph = zoo.graph_of(zoo.subject("batch_of_two"))
    assert graph.notes == ("the model does not run on one of its 4 samples alone: counts are for all of them",)
    assert cost.costs(graph.cost, graph.full).macs == 4 * 5 * 8 + 2 * 16 * 3
