"""Whatever a caller has set around a call."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import peelcli as peel
from peelcli.ambient import undisturbed


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def drawn():
    """One number of each kind of random state."""
    return torch.rand(()).item(), random.random(), float(np.random.rand())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_works_without_gradients_around_it_and_what_comes_back_can_be_trained(mode):
    teacher, samples = network(), torch.randn(24, 3, 8, 8)
    with mode():
        slim, _ = peel.prune(teacher, samples[:1], flops="50%")
        tuned, run = peel.finetune(slim, samples[:1], teacher=teacher, data=samples, steps=2, batch=8)
        assert torch.is_grad_enabled() is False
    assert run.tunings[0].steps == 2
    for module in (slim, tuned):
        module(samples).sum().backward()
        assert all(parameter.grad is not None for parameter in module.parameters())


def test_random_states_are_as_before():
    def seeded():
        torch.manual_seed(7)
        random.seed(7)
        np.random.seed(7)

    teacher, samples = network(), torch.randn(24, 3, 8, 8)
    seeded()
    wanted = drawn()
    seeded()
    slim, _ = peel.prune(teacher, samples[:1], flops="50%", data=samples)
    peel.finetune(slim, samples[:1], teacher=teacher, data=samples, steps=1, batch=8)
    assert drawn() == wanted


def test_they_are_as_before_where_the_work_fails_too():
    @undisturbed
    def work():
        drawn()
        raise ValueError("on purpose")

    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    before = torch.get_rng_state().clone(), random.getstate(), np.random.get_state()[1].tolist()
    with pytest.raises(ValueError, match="on purpose"):
        work()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
