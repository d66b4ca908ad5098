"""From an ONNX graph to a module: node by node, by the rule of its op."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import fx

from peelcli import onnxnames
from peelcli.errors import SourceError
from peelcli.sources.onnxfile import arithmetic, tensors
from peelcli.sources.onnxfile.builder import Builder
from peelcli.sources.onnxfile.fold import fold
from peelcli.sources.onnxfile.ops import TABLE
from peelcli.sources.onnxfile.ops.base import Op
from peelcli.sources.onnxfile.read import OnnxFile
from peelcli.sources.onnxfile.values import Constant, NotFolded, Unsupported, Value

_STANDARD = ("", "ai.onnx")
_HINT = "give the PyTorch model that it was made from: torch.save(model, 'model.pt')"
_FOLDED_ONLY = frozenset({"NonZero", "EyeLike", "Unique", "BitShift", "Compress", "Hardmax", "Det"})
_WEIGHTED = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "LayerNormalization", "RMSNormalization",
     "InstanceNormalization", "GroupNormalization", "PRelu", "Gather"}
)  # fmt: skip
_DEEPEST = 16  # branches inside branches


def build(file: OnnxFile, builder: Builder, shapes: Mapping[str, Sequence[int]]) -> fx.GraphModule:
    """Rebuild a graph as a module.

    Args:
        file: what was read.
        builder: a fresh one.
        shapes: of the example inputs, by the graph's names.

    Raises:
        SourceError: an op is not known, or is used in a way that is not; its name is told.
    """
    walk = _Walk(file, builder)
    for value in file.inputs:
        walk.env[value.name] = builder.placeholder(argument(value.name), shapes[value.name], value.dtype)
    walk.nodes(file.graph.node, [value.name for value in file.graph.output])
    module = builder.finish([builder.tensor(walk.env[value.name]) for value in file.graph.output])
    module.meta[onnxnames.INTERFACE] = ([v.name for v in file.inputs], [v.name for v in file.graph.output])
    module.meta[onnxnames.ABOUT] = file.about
    module.meta[onnxnames.OPSET] = file.opset
    return module


def argument(name: str) -> str:
    """A graph's input as an argument of forward."""
    legal = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "x"
    return f"x{legal}" if legal[0].isdigit() else legal


class _Walk:
    """The nodes in order, and what every name stands for by then."""

    def __init__(self, file: OnnxFile, builder: Builder) -> None:
        self.file, self.builder = file, builder
        self.env: dict[str, Value] = {name: Constant(tensor, name) for name, tensor in file.weights.items()}
        self._depth = 0

    def nodes(self, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> None:
        """Rebuild all nodes of one graph; what its outputs are read for, nothing else may take over."""
        readers = Counter(name for node in nodes for name in node.input) + Counter(outputs)
        adds = {name: node for node in nodes if node.op_type == "Add" for name in node.input if readers[name] == 1}
        taken: set[int] = set()
        for node in nodes:
            if id(node) in taken:
                continue
            add = adds.get(node.output[0]) if node.op_type == "MatMul" and node.output else None
            bias = self._bias(node, add)
            try:
                made = self._node(node, bias)
            except SourceError as error:
                if error.hint:  # a full sentence already: damage, or a node inside a branch
                    raise
                raise _refused(node, error.message, self.file) from None
            except Exception as error:  # torch, on sizes that do not fit each other
                raise _refused(node, f"does not fit its inputs: {_line(error)}", self.file) from error
            if add is not None and bias is not None:
                taken.add(id(add))
                self.env[add.output[0]] = made[0]
            for name, value in zip(node.output, made, strict=False):
                if name:
                    self.env[name] = value

    def _bias(self, node: onnx.NodeProto, add: onnx.NodeProto | None) -> Constant | None:
        """What the only reader of a product with a fixed matrix adds to it, one number a column."""
        if add is None or len(node.input) < 2:
            return None
        weight, read = self.env.get(node.input[1]), self.env.get(node.input[0])
        others = [self.env.get(name) for name in add.input if name != node.output[0]]
        if not isinstance(weight, Constant) or weight.tensor.dim() != 2 or not isinstance(read, fx.Node):
            return None
        found = others[0] if len(others) == 1 else None
        fits = isinstance(found, Constant) and tuple(found.tensor.shape) == (weight.tensor.shape[1],)
        return found if isinstance(found, Constant) and fits else None

    def _node(self, node: onnx.NodeProto, bias: Constant | None) -> tuple[Value, ...]:
        if node.domain not in _STANDARD:
            raise Unsupported(f"of the domain {node.domain[:100]} is not known")
        if node.op_type == "Constant":
            return (self._constant(node),)
        if node.op_type == "If":
            return self._branch(node)
        inputs = tuple(self._read(name) if name else None for name in node.input)
        known = node.op_type in TABLE or arithmetic.knows(node.op_type) or node.op_type in _FOLDED_ONLY
        if known and all(value is None or isinstance(value, Constant) for value in inputs):
            fixed = [value for value in inputs if value is None or isinstance(value, Constant)]
            try:
                return fold(node, fixed, self.opset)
            except NotFolded:
                if node.op_type not in TABLE:
                    raise
        return self._rebuilt(node, inputs, bias)

    def _read(self, name: str) -> Value:
        if name not in self.env:
            raise Unsupported(f"reads {name[:200]!r}, which nothing computes before it")
        return self.env[name]

    @property
    def opset(self) -> int:
        """The version of ONNX's own ops."""
        return self.file.opset

    def _rebuilt(
        self, node: onnx.NodeProto, inputs: tuple[Value | None, ...], bias: Constant | None
    ) -> tuple[Value, ...]:
        attributes = {a.name: self._attribute(a) for a in node.attribute}
        outputs = len(list(node.output))
        while outputs > 1 and not node.output[outputs - 1]:
            outputs -= 1
        op = Op(node.op_type, inputs, attributes, self.opset, outputs, bias)
        if not any(isinstance(value, fx.Node) for value in inputs):
            settled = arithmetic.apply(self.builder, op)
            if settled is not None:
                return (settled,)
        rule = TABLE.get(node.op_type)
        if rule is None:
            raise Unsupported("is not known")
        self.builder.kind = node.op_type
        self.builder.wishes = _wishes(node, op)
        made = rule(self.builder, op)
        return made if isinstance(made, tuple) else (made,)

    def _constant(self, node: onnx.NodeProto) -> Constant:
        attribute = node.attribute[0] if node.attribute else onnx.AttributeProto()
        value = self._attribute(attribute)
        if isinstance(value, torch.Tensor):
            return Constant(value)
        if attribute.name in ("value_int", "value_ints"):
            return Constant(torch.tensor(value, dtype=torch.int64))
        if attribute.name in ("value_float", "value_floats"):
            return Constant(torch.tensor(value, dtype=torch.float32))
        raise Unsupported("is neither numbers nor a tensor")

    def _attribute(self, attribute: onnx.AttributeProto) -> Any:
        if attribute.type == onnx.AttributeProto.TENSOR:
            return tensors.read(attribute.t, self.file.path)
        if attribute.type == onnx.AttributeProto.STRING:
            return attribute.s.decode("utf-8", "replace")
        if attribute.type in (
            onnx.AttributeProto.INT, onnx.AttributeProto.FLOAT, onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS,
        ):  # fmt: skip
            value = onnx.helper.get_attribute_value(attribute)
            return list(value) if attribute.type in (7, 6) else value
        raise Unsupported(f"has an attribute {attribute.name!r} that peel can't read")

    def _branch(self, node: onnx.NodeProto) -> tuple[Value, ...]:
        """The branch that is always taken, where that is fixed."""
        condition = self._read(node.input[0])
        if not isinstance(condition, Constant) or condition.tensor.numel() != 1 or self._depth >= _DEEPEST:
            raise Unsupported("decides while it runs")
        wanted = "then_branch" if bool(condition.tensor) else "else_branch"
        graph = next(attribute.g for attribute in node.attribute if attribute.name == wanted)
        for proto in graph.initializer:
            self.env[proto.name] = Constant(tensors.read(proto, self.file.path), proto.name)
        self._depth += 1
        names = [value.name for value in graph.output]
        self.nodes(graph.node, names)
        self._depth -= 1
        return tuple(self._read(name) for name in names)


def _wishes(node: onnx.NodeProto, op: Op) -> tuple[str, ...]:
    """Names for the layer that stands for a node, the best first."""
    scope = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "")
    place = onnxnames.of_scopes(scope) if scope else onnxnames.of_node(node.name)
    kind = node.op_type.lower()
    if node.op_type in _WEIGHTED:
        fixed = [value for value in (*op.inputs, op.bias) if isinstance(value, Constant)]
        said = [onnxnames.of_weight(value.name) for value in fixed]
        inside = f"{place}.{kind}" if place else ""  # where the place is a container, or taken
        return tuple(name for name in (*said[:1], place, *said[1:], inside) if name)
    if not scope and not node.name.startswith("/"):
        return (place,) if place else ()
    return (place if kind in place.rpartition(".")[2] else f"{place}.{kind}".lstrip("."),)


def _refused(node: onnx.NodeProto, why: str, file: OnnxFile) -> SourceError:
    where = f"op {node.op_type[:100]} (node {node.name[:200]!r})"
    return SourceError(f"{file.path} can't be read: {where} {why}", hint=_HINT)


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
