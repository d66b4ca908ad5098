"""What samples decide beside widths: whether repair stays, and what is told of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peelcli import calibration
from peelcli.calibration import figure, mended
from peelcli.graph import trace
from peelcli.graph.legal import Legality
from peelcli.records import Cut, Subject
from peelcli.sources import load
from peelcli.surgery.prune import apply_cuts
from peelcli.surgery.repair import Repaired
from tests.support.evidence import cuts_of, drawn, evidence_of, same, state, subject_of


def bad_repair(original, slim, cuts, samples, seed, progress=None):
    """Makes everything worse."""
    with torch.no_grad():
        for parameter in slim.parameters():
            parameter.add_(3.0)
    return Repaired(fitted=["all"])


def no_repair(original, slim, cuts, samples, seed, progress=None):
    return Repaired(kept=["all"])


# --- repair, as far as it helps


def slim_of(subject: Subject):
    cuts = cuts_of(subject)
    return apply_cuts(subject.module, cuts), cuts


@pytest.mark.parametrize("training", [False, True])
def test_repair_brings_the_slim_model_nearer_and_changes_nothing_else(training):
    subject = subject_of()
    subject.module.train(training)
    slim, cuts = slim_of(subject)
    before, original = state(slim), state(subject.module)
    better, fidelity = mended(evidence_of(subject, 60), slim, cuts)
    assert fidelity.repaired is not None
    assert figure(fidelity.repaired) < 0.5 * figure(fidelity.cut)
    assert same(slim, before)
    assert same(subject.module, original)
    assert better.training is training
    assert all(p.requires_grad for p in better.parameters())
    assert sum(p.numel() for p in better.parameters()) == sum(p.numel() for p in slim.parameters())
    assert any("layers fitted again" in note for note in fidelity.notes)


def test_what_makes_it_worse_is_taken_back(monkeypatch):
    monkeypatch.setattr(calibration, "repair", bad_repair)
    monkeypatch.setattr(calibration, "reestimated", lambda module, samples: module)
    slim, cuts = slim_of(subject_of())
    before = state(slim)
    result, fidelity = mended(evidence_of(subject_of()), slim, cuts)
    assert result is slim
    assert same(result, before)
    assert fidelity.repaired is None
    assert (
        fidelity.notes[-1] == "repair: none, because what was tried was no nearer to the original on held-out samples"
    )
    assert not any("fitted" in note for note in fidelity.notes)


def test_a_repair_that_changes_nothing_leaves_the_model_as_it_was_cut(monkeypatch):
    monkeypatch.setattr(calibration, "repair", no_repair)
    slim, cuts = slim_of(subject_of("mlp"))
    result, fidelity = mended(evidence_of(subject_of("mlp")), slim, cuts)
    assert result is slim
    assert fidelity.repaired is None


@pytest.mark.parametrize("better", [True, False])
def test_batchnorm_statistics_anew_only_where_that_is_better(monkeypatch, better):
    subject = subject_of()
    slim, cuts = slim_of(subject)
    evidence = evidence_of(subject)
    anew = apply_cuts(subject.module, cuts) if not better else None

    def reestimated(module, samples):
        assert samples is evidence.fit
        if better:
            return subject.module  # nothing is nearer than the original itself
        bad_repair(None, anew, cuts, samples, 0)
        return anew

    def halfway(original, slim, cuts, samples, seed, progress=None):
        with torch.no_grad():  # something that is nearer than the cut: weights that say little
            for name, parameter in slim.named_parameters():
                if name.endswith("fc.weight") or parameter.dim() == 2:
                    parameter.mul_(0.05)
        return Repaired(fitted=["fc"])

    monkeypatch.setattr(calibration, "repair", halfway)
    monkeypatch.setattr(calibration, "reestimated", reestimated)
    result, fidelity = mended(evidence, slim, cuts)
    assert (result is subject.module) == better
    assert ("repair: BatchNorm statistics taken anew" in fidelity.notes) == better
    assert fidelity.repaired is not None
    assert result is not slim
    assert (fidelity.repaired.relative == 0.0) == better


def test_none_means_none(monkeypatch):
    monkeypatch.setattr(calibration, "repair", lambda *_: pytest.fail("nobody wanted that"))
    slim, cuts = slim_of(subject_of())
    result, fidelity = mended(evidence_of(subject_of(), repair="none"), slim, cuts)
    assert result is slim
    assert fidelity.repaired is None
    assert fidelity.notes == ()


def test_a_model_that_was_not_cut_is_not_repaired(monkeypatch):
    monkeypatch.setattr(calibration, "repair", lambda *_: pytest.fail("there is nothing to repair"))
    subject = subject_of("mlp")
    graph = trace.trace(subject, Legality())
    whole = tuple(Cut(g, g.full, tuple(range(g.full)), 1.0) for g in graph.groups)
    _, fidelity = mended(evidence_of(subject), apply_cuts(subject.module, whole), whole)
    assert fidelity.cut.relative == 0.0
    assert fidelity.repaired is None


def test_the_stream_of_linear_bottlenecks_is_turned_and_comes_nearer(monkeypatch):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    net = torchvision.models.mobilenet_v2(width_mult=0.25, num_classes=5)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None
    data = drawn(60, 3, 64, 64)
    with torch.no_grad():
        net(data)  # norms that know what they see
    subject = load.from_module(net.eval(), data[:1])
    evidence = evidence_of(subject, data=data)
    slim, cuts = slim_of(subject)
    turned, found = mended(evidence, slim, cuts)
    monkeypatch.setattr(calibration, "_basis", lambda *_: None)
    _, plain = mended(evidence, slim, cuts)
    assert found.notes[0] == "repair: 6 linear streams turned, so that the kept channels carry the most"
    assert [p.shape for p in turned.parameters()] == [p.shape for p in slim.parameters()]
    assert found.repaired.relative < 0.98 * plain.repaired.relative
    assert not any("turned" in note for note in plain.notes)
