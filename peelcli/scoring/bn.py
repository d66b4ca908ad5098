"""Scale factors of the BatchNorm layers (network slimming)."""

from __future__ import annotations

from statistics import fmean

import torch

from peelcli.errors import UsageError
from peelcli.records import Group, GroupScore, Scores
from peelcli.scoring.base import Material, magnitudes, mean_over_slices, per_channel


def score(material: Material) -> Scores:
    """Channel: mean |gamma| over the BatchNorms of the group. Layer: mean over the channels. No unit.

    A group without BatchNorm has no such figure. It gets the mean of the layers that have one, which is an even share
    of the pool, and its channels are ranked as `l1` ranks them.

    Source: network slimming, Liu et al., arXiv:1708.06519, section 3, and likely what the paper reads
    (arXiv:2103.01847). The mean over several BatchNorms and the even share are ours.

    Raises:
        UsageError: no group has a BatchNorm.
    """
    channels = [scales(material, group) for group in material.graph.groups]
    layers = [float(values.mean()) for values in channels if values is not None]
    if not layers:
        raise UsageError(
            "the score `bn` needs BatchNorm layers, and no group of this model has one",
            hint="score by the weights instead: --score l2",
        )
    even = fmean(layers)
    return Scores(
        "bn",
        tuple(
            GroupScore(tuple(magnitudes(material, group, 1).tolist()), even)
            if values is None
            else GroupScore(tuple(values.tolist()), float(values.mean()))
            for group, values in zip(material.graph.groups, channels, strict=True)
        ),
        _note_on_the_rest(material),
    )


def scales(material: Material, group: Group) -> torch.Tensor | None:
    """Mean |gamma| of each channel, shape (channels,), float64; None for a group without BatchNorm."""
    if not has_batchnorm(material, group):
        return None
    pieces = (piece for piece in group.slices if piece.tensor in material.gammas)
    return mean_over_slices(group.full, ((p, per_channel(p, material.gammas[p.tensor].abs())) for p in pieces))


def has_batchnorm(material: Material, group: Group) -> bool:
    """True where a BatchNorm scales the group's channels."""
    return any(piece.tensor in material.gammas for piece in group.slices)


def _note_on_the_rest(material: Material) -> tuple[str, ...]:
    free = [group for group in material.graph.groups if not group.locked]
    without = sum(not has_batchnorm(material, group) for group in free)
    if not without:
        return ()
    return (
        f"{without} of {len(free)} groups that may shrink have no BatchNorm: "
        "they get an even share, their channels are ranked by l1",
    )
