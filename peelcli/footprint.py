"""What a model costs, as reports compare it: counted from a file, from a module, or kept in the record of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

UNWEIGHTED = "products without a stored weight"
"""The layer under which products of two activations stand, and those with a weight that is computed."""
Kind = Literal["onnx", "module", "original", "slim"]


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One layer's part, or that of one kind of op.

    Attributes:
        name: the layer's path where the weights' names say it, else the node's name.
        op: what multiplies there, in the words of the file or of torch; "" where nothing does.
        macs: multiply-adds for one sample.
        params: parameters; those that two layers share stand with the first.
        width: output channels, or None where the layer has none.
    """

    name: str
    op: str
    macs: int
    params: int
    width: int | None = None


@dataclass(frozen=True, slots=True)
class Footprint:
    """One model in figures; None stands for what is not known.

    Attributes:
        name: of the file, or how the model is called.
        kind: an ONNX file, a torch module, or one of the two sides of a run's record.
        macs: multiply-adds for one sample; a multiply-add is 1.
        params: parameters, tied ones once.
        thop_macs: multiply-adds as the thop package counts.
        bytes: of the file, and of the data files that belong to it.
        peak_bytes: the most that activations take at one time, for one sample; see docs/report.md.
        latency_ms: median time of one inference, where it was measured.
        agreement: share of samples with the original's most probable class.
        metric: name of the metric, or "".
        metric_value: the model's own figure by that metric.
        inputs: what one sample is, as `--input` takes it.
        layers: all that has multiply-adds or parameters, in the order of the data flow.
        uncounted: ops that do arithmetic for which there is no formula.
        unknown: ops whose multiply-adds could not be told, because a size is not known or the op is not: `macs` is less
            than it should be.
        notes: what a reader should know, one sentence each.
    """

    name: str
    kind: Kind
    macs: int
    params: int
    thop_macs: int | None = None
    bytes: int | None = None
    peak_bytes: int | None = None
    latency_ms: float | None = None
    agreement: float | None = None
    metric: str = ""
    metric_value: float | None = None
    inputs: tuple[str, ...] = ()
    layers: tuple[LayerCost, ...] = ()
    uncounted: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
