"""Losses, worked by hand."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import pytest
import torch

from peelcli.errors import InputError
from peelcli.training.objective import Answers, Mix, Objective, answers_of, check_shapes, mean_squares, places_in_both

LOGITS = torch.tensor([[0.0, 0.0]])
SURE = torch.tensor([[log(3.0), 0.0]])  # probabilities 3/4 and 1/4


def loss(outputs, mix=None, teacher=None, labels=None, targets=None, **settings):
    settings = {"kind": "logits", "distill": 1.0, **settings}
    told = None if teacher is None else (teacher,)
    return float(Objective(**settings)(outputs, Answers(told, labels, targets), mix))


def test_kl_divergence_from_the_teacher_in_nats():
    assert loss(LOGITS, teacher=SURE) == pytest.approx(0.75 * log(1.5) + 0.25 * log(0.5))
    assert loss(SURE, teacher=SURE) == pytest.approx(0.0, abs=1e-7)


def test_temperature_softens_both_and_keeps_the_size():
    softened = loss(LOGITS, teacher=2 * SURE, temperature=2.0)
    assert softened == pytest.approx(4 * loss(LOGITS, teacher=SURE))


def test_probabilities_need_no_softmax():
    p, q = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.5, 0.5]])
    assert loss(q, teacher=p, kind="probabilities", temperature=9.0) == pytest.approx(0.75 * log(1.5) + 0.25 * log(0.5))


def test_values_are_compared_in_their_own_unit():
    wanted = torch.tensor([[1.0], [3.0]])
    scales = mean_squares([(wanted,)])
    assert scales == (1.0,)
    assert loss(torch.tensor([[2.0], [2.0]]), teacher=wanted, kind="values", scales=scales) == pytest.approx(1.0)
    assert mean_squares([(torch.ones(3),)]) == (1.0,)


def test_labels_weigh_what_the_teacher_leaves():
    labels = torch.tensor([0])
    own = loss(SURE, labels=labels, distill=0.0)
    assert own == pytest.approx(-log(0.75))
    both = loss(SURE, teacher=LOGITS, labels=labels, distill=0.25)
    assert both == pytest.approx(0.25 * loss(SURE, teacher=LOGITS) + 0.75 * own)


def test_smoothing_spreads_a_label():
    smooth = loss(SURE, labels=torch.tensor([0]), distill=0.0, smoothing=0.5)
    assert smooth == pytest.approx(-0.75 * log(0.75) - 0.25 * log(0.25))


def test_blended_samples_have_both_labels():
    outputs = torch.cat([SURE, SURE])
    mixed = loss(outputs, Mix(0.25, Answers(labels=torch.tensor([1, 0]))), labels=torch.tensor([0, 1]), distill=0.0)
    assert mixed == pytest.approx(0.5 * -log(0.75) + 0.5 * -log(0.25))


def test_a_loss_of_ones_own_gets_outputs_and_targets():
    found = loss(LOGITS, targets=[7], distill=0.0, own=lambda outputs, targets: outputs.sum() + targets[0])
    assert found == 7.0


def test_half_precision_is_summed_in_float32():
    objective = Objective("logits", 1.0)
    assert objective(LOGITS.bfloat16(), Answers((SURE.bfloat16(),))).dtype is torch.float32
    assert objective(LOGITS.double(), Answers((SURE.double(),))).dtype is torch.float64


def test_a_classifier_is_judged_by_its_scores_anything_else_by_all_it_puts_out():
    outputs = {"out": torch.ones(1, 2, 3, 3), "aux": torch.ones(1, 4), "count": torch.tensor([1])}
    assert [tuple(t.shape) for t in answers_of(outputs, "values")] == [(1, 2, 3, 3), (1, 4)]
    assert [tuple(t.shape) for t in answers_of(outputs, "logits")] == [(1, 2, 3, 3)]


@dataclass
class Maps:
    out: torch.Tensor
    aux: torch.Tensor | None = None


def test_what_is_there_in_train_mode_only_is_not_learned():
    z, y = torch.zeros(1, 2), torch.ones(1, 3)
    for eval_mode, train_mode in [
        ({"out": z}, {"aux": y, "out": z}),
        (z, (z, y)),
        ([z], (z, [y, y])),
        (Maps(z), Maps(z, y)),
        ({"out": z, "more": {"deep": y}}, {"out": z, "more": {}}),
    ]:
        places = places_in_both(eval_mode, train_mode)
        for outputs in (eval_mode, train_mode):
            (found,) = answers_of(outputs, "values", places)
            assert found is z
    assert places_in_both((z, y), (z, y)) == ()  # all of them
    assert places_in_both({"out": z}, {"aux": y}) == ()


def test_shapes_must_agree():
    with pytest.raises(InputError, match="1x2, and the slim model 1x3"):
        check_shapes([LOGITS], [torch.ones(1, 3)])
