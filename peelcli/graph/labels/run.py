"""One forward pass under which every tensor carries labels: what the rules know and what they write down."""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

from peelcli.graph.labels import factors as fac
from peelcli.graph.labels.classes import FIXED, Classes, Ids, Obstacle
from peelcli.graph.labels.factors import PLAIN, Factor, Labels
from peelcli.graph.labels.sizes import Attr, Source
from peelcli.tensors import named_tensors, parent_of, tensors_in

_OWN = str(Path(__file__).resolve().parents[2]) + os.sep
_START = str(Path(__file__).with_name("trace.py"))
_TORCH = str(Path(torch.__file__).parent) + os.sep


@dataclass(frozen=True, slots=True, eq=False)
class Extent:
    """The size of one dimension; `factor` says which labels lie along it, None where none does."""

    size: int
    factor: Factor | None
    dim: int


@dataclass(frozen=True, slots=True)
class Product:
    """Multiply-adds of one op: coefficient * product of extents.

    Attributes:
        layer: path of the module that ran it.
        weighted: whether one side is a weight, not two activations.
    """

    layer: str
    op: str
    coefficient: int
    extents: tuple[Extent, ...]
    weighted: bool


@dataclass(frozen=True, slots=True)
class Blend:
    """An op without weights whose result depends on all channels together: a norm, a mean, a softmax, a product.

    Attributes:
        op: name of the aten op, and `call` which of its calls in the forward pass, from 0.
        operands: (argument, dimension) of every tensor that is read along the channels.
        out: dimension of the first output that has the channels too, or -1.
    """

    op: str
    call: int
    layer: str
    operands: tuple[tuple[int, int], ...]
    out: int
    extent: Extent


@dataclass(frozen=True, slots=True)
class Slot:
    """A size in the code, and the entries that it must count after a cut.

    Attributes:
        extent: what it counts; None where it must stay `size`.
        soft: whether the model may still be right where it does not hold (a comparison in the code).
    """

    source: Source | int
    extent: Extent | None
    obstacle: Obstacle
    size: int = 0
    soft: bool = False


@dataclass(frozen=True, slots=True)
class CallShape:
    """What went into a module and came out of it, as extents."""

    inputs: tuple[Extent, ...]
    outputs: tuple[Extent, ...]


@dataclass
class Findings:
    """What one or several passes over the same parameters found."""

    classes: Classes = field(default_factory=Classes)
    entries: dict[tuple[str, int], Ids] = field(default_factory=dict)  # labels along every dimension of every tensor
    read: set[tuple[str, int]] = field(default_factory=set)  # dimensions that a contraction reads
    made: dict[tuple[str, int], int] = field(default_factory=dict)  # dimensions that make channels -> order
    first_wild: int = 0
    products: list[Product] = field(default_factory=list)
    blends: list[Blend] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    joints: dict[bytes, Factor] = field(default_factory=dict)
    calls: dict[tuple[str, int], CallShape] = field(default_factory=dict)
    ran: dict[str, int] = field(default_factory=dict)  # module paths in the order in which they ran
    integers: dict[Attr, int] = field(default_factory=dict)  # every tracked attribute as it is


class LabelRun:
    """The state of one pass: labels of living tensors, and where in the model the pass is."""

    def __init__(self, module: nn.Module, found: Findings, deadline: float) -> None:
        self.found = found
        self.classes = found.classes
        self.deadline = deadline
        self.stack: list[str] = [""]
        self.counts: dict[str, int] = defaultdict(int)
        self.called: dict[str, int] = defaultdict(int)
        self.function = ""  # the torch function that user code called, whose ops are being seen
        self.groups_of_conv: Extent | None = None
        self._table: Any = WeakTensorKeyDictionary()
        self._register(module)

    def _register(self, module: nn.Module) -> None:
        for name, tensor in named_tensors(module):
            factors = []
            kernel = isinstance(parent_of(module, name)[0], nn.modules.conv._ConvNd)  # of its weight no place can go
            for dim, size in enumerate(tensor.shape[:2] if kernel else tensor.shape):
                ids = self.found.entries.get((name, dim))
                if ids is None and size > 1:
                    ids = self.found.entries[name, dim] = self.classes.fresh(size)
                if ids is not None and size > 1:
                    factors.append(ids.reshape([-1 if d == dim else 1 for d in range(tensor.dim())]))
            self._table[tensor] = Labels(tuple(factors), weight=PLAIN)
        pairs = sorted((int(ids[0]), place) for place, ids in self.found.entries.items())
        self._starts = np.array([start for start, _ in pairs], dtype=np.int64)
        self._places = [place for _, place in pairs]
        self.found.first_wild = self.found.first_wild or self.classes.count

    # --- labels

    def of(self, tensor: torch.Tensor) -> Labels:
        """The labels of a tensor, without the dimensions that have become one class."""
        labels = self._table.get(tensor)
        if labels is None:
            return Labels((), weight=PLAIN)
        settled = tuple(fac.settled(f, self.classes) for f in labels.factors)
        return Labels(tuple(f for f in settled if fac.varying(f)), labels.weight)

    def put(self, tensor: torch.Tensor, labels: Labels) -> None:
        """Say what a tensor carries; factors that came to vary along one dimension together are locked."""
        kept: list[Factor] = []
        used: set[int] = set()
        for factor in sorted(labels.factors, key=self.is_wild):
            dims = set(fac.varying(factor))
            if not dims:
                continue
            assert all(s in (1, t) for s, t in zip(factor.shape, tensor.shape, strict=True)), "a factor does not fit"
            if dims & used:
                if not self.is_wild(factor):
                    self.lock([factor, *kept], "two sets of channels come to lie in one dimension")
                continue
            used |= dims
            kept.append(factor)
            if len(dims) > 1:
                self.joint(factor)
        self._table[tensor] = Labels(tuple(kept), labels.weight)

    def joint(self, factor: Factor) -> None:
        """Note that what is removed has to stay rectangular in the dimensions of this factor."""
        self.found.joints.setdefault(factor.tobytes(), factor)

    def is_wild(self, factor: Factor) -> bool:
        """Whether all labels are those of uniform tensors (zeros, an expanded one) that nothing else claims."""
        return bool((self.classes.find(factor) >= self.found.first_wild).all())

    def uniform(self, tensor: torch.Tensor, dims: Sequence[int] | None = None) -> tuple[Factor, ...]:
        """New labels along all, or some, dimensions of a tensor that holds one value along them."""
        made = []
        for dim in range(tensor.dim()) if dims is None else dims:
            if tensor.shape[dim] > 1:
                ids = self.classes.fresh(tensor.shape[dim])
                made.append(ids.reshape([-1 if d == dim else 1 for d in range(tensor.dim())]))
        return tuple(made)

    # --- what stands in the way

    def obstacle(self, reason: str, remedy: str = "") -> Obstacle:
        """A reason with the place in the user's code."""
        layer = self.stack[-1]
        return Obstacle(f"{reason} in {layer}" if layer else reason, source_line(), remedy)

    def lock(self, factors: Sequence[Factor], reason: str, remedy: str = "") -> None:
        """Keep these labels."""
        free = [f for f in factors if fac.varying(f)]
        if free:
            obstacle = self.obstacle(reason, remedy)
            for factor in free:
                self.classes.lock(factor, obstacle)

    def collapse(self, factor: Factor, keep: Sequence[int], reason: str) -> Factor:
        """Tie what differs outside `keep`; see factors.collapse."""
        if all(dim in keep for dim in fac.varying(factor)):
            return factor
        return fac.collapse(factor, keep, self.classes, self.obstacle(reason))

    def off(self, factor: Factor, dims: Sequence[int], reason: str, remedy: str = "") -> Factor | None:
        """The factor with nothing along `dims`: tied where it is joint, locked (None) where it varies only there."""
        here = set(fac.varying(factor))
        touched = here & set(dims)
        if not touched:
            return factor
        if touched == here:
            self.lock([factor], reason, remedy)
            return None
        return self.collapse(factor, sorted(here - touched), reason)

    # --- what the cost and the proofs need

    def extent(self, tensor: torch.Tensor, dim: int) -> Extent:
        """The size of a dimension with the labels along it."""
        dim %= max(tensor.dim(), 1)
        return Extent(int(tensor.shape[dim]), self.of(tensor).along(dim), dim)

    def extents(self, tensor: torch.Tensor) -> tuple[Extent, ...]:
        """All sizes of a tensor."""
        labels = self.of(tensor)
        return tuple(Extent(int(size), labels.along(dim), dim) for dim, size in enumerate(tensor.shape))

    def product(self, op: str, coefficient: int, extents: Sequence[Extent], weighted: bool) -> None:
        """Note the multiply-adds of one op."""
        self.found.products.append(Product(self.stack[-1], op, coefficient, tuple(extents), weighted))

    def blend(self, op: str, operands: Sequence[tuple[int, int]], out: int, factor: Factor, dim: int) -> None:
        """Note an op without weights that mixes the channels of a factor."""
        extent = Extent(factor.shape[dim], factor, dim)
        self.found.blends.append(Blend(op, self.counts[op] - 1, self.stack[-1], tuple(operands), out, extent))

    def reads(self, factor: Factor) -> None:
        """A contraction reads along these entries of whatever parameter they are of."""
        self._mark(factor, self.found.read.add)

    def makes(self, factor: Factor) -> None:
        """A weight makes channels along these entries."""
        order = len(self.found.made)
        self._mark(factor, lambda place: self.found.made.setdefault(place, order))

    def _mark(self, factor: Factor, note: Any) -> None:
        ids = factor[(factor != FIXED) & (factor < self.found.first_wild)]
        for position in np.unique(self._starts.searchsorted(ids, side="right")).tolist():
            note(self._places[position - 1])

    # --- where the pass is

    @contextmanager
    def hooks(self, module: nn.Module) -> Iterator[None]:
        """Follow which module runs, and note the shapes of every leaf's calls."""
        handles = []
        for path, child in module.named_modules():
            handles.append(child.register_forward_pre_hook(self._entering(path)))
            handles.append(child.register_forward_hook(self._leaving(path), always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _entering(self, path: str) -> Any:
        def enter(_module: nn.Module, _args: Any) -> None:
            self.stack.append(path)
            self.found.ran.setdefault(path, len(self.found.ran))

        return enter

    def _leaving(self, path: str) -> Any:
        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self.stack.pop()
            if next(module.children(), None) is None:
                x, y = tensors_in(args)[:1], tensors_in(output)[:1]
                shape = CallShape(self.extents(x[0]) if x else (), self.extents(y[0]) if y else ())
                self.found.calls[path, self.called[path]] = shape
                self.called[path] += 1

        return leave

    def check_time(self) -> None:
        """Raise TimeoutError once the pass has used up its time."""
        if time.thread_time() > self.deadline:
            raise TimeoutError


def source_line() -> str:
    """The line of the user's code that is running, "file.py:12", without the folders of this machine."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file == _START:  # a graph without lines of its own
            return ""
        if not file.startswith((_OWN, _TORCH, "<")):
            return f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
