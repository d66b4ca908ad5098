"""Where a model is run for its shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peelcli.graph.rehearsal import Rehearsal, rehearsals, rehearse
from tests.support import zoo
from tests.support.parts import Lambda


def ran_on(name: str) -> tuple[bool, int, str]:
    """Without memory?, how many samples, and the note."""
    subject = zoo.subject(name)
    rehearsal, device = rehearse(
        subject.module, subject.inputs, lambda m, x: (m(*x), next(m.parameters()).device.type)[1]
    )
    assert device == ("meta" if rehearsal.weightless else "cpu")
    return rehearsal.weightless, len(rehearsal.inputs[0]), rehearsal.note


@pytest.mark.parametrize("name", ["resnet", "makes_tensors", "old_weight_norm", "attention"])
def test_without_memory_on_one_sample(name):
    assert ran_on(name) == (True, 1, "")


def test_a_forward_that_needs_values_runs_on_a_real_copy():
    assert ran_on("looks_at_values") == (False, 1, "")


def test_a_forward_that_needs_several_samples_gets_them():
    note = "the model does not run on one of its 4 samples alone: counts are for all of them"
    assert ran_on("batch_of_two") == (True, 4, note)


def test_the_cheapest_way_comes_first():
    x = torch.zeros(4, 3)
    assert [(r.weightless, len(r.inputs[0])) for r in rehearsals((x,))] == [
        (True, 1), (True, 4), (False, 1), (False, 4)
    ]  # fmt: skip
    assert [(r.weightless, len(r.inputs[0])) for r in rehearsals((x[:1],))] == [(True, 1), (False, 1)]


def test_what_no_way_can_run_raises_what_it_raised():
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        rehearse(nn.Linear(3, 4), (torch.zeros(2, 5),), lambda m, x: m(*x))


def test_where_the_whole_model_runs_no_other_way_is_tried():
    ways: list[str] = []

    def act(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        ways.append(inputs[0].device.type)
        return module(*inputs)

    with pytest.raises(RuntimeError):
        rehearse(nn.Linear(2, 4), (torch.zeros(1, 3),), act, whole=nn.Linear(3, 4))
    assert ways == ["meta"]

    def needs_values(self: Lambda, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) if float(x.sum()) < 1 else x

    ways.clear()
    rehearse(
        Lambda(needs_values, fc=nn.Linear(3, 2)),
        (torch.zeros(1, 3),),
        act,
        whole=Lambda(needs_values, fc=nn.Linear(3, 4)),
    )
    assert ways == ["meta", "cpu"]


def test_the_module_and_the_modes_of_torch_are_left_alone():
    net = nn.Linear(3, 4).train().requires_grad_(False)
    rehearse(net, (torch.zeros(1, 3),), lambda m, x: m(*x).sum().backward())
    assert net.training
    assert net.weight.grad is None
    assert torch.zeros(1).device.type == "cpu"


def test_a_copy_with_weights_is_empty_afterwards():
    held = []
    Rehearsal((torch.ones(1, 4),), weightless=False).perform(nn.Linear(4, 3), lambda double, _: held.append(double))
    assert [parameter.untyped_storage().nbytes() for parameter in held[0].parameters()] == [4, 4]
