"""The most that activations take at one time, by the order of nodes in the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx

from peelcli.onnxcost.shapes import Tensor
from peelcli.onnxnodes import with_inner

_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})


def peak_bytes(graph: onnx.GraphProto, tensors: Mapping[str, Tensor], constants: Mapping[str, object]) -> int | None:
    """The largest sum of the sizes of tensors that are alive together.

    A tensor lives from the node that makes it, or from the start where it is an input, to its last reader; outputs live
    to the end. While a node runs, what it reads and what it makes are both there: nothing is computed in place. What a
    reshape makes is the same memory. Constants, and what follows from them alone, count nothing. A
    runtime may do better than that, or worse.

    Returns:
        Bytes, or None where a size is not known.
    """
    owner: dict[str, str] = {}  # what a view's memory belongs to
    for node in graph.node:
        if node.op_type in _VIEWS and node.input[0] not in constants:
            owner[node.output[0]] = owner.get(node.input[0], node.input[0])
    readers: Counter[str] = Counter()
    for node in graph.node:
        readers.update(_read(node, owner, constants))
    readers.update({owner.get(value.name, value.name) for value in graph.output})  # never falls to 0
    alive = {value.name for value in graph.input if value.name not in constants}
    try:
        now = peak = sum(tensors[name].bytes for name in alive)
        for node in graph.node:
            made = {name for name in node.output if name and name not in owner and name not in constants}
            now += sum(tensors[name].bytes for name in made)
            peak = max(peak, now)
            alive |= made
            for name in _read(node, owner, constants):
                readers[name] -= 1
            ended = {name for name in (*_read(node, owner, constants), *made) if name in alive and readers[name] <= 0}
            now -= sum(tensors[name].bytes for name in ended)
            alive -= ended
    except KeyError:
        return None
    return peak


def _read(node: onnx.NodeProto, owner: Mapping[str, str], constants: Mapping[str, object]) -> set[str]:
    """The memory that a node reads, and that the graphs inside it do."""
    names = {name for inner in with_inner([node]) for name in inner.input if name}
    return {owner.get(name, name) for name in names if name not in constants}
