"""The user's wishes on widths, what must not matter to a trace, and what it says beside the groups."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from peelcli.errors import TraceError, UsageError
from peelcli.graph import components, cost, trace
from peelcli.graph.labels.trace import OUTPUT_REASON
from peelcli.graph.legal import Legality
from peelcli.records import Locked, Subject
from peelcli.tensors import named_tensors
from tests.support import zoo

# --- wishes


def test_ignored_layers_keep_their_width():
    graph = zoo.graph_of(zoo.subject("resnet"), ignore=("1.conv*",))
    locked = {group.name: group.locked for group in graph.groups[:-1] if group.locked}
    remedy = "narrow the --ignore pattern"
    assert locked == {
        "0.0": Locked("ignored by '1.conv*'", remedy),  # 1.conv2 writes to the stream
        "1.conv1": Locked("ignored by '1.conv*'", remedy),
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


def test_a_forward_that_needs_several_samples_is_counted_whole():
    graph = zoo.graph_of(zoo.subject("batch_of_two"))
    assert graph.notes == ("the model does not run on one of its 4 samples alone: counts are for all of them",)
    assert cost.costs(graph.cost, graph.full).macs == 4 * 5 * 8 + 2 * 16 * 3


# --- which pass


def failing(*_: object, **__: object) -> None:
    raise IndexError("a rule met what it was not made for")


def test_where_the_label_pass_fails_torch_pruning_traces_and_it_is_said(monkeypatch):
    monkeypatch.setattr(trace, "find_units", failing)
    subject = zoo.subject("resnet")
    graph = trace.trace(subject, zoo.FREELY)
    reason = "the label pass failed (IndexError: a rule met what it was not made for)"
    assert graph.notes == (f"traced by torch-pruning: {reason}",)
    assert graph.groups == zoo.graph_of(subject, tracer="depgraph").groups
    with pytest.raises(TraceError, match="the label pass failed: IndexError: a rule met what it was not made for"):
        zoo.graph_of(subject, tracer="labels")


def test_torch_pruning_is_not_asked_where_the_label_pass_works(monkeypatch):
    monkeypatch.setattr(components, "groups_and_cost", failing)
    subject = zoo.subject("resnet")
    assert trace.trace(subject, zoo.FREELY) == zoo.graph_of(subject, tracer="labels")


def test_a_pass_that_takes_too_long_is_refused_with_what_to_do(monkeypatch):
    def slow(*_arguments: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(trace, "find_units", slow)
    with pytest.raises(TraceError, match="could not be traced within 60 s") as refused:
        trace.trace(zoo.subject("resnet"), zoo.FREELY)
    assert "smaller input" in refused.value.hint
