"""What a network takes in onnxruntime as a function of its widths: its layers' tables, and what is between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from peelcli.deadlines.calls import Seen
from peelcli.inputtext import InputSpec
from peelcli.latency.profile import profile
from peelcli.latency.table import Measurements, constant, falling_with, table
from peelcli.latency.weights import weights_by_node
from peelcli.records import Polynomial, Table


def latency_of(
    original: Path, given: Sequence[InputSpec], seen: Sequence[Seen], taken: Measurements, whole: float
) -> Polynomial:
    """The latency of a network, in nanoseconds, equal to what the original takes at its own widths.

    Each layer's table has the height that the profiler finds for it inside of the network. What other
    nodes take falls with the numbers that they put out.

    Args:
        original: the network as an ONNX file, its weights under the names of the parameters.
        given: shapes that the file leaves open.
        seen: its layers.
        taken: their measured times.
        whole: seconds of one call of the original; the profiler's own are longer.
    """
    found = profile(original, taken.conditions, given, typical=min)
    names = weights_by_node(original)
    inside: dict[str, float] = defaultdict(float)
    for node in found.nodes:
        if node.macs and node.name in names:
            inside[names[node.name]] += node.seconds
    parts = _parts(seen, taken, inside)
    rest = max(0.0, found.seconds - sum(parts))  # not of the call: on a busy machine that is interrupted
    scale = whole / (sum(parts) + rest)
    tables = [table(each.call, taken, scale * part) for each, part in zip(seen, parts, strict=True)]
    return (*tables, *_between(seen, scale * rest))


def _parts(seen: Sequence[Seen], taken: Measurements, inside: dict[str, float]) -> list[float]:
    """Seconds of each call inside of the network; calls with one weight share what their nodes take together.

    A layer whose node is not found takes longer than alone by as much as the others do.
    """
    alone = [taken.of(each.call.layer) for each in seen]
    together: dict[str, float] = defaultdict(float)
    for each, seconds in zip(seen, alone, strict=True):
        together[each.call.weight] += seconds
    factors = {weight: inside[weight] / seconds for weight, seconds in together.items() if weight in inside}
    usual = median(factors.values()) if factors else 1.0
    return [seconds * factors.get(each.call.weight, usual) for each, seconds in zip(seen, alone, strict=True)]


def _between(seen: Sequence[Seen], rest: float) -> list[Table]:
    """What other nodes take: in proportion to the outputs that move, the others' part constant."""
    moving = [each for each in seen if each.call.outputs.shares]
    elements = sum(each.elements for each in moving)
    if not elements:
        return [constant("rest", rest)]
    return [
        falling_with("rest", each.call.outputs, each.call.layer.outputs, rest * each.elements / elements)
        for each in moving
    ]
