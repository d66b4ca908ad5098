"""Functions of one tensor, entry by entry: layers where torch has one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx, nn

from peelcli.sources.onnxfile import layers
from peelcli.sources.onnxfile.builder import Builder
from peelcli.sources.onnxfile.ops.base import Op, dim_of, dtype_of, first, rank, rule
from peelcli.sources.onnxfile.values import Constant, Unsupported, Value, example_of

_LAYERS: dict[str, Callable[[Op], nn.Module]] = {
    "Relu": lambda _: nn.ReLU(),
    "Sigmoid": lambda _: nn.Sigmoid(),
    "Tanh": lambda _: nn.Tanh(),
    "HardSwish": lambda _: nn.Hardswish(),
    "Mish": lambda _: nn.Mish(),
    "Softplus": lambda _: nn.Softplus(),
    "Softsign": lambda _: nn.Softsign(),
    "LeakyRelu": lambda op: nn.LeakyReLU(op.get("alpha", 0.01)),
    "Elu": lambda op: nn.ELU(op.get("alpha", 1.0)),
    "Celu": lambda op: nn.CELU(op.get("alpha", 1.0)),
    "Gelu": lambda op: nn.GELU(op.get("approximate", "none")),
    "ThresholdedRelu": lambda op: nn.Threshold(op.get("alpha", 1.0), 0.0),
}
_FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "Abs": torch.abs, "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin, "Asinh": torch.asinh,
    "Atan": torch.atan, "Atanh": torch.atanh, "Ceil": torch.ceil, "Cos": torch.cos, "Cosh": torch.cosh,
    "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "IsNaN": torch.isnan, "IsInf": torch.isinf,
    "Log": torch.log, "Neg": torch.neg, "Not": torch.logical_not, "Reciprocal": torch.reciprocal,
    "Round": torch.round, "Sign": torch.sign, "Sin": torch.sin, "Sinh": torch.sinh, "Sqrt": torch.sqrt,
    "Tan": torch.tan, "BitwiseNot": torch.bitwise_not,
}  # fmt: skip


@rule(*_LAYERS)
def layer(builder: Builder, op: Op) -> fx.Node:
    """An activation that torch has as a layer."""
    return builder.module(_LAYERS[op.kind](op), first(builder, op))


@rule(*_FUNCTIONS)
def function(builder: Builder, op: Op) -> fx.Node:
    """A function that torch has under another name."""
    if op.kind == "IsInf" and not (op.get("detect_negative", 1) and op.get("detect_positive", 1)):
        raise Unsupported("looks for infinities of one sign")
    return builder.call(_FUNCTIONS[op.kind], first(builder, op))


@rule("Identity", "Dropout")
def identity(_: Builder, op: Op) -> Value:
    """Nothing happens at inference."""
    if op.outputs > 1:
        raise Unsupported("has the mask of a training run as its output")
    return op.value(0)


@rule("HardSigmoid")
def hard_sigmoid(builder: Builder, op: Op) -> fx.Node:
    """max(0, min(1, alpha x + beta)); torch's own layer has 1/6 and 1/2."""
    alpha, beta, x = op.get("alpha", 0.2), op.get("beta", 0.5), first(builder, op)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return builder.module(nn.Hardsigmoid(), x)
    scaled = builder.call(torch.add, builder.call(torch.mul, x, alpha), beta)
    return builder.call(torch.clamp, scaled, 0.0, 1.0)


@rule("Selu")
def selu(builder: Builder, op: Op) -> fx.Node:
    """Gamma * (max(0, x) + min(0, alpha (exp(x) - 1))), with the constants of the paper, or others."""
    alpha, gamma = op.get("alpha", 1.6732632), op.get("gamma", 1.0507010)
    elu = builder.module(nn.ELU(alpha), first(builder, op))
    return builder.call(torch.mul, elu, gamma)


@rule("Swish")
def swish(builder: Builder, op: Op) -> fx.Node:
    """X * sigmoid(alpha x)."""
    x, alpha = first(builder, op), op.get("alpha", 1.0)
    if alpha == 1.0:
        return builder.module(nn.SiLU(), x)
    return builder.call(torch.mul, x, builder.call(torch.sigmoid, builder.call(torch.mul, x, alpha)))


@rule("PRelu")
def prelu(builder: Builder, op: Op) -> fx.Node:
    """One slope, or one a channel; other slopes as arithmetic."""
    x, slope = first(builder, op), op.value(1)
    shape = example_of(x).shape
    if isinstance(slope, Constant) and len(shape) > 1:
        own = slope.tensor
        per_channel = own.dim() == len(shape) - 1 and own.shape[:1] == shape[1:2] and own.numel() == shape[1]
        if own.numel() == 1 or per_channel:
            made = nn.PReLU(own.numel(), device="meta")
            made.weight = builder.parameter(Constant(own.reshape(-1), slope.name))
            return builder.module(made, x)
    negative = builder.call(torch.mul, builder.tensor(slope), builder.call(torch.clamp, x, max=0.0))
    return builder.call(torch.add, builder.call(torch.relu, x), negative)


@rule("Clip")
def clip(builder: Builder, op: Op) -> fx.Node:
    """Between two bounds, each optional."""
    low, high = op.get("min", op.number(1)), op.get("max", op.number(2))
    x = first(builder, op)
    if low is not None and high is not None and example_of(x).is_floating_point() and low < high:
        return builder.module(nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high), x)
    if low is None and high is None:
        return x
    return builder.call(torch.clamp, x, min=low, max=high)


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(builder: Builder, op: Op) -> fx.Node:
    """Along one axis; before opset 13 over all from an axis on."""
    x = first(builder, op)
    dims, kind = rank(x), op.kind
    if kind == "Hardmax":
        raise Unsupported("is no function that gradients pass")
    axis = dim_of(op.get("axis", -1 if op.opset >= 13 else 1), dims)
    make = nn.Softmax if kind == "Softmax" else nn.LogSoftmax
    if op.opset >= 13 or axis == dims - 1:
        return builder.module(make(-1 if axis == dims - 1 else axis), x)
    if any(size != 1 for size in example_of(x).shape[axis + 1 :]):
        flat = builder.method("flatten", x, axis)
        return builder.method("view_as", builder.module(make(-1), flat), x)
    return builder.module(make(axis), x)


@rule("Cast")
def cast(builder: Builder, op: Op) -> Value:
    """Another type; a floating type to itself is left out."""
    x, dtype = first(builder, op), dtype_of(op.get("to", 1))
    if example_of(x).dtype is dtype:
        return x
    if dtype.is_floating_point:
        return builder.module(layers.ToType(dtype), x)
    return builder.method("to", x, dtype)


@rule("CastLike")
def cast_like(builder: Builder, op: Op) -> fx.Node:
    """The type of another tensor."""
    return builder.method("type_as", first(builder, op), builder.tensor(op.value(1)))
