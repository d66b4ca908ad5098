"""Linear streams: channels that are only added, normed one by one and read by dense products, never bent in between.

The residual stream of a network with linear bottlenecks is one (MobileNetV2, Sandler et al., arXiv:1801.04381). Such
channels may be mixed by any invertible matrix, if all that writes them is multiplied by it and all that reads them by
its inverse: the function stays the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peelcli.products import Product, Run, watching
from peelcli.records import Group, Slice
from peelcli.tensors import named_tensors, own, tensors_in

_LINEAR = frozenset({
    "__add__", "__iadd__", "__radd__", "add", "add_", "sub", "sub_", "__sub__", "cat", "concat", "batch_norm",
    "dropout", "dropout_", "feature_dropout", "feature_dropout_", "clone", "contiguous", "to", "float", "detach",
    "flatten", "reshape", "view", "unflatten", "permute", "transpose", "squeeze", "unsqueeze", "__getitem__", "pad",
    "mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d", "interpolate", "upsample_nearest2d",
})  # fmt: skip  # by channel: what else bends, the comparison of the outputs finds


@dataclass(frozen=True)
class Writer:
    """A product whose output is a part of the stream.

    Attributes:
        weight: its slice; the outputs are dimension 0.
        bias: path of its bias, or None.
        norm: path of the BatchNorm behind it, or None.
    """

    weight: Slice
    bias: str | None
    norm: str | None


@dataclass(frozen=True)
class Stream:
    """One group that is a linear stream.

    Attributes:
        readers: slices of the weights that read it; the inputs are dimension 1.
    """

    group: Group
    writers: tuple[Writer, ...]
    readers: tuple[Slice, ...]


def find(module: nn.Module, groups: Sequence[Group], inputs: tuple[Any, ...]) -> tuple[Stream, ...]:
    """The groups that one forward pass shows to be linear streams.

    What an op that is allowed here does to a channel is not looked at; whoever changes a stream has to compare outputs.

    Args:
        module: in eval mode; it is not changed.
        groups: locked ones, ones whose channels go in bundles, and ones that are normed together are never streams.
        inputs: of one forward call.
    """
    plain = [g for g in groups if g.locked is None and g.bundle_size == 1 and not g.blends]
    seen = _Pass(module, plain)
    inputs = own(module, inputs)
    with torch.no_grad(), watching(module, seen.product, seen.function):
        out = module(*inputs)
    seen.end(out)
    made = (_stream(module, number, group, seen) for number, group in enumerate(plain) if number not in seen.bent)
    return tuple(stream for stream in made if stream is not None)


class _Pass:
    """Follows the channels of each group from the products that write them to those that read them.

    Attributes:
        bent: numbers of the groups that are no linear streams.
        written, read: weights of the products that write a group, and (weight, number) of those that read one.
        biases: weight of a product -> path of its bias.
        norms: weight of a product -> path of the BatchNorm that takes its output.
    """

    def __init__(self, module: nn.Module, groups: Sequence[Group]) -> None:
        self.bent: set[int] = set()
        self.written: set[str] = set()
        self.read: set[tuple[str, int]] = set()
        self.biases: dict[str, str] = {}
        self.norms: dict[str, str] = {}
        self._names = {id(tensor): name for name, tensor in named_tensors(module)}
        self._writes = {s.tensor: n for n, g in enumerate(groups) for s in g.slices if s.role == "out" and s.dim == 0}
        self._reads = {(s.tensor, n) for n, g in enumerate(groups) for s in g.slices if s.role == "in" and s.dim == 1}
        self._held: list[torch.Tensor] = []  # alive, so that no other takes an id
        self._carried: dict[int, set[int]] = {}  # tensor -> groups whose channels it carries
        self._fresh: dict[int, str] = {}  # tensor -> product whose output it is as it came

    def product(self, product: Product, run: Run) -> torch.Tensor:
        """One product: it reads, and it writes."""
        out = run()
        dense = product.kind != "transposed" and product.groups == 1 and not product.flipped and not product.call
        for number in self._groups([product.x]):
            if not dense or (product.name, number) not in self._reads:
                self.bent.add(number)
            self.read.add((product.name, number))
        number = self._writes.get(product.name, -1)
        if number >= 0:
            if not dense:
                self.bent.add(number)
            self.written.add(product.name)
            self._carry([out], {number})
            self._fresh[id(out)] = product.name
            if isinstance(product.bias, nn.Parameter):
                self.biases[product.name] = self._names.get(id(product.bias), "")
        return out

    def function(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """One call of anything else."""
        taken, made = tensors_in((args, kwargs)), tensors_in(out)
        numbers = self._groups(taken)
        if not numbers or not made:
            return
        name = getattr(func, "__name__", "")
        if name not in _LINEAR:
            self.bent |= numbers
            return
        self._carry(made, numbers)
        if name == "batch_norm":
            self._normed(args, numbers)

    def end(self, out: Any) -> None:
        """What the model puts out is for others to read as it is."""
        self.bent |= self._groups(tensors_in(out))

    def _normed(self, args: Any, numbers: set[int]) -> None:
        x, mean, training = args[0], args[3], args[5]
        writer, name = self._fresh.get(id(x)), self._names.get(id(mean), "")
        if writer is None or not name or training or name.rpartition(".")[0] in self.norms.values():
            self.bent |= numbers
        else:
            self.norms[writer] = name.rpartition(".")[0]

    def _groups(self, tensors: Iterable[torch.Tensor]) -> set[int]:
        return set().union(*(self._carried.get(id(tensor), set()) for tensor in tensors))

    def _carry(self, tensors: Iterable[torch.Tensor], numbers: set[int]) -> None:
        for tensor in tensors:
            self._held.append(tensor)
            self._carried[id(tensor)] = self._carried.get(id(tensor), set()) | numbers
            self._fresh.pop(id(tensor), None)


def _stream(module: nn.Module, number: int, group: Group, seen: _Pass) -> Stream | None:
    """The group in these words; None where a tensor that it owns plays no part in them."""
    inputs = [piece for piece in group.slices if piece.role == "in"]
    outputs = [piece for piece in group.slices if piece.role == "out"]
    writers = tuple(
        Writer(piece, seen.biases.get(piece.tensor), seen.norms.get(piece.tensor))
        for piece in outputs
        if piece.tensor in seen.written
    )
    told = set().union(*(_tensors(module, writer) for writer in writers))
    if (
        inputs
        and all(piece.dim == 1 and (piece.tensor, number) in seen.read for piece in inputs)
        and all(len({len(its) for its in piece.indices}) == 1 for piece in inputs)
        and all(piece.tensor in told and all(len(its) == 1 for its in piece.indices) for piece in outputs)
    ):
        return Stream(group, writers, tuple(inputs))
    return None


def _tensors(module: nn.Module, writer: Writer) -> Iterator[str]:
    yield writer.weight.tensor
    if writer.bias is not None:
        yield writer.bias
    norm = None if writer.norm is None else module.get_submodule(writer.norm)
    if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.affine and norm.track_running_stats:
        yield from (f"{writer.norm}.{name}" for name, _ in named_tensors(norm))
