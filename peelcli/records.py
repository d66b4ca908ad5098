"""The frozen records that travel between the stages (the picture is in docs/architecture.md).

Names, ints and tuples; only Subject holds tensors. Nothing here imports torch at run time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from peelcli.footprint import Footprint
from peelcli.results import Candidate, Fidelity, Tuning
from peelcli.timings import Pace

if TYPE_CHECKING:
    from torch import nn

Role = Literal["out", "in"]
Widths = tuple[int, ...]  # channels kept, one number per group in the order of ChannelGraph.groups


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, an input that it accepts, and where both came from.

    Attributes:
        module: the user's module; no stage changes it.
        inputs: positional arguments of one forward call; tensors have a leading batch dimension.
        name: how the model is called in messages and plans, never a path.
        notes: what was guessed on the way, one sentence each.
        guessed: the note, one of the above, that the inputs are a guess; "" where somebody knew them.
    """

    module: nn.Module
    inputs: tuple[Any, ...]
    name: str
    notes: tuple[str, ...] = ()
    guessed: str = ""


@dataclass(frozen=True, slots=True)
class Slice:
    """What one group owns along one dimension of one tensor.

    Attributes:
        tensor: path in the state dict, e.g. "layer1.0.conv1.weight".
        dim: the dimension that shrinks.
        role: "out" where the entries make or carry the channel (a producer, a norm, a depthwise filter),
            "in" where they read it (a consumer's columns).
        indices: for each channel of the group, the entries along dim that belong to it.
    """

    tensor: str
    dim: int
    role: Role
    indices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Attribute:
    """A number in a module that must follow the tensors, e.g. out_channels.

    Attributes:
        module: path of the module.
        name: attribute name.
        item: position inside the attribute where it is a tuple (normalized_shape), else None.
        per_bundle: by how much it falls when one bundle of the group goes.
    """

    module: str
    name: str
    item: int | None
    per_bundle: int


@dataclass(frozen=True, slots=True)
class Blend:
    """An op without weights whose result depends on all channels of a group together: a norm, a mean, a softmax.

    The slim model's one sees the kept channels alone, so what it is compared with has to as well.

    Attributes:
        op: name of the aten op.
        call: which of its calls in the forward pass, from 0.
        operands: (argument, dimension) of every tensor that is read along the channels.
        out: dimension of the first output that has the channels too, or -1.
        indices: for each channel of the group, the entries along the dimension that belong to it.
    """

    op: str
    call: int
    operands: tuple[tuple[int, int], ...]
    out: int
    indices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Locked:
    """Why a width may not change, and what the user could do about it."""

    reason: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Channels that live and die together.

    Attributes:
        name: the producer's module path, e.g. "layer1.0.conv1".
        layers: module paths of everything that the group touches, in the order of the data flow.
        full: channels in the original.
        step: legal widths are floor, floor + step, ..., and full.
        floor: the least legal width.
        bundles: channels that go only together, all bundles of one size; usually one channel each.
        slices: every tensor that must lose entries when a channel goes.
        attributes: every number in a module that follows.
        locked: why the width may not change, or None.
        blends: ops that mix the channels without weights.
    """

    name: str
    layers: tuple[str, ...]
    full: int
    step: int
    floor: int
    bundles: tuple[tuple[int, ...], ...]
    slices: tuple[Slice, ...]
    attributes: tuple[Attribute, ...]
    locked: Locked | None = None
    blends: tuple[Blend, ...] = ()

    @property
    def bundle_size(self) -> int:
        """Channels in one bundle."""
        return self.full // len(self.bundles)

    def legal_widths(self) -> tuple[int, ...]:
        """All legal widths, ascending; (full,) for a locked group."""
        if self.locked:
            return (self.full,)
        return (*range(self.floor, self.full, self.step), self.full)


@dataclass(frozen=True, slots=True)
class Share:
    """Entries that a group adds to a dimension: width * num / den."""

    group: int  # position in ChannelGraph.groups
    num: int
    den: int


@dataclass(frozen=True, slots=True)
class Size:
    """The size of one dimension as a function of the widths: constant + sum of shares."""

    constant: int
    shares: tuple[Share, ...] = ()


@dataclass(frozen=True, slots=True)
class Term:
    """coefficient * product of sizes: what one tensor or one op costs.

    Attributes:
        label: the tensor or module that the cost belongs to.
    """

    label: str
    coefficient: int
    sizes: tuple[Size, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A cost that was measured at some sizes and is interpolated between them.

    Attributes:
        sizes: one or two, the axes.
        knots: for each axis, sizes in ascending order.
        values: at all combinations of knots, the last axis the fastest.
    """

    label: str
    sizes: tuple[Size, ...]
    knots: tuple[tuple[int, ...], ...]
    values: tuple[int, ...]


Polynomial = tuple[Term | Table, ...]


@dataclass(frozen=True, slots=True)
class CostModel:
    """Counts of one model as functions of the widths, each for one sample.

    Attributes:
        macs: multiply-adds of convolutions, linear layers and matrix products.
        params: parameters, tied ones once.
        thop: what the thop package counts: macs plus norms, activations and pooling.
        latency: nanoseconds on the machine at hand, predicted; empty where nothing was measured.
    """

    macs: Polynomial
    params: Polynomial
    thop: Polynomial
    latency: Polynomial = ()


@dataclass(frozen=True, slots=True)
class Costs:
    """The three counts at given widths."""

    macs: int
    params: int
    thop_macs: int


@dataclass(frozen=True)
class ChannelGraph:
    """All that the later stages know of a model's structure.

    Attributes:
        groups: in the order of the data flow.
        cost: closed-form counts.
        uncounted: ops that no counter here has a formula for, by name.
        notes: what a user should know about the trace, one sentence each.
    """

    groups: tuple[Group, ...]
    cost: CostModel
    uncounted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def full(self) -> Widths:
        """The widths of the original."""
        return tuple(group.full for group in self.groups)

    @cached_property
    def least(self) -> Widths:
        """The least legal widths."""
        return tuple(group.full if group.locked else group.floor for group in self.groups)


@dataclass(frozen=True, slots=True)
class GroupScore:
    """How informative a group and its channels are; larger is more.

    Attributes:
        channels: one number per channel, comparable inside the group.
        layer: one number >= 0, comparable across groups.
    """

    channels: tuple[float, ...]
    layer: float


@dataclass(frozen=True, slots=True)
class Scores:
    """One GroupScore per group, in the order of ChannelGraph.groups.

    Attributes:
        additive: True where a channel's score is a loss that adds up: the scores of the channels that go sum to what
            the group loses, and losses of different groups can be compared. With bundles, each channel carries the
            loss of its whole bundle.
    """

    scorer: str
    groups: tuple[GroupScore, ...]
    notes: tuple[str, ...] = ()
    additive: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """One upper bound.

    Attributes:
        count: which count is bounded.
        bound: in multiply-adds for one sample, in parameters, or in nanoseconds.
    """

    count: Literal["macs", "thop_macs", "params", "latency"]
    bound: int


@dataclass(frozen=True, slots=True)
class Cut:
    """The decision for one group: which channels stay, and everything needed to carry it out."""

    group: Group
    width: int
    kept: tuple[int, ...]
    score: float


@dataclass(frozen=True, slots=True)
class ModelId:
    """Which model a plan was made for; digests are hex SHA-256."""

    name: str
    architecture: str
    weights: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole decision as data: kept channels by group, predicted cost, digests.

    Attributes:
        settings: how the plan was made, as sorted (name, value) pairs.
        budget: the limits that hold, resolved to absolute numbers.
    """

    model: ModelId
    inputs: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    budget: tuple[Limit, ...]
    before: Costs
    predicted: Costs
    cuts: tuple[Cut, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One proof and how it came out.

    Attributes:
        ok: None where the two sides can't be compared; never shown as passed.
        value: the measured figure, and in `tolerance` the bound that it had to keep.
    """

    name: str
    ok: bool | None
    value: float | None = None
    tolerance: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that was written."""

    path: str
    kind: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Run:
    """What a whole run did: the source of every report.

    Attributes:
        seconds: wall time by stage, in order.
        fidelity: with calibration samples, how well the slim model follows the original.
        candidates: the allocations that were tried, where the choice was left to their results.
        tunings: what training did, one for each round of it.
        pace: how a budget of latency was met.
        sides: the original and the slim model layer by layer, and what their activations take.
        backbone: for each group the width before the pool was shared out; empty where no pool was.
        command: what would do it again, or "" where it came from Python.
    """

    version: str
    plan: Plan
    after: Costs
    checks: tuple[Check, ...]
    artifacts: tuple[Artifact, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    uncounted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fidelity: Fidelity | None = None
    candidates: tuple[Candidate, ...] = ()
    tunings: tuple[Tuning, ...] = ()
    pace: Pace | None = None
    sides: tuple[Footprint, Footprint] | None = None
    backbone: tuple[float, ...] = ()
    command: str = ""
