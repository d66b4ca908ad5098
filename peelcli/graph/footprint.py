"""What a module costs, layer by layer, for one sample; nothing is computed but shapes."""

from __future__ import annotations

from typing import Any

from torch import nn

from peelcli.footprint import UNWEIGHTED, Footprint, Kind, LayerCost
from peelcli.graph.count import OpLog, record_ops
from peelcli.graph.memory import peak_bytes
from peelcli.graph.rehearsal import rehearse
from peelcli.onnxnames import of_parameter
from peelcli.records import Costs, Subject

Measured = tuple[OpLog, tuple[LayerCost, ...], int]


def of_module(subject: Subject, module: nn.Module, costs: Costs, name: str, kind: Kind) -> Footprint:
    """The footprint of a model whose counts are known.

    Args:
        subject: whose inputs are taken, and the notes.
        module: the subject's own, or one that was cut from it.
        costs: its counts.
        name: how it is called.
        kind: which side it is.
    """
    rehearsal, (log, found, peak) = rehearse(module, subject.inputs, _measure)
    return Footprint(
        name=name,
        kind=kind,
        macs=costs.macs,
        params=costs.params,
        thop_macs=costs.thop_macs,
        peak_bytes=peak,
        inputs=(),
        layers=found,
        uncounted=tuple(sorted(log.uncounted)),
        notes=(rehearsal.note,) if rehearsal.note else (),
    )


def _measure(module: nn.Module, inputs: tuple[Any, ...]) -> Measured:
    """What is multiplied, the layers, and the most bytes that activations take at one time."""
    log = record_ops(module, inputs)
    return log, layers(module, log), peak_bytes(module, inputs)


def layers(module: nn.Module, log: OpLog) -> tuple[LayerCost, ...]:
    """Multiply-adds and parameters by the module that owns the weights, in the order of the module's parameters."""
    macs: dict[str, int] = {}
    params: dict[str, int] = {}
    for name, parameter in module.named_parameters():
        layer = of_parameter(name) or name
        params[layer] = params.get(layer, 0) + parameter.numel()
        macs[layer] = macs.get(layer, 0) + log.weights.get(name, 0)
    modules = dict(module.named_modules())
    found = [
        LayerCost(name, type(modules.get(name)).__name__ if name in modules else "", macs[name], count,
                  _width(modules.get(name)))
        for name, count in params.items()
    ]  # fmt: skip
    products = sum(log.products.values())
    return (*found, LayerCost(UNWEIGHTED, ", ".join(log.products), products, 0)) if products else tuple(found)


def _width(layer: nn.Module | None) -> int | None:
    width = getattr(layer, "out_channels", getattr(layer, "out_features", None))
    return width if isinstance(width, int) else None
