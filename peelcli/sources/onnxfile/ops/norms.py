"""Normalisation: layers wherever scale and shift are fixed."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from peelcli.sources.onnxfile.builder import Builder
from peelcli.sources.onnxfile.ops.base import Op, dim_of, first, floats, rule
from peelcli.sources.onnxfile.values import Constant, Unsupported, example_of

_BATCH: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE: dict[int, Any] = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def _required(op: Op, position: int) -> Constant:
    found = op.constant(position)
    if found is None:
        raise Unsupported(f"lacks its input {position}")
    floats(found.tensor)
    return found


def _affine(builder: Builder, layer: Any, scale: Constant, shift: Constant | None, shape: Sequence[int]) -> None:
    """Scale and shift as parameters of a layer; each is spread to the layer's shape where it is smaller."""
    for name, found in (("weight", scale), ("bias", shift)):
        if found is not None:
            whole = found.tensor.broadcast_to(tuple(shape)).contiguous()
            setattr(layer, name, builder.parameter(Constant(whole, found.name, found.flipped, found.origin)))


@rule("BatchNormalization")
def batch_norm(builder: Builder, op: Op) -> fx.Node:
    """With the statistics of the training; a file exported while training has none."""
    x = first(builder, op)
    if op.get("training_mode", 0) or op.outputs > 1 or example_of(x).dim() not in _BATCH:
        raise Unsupported("is a batch norm in training mode")
    scale, shift, mean, variance = (_required(op, position) for position in range(1, 5))
    layer = _BATCH[example_of(x).dim()](
        scale.tensor.numel(), op.get("epsilon", 1e-5), 1 - op.get("momentum", 0.9), dtype=scale.tensor.dtype
    )
    _affine(builder, layer, scale, shift, scale.tensor.shape)
    layer.running_mean = mean.tensor.clone()
    layer.running_var = variance.tensor.clone()
    return builder.module(layer, x)


@rule("LayerNormalization")
def layer_norm(builder: Builder, op: Op) -> fx.Node:
    """Over all dimensions from an axis on."""
    x = first(builder, op)
    axis = dim_of(op.get("axis", -1), example_of(x).dim())
    if op.outputs > 1:
        raise Unsupported("is a layer norm whose statistics are used")
    shape = list(example_of(x).shape[axis:])
    scale, shift = _required(op, 1), op.constant(2)
    layer = nn.LayerNorm(shape, op.get("epsilon", 1e-5), bias=shift is not None, dtype=scale.tensor.dtype)
    _affine(builder, layer, scale, shift, shape)
    return builder.module(layer, x)


@rule("RMSNormalization")
def rms_norm(builder: Builder, op: Op) -> fx.Node:
    """By the root of the mean square, over all dimensions from an axis on."""
    x = first(builder, op)
    axis = dim_of(op.get("axis", -1), example_of(x).dim())
    shape, scale = list(example_of(x).shape[axis:]), _required(op, 1)
    layer = nn.RMSNorm(shape, op.get("epsilon", 1e-5), dtype=scale.tensor.dtype)
    _affine(builder, layer, scale, None, shape)
    return builder.module(layer, x)


@rule("InstanceNormalization")
def instance_norm(builder: Builder, op: Op) -> fx.Node:
    """Each channel of each sample by itself."""
    x = first(builder, op)
    dims = example_of(x).dim()
    if dims not in _INSTANCE:
        raise Unsupported(f"is an instance norm of {dims} dimensions")
    scale, shift = _required(op, 1), _required(op, 2)
    layer = _INSTANCE[dims](scale.tensor.numel(), op.get("epsilon", 1e-5), affine=True, dtype=scale.tensor.dtype)
    _affine(builder, layer, scale, shift, scale.tensor.shape)
    return builder.module(layer, x)


@rule("GroupNormalization")
def group_norm(builder: Builder, op: Op) -> fx.Node:
    """Groups of channels together; before opset 21 scale and shift are given for each group."""
    x = first(builder, op)
    channels, groups = example_of(x).shape[1], int(op.get("num_groups", 1))
    scale, shift = _required(op, 1), _required(op, 2)
    if scale.tensor.numel() != channels:
        each = channels // groups
        scale = Constant(scale.tensor.repeat_interleave(each), origin=scale.name or scale.origin)
        shift = Constant(shift.tensor.repeat_interleave(each), origin=shift.name or shift.origin)
    layer = nn.GroupNorm(groups, channels, op.get("epsilon", 1e-5), dtype=scale.tensor.dtype)
    _affine(builder, layer, scale, shift, (channels,))
    return builder.module(layer, x)


@rule("LRN")
def local_response(builder: Builder, op: Op) -> fx.Node:
    """By the squares of neighbouring channels."""
    layer = nn.LocalResponseNorm(int(op.get("size", 1)), op.get("alpha", 1e-4), op.get("beta", 0.75), op.get("bias", 1))
    return builder.module(layer, first(builder, op))


@rule("LpNormalization")
def lp_norm(builder: Builder, op: Op) -> fx.Node:
    """Length 1 along an axis."""
    x = first(builder, op)
    length = builder.call(torch.linalg.vector_norm, x, int(op.get("p", 2)), (int(op.get("axis", -1)),), True)
    return builder.call(operator.truediv, x, length)


@rule("MeanVarianceNormalization")
def mean_variance(builder: Builder, op: Op) -> fx.Node:
    """Mean 0 and variance 1 over some axes."""
    x, axes = first(builder, op), op.ints("axes") or [0, 2, 3]
    centred = builder.call(operator.sub, x, builder.call(torch.mean, x, axes, True))
    square = builder.call(torch.mean, builder.call(operator.mul, centred, centred), axes, True)
    return builder.call(operator.truediv, centred, builder.call(operator.add, builder.call(torch.sqrt, square), 1e-9))
