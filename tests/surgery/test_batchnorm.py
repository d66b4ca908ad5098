"""BatchNorm statistics taken anew: worked by hand, and nothing else changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peelcli.samples import Samples
from peelcli.surgery.batchnorm import has_statistics, reestimated
from peelcli.tensors import named_tensors
from tests.support import zoo
from tests.support.parts import Lambda


def samples(*values: torch.Tensor) -> Samples:
    return Samples(tuple((value,) for value in values), "test")


def test_one_batch_worked_by_hand():
    # channel 0 sees 1, 2, 3: mean 2, variance (1 + 0 + 1) / 2; channel 1 sees 10, 10, 40: mean 20, variance 300
    net = nn.Sequential(nn.BatchNorm1d(2)).eval()
    rows = samples(*(torch.tensor([row]) for row in ([1.0, 10.0], [2.0, 10.0], [3.0, 40.0])))
    anew = reestimated(net, rows)
    assert anew[0].running_mean.tolist() == [2.0, 20.0]
    assert anew[0].running_var.tolist() == [1.0, 300.0]
    assert net[0].running_mean.tolist() == [0.0, 0.0]


def test_batches_are_averaged():
    # 33 samples: a batch of 32 zeros, and one sample alone, which has no variance and is left out
    net = nn.Sequential(nn.BatchNorm2d(1)).eval()
    values = [torch.zeros(1, 1, 1, 2) for _ in range(32)]
    assert reestimated(net, samples(*values, torch.full((1, 1, 1, 2), 9.0)))[0].running_mean.item() == 0.0
    two = reestimated(net, samples(*values, *(torch.full((1, 1, 1, 2), 9.0),) * 2))
    assert two[0].running_mean.item() == 4.5


def test_a_later_norm_sees_what_an_earlier_one_gives_in_training():
    net = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1), nn.BatchNorm1d(1)).eval()
    nn.init.constant_(net[1].weight, 2.0)
    nn.init.constant_(net[1].bias, 5.0)
    anew = reestimated(net, samples(torch.tensor([[100.0]]), torch.tensor([[104.0]])))
    assert anew[0].running_mean.item() == 102.0
    assert anew[2].running_mean.item() == pytest.approx(5.0)
    assert anew[2].running_var.item() == pytest.approx(8.0, rel=1e-4)  # +-2 around 5


@pytest.mark.parametrize("name", ["resnet", "batch_norm_mlp", "conv3d"])
def test_the_module_is_unchanged_and_only_statistics_differ(name):
    net = zoo.subject(name).module
    next(net.children()).train()
    next(net.parameters()).requires_grad_(False)
    before = {n: t.clone() for n, t in named_tensors(net)}
    flags = [(m.training, getattr(m, "momentum", None)) for m in net.modules()]
    rng = torch.random.get_rng_state()
    anew = reestimated(net, samples(*(torch.randn(1, *x.shape[1:]) for x in zoo.subject(name).inputs * 8)))
    torch.random.set_rng_state(rng)
    assert all(torch.equal(before[n], t) for n, t in named_tensors(net))
    assert [(m.training, getattr(m, "momentum", None)) for m in net.modules()] == flags
    assert [(m.training, getattr(m, "momentum", None)) for m in anew.modules()] == flags
    assert [p.requires_grad for p in anew.parameters()] == [p.requires_grad for p in net.parameters()]
    changed = {n.rpartition(".")[2] for n, t in named_tensors(anew) if not torch.equal(before[n], t)}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}


def test_dropout_rests():
    net = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(1)).train()
    assert reestimated(net, samples(*(torch.ones(1, 1),) * 4))[1].running_mean.item() == 1.0


class FrozenNorm(nn.Module):
    """As torchvision's FrozenBatchNorm2d: buffers that nothing learns."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - self.running_mean[:, None, None]


@pytest.mark.parametrize(
    ("norm", "kept"),
    [
        (FrozenNorm(), False), (nn.BatchNorm2d(3, track_running_stats=False), False), (nn.GroupNorm(1, 3), False),
        (nn.InstanceNorm2d(3, track_running_stats=True), False), (nn.BatchNorm2d(3), True), (nn.SyncBatchNorm(3), True),
    ],
)  # fmt: skip
def test_what_keeps_statistics(norm, kept):
    net = nn.Sequential(nn.Conv2d(3, 3, 1), norm).eval()
    assert has_statistics(net) == kept
    if not kept:
        anew = reestimated(net, samples(*(torch.randn(1, 3, 4, 4),) * 2))
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(named_tensors(anew), named_tensors(net), strict=True))


def test_norms_that_see_nothing_keep_what_they_have():
    """A head that runs in training only; and a single sample, which makes no statistics."""
    subject = zoo.subject("auxiliary")
    net = Lambda(lambda self, x: self.used(x), used=subject.module, spare=nn.BatchNorm2d(2)).eval()
    net.spare.running_mean.fill_(7.0)
    anew = reestimated(net, samples(*(torch.randn(1, 3, 8, 8),) * 4))
    assert anew.spare.running_mean.tolist() == [7.0, 7.0]
    alone = reestimated(subject.module, samples(torch.randn(1, 3, 8, 8)))
    assert all(torch.equal(a, b) for a, b in zip(alone.buffers(), subject.module.buffers(), strict=True))
