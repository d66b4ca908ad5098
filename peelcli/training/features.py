"""Matching inside the model: the slim model's layers against those channels of the original's that it kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from peelcli.errors import UsageError
from peelcli.records import Cut
from peelcli.tensors import parent_of

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)


@dataclass(frozen=True, slots=True)
class Pair:
    """A layer that both models have.

    Attributes:
        layer: its path.
        dim: where its output has the channels.
        kept: the entries along that dimension that the slim model has.
    """

    layer: str
    dim: int
    kept: Tensor


def pairs(student: nn.Module, cuts: Sequence[Cut]) -> tuple[Pair, ...]:
    """The last layer of each group that was cut, in the order of the data flow, whose output is the group's channels.

    Norms come after the convolutions that they belong to, so it is the normed output wherever there is one.

    Raises:
        UsageError: no group has such a layer.
    """
    found = [pair for cut in cuts if cut.width < cut.group.full and (pair := _pair(student, cut)) is not None]
    if not found:
        raise UsageError("--match features: no layer of this model can be matched", hint="leave --match away")
    return tuple(found)


def _pair(student: nn.Module, cut: Cut) -> Pair | None:
    order = {layer: number for number, layer in enumerate(cut.group.layers)}
    best: tuple[int, Pair] | None = None
    for piece in cut.group.slices:
        if piece.role != "out" or piece.dim != 0 or not piece.tensor.endswith(".weight"):
            continue
        module, _ = parent_of(student, piece.tensor)
        path = piece.tensor.removesuffix(".weight")
        last = isinstance(module, (nn.Linear, nn.LayerNorm))
        if not last and not isinstance(module, (*_CONVOLUTIONS, *_NORMS)):
            continue
        kept = torch.tensor(sorted(entry for channel in cut.kept for entry in piece.indices[channel]))
        rank = order.get(path, -1)
        if best is None or rank > best[0]:
            best = rank, Pair(path, -1 if last else 1, kept)
    return best[1] if best else None


class Matcher:
    """Records what the paired layers put out, and compares the two models."""

    def __init__(self, teacher: nn.Module, student: nn.Module, chosen: Sequence[Pair], device: torch.device) -> None:
        self._pairs = [(pair, pair.kept.to(device)) for pair in chosen]
        self._models = teacher, student
        self._seen: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}
        self._units: dict[str, float] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Outputs of forward calls inside are kept until they are compared."""
        handles = []
        for module, seen in zip(self._models, self._seen, strict=True):
            for pair, _ in self._pairs:
                handles.append(module.get_submodule(pair.layer).register_forward_hook(_keeper(seen, pair.layer)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def measure(self) -> None:
        """Take the unit of each layer, the mean square of its deviation from its mean, from the teacher's last call."""
        for pair, kept in self._pairs:
            if pair.layer in self._seen[0]:
                spread = float(self._seen[0][pair.layer].index_select(pair.dim, kept).double().var(correction=0))
                self._units[pair.layer] = spread if spread > 0 else 1.0

    def loss(self) -> Tensor:
        """Mean over the layers of the mean squared difference, in the layer's unit."""
        teacher, student = self._seen
        terms = []
        for pair, kept in self._pairs:
            if pair.layer in teacher and pair.layer in student:
                wanted = teacher[pair.layer].index_select(pair.dim, kept).float()
                terms.append((student[pair.layer].float() - wanted).square().mean() / self._units.get(pair.layer, 1.0))
        return torch.stack(terms).mean()


def _keeper(seen: dict[str, Tensor], layer: str) -> Any:
    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            seen[layer] = output

    return keep
