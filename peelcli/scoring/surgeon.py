"""Optimal brain surgeon on one weight: the error that channels leave when the others make up for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from peelcli.records import Group, Slice
from peelcli.scoring.moments import Moments

_DAMPING = 1e-3  # of the mean variance, and no more than an input's own: inverses stay finite
_LEAST = 1e-9  # of the mean variance, for inputs that never change


class Reader:
    """A weight that reads a group, while channels are taken away.

    Attributes:
        inverse: P, inverse covariance of what is left of the inputs, shape (groups, inputs, inputs), float64.
        power: W' S W of the weight as updated so far, same shape.
        columns: for each bundle that is left its inputs, shape (bundles, most inputs of a bundle); -1 for none.
    """

    def __init__(self, inverse: torch.Tensor, power: torch.Tensor, columns: torch.Tensor) -> None:
        self.inverse = inverse
        self.power = power
        self.columns = columns

    @classmethod
    def of(cls, group: Group, piece: Slice, moments: Moments, trust: int) -> Reader:
        """A reader before anything is removed.

        Args:
            group: its bundles go.
            piece: which inputs of the weight belong to which channel.
            moments: of the weight.
            trust: how many rows count as independent at most.
        """
        covariance, weight, entries = _pooled(group, piece, moments) if moments.rows else _plain(group, piece, moments)
        covariance = shrunk(covariance, min(trust, moments.count))
        diagonal = covariance.diagonal(dim1=1, dim2=2)
        inverse = torch.linalg.inv(covariance + torch.diag_embed(damping(diagonal)))
        flat = weight.transpose(2, 3).flatten(1, 2)  # (groups, outputs * positions, inputs)
        columns = torch.full((len(entries), max(map(len, entries))), -1)
        for bundle, its in enumerate(entries):
            columns[bundle, : len(its)] = torch.tensor(its, dtype=torch.long)
        return cls(inverse, flat.transpose(1, 2) @ flat, columns)

    def costs(self) -> torch.Tensor:
        """For each bundle that is left the error that its removal adds, shape (bundles,)."""
        at = self.columns.clamp(min=0)
        there = self.columns >= 0
        both = there[:, :, None] & there[:, None, :]
        none = torch.eye(at.shape[1], dtype=torch.float64)
        inverse = self.inverse[:, at[:, :, None], at[:, None, :]].where(both, none)
        power = self.power[:, at[:, :, None], at[:, None, :]].where(both, torch.zeros_like(none))
        if at.shape[1] == 1:
            return (power / inverse)[:, :, 0, 0].sum(0)
        solved: torch.Tensor = torch.linalg.solve(inverse, power)
        return solved.diagonal(dim1=-2, dim2=-1).sum(-1).sum(0)

    def remove(self, gone: torch.Tensor, stay: torch.Tensor) -> None:
        """Take bundles away and let the rest make up for them.

        Args:
            gone: positions among the bundles that are left.
            stay: the others.
        """
        out = self.columns[gone].flatten()
        out = out[out >= 0]
        staying = torch.ones(self.inverse.shape[1], dtype=torch.bool)
        staying[out] = False
        rest = staying.nonzero()[:, 0]
        rows = self.inverse[:, out]
        mix = torch.linalg.solve(rows[:, :, out], rows[:, :, rest])
        self.inverse = self.inverse[:, rest][:, :, rest] - rows[:, :, rest].transpose(1, 2) @ mix
        power = self.power[:, out]
        cross = power[:, :, rest].transpose(1, 2) @ mix
        self.power = (
            self.power[:, rest][:, :, rest]
            - cross
            - cross.transpose(1, 2)
            + mix.transpose(1, 2) @ power[:, :, out] @ mix
        )
        moved = torch.full((len(staying),), -1)
        moved[rest] = torch.arange(len(rest))
        columns = self.columns[stay]
        self.columns = moved[columns.clamp(min=0)].where(columns >= 0, torch.tensor(-1))


def principal_losses(readers: Sequence[Reader]) -> torch.Tensor | None:
    """What each principal direction of a group carries to its readers, ascending; None where they read it in parts.

    Eigenvalues of sum_c S^1/2 W_c' W_c S^1/2, with S the covariance of the group given all other inputs of a reader,
    which stay, pooled over the readers. The sum of the first n is what linear readers lose who get only the best
    combinations of the other directions, if S is the same for all.

    Source: reduced-rank regression (Izenman, 1975, doi:10.1016/0047-259X(75)90042-1); pooling is ours.
    """
    if any(reader.columns.shape[1] > 1 or reader.inverse.shape[0] > 1 for reader in readers):
        return None
    ats = [reader.columns[:, 0] for reader in readers]
    covariances = [torch.linalg.inv(r.inverse[0][at][:, at]) for r, at in zip(readers, ats, strict=True)]
    values, vectors = torch.linalg.eigh(torch.stack(covariances).mean(0))
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    powers = torch.stack([r.power[0][at][:, at] for r, at in zip(readers, ats, strict=True)])
    losses: torch.Tensor = torch.linalg.eigvalsh(root @ powers.sum(0) @ root)
    return losses


def damping(variance: torch.Tensor) -> torch.Tensor:
    """What is added to variances before a covariance is inverted; an input that never changes gets next to nothing.

    Args:
        variance: shape (groups, inputs), >= 0.
    """
    mean = variance.mean(1, keepdim=True)
    return (torch.minimum(_DAMPING * mean, variance) + _LEAST * mean).clamp(min=1e-30)


def shrunk(covariance: torch.Tensor, rows: int) -> torch.Tensor:
    """Covariances with the correlations that so few rows can't show made smaller.

    rho = ((1 - 2/p) tr(R^2) + p^2) / ((n + 1 - 2/p) (tr(R^2) - p)), at most 1, for the correlation matrix R of the p
    inputs that change, seen on n rows; correlations are multiplied by 1 - rho.

    Source: the oracle approximating shrinkage estimator, Chen et al., arXiv:0907.4698, eq. 23, here on correlations,
    whose trace is p.

    Args:
        covariance: shape (groups, inputs, inputs).
        rows: n, independent ones.
    """
    variance = covariance.diagonal(dim1=1, dim2=2)
    p = (variance > 0).sum(1).clamp(min=2)  # one alone has no correlations to shrink
    spread = variance.clamp(min=1e-30).sqrt()
    power = (covariance / spread[:, :, None] / spread[:, None, :]).square().sum((1, 2))
    rho = ((1 - 2 / p) * power + p * p) / ((rows + 1 - 2 / p) * (power - p)).clamp(min=1e-30)
    rho = rho.clamp(0, 1)[:, None, None]
    return covariance * (1 - rho) + rho * torch.diag_embed(variance)


def _plain(group: Group, piece: Slice, moments: Moments) -> tuple[torch.Tensor, torch.Tensor, list[list[int]]]:
    """All inputs of the weight, those of other groups too, which stay; and each bundle's among them."""
    width = moments.matrix.shape[2]  # of one conv group; where a slice counts over all of them, they repeat
    entries = [
        list(dict.fromkeys(entry % width for channel in bundle for entry in piece.indices[channel]))
        for bundle in group.bundles
    ]
    return moments.covariance(), moments.weighted(), entries


def _pooled(group: Group, piece: Slice, moments: Moments) -> tuple[torch.Tensor, torch.Tensor, list[list[int]]]:
    """A wide layer behind a flatten: a channel's inputs are positions of one, and share one covariance."""
    channels = [channel for channel, entries in enumerate(piece.indices) if entries]
    each = min(len(piece.indices[channel]) for channel in channels)
    at = torch.tensor([piece.indices[channel][:each] for channel in channels])
    rows = torch.cat(moments.rows).double()[:, at].transpose(1, 2).flatten(0, 1)
    rows = rows - rows.mean(0)
    position = {channel: number for number, channel in enumerate(channels)}
    entries = [[position[channel] for channel in bundle if channel in position] for bundle in group.bundles]
    covariance = (rows.transpose(0, 1) @ rows / len(rows))[None]
    return covariance, moments.weighted()[:, :, :, 0][:, :, at], entries
