"""Distance of a filter from all others of its group: filters near the middle can be replaced (FPGM)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from peelcli.records import Group, Scores, Slice
from peelcli.scoring.base import Material, mean_over_slices, with_mean_layers

# Distances that stand in memory at once: 2 ** 24 float32 are 64 MB.
_AT_ONCE = 2**24


def score(material: Material) -> Scores:
    """Channel: mean distance between its filter and those of its group, for each entry. Layer: mean over the channels.

    With x_i the filter of channel i (its part of a producer's weight as one vector of n entries), a slice gives
    sum_j |x_i - x_j|_2 / (channels * sqrt(n)), in the unit of the weights; the channel gets the mean over the
    producers of the group.

    Source: He et al., arXiv:1811.00250: the filter with the least sum of distances stands for the geometric median.
    The divisor, which makes groups comparable, and the mean over producers are ours.
    """
    return with_mean_layers("fpgm", [_distances(material, group) for group in material.graph.groups])


def _distances(material: Material, group: Group) -> torch.Tensor:
    """Shape (channels,), float64."""
    makers = (piece for piece in group.slices if piece.role == "out" and piece.tensor in material.weights)
    return mean_over_slices(group.full, ((p, _in_slice(p, material.weights[p.tensor])) for p in makers))


def _in_slice(piece: Slice, weight: torch.Tensor) -> torch.Tensor:
    """Shape (channels,), float64; 0 where a channel has no entry in the slice."""
    result = torch.zeros(len(piece.indices), dtype=torch.float64)
    for members, filters in _filters(piece, weight):
        total = distance_sums(filters).double().cpu()
        result[members] = total / (filters.shape[0] * filters.shape[1] ** 0.5)
    return result


def _filters(piece: Slice, weight: torch.Tensor) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Channels with equally many entries, and their filters as a float32 matrix (channels, entries)."""
    by_size: dict[int, list[int]] = {}
    for channel, entries in enumerate(piece.indices):
        by_size.setdefault(len(entries), []).append(channel)
    rows = weight.movedim(piece.dim, 0).flatten(1).float()
    for size, members in by_size.items():
        chosen_rows = [row for channel in members for row in piece.indices[channel]]
        if size:
            whole = chosen_rows == list(range(len(rows)))  # the usual case needs no copy
            chosen = rows if whole else rows[torch.tensor(chosen_rows, device=rows.device)]
            yield members, chosen.reshape(len(members), -1)


def distance_sums(filters: torch.Tensor) -> torch.Tensor:
    """Sum of Euclidean distances from each row to all rows.

    Args:
        filters: shape (channels, entries), float32.

    Returns:
        Shape (channels,), float32. Equal rows may come out about 1e-3 of their length apart.
    """
    # |a - b|^2 = |a|^2 + |b|^2 - 2ab: a matrix product, block by block, without a copy of the filters.
    squares = torch.linalg.vector_norm(filters, dim=1).square()
    sums = []
    for start in range(0, len(filters), block := max(1, _AT_ONCE // len(filters))):
        part = filters[start : start + block]
        distances = torch.addmm(squares[start : start + block, None] + squares, part, filters.T, alpha=-2)
        distances.diagonal(offset=start).zero_()  # round-off leaves a filter a little away from itself
        sums.append(distances.clamp_(min=0).sqrt_().sum(1))
    return torch.cat(sums)
