"""Seeing what a forward pass does: every aten op for its labels, every torch function for the sizes it is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from peelcli.graph.labels import (  # noqa: F401  # importing the rules registers them
    convolution_rules,
    image_rules,
    mixing_rules,
    norm_rules,
    pick_rules,
    pointwise_rules,
    product_rules,
    shape_rules,
    slots,
)
from peelcli.graph.labels.call import RULES, Call, Rule
from peelcli.graph.labels.factors import Labels
from peelcli.graph.labels.run import LabelRun
from peelcli.graph.labels.sizes import Dim, Op, Source, Tracked
from peelcli.products import python_functions_open


class OpMode(TorchDispatchMode):
    """Runs every aten op and then its rule."""

    def __init__(self, run: LabelRun) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.run = run

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.run.check_time()
        name = func._overloadpacket.__name__
        follow = _rule_for(func, name)
        if follow is None:
            with self:
                out = func.decompose(*args, **kwargs)
                if out is not NotImplemented:
                    return out
        values, order = _by_name(func, args, kwargs)
        before = {key: labels for key, value in values.items() if (labels := self._labels(value)) is not None}
        shapes = {key: _shape(values[key]) for key in before}
        out = func(*args, **kwargs)
        op = _plain(name)
        self.run.counts[op] += 1
        call = Call(op, values, order, out, before, shapes)
        (follow or pointwise_rules.unknown)(self.run, call)
        return out

    def _labels(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.run.of(value)
        if isinstance(value, (list, tuple)) and any(isinstance(item, torch.Tensor) for item in value):
            return [self.run.of(item) if isinstance(item, torch.Tensor) else None for item in value]
        return None


def _plain(name: str) -> str:
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _rule_for(func: Any, name: str) -> Rule | None:
    found = RULES.get(_plain(name))
    if found is None and torch.Tag.pointwise in func.tags:
        return pointwise_rules.pointwise
    return found


def _by_name(func: Any, args: Any, kwargs: Any) -> tuple[dict[str, Any], dict[str, int]]:
    values, order = {}, {}
    for k, argument in enumerate(func._schema.arguments):
        order[argument.name] = k
        if k < len(args):
            values[argument.name] = args[k]
        else:
            values[argument.name] = kwargs.get(argument.name, argument.default_value)
    return values, order


def _shape(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    return [tuple(item.shape) if isinstance(item, torch.Tensor) else () for item in value]


class SizeMode(TorchFunctionMode):
    """Hands out sizes that remember their tensor, and notes where sizes are put to use."""

    def __init__(self, run: LabelRun) -> None:
        super().__init__()
        self.run = run

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _SHAPES:
            return self._tracked_shape(args[0], func(*args, **kwargs))
        if func is torch.Tensor.size or func is torch.Tensor.numel or func is torch.Tensor.nelement:
            return self._tracked_size(func, args, kwargs)
        name = getattr(func, "__name__", "")
        slots.before(self.run, name, args, kwargs)
        outer, self.run.function = self.run.function, name
        self.run.groups_of_conv = None
        try:
            out = func(*args, **kwargs)
        finally:
            self.run.function = outer
        slots.after(self.run, name, args, kwargs, out)
        return out

    def _tracked_shape(self, tensor: torch.Tensor, shape: torch.Size) -> torch.Size:
        return torch.Size([self._size(tensor, dim, size) for dim, size in enumerate(shape)])

    def _size(self, tensor: torch.Tensor, dim: int, size: int) -> int:
        factor = self.run.of(tensor).along(dim)
        return size if factor is None else Tracked(size, Dim(factor, dim))

    def _tracked_size(self, func: Any, args: Any, kwargs: Any) -> Any:
        tensor, value = args[0], func(*args, **kwargs)
        if isinstance(value, torch.Size):
            return self._tracked_shape(tensor, value)
        if func is torch.Tensor.size:
            dim = args[1] if len(args) > 1 else kwargs["dim"]
            return self._size(tensor, dim % max(tensor.dim(), 1), value) if isinstance(dim, int) else value
        source: Source | int = 1
        for dim, size in enumerate(tensor.shape):
            part = self._size(tensor, dim, size)
            source = Op(int.__mul__, (source, part.source if isinstance(part, Tracked) else size))
        return value if isinstance(source, int) else Tracked(value, source)


_SHAPES = (torch.Tensor.shape.__get__,)  # type: ignore[attr-defined]


@contextmanager
def watching(run: LabelRun, module: nn.Module) -> Iterator[None]:
    """Everything that runs inside is followed."""
    with ExitStack() as stack:
        stack.enter_context(run.hooks(module))
        stack.enter_context(python_functions_open())
        stack.enter_context(torch.no_grad())
        stack.enter_context(OpMode(run))
        stack.enter_context(SizeMode(run))
        yield


def mark_inputs(run: LabelRun, tensors: list[torch.Tensor]) -> None:
    """Inputs have no labels and are no weights."""
    for tensor in tensors:
        run.put(tensor, Labels((), weight=0))
