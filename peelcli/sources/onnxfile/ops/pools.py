"""Pooling and interpolation."""

from __future__ import annotations

import math
from typing import Any

from torch import fx, nn

from peelcli.sources.onnxfile import layers
from peelcli.sources.onnxfile.builder import Builder, only_sizes
from peelcli.sources.onnxfile.ops.base import Op, first, rule
from peelcli.sources.onnxfile.ops.convolutions import is_even, padded, spread, window_pads
from peelcli.sources.onnxfile.values import Unsupported, example_of

_MAX: dict[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVERAGE: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_GLOBAL: dict[tuple[str, int], Any] = {
    ("GlobalAveragePool", 1): nn.AdaptiveAvgPool1d,
    ("GlobalAveragePool", 2): nn.AdaptiveAvgPool2d,
    ("GlobalAveragePool", 3): nn.AdaptiveAvgPool3d,
    ("GlobalMaxPool", 1): nn.AdaptiveMaxPool1d,
    ("GlobalMaxPool", 2): nn.AdaptiveMaxPool2d,
    ("GlobalMaxPool", 3): nn.AdaptiveMaxPool3d,
}
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def _fits(pads: list[int], kernel: tuple[int, ...]) -> bool:
    """What torch's pools can pad by themselves: evenly, and by at most half of the window."""
    return is_even(pads) and all(2 * pad <= size for pad, size in zip(pads, kernel, strict=False))


@rule("MaxPool")
def max_pool(builder: Builder, op: Op) -> fx.Node:
    """The largest entry of each window."""
    x = first(builder, op)
    dims = example_of(x).dim() - 2
    if op.outputs > 1 or dims not in _MAX:
        raise Unsupported("is a max pooling whose positions are used, or of more than three dimensions")
    kernel, strides = spread(op, "kernel_shape", dims), spread(op, "strides", dims)
    dilations = spread(op, "dilations", dims)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    pads = window_pads(op, example_of(x).shape[2:], reach, strides)
    if not _fits(pads, kernel):
        x, pads = padded(builder, x, pads, -math.inf), [0] * (2 * dims)
    layer = _MAX[dims](kernel, strides, tuple(pads[:dims]), dilations, ceil_mode=bool(op.get("ceil_mode", 0)))
    return builder.module(layer, x)


@rule("AveragePool")
def average_pool(builder: Builder, op: Op) -> fx.Node:
    """The mean of each window, with or without the padding."""
    x = first(builder, op)
    dims = example_of(x).dim() - 2
    if dims not in _AVERAGE or any(entry != 1 for entry in op.ints("dilations") or ()):
        raise Unsupported("is an average pooling with dilations, or of more than three dimensions")
    kernel, strides = spread(op, "kernel_shape", dims), spread(op, "strides", dims)
    pads, counted = window_pads(op, example_of(x).shape[2:], kernel, strides), bool(op.get("count_include_pad", 0))
    if not _fits(pads, kernel):
        if not counted:
            raise Unsupported("is an average pooling with uneven padding that does not count")
        x, pads = padded(builder, x, pads), [0] * (2 * dims)
    layer = _AVERAGE[dims](kernel, strides, tuple(pads[:dims]), bool(op.get("ceil_mode", 0)), counted)
    return builder.module(layer, x)


@rule("GlobalAveragePool", "GlobalMaxPool")
def global_pool(builder: Builder, op: Op) -> fx.Node:
    """One entry a channel."""
    x = first(builder, op)
    key = (op.kind, example_of(x).dim() - 2)
    if key not in _GLOBAL:
        raise Unsupported(f"pools {key[1]} dimensions")
    return builder.module(_GLOBAL[key](1), x)


@rule("Resize", "Upsample")
def resize(builder: Builder, op: Op) -> fx.Node:
    """Interpolation of the spatial dimensions."""
    x = first(builder, op)
    dims = example_of(x).dim() - 2
    old = op.kind == "Upsample" or op.opset < 11
    scales_at, way = (1, "asymmetric") if old else (2, op.get("coordinate_transformation_mode", "half_pixel"))
    mode, corners = _mode(op, dims, way)
    axes = op.ints("axes") or list(range(dims + 2))
    sizes = op.given(3)
    if sizes is not None:
        if op.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise Unsupported("keeps the aspect ratio")
        wanted = dict(zip(axes, only_sizes(sizes).reshape(-1), strict=True))
        entries = [wanted.get(axis, example_of(x).shape[axis]) for axis in range(2, dims + 2)]
        fixed, given = builder.parts(entries)
        return builder.module(layers.Resize(fixed, (), mode, corners), x, *given)
    scales = op.constant(scales_at) if "scales" not in op.attributes else None
    listed = op.get("scales", None) if scales is None else scales.tensor.tolist()
    if not listed or len(listed) != len(axes):
        raise Unsupported("has no sizes and no scales")
    by_axis = dict(zip(axes, listed, strict=True))
    if by_axis.get(0, 1.0) != 1.0 or by_axis.get(1, 1.0) != 1.0:
        raise Unsupported("interpolates between channels")
    return builder.module(layers.Resize((), [by_axis.get(at, 1.0) for at in range(2, dims + 2)], mode, corners), x)


def _mode(op: Op, dims: int, way: str) -> tuple[str, bool | None]:
    """Torch's name of the interpolation, and whether corners are aligned."""
    mode = op.get("mode", "nearest")
    if dims not in _LINEAR or op.get("antialias", 0) or op.get("exclude_outside", 0):
        raise Unsupported("interpolates in a way that torch does not have")
    if mode == "nearest":
        rounding = op.get("nearest_mode", "floor" if way == "asymmetric" and op.opset < 11 else "round_prefer_floor")
        if (way, rounding) == ("asymmetric", "floor"):
            return "nearest", None
        return "nearest-exact", None
    if way not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise Unsupported(f"interpolates with the coordinates {way}")
    if mode == "cubic" and (dims != 2 or op.get("cubic_coeff_a", -0.75) != -0.75):
        raise Unsupported("is a cubic interpolation that torch does not have")
    return (_LINEAR[dims] if mode == "linear" else "bicubic"), way == "align_corners"
