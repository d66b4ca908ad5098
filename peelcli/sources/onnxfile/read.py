"""Read an ONNX file without trusting it: what it says of itself is compared with what is there before it is used."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor

from peelcli.errors import SourceError
from peelcli.onnxdata import LARGEST, parse
from peelcli.onnxnames import OWN
from peelcli.onnxnodes import MOST_NODES, inlined, with_inner
from peelcli.sources.onnxfile import tensors
from peelcli.sources.sniff import cut_short

_AGAIN = "export the model again, e.g. torch.onnx.export(model, example, 'model.onnx', dynamo=True)"
_OLDEST = 7  # opset before which ops mean other things
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinear", "ConvInteger", "MatMulInteger")
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, slots=True)
class Input:
    """One input of the graph.

    Attributes:
        sizes: an int, the name of a size that may change, or "" where nothing is known of it.
    """

    name: str
    sizes: tuple[int | str, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What is in a file, checked.

    Attributes:
        graph: without functions; its initializers are in `weights`.
        weights: by name.
        opset: the version of ONNX's own ops.
        about: what its author wrote on it, a serialised model without a graph.
    """

    path: Path
    graph: onnx.GraphProto
    weights: dict[str, Tensor]
    inputs: tuple[Input, ...]
    opset: int
    about: bytes = b""


def read(path: Path) -> OnnxFile:
    """Read and check a file.

    Raises:
        SourceError: it is damaged, contradicts itself, reaches outside of its folder, or is quantised.
    """
    model = parse(path)
    if not all(isinstance(name, str) for name in _names(model)):  # what is no text comes as bytes
        raise cut_short(path)
    if not model.HasField("graph") or not model.graph.node:
        raise SourceError(f"{path} is no ONNX model: it has no graph", hint=_AGAIN)
    opset = next((entry.version for entry in model.opset_import if entry.domain in _STANDARD), 0)
    if opset < _OLDEST:
        raise SourceError(f"{path} uses opset {opset}, peel reads opset {_OLDEST} and later", hint=_AGAIN)
    model = inlined(model, path)
    graph = model.graph
    _check_nodes(graph, path)
    if graph.sparse_initializer:
        raise SourceError(f"{path} holds sparse weights", hint="export the model with dense weights")
    weights: dict[str, Tensor] = {}
    for proto in graph.initializer:
        if proto.name in weights:
            raise SourceError(f"{path} is damaged: it defines {proto.name!r} twice", hint=_AGAIN)
        weights[proto.name] = tensors.read(proto, path)
    _check_order(graph, set(weights), path)
    inputs = tuple(_input(value, path) for value in graph.input if value.name not in weights)
    if not inputs or not graph.output:
        raise SourceError(f"{path} has no inputs or no outputs", hint=_AGAIN)
    return OnnxFile(path, graph, weights, inputs, opset, _about(model))


def _about(model: onnx.ModelProto) -> bytes:
    """Names of classes, strides and the like, which programs that run the file look up in it; nothing of peel's."""
    about = onnx.ModelProto()
    for entry in model.metadata_props:
        if all(isinstance(text, str) for text in (entry.key, entry.value)) and not entry.key.startswith(OWN):
            about.metadata_props.add(key=entry.key, value=entry.value)
    if model.doc_string:
        about.doc_string = model.doc_string
    if model.model_version:
        about.model_version = model.model_version
    return bytes(about.SerializeToString(deterministic=True))


def _names(model: onnx.ModelProto) -> Iterator[object]:
    """Every name that is used later."""
    yield from (entry.domain for entry in model.opset_import)
    for owner in (model.graph, *model.functions):
        for node in with_inner(owner.node):
            yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
            yield from (attribute.name for attribute in node.attribute)
            for attribute in node.attribute:
                yield from (thing.name for thing in (*attribute.g.initializer, *attribute.g.output))
    yield from (thing.name for thing in (*model.graph.initializer, *model.graph.input, *model.graph.output))
    for value in model.graph.input:
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    for tensor in model.graph.initializer:
        yield from (part for entry in tensor.external_data for part in (entry.key, entry.value))


def _check_nodes(graph: onnx.GraphProto, path: Path) -> None:
    """Refuse by name what no rule can ever stand for."""
    if len(graph.node) > MOST_NODES:
        raise SourceError(f"{path} has {len(graph.node)} nodes, peel reads up to {MOST_NODES}", hint=_AGAIN)
    for node in graph.node:
        if node.op_type.startswith(_QUANTISED):
            raise SourceError(
                f"{path} is quantised: op {node.op_type} (node {node.name!r})",
                hint="prune the floating-point model that it was made from, then quantise the slim one",
            )


def _check_order(graph: onnx.GraphProto, known: set[str], path: Path) -> None:
    """Every name is made once, before it is read; a cycle can't be in such an order."""
    known = known | {value.name for value in graph.input}
    made = {name for node in graph.node for name in node.output if name}
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                why = "before it is computed: the graph has a cycle" if name in made else "which nothing computes"
                raise SourceError(f"{path} is damaged: node {node.name!r} reads {name!r} {why}", hint=_AGAIN)
        twice = next((name for name in node.output if name and name in known), None)
        if twice is not None:
            raise SourceError(f"{path} is damaged: it computes {twice!r} twice", hint=_AGAIN)
        known.update(name for name in node.output if name)
    missing = [value.name for value in graph.output if value.name not in known]
    if missing:
        raise SourceError(f"{path} is damaged: nothing computes its output {missing[0]!r}", hint=_AGAIN)


def _input(value: onnx.ValueInfoProto, path: Path) -> Input:
    if not value.type.HasField("tensor_type"):
        raise SourceError(f"{path} takes {value.name!r}, which is no tensor", hint="export it with tensors only")
    kind = value.type.tensor_type
    sizes = tuple(_sizes(kind.shape)) if kind.HasField("shape") else None
    if sizes is None:
        raise SourceError(f"{path} does not say how many dimensions {value.name!r} has", hint=_AGAIN)
    fixed = [size for size in sizes if isinstance(size, int)]
    if any(size < 1 for size in fixed) or math.prod(fixed) > LARGEST:
        raise SourceError(f"{path} takes {value.name!r} with the sizes {list(sizes)}", hint=_AGAIN)
    return Input(value.name, sizes, tensors.dtype_of(kind.elem_type, path))


def _sizes(shape: onnx.TensorShapeProto) -> Iterator[int | str]:
    for dim in shape.dim:
        if dim.HasField("dim_value") and dim.dim_value > 0:
            yield dim.dim_value
        else:
            yield dim.dim_param  # "" too: nothing is known of it
