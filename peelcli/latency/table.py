"""What layers cost at which widths on this machine: measured on a coarse grid, as tables for the allocator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

from peelcli.latency.cache import Cache
from peelcli.latency.layers import Layer, measured
from peelcli.records import Size, Table
from peelcli.timings import Conditions

Progress = Callable[[int, int], None]
_NANO = 10**9


@dataclass(frozen=True, slots=True)
class Call:
    """A layer of a network, and how its widths follow from those of the groups.

    Attributes:
        weight: path of its weight.
        layer: at the original's widths.
        outputs: channels that it writes.
        per_group: channels that each of its groups reads.
        knots: for (outputs, per_group) the sizes at which it is measured, ascending, the last the original's.
    """

    weight: str
    layer: Layer
    outputs: Size
    per_group: Size
    knots: tuple[tuple[int, ...], tuple[int, ...]]

    def axes(self) -> tuple[int, ...]:
        """Which of the two sizes move at all."""
        return tuple(axis for axis, knots in enumerate(self.knots) if len(knots) > 1)

    def layers(self) -> Iterator[Layer]:
        """At every combination of knots, the last axis the fastest."""
        for outputs, per_group in product(*self.knots):
            yield self.layer.at(outputs, per_group)


@dataclass(frozen=True)
class Measurements:
    """Seconds of layers, from the cache or measured now.

    Attributes:
        conditions: under which all were measured.
        cache: of this machine.
    """

    conditions: Conditions
    cache: Cache = field(compare=False)

    def take(self, calls: Sequence[Call], progress: Progress | None = None) -> int:
        """Measure every layer that is not known yet, and keep it; returns how many these were.

        Args:
            calls: with their knots.
            progress: told (layers done, layers in all).
        """
        layers = {layer.key(): layer for call in calls for layer in call.layers()}
        missing = [(key, layer) for key, layer in layers.items() if key not in self.cache]
        try:
            for number, (key, layer) in enumerate(missing):
                self.cache[key] = max(measured(layer, self.conditions), 1e-9)
                if progress:
                    progress(number + 1, len(missing))
        finally:
            self.cache.save()
        return len(missing)

    def of(self, layer: Layer) -> float:
        """Seconds of a layer that was taken."""
        return self.cache[layer.key()]


def table(call: Call, taken: Measurements, whole: float) -> Table:
    """The cost of one call as a function of the widths, in nanoseconds.

    Args:
        call: the layer.
        taken: its measured times.
        whole: seconds that it takes inside of the original network, where other layers fill the caches as well; the
            measured times give the shape, this the height.
    """
    seconds = [taken.of(layer) for layer in call.layers()]
    scale = whole / seconds[-1]
    axes = call.axes()
    sizes = (call.outputs, call.per_group)
    return Table(
        call.weight,
        tuple(sizes[axis] for axis in axes),
        tuple(call.knots[axis] for axis in axes),
        tuple(round(_NANO * scale * value) for value in seconds),
    )


def falling_with(label: str, size: Size, full: int, seconds: float) -> Table:
    """A cost in proportion to one size: of what onnxruntime does between the layers."""
    return Table(label, (size,), ((0, full),), (0, round(_NANO * seconds)))


def constant(label: str, seconds: float) -> Table:
    """A cost that no width changes."""
    return Table(label, (), (), (round(_NANO * seconds),))
