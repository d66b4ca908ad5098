"""What the output loses with a channel when the channels that stay make up for it (optimal brain surgeon)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from peelcli import streams
from peelcli.records import Group, GroupScore, Scores, Slice
from peelcli.scoring.base import Material, magnitudes
from peelcli.scoring.moments import Moments, measure
from peelcli.scoring.surgeon import Reader, principal_losses
from peelcli.tensors import brief_copy

NEEDS_SAMPLES = True
_BLOCKS = 64  # in a wide group several channels go at once, before the rest is updated


def score(material: Material) -> Scores:
    """Channel: what its removal adds to the loss, at its turn. Layer: their sum, what the whole group would lose.

    For every weight W that reads the group, with C the covariance of what it reads (centred: a mean can go into a bias)
    and P = C^-1, the least error that the channels R leave when all others make up for them is
    tr((P_RR)^-1 (W' S W)_RR). S is the diagonal of squared sensitivities of the outputs, so that errors of all readers
    add up to an estimate of the distance of the model's output from the original's: KL divergence for class scores,
    squared relative change for others. Channels go in the order of the least added error over all readers, P and W are
    updated after each (in wide groups after each 64th part).

    Source: optimal brain surgeon (Hassibi and Stork, 1993); its use on whole channels by second moments of layer
    inputs, e.g. OSSCAR (arXiv:2403.12983). Sensitivities from Fisher's diagonal as in K-FAC's output side
    (arXiv:1503.05671). The sum over coupled readers, the shrinkage and the block size are ours.

    A linear stream that repair will turn (`peelcli.streams`) loses directions instead of channels: in the same order,
    each channel carries the next larger eigenvalue of sum S^1/2 W' S W S^1/2 (`surgeon.principal_losses`).

    A group that is read by no such weight, or only by weights that the model's main output does not depend on, gets an
    even share, ranked by l2, and a note says so.
    """
    assert material.samples is not None
    groups = material.graph.groups
    weights = {piece.tensor for group in groups for piece in _reading(group)}
    found = measure(material.subject, material.samples, weights, material.seed, material.progress)
    trust = len(material.samples)  # rows of one sample say much the same
    turned = _turned(material)
    added = [_order(group, _readers(group, found, trust), group.name in turned) for group in groups]
    known = [sum(values) for values in added if values is not None]
    even = sum(known) / len(known) if known else 1.0
    scores = [
        _bundled(group, values if values is not None else _by_weight(material, group, even))
        for group, values in zip(groups, added, strict=True)
    ]
    unseen = sum(values is None for group, values in zip(groups, added, strict=True) if not group.locked)
    notes = (
        f"{unseen} of {sum(not group.locked for group in groups)} groups that may shrink are read by no layer whose "
        "effect on the model's main output could be measured: an even share, ranked by l2",
    )
    return Scores("reconstruction", tuple(scores), notes if unseen else (), additive=True)


def _reading(group: Group) -> list[Slice]:
    return [piece for piece in group.slices if piece.role == "in"]


def _readers(group: Group, found: Mapping[str, Moments], trust: int) -> list[Reader]:
    """The weights that read the group, as far as they were seen to matter."""
    seen = {name: moments for name, moments in found.items() if moments.sensitivity is not None}
    return [Reader.of(group, piece, seen[piece.tensor], trust) for piece in _reading(group) if piece.tensor in seen]


def _turned(material: Material) -> set[str]:
    """Names of the linear streams, where they will be turned."""
    if not material.turns or material.samples is None:
        return set()
    module = nn.Module.eval(brief_copy(material.subject.module))
    inputs = next(material.samples.batches(2))
    return {stream.group.name for stream in streams.find(module, material.graph.groups, inputs)}


def _order(group: Group, readers: Sequence[Reader], turned: bool) -> list[float] | None:
    """The added loss of each bundle at its turn; None where nothing is known."""
    if not readers:
        return None
    losses = principal_losses(readers) if turned else None
    left = torch.arange(len(group.bundles))
    floor = max(1, group.floor // group.bundle_size)
    block = max(1, len(left) // _BLOCKS)
    worth = torch.zeros(len(left), dtype=torch.float64)
    last = 0.0
    while len(left):
        costs = torch.stack([reader.costs() for reader in readers]).sum(0).clamp(min=0)
        count = min(block, len(left) - floor) if len(left) > floor else len(left)  # the floor stays: ranked as it is
        gone = costs.argsort(stable=True)[:count]
        for position in gone.tolist():
            last = max(float(costs[position]), last * (1 + 1e-9))  # rising, so that the order is that of the scores
            worth[left[position]] = last
        stay = torch.ones(len(left), dtype=torch.bool)
        stay[gone] = False
        for reader in readers if bool(stay.any()) else ():
            reader.remove(gone, stay.nonzero()[:, 0])
        left = left[stay]
    if losses is not None:
        worth[worth.argsort(stable=True)] = _rising(losses)
    return worth.tolist()


def _rising(losses: torch.Tensor) -> torch.Tensor:
    """The same, each a little more than the one before, so that the order of the scores is that of removal."""
    return losses.clamp(min=0).cummax(0).values + float(losses.sum()) * 1e-12 * torch.arange(len(losses))


def _by_weight(material: Material, group: Group, total: float) -> list[float]:
    """A given loss spread over the bundles by the squared size of their weights."""
    sizes = magnitudes(material, group, 2).square()
    by_bundle = torch.stack([sizes[list(bundle)].sum() for bundle in group.bundles])
    return (total * by_bundle / by_bundle.sum().clamp(min=1e-30)).tolist()


def _bundled(group: Group, added: Sequence[float]) -> GroupScore:
    channels = [0.0] * group.full
    for bundle, value in zip(group.bundles, added, strict=True):
        for channel in bundle:
            channels[channel] = value
    return GroupScore(tuple(channels), sum(added))
