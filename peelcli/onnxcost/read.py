"""A file's graph without its weights: shapes say all that is counted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from peelcli import onnxdata
from peelcli.errors import SourceError
from peelcli.onnxnodes import MOST_NODES, graphs_of, inlined, with_inner

KEPT = 4096  # entries up to which a constant keeps its values: sizes are computed from such
_AGAIN = "copy, download or export the file again"
_BITS: dict[int, int] = {
    TensorProto.DOUBLE: 64, TensorProto.INT64: 64, TensorProto.UINT64: 64, TensorProto.COMPLEX64: 64,
    TensorProto.COMPLEX128: 128, TensorProto.FLOAT: 32, TensorProto.INT32: 32, TensorProto.UINT32: 32,
    TensorProto.FLOAT16: 16, TensorProto.BFLOAT16: 16, TensorProto.INT16: 16, TensorProto.UINT16: 16,
    TensorProto.UINT4: 4, TensorProto.INT4: 4, TensorProto.FLOAT4E2M1: 4,
}  # fmt: skip
_DATA = ("raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data")


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """What is counted.

    Attributes:
        path: of the file.
        model: without functions; constants of more than KEPT entries have no values.
        constants: initializers and the tensors of Constant nodes, by name, in the file's order.
        bytes: of the file and of its data files.
    """

    path: Path
    model: onnx.ModelProto
    constants: dict[str, TensorProto]
    bytes: int


def read(path: Path) -> OnnxGraph:
    """Read a file.

    Raises:
        SourceError: it is damaged, too large for a protobuf, or a data file of it is missing.
    """
    model = onnxdata.parse(path)
    if not model.graph.node:
        raise SourceError(f"{path} is no ONNX model: it has no graph", hint=_AGAIN)
    data_files = _lightened(model, path)
    model = inlined(model, path)
    if len(model.graph.node) > MOST_NODES:
        raise SourceError(f"{path} has {len(model.graph.node)} nodes, peel reads up to {MOST_NODES}", hint=_AGAIN)
    size = path.stat().st_size + sum(file.stat().st_size for file in data_files)
    return OnnxGraph(path, model, dict(_constants(model.graph)), size)


def bytes_of(dims: tuple[int, ...], kind: int) -> int:
    """Memory of a tensor of an ONNX type; text counts nothing."""
    bits = 0 if kind == TensorProto.STRING else _BITS.get(kind, 8)
    return -(-math.prod(dims) * bits // 8)


def _lightened(model: onnx.ModelProto, path: Path) -> set[Path]:
    """Drop the values of large constants, after a look whether they are there; returns the data files."""
    data_files = set()
    for tensor in _tensors(model):
        dims = tuple(tensor.dims)
        if any(size < 0 for size in dims):
            raise SourceError(f"{path} is damaged: {tensor.name!r} has the sizes {list(dims)[:8]}", hint=_AGAIN)
        needed = bytes_of(dims, tensor.data_type)
        if tensor.data_location == TensorProto.EXTERNAL:
            data_files.add(onnxdata.place(tensor, path, needed)[0])
        elif tensor.HasField("raw_data") and len(tensor.raw_data) != needed:
            held = len(tensor.raw_data)
            raise SourceError(f"{path} is damaged: {tensor.name!r} holds {held} bytes, not {needed}", hint=_AGAIN)
        if math.prod(dims) > KEPT:
            for field in _DATA:
                tensor.ClearField(field)
    return data_files


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    owners = [model.graph, *model.functions]
    yield from model.graph.initializer
    for node in with_inner(node for owner in owners for node in owner.node):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for graph in graphs_of(node):
            yield from graph.initializer


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, TensorProto]]:
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in with_inner(graph.node):
        for inner in graphs_of(node):
            yield from ((tensor.name, tensor) for tensor in inner.initializer)
        if node.op_type == "Constant" and node.output:
            yield from ((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")
