"""Other shapes for the same entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from peelcli.sources.onnxfile import layers
from peelcli.sources.onnxfile.builder import Builder, only_sizes
from peelcli.sources.onnxfile.ops.base import Op, dim_of, first, rank, rule
from peelcli.sources.onnxfile.ops.reductions import part
from peelcli.sources.onnxfile.values import (
    Number,
    Sizes,
    Unsupported,
    Value,
    as_array,
    example_int,
    example_of,
    settled,
)


@rule("Shape")
def shape(builder: Builder, op: Op) -> Value:
    """Sizes, each read when the module runs."""
    x = first(builder, op)
    dims = range(rank(x))[slice(op.get("start", 0), op.get("end", None))]
    return settled(as_array([builder.size(x, dim) for dim in dims]))


@rule("Size")
def size(builder: Builder, op: Op) -> Value:
    """The number of entries."""
    x = first(builder, op)
    made: Any = 1
    for dim in range(rank(x)):
        made = builder.size(x, dim) * made
    return settled(as_array(made))


@rule("Reshape")
def reshape(builder: Builder, op: Op) -> fx.Node:
    """To sizes of the file, of other tensors, or both; 0 stands for the input's own."""
    x = first(builder, op)
    sizes = list(only_sizes(op.value(1)).reshape(-1))
    if not op.get("allowzero", 0):
        sizes = [_own(builder, x, dim) if _is(entry, 0) else entry for dim, entry in enumerate(sizes)]
    if any(_is(entry, 0) for entry in sizes) or sum(_is(entry, -1) for entry in sizes) > 1:
        raise Unsupported("reshapes to sizes that leave no or many possibilities")
    if builder.follow:
        sizes = following(builder, x, sizes)
    fixed, given = builder.parts(sizes)
    return builder.module(layers.Reshape(fixed), x, *given)


def _own(builder: Builder, x: fx.Node, dim: int) -> Number | int:
    if dim >= rank(x):
        raise Unsupported("keeps a size that its input does not have")
    return builder.size(x, dim)


def _is(entry: Any, number: int) -> bool:
    return not isinstance(entry, Number) and int(entry) == number


def following(builder: Builder, x: fx.Node, sizes: Sequence[Any]) -> list[Any]:
    """Sizes in which the file's batch is replaced by the input's.

    The batch is found in the input by its odd size. Where it belongs in the output is decided by what comes behind it
    in memory: rows of the same length. Ours; that it was right is shown by running several batches.
    """
    shape = example_of(x).shape
    holding = [dim for dim, entry in enumerate(shape) if builder.holds_batch(entry)]
    if len(holding) != 1 or any(builder.holds_batch(example_int(entry)) for entry in sizes):
        return list(sizes)
    dim = holding[0]
    times = shape[dim] // builder.batch
    concrete = [example_int(entry) for entry in sizes]
    if -1 in concrete:
        entries = math.prod(shape) // builder.batch * builder.fixed
        known = -math.prod(concrete)
        if known <= 0 or entries % known:
            return list(sizes)
        concrete[concrete.index(-1)] = entries // known
    place = _place_of_batch(concrete, builder.fixed, times, math.prod(shape[dim + 1 :]))
    if place is None or _is(sizes[place], -1):
        return list(sizes)
    batch: Any = builder.size(x, dim)
    batch = batch // times if times > 1 else batch
    per_sample = concrete[place] // builder.fixed
    return [*sizes[:place], batch * per_sample if per_sample > 1 else batch, *sizes[place + 1 :]]


def _place_of_batch(sizes: Sequence[int], fixed: int, times: int, behind: int) -> int | None:
    """The dimension that holds the batch: itself, as its outer factor, or as its inner one, in this order.

    Args:
        sizes: all of them, for the file's batch.
        fixed: the file's batch.
        times: what stands beside the batch in the input's dimension; it may lie behind the batch, or before it.
        behind: entries of the dimensions behind that one.
    """
    rests = [math.prod(sizes[dim + 1 :]) for dim in range(len(sizes))]
    able = [dim for dim, entry in enumerate(sizes) if entry > 0 and entry % fixed == 0]
    lengths = (behind * times, behind)
    alone = [dim for length in lengths for dim in able if sizes[dim] == fixed and rests[dim] == length]
    outer = [
        dim for length in lengths for dim in able if dim < len(sizes) - 1 and sizes[dim] // fixed * rests[dim] == length
    ]
    inner = [dim for dim in able if rests[dim] == behind]
    return next(iter(alone or outer or inner), None)


@rule("Flatten")
def flatten(builder: Builder, op: Op) -> fx.Node:
    """To a matrix."""
    x = first(builder, op)
    dims = rank(x)
    axis = int(op.get("axis", 1))
    axis = axis + dims if axis < 0 else axis
    if axis == 1:
        return builder.module(torch.nn.Flatten(), x) if dims > 1 else builder.method("unsqueeze", x, 1)
    if axis == 0:
        return builder.method("unsqueeze", builder.method("flatten", x), 0)
    x = builder.method("flatten", x, 0, axis - 1)
    return builder.method("flatten", x, 1) if axis < dims else builder.method("unsqueeze", x, 1)


@rule("Transpose")
def transpose(builder: Builder, op: Op) -> fx.Node:
    """Dimensions in another order, by default reversed."""
    x = first(builder, op)
    order = op.ints("perm") or list(reversed(range(rank(x))))
    return builder.method("permute", x, *order)


@rule("Unsqueeze")
def unsqueeze(builder: Builder, op: Op) -> fx.Node:
    """New dimensions of size 1."""
    x = first(builder, op)
    axes = op.ints("axes", 1) or []
    for axis in sorted(dim_of(axis, rank(x) + len(axes)) for axis in axes):
        x = builder.method("unsqueeze", x, axis)
    return x


@rule("Squeeze")
def squeeze(builder: Builder, op: Op) -> fx.Node:
    """Dimensions of size 1 left out."""
    x = first(builder, op)
    shape, axes = example_of(x).shape, op.ints("axes", 1)
    chosen = [dim for dim, entry in enumerate(shape) if entry == 1] if axes is None else axes
    for axis in sorted((dim_of(axis, len(shape)) for axis in chosen), reverse=True):
        if shape[axis] != 1:
            raise Unsupported(f"leaves out dimension {axis}, which has {shape[axis]} entries")
        x = builder.method("squeeze", x, axis)
    return x


@rule("Concat")
def concat(builder: Builder, op: Op) -> fx.Node:
    """One behind the other; a constant that was made for one batch is repeated for another."""
    parts = [builder.tensor(value) for value in op.inputs if value is not None]
    axis = dim_of(int(op.get("axis", 0)), rank(parts[0]))
    if builder.follow:
        parts = [_with_batch(builder, one, parts, axis) for one in parts]
    return builder.call(torch.cat, parts, axis)


def _with_batch(builder: Builder, one: fx.Node, parts: Sequence[fx.Node], axis: int) -> fx.Node:
    own = example_of(one).shape
    sizes: list[Any] = [-1] * len(own)
    for other in parts:
        for dim, entry in enumerate(example_of(other).shape):
            if dim != axis and builder.holds_batch(entry) and own[dim] == builder.fixed == 1:
                sizes[dim] = builder.size(other, dim)
    if all(_is(entry, -1) for entry in sizes):
        return one
    fixed, given = builder.parts(sizes)
    return builder.module(layers.Expand(fixed), one, *given)


@rule("Split")
def split(builder: Builder, op: Op) -> tuple[Value, ...]:
    """Parts along an axis, of given or of equal sizes."""
    x = first(builder, op)
    axis = dim_of(int(op.get("axis", 0)), rank(x))
    whole = example_of(x).shape[axis]
    sizes = op.ints("split", 1)
    if sizes is None:
        count = int(op.get("num_outputs", op.outputs))
        each = -(-whole // max(1, count))
        sizes = [each] * (count - 1)
        sizes = [*sizes, whole - sum(sizes)]
    if sum(sizes) != whole or min(sizes, default=-1) < 0 or len(sizes) != op.outputs:
        raise Unsupported(f"splits {whole} entries into parts of {sizes}")
    made = builder.module(layers.Split(sizes, axis), x)
    return tuple(part(builder, made, position) for position in range(len(sizes)))


@rule("Slice")
def cut(builder: Builder, op: Op) -> fx.Node:
    """From a start to an end, along some axes."""
    x = first(builder, op)
    starts, ends = (_listed(op, name, position) for name, position in (("starts", 1), ("ends", 2)))
    axes = op.ints("axes", 3) or list(range(len(starts)))
    steps = op.ints("steps", 4) or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        x = _cut_one(builder, x, dim_of(axis, rank(x)), start, end, step)
    return x


def _listed(op: Op, name: str, position: int) -> list[Any]:
    if name in op.attributes:
        return list(op.attributes[name])
    sizes: Sizes = only_sizes(op.value(position))
    return list(sizes.reshape(-1))


def _cut_one(builder: Builder, x: fx.Node, dim: int, start: Any, end: Any, step: int) -> fx.Node:
    whole = example_of(x).shape[dim]
    if step < 0:
        if example_int(start) not in (-1, whole - 1) and example_int(start) < whole:
            raise Unsupported("runs backwards from the middle")
        if example_int(end) >= -whole:
            raise Unsupported("runs backwards to the middle")
        return builder.module(layers.Reversed(dim, -step), x)
    if _is(start, 0) and not isinstance(end, Number) and end >= 2**31 and step == 1:
        return x
    bounds = [entry if isinstance(entry, Number) else max(-(2**61), min(2**61, int(entry))) for entry in (start, end)]
    (low, high), given = builder.parts(bounds)
    return builder.module(layers.Slice(dim, low, high, step), x, *given)


@rule("Tile")
def tile(builder: Builder, op: Op) -> fx.Node:
    """The tensor repeated along each dimension."""
    x = first(builder, op)
    fixed, given = builder.parts(only_sizes(op.value(1)).reshape(-1))
    return builder.module(layers.Tile(fixed), x, *given)


@rule("DepthToSpace")
def depth_to_space(builder: Builder, op: Op) -> fx.Node:
    """Channels into space."""
    block, x = int(op.get("blocksize", 1)), first(builder, op)
    if op.get("mode", "DCR") == "CRD":
        return builder.module(torch.nn.PixelShuffle(block), x)
    return builder.module(layers.Blocks(block, True), x)


@rule("SpaceToDepth")
def space_to_depth(builder: Builder, op: Op) -> fx.Node:
    """Space into channels, the blocks first."""
    block, x = int(op.get("blocksize", 1)), first(builder, op)
    return builder.module(layers.Unblocks(block), x)
