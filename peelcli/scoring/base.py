"""What every scorer is given, and the arithmetic that several of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import torch
from torch import nn

from peelcli.records import ChannelGraph, Group, GroupScore, Scores, Slice, Subject
from peelcli.samples import Samples


@dataclass(frozen=True)
class Material:
    """What a scorer may look at; it changes nothing.

    Attributes:
        subject: the model; its parameters may be frozen, in half precision, or on any device.
        graph: the groups to score, locked ones too.
        seed: of everything random.
        samples: calibration samples; a scorer whose file has NEEDS_SAMPLES = True always gets at least one.
        progress: a scorer that looks at the samples tells it (samples done, samples in all).
        turns: whether linear streams will be turned before they are cut, see `peelcli.streams`.
    """

    subject: Subject
    graph: ChannelGraph
    seed: int
    samples: Samples | None = None
    progress: Callable[[int, int], None] | None = None
    turns: bool = False

    @cached_property
    def weights(self) -> dict[str, torch.Tensor]:
        """Floating-point parameters of two dimensions or more by path, tied ones under each of their paths."""
        parameters = self.subject.module.named_parameters(remove_duplicate=False)
        return {name: p.detach() for name, p in parameters if p.dim() >= 2 and p.is_floating_point()}

    @cached_property
    def gammas(self) -> dict[str, torch.Tensor]:
        """The scale of every BatchNorm by path, each of shape (channels,)."""
        found = {}
        for path, module in self.subject.module.named_modules(remove_duplicate=False):
            scale = getattr(module, "weight", None)
            if isinstance(scale, torch.Tensor) and is_batchnorm(module):
                found[f"{path}.weight" if path else "weight"] = scale.detach()
        return found

    def rows(self, tensor: str, dim: int, order: int) -> torch.Tensor:
        """Mean of |w| ** order over each entry along one dimension of a weight: shape (size of dim,), float64."""
        key = (tensor, dim, order)
        if key not in self._rows:
            weight = self.weights[tensor]
            others = [d for d in range(weight.dim()) if d != dim]
            wide = torch.promote_types(weight.dtype, torch.float32)
            # vector_norm makes no copy of a large or half-precision weight.
            norms = torch.linalg.vector_norm(weight, order, dim=others, dtype=wide).double().cpu()
            self._rows[key] = norms**order * weight.shape[dim] / weight.numel()
        return self._rows[key]

    @cached_property
    def _rows(self) -> dict[tuple[str, int, int], torch.Tensor]:
        """One reduction serves all groups that meet in a tensor, e.g. behind a concat."""
        return {}


Scorer = Callable[[Material], Scores]


def is_batchnorm(module: nn.Module) -> bool:
    """True for a BatchNorm by class, or by what it keeps (torchvision's frozen one is no subclass)."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) or hasattr(module, "running_var")


def per_channel(piece: Slice, rows: torch.Tensor) -> torch.Tensor:
    """Mean over the entries that belong to each channel.

    Args:
        piece: which entries those are.
        rows: one value for each entry along the slice's dimension.

    Returns:
        Shape (channels,), float64; without meaning where a channel has no entry here.
    """
    counts = torch.tensor([len(entries) for entries in piece.indices])
    entries = torch.tensor(list(chain.from_iterable(piece.indices)), dtype=torch.long)
    values = rows.double().cpu()[entries]
    if bool((counts == 1).all()):
        return values
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    return torch.zeros(len(counts), dtype=torch.float64).index_add_(0, owner, values) / counts


def mean_over_slices(channels: int, measured: Iterable[tuple[Slice, torch.Tensor]]) -> torch.Tensor:
    """Mean over the slices that hold a channel; a channel that none holds gets the mean of the others, or 0.

    Args:
        channels: how many there are.
        measured: for each slice one value a channel, shape (channels,), float64.

    Returns:
        Shape (channels,), float64.
    """
    total = torch.zeros(channels, dtype=torch.float64)
    count = torch.zeros(channels, dtype=torch.long)
    for piece, values in measured:
        held = torch.tensor([len(entries) > 0 for entries in piece.indices])
        total += values.where(held, 0.0)
        count += held
    known = count > 0
    mean = total / count.clamp(min=1)
    return mean.where(known, mean[known].mean()) if bool(known.any()) else total


def magnitudes(material: Material, group: Group, order: int) -> torch.Tensor:
    """How large the weights are that make and read each channel.

    In each slice of a weight ("out" and "in" alike), m = (mean |w| ** order) ** (1 / order) over the channel's entries,
    in the unit of the weights; the channel gets the mean of m over the slices.

    Source: the group norm of DepGraph (arXiv:2301.12900, group-level pruning), which sums over all entries. Means
    instead of sums are ours: a wide fan-in does not outweigh the other members of a group, and groups of different
    widths can be compared.

    Args:
        material: the model and its graph.
        group: the group.
        order: 1 for mean |w|, 2 for the root mean square.

    Returns:
        Shape (channels,), float64.
    """
    pieces = (piece for piece in group.slices if piece.tensor in material.weights)
    return mean_over_slices(
        group.full,
        ((p, per_channel(p, material.rows(p.tensor, p.dim, order)) ** (1 / order)) for p in pieces),
    )


def with_mean_layers(scorer: str, channels: Sequence[torch.Tensor]) -> Scores:
    """Scores in which a group is as informative as its channels are on average."""
    return Scores(scorer, tuple(GroupScore(tuple(c.tolist()), float(c.mean())) for c in channels))
