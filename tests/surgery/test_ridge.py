"""Ridge regression: worked by hand in one and two dimensions, and against the textbook's formula."""

from __future__ import annotations

import time

import pytest
import torch

from peelcli.surgery import ridge
from peelcli.surgery.aims import Aim

LEAST = ridge.DAMPINGS[0]


def rows(*values: float) -> torch.Tensor:
    """One group, one column."""
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1)


def fitted(
    x: torch.Tensor, error: torch.Tensor, centred: bool, weights: torch.Tensor | None = None
) -> ridge.Fit | None:
    """Where each output should change by just that much."""
    return ridge.fit(x, Aim(error), centred, weights)


def textbook(x: torch.Tensor, y: torch.Tensor, damping: float, centred: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(X'X + l I)^-1 X'Y in float64 for one group, l = damping * trace(X'X) / inputs."""
    x, y = x.double(), y.double()
    mean_x, mean_y = (t.mean(0) if centred else torch.zeros(t.shape[1], dtype=torch.float64) for t in (x, y))
    x, y = x - mean_x, y - mean_y
    gram = x.T @ x
    weight = torch.linalg.solve(gram + damping * gram.trace() / len(gram) * torch.eye(len(gram)), x.T @ y).T
    return weight, mean_y - weight @ mean_x


def test_one_input_worked_by_hand():
    # error = 2 x; X'X = 55 is its own mean diagonal, so the weight is 2 * 55 / (55 + 55 * LEAST); the last row is held
    x = rows(1, 2, 3, 4, 5)
    found = fitted(x, 2 * x, centred=False)
    assert found.weight.shape == (1, 1, 1)
    assert found.weight.item() == pytest.approx(2 / (1 + LEAST), rel=1e-6)
    assert found.shift.tolist() == [[0.0]]
    assert found.before == 100.0
    assert found.after == pytest.approx((10 - 10 / (1 + LEAST)) ** 2, rel=1e-2)


def test_centred_worked_by_hand():
    # error = 2 x + 3 with mean 9 at mean x = 3
    x = rows(1, 2, 3, 4, 5)
    found = fitted(x, 2 * x + 3, centred=True)
    weight = 2 / (1 + LEAST)
    assert found.weight.item() == pytest.approx(weight, rel=1e-6)
    assert found.shift.item() == pytest.approx(9 - 3 * weight, rel=1e-6)


def test_not_centred_leaves_what_only_a_shift_could_do():
    # error = 3 at x = 1 and x = -1 alike: no weight helps, a shift does
    x, error = rows(1, -1, 1, -1, 1, -1, 1, -1, 1, -1), torch.full((1, 10, 1), 3.0)
    assert fitted(x, error, centred=False) is None
    found = fitted(x, error, centred=True)
    assert (found.weight.item(), found.shift.item()) == (0.0, 3.0)


def test_two_inputs_worked_by_hand():
    # X'X = diag(3, 8), mean diagonal 5.5; error = 4 x1 - x2
    x = torch.tensor([[[1.0, 0], [0, 2], [1, 0], [0, 2], [1, 0]]])
    found = fitted(x, x @ torch.tensor([[4.0], [-1.0]]), centred=False)
    ridge_term = 5.5 * LEAST
    wanted = [4 * 3 / (3 + ridge_term), -8 / (8 + ridge_term)]
    assert found.weight[0, 0].tolist() == pytest.approx(wanted, rel=1e-6)


def test_the_rows_held_out_decide_the_damping():
    # fitted on four ones the weight is 1 / (1 + d), and the row held out wants 0.5: d = 1; then 4.5 / (5 + 5)
    x, error = rows(1, 1, 1, 1, 1), rows(1, 1, 1, 1, 0.5)
    found = fitted(x, error, centred=False)
    assert found.weight.item() == pytest.approx(0.45)
    assert (found.before, found.after) == (0.25, 0.0)


def test_weights_decide_the_damping_and_nothing_else():
    x, error = rows(1, 1, 1, 1, 1), torch.cat([rows(1, 1, 1, 1, 1), rows(1, 1, 1, 1, 0.5)], 2)
    first = fitted(x, error, False, torch.tensor([[1.0, 0.0]]))
    second = fitted(x, error, False, torch.tensor([[0.0, 1.0]]))
    assert first.weight.flatten().tolist() == pytest.approx([1 / (1 + LEAST), 0.9 / (1 + LEAST)])
    assert second.weight.flatten().tolist() == pytest.approx([0.5, 0.45])
    assert (first.before, second.before) == (0.5, 0.125)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("count", "inputs"), [(60, 12), (12, 12), (5, 12), (900, 300), (290, 300)])
def test_as_the_textbook_with_more_and_with_fewer_rows_than_inputs(count, inputs, centred):
    assert 12 < ridge._BLOCK < 290  # so that there are several blocks, and a part of one
    source = torch.Generator().manual_seed(count)
    x = torch.randn(count, inputs, generator=source) + 1
    y = x @ torch.randn(inputs, 3, generator=source) + 0.5
    system = ridge._System(x[None], Aim(y[None]), centred)
    assert system.dual == (count < inputs)
    for damping in ridge.DAMPINGS:
        weight, shift = system.solve(system.factor(damping), system.right_side(y[None]))
        wanted, wanted_shift = textbook(x, y, damping, centred)
        assert torch.allclose(weight[0].double(), wanted, atol=2e-3)
        assert torch.allclose(shift[0].double(), wanted_shift, atol=5e-3)


def test_fewer_rows_than_inputs_still_help():
    source = torch.Generator().manual_seed(0)
    x = torch.randn(1, 40, 4, generator=source) @ torch.randn(4, 100, generator=source)  # rank 4
    error = x @ torch.randn(1, 100, 2, generator=source)
    found = fitted(x, error, centred=True)
    assert found.weight.shape == (1, 2, 100)
    assert found.after < 1e-4 * found.before


def test_groups_are_independent():
    source = torch.Generator().manual_seed(0)
    x = torch.randn(3, 50, 4, generator=source) * torch.tensor([1.0, 100.0, 0.01])[:, None, None]
    error = x @ torch.randn(3, 4, 2, generator=source)
    together = fitted(x, error, centred=True)
    for group in range(3):
        alone = fitted(x[group : group + 1], error[group : group + 1], centred=True)
        assert torch.allclose(together.weight[group], alone.weight[0], rtol=1e-4, atol=1e-5)
        assert torch.allclose(together.shift[group], alone.shift[0], atol=1e-4)


def test_a_dead_group_gets_no_weight():
    x = torch.zeros(2, 20, 3)
    x[1] = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    found = fitted(x, torch.cat([torch.ones(1, 20, 1), x[1:, :, :1]]), centred=True)
    assert found.weight[0].abs().max() == 0.0
    assert found.shift[0].item() == 1.0
    assert found.weight[1, 0].tolist() == pytest.approx([1, 0, 0], abs=1e-3)


def test_nothing_helps():
    assert fitted(rows(1, 1, 1, 1, 1), rows(1, 1, 1, 1, -1), centred=False) is None
    assert fitted(rows(1, 2, 3, 4, 5), rows(0, 0, 0, 0, 0), centred=True) is None


@pytest.mark.parametrize(("count", "enough"), [(1, False), (2, False), (3, True)])
def test_too_few_rows(count, enough):
    x = torch.ones(1, count, 1)
    assert (fitted(x, x, centred=False) is not None) == enough


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("row", [0, 4])
@pytest.mark.parametrize("side", ["x", "error"])
def test_numbers_that_are_none(bad, row, side):
    x, error = rows(1, 2, 3, 4, 5), rows(2, 4, 6, 8, 10)
    {"x": x, "error": error}[side][0, row] = bad
    assert fitted(x, error, centred=False) is None


def test_a_damping_that_fails_leaves_the_others(monkeypatch):
    # the first one overflows the factorisation; what follows it is not compared with NaN
    monkeypatch.setattr(ridge, "DAMPINGS", (float("nan"), 1e-4))
    x = rows(1, 2, 3, 4, 5)
    assert fitted(x, 2 * x, centred=False).weight.item() == pytest.approx(2 / (1 + 1e-4))


def test_a_thousand_depthwise_filters_take_no_time():
    source = torch.Generator().manual_seed(0)
    x = torch.randn(1024, 1000, 9, generator=source).transpose(0, 1)
    begin = time.process_time()
    assert fitted(x, x[..., :1] * 0.5, centred=True) is not None
    assert time.process_time() - begin < 5.0  # 0.2 s on one core; a loop over groups or a matrix of rows took minutes


def test_one_end_worked_by_hand():
    # Rows 1, 2, 1 and 1 want just what the weight 1 gives them; the row -3 may be anything up to 0.3, and says 0.3.
    x = rows(1, 2, -3, 1, 1)
    change = rows(1, 2, 0.3, 1, 1)
    low = rows(1, 2, -torch.inf, 1, 1)
    found = ridge.fit(x, Aim(change, low, change), centred=False)
    plain = fitted(x, change, centred=False)
    # The plain fit is pulled to (1 + 4 - 0.9 + 1 + 1) / 16, where the third row is at -1.1 and free.
    assert plain.weight.item() == pytest.approx(6.1 / 16, rel=1e-3)
    assert 0.95 < found.weight.item() < 1.05
    assert found.after < 0.01 * plain.after


def test_ranges_are_met_nearly_as_closely_as_a_general_solver_meets_them():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 400, 6, generator=generator)
    wanted = x @ torch.randn(6, 4, generator=generator) + 0.2 * torch.randn(1, 400, 4, generator=generator)
    wanted = torch.where(wanted < 0, 10 * wanted * torch.rand(1, 400, 4, generator=generator), wanted)
    aim = Aim(wanted, torch.where(wanted < 0, -torch.inf, wanted), wanted.clamp(min=0))  # as before a ReLU

    def lost(weight: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return aim.off(x @ weight.mT + shift[:, None]).square().mean()

    found, plain = ridge.fit(x, aim, centred=True), fitted(x, wanted, True)
    weight, shift = (t.clone().requires_grad_() for t in (plain.weight, plain.shift))
    solver = torch.optim.LBFGS([weight, shift], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = lost(weight, shift)
        loss.backward()
        return loss

    solver.step(closure)
    least, first = float(lost(weight, shift)), float(lost(plain.weight, plain.shift))
    assert float(lost(found.weight, found.shift)) - least < 0.1 * (first - least)
