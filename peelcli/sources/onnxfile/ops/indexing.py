"""Entries by their positions."""

from __future__ import annotations

import torch
from torch import fx, nn

from peelcli.sources.onnxfile import layers
from peelcli.sources.onnxfile.builder import Builder
from peelcli.sources.onnxfile.ops.base import Op, dim_of, first, rank, rule
from peelcli.sources.onnxfile.ops.strided import as_reshape
from peelcli.sources.onnxfile.values import Constant, Unsupported, Value, example_of


@rule("Gather")
def gather(builder: Builder, op: Op) -> fx.Node:
    """A table of rows is an embedding; a single fixed position is a selection."""
    table, positions = op.value(0), op.value(1)
    axis = int(op.get("axis", 0))
    is_table = isinstance(table, Constant) and table.tensor.dim() == 2 and table.tensor.is_floating_point()
    if is_table and axis == 0 and isinstance(positions, fx.Node):
        assert isinstance(table, Constant)
        rows, columns = table.tensor.shape
        layer = nn.Embedding(rows, columns, device="meta", dtype=table.tensor.dtype)
        layer.weight = builder.parameter(table)
        return builder.module(layer, positions)
    x = builder.tensor(table)
    axis = dim_of(axis, rank(x))
    reshaped = as_reshape(builder, x, positions)
    if reshaped is not None:
        return reshaped
    if isinstance(positions, Constant):
        if not positions.tensor.dim():
            return builder.module(layers.Select(axis, int(positions.tensor)), x)
        found = positions.tensor.to(torch.int64)
        if bool((found < 0).any()):
            found = torch.where(found < 0, found + example_of(x).shape[axis], found)
        positions = Constant(found, origin=positions.name)
    at = builder.tensor(positions)
    if example_of(at).dtype not in (torch.int32, torch.int64):
        at = builder.method("to", at, torch.int64)
    return builder.module(layers.Take(axis), x, at)


@rule("GatherElements")
def gather_elements(builder: Builder, op: Op) -> fx.Node:
    """One position for each entry."""
    x, axis = first(builder, op), int(op.get("axis", 0))
    return builder.call(torch.gather, x, axis, _positions(builder, op.value(1)))


def _positions(builder: Builder, value: Value) -> fx.Node:
    node = builder.tensor(value)
    return node if example_of(node).dtype is torch.int64 else builder.method("to", node, torch.int64)


@rule("GatherND")
def gather_nd(builder: Builder, op: Op) -> fx.Node:
    """A position in several dimensions for each entry."""
    x, at = first(builder, op), _positions(builder, op.value(1))
    depth = example_of(at).shape[-1]
    if op.get("batch_dims", 0) or depth > rank(x):
        raise Unsupported("gathers inside batches")
    return builder.module(layers.TakeNd(depth), x, at)


@rule("ScatterND")
def scatter_nd(builder: Builder, op: Op) -> fx.Node:
    """Entries replaced at positions in several dimensions."""
    x, at, values = first(builder, op), _positions(builder, op.value(1)), builder.tensor(op.value(2))
    if op.get("reduction", "none") != "none":
        raise Unsupported(f"scatters with the reduction {op.get('reduction', '')}")
    return builder.module(layers.PutNd(example_of(at).shape[-1]), x, at, values)


@rule("ScatterElements")
def scatter_elements(builder: Builder, op: Op) -> fx.Node:
    """Entries replaced along an axis."""
    x, at, values = first(builder, op), _positions(builder, op.value(1)), builder.tensor(op.value(2))
    if op.get("reduction", "none") != "none":
        raise Unsupported(f"scatters with the reduction {op.get('reduction', '')}")
    return builder.call(torch.scatter, x, int(op.get("axis", 0)), at, values)


@rule("Trilu")
def triangle(builder: Builder, op: Op) -> fx.Node:
    """One side of the diagonal."""
    diagonal = op.number(1, 0)
    function = torch.triu if op.get("upper", 1) else torch.tril
    return builder.call(function, first(builder, op), int(diagonal or 0))


@rule("OneHot")
def one_hot(builder: Builder, op: Op) -> fx.Node:
    """One of two values in each entry, for fixed values and depth."""
    depth, values, axis = op.number(1), op.constant(2), int(op.get("axis", -1))
    if depth is None or values is None:
        raise Unsupported("has a computed depth")
    off, on = (Constant(entry) for entry in values.tensor)
    at = builder.method("unsqueeze", _positions(builder, op.value(0)), axis)
    shape = [1] * rank(at)
    shape[axis] = int(depth)
    steps = builder.tensor(Constant(torch.arange(int(depth)).reshape(shape)))
    same = builder.call(torch.eq, builder.call(torch.remainder, at, int(depth)), steps)
    return builder.call(torch.where, same, builder.tensor(on), builder.tensor(off))
