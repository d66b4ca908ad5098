"""Puts the module together, call by call; an empty example of every tensor says its shape and type on the way."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from peelcli import onnxnames
from peelcli.errors import SourceError
from peelcli.sources.onnxfile import layers, naming
from peelcli.sources.onnxfile.values import Constant, Number, Sizes, Unsupported, Value, as_sizes, example_of

LARGEST = 2**31  # entries of one tensor for one sample; more is damage, or an attack
MOST_SIZES = 64  # that are computed one by one; a tensor of them has no more
ODD_BATCH = 1009  # a batch for examples: a prime, so that a size is a multiple of it only where it holds the batch


class Builder:
    """One module in the making.

    Attributes:
        batch: the batch of the examples: ODD_BATCH, or the file's own where that can't change.
        fixed: the batch that the file's constants were made for.
        follow: whether sizes that hold `fixed` are to follow the input's batch.
        settled: whether only the batch may change: then all other sizes are numbers that layers keep, and may lower.
        wishes: names that suit the layer of the node at hand, the best first.
    """

    def __init__(self, batch: int, fixed: int, follow: bool, settled: bool, names: Iterable[str] = ()) -> None:
        self.batch, self.fixed, self.follow, self.settled = batch, fixed, follow, settled
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.wishes: tuple[str, ...] = ()
        self.kind = "node"
        self._names = naming.Names(names)
        self._shared: dict[tuple[str, bool], nn.Parameter] = {}
        self._placed: dict[tuple[int, torch.dtype], fx.Node] = {}
        self._kept: list[Constant] = []  # so that no id is used twice
        self._sizes: dict[tuple[fx.Node, int], Number] = {}

    # --- calls

    def placeholder(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> fx.Node:
        """An input of the module."""
        node = self.graph.placeholder(name)
        node.meta["val"] = torch.empty(tuple(shape), dtype=dtype, device="meta")
        return node

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """A function of tensors and plain numbers."""
        node = self.graph.call_function(function, args, kwargs)
        return self._with_example(node, function)

    def method(self, name: str, *args: Any, **kwargs: Any) -> fx.Node:
        """A method of the first argument."""
        node = self.graph.call_method(name, args, kwargs)
        return self._with_example(node, lambda x, *rest, **named: getattr(x, name)(*rest, **named))

    def module(self, module: nn.Module, *args: Any, name: str = "") -> fx.Node:
        """A layer, placed under a name of its own."""
        path = self.place(module, name)
        node = self.graph.call_module(path, args)
        tensors = dict(module.named_parameters()) | dict(module.named_buffers())
        empty = {key: torch.empty_like(value, device="meta") for key, value in tensors.items()}
        was = module.training
        module.eval()
        node = self._with_example(node, lambda *values: torch.func.functional_call(module, empty, values))
        module.train(was)
        return node

    def place(self, thing: nn.Module | Tensor, name: str = "") -> str:
        """Put a layer, a parameter or a buffer into the module.

        Returns:
            Its path.
        """
        path = self._names.free((name,) if name else self.wishes, self.kind.lower())
        owner, _, last = path.rpartition(".")
        inside = self.root
        for part in owner.split(".") if owner else ():
            if part not in inside._modules:
                inside.add_module(part, nn.Module())
            inside = inside.get_submodule(part)
        if isinstance(thing, nn.Module):
            inside.add_module(last, thing)
        elif isinstance(thing, nn.Parameter):
            inside.register_parameter(last, thing)
        else:
            inside.register_buffer(last, thing)
        return path

    def _with_example(self, node: fx.Node, act: Callable[..., Any]) -> fx.Node:
        args = fx.map_arg(node.args, lambda n: n.meta["val"])
        kwargs = fx.map_arg(node.kwargs, lambda n: n.meta["val"])
        with torch.no_grad(), torch.device("meta"):
            value = act(*args, **kwargs)
        for tensor in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(tensor, Tensor):
                self.check_size(tensor.shape)
        node.meta["val"] = value
        return node

    def check_size(self, shape: Iterable[int]) -> None:
        """Refuse a tensor that no memory holds."""
        entries = math.prod(shape)
        while self.batch == ODD_BATCH and entries and not entries % ODD_BATCH:
            entries //= ODD_BATCH
        if entries > LARGEST:
            raise SourceError(f"makes a tensor of {entries} entries")

    # --- values

    def tensor(self, value: Value) -> fx.Node:
        """Any value as a tensor of the module."""
        if isinstance(value, fx.Node):
            return value
        if isinstance(value, Constant):
            return self._placed_constant(value)
        if value.size > MOST_SIZES:
            raise Unsupported(f"uses a table of {value.size} sizes as a tensor")
        fixed, given = self.parts(value.reshape(-1))
        return self.module(layers.Numbers(fixed, value.shape), *given)

    def operand(self, value: Value, other: Value) -> Any:
        """A side of an elementwise op: a plain number where that means the same, so that it fits any precision."""
        if isinstance(value, fx.Node):
            return value
        rank = example_of(other).dim() if isinstance(other, fx.Node) else 0
        if isinstance(value, Constant) and value.tensor.numel() == 1 and value.tensor.dim() <= rank:
            return value.tensor.item()
        if not isinstance(value, Constant) and value.size == 1 and value.ndim <= rank:
            return self.argument(value.reshape(-1)[0])
        return self.tensor(value)

    def argument(self, entry: Any) -> Any:
        """One entry of sizes as an argument of a call."""
        return entry.node if isinstance(entry, Number) else int(entry)

    def parts(self, entries: Iterable[Any]) -> tuple[list[int], list[fx.Node]]:
        """Sizes as a layer keeps them, and the nodes of those that it is given."""
        listed = list(entries)
        given = [entry.node for entry in listed if isinstance(entry, Number)]
        return [layers.GIVEN if isinstance(entry, Number) else int(entry) for entry in listed], given

    def _placed_constant(self, constant: Constant) -> fx.Node:
        key = (id(constant), constant.tensor.dtype)
        if key not in self._placed:
            self._kept.append(constant)
            origin = constant.name or constant.origin
            stored: Tensor = constant.tensor
            if _is_trained(constant):
                stored = self.parameter(constant)
            path = self.place(stored, origin if onnxnames.says_something(origin) else "")
            node = self.graph.get_attr(path)
            node.meta["val"] = torch.empty_like(constant.tensor, device="meta")
            self._placed[key] = node
        return self._placed[key]

    def parameter(self, constant: Constant) -> nn.Parameter:
        """A weight; matrices and filters that the file uses twice are one parameter.

        Vectors are not: exporters merge biases and norms that only happen to be equal.
        """
        tied = bool(constant.name) and constant.tensor.dim() > 1
        key = (constant.name, constant.flipped)
        if tied and key in self._shared:
            return self._shared[key]
        floating = constant.tensor.is_floating_point()
        made = nn.Parameter(constant.tensor.clone(memory_format=torch.contiguous_format), requires_grad=floating)
        if tied:
            self._shared[key] = made
        return made

    # --- sizes

    def size(self, node: fx.Node, dim: int) -> Number | int:
        """One size of a tensor: read when the module runs, unless it can't change."""
        found = int(example_of(node).shape[dim])
        if self.settled and not (self.holds_batch(found) if self.batch == ODD_BATCH else found == self.fixed):
            return found
        if (node, dim) not in self._sizes:
            shape = self.graph.call_function(getattr, (node, "shape"))
            entry = self.graph.call_function(operator.getitem, (shape, dim))
            entry.meta["val"] = found
            self._sizes[node, dim] = Number(entry, found, self.arithmetic)
        return self._sizes[node, dim]

    def arithmetic(self, op: str, number: Number, other: Number | int) -> Number:
        """A size and another, or a size and a fixed number, which the layer keeps as its attribute."""
        args: tuple[fx.Node, ...]
        if isinstance(other, Number):
            layer, args, second = layers.Arithmetic(op, layers.GIVEN), (number.node, other.node), other.example
        else:
            layer, args, second = layers.Arithmetic(op, other), (number.node,), other
        divisor = number.example if op.startswith("r") else second
        if op.endswith(("div", "mod")) and divisor == 0:
            raise Unsupported("divides by a size of zero")
        path = self.place(layer, "sizes.n")
        node = self.graph.call_module(path, args)
        node.meta["val"] = layer(number.example, *((second,) if len(args) > 1 else ()))
        return Number(node, node.meta["val"], self.arithmetic)

    def holds_batch(self, size: int) -> bool:
        """Whether a size of an example is a multiple of the batch that can change."""
        return self.batch == ODD_BATCH and size > 0 and size % ODD_BATCH == 0

    def frozen(self, entry: Any) -> Any:
        """A size that does not hold the batch as the plain number that it is in this file."""
        if isinstance(entry, Number) and not self.holds_batch(entry.example):
            return entry.example
        return entry

    def finish(self, outputs: Sequence[fx.Node]) -> fx.GraphModule:
        """The module; what nothing reads is left out."""
        self.graph.output(outputs[0] if len(outputs) == 1 else tuple(outputs))
        module = fx.GraphModule(self.root, self.graph, class_name="OnnxGraph")
        module.graph.eliminate_dead_code()
        for node in module.graph.nodes:
            node.meta.clear()
        module.delete_all_unused_submodules()
        module.recompile()
        return module.eval()


def _is_trained(constant: Constant) -> bool:
    """Whether a constant can be a parameter: an initializer of the model with finite floating numbers."""
    origin = constant.name or constant.origin
    tensor = constant.tensor
    return (
        onnxnames.says_something(origin)
        and tensor.is_floating_point()
        and tensor.numel() > 1
        and bool(torch.isfinite(tensor).all())
    )


def only_sizes(value: Value) -> Sizes:
    """Whole numbers one by one.

    Raises:
        Unsupported: they come out of a computation on tensors.
    """
    sizes = as_sizes(value)
    if sizes is None:
        raise Unsupported("takes sizes that are computed from values, not from shapes")
    return sizes
