"""The masked original by hand: which entries are silenced, and over what norms take their statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from peelcli.records import Cut, Subject
from peelcli.surgery.masked import KeptStatistics, masked_copy, mixing
from tests.support import zoo

BY = pytest.mark.parametrize("tracer", ["labels", "depgraph"])  # norms known by op and call, or by their weights


def masked(net: nn.Module, example: torch.Tensor, tracer: str, *kept: tuple[int, ...]) -> tuple[nn.Module, list[Cut]]:
    graph = zoo.graph_of(Subject(net.eval(), (example,), "net"), tracer=tracer)
    cuts = [Cut(g, len(k), k, 1.0) for g, k in zip(graph.groups, kept, strict=False)]
    cuts += [Cut(g, g.full, tuple(range(g.full)), 1.0) for g in graph.groups[len(kept) :]]
    return masked_copy(net, cuts), cuts


@BY
def test_consumers_read_zeros_and_producers_stay(tracer):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    silent, cuts = masked(net, torch.randn(1, 3, 2, 2), tracer, (1, 2))
    assert torch.equal(silent[0].weight, net[0].weight.double())
    assert torch.equal(silent[2].weight[:, [1, 2]], net[2].weight.double()[:, [1, 2]])
    assert silent[2].weight[:, [0, 3]].abs().max() == 0
    assert silent[2].weight.dtype == torch.float64
    assert not silent.training
    assert net[2].weight.dtype == torch.float32
    assert net[2].weight.abs().min() > 0
    with mixing(silent, cuts) as modes:
        silent(torch.randn(1, 3, 2, 2, dtype=torch.float64))
    assert modes.used == set()


def run(net: nn.Module, example: torch.Tensor, tracer: str, *kept: tuple[int, ...]) -> tuple[torch.Tensor, set[object]]:
    """The first two layers of the masked copy."""
    silent, cuts = masked(net, example, tracer, *kept)
    with mixing(silent, cuts) as modes:
        assert isinstance(modes, KeptStatistics) is (tracer == "depgraph")
        return silent[:2](example.double()), modes.used


def used(tracer: str, op: str) -> set[object]:
    """How each of the two ways names the one norm."""
    return {(op, 0)} if tracer == "labels" else {"1.weight"}


@BY
def test_layer_norm_over_kept_channels(tracer):
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4, eps=0.1), nn.Linear(4, 2))
    nn.init.normal_(net[1].weight)
    x = torch.randn(5, 3)
    out, seen = run(net, x, tracer, (0, 3))
    with torch.no_grad():
        wanted = F.layer_norm(net[0](x)[:, [0, 3]], (2,), net[1].weight[[0, 3]], net[1].bias[[0, 3]], 0.1)
    assert torch.allclose(out[:, [0, 3]].float(), wanted, atol=1e-6)
    assert out[:, [1, 2]].abs().max() == 0
    assert seen == used(tracer, "native_layer_norm")


@BY
def test_rms_norm_over_kept_channels(tracer):
    net = nn.Sequential(nn.Linear(3, 4), nn.RMSNorm(4, eps=0.1), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    out, seen = run(net, x, tracer, (1, 3))
    with torch.no_grad():
        kept = net[0](x)[:, [1, 3]]
    assert torch.allclose(out[:, [1, 3]].float(), kept * torch.rsqrt((kept**2).mean(1, keepdim=True) + 0.1), atol=1e-6)
    assert seen == used(tracer, "mean")


@BY
@pytest.mark.parametrize(("groups", "kept"), [(1, (0, 1, 3)), (2, (0, 2, 3, 5))])
def test_group_norm_over_kept_channels(tracer, groups, kept):
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.GroupNorm(groups, 6), nn.Conv2d(6, 2, 1))
    nn.init.normal_(net[1].weight)
    x = torch.randn(2, 3, 4, 4)
    out, seen = run(net, x, tracer, kept)
    index = list(kept)
    with torch.no_grad():
        wanted = F.group_norm(net[0](x)[:, index], groups, net[1].weight[index], net[1].bias[index])
    assert torch.allclose(out[:, index].float(), wanted, atol=1e-5)
    assert seen == used(tracer, "native_group_norm")


@BY
def test_batch_norm_and_uncut_norms_are_left_alone(tracer):
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.GroupNorm(1, 4), nn.Conv2d(4, 2, 1)
    )
    silent, cuts = masked(net, torch.randn(1, 3, 2, 2), tracer, (0,), (0, 1, 2, 3))
    with mixing(silent, cuts) as modes:
        silent(torch.randn(1, 3, 2, 2, dtype=torch.float64))
    assert modes.used == set()
