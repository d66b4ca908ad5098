"""Samples for who has none: patterns, the stand-in that they are shown to, and what comes home of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import peelcli as peel
from peelcli import calibration, synthetic
from peelcli.config import Calibration
from peelcli.errors import InputError, UsageError
from peelcli.evidence import gather
from peelcli.records import Subject
from peelcli.surgery.prune import apply_cuts
from tests.support import zoo
from tests.support.evidence import cuts_of
from tests.support.nets import Residual
from tests.support.parts import conv_bn, head

PICTURE = (3, 16, 16)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained_net() -> nn.Module:
    """BatchNorm statistics that smooth pictures gave it, far from those of a new network."""
    torch.manual_seed(0)
    net = nn.Sequential(conv_bn(3, 24), Residual(24, 32, 24), Residual(24, 48, 32, 2), head(32, 6))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.2, 2.0)
            module.bias.data.uniform_(-0.5, 0.5)
            module.momentum = None
    with torch.no_grad():
        for seed in range(8):
            net(pictures(64, seed + 10))
    return net.eval()


def pictures(count: int, seed: int) -> torch.Tensor:
    """What the net saw: smooth, bright, nothing like the patterns."""
    coarse = 1.5 + torch.randn(count, 3, 4, 4, generator=source(seed)) * torch.tensor([3.0, 0.5, 1.0])[:, None, None]
    return nn.functional.interpolate(coarse, size=PICTURE[1:], mode="bicubic")


def off(net: nn.Module, slim: nn.Module) -> float:
    with torch.no_grad():
        x = pictures(64, 1)
        wanted, got = net(x), slim(x)
    return float((got - wanted).norm() / (wanted - wanted.mean(0)).norm())


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 50), (1, 6, 7, 8), (5,)])
def test_patterns(shape):
    made = synthetic.patterns(shape, 200, source())
    assert made.shape == (200, *shape)
    assert abs(float(made.mean())) < 0.15
    assert 0.8 < float(made.std()) < 1.2
    assert torch.equal(made, synthetic.patterns(shape, 200, source()))
    assert not torch.equal(made, synthetic.patterns(shape, 200, source(1)))
    assert len({pattern.numpy().tobytes() for pattern in made}) == 200


def test_patterns_are_made_of_areas():
    made = synthetic.patterns((3, 32, 32), 20, source())
    same = (made[..., 1:] == made[..., :-1]).all(1).float().mean()
    assert 0.5 < float(same) < 0.98
    assert 8 < sum(len(pattern.flatten(1).unique(dim=1).T) for pattern in made) / 20 < 41  # colours


def test_a_stand_in_has_the_statistics_of_the_patterns():
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).eval()
    net[0].weight.data.fill_(2.0)
    net[0].bias.data.fill_(1.0)
    subject = Subject(net, (torch.zeros(1, 1, 8, 8),), "net")
    shown = synthetic.samples(subject, 64, 0)
    made = torch.cat([inputs[0] for inputs in shown.inputs])
    norm = synthetic.stand_in(net, shown)[1]
    assert norm.running_mean.item() == pytest.approx(2 * float(made.mean()) + 1, abs=1e-4)
    assert norm.running_var.item() == pytest.approx(4 * float(made.var()), rel=0.05)
    assert net[1].running_mean.item() == 0


def test_changes_are_carried_over_worked_by_hand():
    slim, before, after = (nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)) for _ in range(3))
    for net, weight, mean in ((slim, 5.0, 0.5), (before, 5.0, 7.0), (after, 5.5, 6.75)):
        net[0].weight.data.fill_(weight)
        net[0].bias.data.zero_()
        net[1].running_mean.fill_(mean)
    before[1].running_var.fill_(9.0)
    after[1].running_var.fill_(9.0)
    synthetic.carried_over(slim, before, after)
    assert slim[0].weight.item() == 5.5
    assert slim[1].running_mean.item() == 0.25
    assert slim[1].running_var.item() == 1.0


def test_repair_without_data_helps_on_data_that_it_never_saw():
    net = trained_net()
    subject = Subject(net, (torch.zeros(1, *PICTURE),), "net")
    _, evidence = gather(subject, Calibration(data="synthetic", samples=128), 0)
    cuts = cuts_of(subject)
    slim = apply_cuts(net, cuts)
    state = {name: tensor.clone() for name, tensor in slim.state_dict().items()}
    better, fidelity = calibration.mended(evidence, slim, cuts)
    assert fidelity.synthetic
    assert fidelity.repaired.relative < fidelity.cut.relative
    assert off(net, better) < 0.6 * off(net, slim)
    assert all(torch.equal(tensor, state[name]) for name, tensor in slim.state_dict().items())
    plain, _ = calibration.mended(
        gather(subject, Calibration(data=synthetic.patterns(PICTURE, 128, source()), samples=128), 0)[1],
        slim,
        cuts,
    )
    assert off(net, better) < 0.9 * off(net, plain)  # the stand-in is what makes patterns do


def test_the_whole_way():
    net = trained_net()
    slim, run = peel.prune(net, torch.zeros(1, *PICTURE), flops="60%", data="synthetic", samples=64)
    assert dict(run.plan.settings)["score"] == "reconstruction"
    assert run.fidelity.synthetic
    assert len(run.candidates) >= 2
    assert {name for name, _ in slim.named_buffers()} == {name for name, _ in net.named_buffers()}
    again, _ = peel.prune(net, torch.zeros(1, *PICTURE), flops="60%", data="synthetic", samples=64)
    assert all(torch.equal(a, b) for a, b in zip(slim.parameters(), again.parameters(), strict=True))


def test_large_patterns_are_few(monkeypatch):
    monkeypatch.setattr(synthetic, "_BYTES", 40 * 3 * 16 * 16 * 4)
    subject = Subject(trained_net(), (torch.zeros(1, *PICTURE),), "net")
    assert len(synthetic.samples(subject, 256, 0)) == 40
    monkeypatch.setattr(synthetic, "_BYTES", 1)
    assert len(synthetic.samples(subject, 256, 0)) == synthetic._FEWEST


@pytest.mark.parametrize("name", ["mlp", "attention"])
def test_models_without_statistics_are_refused(name):
    with pytest.raises(InputError, match="statistics that BatchNorm keeps"):
        synthetic.samples(zoo.subject(name), 8, 0)


def test_models_with_several_inputs_are_refused():
    net = nn.Sequential(nn.BatchNorm1d(2))
    with pytest.raises(InputError, match="takes more"):
        synthetic.samples(Subject(net, (torch.zeros(1, 2), torch.zeros(1, 2)), "net"), 8, 0)


@pytest.mark.parametrize("flag", ["image_size", "mean", "std", "metric"])
def test_what_reads_real_samples_is_refused(flag):
    value = {"image_size": 8, "mean": 0.5, "std": 0.5, "metric": "own.py:judge"}[flag]
    with pytest.raises(UsageError, match="goes with real samples"):
        peel.prune(trained_net(), torch.zeros(1, *PICTURE), flops="60%", data="synthetic", **{flag: value})
