"""Ops of which the file fixes every input: computed once, here, by the reference that comes with onnx."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from peelcli.sources.onnxfile.values import Constant, NotFolded, Unsupported, Value

LARGEST = 2**27  # entries that a constant may grow to
_GROWING = ("Expand", "Tile", "ConstantOfShape", "Range", "Pad", "Resize", "Upsample", "OneHot")
_KEEPING = (  # what comes out is no more than what goes in
    "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Slice", "Cast", "Flatten", "Split", "ScatterND", "ScatterElements",
    "GatherElements", "Trilu", "CumSum", "TopK", "Concat", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin",
    "ReduceProd", "ReduceL1", "ReduceL2", "Clip", "NonZero", "Compress", "CastLike",
)  # fmt: skip
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")


def fold(node: onnx.NodeProto, inputs: Sequence[Constant | None], opset: int) -> tuple[Value, ...]:
    """The outputs of a node with constant inputs.

    Args:
        node: of ONNX's own ops.
        inputs: in the node's order.
        opset: the version of ONNX's own ops.

    Raises:
        Unsupported: the reference can't, or the outcome would be out of proportion.
    """
    if node.op_type in _RANDOM:
        raise Unsupported("makes random numbers")
    known = _unchanged(node, inputs)
    if known is not None:
        return (known,)
    _check_growth(node, inputs)
    arrays = {name: to_array(value.tensor) for name, value in zip(node.input, inputs, strict=True) if value is not None}
    try:
        made = _reference(node, opset).run(None, arrays)
    except Exception as error:  # the reference raises whatever numpy does
        lines = str(error).splitlines()
        raise NotFolded(f"can't be computed: {lines[0] if lines else type(error).__name__}") from None
    origin = next((v.origin or v.name for v in inputs if v is not None and v.tensor.is_floating_point()), "")
    return tuple(Constant(from_array(np.asarray(array)), origin=origin) for array in made)


def _unchanged(node: onnx.NodeProto, inputs: Sequence[Constant | None]) -> Constant | None:
    """The same initializer, or its transpose: weights stay known by name."""
    one = inputs[0] if inputs else None
    if one is None or len(node.output) > 1:
        return None
    if node.op_type == "Identity":
        return one
    if node.op_type == "Transpose" and one.tensor.dim() == 2:
        order = [list(a.ints) for a in node.attribute if a.name == "perm"] or [[1, 0]]
        return one.transposed() if order[0] == [1, 0] else one
    return None


def _check_growth(node: onnx.NodeProto, inputs: Sequence[Constant | None]) -> None:
    """Refuse before memory is asked for."""
    given = [value.tensor for value in inputs if value is not None]
    entries = _outcome(node, given) if given else 0
    if entries > LARGEST:
        raise Unsupported(f"makes a constant of {entries} entries")


def _outcome(node: onnx.NodeProto, given: Sequence[Tensor]) -> int:
    """Entries that come out, or more."""
    kind, first = node.op_type, given[0]
    if kind in _GROWING:
        return _grown(kind, given)
    if kind in _KEEPING or len(given) == 1:
        return sum(tensor.numel() for tensor in given)
    if kind in ("MatMul", "Gemm", "Gather", "GatherND"):
        shape, at = given[0].shape, given[1]
        if kind == "GatherND":
            return at.numel() * math.prod(shape[at.shape[-1] :] if at.dim() else shape)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0) if kind == "Gather" else -1
        lost = shape[axis] if -len(shape) <= axis < len(shape) else 1
        rest = at.numel() if kind == "Gather" else at.numel() // max(1, lost)
        return first.numel() // max(1, lost) * rest
    try:
        return math.prod(torch.broadcast_shapes(*(tensor.shape for tensor in given)))
    except RuntimeError:
        return math.prod(tensor.numel() for tensor in given)


def _grown(kind: str, given: Sequence[Tensor]) -> int:
    """Of an op whose inputs say how large its output is."""
    if kind == "Range" and len(given) == 3:
        start, limit, step = (float(tensor.reshape(-1)[0]) for tensor in given)
        return int(min(abs(limit - start) / max(abs(step), 1e-300), 2.0**62))
    if kind == "Expand" and len(given) == 2 and given[1].numel() <= 64:
        return math.prod(
            max(a, b)
            for a, b in zip_longest(reversed(given[0].shape), reversed(given[1].reshape(-1).tolist()), fillvalue=1)
        )
    wholes = [t for t in given if not t.is_floating_point() and 0 < t.numel() <= 64]
    most = max((math.prod(max(1, abs(int(entry))) for entry in t.reshape(-1)) for t in wholes), default=1)
    if kind == "Pad" and len(given) > 1:
        return math.prod(size + int(given[1].abs().sum()) for size in given[0].shape)
    if kind in ("Resize", "Upsample"):
        scales = [t for t in given[1:] if t.is_floating_point() and t.numel()]
        scale = max((float(t.abs().max()) for t in scales), default=1.0)
        return max(most, int(min(scale, 1e6) ** 4) * given[0].numel())
    largest = max(tensor.numel() for tensor in given)
    return most * largest if kind in ("Tile", "OneHot") else most


def _reference(node: onnx.NodeProto, opset: int) -> Any:
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    names = [name for name in node.input if name]
    ins = [helper.make_value_info(name, onnx.TypeProto()) for name in dict.fromkeys(names)]
    outs = [helper.make_value_info(name, onnx.TypeProto()) for name in node.output if name]
    graph = helper.make_graph([node], "one", ins, outs)
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))


def to_array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The same numbers for numpy."""
    if tensor.dtype is torch.bfloat16:
        import ml_dtypes

        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def from_array(array: np.ndarray[Any, Any]) -> Tensor:
    """The same numbers for torch, in memory of their own.

    Raises:
        Unsupported: torch has no such type.
    """
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    try:
        return torch.from_numpy(np.array(array, order="C"))
    except TypeError:
        raise Unsupported(f"has numbers of type {array.dtype.name}, which torch does not have") from None
