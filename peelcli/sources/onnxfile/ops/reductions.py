"""Sums, means and other figures over some dimensions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from peelcli.sources.onnxfile.builder import Builder
from peelcli.sources.onnxfile.ops.base import Op, dim_of, first, rank, rule
from peelcli.sources.onnxfile.values import Unsupported, Value, example_of

_POOLS: dict[int, Any] = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
_REDUCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceLogSumExp": torch.logsumexp,
}


def _axes(op: Op, dims: int) -> tuple[int, ...] | None:
    """The dimensions to reduce, sorted; None where there is nothing to do."""
    found = op.ints("axes", 1)
    if not found:
        return None if op.get("noop_with_empty_axes", 0) else tuple(range(dims))
    return tuple(sorted({dim_of(axis, dims) for axis in found}))


@rule(*_REDUCTIONS)
def reduce(builder: Builder, op: Op) -> Value:
    """The mean over all spatial dimensions is a pooling layer."""
    x = first(builder, op)
    dims, keep = rank(x), bool(op.get("keepdims", 1))
    axes = _axes(op, dims)
    if axes is None or not dims:
        return x
    if op.kind == "ReduceMean" and keep and axes == tuple(range(2, dims)) and dims - 2 in _POOLS:
        return builder.module(_POOLS[dims - 2](1), x)
    return builder.call(_REDUCTIONS[op.kind], x, axes, keep)


@rule("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceProd", "ReduceLogSum")
def reduce_other(builder: Builder, op: Op) -> Value:
    """Norms and products."""
    x = first(builder, op)
    dims, keep = rank(x), bool(op.get("keepdims", 1))
    axes = _axes(op, dims)
    if axes is None:
        return x
    if op.kind in ("ReduceL1", "ReduceL2"):
        return builder.call(torch.linalg.vector_norm, x, int(op.kind[-1]), axes, keep)
    if op.kind == "ReduceSumSquare":
        return builder.call(torch.sum, builder.call(torch.square, x), axes, keep)
    if op.kind == "ReduceLogSum":
        return builder.call(torch.log, builder.call(torch.sum, x, axes, keep))
    for axis in reversed(axes):
        x = builder.call(torch.prod, x, axis, keep)
    return x


@rule("ArgMax", "ArgMin")
def arg(builder: Builder, op: Op) -> fx.Node:
    """The position of the first extreme."""
    if op.get("select_last_index", 0):
        raise Unsupported("looks for the last of equal entries")
    function = torch.argmax if op.kind == "ArgMax" else torch.argmin
    return builder.call(function, first(builder, op), int(op.get("axis", 0)), bool(op.get("keepdims", 1)))


@rule("CumSum")
def cumulative(builder: Builder, op: Op) -> fx.Node:
    """Running sums along an axis."""
    axis = op.number(1)
    if axis is None or op.get("exclusive", 0) or op.get("reverse", 0):
        raise Unsupported("is a running sum that is exclusive, reversed or along a computed axis")
    x = first(builder, op)
    return builder.call(torch.cumsum, x, int(axis), dtype=None if example_of(x).is_floating_point() else torch.int64)


@rule("TopK")
def top(builder: Builder, op: Op) -> tuple[Value, ...]:
    """The largest entries and their positions."""
    count = op.number(1)
    if count is None:
        raise Unsupported("takes a computed number of entries")
    axis, largest = int(op.get("axis", -1)), bool(op.get("largest", 1))
    made = builder.call(torch.topk, first(builder, op), int(count), axis, largest, bool(op.get("sorted", 1)))
    return part(builder, made, 0), part(builder, made, 1)


def part(builder: Builder, made: fx.Node, position: int) -> fx.Node:
    """One of several results of a call."""
    return builder.call(operator.getitem, made, position)
