"""Graphs of opset 18, the oldest that torch's exporter writes, in the operators of older ones: devices lag behind.

Every version of ONNX lists the operators that it changed (https://onnx.ai/onnx/operators/). For those that torch's
exporter makes, and whose older form computes the same, there is a rule here that takes one node back below one version.
What has no older form is refused by name. Nothing is believed: the file is checked and run after this as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import defs, helper, numpy_helper

from peelcli.onnxnodes import graphs_of

if TYPE_CHECKING:
    import onnx

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
Array = np.ndarray[Any, np.dtype[Any]]


class NoOlderForm(Exception):
    """An operator, or a use of it, that the older opset does not have."""


@dataclass(slots=True)
class _Graph:
    """A graph on its way down.

    Attributes:
        proto: changed in place.
        constants: every value in it, or around it, that is known.
        ranks: dimensions of the values whose shape is known.
        taken: names of values and nodes; shared with the graphs around it.
    """

    proto: onnx.GraphProto
    constants: Mapping[str, Array]
    ranks: Mapping[str, int]
    taken: set[str]
    made: list[onnx.NodeProto] = field(default_factory=list)

    def value(self, name: str, node: onnx.NodeProto, why: str) -> list[int]:
        """Integers that an input of a node holds.

        Raises:
            NoOlderForm: they are computed as the model runs.
        """
        if name not in self.constants:
            raise NoOlderForm(f"{node.op_type} with {why} that are computed")
        return [int(entry) for entry in self.constants[name].reshape(-1)]

    def fresh(self, stem: str) -> str:
        """A name that nothing has."""
        name, count = stem, 1
        while name in self.taken:
            name, count = f"{stem}_{count}", count + 1
        self.taken.add(name)
        return name

    def constant(self, value: Array, stem: str) -> str:
        """The name of a new initializer."""
        name = self.fresh(stem)
        self.proto.initializer.append(numpy_helper.from_array(value, name))
        return name

    def add(
        self, node: onnx.NodeProto, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any
    ) -> str:
        """Append a node that does a part of another's work; returns its output's name."""
        out = output or self.fresh(f"{node.output[0]}_{kind.lower()}")
        name = self.fresh(f"{node.name}_{kind.lower()}")
        self.made.append(helper.make_node(kind, list(inputs), [out], name=name, **attributes))
        return out

    def keep(self, node: onnx.NodeProto) -> None:
        """Append the node itself."""
        self.made.append(node)


Rule = Callable[[_Graph, "onnx.NodeProto"], None]


def lower(model: onnx.ModelProto, opset: int) -> None:
    """Say the same in an older opset.

    Args:
        model: of opset 18 or below, without functions; changed in place, half of it where this raises.
        opset: the version that is wanted.

    Raises:
        NoOlderForm: something in it can't be said there.
    """
    if model.functions:
        raise NoOlderForm("functions of the model's own")
    taken = {name for graph in _all_graphs(model.graph) for name in _names(graph)}
    _lower_graph(model.graph, opset, {}, taken)
    for entry in model.opset_import:
        if not entry.domain:
            entry.version = opset
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)


def _lower_graph(graph: onnx.GraphProto, opset: int, around: Mapping[str, Array], taken: set[str]) -> None:
    constants = {**around, **_constants(graph)}
    values = [*graph.input, *graph.output, *graph.value_info]
    shaped = [value for value in values if value.type.tensor_type.HasField("shape")]
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in shaped}
    for version in range(max(version for _, version in RULES), opset, -1):
        room = _Graph(graph, constants, ranks, taken)
        for node in graph.node:
            own = not node.domain
            RULES.get((node.op_type, version), _Graph.keep)(room, node) if own else room.keep(node)
        del graph.node[:]
        graph.node.extend(room.made)
    for node in graph.node:
        _require_known(node, opset)
        for inner in graphs_of(node):
            _lower_graph(inner, opset, constants, taken)
    _drop_unread(graph)


def _require_known(node: onnx.NodeProto, opset: int) -> None:
    """Refuse an operator, or an attribute, that the opset does not have."""
    if node.domain:
        return
    try:
        schema = defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        raise NoOlderForm(node.op_type) from None
    for attribute in node.attribute:
        if attribute.name not in schema.attributes:
            raise NoOlderForm(f"{node.op_type} with {attribute.name}")
    if len(node.input) > schema.max_input:
        raise NoOlderForm(f"{node.op_type} with {len(node.input)} inputs")


def _constants(graph: onnx.GraphProto) -> dict[str, Array]:
    """Small values that are known: sizes and axes, not weights."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and not node.domain and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    small = {name: tensor for name, tensor in tensors.items() if len(tensor.dims) <= 1 and sum(tensor.dims) <= 64}
    return {name: numpy_helper.to_array(tensor) for name, tensor in small.items()}


def _all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for inner in graphs_of(node):
            yield from _all_graphs(inner)


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (value.name for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer))
    yield from (name for node in graph.node for name in (node.name, *node.output))


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Take out constants that have become attributes."""
    read = {value.name for value in graph.output}
    read |= {name for inner in _all_graphs(graph) for node in inner.node for name in node.input}
    read |= {value.name for inner in _all_graphs(graph) for value in inner.output}
    for dead in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(dead)
    for node in [node for node in graph.node if node.op_type == "Constant" and node.output[0] not in read]:
        graph.node.remove(node)


# --- rules ------------------------------------------------------------------------------------------------------------


def _attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    found = [helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name]
    return found[0] if found else default


def _without(node: onnx.NodeProto, *names: str) -> None:
    for entry in [entry for entry in node.attribute if entry.name in names]:
        node.attribute.remove(entry)


def _without_defaults(**defaults: Any) -> Rule:
    """Attributes that came later are left away where they say what was so before."""

    def rule(graph: _Graph, node: onnx.NodeProto) -> None:
        for name, default in defaults.items():
            if _attribute(node, name, default) == default:
                _without(node, name)
        graph.keep(node)

    return rule


def _input_to_attribute(name: str) -> Rule:
    """The second input becomes an attribute: axes, or the sizes of a split."""

    def rule(graph: _Graph, node: onnx.NodeProto) -> None:
        if len(node.input) > 1 and node.input[1]:
            node.attribute.append(helper.make_attribute(name, graph.value(node.input[1], node, name)))
        elif _attribute(node, "noop_with_empty_axes", 0):
            raise NoOlderForm(f"{node.op_type} over no dimension")
        del node.input[1:]
        _without(node, "noop_with_empty_axes")
        graph.keep(node)

    return rule


def _split(graph: _Graph, node: onnx.NodeProto) -> None:
    """A number of parts is what the outputs say; before 18 they are all of one size."""
    _without(node, "num_outputs")
    graph.keep(node)


def _pad(graph: _Graph, node: onnx.NodeProto) -> None:
    """Borders for all dimensions, in place of some that are named."""
    if len(node.input) > 3 and node.input[3]:
        axes = graph.value(node.input[3], node, "axes")
        given = graph.value(node.input[1], node, "pads")
        if node.input[0] not in graph.ranks:
            raise NoOlderForm("Pad with axes of a tensor of unknown rank")
        rank = graph.ranks[node.input[0]]
        pads = np.zeros((2, rank), np.int64)
        pads[:, [axis % rank for axis in axes]] = np.reshape(given, (2, -1))
        node.input[1] = graph.constant(pads.reshape(-1), f"{node.output[0]}_pads")
        del node.input[3:]
    graph.keep(node)


def _resize(graph: _Graph, node: onnx.NodeProto) -> None:
    """Inputs that may be left away since 13 are empty tensors."""
    for place in (1, 2):
        if len(node.input) > place and not node.input[place]:
            node.input[place] = graph.constant(np.zeros(0, np.float32), f"{node.output[0]}_none")
    graph.keep(node)


def _layer_norm(graph: _Graph, node: onnx.NodeProto) -> None:
    """ArXiv:1607.06450, equations 3 and 4: (x - mean) / sqrt(mean((x - mean)^2) + epsilon) * scale + bias."""
    x, scale, *bias = (name for name in node.input if name)
    axis = _attribute(node, "axis", -1)
    if axis >= 0:
        if x not in graph.ranks:
            raise NoOlderForm("LayerNormalization of a tensor of unknown rank")
        axis -= graph.ranks[x]
    if len([name for name in node.output if name]) > 1:
        raise NoOlderForm("LayerNormalization with several outputs")
    over: dict[str, Any] = {"axes": list(range(axis, 0)), "keepdims": 1}
    epsilon = graph.constant(np.array(_attribute(node, "epsilon", 1e-5), np.float32), f"{node.output[0]}_epsilon")
    centred = graph.add(node, "Sub", [x, graph.add(node, "ReduceMean", [x], **over)])
    variance = graph.add(node, "ReduceMean", [graph.add(node, "Mul", [centred, centred])], **over)
    deviation = graph.add(node, "Sqrt", [graph.add(node, "Add", [variance, epsilon])])
    normed = graph.add(node, "Div", [centred, deviation])
    scaled = graph.add(node, "Mul", [normed, scale], None if bias else node.output[0])
    if bias:
        graph.add(node, "Add", [scaled, bias[0]], node.output[0])


def _mish(graph: _Graph, node: onnx.NodeProto) -> None:
    """Mish, arXiv:1908.08681: x * tanh(softplus(x))."""
    soft = graph.add(node, "Tanh", [graph.add(node, "Softplus", node.input)])
    graph.add(node, "Mul", [node.input[0], soft], node.output[0])


def _hard_swish(graph: _Graph, node: onnx.NodeProto) -> None:
    """Hard swish, arXiv:1905.02244, section 5.2: x * max(0, min(1, x / 6 + 1 / 2))."""
    gate = graph.add(node, "HardSigmoid", node.input, alpha=1 / 6, beta=0.5)
    graph.add(node, "Mul", [node.input[0], gate], node.output[0])


def _shape(graph: _Graph, node: onnx.NodeProto) -> None:
    """Some sizes of a tensor: all of them, and a slice of these."""
    start, end = _attribute(node, "start", 0), _attribute(node, "end")
    _without(node, "start", "end")
    if not start and end is None:
        graph.keep(node)
        return
    bounds = [start, np.iinfo(np.int64).max if end is None else end]
    names = [graph.constant(np.array([bound]), f"{node.output[0]}_bound") for bound in bounds]
    graph.add(node, "Slice", [graph.add(node, "Shape", node.input), *names], node.output[0])


def _reshape(graph: _Graph, node: onnx.NodeProto) -> None:
    """A zero that stands for no entries can't be told from one that copies a size."""
    if _attribute(node, "allowzero", 0) and 0 in graph.value(node.input[1], node, "sizes"):
        raise NoOlderForm("Reshape to a size of zero")
    _without(node, "allowzero")
    graph.keep(node)


def _softmax(graph: _Graph, node: onnx.NodeProto) -> None:
    """Over all dimensions from `axis` on, before 13: so the dimension is moved to the end."""
    x, axis = node.input[0], _attribute(node, "axis", -1)
    _without(node, "axis")
    node.attribute.append(helper.make_attribute("axis", -1))
    rank = graph.ranks.get(x)
    if axis == -1 or (rank and axis == rank - 1):
        graph.keep(node)
        return
    if not rank:
        raise NoOlderForm(f"{node.op_type} over dimension {axis} of a tensor of unknown rank")
    turned = list(range(rank))
    turned[axis], turned[-1] = turned[-1], turned[axis]
    last = graph.add(node, "Transpose", [x], perm=turned)
    found = graph.add(node, node.op_type, [last], axis=-1)
    graph.add(node, "Transpose", [found], node.output[0], perm=turned)


def _or_equal(kind: str) -> Rule:
    """One comparison or equality; false for what is not a number, as before."""

    def rule(graph: _Graph, node: onnx.NodeProto) -> None:
        sides = [graph.add(node, part, node.input) for part in (kind, "Equal")]
        graph.add(node, "Or", sides, node.output[0])

    return rule


def _constant(graph: _Graph, node: onnx.NodeProto) -> None:
    """Numbers as a tensor: other ways of writing them came later."""
    entry = node.attribute[0]
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if entry.name in kinds:
        value = numpy_helper.from_array(np.array(helper.get_attribute_value(entry), kinds[entry.name]))
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("value", value))
    graph.keep(node)


# By the version that changed an operator: what takes it back to the one before.
RULES: dict[tuple[str, int], Rule] = {
    **{(f"Reduce{kind}", 18): _input_to_attribute("axes") for kind in _REDUCTIONS},
    ("Split", 18): _split,
    ("Pad", 18): _pad,
    ("Resize", 18): _without_defaults(antialias=0, keep_aspect_ratio_policy=b"stretch"),
    ("ScatterElements", 18): _without_defaults(reduction=b"none"),
    ("ScatterND", 18): _without_defaults(reduction=b"none"),
    ("Mish", 18): _mish,
    ("LayerNormalization", 17): _layer_norm,
    ("Shape", 15): _shape,
    ("BatchNormalization", 14): _without_defaults(training_mode=0),
    ("HardSwish", 14): _hard_swish,
    ("Reshape", 14): _reshape,
    **{(kind, 14): _without_defaults(layout=0) for kind in ("LSTM", "GRU", "RNN")},
    ("ReduceSum", 13): _input_to_attribute("axes"),
    ("Split", 13): _input_to_attribute("split"),
    ("Squeeze", 13): _input_to_attribute("axes"),
    ("Unsqueeze", 13): _input_to_attribute("axes"),
    ("Resize", 13): _resize,
    **{(kind, 13): _softmax for kind in ("Softmax", "LogSoftmax", "Hardmax")},
    **{(kind, 12): _without_defaults(select_last_index=0) for kind in ("ArgMax", "ArgMin")},
    ("GatherND", 12): _without_defaults(batch_dims=0),
    ("GreaterOrEqual", 12): _or_equal("Greater"),
    ("LessOrEqual", 12): _or_equal("Less"),
    ("Constant", 12): _constant,
}
