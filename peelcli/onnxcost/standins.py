"""Ops that onnxruntime adds to ONNX's own: replaced, for their shapes alone, by ops that ONNX can infer.

Source: onnxruntime's documentation of its contributed operators (domain com.microsoft).
"""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import helper

CONTRIBUTED = "com.microsoft"
StandIn = Callable[[onnx.NodeProto], onnx.NodeProto]


def _like_first(node: onnx.NodeProto) -> onnx.NodeProto:
    """What comes out has the shape of the first input."""
    return helper.make_node("Identity", node.input[:1], node.output[:1])


def _op(name: str, inputs: slice, *attributes: str) -> StandIn:
    """Another op on some of the inputs, with some of the attributes."""

    def make(node: onnx.NodeProto) -> onnx.NodeProto:
        made = helper.make_node(name, node.input[inputs], node.output[:1])
        made.attribute.extend(attribute for attribute in node.attribute if attribute.name in attributes)
        return made

    return make


_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_GEMM = ("transA", "transB")
STAND_INS: dict[str, StandIn] = {
    "FusedConv": _op("Conv", slice(2), *_CONV),
    "FusedGemm": _op("Gemm", slice(2), *_GEMM),
    "QGemm": _op("Gemm", slice(0, 4, 3), *_GEMM),
    "QLinearAdd": _op("Add", slice(0, 4, 3)),
    "QLinearMul": _op("Mul", slice(0, 4, 3)),
    "QLinearConcat": _op("Concat", slice(2, None, 3), "axis"),
    "QLinearGlobalAveragePool": _op("GlobalAveragePool", slice(1)),
    **dict.fromkeys(
        ("BiasGelu", "FastGelu", "QuickGelu", "Gelu", "FusedGelu", "BiasSoftmax", "QLinearSigmoid", "QLinearLeakyRelu",
         "QLinearSoftmax", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _like_first
    ),
}  # fmt: skip


def replace_contributed(graph: onnx.GraphProto) -> None:
    """Put the stand-ins into a graph that is used for nothing but its shapes."""
    for node in graph.node:
        make = STAND_INS.get(node.op_type) if node.domain == CONTRIBUTED else None
        if make is not None:
            node.CopyFrom(make(node))
