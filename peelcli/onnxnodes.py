"""Walking an ONNX graph: what reads such files, what counts them and what writes them do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from peelcli.errors import SourceError

if TYPE_CHECKING:
    import onnx

MOST_NODES = 200_000
_DEEPEST = 32  # functions that call functions

Key = tuple[str, str]


def with_inner(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and those of graphs inside them."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        for graph in graphs_of(node):
            waiting += graph.node


def graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds: the branches of an If, the body of a Loop."""
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def inlined(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """A model without functions of its own.

    Raises:
        SourceError: they call each other in a circle, or grow without measure.
    """
    if not model.functions:
        return model
    bodies = {(function.domain, function.name): list(function.node) for function in model.functions}
    if _written_out(list(model.graph.node), bodies, {}, ()) > MOST_NODES:
        raise SourceError(
            f"{path} has functions that call themselves, or grow to more than {MOST_NODES} nodes",
            hint="export the model again without functions",
        )
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # what the C++ side raises
        lines = str(error).splitlines()
        raise SourceError(
            f"{path} has functions that can't be written out: {lines[0] if lines else type(error).__name__}",
            hint="export the model again without functions",
        ) from None


def _written_out(
    nodes: list[onnx.NodeProto], bodies: dict[Key, list[onnx.NodeProto]], known: dict[Key, int], above: tuple[Key, ...]
) -> int:
    """Nodes after inlining; more than is allowed where there is a circle."""
    total = 0
    for node in with_inner(nodes):
        key = (node.domain, node.op_type)
        if key not in bodies:
            total += 1
        elif key in above or len(above) > _DEEPEST:
            return MOST_NODES + 1
        else:
            if key not in known:
                known[key] = _written_out(bodies[key], bodies, known, (*above, key))
            total += known[key]
        if total > MOST_NODES:
            return total
    return total
