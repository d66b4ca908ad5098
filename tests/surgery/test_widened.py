"""Float64 one layer at a time: the same figures as a copy in float64, nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peelcli.surgery.widened import widened
from tests.support.parts import Lambda

X = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def layers():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2, bias=False)).eval()


def test_the_same_figures_and_nothing_left_behind():
    net = layers()
    before = dict(net.named_parameters())
    wanted = layers().double()(X)
    with widened(net):
        assert torch.equal(net(X), wanted)
        assert net[0].weight.dtype == torch.float32  # between two calls
    assert all(parameter is before[name] for name, parameter in net.named_parameters())
    with pytest.raises(RuntimeError):
        net(X)


def test_entries_that_read_as_zero():
    net = layers()
    silent = layers().double()
    with torch.no_grad():
        silent[2].weight[:, [1, 3]] = 0
    with widened(net, {"2.weight": {1: {1, 3}}}):
        assert torch.equal(net(X), silent(X))
    assert bool((net[2].weight != 0).all())


def test_weights_in_float64_and_integers_are_silenced_in_a_copy():
    net = Lambda(lambda self, x: x * self.scale * self.mask)
    net.register_buffer("scale", torch.ones(3).double())
    net.register_buffer("mask", torch.ones(3).long())
    with widened(net, {"scale": {0: {0}}, "mask": {0: {1}}}):
        assert torch.equal(net(X) != 0, torch.tensor([[False, False, True]] * 2))
    assert net.scale.tolist() == net.mask.tolist() == [1, 1, 1]


def test_a_layer_that_raises_gets_its_weights_back():
    net = layers()
    with widened(net), pytest.raises(RuntimeError):
        net(torch.ones(2, 7, dtype=torch.float64))
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
