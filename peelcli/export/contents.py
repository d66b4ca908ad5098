"""What stands in an ONNX file beside its operators: names of layers and sizes, notes; nothing of the user's machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from peelcli.onnxnames import ABOUT, SCOPES, of_scopes
from peelcli.onnxnodes import graphs_of, with_inner

if TYPE_CHECKING:
    import onnx


def annotate(proto: onnx.ModelProto, metadata: Mapping[str, str], module: nn.Module) -> None:
    """Put the layers' names and our notes into a graph that was exported, and take its exporter's out.

    Args:
        proto: changed in place.
        metadata: goes into its metadata_props.
        module: what was exported. Where it was made of an ONNX file, the notes of that file are kept.
    """
    _call_by_module(proto)
    _strip(proto)
    _name_batch(proto)
    _label(proto, metadata, module)


def _call_by_module(proto: onnx.ModelProto) -> None:
    """Put the path of the innermost module before a node's name: what readers see after the metadata is gone."""
    for node in _nodes(proto):
        notes = {entry.key: entry.value for entry in node.metadata_props}
        place = of_scopes(notes.get(SCOPES, ""))
        if place:
            node.name = f"{place}/{node.name}"


def _strip(proto: onnx.ModelProto) -> None:
    """Remove stack traces and doc strings: they hold paths of the user's machine."""
    messages: list[Any] = [proto, *proto.functions]
    for graph in _graphs(proto):
        messages += [graph, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for node in _nodes(proto):
        messages += [node, *node.attribute]
    for message in messages:
        for field in ("doc_string", "metadata_props"):
            if field in message.DESCRIPTOR.fields_by_name:
                message.ClearField(field)


def _name_batch(proto: onnx.ModelProto) -> None:
    """Call the batch "batch" in all shapes; the exporter forgets the name where an argument is no tensor."""
    sizes = [value.type.tensor_type.shape.dim[:1] for value in proto.graph.input]
    symbols = [size.dim_param for first in sizes for size in first if size.dim_param]
    for graph in _graphs(proto) if symbols else ():
        for value in (*graph.input, *graph.output, *graph.value_info):
            for size in value.type.tensor_type.shape.dim:
                if size.dim_param:
                    size.dim_param = re.sub(rf"\b{re.escape(symbols[0])}\b", "batch", size.dim_param)


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph, and those inside its nodes."""
    yield proto.graph
    for node in _nodes(proto):
        yield from graphs_of(node)


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of functions and of graphs inside nodes included."""
    return with_inner([*proto.graph.node, *(node for function in proto.functions for node in function.node)])


def _label(proto: onnx.ModelProto, metadata: Mapping[str, str], module: nn.Module) -> None:
    """Our notes, and those of the file that the model was made of."""
    if isinstance(module, fx.GraphModule):
        proto.MergeFromString(module.meta.get(ABOUT, b""))
    for key, value in sorted(metadata.items()):
        proto.metadata_props.add(key=key, value=value)
