"""`peel sweep`: load, trace and score once, then one point for each budget."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peelcli
from peelcli import config, files, pipeline, request
from peelcli.allocation.meter import Meter
from peelcli.config import Budget, Calibration, GraphForm, Options
from peelcli.errors import CheckFailed, UsageError
from peelcli.evidence import Evidence, gather
from peelcli.export import onnx
from peelcli.export.inputs import Example, asked_sizes, shapes_to_say
from peelcli.graph import cost
from peelcli.latency import bench as benches
from peelcli.planning import Clock, Prepared, Progress, decide, find_groups, limits_of, prepare
from peelcli.points import Point, Sweep
from peelcli.records import Check, Costs, Limit, ModelId, Subject
from peelcli.results import Candidate
from peelcli.scoring import table
from peelcli.sources import digest, inputs
from peelcli.sweeps import workers
from peelcli.sweeps.knee import knee
from peelcli.sweeps.proof import proven
from peelcli.sweeps.store import Store
from peelcli.sweeps.work import Task, Workplace
from peelcli.sweeps.workers import Made, Wanted
from peelcli.timings import Bench

Budgets = str | Sequence[str]
ORIGINAL = "original.onnx"
BENCH_SECONDS = 2.0  # for each file


@dataclass(frozen=True, slots=True)
class Ways:
    """How a sweep is worked through.

    Attributes:
        out: folder of the points; those that are there already are kept.
        jobs: processes at a time.
        ray: address of a Ray cluster, or None.
        bench: whether every point is exported and timed.
    """

    out: Path
    jobs: int = 1
    ray: str | None = None
    bench: bool = False


def sweep(
    model: Any,
    example: Any = None,
    *,
    ways: Ways,
    flops: Budgets | None = None,
    params: Budgets | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Sweep:
    """Prune one model to many budgets.

    Args:
        model: as for `pipeline.load`; a path or a name where several processes work.
        example: as there.
        ways: where the points go, and who works on them.
        flops: the budgets, e.g. "75%,50%,25%"; a list of them where a single one stands elsewhere.
        params: the same of parameters; one of the two is given.
        progress: called with each stage.
        settings: as for `pipeline.prune`.

    Returns:
        The points in the order of the budgets, and what all of them share. Points that can't be had say why.

    Raises:
        PeelError: the model, the samples or a setting can't be used, or the folder holds another sweep.
    """
    start, clock = time.perf_counter(), Clock(progress)
    wanted = _wanted(flops, params)
    job = _Job(model, example, settings, config.pick(Options, settings), ways, clock)
    _check(job, [label for _, label in wanted])
    with clock.stage("load"):
        subject = pipeline.load(model, example, **settings)
        asked_sizes(subject.module, Example.of(subject.inputs), job.form.dynamic)
    with clock.stage("digest"):
        owner = digest.model_id(subject)
    store = Store(ways.out, _key(job, subject, owner))
    found = {label: point for _, label in wanted if (point := store.find(label, ways.bench))}
    missing = [one for one in wanted if one[1] not in found]
    shared = _share(job, subject, [budget for budget, _ in wanted], store) if missing else _known(job, subject)
    with clock.stage("sweep") as tell:
        for label, point, content in _made(job, shared, missing):
            store.keep(label, point, content)
            found[label] = point
            tell(len(found), len(wanted))
    points = tuple(found[label] for _, label in wanted)
    return Sweep(
        version=peelcli.__version__,
        model=owner,
        inputs=inputs.texts(shared.subject),
        budget="flops" if flops is not None else "params",
        before=shared.before,
        points=points,
        proof=shared.proof,
        knee=knee(points, shared.before, "macs" if flops is not None else "params"),
        bench=_bench(job, shared.subject, points) if ways.bench else (),
        candidates=shared.candidates,
        found=len(wanted) - len(missing),
        seconds=time.perf_counter() - start,
        notes=shared.subject.notes,
    )


@dataclass(frozen=True)
class _Job:
    """What was asked for."""

    model: Any
    example: Any
    settings: dict[str, Any]
    options: Options
    ways: Ways
    clock: Clock

    @property
    def form(self) -> GraphForm:
        """How .onnx files are written."""
        return config.pick(GraphForm, self.settings)


@dataclass(frozen=True)
class _Shared:
    """What all points start from.

    Attributes:
        place: for the work on points; None where no point is missing.
        candidates: the allocations that were compared.
    """

    subject: Subject
    before: Costs
    proof: Check | None
    place: Workplace | None
    candidates: tuple[Candidate, ...] = ()


def _wanted(flops: Budgets | None, params: Budgets | None) -> list[Wanted]:
    """The budgets, and how the files of each are called: flops-50pct, params-2500000."""
    if (flops is None) == (params is None):
        raise UsageError("a sweep goes over one kind of budget", hint="give --flops 75%,50%,25% or --params, not both")
    name, given = ("params", params or ()) if flops is None else ("flops", flops)
    texts = given.split(",") if isinstance(given, str) else list(given)
    budgets = [config.pick(Budget, {name: str(text).strip()}) for text in texts]
    labels = [f"{name}-{getattr(budget, name)}".replace("%", "pct") for budget in budgets]
    return list(dict(zip(labels, zip(budgets, labels, strict=True), strict=True)).values())


def _check(job: _Job, labels: Sequence[str]) -> None:
    """Refuse what can't work before anything is loaded."""
    config.check_names(job.settings)
    sources = request.files_read(job.model, job.settings)
    for label in labels:
        for suffix in (".onnx", ".plan.json", ".point.json"):
            files.check_unread(job.ways.out / f"{label}{suffix}", sources)
    calibrated = config.pick(Calibration, job.settings)
    table.check_name(job.options.score, with_data=calibrated.data is not None)
    if job.ways.jobs < 1:
        raise UsageError(f"--jobs {job.ways.jobs}: at least 1 is needed")
    if job.ways.bench:
        onnx.require()
    elif job.form != onnx.AS_USUAL:
        raise UsageError("how .onnx files are written goes with --bench", hint="give --bench, or leave it away")


def _key(job: _Job, subject: Subject, owner: ModelId) -> dict[str, Any]:
    """What the points depend on beside their budget."""
    calibrated = config.pick(Calibration, job.settings).model_dump(exclude_none=True)
    form = job.form.model_dump(exclude_defaults=True)
    told = {name: str(value) for name, value in {**job.options.model_dump(), **calibrated, **form}.items()}
    digests = {"architecture": owner.architecture, "weights": owner.weights}
    return {"peel": peelcli.__version__, **told, **digests, "inputs": list(inputs.texts(subject))}


def _share(job: _Job, subject: Subject, budgets: Sequence[Budget], store: Store) -> _Shared:
    """Samples, trace, scores, the proof that holds for every point, and the allocation of all of them."""
    with job.clock.stage("samples") as tell:
        calibrated = config.pick(Calibration, job.settings)
        subject, evidence = gather(subject, calibrated, job.options.seed, tell)
    prepared = prepare(subject, job.options, job.clock, evidence)
    prepared, proof = proven(subject, prepared, budgets, job.options, job.clock)
    if proof is not None and proof.ok is False:
        raise CheckFailed(
            f"{proof.name} does not hold for the points together; nothing was written",
            hint="lock layers with --ignore, see them with `peel inspect`, and report the model",
        )
    options, candidates = _allocation(job, prepared, budgets, evidence, store)
    place = Workplace(subject, evidence, options, prepared, job.ways.bench, job.form)
    return _Shared(subject, prepared.before, proof, place, candidates)


def _allocation(
    job: _Job, prepared: Prepared, budgets: Sequence[Budget], evidence: Evidence | None, store: Store
) -> tuple[Options, tuple[Candidate, ...]]:
    """Where samples are to choose the allocation, they do so once, at the middle budget: a curve is of one way."""
    if evidence is None or job.options.allocate != "auto":
        return job.options, ()
    kept = store.choice()
    if kept:
        return config.pick(Options, {**job.options.model_dump(), **kept}), ()
    reachable = [limits for budget in budgets if (limits := _within_reach(prepared, budget))]
    if not reachable:
        return job.options, ()
    middle = sorted(reachable, key=lambda limits: limits[0].bound)[len(reachable) // 2]
    chosen, candidates = decide(prepared, middle, job.options, job.clock, evidence)
    store.keep_choice({"allocate": chosen.options.allocate, "tau": chosen.options.tau})
    return chosen.options, candidates


def _within_reach(prepared: Prepared, budget: Budget) -> tuple[Limit, ...]:
    """The limits of a budget; none where it can't be met, or is met by the original."""
    limits = limits_of(budget, prepared.before)
    meter = Meter(prepared.graph, limits)
    reached = meter.fits(meter.counts(meter.least)) and not meter.fits(meter.counts(prepared.graph.full))
    return limits if reached else ()


def _known(job: _Job, subject: Subject) -> _Shared:
    """Only what the original costs: all points are there."""
    with job.clock.stage("trace"):
        graph = find_groups(subject, job.options)
    return _Shared(subject, cost.costs(graph.cost, graph.full), None, None)


def _made(job: _Job, shared: _Shared, missing: Sequence[Wanted]) -> Iterator[Made]:
    """The missing points as they get done."""
    if shared.place is None:
        return iter(())
    ways = job.ways
    if ways.ray is None and min(ways.jobs, len(missing)) == 1:
        return workers.in_this_process(shared.place, missing)
    task = Task(job.model, job.example, job.settings, shared.place.options, shared.place.prepared, ways.bench)
    if ways.ray is not None:
        return workers.through_ray(task, missing, ways.ray)
    return workers.in_processes(task, missing, min(ways.jobs, len(missing)))


def _bench(job: _Job, subject: Subject, points: Sequence[Point]) -> tuple[Bench, ...]:
    """The original and all points in turns, on one thread of the CPU."""
    folder = job.ways.out
    original = folder / ORIGINAL
    if not original.is_file():
        with job.clock.stage("export"), files.staged([original]) as (temporary,):
            onnx.write(subject, {}, temporary, original.name, job.form)
    paths = [original, *(folder / point.onnx for point in points if point.onnx)]
    given = [str(shape) for shape in shapes_to_say(subject.module, Example.of(subject.inputs), bool(job.form.dynamic))]
    where = benches.conditions(("cpu",), (), ())
    with job.clock.stage("bench") as tell:
        return tuple(benches.bench(paths, where, given, BENCH_SECONDS, progress=tell))
