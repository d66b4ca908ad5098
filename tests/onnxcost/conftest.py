"""ONNX files of a few nodes, made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Sizes = Sequence[int | str]


def graph_file(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sizes],
    weights: Mapping[str, Any],
    outputs: Sequence[str] = ("y",),
    opset: int = 20,
    kind: int = TensorProto.FLOAT,
) -> Path:
    """Write a file; a weight is a shape, or an array where its values matter."""
    arrays = {name: w if isinstance(w, np.ndarray) else np.zeros(w, np.float32) for name, w in weights.items()}
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, kind, list(sizes)) for name, sizes in inputs.items()],
        [helper.make_value_info(name, helper.make_tensor_type_proto(kind, None)) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    domains = {node.domain for node in nodes} - {""}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.fixture
def made(tmp_path):
    """Write net.onnx into the test's folder: nodes, inputs, weights."""

    def make(*arguments: Any, **named: Any) -> Path:
        return graph_file(tmp_path / "net.onnx", *arguments, **named)

    return make
