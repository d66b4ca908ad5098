"""Small ONNX files, written without torch."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def convolutions(path: Path, *widths: int, side: int | str = 16, batch: int | str = "batch", kernel: int = 3) -> Path:
    """A chain of convolutions with ReLU; `widths` are the channels from the input on."""
    nodes, weights = [], []
    source = np.random.default_rng(0)
    for number, (before, after) in enumerate(itertools.pairwise(widths)):
        value = source.standard_normal((after, before, kernel, kernel)).astype(np.float32)
        weights.append(numpy_helper.from_array(value, f"conv{number}.weight"))
        inner, last = f"x{number}", f"y{number}"
        pads = [kernel // 2] * 4
        read = "input" if number == 0 else f"y{number - 1}"
        nodes.append(helper.make_node("Conv", [read, f"conv{number}.weight"], [inner], f"conv{number}", pads=pads))
        nodes.append(helper.make_node("Relu", [inner], [last], f"relu{number}"))
    shape = [batch, widths[0], side, side]
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)
    put = helper.make_tensor_value_info(f"y{len(widths) - 2}", TensorProto.FLOAT, [batch, widths[-1], side, side])
    graph = helper.make_graph(nodes, "net", [given], [put], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path
