"""Linear maps that fit what they should give, from few rows: ridge regression towards what they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch

DAMPINGS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the mean second moment of an input
_HELD = 5  # a fifth of the rows, the last ones, is held out


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


def fit(x: torch.Tensor, error: torch.Tensor, centred: bool, weights: torch.Tensor | None = None) -> Fit | None:
    """The change of a linear map that makes up for an error of its outputs.

    minimise |error - (x - mean x) change' - shift|^2 + damping * |change|^2 with the damping that is best on rows held
    out; then once more on all rows.

    Source: ridge regression; the choice of the damping by held-out rows is ours.

    Args:
        x: what the map reads, shape (groups, rows, inputs); rows in the order of the samples.
        error: what its output should be less what it is, shape (groups, rows, outputs).
        centred: whether the output can be shifted; else the shift is 0.
        weights: how much the error of each output matters, shape (groups, outputs); all alike by default.

    Returns:
        None where no damping beats no change at all on the rows held out, or there are too few rows.
    """
    split = x.shape[1] - max(1, x.shape[1] // _HELD)
    if split < 2:
        return None
    part = _System(x[:, :split], error[:, :split], centred)
    none = _mean_square(error[:, split:], weights)
    tried = []
    for damping in DAMPINGS:
        weight, shift = part.solve(damping)
        left = error[:, split:] - x[:, split:] @ weight.transpose(1, 2) - shift[:, None]
        tried.append((_mean_square(left, weights), damping))
    least, damping = min((pair for pair in tried if pair[0] < none), default=(none, 0.0))  # NaN counts as no better
    if not damping:
        return None
    return Fit(*_System(x, error, centred).solve(damping), none, least)


def _mean_square(error: torch.Tensor, weights: torch.Tensor | None) -> float:
    squares = error.square().mean(1)
    return float(squares.mean() if weights is None else (squares * weights).mean())


class _System:
    """Normal equations, in the smaller of their two forms."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, centred: bool) -> None:
        self.mean_x = x.mean(1) if centred else x.new_zeros(x.shape[0], x.shape[2])
        self.mean_y = y.mean(1) if centred else y.new_zeros(y.shape[0], y.shape[2])
        self.x = x - self.mean_x[:, None]
        y = y - self.mean_y[:, None]
        self.dual = x.shape[2] > x.shape[1]  # fewer rows than inputs: a matrix of rows by rows does
        left, right = (self.x, self.x.transpose(1, 2)) if self.dual else (self.x.transpose(1, 2), self.x)
        self.gram = left @ right
        self.right = y if self.dual else left @ y
        self.scale = self.gram.diagonal(dim1=1, dim2=2).sum(1) / x.shape[2]

    def solve(self, damping: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The change and the shift."""
        ridge = (damping * self.scale).clamp(min=1e-12)[:, None].expand(-1, self.gram.shape[1])
        factor, failed = torch.linalg.cholesky_ex(self.gram + torch.diag_embed(ridge))
        solved = torch.cholesky_solve(self.right, factor)
        if self.dual:
            solved = self.x.transpose(1, 2) @ solved
        solved[failed != 0] = 0.0
        weight = solved.transpose(1, 2)
        return weight, self.mean_y - (weight @ self.mean_x[..., None])[..., 0]
