"""The masked original by hand: which entries are silenced, and over what norms take their statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from peelcli.records import Cut, Subject
from peelcli.surgery.masked import masked_copy
from tests.support import zoo


def masked(net: nn.Module, example: torch.Tensor, *kept: tuple[int, ...]):
    graph = zoo.graph_of(Subject(net.eval(), (example,), "net"))
    cuts = [Cut(g, len(k), k, 1.0) for g, k in zip(graph.groups, kept, strict=False)]
    cuts += [Cut(g, g.full, tuple(range(g.full)), 1.0) for g in graph.groups[len(kept) :]]
    return masked_copy(net, cuts)


def test_consumers_read_zeros_and_producers_stay():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    silent, statistics = masked(net, torch.randn(1, 3, 2, 2), (1, 2))
    assert torch.equal(silent[0].weight, net[0].weight.double())
    assert torch.equal(silent[2].weight[:, [1, 2]], net[2].weight.double()[:, [1, 2]])
    assert silent[2].weight[:, [0, 3]].abs().max() == 0
    assert silent[2].weight.dtype == torch.float64
    assert not silent.training
    assert net[2].weight.dtype == torch.float32
    assert net[2].weight.abs().min() > 0
    assert statistics.used == set()


def run(net: nn.Module, example: torch.Tensor, *kept: tuple[int, ...]):
    silent, statistics = masked(net, example, *kept)
    with torch.no_grad(), statistics:
        return silent[:2](example.double()), statistics.used


def test_layer_norm_over_kept_channels():
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4, eps=0.1), nn.Linear(4, 2))
    nn.init.normal_(net[1].weight)
    x = torch.randn(5, 3)
    out, used = run(net, x, (0, 3))
    with torch.no_grad():
        wanted = F.layer_norm(net[0](x)[:, [0, 3]], (2,), net[1].weight[[0, 3]], net[1].bias[[0, 3]], 0.1)
    assert torch.allclose(out[:, [0, 3]].float(), wanted, atol=1e-6)
    assert out[:, [1, 2]].abs().max() == 0
    assert used == {"1.weight"}


def test_rms_norm_over_kept_channels():
    net = nn.Sequential(nn.Linear(3, 4), nn.RMSNorm(4, eps=0.1), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    out, used = run(net, x, (1, 3))
    with torch.no_grad():
        kept = net[0](x)[:, [1, 3]]
    assert torch.allclose(out[:, [1, 3]].float(), kept * torch.rsqrt((kept**2).mean(1, keepdim=True) + 0.1), atol=1e-6)
    assert used == {"1.weight"}


@pytest.mark.parametrize(("groups", "kept"), [(1, (0, 1, 3)), (2, (0, 2, 3, 5))])
def test_group_norm_over_kept_channels(groups, kept):
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.GroupNorm(groups, 6), nn.Conv2d(6, 2, 1))
    nn.init.normal_(net[1].weight)
    x = torch.randn(2, 3, 4, 4)
    out, used = run(net, x, kept)
    index = list(kept)
    with torch.no_grad():
        wanted = F.group_norm(net[0](x)[:, index], groups, net[1].weight[index], net[1].bias[index])
    assert torch.allclose(out[:, index].float(), wanted, atol=1e-5)
    assert used == {"1.weight"}


def test_batch_norm_and_uncut_norms_are_left_alone():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.GroupNorm(1, 4), nn.Conv2d(4, 2, 1)
    )
    silent, statistics = masked(net, torch.randn(1, 3, 2, 2), (0,), (0, 1, 2, 3))
    with torch.no_grad(), statistics:
        silent(torch.randn(1, 3, 2, 2, dtype=torch.float64))
    assert statistics.used == set()
