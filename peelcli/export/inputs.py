"""Other inputs than the example: other values, other batch sizes, still legal for the model."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import Dim
from torch.utils import _pytree as pytree

from peelcli import freesizes
from peelcli.errors import ExportError, UsageError
from peelcli.inputtext import InputSpec
from peelcli.onnxnames import OPEN_SIZES
from peelcli.tensors import is_list_of_samples, tensors_in

Sizes = Sequence[Mapping[int, str]]  # names of free sizes by dimension, for each argument


@dataclass(frozen=True, slots=True)
class Example:
    """The positional arguments of one forward call.

    Attributes:
        arguments: tensors, or nests of them; what is no tensor is a constant.
        batch: the leading size that the first tensor has; 0 where there is none.
    """

    arguments: tuple[Any, ...]
    batch: int

    @classmethod
    def of(cls, arguments: tuple[Any, ...]) -> Example:
        """Take the batch from the first tensor that has a dimension; a list of single samples has none."""
        listed = any(is_list_of_samples(value) for value in arguments)
        shaped = [tensor for tensor in tensors_in(arguments) if tensor.dim() and not listed]
        return cls(arguments, shaped[0].shape[0] if shaped else 0)

    def is_batched(self, leaf: Any) -> bool:
        """Whether a value is a tensor whose leading dimension is the batch."""
        return bool(self.batch) and isinstance(leaf, torch.Tensor) and leaf.dim() > 0 and leaf.shape[0] == self.batch

    def tensors(self) -> list[torch.Tensor]:
        """All tensors, in the order in which a graph takes them."""
        return tensors_in(self.arguments)

    def resized(self, batch: int) -> Example:
        """The same values, rows repeated or left out, so that the batch is `batch`."""
        rows = [row % self.batch for row in range(batch)] if self.batch else []
        return Example(self._mapped(lambda leaf: leaf[rows]), batch if self.batch else 0)

    def shuffled(self, batch: int, seed: int) -> Example:
        """Other values at another batch size.

        Floating tensors get the example's own values in another order, so that they keep their range (new normal
        ones where the example is constant). Integers and booleans get the example's rows in another order: an index,
        a length or a mask stays legal.

        Args:
            batch: rows; ignored where the example has no batch.
            seed: of the order.
        """
        generator = torch.Generator().manual_seed(seed)
        resized = self.resized(batch) if self.batch else self
        return Example(
            pytree.tree_map(lambda leaf: _shuffled(leaf, resized.is_batched(leaf), generator), resized.arguments),
            resized.batch,
        )

    def stretched(self, sizes: Sizes, steps: int) -> Example:
        """The same with some sizes of each argument larger: by its largest factor that is a power of two, each step.

        What a network divides its input by, and divided it by evenly, goes into the larger one evenly too.

        Args:
            sizes: for each argument, a tensor, the dimensions that change.
            steps: how often.
        """
        arguments = list(self.arguments)
        for place, dims in enumerate(sizes):
            for dim in dims:
                now = arguments[place].shape[dim]
                entries = torch.arange(now + steps * (now & -now)) % max(now, 1)
                arguments[place] = arguments[place].index_select(dim, entries)
        return Example(tuple(arguments), self.batch)

    def to(self, dtype: torch.dtype) -> Example:
        """Floating tensors in another precision."""

        def convert(leaf: Any) -> Any:
            return leaf.to(dtype) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

        return Example(pytree.tree_map(convert, self.arguments), self.batch)

    def _mapped(self, change: Any) -> tuple[Any, ...]:
        mapped: tuple[Any, ...] = pytree.tree_map(
            lambda leaf: change(leaf) if self.is_batched(leaf) else leaf, self.arguments
        )
        return mapped


def _shuffled(leaf: Any, is_batched: bool, generator: torch.Generator) -> Any:
    if not isinstance(leaf, torch.Tensor) or not leaf.numel():
        return leaf
    if leaf.is_floating_point():
        flat = leaf.detach().flatten()
        if bool((flat == flat[0]).all()):
            return torch.randn(leaf.shape, generator=generator).to(leaf.dtype)
        return flat[torch.randperm(flat.numel(), generator=generator)].reshape(leaf.shape)
    return leaf[torch.randperm(leaf.shape[0], generator=generator)] if is_batched else leaf


def bound(module: torch.nn.Module, example: Example) -> dict[str, Any]:
    """Positional arguments by the name that `forward` gives them."""
    return dict(inspect.signature(module.forward).bind(*example.arguments).arguments)


def dynamic_shapes(
    module: torch.nn.Module, example: Example, sizes: Sizes = (), *, named: bool = True
) -> dict[str, Any]:
    """What torch's exporters want to hear: which sizes are free.

    Args:
        module: for the names of its arguments.
        example: the leading size of every batched tensor is free.
        sizes: for each argument, a tensor, names of other free sizes by dimension.
        named: whether sizes of one name are equal and anything from 0; else torch finds what they may be.
    """
    batch = Dim("batch")
    shapes: dict[str, Any] = pytree.tree_map(
        lambda leaf: {0: batch} if example.is_batched(leaf) else None, bound(module, example)
    )
    for name, dims in zip(shapes, sizes, strict=False):
        free = {dim: Dim(_symbol(size)) if named else torch.export.Dim.DYNAMIC for dim, size in dims.items()}
        shapes[name] = {**(shapes[name] or {}), **free} or None
    return shapes


def _symbol(size: str) -> str:
    """A name that torch's exporter takes for a size, and that is none of its own."""
    name = re.sub(r"\W", "_", size)
    return name if name.isidentifier() and not re.fullmatch(r"batch|s\d+|u\d+", name) else f"size_{name}"


def open_sizes(module: torch.nn.Module) -> Sizes:
    """Sizes that the ONNX file that a model was made of leaves open beside the batch; none for other models."""
    found = module.meta.get(OPEN_SIZES) if isinstance(module, torch.fx.GraphModule) else None
    return found if found and any(found) else ()


def asked_sizes(module: torch.nn.Module, example: Example, texts: Sequence[str]) -> Sizes:
    """Sizes that the user wants open, by argument; none where nothing was asked.

    Args:
        module: for the names of its arguments.
        example: what the names and dimensions are looked up in.
        texts: as `peelcli.freesizes.parse` reads them.

    Raises:
        UsageError: there is no such input or dimension.
    """
    given = bound(module, example)
    names = [name for name, value in given.items() if isinstance(value, torch.Tensor)]
    sizes: dict[str, dict[int, str]] = {name: {} for name in given}
    for text in texts:
        free = freesizes.parse(text)
        known = free.name is None or free.name == "input"  # which is what the file calls the only one
        name = names[0] if known and len(names) == 1 else free.name or ""
        if name not in names:
            asked = f"the model has no input {name}" if name else "the model has several inputs"
            raise UsageError(f"--dynamic {text}: {asked}", hint=f"those that are tensors: {', '.join(names) or 'none'}")
        dims = given[name].dim()
        wrong = [dim for dim in free.labels if dim >= dims]
        if wrong:
            raise UsageError(
                f"--dynamic {text}: {name} has no dimension {wrong[0]}", hint=f"it has {dims}; 0 is the batch"
            )
        sizes[name] = {dim: label or f"{name}_{dim}" for dim, label in free.labels.items()}
    return list(sizes.values()) if texts else ()


def all_open(module: torch.nn.Module, example: Example, texts: Sequence[str]) -> tuple[Sizes, bool]:
    """Sizes to leave open: those that the model's own file does and those asked for, by the labels of these.

    Returns:
        The sizes, and whether any was asked for: then a file without them is none that the user wants.
    """
    known, asked = open_sizes(module), asked_sizes(module, example, texts)
    both = [{**one, **other} for one, other in zip(known, asked, strict=True)] if known and asked else known or asked
    return both, bool(asked)


def labels(sizes: Sizes) -> str:
    """What open sizes are called."""
    return ", ".join(dict.fromkeys(size for dims in sizes for size in dims.values()))


def not_open(sizes: Sizes, reason: str) -> ExportError:
    """What is said where sizes that were asked for can't be had."""
    hint = "leave --dynamic away, or name other dimensions"
    return ExportError(f"{labels(sizes)} can't stay open: {reason}", hint=hint)


def shapes_to_say(module: torch.nn.Module, example: Example, asked: bool = False) -> tuple[InputSpec, ...]:
    """What has to be said to whoever runs the model's ONNX file: the example's shapes, where sizes are open."""
    open_ = asked or open_sizes(module)
    return tuple(InputSpec(tuple(tensor.shape)) for tensor in example.tensors()) if open_ else ()


def run(module: torch.nn.Module, example: Example, seed: int = 0) -> list[torch.Tensor]:
    """The tensors that one forward call returns."""
    return tensors_in(returned(module, example, seed))


def returned(module: torch.nn.Module, example: Example, seed: int = 0) -> Any:
    """What one forward call returns, without gradients; random layers draw the same numbers each time."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return module(*example.arguments)
