"""How weights are moved: rates, groups and averages, worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peelcli.regimen import Training
from peelcli.training.recipe import Average, make_optimizer, optimizer_name, peak_rate, rate_factor


def training(**settings):
    return Training(epochs=1, **settings)


def test_the_rate_rises_in_a_line_and_falls_as_a_cosine():
    factors = [rate_factor(step, 10, 0.2) for step in range(10)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[6] == pytest.approx(0.5)
    assert factors[2:] == sorted(factors[2:], reverse=True)
    assert 0 < factors[9] < 0.05


def test_without_warm_up_the_first_step_is_the_peak():
    assert rate_factor(0, 5, 0.0) == 1.0


def test_batchnorm_decides_on_sgd_unless_it_is_frozen():
    normed = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    assert optimizer_name(normed, training()) == "sgd"
    assert optimizer_name(normed, training(batchnorm="frozen")) == "adamw"
    assert optimizer_name(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), training()) == "adamw"
    assert optimizer_name(normed, training(optimizer="adamw")) == "adamw"


def test_the_rate_follows_the_batch():
    assert peak_rate("sgd", training(batch=128)) == pytest.approx(2 * peak_rate("sgd", training(batch=64)))
    assert peak_rate("adamw", training(batch=256)) == pytest.approx(2 * peak_rate("adamw", training(batch=64)))
    assert peak_rate("sgd", training(batch=128, rate=0.5)) == 0.5
    assert peak_rate("sgd", training(batch=64), gentle=True) == pytest.approx(0.01)
    assert peak_rate("adamw", training(batch=64), gentle=True) == peak_rate("adamw", training(batch=64))
    assert peak_rate("sgd", training(rate=0.5), gentle=True) == 0.5


def test_vectors_are_not_decayed_and_frozen_weights_not_moved():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    module[2].weight.requires_grad_(False)
    matrices, vectors = make_optimizer(module, "sgd", training(weight_decay=0.3)).param_groups
    assert [p.shape for p in matrices["params"]] == [(4, 3)]
    assert matrices["weight_decay"] == 0.3
    assert {p.dim() for p in vectors["params"]} == {1}
    assert vectors["weight_decay"] == 0.0


def test_an_average_forgets_its_start_and_copies_counters():
    module = nn.BatchNorm1d(2)
    average = Average(module, 0.5)
    for step, value in enumerate((2.0, 4.0)):
        with torch.no_grad():
            module.weight.fill_(value)
            module.num_batches_tracked.add_(1)
        average.update(step)
    # decays 1/10 and 2/11: 0.1 * 1 + 0.9 * 2 = 1.9, then 2/11 * 1.9 + 9/11 * 4
    assert average.state["weight"].tolist() == pytest.approx([2 / 11 * 1.9 + 9 / 11 * 4] * 2)
    assert int(average.state["num_batches_tracked"]) == 2
