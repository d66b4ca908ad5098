"""Sizes that a graph computes: worked out where all that they come from is known."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_LARGEST = 4096  # entries; sizes are few
_NO_SIZES = (
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial", "Loop",
    "Scan", "If",
)  # fmt: skip


def fold_sizes(model: onnx.ModelProto, dims: Mapping[str, tuple[int, ...]], folded: set[str]) -> set[str]:
    """Compute small tensors that depend on constants and shapes alone, and put them into the graph as initializers.

    Args:
        model: changed in place.
        dims: the shapes that are known.
        folded: names that were computed before.

    Returns:
        The names that are new.
    """
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    made: dict[str, TensorProto] = {}
    for node in model.graph.node:
        names = [name for name in node.output if name]
        if not names or any(name in folded for name in names) or node.op_type in _NO_SIZES:
            continue
        arrays = _computed(node, values, dims, model)
        for name, array in zip(names, arrays, strict=False):
            made[name] = values[name] = numpy_helper.from_array(array, name)
    kept = [node for node in model.graph.node if not (node.output and node.output[0] in made)]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(made.values())
    return set(made)


def _computed(
    node: onnx.NodeProto,
    values: Mapping[str, TensorProto],
    dims: Mapping[str, tuple[int, ...]],
    model: onnx.ModelProto,
) -> list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """The node's outputs, or nothing where they depend on what goes into the model or are large."""
    if node.op_type == "Shape" and node.input[0] in dims:
        ends = {attribute.name: attribute.i for attribute in node.attribute}
        return [np.array(dims[node.input[0]][ends.get("start", 0) : ends.get("end")], np.int64)]
    if node.op_type == "Size" and node.input[0] in dims:
        return [np.array(math.prod(dims[node.input[0]]), np.int64)]
    if not all(name in values for name in node.input if name):
        return []
    if any(math.prod(values[name].dims) > _LARGEST for name in node.input if name):
        return []
    if any(math.prod(dims.get(name, ())) > _LARGEST for name in node.output if name):
        return []
    return _run(node, values, model)


def _run(
    node: onnx.NodeProto, values: Mapping[str, TensorProto], model: onnx.ModelProto
) -> list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    names = list(dict.fromkeys(name for name in node.input if name))
    ins = [helper.make_value_info(name, onnx.TypeProto()) for name in names]
    outs = [helper.make_value_info(name, onnx.TypeProto()) for name in node.output if name]
    graph = helper.make_graph([node], "one", ins, outs)
    try:
        evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=list(model.opset_import)))
        found = evaluator.run(None, {name: numpy_helper.to_array(values[name]) for name in names})
    except Exception:  # the reference raises whatever numpy does; what it can't compute stays unknown
        return []
    arrays = [np.asarray(array) for array in found]
    return arrays if all(array.size <= _LARGEST for array in arrays) else []
