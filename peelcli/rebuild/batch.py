"""A batch that was fixed by the export, made to follow the input.

A program exported with one sample has that 1 in its views. Each tensor's batch is followed through the graph, run once
at twice the size: which dimension it lies in, and how many entries of that dimension are counted outside of it. Where
a view merges or splits dimensions, that says which of its sizes must grow. Two readings can be left where the batch
falls between two sizes; whether the choice was right is seen by comparing rows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from peelcli.rebuild.calls import bound, operator_name, shape_of
from peelcli.rebuild.compare import difference, run
from peelcli.rebuild.shapes import RESHAPES, set_sizes
from peelcli.tensors import tensors_in

_MAKERS = ("aten.zeros.default", "aten.ones.default", "aten.full.default")


@dataclass(frozen=True)
class _Place:
    """Where the batch lies: in dimension `dim`, with `outer` entries of it outside the batch."""

    dim: int
    outer: int


class _Lost(Exception):
    """The batch can't be followed."""


def is_dynamic(module: fx.GraphModule) -> bool:
    """Whether an input's leading size was exported as free."""
    shapes = [shape_of(node) for node in module.graph.nodes if node.op == "placeholder"]
    return any(shape and type(shape[0]) is not int for shape in shapes)


def size_of(inputs: Sequence[Any]) -> int:
    """The leading size of the first tensor; 0 where there is none."""
    return next((t.shape[0] for t in tensors_in(tuple(inputs)) if t.dim()), 0)


def plans(module: fx.GraphModule, inputs: Sequence[Any]) -> Iterator[tuple[fx.Graph, bool]]:
    """Graphs to try, the best first, each with whether its batch was made to follow; the last is as exported."""
    if not is_dynamic(module) and size_of(inputs):
        for spreads in (True, False):
            double = fx.GraphModule(module, copy.deepcopy(module.graph))  # the weights are shared
            try:
                with torch.no_grad(), torch.random.fork_rng(devices=[]):
                    _Follow(double, size_of(inputs), spreads).run(*doubled(inputs))
            except Exception:  # an operator refuses: the batch went the wrong way
                continue
            yield double.graph, True
    yield copy.deepcopy(module.graph), False


def doubled(inputs: Sequence[Any]) -> list[Any]:
    """Inputs with twice the batch: the rows, then the same rows in reversed order of their values."""
    size = size_of(inputs)
    return [torch.cat([x, _other(x)]) if _is_batched(x, size) else x for x in inputs]


def _other(x: torch.Tensor) -> torch.Tensor:
    """Other values that are legal where x is: its own, from back to front along the last dimension."""
    return x.flip(-1) if x.dim() > 1 else x.clone()


def _is_batched(value: Any, size: int) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == size


def rows_agree(module: nn.Module, inputs: tuple[Any, ...], tolerance: float) -> bool:
    """Whether both halves of a doubled batch come out as they do alone."""
    size = size_of(inputs)
    second = tuple(_other(x) if _is_batched(x, size) else x for x in inputs)
    try:
        both = run(module, tuple(doubled(inputs)))
        alone = run(module, inputs), run(module, second)
    except Exception:  # a size that did not follow
        return False
    halves: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for whole, single in zip(both, alone[0], strict=True):
        dim = next((d for d, s in enumerate(single.shape) if whole.dim() > d and whole.shape[d] == 2 * s), None)
        parts = whole.chunk(2, dim) if dim is not None else (whole, whole)
        for half, part in zip(halves, parts, strict=True):
            half.append(part)
    return all(difference(half, one) <= tolerance for half, one in zip(halves, alone, strict=True))


class _Follow(fx.Interpreter):
    """Runs the graph at twice the batch and rewrites the sizes that stand in its way."""

    def __init__(self, module: fx.GraphModule, size: int, spreads: bool) -> None:
        super().__init__(module)
        self.whole = module.graph
        self.size = size
        self.spreads = spreads  # whether what is made or expanded to the batch follows it
        self.places: dict[fx.Node, Any] = {}
        self.batch: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        """Decide the sizes of a call before it runs, and where its result's batch lies after."""
        self._rewrite(n)
        result = super().run_node(n)
        self.places[n] = self._place_in(n, result)
        return result

    def _place_in(self, node: fx.Node, result: Any) -> Any:
        value = node.meta.get("val")
        if isinstance(result, (tuple, list)) and isinstance(value, (tuple, list)):
            return [self._compare(node, r, v) for r, v in zip(result, value, strict=False)]
        if operator_name(node) == "" and node.op == "call_function" and len(node.args) == 2:  # operator.getitem
            source = self.places.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None
            if isinstance(source, list) and isinstance(node.args[1], int):
                return source[node.args[1]]
        return self._compare(node, result, value)

    def _compare(self, node: fx.Node, result: Any, exported: Any) -> _Place | None:
        if not isinstance(result, torch.Tensor) or not isinstance(exported, torch.Tensor):
            return None
        if result.dim() != exported.dim():
            raise _Lost
        grown = [d for d, (new, old) in enumerate(zip(result.shape, exported.shape, strict=True)) if new != old]
        if not grown:
            return None
        if len(grown) > 1 or result.shape[grown[0]] != 2 * exported.shape[grown[0]]:
            raise _Lost
        dim = grown[0]
        known = node.meta.get("outer")
        if known is not None:
            return _Place(dim, known)
        for source in node.all_input_nodes:
            place, shape = self.places.get(source), shape_of(source)
            if isinstance(place, _Place) and shape and shape[place.dim] == exported.shape[dim]:
                return _Place(dim, place.outer)
        return _Place(dim, 1)

    def _rewrite(self, node: fx.Node) -> None:
        name = operator_name(node)
        if name in RESHAPES:
            self._reshape(node, list(bound(node)[RESHAPES[name]]))
        elif name == "aten.unflatten.int":
            self._unflatten(node)
        elif name == "aten.expand.default":
            self._expand(node)
        elif name in _MAKERS and self.spreads:
            sizes = list(bound(node)["size"])
            if sizes[:1] == [self.size]:
                set_sizes(node, [self._batch_node(), *sizes[1:]])
        elif name == "aten.repeat.default" and self.spreads:
            repeats, shape = list(bound(node)["repeats"]), shape_of(node.args[0])
            alone = shape is not None and len(shape) == len(repeats) and shape[0] == 1
            if alone and repeats[0] == self.size and self._place_of(node.args[0]) is None:
                set_sizes(node, [self._batch_node(), *repeats[1:]])

    def _reshape(self, node: fx.Node, sizes: list[Any]) -> None:
        place, shape, target = self._source(node)
        if place is None or shape is None or target is None:
            return
        before = math.prod(shape[: place.dim]) * place.outer
        at, outer = self._grown(before, target)
        sizes = list(target) if -1 in sizes else sizes
        sizes[at] = -1
        set_sizes(node, sizes)
        node.meta["outer"] = outer

    def _unflatten(self, node: fx.Node) -> None:
        place, shape, target = self._source(node)
        if place is None or shape is None or target is None:
            return
        arguments = bound(node)
        dim, count = arguments["dim"] % len(shape), len(arguments["sizes"])
        if place.dim != dim:
            return
        at, outer = self._grown(place.outer, target[dim : dim + count])
        sizes = list(target[dim : dim + count])
        sizes[at] = -1
        set_sizes(node, sizes)
        node.meta["outer"] = outer

    def _source(self, node: fx.Node) -> tuple[_Place | None, tuple[Any, ...] | None, tuple[Any, ...] | None]:
        return self._place_of(node.args[0]), shape_of(node.args[0]), shape_of(node)

    def _place_of(self, source: Any) -> _Place | None:
        place = self.places.get(source) if isinstance(source, fx.Node) else None
        return place if isinstance(place, _Place) else None

    def _grown(self, before: int, target: Sequence[int]) -> tuple[int, int]:
        """Which of the target's sizes holds the batch, with how many entries outside; see the module's docstring."""
        found = []
        for at, size in enumerate(target):
            left = math.prod(target[:at])
            outer, rest = divmod(before, left)
            if not rest and outer >= 1 and size % (outer * self.size) == 0:
                found.append((size != self.size, at == len(target) - 1, outer != 1, at, outer))
        if not found:
            raise _Lost
        *_, at, outer = min(found)
        return at, outer

    def _expand(self, node: fx.Node) -> None:
        """Sizes that the input has anyway are kept by -1; a leading 1 that becomes the batch follows it."""
        arguments, shape = bound(node), shape_of(node.args[0])
        if shape is None:
            return
        sizes = list(arguments["size"])
        new = len(sizes) - len(shape)
        for at, size in enumerate(sizes):
            if at >= new and size == shape[at - new] and (size != 1 or at or self._place_of(node.args[0])):
                sizes[at] = -1
        if self.spreads and sizes[0] == self.size and self._place_of(node.args[0]) is None:
            sizes[0] = self._batch_node()
        set_sizes(node, sizes)

    def _batch_node(self) -> fx.Node:
        if self.batch is None:
            graph = self.whole
            places = [node for node in graph.nodes if node.op == "placeholder"]
            source = next(node for node in places if (shape_of(node) or (None,))[0] == self.size)
            with graph.inserting_after(places[-1]):
                self.batch = graph.call_method("size", (source, 0))
            self.env[self.batch] = 2 * self.size
        return self.batch
