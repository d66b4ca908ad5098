"""Metrics of the user's: found, given stacked tensors, and told off where they return no number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from peelcli.errors import InputError, SourceError, UsageError
from peelcli.sources.data import evaluate_metric, load_loss, load_metric, name_of


def accuracy(outputs, targets):
    return (outputs.argmax(1) == targets).float().mean()


def test_a_function_in_a_file(write):
    metric = load_metric(write("def give(outputs, targets):\n    return (outputs.argmax(1) == targets).sum()\n"))
    assert evaluate_metric(metric, [torch.eye(3)[n : n + 1] for n in (0, 1, 2)], [0, 1, 1]) == 2.0


def test_python_gives_the_function_itself():
    assert load_metric(accuracy) is accuracy
    loss = load_loss(lambda outputs, targets: (outputs - targets).square().mean())
    assert loss(torch.ones(2), torch.zeros(2)) == 1
    with pytest.raises(InputError, match=r"the loss fails raised ZeroDivisionError: .* \(test_metric.py:\d+\)"):
        load_loss(fails)(torch.ones(2), torch.zeros(2))
    assert [name_of(given) for given in ("a/b.py:score", accuracy, Judge())] == ["score", "accuracy", "Judge"]


def fails(outputs, targets):
    return 1 / 0


class Judge:
    def __call__(self, outputs, targets):
        return 1.0


@pytest.mark.parametrize("targets", [[0, 1, 1], list(torch.tensor([0, 1, 1]))])
@pytest.mark.parametrize("outputs", [[torch.eye(3)], [torch.eye(3)[:2], torch.eye(3)[2:]]])
def test_outputs_and_targets_are_stacked(outputs, targets):
    assert evaluate_metric(accuracy, outputs, targets) == pytest.approx(2 / 3)


def test_what_can_be_stacked_inside_a_dict_is_and_what_cannot_stays_a_list():
    def check(outputs, targets):
        assert outputs["logits"].shape == (4, 2)
        assert targets == ["a", "b", "c", "d"]
        return 1

    outputs = [{"logits": torch.zeros(2, 2)}, {"logits": torch.zeros(2, 2)}]
    assert evaluate_metric(check, outputs, list("abcd")) == 1.0
    ragged = [torch.zeros(1, 2), torch.zeros(1, 3)]
    assert evaluate_metric(lambda outputs, targets: len(outputs), ragged, None) == 2.0


@pytest.mark.parametrize("value", [0.5, torch.tensor(0.5), torch.tensor([0.5]), np.float64(0.5)])
def test_numbers_of_every_kind(value):
    assert evaluate_metric(lambda outputs, targets: value, [], []) == 0.5


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "returned nan, not a finite number"),
        (torch.tensor(float("inf")), "returned inf, not a finite number"),
        (10**400, "returned a number that no float holds, not a finite number"),
        ("good", "returned str, not one number"),
        (None, "returned NoneType, not one number"),
        (True, "returned bool, not one number"),
        (torch.ones(3, 2), "returned a tensor of shape 3x2, not one number"),
    ],
)
def test_what_is_no_number(value, said):
    with pytest.raises(InputError) as caught:
        evaluate_metric(lambda outputs, targets: value, [], [])
    assert said in caught.value.message
    assert caught.value.hint


def test_a_metric_that_raises_is_told_with_its_line(write):
    metric = load_metric(write("def give(outputs, targets):\n    return outputs[7]\n"))
    with pytest.raises(InputError) as caught:
        evaluate_metric(metric, [torch.ones(1, 2)], None)
    assert caught.value.message.startswith("the metric give raised IndexError: index 7 is out of bounds")
    assert "(own.py:2); the calibration data has no targets" in caught.value.message


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("accuracy", UsageError, "--metric accuracy names no function"),
        ("own.py:", UsageError, "names no function"),
        ("own.py:giv", UsageError, "own.py has no function giv"),
        ("own.py:number", UsageError, "own.py:number is no function but int"),
        ("absent.py:give", SourceError, "absent.py: no such file"),
    ],
)
def test_metrics_that_are_not_there(write, text, error, said):
    write("number = 3\ndef give(outputs, targets): pass\n")
    with pytest.raises(error) as caught:
        load_metric(text)
    assert said in caught.value.message
    assert caught.value.hint
