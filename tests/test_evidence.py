"""Samples of one's own: how they are parted, and what is told of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from peelcli.calibration import mended
from peelcli.config import Calibration
from peelcli.errors import InputError
from peelcli.evidence import gather
from peelcli.records import Subject
from peelcli.samples import spread
from peelcli.sources import load
from peelcli.surgery.prune import apply_cuts
from tests.support import zoo
from tests.support.evidence import cuts_of, drawn, evidence_of, subject_of


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
