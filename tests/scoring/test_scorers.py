"""Every scorer against figures worked out by hand or by brute force."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import pytest
import torch
from torch import nn

from peelcli.graph.legal import Legality
from peelcli.graph.trace import trace
from peelcli.records import ChannelGraph, CostModel, Slice, Subject
from peelcli.scoring import fpgm
from peelcli.scoring.base import Material, magnitudes, mean_over_slices
from peelcli.scoring.table import SCORERS, score

NO_COST = CostModel(macs=(), params=(), thop=())


def test_l1_by_hand(subject, graph):
    first, second = score(subject, graph, "l1", 0).groups
    # conv1 rows: mean |w| = 3.5, 0, 1; conv2 columns: 2, 2, 0. The bias and the BatchNorm are no weights.
    assert first.channels == pytest.approx([2.75, 1.0, 0.5])
    assert first.layer == pytest.approx(4.25 / 3)
    # conv2 rows: 1 and 5/3; fc columns: 4 and 2.
    assert second.channels == pytest.approx([2.5, 11 / 6])


def test_l2_by_hand(subject, graph):
    first, second = score(subject, graph, "l2", 0).groups
    assert first.channels == pytest.approx([(sqrt(12.5) + sqrt(5)) / 2, (0 + 2) / 2, (1 + 0) / 2])
    assert second.channels == pytest.approx([(sqrt(5 / 3) + 4) / 2, (sqrt(13 / 3) + 2) / 2])


def test_bn_by_hand_and_an_even_share_for_the_rest(subject, graph):
    scores = score(subject, graph, "bn", 0)
    first, second = scores.groups
    assert first.channels == pytest.approx([1.0, 2.0, 0.5])
    assert first.layer == pytest.approx(3.5 / 3)
    assert second.channels == pytest.approx([2.5, 11 / 6])  # as l1 ranks them
    assert second.layer == pytest.approx(first.layer)
    assert len(scores.notes) == 1
    assert scores.notes[0].startswith("1 of 2 groups that may shrink have no BatchNorm")


def test_bn_is_the_mean_over_the_batchnorms_of_a_group(make_group):
    module = nn.ModuleDict({"a": nn.BatchNorm1d(2), "b": nn.BatchNorm1d(4)})
    with torch.no_grad():
        module["a"].weight.copy_(torch.tensor([1.0, -3.0]))
        module["b"].weight.copy_(torch.tensor([9.0, 5.0, 7.0, 9.0]))  # behind a concat: channels at 1 and 2
    group = make_group("x", 2, ("a.weight", 0, "out", ((0,), (1,))), ("b.weight", 0, "out", ((1,), (2,))))
    scores = score(Subject(module, (), "two norms"), ChannelGraph((group,), NO_COST), "bn", 0)
    assert scores.groups[0].channels == pytest.approx([3.0, 5.0])


def test_a_norm_that_keeps_a_running_variance_counts_as_batchnorm(make_group):
    class Frozen(nn.Module):  # as torchvision's FrozenBatchNorm2d: no subclass, all buffers
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.tensor([2.0, -1.0]))
            self.register_buffer("running_var", torch.ones(2))

    group = make_group("x", 2, ("weight", 0, "out", ((0,), (1,))))
    scores = score(Subject(Frozen(), (), "frozen"), ChannelGraph((group,), NO_COST), "bn", 0)
    assert scores.groups[0].channels == pytest.approx([2.0, 1.0])


def test_fpgm_by_hand(subject, graph):
    first, second = score(subject, graph, "fpgm", 0).groups
    # conv1 filters (3, 4), (0, 0), (-1, 1): distances 5, 5 and sqrt(2).
    assert first.channels == pytest.approx([v / (3 * sqrt(2)) for v in (10, 5 + sqrt(2), 5 + sqrt(2))], rel=1e-5)
    assert second.channels == pytest.approx([sqrt(20) / (2 * sqrt(3))] * 2, rel=1e-5)


@pytest.mark.parametrize("at_once", [1, 200, 2**24])
@pytest.mark.parametrize(("channels", "entries"), [(1, 5), (7, 3), (64, 200), (130, 1)])
def test_distances_against_brute_force(monkeypatch, at_once, channels, entries):
    monkeypatch.setattr(fpgm, "_AT_ONCE", at_once)
    filters = torch.randn(channels, entries, generator=torch.Generator().manual_seed(3))
    wide = filters.double()
    expected = (wide[:, None] - wide[None]).square().sum(2).sqrt().sum(1)
    assert torch.allclose(fpgm.distance_sums(filters).double(), expected, rtol=1e-4, atol=1e-2)


def test_fpgm_takes_all_entries_of_a_channel_as_one_filter(make_group):
    module = nn.Linear(1, 4, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.0], [0.0], [3.0], [4.0]]))
    group = make_group("x", 2, ("weight", 0, "out", ((0, 1), (2, 3))))
    scores = score(Subject(module, (), "pairs"), ChannelGraph((group,), NO_COST), "fpgm", 0)
    assert scores.groups[0].channels == pytest.approx([5 / (2 * sqrt(2))] * 2, rel=1e-5)


def test_fpgm_of_a_channel_that_a_producer_does_not_make(make_group):
    module = nn.Linear(1, 3, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.0], [2.0], [9.0]]))
    group = make_group("x", 3, ("weight", 0, "out", ((0,), (1,), ())))
    scores = score(Subject(module, (), "two of three"), ChannelGraph((group,), NO_COST), "fpgm", 0)
    assert scores.groups[0].channels == pytest.approx([1.0, 1.0, 1.0], rel=1e-5)  # the third: the others' mean


def test_channels_with_several_or_no_entries(make_group):
    module = nn.Linear(5, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, 3.0, -5.0, 7.0, 100.0]]))
    group = make_group("x", 3, ("weight", 1, "in", ((0, 1), (2, 3), ())))
    material = Material(Subject(module, (), "flatten"), ChannelGraph((group,), NO_COST), 0)
    assert magnitudes(material, group, 1).tolist() == pytest.approx([2.0, 6.0, 4.0])
    assert magnitudes(material, group, 2).tolist() == pytest.approx([sqrt(5), sqrt(37), (sqrt(5) + sqrt(37)) / 2])


def test_a_group_without_weights_scores_zero():
    assert mean_over_slices(3, []).tolist() == [0.0, 0.0, 0.0]
    nobody = Slice("weight", 0, "out", ((), ()))
    assert mean_over_slices(2, [(nobody, torch.tensor([7.0, torch.nan]).double())]).tolist() == [0.0, 0.0]


def test_random_knows_the_seed_and_the_name_only(subject, graph):
    def draw(graph, seed):
        groups = score(subject, graph, "random", seed).groups
        return dict(zip((group.name for group in graph.groups), groups, strict=True))

    backwards = replace(graph, groups=graph.groups[::-1])
    alone = replace(graph, groups=graph.groups[1:])
    assert draw(graph, 5) == draw(graph, 5) == draw(backwards, 5)
    assert draw(alone, 5)["conv2"] == draw(graph, 5)["conv2"]
    assert draw(graph, 5)["conv1"] != draw(graph, 6)["conv1"]
    assert draw(graph, 5)["conv1"].channels[:2] != draw(graph, 5)["conv2"].channels
    # Pinned: plans must not change with the Python version.
    assert draw(graph, 0)["conv2"].layer == pytest.approx(0.1591295420352209)


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_and_frozen_parameters_change_nothing(subject, graph, samples_of, name, dtype):
    plain = score(subject, graph, name, 0, samples_of(subject))
    subject.module.to(dtype).requires_grad_(False)
    other = score(subject, graph, name, 0, samples_of(subject))
    for a, b in zip(plain.groups, other.groups, strict=True):
        assert b.channels == pytest.approx(a.channels, rel=1e-5)  # the figures are exact in all of these types


@pytest.mark.parametrize("name", SCORERS)
def test_locked_groups_are_scored_as_well(subject, graph, lock_all, samples_of, name):
    samples = samples_of(subject)
    assert score(subject, lock_all(graph), name, 0, samples).groups == score(subject, graph, name, 0, samples).groups


def test_half_precision_sums_do_not_overflow(make_group):
    module = nn.Linear(4096, 2, bias=False).half()
    with torch.no_grad():
        module.weight.fill_(60000.0)
    group = make_group("x", 2, ("weight", 0, "out", ((0,), (1,))))
    scores = score(Subject(module, (), "large"), ChannelGraph((group,), NO_COST), "l2", 0)
    assert scores.groups[0].channels == pytest.approx([60000.0] * 2, rel=1e-3)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.expand, self.norm1 = nn.Conv2d(width, 2 * width, 1), nn.BatchNorm2d(2 * width)
        self.depth, self.norm2 = (
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width),
            nn.BatchNorm2d(2 * width),
        )
        self.shrink, self.norm3 = nn.Conv2d(2 * width, width, 1), nn.BatchNorm2d(width)

    def forward(self, x):
        y = self.norm1(self.expand(x)).relu()
        y = self.norm2(self.depth(y)).relu()
        return x + self.norm3(self.shrink(y))


def small_residual_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), Block(8), Block(8), nn.Flatten(), nn.Linear(8 * 36, 5)).train()


@pytest.mark.parametrize("name", SCORERS)
def test_a_traced_network(name, samples_of):
    subject = Subject(small_residual_network(), (torch.zeros(1, 3, 8, 8),), "small")
    before = {key: value.clone() for key, value in subject.module.state_dict().items()}
    graph = trace(subject, Legality(align=1))
    samples = samples_of(subject)
    scores = score(subject, graph, name, 0, samples)
    assert [len(scored.channels) for scored in scores.groups] == [group.full for group in graph.groups]
    assert all(scored.layer >= 0 for scored in scores.groups)
    assert len(set(scores.groups[0].channels)) > 1 or name == "bn"  # fresh BatchNorms are all alike
    assert scores == score(subject, graph, name, 0, samples)
    assert subject.module.training
    assert all(parameter.grad is None for parameter in subject.module.parameters())
    assert all(torch.equal(value, before[key]) for key, value in subject.module.state_dict().items())
