"""What is measured of a model's products: against explicit patches, and against gradients worked out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peelcli.records import Subject
from peelcli.samples import Samples
from peelcli.scoring import moments as measuring
from peelcli.scoring.moments import Moments, measure
from peelcli.scoring.sensitivity import Objective


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def samples_of(x: torch.Tensor, **given) -> Samples:
    return Samples(tuple((row[None],) for row in x), "drawn", **given)


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    ).eval()


WEIGHTS = ("2.weight", "6.weight")


def test_covariances_are_those_of_all_positions():
    net, x = small_net(), drawn(10, 3, 6, 5)
    found = measure(Subject(net, (x[:1],), "net"), samples_of(x), WEIGHTS, 0)
    assert sorted(found) == sorted(WEIGHTS)
    with torch.no_grad():
        inner, pooled = net[:2](x), net[:6](x)
    rows = inner.double().movedim(1, -1).reshape(-1, 4)
    expected = torch.stack([torch.cov(rows[:, part].T, correction=0) for part in ([0, 1], [2, 3])])
    assert found["2.weight"].count == 10 * 6 * 5
    assert torch.allclose(found["2.weight"].covariance(), expected, rtol=1e-5, atol=1e-7)
    assert torch.allclose(found["6.weight"].covariance()[0], torch.cov(pooled.double().T, correction=0), rtol=1e-4)
    assert found["2.weight"].matrix.shape == (2, 3, 2, 9)


def test_few_rows_are_taken_of_many_positions(monkeypatch):
    monkeypatch.setattr(measuring, "_FEWEST_ROWS", 40)
    net, x = small_net(), drawn(10, 3, 6, 5)
    found = measure(Subject(net, (x[:1],), "net"), samples_of(x), WEIGHTS, 0)
    assert found["2.weight"].count == 40
    again = measure(Subject(net, (x[:1],), "net"), samples_of(x), WEIGHTS, 0)
    assert torch.equal(found["2.weight"].covariance(), again["2.weight"].covariance())
    other = measure(Subject(net, (x[:1],), "net"), samples_of(x), WEIGHTS, 1)
    assert not torch.equal(found["2.weight"].covariance(), other["2.weight"].covariance())


def test_the_rows_of_wide_layers_are_kept(monkeypatch):
    monkeypatch.setattr(measuring, "WIDE", 5)
    net, x = small_net(), drawn(10, 3, 6, 5)
    found = measure(Subject(net, (x[:1],), "net"), samples_of(x), WEIGHTS, 0)
    with torch.no_grad():
        assert torch.equal(torch.cat(found["6.weight"].rows), torch.cat([net[:6](x[:8]), net[:6](x[8:])]))
    assert found["6.weight"].count == 10
    assert not found["2.weight"].rows


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_size_of_the_batches_does_not_matter(monkeypatch, batch, single):
    net, x = small_net(), drawn(10, 3, 6, 5)
    net.append(nn.Softmax(-1))
    expected = measure(Subject(net, (x[:1],), "net"), samples_of(x), WEIGHTS, 0)
    monkeypatch.setattr(measuring, "_BATCH", batch)
    found = measure(Subject(net, (x[:1],), "net"), samples_of(x, single=single), WEIGHTS, 0)
    for name in WEIGHTS:
        assert torch.allclose(found[name].covariance(), expected[name].covariance(), rtol=1e-4, atol=1e-9)
        assert torch.allclose(found[name].sensitivity, expected[name].sensitivity, rtol=1e-3)


def test_the_model_stays_as_it_is_and_progress_is_told():
    net, x = small_net().train().requires_grad_(False), drawn(10, 3, 6, 5)
    told = []
    with torch.inference_mode():
        measure(Subject(net, (x[:1],), "net"), samples_of(x), WEIGHTS, 0, lambda *done: told.append(done))
    assert told == [(8, 10), (10, 10)]
    assert net.training
    assert all(p.grad is None and not p.requires_grad for p in net.parameters())


def test_constant_inputs_have_no_covariance_whatever_their_size():
    rows = torch.cat([1000 / 3 + torch.zeros(1, 50, 1), drawn(1, 50, 2)], 2)
    moments = Moments(torch.zeros(1, 1, 3, 1))
    moments.add(rows)
    found = moments.covariance()
    assert torch.equal(found[0, 0], torch.zeros(3, dtype=torch.float64))
    assert torch.allclose(found[0, 1:, 1:], torch.cov(rows[0, :, 1:].double().T, correction=0))


# --- how much outputs matter


def sensitivity_of(net: nn.Module, x: torch.Tensor, name: str) -> torch.Tensor:
    return measure(Subject(net, (x[:1],), "net"), samples_of(x), (name,), 0)[name].sensitivity


def test_fishers_diagonal_of_a_softmax_is_that_of_the_formula(monkeypatch):
    # For logits z, E[(d log p / d z_c)^2] = p_c (1 - p_c); KL is half of it times the squared error.
    monkeypatch.setattr(measuring, "GRADED", 10**9)
    net, x = nn.Linear(4, 3), drawn(1, 4).expand(20000, 4)
    torch.manual_seed(1)
    nn.init.normal_(net.weight)
    monkeypatch.setattr(measuring, "_BATCH", 20000)
    p = net(x[:1]).detach().softmax(1)[0].double()
    found = sensitivity_of(net, x, "weight")
    assert torch.allclose(2 * found, p * (1 - p), atol=0.006)


def test_the_squared_error_of_logits_times_sensitivity_is_the_divergence(monkeypatch):
    monkeypatch.setattr(measuring, "GRADED", 10**9)
    monkeypatch.setattr(measuring, "_BATCH", 20000)
    net, x = nn.Linear(4, 3, bias=False), drawn(1, 4).expand(20000, 4)
    found = sensitivity_of(net, x, "weight")
    z, small = net(x[:1]).detach()[0].double(), torch.tensor([0.02, 0, 0]).double()
    kl = torch.nn.functional.kl_div((z + small).log_softmax(0), z.log_softmax(0), reduction="sum", log_target=True)
    assert float(small.square() @ found) == pytest.approx(float(kl), rel=0.05)


def test_of_values_it_is_the_squared_norm_of_the_jacobian_over_the_variance(monkeypatch):
    monkeypatch.setattr(measuring, "GRADED", 10**9)
    monkeypatch.setattr(measuring, "_BATCH", 4000)
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 6), nn.Unflatten(1, (2, 3)))
    x = drawn(4, 4, seed=3).repeat_interleave(4000, 0)
    output = net(x).detach().double()
    variance = float((output - output.mean(0)).square().sum() / len(output))
    expected = net[1].weight.detach().double().square().sum(0) / variance  # each column is a column of the Jacobian
    assert torch.allclose(sensitivity_of(net, x, "0.weight"), expected, rtol=0.05)


def test_positions_add_up():
    # mean over 12 positions of one channel: each has the derivative 1/12 of the pooled one
    net, x = small_net(), drawn(6, 3, 6, 5)
    last, inner = (sensitivity_of(net, x, name) for name in ("6.weight", "2.weight"))
    assert last.shape == (5,)
    assert inner.shape == (6,)
    assert bool((inner > 0).all())
    assert float(inner.max()) < float(last.sum())


def objective_of(*outputs: torch.Tensor) -> Objective:
    objective = Objective(torch.Generator().manual_seed(0))
    for output in outputs:
        objective.differentiate(output if output.requires_grad else output.clone().requires_grad_())
    return objective


def test_the_scale_by_hand():
    assert objective_of(torch.tensor([[5.0, -1.0]])).scale == 2.0  # class scores
    maps = torch.tensor([[1.0, 2, 0], [3, 2, 0]]).view(2, 3, 1)
    assert objective_of(maps).scale == pytest.approx(1.0)  # the mean is 2, 2, 0
    assert objective_of(maps[:1], maps[1:]).scale == pytest.approx(1.0)
    assert objective_of(maps[:1]).scale == pytest.approx(5.0)  # one alone: its own size
    assert objective_of(torch.tensor(3.0)).scale == pytest.approx(9.0)  # a single number
    shapes = torch.ones(1, 2, 1), torch.ones(1, 3, 1), torch.ones(1, 2, 1)
    assert objective_of(*shapes).scale == pytest.approx(7 / 3)  # no mean of several shapes
    assert objective_of(torch.zeros(2, 3, 1)).scale == 1e-30


def test_logits_that_are_minus_infinity_or_nan_are_no_class_that_is_drawn():
    output = torch.tensor([[0.0, -torch.inf, 1.0], [torch.nan, 0.0, 0.0]], requires_grad=True)
    objective_of(output)
    assert bool(output.grad.isfinite().all())
    assert output.grad[0, 1] == 0
    assert output.grad[1].tolist() == [0.0, 0.0, 0.0]


def test_what_the_main_output_does_not_depend_on_is_not_known():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.other = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.main(x), self.other(x)

    x = drawn(5, 4)
    found = measure(Subject(Two(), (x[:1],), "two"), samples_of(x), ("main.weight", "other.weight"), 0)
    assert found["main.weight"].sensitivity.shape == (3,)
    assert found["other.weight"].sensitivity is None
