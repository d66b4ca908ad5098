"""How near slim models are to the original, and what could be done to it, as the reports tell it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peelcli.records import Costs, Group


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a model's outputs are from the original's on some samples.

    Attributes:
        relative: root of the summed squared differences over that of the original's outputs less their mean over the
            samples; 0 is equal, 1 is as far as a model that always puts out the mean.
        kl: mean Kullback-Leibler divergence from the original's distribution to the model's, in nats; None where the
            output is no distribution over classes.
        agreement: share of the samples for which both have the same most probable class; None as above.
        metric: the model's own figure by the user's metric, or its accuracy on labels; None without them.
    """

    relative: float
    kl: float | None = None
    agreement: float | None = None
    metric: float | None = None


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The original against the slim model, on samples that nothing was fitted on.

    Attributes:
        fitted: samples that scores and repair were made from.
        held: samples that were held out, which the figures are of.
        cut: right after surgery.
        repaired: after repair; None where nothing was repaired.
        metric: name of the metric, or "".
        original: the original's own figure by that metric.
        notes: what the repair did and could not do, one sentence each.
        synthetic: whether the samples are made-up patterns, so that nothing is known of real ones.
    """

    fitted: int
    held: int
    cut: Distance
    repaired: Distance | None
    metric: str = ""
    original: float | None = None
    notes: tuple[str, ...] = ()
    synthetic: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to choose the widths that was tried: cut, repaired, and compared on held-out samples.

    Attributes:
        name: the allocation, e.g. "peel".
        distance: what came of it.
        chosen: whether it is the one that the plan holds.
    """

    name: str
    distance: Distance
    chosen: bool


@dataclass(frozen=True, slots=True)
class Point:
    """A look at a model in training.

    Attributes:
        step: steps that were done.
        epoch: how often all samples had been seen.
        loss: mean of the last steps; None before the first.
        distance: of the averaged weights, on held-out samples.
    """

    step: int
    epoch: float
    loss: float | None
    distance: Distance

    def as_dict(self) -> dict[str, Any]:
        """As plain numbers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Point:
        """The inverse of `as_dict`."""
        return cls(**{**values, "distance": Distance(**values["distance"])})


@dataclass(frozen=True, slots=True)
class Tuning:
    """What training did to a slim model.

    Attributes:
        trained: samples that were learned from.
        held: samples that nothing was learned from, which the figures are of.
        steps: that were made.
        batch: samples a step.
        optimizer: "sgd" or "adamw".
        peak: the learning rate after warm-up.
        objective: what was learned, in a few words.
        before: the slim model as it came.
        after: what was kept of the training.
        kept: the step whose weights these are; 0 where training brought nothing.
        metric: name of the metric, or "".
        original: the original's own figure by that metric.
        curve: looks at held-out samples, in order.
        rate: samples a second, over all processes.
        hardware: what it ran on.
        notes: one sentence each.
    """

    trained: int
    held: int
    steps: int
    batch: int
    optimizer: str
    peak: float
    objective: str
    before: Distance
    after: Distance
    kept: int
    metric: str = ""
    original: float | None = None
    curve: tuple[Point, ...] = ()
    rate: float = 0.0
    hardware: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """What could be done to a model: the source of `peel inspect`.

    Attributes:
        model: how the model is called.
        inputs: the example inputs, described as in Plan.
        groups: all groups, in the order of the data flow.
        shares: for each group the share of the model's MACs in terms that its width changes, 0 to 1. A term between
            two groups counts for both, so the shares add up to more than 1.
        full: counts of the original.
        least: counts at the least legal widths.
        uncounted: ops that no counter here has a formula for, by name.
        notes: what a user should know, one sentence each.
    """

    model: str
    inputs: tuple[str, ...]
    groups: tuple[Group, ...]
    shares: tuple[float, ...]
    full: Costs
    least: Costs
    uncounted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
