"""BatchNorm over all processes: with one process it is BatchNorm."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from peelcli.training.norms import set_training, synchronise


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_alone_it_is_batchnorm(momentum, affine):
    norm = nn.BatchNorm2d(3, momentum=momentum, affine=affine).double()
    other = synchronise(copy.deepcopy(norm), torch.device("cpu"))
    for seed in range(3):
        x = 5 + torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        one, two = (x.clone().requires_grad_() for _ in range(2))
        found = other(two)
        assert torch.allclose(norm(one), found)
        norm(one).square().sum().backward(), found.square().sum().backward()
        norm.load_state_dict(other.state_dict())
        assert torch.allclose(one.grad, two.grad)
    x = torch.randn(2, 3, 2, 2).double()
    assert torch.allclose(norm.eval()(x), other.eval()(x))


def test_running_statistics_move_as_batchnorm_s_do():
    norm = nn.BatchNorm1d(2)
    other = synchronise(copy.deepcopy(norm), torch.device("cpu"))
    x = torch.randn(8, 2)
    norm(x), other(x)
    for name, value in norm.state_dict().items():
        assert torch.allclose(value.float(), other.state_dict()[name].float(), atol=1e-6), name


def test_frozen_norms_keep_their_statistics():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout())
    set_training(net, "frozen")
    net(torch.randn(2, 1, 3, 3))
    assert int(net[1].num_batches_tracked) == 0
    assert net[2].training
    set_training(net, "batch")
    assert net[1].training


def test_half_precision_is_summed_and_remembered_in_float32():
    norm = nn.BatchNorm2d(3)
    other = synchronise(copy.deepcopy(norm), torch.device("cpu"))
    x = (5 + torch.randn(4, 3, 8, 8)).bfloat16()
    one, two = (x.clone().requires_grad_() for _ in range(2))
    wanted, found = norm(one), other(two)
    assert found.dtype is wanted.dtype is torch.bfloat16
    assert torch.allclose(wanted.float(), found.float(), atol=0.05)
    for name in ("running_mean", "running_var"):
        assert torch.allclose(getattr(norm, name), getattr(other, name), atol=1e-3)
    found.float().square().sum().backward()
    assert two.grad.dtype is torch.bfloat16
