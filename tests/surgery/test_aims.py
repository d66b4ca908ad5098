"""Ranges of what will do, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from peelcli.surgery.aims import Aim, flat_beyond, joined, undone


def column(*values: float) -> torch.Tensor:
    """One output."""
    return torch.tensor(values).reshape(-1, 1)


@pytest.mark.parametrize(
    ("value", "change", "low", "high"),
    [
        (2.0, 0.5, 0.5, 0.5),  # alive: just this change
        (-3.0, 0.5, -math.inf, 3.5),  # the original gives -3, the slim model -3.5: up to 3.5 more is still at most 0
        (7.0, -1.0, -2.0, math.inf),  # 7, above 6; the slim model gives 8: down to 6 is 2 less
    ],
)
def test_relu6_worked_by_hand(value: float, change: float, low: float, high: float):
    aim = flat_beyond((0.0, 6.0), column(value), column(change), None)
    assert (aim.low.item(), aim.high.item()) == (low, high)


def test_a_negative_scale_turns_the_range_around():
    # value = -2 * output: the original gives -4 and the slim model, whose output is 1 less, -2; 0 is enough
    aim = flat_beyond((0.0, math.inf), column(-4.0), column(1.0), torch.tensor([-2.0]))
    assert (aim.low.item(), aim.high.item()) == (-1.0, math.inf)


def test_an_output_that_nothing_comes_of_keeps_its_point():
    aim = flat_beyond((0.0, math.inf), torch.tensor([[-4.0, -4.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([1.0, 0]))
    assert aim.low.tolist() == [[-math.inf, 1.0]]
    assert aim.high.tolist() == [[5.0, 1.0]]


def test_undone_divides_by_what_the_norm_multiplies_by():
    assert undone(torch.tensor([[4.0, 4.0]]), torch.tensor([2.0, 0.0])).tolist() == [[2.0, 0.0]]
    assert undone(column(3.0), None).tolist() == [[3.0]]


def test_distance_is_what_is_missing():
    aim = Aim(column(-1.0, 2.0), column(-math.inf, 2.0), column(-1.0, 2.0))
    assert aim.distance() == (1 + 4) / 2
    assert Aim(column(-1.0, 3.0), column(-math.inf, -1.0), column(1.0, math.inf)).distance() == 0
    assert Aim(column(1.0, 2.0)).off(column(1.0, 5.0)).tolist() == [[0.0], [-3.0]]


def test_points_stay_points_when_they_are_joined_and_grouped():
    aims = [Aim(torch.ones(2, 6)), Aim(torch.zeros(3, 6))]
    whole = joined([aim.grouped(2) for aim in aims])
    assert whole.is_point
    assert whole.change.shape == (2, 5, 3)
    ranged = Aim(torch.zeros(3, 6), torch.zeros(3, 6), torch.full((3, 6), math.inf))
    mixed = joined([aims[0].grouped(2), ranged.grouped(2)])
    assert mixed.high[:, 2:].isinf().all()
    assert mixed.low.sum() == mixed.change.sum() == 12
    assert mixed.rows(2, None).low.shape == (2, 3, 3)
