"""How much the loss changes, to first order, when a channel's weights become zero (needs samples)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, product
from math import prod

import torch

from peelcli.records import ChannelGraph, Group, Scores
from peelcli.scoring.base import Material, with_mean_layers
from peelcli.scoring.gradients import Part, mean_over_samples, starts_of

NEEDS_SAMPLES = True

# For each dimension of a tensor the entries that belong to each channel.
_Entries = dict[int, list[set[int]]]


def score(material: Material) -> Scores:
    """Channel: mean over samples of |sum of w * dL/dw over the channel's weights|. Layer: mean over the channels.

    The sum runs over every entry of every parameter that goes with the channel: rows that make it and columns that read
    it, biases, scales and shifts of norms; an entry that goes for two reasons counts once. The unit is that of the
    loss, nats for classifiers (objective.py), so groups can be compared.

    Source: Molchanov et al., arXiv:1906.10771, first-order importance of a set of weights that go together. Theirs is
    the square of that sum; the absolute value, which stays a change of the loss, is that of their arXiv:1611.06440.
    The sum over all members of a coupled group and the mean over the channels are ours.

    Raises:
        UsageError: the model can't be differentiated.
    """
    reaction = mean_over_samples(material, _parts, torch.abs)
    scores = with_mean_layers("taylor", reaction.by_group(reaction.mean))
    return Scores(scores.scorer, scores.groups, (f"taylor: {reaction.note}",))


def _parts(graph: ChannelGraph, shapes: Mapping[str, torch.Size], first: Mapping[str, str]) -> Iterator[Part]:
    """All entries of parameters that go with a channel, each once.

    Where a channel owns rows and columns of one tensor, what is in both is taken off again: inclusion and exclusion.
    """
    for group, start in zip(graph.groups, starts_of(graph), strict=True):
        for tensor, by_dim in _by_tensor(group, shapes, first).items():
            for size in range(1, len(by_dim) + 1):
                for dims in combinations(sorted(by_dim), size):
                    yield _part(tensor, dims, by_dim, start, shapes[tensor])


def _by_tensor(group: Group, shapes: Mapping[str, torch.Size], first: Mapping[str, str]) -> dict[str, _Entries]:
    found: dict[str, _Entries] = {}
    for piece in group.slices:
        tensor = first.get(piece.tensor, piece.tensor)
        if tensor in shapes:
            owned = found.setdefault(tensor, {}).setdefault(piece.dim, [set() for _ in piece.indices])
            for mine, entries in zip(owned, piece.indices, strict=True):
                mine.update(entries)
    return found


def _part(tensor: str, dims: tuple[int, ...], by_dim: _Entries, start: int, shape: torch.Size) -> Part:
    strides = [prod(shape[later] for later in dims[k + 1 :]) for k in range(len(dims))]
    channels, entries = [], []
    for channel, places in enumerate(zip(*(by_dim[dim] for dim in dims), strict=True)):
        for place in product(*(sorted(along) for along in places)):
            channels.append(start + channel)
            entries.append(sum(k * stride for k, stride in zip(place, strides, strict=True)))
    return Part(tensor, dims, channels, entries, [(-1.0) ** (len(dims) + 1)] * len(entries))
