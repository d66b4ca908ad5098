"""From a file to its footprint: multiply-adds and parameters layer by layer, memory, size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from peelcli.footprint import UNWEIGHTED, Footprint, LayerCost
from peelcli.inputtext import InputSpec, Spec
from peelcli.onnxcost import formulas, memory
from peelcli.onnxcost.formulas import Call
from peelcli.onnxcost.parameters import Owners, parameters
from peelcli.onnxcost.read import OnnxGraph, read
from peelcli.onnxcost.shapes import Shapes, shapes
from peelcli.onnxnodes import graphs_of


@dataclass
class _Tally:
    """Layers by name, in the order in which they come."""

    ops: dict[str, str] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)
    params: dict[str, int] = field(default_factory=dict)
    widths: dict[str, int | None] = field(default_factory=dict)
    uncounted: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)

    def layers(self, samples: int) -> Iterator[LayerCost]:
        for name in dict.fromkeys((*self.macs, *self.params)):
            macs = self.macs.get(name, 0) // samples
            yield LayerCost(name, self.ops.get(name, ""), macs, self.params.get(name, 0), self.widths.get(name))


def count(path: Path, given: Sequence[Spec] = ()) -> Footprint:
    """Count what an ONNX file costs for one sample.

    Args:
        path: of the file.
        given: sizes of inputs that the file leaves open.

    Raises:
        SourceError: the file is damaged, or a data file is missing.
        InputError: it leaves sizes open that were not given.
    """
    graph = read(path)
    known = shapes(graph, given)
    owners = Owners(graph)
    tally = _tally(graph, known, owners)
    layers = tuple(tally.layers(known.samples))
    peak = memory.peak_bytes(graph.model.graph, known.tensors, owners.origin)
    return Footprint(
        name=path.name,
        kind="onnx",
        macs=sum(layer.macs for layer in layers),
        params=sum(layer.params for layer in layers),
        bytes=graph.bytes,
        peak_bytes=None if peak is None else peak // known.samples,
        inputs=tuple(str(InputSpec(tensor.dims, name)) for name, tensor in known.inputs.items()),
        layers=layers,
        uncounted=tuple(sorted(tally.uncounted)),
        unknown=tuple(sorted(tally.unknown)),
        notes=tuple(_notes(known, peak)),
    )


def _notes(known: Shapes, peak: int | None) -> Iterator[str]:
    if known.samples > 1:
        yield f"the batch is fixed to {known.samples}: the figures are for one sample of it"
    if peak is None:
        yield "the sizes of some tensors follow from values: the memory of activations is not known"


def _tally(graph: OnnxGraph, known: Shapes, owners: Owners) -> _Tally:
    tally = _Tally()
    _walk(graph.model.graph.node, graph, known, owners, tally)
    for parameter, layer in parameters(graph, owners).items():
        tally.params[layer] = tally.params.get(layer, 0) + math.prod(graph.constants[parameter].dims)
    return tally


def _walk(nodes: Sequence[onnx.NodeProto], graph: OnnxGraph, known: Shapes, owners: Owners, tally: _Tally) -> None:
    for node in nodes:
        branches = list(graphs_of(node))
        if node.op_type == "If" and branches:  # the dearer branch: an upper bound
            tried = [_Tally(dict(tally.ops), {}, {}, dict(tally.widths)) for _ in branches]
            for branch, some in zip(branches, tried, strict=True):
                _walk(branch.node, graph, known, owners, some)
            _merge(tally, max(tried, key=lambda some: sum(some.macs.values())))
            for some in tried:
                tally.unknown |= some.unknown
            continue
        for branch in branches:
            _walk(branch.node, graph, known, owners, tally)
        _add(node, graph, known, owners, tally)


def _merge(tally: _Tally, more: _Tally) -> None:
    for name, macs in more.macs.items():
        tally.macs[name] = tally.macs.get(name, 0) + macs
    tally.ops |= more.ops
    tally.widths |= more.widths
    tally.uncounted |= more.uncounted
    tally.unknown |= more.unknown


def _add(node: onnx.NodeProto, graph: OnnxGraph, known: Shapes, owners: Owners, tally: _Tally) -> None:
    tensors = known.tensors
    call = Call(node, tuple(map(tensors.get, node.input)), tuple(map(tensors.get, node.output)))
    try:
        macs = formulas.macs_of(call)
    except formulas.NoFormula:
        tally.uncounted.add(node.op_type)
        return
    except formulas.Unknown:
        tally.unknown.add(node.op_type)
        return
    if not macs:
        return
    weights = [
        p for p in formulas.WEIGHTS.get(node.op_type, (1,)) if p < len(node.input) and node.input[p] in owners.origin
    ]
    name = owners.layer(node) if weights else UNWEIGHTED
    tally.macs[name] = tally.macs.get(name, 0) + macs
    tally.ops.setdefault(name, node.op_type)
    if weights:
        sizes = graph.constants[owners.origin[node.input[weights[0]]]].dims
        held = tensors.get(node.input[weights[0]])
        tally.widths[name] = formulas.width_of(call, held.dims if held else tuple(sizes), weights[0])
