"""What samples decide beside widths: whether repair stays, and what is told of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from peelcli import calibration
from peelcli.calibration import figure, gather, mended
from peelcli.config import Calibration
from peelcli.errors import InputError
from peelcli.graph import trace
from peelcli.graph.legal import Legality
from peelcli.records import Cut, Subject
from peelcli.samples import spread
from peelcli.sources import load
from peelcli.surgery.prune import apply_cuts
from peelcli.surgery.repair import Repaired
from tests.support import zoo
from tests.support.evidence import drawn, evidence_of, same, state, subject_of


def cuts_of(subject: Subject) -> tuple[Cut, ...]:
    graph = trace.trace(subject, Legality(align=1, min_keep=0.1))
    widths = (
        max(g.legal_widths()[0], g.full // 2 // g.step * g.step) if not g.locked else g.full for g in graph.groups
    )
    return tuple(Cut(g, w, tuple(range(w)), 1.0) for g, w in zip(graph.groups, widths, strict=True))


def bad_repair(original, slim, cuts, samples, seed, progress=None):
    """Makes everything worse."""
    with torch.no_grad():
        for parameter in slim.parameters():
            parameter.add_(3.0)
    return Repaired(fitted=["all"])


def no_repair(original, slim, cuts, samples, seed, progress=None):
    return Repaired(kept=["all"])


# --- the samples


def test_without_samples_there_is_no_evidence():
    subject = subject_of("mlp")
    assert gather(subject, Calibration(), 0) == (subject, None)


@pytest.mark.parametrize(("count", "held"), [(2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1), (10, 2), (20, 4)])
def test_one_sample_of_five_is_held_out_and_few_do(count, held):
    subject = subject_of("mlp")
    evidence = evidence_of(subject, count)
    assert (len(evidence.fit), evidence.judge.held) == (count - held, held)
    cuts = cuts_of(subject)
    _, fidelity = mended(evidence, apply_cuts(subject.module, cuts), cuts)
    assert (fidelity.fitted, fidelity.held) == (count - held, held)
    assert math.isfinite(fidelity.cut.relative)


def test_what_is_held_out_is_no_part_of_what_is_fitted():
    data = drawn(10, 3, 16, 16)
    evidence = evidence_of(subject_of(), data=data)
    held = evidence.judge._samples
    assert torch.equal(torch.cat([x for (x,) in held.inputs]), data[spread(10, 2)])
    fitted = torch.cat([x for (x,) in evidence.fit.inputs])
    order = [int((data == x).flatten(1).all(1).nonzero()) for x in fitted]
    assert sorted(order) == [k for k in range(10) if k not in spread(10, 2)]
    assert order != sorted(order)  # a folder goes class by class, and the first batches count most
    assert [float(x[0, 0, 0, 0]) for (x,) in evidence_of(subject_of(), data=data).fit.inputs] == fitted[
        :, 0, 0, 0
    ].tolist()


def test_one_s_own_samples_judge_in_place_of_a_fifth():
    data, others = drawn(10, 3, 16, 16), drawn(7, 3, 16, 16, seed=1)
    evidence = evidence_of(subject_of(), data=data, validation=others)
    assert len(evidence.fit) == 10
    assert sorted(float(x[0, 0, 0, 0]) for (x,) in evidence.fit.inputs) == sorted(data[:, 0, 0, 0].tolist())
    assert torch.equal(torch.cat([x for (x,) in evidence.judge._samples.inputs]), others)
    assert evidence_of(subject_of(), data=data, validation=others, samples=5).judge.held == 5


def test_one_s_own_samples_may_have_labels_where_the_others_have_none():
    subject = subject_of()
    others = drawn(8, 3, 16, 16, seed=1)
    with torch.no_grad():
        right = subject.module(others).argmax(1)
    evidence = evidence_of(subject, validation=(others, right))
    assert evidence.fit.targets is None
    assert (evidence.judge.metric_name, evidence.judge.original) == ("accuracy", 1.0)


def test_one_s_own_samples_that_the_model_does_not_take():
    with pytest.raises(InputError, match="2x16x16"):
        evidence_of(subject_of(), validation=drawn(8, 2, 16, 16))
    with pytest.raises(InputError, match="1 sample can be used"):
        evidence_of(subject_of(), validation=drawn(1, 3, 16, 16))


def test_a_model_that_takes_one_sample_at_a_time_is_shown_one_at_a_time():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 5)

        def forward(self, x):
            return self.fc(self.conv(x).relu().reshape(1, -1))

    torch.manual_seed(0)
    subject = Subject(Fixed().eval(), (drawn(1, 3, 8, 8),), "fixed")
    evidence = evidence_of(subject, 6)
    assert evidence.fit.single
    assert [size for _, size in evidence.fit.counted_batches(4)] == [1] * 5
    assert evidence.fit.some([0, 1]).single
    assert not evidence_of(subject_of(), 6).fit.single


def test_a_guessed_input_gives_way_to_that_of_the_samples():
    subject = load.from_module(zoo.subject("resnet").module)
    assert subject.guessed in subject.notes
    known, evidence = gather(subject, Calibration(data=drawn(8, 3, 20, 24)), 0)
    assert known.inputs[0].shape == (1, 3, 20, 24)
    assert known.notes == ("input of 3x20x24 taken from the samples",)
    assert not known.guessed
    assert evidence is not None
    assert evidence.notes == ()


def test_samples_of_another_shape_than_costs_are_counted_at_are_told():
    subject = subject_of()
    assert evidence_of(subject).notes == ()
    evidence = evidence_of(subject, data=drawn(10, 3, 20, 24))
    assert evidence.notes == (
        "the samples are 3x20x24; costs are counted, and files written, for 3x16x16: see --input",
    )
    mixed = [drawn(3, size, size) for size in (16, 20, 24)]
    assert evidence_of(subject, data=mixed).notes == ()  # no shape is the one


def test_labels_give_an_accuracy_and_a_metric_its_own_figure(tmp_path):
    subject = subject_of()
    data = drawn(20, 3, 16, 16)
    with torch.no_grad():
        labels = subject.module(data).argmax(1)
    evidence = evidence_of(subject, data=[(x, int(y)) for x, y in zip(data, labels, strict=True)])
    cuts = cuts_of(subject)
    _, fidelity = mended(evidence, apply_cuts(subject.module, cuts), cuts)
    assert (fidelity.metric, fidelity.original) == ("accuracy", 1.0)
    assert fidelity.cut.metric == fidelity.cut.agreement

    (tmp_path / "judge.py").write_text("def first(outputs, targets):\n    return float(outputs[:, 0].mean())\n")
    pairs = [(x, int(y)) for x, y in zip(data, labels, strict=True)]
    evidence = evidence_of(subject, data=pairs, metric=f"{tmp_path / 'judge.py'}:first")
    _, fidelity = mended(evidence, apply_cuts(subject.module, cuts), cuts)
    with torch.no_grad():
        expected = float(subject.module(data[spread(20, 4)])[:, 0].mean())
    assert fidelity.metric == "first"
    assert fidelity.original == pytest.approx(expected, rel=1e-4)


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
