"""What is differentiated: the tensor, its kind, the label and the loss."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from peelcli.errors import UsageError
from peelcli.outputs import class_label, common_kind, kind, main_output
from peelcli.scoring.objective import loss

ROW = torch.tensor([[1.0, -2.0, 0.5]])


@dataclass
class Found:
    count: int
    values: torch.Tensor


def seeded():
    return torch.Generator().manual_seed(4)


@pytest.mark.parametrize(
    "outputs",
    [
        ROW,
        [ROW, ROW + 1],
        (torch.tensor([3]), {"a": ROW}),
        {"loss": torch.zeros(()), "logits": ROW},
        SimpleNamespace(loss=torch.zeros(()), logits=ROW),
        Found(3, ROW),
        [torch.zeros(0, 4), ROW],
    ],
)
def test_the_main_output_of_a_nest(outputs):
    assert main_output(outputs) is ROW


def test_outputs_without_a_floating_tensor_are_refused():
    with pytest.raises(UsageError, match="no floating-point tensor"):
        main_output({"ids": torch.tensor([1]), "logits": None})
    assert main_output([torch.zeros(0)]).numel() == 0


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (ROW, "logits"),
        (ROW.log_softmax(1), "logits"),
        (ROW.softmax(1), "probabilities"),
        (ROW.half().softmax(1), "probabilities"),
        (torch.tensor([[0.5, 0.4985]]), "values"),  # 1.5e-3 short of 1
        (torch.tensor([[0.5, 0.4995]]), "probabilities"),
        (torch.cat([ROW.softmax(1), ROW]), "logits"),
        (ROW.sigmoid(), "values"),
        (torch.nn.functional.normalize(ROW), "values"),
        (ROW[:, :1], "values"),
        (ROW[0], "values"),
        (ROW[None], "values"),
        (ROW[None, None], "values"),
        (torch.zeros(0, 4), "values"),
        ({"logits": ROW}, "logits"),
        ({"logits": ROW.sigmoid()}, "logits"),
        ({"logits": ROW.softmax(1)}, "probabilities"),
        ({"logits": ROW[None]}, "logits"),
        ({"logits": ROW[None, None]}, "values"),
        ({"logits": ROW[:, :1]}, "values"),
    ],
)
def test_kinds(output, expected):
    assert kind(output) == expected


def test_one_kind_for_several_outputs():
    assert common_kind(["probabilities", "probabilities"]) == "probabilities"
    assert common_kind(["probabilities", "values"]) == "values"
    assert common_kind(["values", "logits", "probabilities"]) == "logits"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (2, 2),
        (torch.tensor(2), 2),
        (torch.tensor([1]), 1),
        (np.int64(1), 1),
        (np.array([0]), 0),
        (None, None),
        (True, None),
        (1.0, None),
        (torch.tensor(1.0), None),
        (torch.tensor([0, 1, 1]), None),
        ("cat", None),
        ({"boxes": ROW}, None),
    ],
)
def test_labels(target, expected):
    assert class_label(target, ROW) == expected
    assert class_label(target, ROW[None]) is None


@pytest.mark.parametrize("target", [3, -1])
def test_a_label_that_is_no_class_is_refused(target):
    with pytest.raises(UsageError, match=f"the label {target} is no class of this model, which has 3"):
        class_label(target, ROW)


def test_losses_by_hand():
    z = torch.tensor([[0.0, log(3)]])  # probabilities 1/4 and 3/4
    for output, of in ((z, "logits"), (z.softmax(1), "probabilities")):
        assert loss(output, of, 0, seeded()).item() == pytest.approx(log(4))
        assert loss(output, of, None, seeded()).item() == pytest.approx(log(4 / 3))
    tokens = torch.stack([z, z.flip(1)], dim=1)
    assert loss(tokens, "logits", None, seeded()).item() == pytest.approx(log(4 / 3))
    assert loss(torch.tensor([[0.0, 1.0]]), "probabilities", 0, seeded()).isfinite()
    direction = torch.randn(1, 3, generator=seeded())
    assert loss(ROW, "values", None, seeded(), 2.0).item() == pytest.approx(float((ROW * direction).sum()) / 2)


def test_random_directions_average_to_the_squared_sensitivity():
    generator = seeded()
    squares = [loss(ROW, "values", None, generator).item() ** 2 for _ in range(4000)]
    assert sum(squares) / 4000 == pytest.approx(float(ROW.square().sum()), rel=0.1)
