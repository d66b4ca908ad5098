"""The Python API, called as scripts call it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import peelcli as peel
from peelcli.errors import UsageError

EXAMPLE = torch.randn(1, 3, 12, 12)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Functional(nn.Module):
    """Convolutions without layers: thop, which looks at layers, counts nothing."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.randn(16, 3, 3, 3))
        self.second = nn.Parameter(torch.randn(8, 16, 3, 3))

    def forward(self, x):
        return F.conv2d(F.conv2d(x, self.first).relu(), self.second).mean((2, 3))


@pytest.mark.parametrize("allocate", ["peel", "uniform", "greedy"])
def test_a_model_in_which_thop_sees_nothing(allocate):
    torch.manual_seed(0)
    slim, run = peel.prune(Functional(), EXAMPLE, flops="50%", allocate=allocate)
    assert run.plan.before.thop_macs == run.after.thop_macs == 0
    assert 0 < run.after.macs <= run.plan.before.macs / 2
    assert slim.first.shape[0] == slim.second.shape[1] < 16
    assert [limit.count for limit in run.plan.budget] == ["macs"]


def test_a_budget_of_what_a_model_has_none_of_is_refused():
    with pytest.raises(UsageError, match="the model has no multiply-adds, so there is nothing to bound"):
        peel.prune(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), EXAMPLE, flops="50%")


def test_no_output_may_be_said_as_none():
    _, run = peel.prune(network(), EXAMPLE, flops="50%", out=None)
    assert run.artifacts == ()


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (network().state_dict(), "of type OrderedDict"),
        (nn.Linear, "the class Linear"),
        (None, "of type NoneType"),
        (torch.export.export(network().eval(), (EXAMPLE,)), "of type ExportedProgram"),
    ],
)
@pytest.mark.parametrize("example", [None, EXAMPLE])
def test_what_is_no_model_is_told(model, what, example):
    with pytest.raises(UsageError, match=f"the model is {what}, which is no torch.nn.Module, file or name"):
        peel.prune(model, example, flops="50%")


@pytest.mark.parametrize("setting", [{"flops": "10%"}, {"align": 1}, {"finetune": "2epochs"}, {"batch": 4}])
def test_apply_does_as_the_plan_says_and_nothing_else(setting):
    plan = peel.plan(network(), EXAMPLE, flops="50%")
    with pytest.raises(UsageError, match=f"apply takes no {next(iter(setting))}: the plan says how to prune"):
        peel.apply(network(), plan, EXAMPLE, **setting)


def test_a_plan_brings_its_input_for_a_module_too():
    plan = peel.plan(network(), EXAMPLE, flops="50%")
    _, run = peel.apply(network(), plan)
    assert run.plan == plan
    assert run.plan.inputs == ("1x3x12x12",)
