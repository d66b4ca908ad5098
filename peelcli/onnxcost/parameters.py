"""Which constants of a graph are parameters, and which layer each belongs to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import onnx
from onnx import TensorProto

from peelcli.onnxcost.read import OnnxGraph
from peelcli.onnxcost.shapes import is_floating
from peelcli.onnxnames import of_node, of_parameter, of_weight, says_something
from peelcli.onnxnodes import with_inner

_STATISTICS = {"BatchNormalization": (3, 4)}  # of a training set, not learnt
_SETTINGS = {
    "Resize": (1, 2, 3), "Upsample": (1,), "Pad": (1, 2), "Clip": (1, 2), "Range": (0, 1, 2),
    "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2), "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7), "QGemm": (1, 2, 4, 5, 7, 8), "ConvInteger": (2, 3), "MatMulInteger": (2, 3),
}  # fmt: skip
_WHOLE = {
    "DequantizeLinear": (0,),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (3,),
    "ConvInteger": (1,),
    "MatMulInteger": (1,),
    "QGemm": (3, 6),
}


class Owners:
    """Which constant a tensor is, and which layer a node belongs to."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.origin = {name: name for name in graph.constants}  # also of what is computed from constants alone
        self._sums: dict[str, onnx.NodeProto] = {}  # the addition that reads a tensor
        for node in graph.model.graph.node:
            sources = [name for name in node.input if name]
            if sources and all(name in self.origin for name in sources):
                self.origin.update((name, self.origin[sources[0]]) for name in node.output)
            if node.op_type == "Add":
                self._sums.update(dict.fromkeys(node.input, node))

    def layer(self, node: onnx.NodeProto) -> str:
        """By the name of its weight, else by the module in its own, else by its bias, also one that is added next.

        Exporters store equal biases once, so that a bias may be called after another layer.
        """
        after = self._sums.get(node.output[0]) if node.op_type == "MatMul" and node.output else None
        read = [self.origin.get(name, "") for name in (*node.input, *(after.input if after else ()))]
        names = [name for name in read if name]
        place = of_node(node.name)
        module = place if "/" in node.name else ""
        weights = [of_weight(name) for name in names]
        wishes = (*weights[:1], module, *weights[1:], *map(of_parameter, names), place)
        return next((wish for wish in wishes if wish), node.op_type)


def parameters(graph: OnnxGraph, owners: Owners) -> dict[str, str]:
    """Parameters and the layers that they belong to, in the order in which they are first read.

    A parameter is a constant of fractions that something computes with, or one of whole numbers that stands for such.
    Not among them are the statistics of BatchNorm, settings of an op, and single numbers that the exporter made up. A
    file does not say what was learnt: a fixed table, such as a mask, counts as well.
    """
    found: dict[str, str] = {}
    for node in _in_order(graph.model.graph.node):
        for position, name in enumerate(node.input):
            if name in graph.constants and name not in found and _is_parameter(graph.constants[name], node, position):
                found[name] = of_parameter(name) or owners.layer(node)
    return found


def _in_order(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes of a graph, each followed by those of graphs inside it."""
    for node in nodes:
        yield from with_inner([node])


def _is_parameter(tensor: TensorProto, node: onnx.NodeProto, position: int) -> bool:
    if math.prod(tensor.dims) == 1 and not says_something(tensor.name):
        return False
    if position in _STATISTICS.get(node.op_type, ()) or position in _SETTINGS.get(node.op_type, ()):
        return False
    return is_floating(tensor.data_type) or position in _WHOLE.get(node.op_type, ())
