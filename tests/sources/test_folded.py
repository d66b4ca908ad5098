"""Weights that torch's norms compute become plain ones, and then their channels can go."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm

import peelcli as peel
from peelcli.sources.folded import fold

KINDS = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "old weight_norm": weight_norm,
    "old spectral_norm": spectral_norm,
}
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
EXAMPLE = torch.randn(1, 8, 24)


def vocoder(norm):
    torch.manual_seed(0)
    return nn.Sequential(
        norm(nn.Conv1d(8, 32, 3, padding=1)), nn.LeakyReLU(0.1), norm(nn.ConvTranspose1d(32, 16, 4, 2, 1)),
        nn.LeakyReLU(0.1), nn.Conv1d(16, 1, 7, padding=3),
    )  # fmt: skip


def keys(module):
    return set(module.state_dict())


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("trains", [True, False])
def test_plain_weights_give_the_same_outputs_to_the_bit(name, trains):
    net = vocoder(KINDS[name]).eval()
    before, known = net(EXAMPLE), {key: value.clone() for key, value in net.state_dict().items()}
    plain, notes = fold(net.train(trains))
    assert torch.equal(plain.eval()(EXAMPLE), before)
    assert keys(plain) == {f"{layer}.{part}" for layer in (0, 2, 4) for part in ("weight", "bias")}
    assert {key for key, _ in plain.named_parameters()} == keys(plain)
    assert notes == (f"{name.removeprefix('old ')} of 2 weights folded: the slim model has plain weights",)
    assert keys(net) == set(known)
    assert all(torch.equal(value, known[key]) for key, value in net.state_dict().items())
    assert type(plain[0]) is nn.Conv1d
    torch.testing.assert_close(net.eval()(EXAMPLE), before)


def test_worked_by_hand():
    layer = weight_norm(nn.Linear(2, 1, bias=False))  # length 10, direction (3, 4): a weight of (6, 8)
    with torch.no_grad():
        layer.weight_v.copy_(torch.tensor([[3.0, 4.0]]))
        layer.weight_g.fill_(10.0)
    plain, _ = fold(nn.Sequential(layer))
    assert plain[0].weight.tolist() == [[6.0, 8.0]]


@pytest.mark.parametrize("name", KINDS)
def test_what_does_not_train_does_not_train(name):
    plain, _ = fold(vocoder(KINDS[name]).requires_grad_(False))
    assert {p.requires_grad for p in plain.parameters()} == {False}
    assert {p.requires_grad for p in fold(vocoder(KINDS[name]))[0].parameters()} == {True}


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).transpose(-1, -2)


def test_other_rules_and_plain_models_are_left_alone():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    assert fold(net) == (net, ())
    parametrize.register_parametrization(net[0], "weight", Symmetric())
    assert fold(net) == (net, ())
    parametrize.register_parametrization(net[0], "bias", nn.Identity())
    assert fold(net) == (net, ())


@pytest.mark.parametrize("name", KINDS)
def test_such_models_are_pruned_and_repaired(name, tmp_path):
    net = vocoder(KINDS[name])
    data = torch.randn(64, 8, 24)
    slim, run = peel.prune(net, EXAMPLE, flops="50%", data=data, out=tmp_path / "slim.onnx")
    assert run.after.macs <= run.plan.before.macs / 2
    assert all(check.ok for check in run.checks)
    assert run.fidelity.repaired.relative < run.fidelity.cut.relative
    assert "folded: the slim model has plain weights" in run.plan.notes[0]
    assert slim[0].weight.shape[0] == slim[2].weight.shape[0] < 32


def test_a_plan_and_weights_fit_the_model_that_they_came_from(tmp_path):
    net = vocoder(parametrizations.weight_norm).eval()
    slim, run = peel.prune(net, EXAMPLE, flops="60%", out=tmp_path / "slim.safetensors")
    again, _ = peel.apply(net, run.plan, EXAMPLE)
    assert torch.equal(again(EXAMPLE), slim(EXAMPLE))
    tuned = peel.finetune(
        tmp_path / "slim.safetensors", EXAMPLE, teacher=net, data=torch.randn(40, 8, 24), steps=2, batch=8
    )
    assert keys(tuned.model) == keys(slim)
