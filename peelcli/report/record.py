"""Records of runs as files, read with care: `document` the other way round.

Whoever writes a record adds keys and never renames one, so keys that are not known here are passed over. Records
written before the key `peel_run` came are version 0; they lack layers, and are read all the same.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from peelcli import records, results, timings
from peelcli.errors import SourceError
from peelcli.footprint import Footprint, Kind, LayerCost
from peelcli.records import Artifact, Costs, Cut, Limit, Locked, ModelId, Plan, Run
from peelcli.report.document import VERSION

_HINT = "write it again with `peel prune ... --output-format json > run.json`"
Count = Annotated[int, Field(ge=0)]


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Model(_Read):
    """What was pruned: digests are hex SHA-256."""

    name: str
    architecture: str = ""
    weights: str = ""
    inputs: tuple[str, ...] = ()


class Counts(_Read):
    """Counts for one sample, and sizes in bytes where they are known."""

    macs: Count
    params: Count
    thop_macs: Count
    peak_bytes: Count | None = Field(None, description="the most that activations take at one time")
    onnx_bytes: Count | None = Field(None, description="of the ONNX file that was written")


class Budget(_Read):
    """Upper bounds; null where there was none."""

    macs: Count | None = None
    params: Count | None = None
    thop_macs: Count | None = None


class Group(_Read):
    """Channels that are kept or removed together."""

    name: str
    layers: tuple[str, ...] = ()
    full: Annotated[int, Field(ge=1)]
    width: Count
    score: float | None = None
    locked: str | None = None
    step: Count = 1
    floor: Count = 1
    used: float | None = None
    backbone: float | None = Field(None, description="width before the pool was shared out")


class Layer(_Read):
    """One layer: [before, after]."""

    name: str
    op: str = ""
    macs: tuple[Count, Count]
    params: tuple[Count, Count]
    width: tuple[Count | None, Count | None] = (None, None)


class Check(_Read):
    """One proof; `ok` is null where the two sides can't be compared."""

    name: str
    ok: bool | None
    value: float | None = None
    tolerance: float | None = None
    note: str = ""


class Distance(_Read):
    """How far a model is from the original on samples."""

    relative: float | None = None
    kl: float | None = None
    agreement: float | None = None
    metric: float | None = None


class Fidelity(_Read):
    """The slim model against the original, on samples that nothing was fitted on."""

    fitted: Count
    held: Count
    cut: Distance
    repaired: Distance | None = None
    metric: str | None = None
    original: float | None = None
    notes: tuple[str, ...] = ()
    synthetic: bool = False


class Latency(_Read):
    """Seconds of one call."""

    median: float
    low: float
    high: float
    least: float
    calls: Count


class Ratio(_Read):
    """Time over time, with its interval."""

    value: float
    low: float
    high: float
    confidence: float
    rounds: Count


class Try(_Read):
    """A plan that was timed; shares of the original's time."""

    predicted: float
    measured: Ratio


class Pace(_Read):
    """A budget of latency, and how it was met."""

    asked: str
    allowed: float
    provider: str
    threads: Count
    before: Latency
    after: Latency
    tries: tuple[Try, ...]
    kept: Count
    layers: Count


class Point(Distance):
    """A look at a model in training."""

    step: Count
    epoch: float
    loss: float | None = None


class Training(_Read):
    """What training did; one for each round of it."""

    trained: Count
    held: Count
    steps: Count
    batch: Count
    optimizer: str
    rate: float
    objective: str
    before: Distance
    after: Distance
    kept_step: Count
    metric: str | None = None
    original: float | None = None
    curve: tuple[Point, ...] = ()
    samples_per_second: float = 0.0
    hardware: str = ""
    notes: tuple[str, ...] = ()


class Candidate(_Read):
    """An allocation that was tried."""

    name: str
    chosen: bool
    distance: Distance


class Record(_Read):
    """What `peel prune`, `plan` and `apply` print under --output-format json."""

    peel_run: Literal[0, 1] = Field(0, description="version of this format; absent in records of version 0")
    peel: str = Field(description="version of peel")
    command: str | None = Field(None, description="what would do it again")
    model: Model
    before: Counts
    after: Counts
    budget: Budget = Budget()
    used: dict[str, float | None] = Field({}, description="the share of each bound that the slim model takes")
    predicted: Counts | None = None
    settings: dict[str, str] = {}
    groups: tuple[Group, ...] = ()
    layers: tuple[Layer, ...] = ()
    checks: tuple[Check, ...] = ()
    fidelity: Fidelity | None = None
    latency: Pace | None = None
    training: tuple[Training, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    outputs: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = {}


def parse(data: Any, name: str) -> Run:
    """A run from the JSON data of its record.

    Args:
        data: what a JSON file holds.
        name: of the file, for messages.

    Raises:
        SourceError: it is no record, or one of a newer peel.
    """
    version = data.get("peel_run", 0) if isinstance(data, dict) else 0
    if isinstance(version, int) and version > VERSION:
        raise SourceError(
            f"{name} is a record of version {version}; this peel reads up to {VERSION}", hint="install a newer peel"
        )
    try:
        return to_run(Record.model_validate(data))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise SourceError(f"{name} is no record of a run: {where}: {first['msg'].lower()}", hint=_HINT) from None


def to_run(record: Record) -> Run:
    """The run that a record tells of; what a record does not hold, such as slices and kept channels, is empty."""
    model = record.model
    before, after = _costs(record.before), _costs(record.after)
    backbone = [group.backbone for group in record.groups]
    return Run(
        version=record.peel,
        plan=Plan(
            model=ModelId(model.name, model.architecture, model.weights),
            inputs=model.inputs,
            settings=tuple(record.settings.items()),
            budget=_limits(record.budget),
            before=before,
            predicted=_costs(record.predicted) if record.predicted else after,
            cuts=tuple(_cut(group) for group in record.groups),
        ),
        after=after,
        checks=tuple(records.Check(c.name, c.ok, c.value, c.tolerance, c.note) for c in record.checks),
        artifacts=tuple(_artifact(path, record.after.onnx_bytes) for path in record.outputs),
        seconds=dict(record.seconds),
        uncounted=record.uncounted,
        notes=record.notes,
        fidelity=_fidelity(record.fidelity) if record.fidelity else None,
        candidates=tuple(results.Candidate(c.name, _distance(c.distance), c.chosen) for c in record.candidates),
        tunings=tuple(map(_tuning, record.training)),
        pace=_pace(record.latency) if record.latency else None,
        sides=_sides(record) if record.layers else None,
        backbone=tuple(width for width in backbone if width is not None) if None not in backbone else (),
        command=record.command or "",
    )


def _limits(budget: Budget) -> tuple[Limit, ...]:
    found = (("macs", budget.macs), ("thop_macs", budget.thop_macs), ("params", budget.params))
    return tuple(Limit(count, bound) for count, bound in found if bound is not None)  # type: ignore[arg-type]


def _costs(counts: Counts) -> Costs:
    return Costs(counts.macs, counts.params, counts.thop_macs)


def _cut(group: Group) -> Cut:
    locked = None if group.locked is None else Locked(group.locked)
    score = math.nan if group.score is None else group.score
    full = records.Group(group.name, group.layers, group.full, group.step, group.floor, (), (), (), locked)
    return Cut(full, group.width, (), score)


def _artifact(path: str, onnx_bytes: int | None) -> Artifact:
    """A file that was written; only of an ONNX file the size is known."""
    kind = path.rpartition(".")[2].lower()
    return Artifact(path, kind, onnx_bytes or 0 if kind == "onnx" else 0)


def _fidelity(told: Fidelity) -> results.Fidelity:
    repaired = None if told.repaired is None else _distance(told.repaired)
    metric = told.metric or ""
    return results.Fidelity(
        told.fitted, told.held, _distance(told.cut), repaired, metric, told.original, told.notes, told.synthetic
    )


def _tuning(told: Training) -> results.Tuning:
    return results.Tuning(
        trained=told.trained,
        held=told.held,
        steps=told.steps,
        batch=told.batch,
        optimizer=told.optimizer,
        peak=told.rate,
        objective=told.objective,
        before=_distance(told.before),
        after=_distance(told.after),
        kept=told.kept_step,
        metric=told.metric or "",
        original=told.original,
        curve=tuple(results.Point(point.step, point.epoch, point.loss, _distance(point)) for point in told.curve),
        rate=told.samples_per_second,
        hardware=told.hardware,
        notes=told.notes,
    )


def _pace(told: Pace) -> timings.Pace:
    before, after = (timings.Latency(**dict(side)) for side in (told.before, told.after))
    tries = tuple(timings.Try(each.predicted, timings.Ratio(**dict(each.measured))) for each in told.tries)
    conditions = timings.Conditions(told.provider, told.threads)
    return timings.Pace(told.asked, conditions, told.allowed, before, after, tries, told.kept, told.layers)


def _distance(told: Distance) -> results.Distance:
    relative = math.nan if told.relative is None else told.relative
    return results.Distance(relative, told.kl, told.agreement, told.metric)


def _sides(record: Record) -> tuple[Footprint, Footprint]:
    return _side(record, "original", record.before, 0), _side(record, "slim", record.after, 1)


def _side(record: Record, kind: Kind, counts: Counts, side: int) -> Footprint:
    return Footprint(
        name=record.model.name,
        kind=kind,
        macs=counts.macs,
        params=counts.params,
        thop_macs=counts.thop_macs,
        peak_bytes=counts.peak_bytes,
        layers=tuple(LayerCost(x.name, x.op, x.macs[side], x.params[side], x.width[side]) for x in record.layers),
        uncounted=record.uncounted,
    )
