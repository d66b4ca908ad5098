"""Gradients of the loss with respect to the weights, sample by sample, and their sums over channels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from peelcli.errors import UsageError
from peelcli.outputs import Kind, class_label, common_kind, kind, main_output
from peelcli.records import ChannelGraph
from peelcli.samples import Inputs
from peelcli.scoring import objective
from peelcli.scoring.base import Material
from peelcli.tensors import differentiated, first_names, wide_copy, wide_inputs

# Samples that are looked at to tell what the output is.
_LOOKED_AT = 16
_HINT = "score by the weights instead: --score l2"


class WeightGradients:
    """One dict of gradients for each sample: parameter path to dL/dw, shaped as the parameter.

    One forward and one backward pass a sample, on a copy in eval mode: the user's module, its flags and its mode stay.
    Tied parameters are under their first path, with the gradient of all their uses. What takes no part in a sample's
    loss is not in its dict. In the dtype of the model, in float32 where it is in half precision.

    Attributes:
        note: what was differentiated, one sentence.
    """

    def __init__(self, material: Material) -> None:
        """Copy the model and look at its output for the first samples.

        Raises:
            UsageError: no output, or a label that is no class of the model.
        """
        assert material.samples, "the table refuses scorers that need samples where there are none"
        self._samples = material.samples
        self._seed = material.seed
        self._module = wide_copy(material.subject.module)
        self._parameters = {name: p for name, p in self._module.named_parameters() if p.requires_grad}
        looked_at = [self._look(inputs) for inputs in self._samples.inputs[:_LOOKED_AT]]
        self._kind = common_kind(found for found, _ in looked_at)
        elements = sum(output.numel() for _, output in looked_at)
        squares = sum(float(output.double().square().sum()) for _, output in looked_at)
        self._scale = (squares / elements) ** 0.5 if elements and squares > 0 else 1.0
        targets = self._samples.targets or (None,) * len(self._samples)
        classified = self._kind != "values"
        self._labels = [class_label(t, looked_at[0][1]) if classified else None for t in targets]
        self.note = self._what_it_is()

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Gradients for each sample, in their order.

        Raises:
            UsageError: the model can't be differentiated, no parameter gets a gradient, or one is not finite.
        """
        generator = torch.Generator().manual_seed(self._seed)
        some = False
        for number, (inputs, label) in enumerate(zip(self._samples.inputs, self._labels, strict=True), 1):
            found = self._of_one(inputs, label, generator, f"sample {number} of {self._samples.name}")
            some = some or bool(found)
            yield found
        if not some:
            raise UsageError("the model's output has no gradient with respect to any parameter", hint=_HINT)

    def times_weights(self) -> Iterator[dict[str, torch.Tensor]]:
        """The same, every gradient multiplied by its parameter: w * dL/dw, the change of L per relative change of w."""
        weights = {name: p.detach() for name, p in self._parameters.items()}
        for found in self:
            yield {name: gradient.mul(weights[name]) for name, gradient in found.items()}

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Shapes of the parameters by path."""
        return {name: p.shape for name, p in self._parameters.items()}

    def _look(self, inputs: Inputs) -> tuple[Kind, torch.Tensor]:
        with torch.no_grad():
            outputs = self._module(*wide_inputs(self._module, inputs))
        return kind(outputs), main_output(outputs)

    def _of_one(
        self, inputs: Inputs, label: int | None, generator: torch.Generator, where: str
    ) -> dict[str, torch.Tensor]:
        try:
            with differentiated(self._module):
                output = main_output(self._module(*wide_inputs(self._module, inputs)))
                loss = objective.loss(output, self._kind, label, generator, self._scale)
                if not loss.requires_grad:
                    return {}
                parameters = tuple(self._parameters.values())
                gradients: Sequence[torch.Tensor | None] = torch.autograd.grad(loss, parameters, allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(f"the model can't be differentiated at {where}: {reason}", hint=_HINT) from error
        found = {name: g for name, g in zip(self._parameters, gradients, strict=True) if g is not None}
        sums = torch.stack([loss.detach().double(), *(g.sum().double() for g in found.values())])
        if not bool(torch.isfinite(sums).all()):
            raise UsageError(f"the gradient of the loss is not a finite number at {where}", hint=_HINT)
        return found

    def _what_it_is(self) -> str:
        if self._kind == "values":
            return f"the gradient over {len(self._samples)} samples is that of the output along random directions"
        known = sum(label is not None for label in self._labels)
        to = {0: "the model's own most probable classes", len(self._labels): "the labels"}.get(
            known, f"the labels of {known} samples and the model's own most probable classes for the rest"
        )
        return f"the gradient over {len(self._samples)} samples is that of the cross entropy to {to}"


@dataclass(frozen=True)
class Part:
    """Entries of one parameter that belong to channels.

    Attributes:
        tensor: the parameter's path.
        dims: the dimensions along which entries are told apart, ascending; all others are summed over.
        channels: for each entry its channel, counted over all groups of the graph one after another.
        entries: position in the flattened `dims` of the tensor, one for each of `channels`.
        factors: what each entry counts.
    """

    tensor: str
    dims: tuple[int, ...]
    channels: Sequence[int]
    entries: Sequence[int]
    factors: Sequence[float]


@dataclass(frozen=True)
class _Block:
    """One reduction of a parameter, and its place among all of them."""

    tensor: str
    dims: tuple[int, ...]
    chosen: torch.Tensor | None
    start: int
    length: int

    def of(self, value: torch.Tensor) -> torch.Tensor:
        """Sum over all other dimensions, then the chosen entries: shape (length,)."""
        row = _sum_but(value, self.dims).flatten()
        return row if self.chosen is None else row[self.chosen.to(row.device)]


def _sum_but(value: torch.Tensor, dims: Collection[int]) -> torch.Tensor:
    """Sum over all dimensions but these; they stay, those summed over have size 1."""
    others = [dim for dim in range(value.dim()) if dim not in dims]
    return value.sum(others, keepdim=True) if others else value


class ChannelSums:
    """Sums one number per weight over the entries that belong to each channel; all indices are laid out once."""

    def __init__(self, graph: ChannelGraph, parts: Sequence[Part], shapes: Mapping[str, torch.Size]) -> None:
        """Lay out the indices.

        Args:
            graph: whose groups the channels belong to.
            parts: what is summed; the tensors all stand in `shapes`.
            shapes: of the parameters by path.
        """
        self._widths = [group.full for group in graph.groups]
        # Parts that tell one dimension apart share one reduction of it, whatever group they are of; what several
        # dimensions tell apart is picked out before the pieces are joined.
        self._blocks: list[_Block] = []
        self._length = 0
        shared: dict[tuple[str, tuple[int, ...]], int] = {}
        sources: list[int] = []
        for part in parts:
            key = (part.tensor, part.dims)
            if len(part.dims) > 1:
                start = self._append(*key, len(part.entries), torch.tensor(part.entries, dtype=torch.long))
                sources.extend(range(start, start + len(part.entries)))
                continue
            if key not in shared:
                shared[key] = self._append(*key, shapes[part.tensor][part.dims[0]], None)
            sources.extend(shared[key] + entry for entry in part.entries)
        self._kept: dict[str, set[int]] = {}
        for block in self._blocks:
            self._kept.setdefault(block.tensor, set()).update(block.dims)
        self._sources = torch.tensor(sources, dtype=torch.long)
        self._owners = torch.tensor(list(chain.from_iterable(p.channels for p in parts)), dtype=torch.long)
        self._factors = torch.tensor(list(chain.from_iterable(p.factors for p in parts)), dtype=torch.float64)

    def _append(self, tensor: str, dims: tuple[int, ...], length: int, chosen: torch.Tensor | None) -> int:
        """Add a block and say where it starts."""
        start = self._length
        self._blocks.append(_Block(tensor, dims, chosen, start, length))
        self._length += length
        return start

    def __call__(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Sum over each channel.

        Args:
            values: one number for each entry of a parameter; those that are missing count 0.

        Returns:
            Shape (channels of all groups,), float64, on the CPU.
        """
        # First what no block tells apart, e.g. the positions of a kernel: the rest is small then.
        small = {name: _sum_but(value, self._kept[name]) for name, value in values.items() if name in self._kept}
        found = [(block, small[block.tensor]) for block in self._blocks if block.tensor in small]
        row = torch.zeros(self._length, dtype=torch.float64)
        if found:
            dense = torch.cat([block.of(value) for block, value in found]).double().cpu()
            for (block, _), piece in zip(found, dense.split([block.length for block, _ in found]), strict=True):
                row[block.start : block.start + block.length] = piece
        total = torch.zeros(sum(self._widths), dtype=torch.float64)
        return total.index_add_(0, self._owners, row[self._sources] * self._factors)

    def by_group(self, total: torch.Tensor) -> list[torch.Tensor]:
        """One tensor of shape (channels,) for each group."""
        return list(total.split(self._widths))


def starts_of(graph: ChannelGraph) -> list[int]:
    """For each group the position of its first channel among those of all groups."""
    starts = [0]
    for group in graph.groups:
        starts.append(starts[-1] + group.full)
    return starts[:-1]


@dataclass(frozen=True)
class Reaction:
    """How the loss reacts to every channel, on average.

    Attributes:
        mean: of all groups, shape (channels of all,), float64.
        parts: what was summed.
        by_group: takes such a tensor apart.
        note: what was differentiated, one sentence.
    """

    mean: torch.Tensor
    parts: tuple[Part, ...]
    by_group: Callable[[torch.Tensor], list[torch.Tensor]]
    note: str


def mean_over_samples(
    material: Material,
    parts_of: Callable[[ChannelGraph, Mapping[str, torch.Size], Mapping[str, str]], Iterable[Part]],
    of_one: Callable[[torch.Tensor], torch.Tensor],
) -> Reaction:
    """The mean over samples of a function of each channel's sum of w * dL/dw.

    Args:
        material: model, groups and samples.
        parts_of: (graph, shapes of the parameters, first name of each tensor) -> what the sums run over.
        of_one: of one sample's sums, e.g. their absolute values.

    Raises:
        UsageError: the model can't be differentiated, or the result is 0 everywhere and tells nothing.
    """
    gradients = WeightGradients(material)
    shapes = gradients.shapes
    parts = tuple(parts_of(material.graph, shapes, first_names(material.subject.module)))
    sums = ChannelSums(material.graph, parts, shapes)
    total = torch.zeros(sum(group.full for group in material.graph.groups), dtype=torch.float64)
    count = 0
    for products in gradients.times_weights():
        total += of_one(sums(products))
        count += 1
    if total.numel() and not bool(total.any()):
        raise UsageError("the gradient of the loss is zero at every sample", hint=_HINT)
    return Reaction(total / count, parts, sums.by_group, gradients.note)
