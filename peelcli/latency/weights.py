"""Which of a file's weights a node of onnxruntime's own graph uses; several nodes of the file may be fused into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

_STEPS = 8  # back from what a fused node puts out to the node with the weight


def weights_by_node(path: Path) -> Mapping[str, str]:
    """The weight behind every name that a node may go by in a profile: its own, or that of what it puts out."""
    graph = onnx.load(str(path), load_external_data=False).graph
    kept = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    producer = {output: node for node in graph.node for output in node.output}
    found: dict[str, str] = {}
    for node in graph.node:
        at: onnx.NodeProto | None = node
        for _ in range(_STEPS):
            weight = next((name for name in at.input if name in kept), None) if at else None
            if at is None or weight:
                break
            at = producer.get(at.input[0]) if at.input else None
        else:
            weight = None
        if weight:
            found.update({name: weight for name in (node.name, *node.output) if name})
    return found
