"""Another basis for linear streams: the channels that stay carry the directions that readers need most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from peelcli.patches import generator
from peelcli.records import Cut, Slice
from peelcli.samples import Samples
from peelcli.streams import Stream, Writer, find
from peelcli.tensors import (
    brief_copy,
    default_float64,
    evaluated,
    float64_copy,
    full_copy,
    named_tensors,
    own,
    tensors_in,
)

_BATCH = 8
_STATISTICS = 64  # samples that say how the new channels vary
_WIDEST = 2048  # channels of a stream; what is done takes time with their cube
_DAMPING = 1e-2  # of the mean variance
_SAME = 1e-3  # relative difference of outputs in float64; those of a stream that is bent somewhere differ by more

Pair = tuple[torch.Tensor, torch.Tensor]


class Basis:
    """The linear streams of a model, found once and turned for any cuts."""

    def __init__(self, module: nn.Module, cuts: Sequence[Cut], samples: Samples, look: Look) -> None:
        """Find the streams, and look at what reads them.

        Args:
            module: it is not changed.
            cuts: of all groups, whatever their widths.
            samples: unlabelled.
            look: how to; it is only called where there are streams.
        """
        self._module = module
        self._samples = samples
        quiet = nn.Module.eval(brief_copy(module))
        with torch.no_grad():
            inputs = next(samples.batches(2))
            groups = [cut.group for cut in cuts if cut.group.full <= _WIDEST]
            streams = _same(quiet, find(quiet, groups, inputs), inputs)
        readers = {piece.tensor for stream in streams for piece in stream.readers}
        self._sights = look(readers) if readers else {}
        self._streams = [s for s in streams if any(piece.tensor in self._sights for piece in s.readers)]

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the groups that can be turned."""
        return tuple(stream.group.name for stream in self._streams)

    def turned(self, cuts: Sequence[Cut]) -> nn.Module:
        """The same function, with streams whose kept channels carry as much as they can; the module itself if none.

        With S the covariance of a stream, pooled over what its readers W_c see, the r channels that stay span the
        leading eigenvectors of sum_c S^1/2 W_c' W_c S^1/2 in the coordinates S^-1/2 x: of all r numbers from which the
        readers are rebuilt linearly, those with the least summed error. Of the bases of that space the one is taken in
        which every channel is as near as can be to what it was; each keeps its variance.

        Source: principal components for the width of a linear stream as in SliceGPT, Ashkboos et al.,
        arXiv:2401.15024, section 3; the metric is that of reduced-rank regression (Izenman, 1975,
        doi:10.1016/0047-259X(75)90042-1), the nearest basis orthogonal Procrustes (Schoenemann, 1966,
        doi:10.1007/BF02289451). BatchNorms behind the writers, a width that is planned beforehand, and the proof by
        comparison are ours.

        Args:
            cuts: what will go; groups at full width stay as they are.
        """
        kept = {cut.group.name: cut.kept for cut in cuts if cut.width < cut.group.full}
        streams = [stream for stream in self._streams if stream.group.name in kept]
        if not streams:
            return self._module
        copy = full_copy(self._module)
        with evaluated(copy), torch.no_grad():
            for stream in streams:
                sights = [self._sights[p.tensor].of(p) for p in stream.readers if p.tensor in self._sights]
                rewrite(copy, stream, *directions(sights, kept[stream.group.name]))
            _take_statistics(copy, [w for s in streams for w in s.writers], self._samples)
        return copy


# --- which directions matter


@dataclass(frozen=True)
class Sight:
    """What is known of a weight that reads a stream.

    Attributes:
        covariance: of its inputs, shape (inputs, inputs), float64.
        matrix: the weight as (outputs, inputs, kernel positions), each output in units of what it does to the model's.
    """

    covariance: torch.Tensor
    matrix: torch.Tensor

    def of(self, piece: Slice) -> Pair:
        """Covariance of the stream and W' W, both (channels, channels); where it is read at several places, means."""
        found = []
        for places in torch.tensor(piece.indices).T:
            rows = self.matrix[:, places].transpose(1, 2).flatten(0, 1)
            found.append((self.covariance[places][:, places], rows.T @ rows))
        covariances, powers = zip(*found, strict=True)
        return torch.stack(covariances).mean(0), torch.stack(powers).mean(0)


Look = Callable[[set[str]], Mapping[str, Sight]]
"""Weights that read streams -> what is known of them; those that the model's output does not depend on are left out."""


def directions(sights: Sequence[Pair], kept: Sequence[int]) -> Pair:
    """The matrix that a stream is multiplied by, and its inverse; both float64 of shape (channels, channels).

    Rows of the kept channels span what `Basis.turned` says; the other rows span the rest.

    Args:
        sights: of each reader the covariance of the stream and W' W, both of that shape.
        kept: the channels that stay.
    """
    pooled = torch.stack([covariance for covariance, _ in sights]).mean(0)
    full = len(pooled)
    pooled = pooled + (_DAMPING * pooled.diagonal().mean()).clamp(min=1e-30) * torch.eye(full).to(pooled)
    values, vectors = torch.linalg.eigh(pooled)
    root, whiten = (vectors * values.sqrt()) @ vectors.T, (vectors * values.rsqrt()) @ vectors.T
    needed = torch.stack([root @ power @ root for _, power in sights]).sum(0)
    leading = torch.linalg.eigh(needed)[1].flip(1)
    deviation = pooled.diagonal().sqrt()
    own_directions = root / deviation[:, None]
    turn = torch.zeros_like(root)
    stays = torch.zeros(full, dtype=torch.bool)
    stays[list(kept)] = True
    for rows, space in ((stays, leading[:, : len(kept)]), (~stays, leading[:, len(kept) :])):
        left, _, right = torch.linalg.svd(own_directions[rows] @ space, full_matrices=False)
        turn[rows] = left @ right @ space.T
    return deviation[:, None] * (turn @ whiten), (root @ turn.T) / deviation


# --- changing a model


def rewrite(module: nn.Module, stream: Stream, mix: torch.Tensor, back: torch.Tensor) -> None:
    """Multiply all that writes a stream by a matrix, and all that reads it by the inverse; in place.

    BatchNorms behind writers become plain shifts, of scale 1.

    Args:
        module: has the stream.
        stream: of it.
        mix: shape (channels, channels), float64.
        back: its inverse.
    """
    tensors = dict(named_tensors(module))
    for writer in stream.writers:
        _rewrite_writer(module, tensors, writer, mix)
    for piece in stream.readers:
        for places in torch.tensor(piece.indices).T:
            _multiply(tensors[piece.tensor], back.T, places, 1)


def _rewrite_writer(module: nn.Module, tensors: dict[str, torch.Tensor], writer: Writer, mix: torch.Tensor) -> None:
    rows = _rows(writer.weight)
    outer = mix
    if writer.norm is not None:
        norm: Any = module.get_submodule(writer.norm)
        at = rows.to(norm.weight.device)
        scale = norm.weight.detach()[at].double() / (norm.running_var[at].double() + norm.eps).sqrt()
        outer = mix.to(scale) * scale
        _multiply(norm.running_mean, outer, rows, 0)
        _multiply(norm.bias, mix, rows, 0)
        norm.running_var[at] = 1.0 - norm.eps
        norm.weight.detach()[at] = 1.0
    _multiply(tensors[writer.weight.tensor], outer, rows, 0)
    if writer.bias is not None:
        _multiply(tensors[writer.bias], outer, rows, 0)


def _rows(piece: Slice) -> torch.Tensor:
    return torch.tensor([its[0] for its in piece.indices])


def _multiply(tensor: torch.Tensor, matrix: torch.Tensor, places: torch.Tensor, dim: int) -> None:
    """Multiply the entries at some places of a dimension by a matrix, in place."""
    tensor, places = tensor.detach(), places.to(tensor.device)
    old = tensor.index_select(dim, places).movedim(dim, 0)
    new = torch.tensordot(matrix.to(tensor.device), old.double(), 1)
    tensor.index_copy_(dim, places, new.movedim(0, dim).to(tensor.dtype))


def _take_statistics(module: nn.Module, writers: Sequence[Writer], samples: Samples) -> None:
    """Let BatchNorms behind writers say the variance that they see, the function unchanged: training begins with it."""
    samples = samples.some(range(min(len(samples), _STATISTICS)))
    rows: dict[str, list[torch.Tensor]] = {}
    for writer in writers:
        if writer.norm is not None:
            rows.setdefault(writer.norm, []).append(_rows(writer.weight))
    sums: dict[str, list[torch.Tensor]] = {name: [] for name in rows}
    hooks = [_gathering(module.get_submodule(name), sums[name]) for name in rows]
    try:
        for inputs in samples.batches(_BATCH):
            module(*own(module, inputs))
    finally:
        for hook in hooks:
            hook.remove()
    for name, its in rows.items():
        if not sums[name]:  # its statistics are used without a call of it
            continue
        norm: Any = module.get_submodule(name)
        count, total, square = torch.stack(sums[name]).sum(0)
        at = torch.cat(its).to(norm.weight.device)
        variance = (square / count - (total / count).square()).clamp(min=0)[at]
        norm.running_var[at] = variance.to(norm.running_var.dtype)
        norm.weight.detach()[at] = (variance + norm.eps).sqrt().to(norm.weight.dtype)


def _gathering(norm: nn.Module, sums: list[torch.Tensor]) -> Any:
    def note(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        x = inputs[0].detach().double().transpose(0, 1).flatten(1)
        sums.append(torch.stack([torch.full_like(x[:, 0], x.shape[1]), x.sum(1), x.square().sum(1)]))

    return norm.register_forward_pre_hook(note)


# --- the proof


def _same(module: nn.Module, streams: Sequence[Stream], inputs: tuple[Any, ...]) -> tuple[Stream, ...]:
    """The streams that can be mixed at random while the outputs stay: all at once, else those that can alone."""
    if not streams:
        return ()
    double = tuple(pytree.tree_map_only(torch.Tensor, _doubled, own(module, inputs)))
    with default_float64():
        wanted = _numbers(float64_copy(module)(*own(module, double)))

        def holds(some: Iterable[Stream]) -> bool:
            mixed = float64_copy(module)
            for stream in some:
                rewrite(mixed, stream, *_random(stream))
            found = _numbers(mixed(*own(module, double)))
            return found.shape == wanted.shape and bool((found - wanted).norm() <= _SAME * wanted.norm())

        return tuple(streams) if holds(streams) else tuple(stream for stream in streams if holds([stream]))


def _random(stream: Stream) -> Pair:
    full = stream.group.full
    noise = torch.randn(full, full, generator=generator(0, stream.group.name), dtype=torch.float64)
    mix = torch.linalg.qr(noise)[0]
    return mix, mix.T


def _doubled(leaf: torch.Tensor) -> torch.Tensor:
    return leaf.double() if leaf.is_floating_point() else leaf


def _numbers(outputs: Any) -> torch.Tensor:
    return torch.cat([t.double().flatten() for t in tensors_in(outputs) if t.is_floating_point()] or [torch.zeros(1)])
