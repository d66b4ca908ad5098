"""Convolutions, their transposes, and the padding around windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx, nn
from torch.nn import functional

from peelcli.sources.onnxfile import layers
from peelcli.sources.onnxfile.builder import Builder, only_sizes
from peelcli.sources.onnxfile.ops.base import Op, first, floats, rule
from peelcli.sources.onnxfile.values import Constant, Unsupported, as_array, example_of

_CONVOLUTIONS: dict[int, Any] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d, 5: nn.ConvTranspose3d}
_FUNCTIONS: dict[int, Any] = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}


def window_pads(op: Op, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Begin and end of each spatial dimension, as ONNX orders them: all begins, then all ends.

    Args:
        op: with pads, or with auto_pad, which is worked out for the example's sizes.
        sizes: of the input, spatial dimensions only.
        kernel: the window, dilations included.
        strides: of the window.
    """
    auto = op.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return [0] * (2 * len(sizes))
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        spans = zip(sizes, kernel, strides, strict=True)
        totals = [max(0, (-(-size // stride) - 1) * stride + window - size) for size, window, stride in spans]
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        return [*small, *large] if auto == "SAME_UPPER" else [*large, *small]
    return op.ints("pads") or [0] * (2 * len(sizes))


def is_even(pads: Sequence[int]) -> bool:
    """Whether both ends of each dimension get the same."""
    half = len(pads) // 2
    return list(pads[:half]) == list(pads[half:]) and min(pads, default=0) >= 0


def padded(builder: Builder, x: fx.Node, pads: Sequence[int], value: float = 0.0) -> fx.Node:
    """A layer that pads the last dimensions, from ONNX's order of pads."""
    half = len(pads) // 2
    order = [side for at in reversed(range(half)) for side in (pads[at], pads[at + half])]
    name = f"{next(iter(builder.wishes), builder.kind.lower())}_pad"
    return builder.module(layers.Pad(order, "constant", value), x, name=name)


def spread(op: Op, name: str, dims: int) -> tuple[int, ...]:
    """An attribute with one number a spatial dimension; ones where it is left out."""
    found = op.ints(name) or [1] * dims
    if len(found) != dims:
        raise Unsupported(f"has {len(found)} {name} for {dims} dimensions")
    return tuple(found)


def put(builder: Builder, layer: Any, weight: Constant, bias: Constant | None) -> None:
    """Give a layer its weights."""
    layer.weight = builder.parameter(weight)
    layer.bias = None if bias is None else builder.parameter(bias)


@rule("Conv")
def conv(builder: Builder, op: Op) -> fx.Node:
    """A convolution layer; a function where the filter is computed."""
    x = first(builder, op)
    dims = example_of(x).dim()
    weight, bias = op.value(1), op.given(2)
    filters: Tensor = weight.tensor if isinstance(weight, Constant) else example_of(builder.tensor(weight))
    if dims not in _CONVOLUTIONS or filters.dim() != dims:
        raise Unsupported(f"is a convolution with {dims - 2} spatial dimensions")
    kernel, groups = filters.shape[2:], int(op.get("group", 1))
    strides, dilations = spread(op, "strides", dims - 2), spread(op, "dilations", dims - 2)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    pads = window_pads(op, example_of(x).shape[2:], reach, strides)
    if not is_even(pads):
        x, pads = padded(builder, x, pads), [0] * len(pads)
    if not isinstance(weight, Constant) or not (bias is None or isinstance(bias, Constant)):
        sides = [builder.tensor(weight), None if bias is None else builder.tensor(bias)]
        return builder.call(_FUNCTIONS[dims], x, *sides, strides, tuple(pads[: dims - 2]), dilations, groups)
    layer = _CONVOLUTIONS[dims](
        filters.shape[1] * groups, filters.shape[0], tuple(kernel), strides, tuple(pads[: dims - 2]), dilations,
        groups, bias is not None, device="meta", dtype=floats(filters).dtype,
    )  # fmt: skip
    put(builder, layer, weight, bias)
    return builder.module(layer, x)


@rule("ConvTranspose")
def conv_transpose(builder: Builder, op: Op) -> fx.Node:
    """The transpose of a convolution, as a layer."""
    x = first(builder, op)
    dims = example_of(x).dim()
    weight, bias = op.constant(1), op.constant(2)
    if weight is None or dims not in _TRANSPOSED or op.get("auto_pad", "NOTSET") != "NOTSET":
        raise Unsupported("is a transposed convolution without weights, or with automatic padding")
    kernel, groups = weight.tensor.shape[2:], int(op.get("group", 1))
    strides, dilations = spread(op, "strides", dims - 2), spread(op, "dilations", dims - 2)
    pads = op.ints("pads") or [0] * (2 * (dims - 2))
    extra = op.ints("output_padding") or [0] * (dims - 2)
    if op.ints("output_shape") or not is_even(pads):
        raise Unsupported("is a transposed convolution with uneven padding, or with the sizes of its output")
    layer = _TRANSPOSED[dims](
        weight.tensor.shape[0], weight.tensor.shape[1] * groups, tuple(kernel), strides, tuple(pads[: dims - 2]),
        tuple(extra), groups, bias is not None, dilations, device="meta", dtype=floats(weight.tensor).dtype,
    )  # fmt: skip
    put(builder, layer, weight, bias)
    return builder.module(layer, x)


@rule("Pad")
def pad(builder: Builder, op: Op) -> fx.Node:
    """Constant, mirrored, repeated or wrapped entries around a tensor."""
    x = first(builder, op)
    dims = example_of(x).dim()
    found = only_sizes(op.value(1)).reshape(-1) if "pads" not in op.attributes else as_array(op.ints("pads"))
    axes = op.ints("axes", 3)
    chosen = [axis % dims for axis in axes] if axes is not None else list(range(dims))
    if len(found) != 2 * len(chosen):
        raise Unsupported(f"has {len(found)} pads for {len(chosen)} dimensions")
    ends = {axis: (found[at], found[at + len(chosen)]) for at, axis in enumerate(chosen)}
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}.get(
        op.get("mode", "constant")
    )
    if mode is None:
        raise Unsupported(f"pads in the mode {op.get('mode', '')}")
    order = [side for axis in reversed(range(dims)) for side in ends.get(axis, (0, 0))]
    while len(order) > 2 and order[-2:] == [0, 0]:
        order = order[:-2]
    value = op.number(2, op.get("value", 0.0))
    fixed, given = builder.parts(order)
    number = value if example_of(x).dtype.is_floating_point else int(value or 0)
    return builder.module(layers.Pad(fixed, mode, number or 0), x, *given)
