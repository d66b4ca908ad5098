"""How much the loss reacts, squared and on average, when a channel is scaled where it is read (needs samples)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from peelcli.records import ChannelGraph, Group, Scores, Slice
from peelcli.scoring.base import Material, with_mean_layers
from peelcli.scoring.gradients import Part, mean_over_samples, starts_of

NEEDS_SAMPLES = True


def score(material: Material) -> Scores:
    """Channel: half the mean over samples of g^2, g the derivative by a gate. Layer: mean over the channels.

    Think of a gate m = 1 that multiplies the channel wherever a weight reads it. For one sample
    g = dL/dm = sum over consumers and positions of a * dL/da = sum over consumers of w[:, c] . dL/dw[:, c],
    a the activation: the second form needs no hooks. With the loss a log-likelihood, g^2 / 2 is the second-order change
    of the loss when m goes to 0, the Hessian replaced by the Fisher information. The unit is that of the loss squared.

    A channel that no weight reads (queries and keys) has its gate on the layer that makes it: g is the mean over those
    layers of w[c] . dL/dw[c] + b[c] dL/db[c]. A channel without either gets the mean of the group.
    The gradient of a tied weight is that of all its uses: an embedding tied to the head counts as a reader in both.

    Source: Group Fisher pruning, Liu et al., arXiv:2108.00708: the gates of coupled layers are one gate. They divide by
    the memory that is saved; we don't, the allocation sees to the cost. Ours are the gate on the maker, the mean
    over the channels, and that a depthwise layer, which carries the channel on to its reader, has no gate of its own.

    Raises:
        UsageError: the model can't be differentiated.
    """
    reaction = mean_over_samples(material, _parts, torch.square)
    known = torch.zeros(len(reaction.mean), dtype=torch.bool)
    for part in reaction.parts:
        known[torch.tensor(part.channels, dtype=torch.long)] = True
    pairs = zip(reaction.by_group(reaction.mean / 2), reaction.by_group(known), strict=True)
    channels = [values.where(held, values[held].mean()) if bool(held.any()) else values for values, held in pairs]
    scores = with_mean_layers("fisher", channels)
    return Scores(scores.scorer, scores.groups, (f"fisher: {reaction.note}",))


def _parts(graph: ChannelGraph, shapes: Mapping[str, torch.Size], first: Mapping[str, str]) -> Iterator[Part]:
    """Gates at the weights that read a channel; where no weight does, at those that make it."""
    for group, start in zip(graph.groups, starts_of(graph), strict=True):
        pieces = [(first.get(piece.tensor, piece.tensor), piece) for piece in group.slices]
        pieces = [(tensor, piece) for tensor, piece in pieces if tensor in shapes]
        read = set()
        for tensor, piece in pieces:
            if piece.role == "in":
                read |= {channel for channel, entries in enumerate(piece.indices) if entries}
                yield _part(tensor, piece, start, [1.0] * group.full)
        if len(read) < group.full:
            yield from _at_the_makers(group, start, pieces, shapes, read)


def _at_the_makers(
    group: Group, start: int, pieces: list[tuple[str, Slice]], shapes: Mapping[str, torch.Size], read: set[int]
) -> Iterator[Part]:
    makers = [(tensor, p) for tensor, p in pieces if p.role == "out" and len(shapes[tensor]) >= 2]
    modules = {tensor.rpartition(".")[0] for tensor, _ in makers}
    biases = [
        (tensor, p)
        for tensor, p in pieces
        if p.role == "out" and len(shapes[tensor]) == 1 and tensor.rpartition(".")[0] in modules
    ]
    counts = [sum(bool(piece.indices[channel]) for _, piece in makers) for channel in range(group.full)]
    factors = [0.0 if channel in read or not count else 1 / count for channel, count in enumerate(counts)]
    for tensor, piece in makers + biases:
        yield _part(tensor, piece, start, factors)


def _part(tensor: str, piece: Slice, start: int, factors: list[float]) -> Part:
    """One slice as a part; channels whose factor is 0 are left out."""
    owned = [(channel, entry) for channel, entries in enumerate(piece.indices) if factors[channel] for entry in entries]
    return Part(
        tensor,
        (piece.dim,),
        [start + channel for channel, _ in owned],
        [entry for _, entry in owned],
        [factors[channel] for channel, _ in owned],
    )
