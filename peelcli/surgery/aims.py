"""By how much the outputs of a layer should change: each by so much, or into a range where what follows is flat."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

_DEAD = 1e-3  # of the largest scale: next to nothing comes of such an output, whatever it is


@dataclass(frozen=True)
class Aim:
    """Ranges of changes.

    Attributes:
        change: what is sure to do, shape (rows, outputs), or (groups, rows, outputs) once it is grouped.
        low, high: the least and the largest change that will do, same shape, infinite for no end; None where only
            `change` itself will.
    """

    change: torch.Tensor
    low: torch.Tensor | None = None
    high: torch.Tensor | None = None

    @property
    def is_point(self) -> bool:
        """Whether nothing but the change will do."""
        return self.low is None or self.high is None

    def off(self, outputs: torch.Tensor) -> torch.Tensor:
        """What is missing from outputs to the nearest that will do."""
        if self.low is None or self.high is None:
            return self.change - outputs
        return outputs.clamp(self.low, self.high) - outputs

    def starts(self) -> tuple[torch.Tensor, ...]:
        """What to try first: the change itself, and the least that will do."""
        return (self.change,) if self.is_point else (self.change, self.off(torch.zeros_like(self.change)))

    def rows(self, start: int | None, stop: int | None) -> Aim:
        """Some rows of a grouped aim."""
        return self._each(lambda tensor: tensor[:, start:stop])

    def grouped(self, groups: int) -> Aim:
        """Outputs by conv groups, which are the first dimension then."""
        return self._each(lambda tensor: tensor.unflatten(1, (groups, -1)).transpose(0, 1))

    def distance(self) -> float:
        """Mean square of what is missing without any change."""
        return float(self.off(torch.zeros_like(self.change)).square().mean())

    def _each(self, what: Callable[[torch.Tensor], torch.Tensor]) -> Aim:
        low, high = (None if edge is None else what(edge) for edge in (self.low, self.high))
        return Aim(what(self.change), low, high)


def undone(difference: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """The change of the outputs that makes a difference behind a norm, 0 where next to nothing comes of an output.

    Args:
        difference: shape (rows, outputs).
        scale: what the norm multiplies by, shape (outputs,); None for 1.
    """
    if scale is None:
        return difference
    lives = scale.abs() > _DEAD * scale.abs().max()
    return torch.where(lives, difference / torch.where(lives, scale.float(), 1.0), 0.0)


def flat_beyond(
    ends: tuple[float, float], value: torch.Tensor, change: torch.Tensor, scale: torch.Tensor | None
) -> Aim:
    """Where the original's value is beyond an end, any value beyond it will do.

    Source: only what a ReLU lets through counts in the nonlinear reconstruction of Zhang et al., arXiv:1505.06798,
    section 3.2; as a range for both ends of any function that is flat there, ours.

    Args:
        ends: below the first and above the second value the function that follows does not change.
        value: what the original gives that function, shape (rows, outputs).
        change: by how much the slim model's output should change to give the same value, same shape.
        scale: how much the value changes with the output, shape (outputs,); None for 1.
    """
    rises = torch.ones_like(value[:1], dtype=torch.bool) if scale is None else scale > _DEAD * scale.abs().max()
    falls = ~rises if scale is None else scale < -_DEAD * scale.abs().max()
    low, high = change, change
    for end, beyond, smaller, larger in (
        (ends[0], value <= ends[0], rises, falls),
        (ends[1], value >= ends[1], falls, rises),
    ):
        edge = change + undone(end - value, scale)
        high = torch.where(beyond & smaller, edge, torch.where(beyond & larger, math.inf, high))
        low = torch.where(beyond & larger, edge, torch.where(beyond & smaller, -math.inf, low))
    return Aim(change, low, high)


def joined(aims: Sequence[Aim]) -> Aim:
    """Rows of several, one after the other; all are grouped."""
    change = torch.cat([aim.change for aim in aims], 1)
    if all(aim.is_point for aim in aims):
        return Aim(change)
    low, high = (
        torch.cat([aim.change if edge is None else edge for aim, edge in zip(aims, edges, strict=True)], 1)
        for edges in ([aim.low for aim in aims], [aim.high for aim in aims])
    )
    return Aim(change, low, high)
