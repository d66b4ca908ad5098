"""Matrix products: layers where one side is fixed."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn

from peelcli.sources.onnxfile.builder import Builder
from peelcli.sources.onnxfile.ops.base import Op, floats, rule
from peelcli.sources.onnxfile.values import Constant, Unsupported, Value, example_of


def linear(builder: Builder, x: fx.Node, weight: Constant, bias: Constant | None) -> fx.Node:
    """A layer from a weight of shape (out, in)."""
    out, into = floats(weight.tensor).shape
    layer = nn.Linear(into, out, bias is not None, device="meta", dtype=weight.tensor.dtype)
    layer.weight = builder.parameter(weight)
    if bias is not None:
        layer.bias = builder.parameter(bias)
    return builder.module(layer, x)


@rule("MatMul")
def matmul(builder: Builder, op: Op) -> fx.Node:
    """A linear layer for a fixed matrix on the right, with the bias that is added next."""
    left, right = op.value(0), op.value(1)
    if isinstance(right, Constant) and right.tensor.dim() == 2 and isinstance(left, fx.Node):
        return linear(builder, left, right.transposed(), op.bias)
    return builder.call(torch.matmul, builder.tensor(left), builder.tensor(right))


@rule("Gemm")
def gemm(builder: Builder, op: Op) -> fx.Node:
    """Alpha A B + beta C, either matrix transposed."""
    left, right, added = op.value(0), op.value(1), op.given(2)
    alpha, beta = float(op.get("alpha", 1.0)), float(op.get("beta", 1.0))
    x = builder.tensor(left)
    if op.get("transA", 0):
        x = builder.call(torch.transpose, x, 0, 1)
    if isinstance(right, Constant) and right.tensor.dim() == 2:
        weight = right if op.get("transB", 0) else right.transposed()
        if alpha != 1.0:
            weight = Constant(weight.tensor * alpha, origin=weight.name or weight.origin)
        bias = _bias(added, beta, weight.tensor.shape[0])
        made = linear(builder, x, weight, bias)
        return made if bias is not None or added is None else _plus(builder, made, added, beta)
    other = builder.tensor(right)
    if op.get("transB", 0):
        other = builder.call(torch.transpose, other, 0, 1)
    made = builder.call(torch.matmul, x, other)
    if alpha != 1.0:
        made = builder.call(operator.mul, made, alpha)
    return made if added is None else _plus(builder, made, added, beta)


def _bias(added: Value | None, beta: float, out: int) -> Constant | None:
    """What is added as a layer's bias, where it is one number a channel."""
    if not isinstance(added, Constant) or added.tensor.numel() != out or added.tensor.shape[-1:] != (out,):
        return None
    if beta == 1.0 and added.tensor.dim() == 1:
        return added
    return Constant(added.tensor.reshape(-1) * beta, origin=added.name or added.origin)


def _plus(builder: Builder, made: fx.Node, added: Value, beta: float) -> fx.Node:
    other = builder.tensor(added)
    return builder.call(operator.add, made, other if beta == 1.0 else builder.call(operator.mul, other, beta))


@rule("Einsum")
def einsum(builder: Builder, op: Op) -> fx.Node:
    """A sum of products in Einstein's notation."""
    equation = op.get("equation", "")
    if len(equation) > 200:
        raise Unsupported("has a very long equation")
    return builder.call(torch.einsum, equation, *(builder.tensor(value) for value in op.inputs if value is not None))


@rule("ScaledDotProductAttention", "Attention")
def attention(builder: Builder, op: Op) -> fx.Node:
    """Attention on heads that are dimensions of their own (ONNX 23), without a cache."""
    query, key, value = (builder.tensor(op.value(position)) for position in range(3))
    extras = [op.given(position) for position in range(4, len(op.inputs))]
    if op.outputs > 1 or any(extra is not None for extra in extras) or example_of(query).dim() != 4:
        raise Unsupported("is an attention with a cache, or with heads inside the channels")
    if op.get("softcap", 0.0) or example_of(query).shape[1] != example_of(key).shape[1]:
        raise Unsupported("is an attention with a soft cap, or with grouped queries")
    mask = op.given(3)
    return builder.call(
        nn.functional.scaled_dot_product_attention, query, key, value,
        attn_mask=None if mask is None else builder.tensor(mask),
        is_causal=bool(op.get("is_causal", 0)), scale=op.get("scale", example_of(query).shape[-1] ** -0.5),
    )  # fmt: skip
