"""The proof of large models: one layer in float64 at a time."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from peelcli.records import Subject
from peelcli.surgery import verify
from tests.support import zoo
from tests.support.parts import Lambda
from tests.surgery.test_verify import edited, halved, on, prove, shift

BLENDING = ("group_norm", "convnext", "rms_norm", "mean_over_channels")
PLAIN = ("resnet", "mobilenet")  # nothing mixes channels but weights


def without_wide_copies(monkeypatch):
    """Every model is large, and a model in float64 does not fit."""

    def refuse(_module):
        raise MemoryError

    monkeypatch.setattr(verify, "LARGE", 0)
    monkeypatch.setattr(verify, "float64_copy", refuse)


@pytest.mark.parametrize("name", BLENDING + PLAIN)
def test_large_models_are_proven_layer_by_layer(name, monkeypatch):
    subject, cuts = halved(name)
    whole = prove(subject, cuts)
    without_wide_copies(monkeypatch)
    assert prove(subject, cuts) == replace(whole, value=pytest.approx(whole.value, abs=1e-12))


@pytest.mark.parametrize(("group", "tensor"), [("2.wide", "2.narrow.weight"), ("0", "1.weight")])
def test_layer_by_layer_passes_no_wrong_cut(group, tensor, monkeypatch):
    name = "convnext" if group == "2.wide" else "group_norm"
    subject, cuts = halved(name)
    wrong = edited(cuts, group, on(tensor, shift))
    monkeypatch.setattr(verify, "LARGE", 0)
    assert prove(subject, wrong).ok is False  # which is found out on whole copies
    without_wide_copies(monkeypatch)
    with pytest.raises(MemoryError):
        prove(subject, wrong)


def test_norms_that_the_trace_did_not_note_are_left_to_whole_copies(monkeypatch):
    subject = zoo.subject("group_norm")
    graph = zoo.graph_of(subject, tracer="depgraph")
    cuts = zoo.cuts_at(graph, [legal[(len(legal) - 1) // 2] for legal in (g.legal_widths() for g in graph.groups)])
    assert not any(cut.group.blends for cut in cuts)
    monkeypatch.setattr(verify, "LARGE", 0)
    assert prove(subject, cuts).ok is True
    without_wide_copies(monkeypatch)
    with pytest.raises(MemoryError):
        prove(subject, cuts)


def test_zeros_that_were_read_from_a_file_are_filled(tmp_path, peel_environment):
    """In a process of its own: a write to a lazy copy of a file's memory would end it."""
    net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3)).eval()
    for layer in (net[0], net[2]):
        nn.init.zeros_(layer.bias)
    torch.save(net, tmp_path / "net.pt")
    code = """
import torch, peelcli as peel
from peelcli.surgery import verify
verify.LARGE = 0
_, first = peel.prune("net.pt", input="2,4", params="60%", align=1)
_, second = peel.prune(torch.load("net.pt", weights_only=False), torch.randn(2, 4), params="60%", align=1)
print([check.ok for run in (first, second) for check in run.checks if check.name == verify.NAME])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=peel_environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "[True, True]\n"), done.stderr


def test_behind_zero_weights_layer_by_layer_passes_nothing_wrong(monkeypatch):
    subject, cuts = halved("convnext")
    with torch.no_grad():
        for module in subject.module.modules():
            if isinstance(module, nn.Linear):
                module.weight.zero_()
    without_wide_copies(monkeypatch)
    assert prove(subject, cuts).ok is True
    with pytest.raises(MemoryError):
        prove(subject, edited(cuts, "2.wide", on("2.narrow.weight", shift)))


def test_weights_that_others_use_are_proven_on_whole_copies(monkeypatch):
    """A layer that is not called as such is not widened; the types then do not fit, and whole copies decide."""

    def forward(self, x):
        return torch.nn.functional.linear(torch.relu(self.norm(self.one(x))), self.two.weight)

    net = Lambda(forward, one=nn.Linear(4, 8), norm=nn.LayerNorm(8), two=nn.Linear(8, 3)).eval()
    subject = Subject(net, (torch.randn(2, 4),), "net")
    graph = zoo.graph_of(subject)
    cuts = zoo.cuts_at(graph, [4 if group.full == 8 else group.full for group in graph.groups])
    monkeypatch.setattr(verify, "LARGE", 0)
    assert prove(subject, cuts).ok is True
    without_wide_copies(monkeypatch)
    with pytest.raises(MemoryError):
        prove(subject, cuts)
