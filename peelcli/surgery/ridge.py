"""Linear maps that fit what they should give, from few rows: ridge regression towards what they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch

from peelcli.surgery.aims import Aim

DAMPINGS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the mean second moment of an input
_HELD = 5  # a fifth of the rows, the last ones, is held out
_ROUNDS = 4  # of fitting again where outputs may lie anywhere in a range
_BLOCK = 128  # columns of a matrix of products that are computed at once
_BEYOND = 1.7  # steps go so much further than into the range: fewer rounds


@dataclass(frozen=True)
class Fit:
    """A change of a linear map.

    Attributes:
        weight: shape (groups, outputs, inputs).
        shift: what is added to the outputs, shape (groups, outputs).
        before, after: weighted mean squared error on the rows held out, without the change and with it.
    """

    weight: torch.Tensor
    shift: torch.Tensor
    before: float
    after: float


def fit(x: torch.Tensor, aim: Aim, centred: bool, weights: torch.Tensor | None = None) -> Fit | None:
    """The change of a linear map that brings its outputs to an aim.

    minimise |distance from x change' + shift to the aim|^2 + damping * |change|^2 with the damping, and the number
    of rounds, that are best on rows held out; then once more on all rows. The first round aims at the change itself, or
    at the points of the ranges nearest to no change; each other at those nearest to what the round before gave.

    Source: ridge regression; rounds as in projections onto convex sets with relaxation (Bauschke and Borwein, 1996,
    doi:10.1137/S0036144593251710). Ranges, and the choice by held-out rows, are ours.

    Args:
        x: what the map reads, shape (groups, rows, inputs); rows in the order of the samples.
        aim: by how much the outputs should change, of shape (groups, rows, outputs).
        centred: whether the output can be shifted; else the shift is 0.
        weights: how much the error of each output matters, shape (groups, outputs); all alike by default.

    Returns:
        None where no damping beats no change at all on the rows held out, or there are too few rows.
    """
    split = x.shape[1] - max(1, x.shape[1] // _HELD)
    if split < 2:
        return None
    part, held = _System(x[:, :split], aim.rows(None, split), centred), aim.rows(split, None)

    def lost(change: tuple[torch.Tensor, torch.Tensor]) -> float:
        off = held.off(_outputs(x[:, split:], *change)).square().mean(1)
        return float(off.mean() if weights is None else (off * weights).mean())

    groups, _, outputs = aim.change.shape
    none = lost((x.new_zeros(groups, outputs, x.shape[2]), x.new_zeros(groups, outputs)))
    tried, sides = [], [part.right_side(wanted) for wanted in part.aim.starts()]
    for damping in DAMPINGS:
        factor = part.factor(damping)
        tried += [(lost(part.solve(factor, side)), damping, k) for k, side in enumerate(sides)]
    least, damping, start = min((row for row in tried if row[0] < none), default=(none, 0.0, 0))  # NaN is no better
    if not damping:
        return None
    after, last = least, 1
    rounds = islice(part.rounds(damping, start), 1, 1 if aim.is_point else _ROUNDS)
    for number, change in enumerate(rounds, 2):
        after, last = min((after, last), (lost(change), number))
    return Fit(*next(islice(_System(x, aim, centred).rounds(damping, start), last - 1, None)), none, after)


def _outputs(x: torch.Tensor, weight: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return x @ weight.transpose(1, 2) + shift[:, None]


def _gram(x: torch.Tensor) -> torch.Tensor:
    """x^T x, block row by block row from the diagonal on: what lies below is the same once more, and free."""
    gram = x.new_empty(x.shape[0], x.shape[2], x.shape[2])
    for start in range(0, x.shape[2], _BLOCK):
        stop = start + _BLOCK
        rows = x[..., start:stop].transpose(1, 2) @ x[..., start:]
        gram[:, start:stop, start:] = rows
        gram[:, stop:, start:stop] = rows[..., _BLOCK:].transpose(1, 2)
    return gram


class _RightSide(NamedTuple):
    """What a system of normal equations is solved for, and the mean of the outputs that was taken out."""

    matrix: torch.Tensor
    mean: torch.Tensor


class _System:
    """Normal equations, in the smaller of their two forms."""

    def __init__(self, x: torch.Tensor, aim: Aim, centred: bool) -> None:
        self.aim, self.centred = aim, centred
        self.mean = x.mean(1) if centred else x.new_zeros(x.shape[0], x.shape[2])
        self.x = x - self.mean[:, None]
        self.dual = x.shape[2] > x.shape[1]  # fewer rows than inputs: a matrix of rows by rows does
        self.gram = _gram(self.x.transpose(1, 2) if self.dual else self.x)
        self.scale = self.gram.diagonal(dim1=1, dim2=2).sum(1) / x.shape[2]

    def factor(self, damping: float) -> torch.Tensor:
        """Of the damped matrix; NaN where it has none."""
        ridge = (damping * self.scale).clamp(min=1e-12)[:, None].expand(-1, self.gram.shape[1])
        factor, failed = torch.linalg.cholesky_ex(self.gram + torch.diag_embed(ridge))
        return torch.where((failed != 0)[:, None, None], math.nan, factor)

    def right_side(self, wanted: torch.Tensor) -> _RightSide:
        """Of the equations for outputs that are wanted, whatever the damping."""
        mean = wanted.mean(1) if self.centred else wanted.new_zeros(wanted.shape[0], wanted.shape[2])
        right = wanted - mean[:, None]
        return _RightSide(right if self.dual else self.x.transpose(1, 2) @ right, mean)

    def solve(self, factor: torch.Tensor, side: _RightSide) -> tuple[torch.Tensor, torch.Tensor]:
        """The change, 0 where there is no factor, and the shift."""
        solved, mean = torch.cholesky_solve(side.matrix, factor), side.mean
        if self.dual:
            solved = self.x.transpose(1, 2) @ solved
        weight = torch.where(factor[:, :1, :1].isnan(), 0.0, solved).transpose(1, 2)
        return weight, mean - (weight @ self.mean[..., None])[..., 0]

    def rounds(self, damping: float, start: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The change and the shift, better and better, from one of the aim's starts."""
        factor, wanted = self.factor(damping), self.aim.starts()[start]
        while True:
            weight, shift = self.solve(factor, self.right_side(wanted))
            yield weight, shift
            outputs = _outputs(self.x, weight, shift + (weight @ self.mean[..., None])[..., 0])
            wanted = outputs + _BEYOND * self.aim.off(outputs)
