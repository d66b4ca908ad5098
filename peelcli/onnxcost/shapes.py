"""The shape of every tensor of a graph for one sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from peelcli.errors import InputError, SourceError
from peelcli.inputtext import InputSpec, Spec
from peelcli.onnxcost.folding import fold_sizes
from peelcli.onnxcost.read import OnnxGraph, bytes_of
from peelcli.onnxcost.standins import replace_contributed
from peelcli.onnxnodes import graphs_of, with_inner

_ROUNDS = 200  # of inference and folding; each goes one computed size further
_EXAMPLE = "give them, e.g. --input 1,3,224,224 or --input name=1x3x224x224"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's sizes and its type, one of ONNX's."""

    dims: tuple[int, ...]
    kind: int

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return bytes_of(self.dims, self.kind)


@dataclass(frozen=True, slots=True)
class Shapes:
    """All shapes that are known.

    Attributes:
        tensors: by name; what is missing could not be told.
        inputs: names and sizes of the graph's inputs.
        samples: how many samples they hold: 1 where the batch may change.
    """

    tensors: dict[str, Tensor]
    inputs: dict[str, Tensor]
    samples: int


def shapes(graph: OnnxGraph, given: Sequence[Spec] = ()) -> Shapes:
    """Infer all shapes.

    Args:
        graph: a file.
        given: sizes of inputs; only what the file leaves open is taken from them, and never the batch.

    Raises:
        InputError: the file leaves sizes open that are not given, or they contradict it.
        SourceError: the file contradicts itself.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    replace_contributed(model.graph)
    inputs = [value for value in model.graph.input if value.name not in graph.constants]
    samples = _settle(inputs, _placed(inputs, given, graph), graph)
    return Shapes(_inferred(model, graph), {value.name: _tensor(value) for value in inputs}, samples)  # type: ignore[misc]


def _inferred(model: onnx.ModelProto, graph: OnnxGraph) -> dict[str, Tensor]:
    """Inference, and where that stops at a size that is computed, the computation, in turns."""
    found: dict[str, Tensor] = {}
    folded: set[str] = set()
    for _ in range(_ROUNDS):
        _forget(model)
        try:
            model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except Exception as error:  # onnx.shape_inference.InferenceError and what the C++ side raises
            reason = " ".join(str(error).split())[:200]
            raise SourceError(
                f"{graph.path} contradicts itself: {reason}", hint="check the file, or --input"
            ) from error
        found = dict(_known(model))
        constants = (*graph.constants.items(), *((proto.name, proto) for proto in model.graph.initializer))
        found |= {name: Tensor(tuple(proto.dims), proto.data_type) for name, proto in constants}
        if all(name in found for node in model.graph.node for name in node.output if name):
            break
        more = fold_sizes(model, {name: tensor.dims for name, tensor in found.items()}, folded)
        if not more:
            break
        folded |= more
    return found


def _forget(model: onnx.ModelProto) -> None:
    """Inference keeps what it finds noted, symbols too."""
    for graph in (model.graph, *_inner_graphs(model)):
        del graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")


def _known(model: onnx.ModelProto) -> Iterator[tuple[str, Tensor]]:
    for graph in (model.graph, *_inner_graphs(model)):
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor = _tensor(value)
            if tensor is not None:
                yield value.name, tensor


def _inner_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    for node in with_inner(model.graph.node):
        yield from graphs_of(node)


def _tensor(value: onnx.ValueInfoProto) -> Tensor | None:
    """Sizes and type where all are known."""
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(dim.HasField("dim_value") for dim in kind.shape.dim):
        return None
    return Tensor(tuple(dim.dim_value for dim in kind.shape.dim), kind.elem_type)


# --- what goes in -----------------------------------------------------------------------------------------------------


def _placed(inputs: Sequence[onnx.ValueInfoProto], given: Sequence[Spec], graph: OnnxGraph) -> dict[str, InputSpec]:
    """What the user gave, by the graph's names: named ones first, the others in order."""
    names = [value.name for value in inputs]
    named = {spec.name for spec in given if spec.name is not None}
    left = iter([name for name in names if name not in named])
    placed: dict[str, InputSpec] = {}
    for spec in given:
        name = spec.name if spec.name is not None else next(left, None)
        if name not in names or not isinstance(spec, InputSpec):
            example = f"--input {names[0]}=1x3x224x224" if names else "no --input"
            raise InputError(f"{graph.path.name} takes {len(names)} inputs: {', '.join(names)}", hint=f"e.g. {example}")
        placed[str(name)] = spec
    return placed


def _settle(inputs: Sequence[onnx.ValueInfoProto], placed: dict[str, InputSpec], graph: OnnxGraph) -> int:
    """Write a number for every size; returns how many samples the inputs hold."""
    symbol = _batch_symbol(inputs)
    sizes = {**_said(inputs, placed), **({symbol: 1} if symbol else {})}
    for value in inputs:
        if not value.type.HasField("tensor_type"):
            raise SourceError(
                f"{graph.path} takes {value.name!r}, which is no tensor", hint="export it with tensors only"
            )
        dims = value.type.tensor_type.shape.dim
        spec, open_ = placed.get(value.name), _open(value, graph)
        if spec is not None:
            _check_fit(value, spec, graph)
        for position, dim in enumerate(dims):
            if dim.HasField("dim_value") and dim.dim_value > 0:
                continue
            is_batch = position == 0 and symbol is not None and dim.dim_param in ("", symbol)
            size = 1 if is_batch else sizes.get(dim.dim_param)
            if size is None and spec is not None:
                size = spec.shape[position]
            if size is None:
                raise open_
            if dim.dim_param:
                sizes.setdefault(dim.dim_param, size)
            dim.dim_value = size
    leading = {value.type.tensor_type.shape.dim[0].dim_value for value in inputs if value.type.tensor_type.shape.dim}
    return leading.pop() if len(leading) == 1 else 1


def _said(inputs: Sequence[onnx.ValueInfoProto], placed: dict[str, InputSpec]) -> dict[str, int]:
    """What the user's sizes say of named sizes, in whichever input these stand."""
    return {
        dim.dim_param: size
        for value in inputs
        if value.name in placed
        for dim, size in zip(value.type.tensor_type.shape.dim, placed[value.name].shape, strict=False)
        if dim.dim_param
    }


def _batch_symbol(inputs: Sequence[onnx.ValueInfoProto]) -> str | None:
    """The name of the batch where it may change, "" where the file only leaves it open; None where it is fixed."""
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        if dims:
            first = dims[0]
            return None if first.HasField("dim_value") and first.dim_value > 0 else str(first.dim_param)
    return None


def _check_fit(value: onnx.ValueInfoProto, spec: InputSpec, graph: OnnxGraph) -> None:
    dims = value.type.tensor_type.shape.dim
    fits = len(spec.shape) == len(dims) and all(
        position == 0 or not dim.HasField("dim_value") or dim.dim_value in (0, given)
        for position, (dim, given) in enumerate(zip(dims, spec.shape, strict=True))
    )
    if not fits:
        raise InputError(
            f"--input {spec} does not fit {graph.path.name}: {value.name} has the sizes {_told(value)}",
            hint="leave --input out where the file says what it takes",
        )


def _open(value: onnx.ValueInfoProto, graph: OnnxGraph) -> InputError:
    """What to say where a size stays open."""
    if not value.type.tensor_type.HasField("shape"):
        return InputError(f"{graph.path} does not say how many dimensions {value.name!r} has", hint=_EXAMPLE)
    sizes = [str(dim.dim_value or "224") for dim in value.type.tensor_type.shape.dim]
    return InputError(
        f"{graph.path} leaves sizes of its input open: {value.name} is {_told(value)}",
        hint=f"give them, e.g. --input {value.name}={'x'.join(['1', *sizes[1:]])}",
    )


def _told(value: onnx.ValueInfoProto) -> str:
    return ",".join(str(dim.dim_value or dim.dim_param or "?") for dim in value.type.tensor_type.shape.dim)


def is_floating(kind: int) -> bool:
    """Whether an ONNX type holds fractions."""
    return kind in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
