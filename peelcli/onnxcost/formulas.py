"""Multiply-adds of ONNX ops, a formula each. An op that is not in the table costs nothing, or is named as uncounted.

A multiply-add is 1. Source: the definitions of the ops in ONNX's specification; the counts are those of torch's
flop counter, halved, for the ops that torch's exporter makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx

from peelcli.onnxcost.shapes import Tensor
from peelcli.onnxcost.standins import CONTRIBUTED, STAND_INS

STANDARD = ("", "ai.onnx")


class Unknown(Exception):
    """A shape that the formula needs is not known, or the op is used in a way that it does not cover."""


class NoFormula(Exception):
    """An op that does arithmetic which the field does not count."""


@dataclass(frozen=True, slots=True)
class Call:
    """One node with the shapes around it; a tensor that is absent or not known is None."""

    node: onnx.NodeProto
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor | None, ...]

    def dims(self, position: int) -> tuple[int, ...]:
        """Sizes of an input."""
        tensor = self.inputs[position] if position < len(self.inputs) else None
        if tensor is None:
            raise Unknown
        return tensor.dims

    def out(self) -> tuple[int, ...]:
        """Sizes of the first output."""
        if not self.outputs or self.outputs[0] is None:
            raise Unknown
        return self.outputs[0].dims

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute's value."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                return onnx.helper.get_attribute_value(attribute)
        return default


Formula = Callable[[Call], int]


def _conv(weight: int) -> Formula:
    """Output positions times the weight, whose second size is the inputs of one group; `weight`: which input it is."""

    def macs(call: Call) -> int:
        batch, _, *positions = call.out()
        return batch * math.prod(positions) * math.prod(call.dims(weight))

    return macs


def _conv_transpose(call: Call) -> int:
    """Every input position applies the weight once."""
    batch, _, *positions = call.dims(0)
    return batch * math.prod(positions) * math.prod(call.dims(1))


def _matmul(left: int, right: int) -> Formula:
    """Outputs times the summed dimension; `left`, `right`: which inputs are multiplied."""

    def macs(call: Call) -> int:
        call.dims(right)
        return math.prod(call.out()) * call.dims(left)[-1]

    return macs


def _gemm(call: Call) -> int:
    rows = call.dims(0)
    return math.prod(call.out()) * rows[0 if call.attribute("transA", 0) else 1]


def _fused_matmul(call: Call) -> int:
    rows = call.dims(0)
    return math.prod(call.out()) * rows[-2 if call.attribute("transA", 0) else -1]


def _einsum(call: Call) -> int:
    """Two operands are one matrix product: the product of all sizes that meet."""
    equation = call.attribute("equation", b"").decode().replace(" ", "")
    operands = equation.partition("->")[0].split(",")
    if len(operands) == 1:
        return 0
    if len(operands) > 2 or "." in equation:
        raise Unknown
    sizes: dict[str, int] = {}
    for position, letters in enumerate(operands):
        for letter, size in zip(letters, call.dims(position), strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values())


def _attention(call: Call) -> int:
    """Scores and their product with the values; ONNX's own op, in three dimensions or four."""
    query, value = call.dims(0), call.dims(2)
    if len(call.inputs) > 4 and call.inputs[4] is not None:  # keys and values of earlier steps
        raise Unknown
    if len(query) == 4:
        batch, heads, length, size = query
        return batch * heads * length * value[2] * (size + value[3])
    heads, key_heads = call.attribute("q_num_heads", 0), call.attribute("kv_num_heads", 0)
    if len(query) != 3 or not heads or not key_heads:
        raise Unknown
    batch, length, width = query
    return int(batch * length * value[1] * (width + heads * (value[2] // key_heads)))


def _recurrent(call: Call) -> int:
    """Every step applies both weights of every direction once; the gates are in the weights' sizes."""
    steps, batch, _ = call.dims(0)
    return steps * batch * (math.prod(call.dims(1)) + math.prod(call.dims(2)))


FORMULAS: dict[tuple[str, str], Formula] = {
    ("", "Conv"): _conv(1),
    ("", "ConvInteger"): _conv(1),
    ("", "QLinearConv"): _conv(3),
    ("", "ConvTranspose"): _conv_transpose,
    ("", "Gemm"): _gemm,
    ("", "MatMul"): _matmul(0, 1),
    ("", "MatMulInteger"): _matmul(0, 1),
    ("", "QLinearMatMul"): _matmul(0, 3),
    ("", "Einsum"): _einsum,
    ("", "Attention"): _attention,
    ("", "LSTM"): _recurrent,
    ("", "GRU"): _recurrent,
    ("", "RNN"): _recurrent,
    (CONTRIBUTED, "FusedConv"): _conv(1),
    (CONTRIBUTED, "FusedMatMul"): _fused_matmul,
    (CONTRIBUTED, "FusedGemm"): _gemm,
    (CONTRIBUTED, "QGemm"): _gemm,
}
WEIGHTS: dict[str, tuple[int, ...]] = {
    "QLinearConv": (3,), "QLinearMatMul": (3, 0), "LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2), "Einsum": (1, 0),
    "MatMul": (1, 0), "MatMulInteger": (1, 0), "FusedMatMul": (1, 0), "QGemm": (3,),
}  # fmt: skip
"""Which inputs of a counted op may hold its weight, the likeliest first; (1,) where nothing is said."""
_ARITHMETIC = frozenset(
    {"DFT", "STFT", "GridSample", "DeformConv", "RoiAlign", "MaxRoiPool", "Det"}
)  # counted by nobody: torch's counter has no formula for them either
_REPEATED = frozenset({"Loop", "Scan"})  # nobody knows how often
_NO_PRODUCTS = frozenset(STAND_INS) | {"QuantizeLinear", "DequantizeLinear", "QLinearAveragePool", "QLinearReduceMean"}


def macs_of(call: Call) -> int:
    """Multiply-adds of one node.

    Raises:
        Unknown: they are not known: a shape is not, or the op is nobody's that is known here.
        NoFormula: there is none, in torch's counter neither.
    """
    node = call.node
    domain = "" if node.domain in STANDARD else node.domain
    formula = FORMULAS.get((domain, node.op_type))
    if formula is not None:
        try:
            return formula(call)
        except (ValueError, IndexError):  # sizes that the op can't have
            raise Unknown from None
    if domain == "" and node.op_type in _REPEATED:
        raise Unknown
    if domain == "" and node.op_type in _ARITHMETIC:
        raise NoFormula
    if domain == "" or (domain == CONTRIBUTED and node.op_type in _NO_PRODUCTS):
        return 0
    raise Unknown


def width_of(call: Call, weight: tuple[int, ...], position: int) -> int | None:
    """Output channels of a weighted op, from the weight's sizes."""
    kind = call.node.op_type
    if kind == "ConvTranspose":
        return int(weight[1] * call.attribute("group", 1))
    if kind in ("Conv", "ConvInteger", "QLinearConv", "FusedConv"):
        return weight[0]
    if kind in ("Gemm", "FusedGemm", "QGemm"):
        return weight[0 if call.attribute("transB", 0) else 1]
    if kind in ("LSTM", "GRU", "RNN"):
        hidden = call.attribute("hidden_size", None)
        return int(hidden) if hidden else None
    if kind in ("MatMul", "MatMulInteger", "QLinearMatMul") and len(weight) >= 2:
        return weight[-1] if position else weight[-2]
    return None
