"""Cutting a copy: what it loses, what it keeps, and that the original does not notice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from peelcli.errors import PlanError
from peelcli.records import Attribute, Cut, Group, Slice, Subject
from peelcli.surgery.prune import apply_cuts, entries_of
from peelcli.tensors import named_tensors, tensors_in
from tests.support import zoo


def cuts_of(name: str, seed: int = 0) -> tuple[Subject, tuple[Cut, ...]]:
    subject = zoo.subject(name)
    graph = zoo.graph_of(subject)
    return subject, zoo.cuts_at(graph, [group.legal_widths()[0] for group in graph.groups], seed)


def test_a_chain_worked_by_hand():
    # conv 3 -> 4, BatchNorm, flatten of 1 x 2 positions, linear 8 -> 2; channels 0 and 3 stay
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(8, 2)).eval()
    net[1].running_mean.copy_(torch.arange(4.0))
    graph = zoo.graph_of(Subject(net, (torch.randn(1, 3, 1, 2),), "net"))
    cuts = (Cut(graph.groups[0], 2, (0, 3), 1.0), Cut(graph.groups[1], 2, (0, 1), 1.0))
    slim = apply_cuts(net, cuts)
    assert torch.equal(slim[0].weight, net[0].weight[[0, 3]])
    assert torch.equal(slim[0].bias, net[0].bias[[0, 3]])
    assert slim[1].running_mean.tolist() == [0.0, 3.0]
    assert slim[1].num_batches_tracked.shape == ()
    assert torch.equal(slim[3].weight, net[3].weight[:, [0, 1, 6, 7]])
    assert (slim[0].out_channels, slim[1].num_features, slim[3].in_features, slim[3].out_features) == (2, 2, 4, 2)
    assert slim(torch.randn(5, 3, 1, 2)).shape == (5, 2)


@pytest.mark.parametrize(
    ("name", "path", "attributes"),
    [
        ("mobilenet", "2.depthwise.0", {"in_channels": 1, "out_channels": 1, "groups": 1}),
        ("narrow_groups", "2.0", {"in_channels": 2, "out_channels": 2, "groups": 1}),
        ("wide_groups", "1.0", {"in_channels": 2, "out_channels": 2, "groups": 2}),
        ("group_norm", "1", {"num_channels": 2, "num_groups": 2}),
        ("convnext", "1", {"normalized_shape": (1,)}),
        ("rms_norm", "1", {"normalized_shape": (1,)}),
        ("prelu_instance", "2", {"num_parameters": 1}),
        ("unet", "up", {"in_channels": 1, "out_channels": 1}),
        ("vgg_flatten", "5", {"in_features": 6, "out_features": 1}),
        ("tied_embedding", "embed", {"embedding_dim": 1, "num_embeddings": 11}),
        ("tied_embedding", "out", {"in_features": 1, "out_features": 11}),
        ("densenet", "4", {"in_channels": 3, "out_channels": 1}),  # three groups of one channel each
    ],
)
def test_attributes_follow(name, path, attributes):
    subject, cuts = cuts_of(name)
    module = apply_cuts(subject.module, cuts).get_submodule(path)
    assert {attribute: getattr(module, attribute) for attribute in attributes} == attributes


@pytest.mark.parametrize("name", zoo.SOUND)
def test_the_original_does_not_notice_and_the_slim_model_keeps_its_flags(name):
    subject, cuts = cuts_of(name)
    module = subject.module
    for position, parameter in enumerate(module.parameters()):
        parameter.requires_grad_(parameter.is_floating_point() and position % 2 == 0)
    next(module.children(), module).train()
    before = {n: (t, t.clone(), t.requires_grad) for n, t in named_tensors(module)}
    attributes = {n: repr(m) for n, m in module.named_modules()}
    slim = apply_cuts(module, cuts)
    after = dict(named_tensors(module))
    for n, (tensor, values, flag) in before.items():
        assert after[n] is tensor
        assert torch.equal(values, tensor)
        assert tensor.requires_grad == flag
    assert {n: repr(m) for n, m in module.named_modules()} == attributes
    own = dict(named_tensors(slim))
    assert own.keys() == before.keys()
    assert all(own[n].requires_grad == flag for n, (_, _, flag) in before.items())
    assert all(own[n].dtype == tensor.dtype and own[n].is_contiguous() for n, (tensor, _, _) in before.items())
    assert not {t.data_ptr() for t in own.values() if t.numel()} & {t.data_ptr() for t in after.values()}
    assert {n: (type(m), m.training) for n, m in slim.named_modules()} == {
        n: (type(m), m.training) for n, m in module.named_modules()
    }


def test_tied_weights_stay_tied():
    subject, cuts = cuts_of("tied_embedding")
    slim = apply_cuts(subject.module, cuts)
    assert slim.out.weight is slim.embed.weight
    assert slim.embed.weight.shape == (11, 1)
    assert subject.module.out.weight is subject.module.embed.weight


def test_a_module_in_two_places_stays_one():
    block = nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU())
    net = nn.Sequential(nn.Conv2d(3, 6, 1), block, block, nn.Conv2d(6, 2, 1)).eval()
    graph = zoo.graph_of(Subject(net, (torch.randn(1, 3, 4, 4),), "net"))
    slim = apply_cuts(net, zoo.cuts_at(graph, (2, 2)))
    assert slim[1] is slim[2]
    assert (slim[1][0].in_channels, slim[1][0].out_channels) == (2, 2)
    assert slim(torch.randn(1, 3, 4, 4)).shape == (1, 2, 4, 4)


def test_cuts_at_full_width_change_nothing():
    subject = zoo.subject("resnet")
    graph = zoo.graph_of(subject)
    slim = apply_cuts(subject.module, zoo.cuts_at(graph, graph.full))
    with torch.no_grad():
        assert torch.equal(slim(*subject.inputs), subject.module(*subject.inputs))


def test_half_precision():
    subject, cuts = cuts_of("resnet")
    slim = apply_cuts(subject.module.half(), cuts)
    assert {t.dtype for n, t in named_tensors(slim) if "num_batches" not in n} == {torch.float16}


@pytest.mark.parametrize("name", zoo.SOUND)
def test_the_slim_model_trains_a_step(name):
    subject = zoo.subject(name)
    graph = zoo.graph_of(subject)
    widths = [group.legal_widths()[len(group.legal_widths()) // 2] for group in graph.groups]
    slim = apply_cuts(subject.module, zoo.cuts_at(graph, widths)).train()
    inputs = tuple(torch.cat([x, x.roll(1, -1)]) if x.dim() > 1 else x for x in subject.inputs)
    optimizer = torch.optim.SGD(slim.parameters(), lr=1e-3)
    loss = sum(F.mse_loss(out, torch.ones_like(out)) for out in tensors_in(slim(*inputs)) if out.is_floating_point())
    loss.backward()
    before = {n: p.detach().clone() for n, p in slim.named_parameters()}
    optimizer.step()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and p.grad.shape == p.shape for p in slim.parameters())
    assert any(not torch.equal(before[n], p) for n, p in slim.named_parameters())


# --- plans that don't fit


def cut(*slices: Slice, attributes: tuple[Attribute, ...] = ()) -> Cut:
    group = Group("g", ("g",), 4, 1, 1, ((0,), (1,), (2,), (3,)), slices, attributes)
    return Cut(group, 2, (0, 2), 1.0)


ONE_EACH = ((0,), (1,), (2,), (3,))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (cut(Slice("conv.weight", 0, "out", ONE_EACH)), "the plan cuts conv.weight, which this model does not have"),
        (cut(Slice("0.weight", 7, "out", ONE_EACH)), r"the plan does not fit the shape of 0.weight, \(4, 3, 1, 1\)"),
        (cut(Slice("0.weight", 1, "in", ONE_EACH)), "the plan does not fit the shape of 0.weight"),
        (cut(attributes=(Attribute("0", "out_chanels", None, 1),)), "changes 0.out_chanels, which is not there"),
        (cut(attributes=(Attribute("9", "out_channels", None, 1),)), "changes 9.out_channels, which is not there"),
    ],
)
def test_a_plan_for_another_model_is_refused(wrong, message):
    with pytest.raises(PlanError, match=message):
        apply_cuts(nn.Sequential(nn.Conv2d(3, 4, 1)), (wrong,))


def test_entries_by_tensor_dimension_and_role():
    one = cut(Slice("a", 0, "out", ONE_EACH), Slice("b", 1, "in", ((0, 1), (2, 3), (4, 5), (6, 7))))
    other = replace(one, group=replace(one.group, slices=(Slice("b", 1, "in", ((8,), (9,), (10,), (11,))),)))
    whole = replace(one, width=4, kept=(0, 1, 2, 3))
    assert entries_of((one, other), removed=True) == {"a": {0: {1, 3}}, "b": {1: {2, 3, 6, 7, 9, 11}}}
    assert entries_of((one,), removed=False) == {"a": {0: {0, 2}}, "b": {1: {0, 1, 4, 5}}}
    assert entries_of((one,), removed=True, role="in") == {"b": {1: {2, 3, 6, 7}}}
    assert entries_of((whole,), removed=True) == {}


@pytest.mark.parametrize(
    ("layer", "example", "last"),
    [
        (nn.Conv2d, (1, 3, 5, 5), torch.channels_last),
        (nn.Conv3d, (1, 3, 5, 5, 5), torch.channels_last_3d),
    ],
)
def test_channels_stay_last(layer, example, last):
    net = (
        nn.Sequential(layer(3, 8, 3, padding=1), nn.ReLU(), layer(8, 8, 3), nn.Flatten()).eval().to(memory_format=last)
    )
    graph = zoo.graph_of(Subject(net, (torch.randn(example),), "net"))
    slim = apply_cuts(net, (Cut(graph.groups[0], 4, (0, 2, 5, 7), 1.0),))
    assert slim[0].weight.shape[0] == slim[2].weight.shape[1] == 4
    for place in (0, 2):
        assert slim[place].weight.is_contiguous(memory_format=last)
        assert not slim[place].weight.is_contiguous()
    assert torch.equal(slim[2].weight, net[2].weight[:, [0, 2, 5, 7]])
