"""Linear maps that fit what they should give, from few rows: ridge regression towards what they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch

DAMPINGS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_HELD = 5  # every fifth row is held out


@dataclass(frozen=True)
class Fit:
    """A change of a linear map.

    Attributes:
        weight: shape (groups, outputs, inputs).
        bias: shape (groups, outputs).
        before, after: mean squared error over the held rows without and with the change.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    before: float
    after: float


def fit(x: torch.Tensor, error: torch.Tensor, centred: bool) -> Fit | None:
    """The change of a linear map that makes up for an error; None where no change helps on rows held out.

    minimise |error - (x - mean) change^T - shift|^2 + damping * mean diagonal * |change|^2.

    Args:
        x: what the map reads, shape (groups, rows, inputs); rows in the order of the samples.
        error: what its output should have been less what it was, shape (groups, rows, outputs).
        centred: whether a shift of the output is possible.
    """
    rows = x.shape[1]
    held = max(1, rows // _HELD)
    split = rows - held
    best, least = None, float((error[:, split:] ** 2).mean())
    before = least
    system = _System(x[:, :split], error[:, :split], centred)
    for damping in DAMPINGS:
        weight, shift = system.solve(damping)
        left = error[:, split:] - (x[:, split:] @ weight.transpose(1, 2) + shift[:, None])
        mse = float((left**2).mean())
        if mse < least:
            best, least = damping, mse
    if best is None:
        return None
    weight, shift = _System(x, error, centred).solve(best)
    return Fit(weight, shift, before, least)


class _System:
    """Normal equations, in the smaller of their two forms."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, centred: bool) -> None:
        self.mean_x = x.mean(1) if centred else x.new_zeros(x.shape[0], x.shape[2])
        self.mean_y = y.mean(1) if centred else y.new_zeros(y.shape[0], y.shape[2])
        self.x = x - self.mean_x[:, None] if centred else x
        y = y - self.mean_y[:, None] if centred else y
        self.dual = x.shape[2] > x.shape[1]
        if self.dual:
            self.gram = self.x @ self.x.transpose(1, 2)
            self.right = y
            self.scale = self.gram.diagonal(dim1=1, dim2=2).sum(1) / x.shape[2]
        else:
            self.gram = self.x.transpose(1, 2) @ self.x
            self.right = self.x.transpose(1, 2) @ y
            self.scale = self.gram.diagonal(dim1=1, dim2=2).mean(1)

    def solve(self, damping: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The change and the shift."""
        size = self.gram.shape[1]
        ridge = (damping * self.scale).clamp(min=1e-12)[:, None].expand(-1, size)
        factor = torch.linalg.cholesky_ex(self.gram + torch.diag_embed(ridge))[0]
        solved = torch.cholesky_solve(self.right, factor)
        if self.dual:
            solved = self.x.transpose(1, 2) @ solved
        weight = solved.transpose(1, 2)
        return weight, self.mean_y - (weight @ self.mean_x[..., None])[..., 0]
