"""The stages composed: the Python API, and what every command calls.

import peelcli as peel
slim, run = peel.prune(model, torch.randn(1, 3, 224, 224), flops="50%", out="slim.onnx")
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn
from typing_extensions import Unpack

import peelcli
from peelcli import config, files, plans, proving, request, retrain, students
from peelcli.ambient import undisturbed
from peelcli.config import Calibration, GraphForm, Options, Settings, Source
from peelcli.deadlines import settle_in_time
from peelcli.errors import PeelError, PlanError, UsageError
from peelcli.evidence import Evidence, gather
from peelcli.export import onnx, targets
from peelcli.export.inputs import Example, asked_sizes
from peelcli.footprint import Footprint
from peelcli.graph import cost
from peelcli.graph import footprint as footprints
from peelcli.planning import Clock, Progress, Settled, carry_out, failure, find_groups, mend, prepare, settle
from peelcli.records import Artifact, Plan, Run, Subject
from peelcli.request import Lessons, Paths
from peelcli.results import Inspection
from peelcli.retrain import Trained
from peelcli.sources import inputs
from peelcli.sources import load as model_files
from peelcli.training import checkpoint, ranks

Model = nn.Module | Subject | str | os.PathLike[str]


class Pruned(NamedTuple):
    """A slim model, and the record of how it came to be."""

    model: nn.Module
    run: Run


def load(model: Model, example: Any = None, **settings: Unpack[Settings]) -> Subject:
    """Take a model from a file, a name or Python.

    Args:
        model: a path, a name such as "timm:resnet50", or a module.
        example: for a module, forward's arguments: a tensor of shape (batch, ...), a tuple of positional ones, or a
            dict of named ones.
        settings: the fields of `peelcli.config.Source`.

    Raises:
        PeelError: the model can't be used; the message says why.
    """
    config.check_names(settings)
    if isinstance(model, Subject):
        return model
    if isinstance(model, nn.Module):
        return model_files.from_module(model, example, options=config.pick(Source, settings))
    if not isinstance(model, (str, os.PathLike)):
        raise UsageError(
            f"the model is {_what(model)}, which is no torch.nn.Module, file or name",
            hint="give the module itself: load a state dict into one, and call program.module() of an exported program",
        )
    if example is not None:
        raise UsageError("an example goes with a module", hint='for a file or a name write input="1,3,224,224"')
    return model_files.load(os.fspath(model), config.pick(Source, settings))


def _what(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


@undisturbed
def prune(
    model: Model,
    example: Any = None,
    *,
    out: Paths = (),
    progress: Progress | None = None,
    **settings: Unpack[Settings],
) -> Pruned:
    """Prune a model to a budget, prove the result, and write it where asked.

    Args:
        model: as for `load`; it is never changed.
        example: as for `load`.
        out: files to write; the suffix says the format: .onnx, .pt, .pt2, .py, .safetensors.
        progress: called with the name of each stage as it starts.
        settings: fields of `peelcli.config.Budget` (flops: multiply-adds for one sample; params: parameters; each a
            count such as "1G" or a share such as "50%"), Options, Source, Calibration and GraphForm.

    Returns:
        The slim module, in the mode and with the flags of the original, and the run's record.

    Raises:
        CheckFailed: a proof did not hold; nothing is written.
        BudgetOutOfReach: the least legal widths cost more than the budget.
        PeelError: anything else that the user can mend.
    """
    clock = Clock(progress)
    wanted = request.check(model, settings, out)
    with clock.stage("load"):
        subject = load(model, example, **settings)
        form = _form(subject, settings)
    if wanted.lessons is not None:
        return _trained(retrain.prune_and_train(subject, wanted, clock), wanted.lessons, form, clock)
    subject, evidence = _evidence(subject, wanted.calibration, wanted.options.seed, clock)
    prepared = prepare(subject, wanted.options, clock, evidence)
    decide = settle if wanted.budget.latency is None else settle_in_time
    settled = decide(subject, prepared, wanted.budget, wanted.options, clock, evidence)
    return _by_layer(subject, _finish(subject, mend(settled, clock, evidence), wanted.paths, form, clock), clock)


def plan(
    model: Model,
    example: Any = None,
    *,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **settings: Unpack[Settings],
) -> Plan:
    """Decide what to prune, prove it on a copy, and change nothing.

    Args and errors are those of `prune`; `out` is a .json file.

    Returns:
        The plan: the same for the same model, settings and seed, byte for byte as `plans.to_json` writes it.
    """
    return plan_run(model, example, out=out, progress=progress, **settings).plan


@undisturbed
def plan_run(
    model: Model,
    example: Any = None,
    *,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **settings: Unpack[Settings],
) -> Run:
    """The same as `plan`, with the proofs and the time that it took."""
    clock = Clock(progress)
    wanted = request.check(model, settings, () if out is None else out, files.PLAN_SUFFIXES)
    with clock.stage("load"):
        subject = load(model, example, **settings)
    subject, evidence = _evidence(subject, wanted.calibration, wanted.options.seed, clock)
    prepared = prepare(subject, wanted.options, clock, evidence)
    decide = settle if wanted.budget.latency is None else settle_in_time
    settled = decide(subject, prepared, wanted.budget, wanted.options, clock, evidence)
    run = _finish(subject, settled, (), onnx.AS_USUAL, clock).run
    for path in wanted.paths:
        files.write_text_atomically(path, plans.to_json(run.plan))
    written = (Artifact(str(path), "plan", path.stat().st_size) for path in wanted.paths)
    return replace(run, artifacts=tuple(written))


@undisturbed
def apply(
    model: Model,
    plan: Plan | str | os.PathLike[str],
    example: Any = None,
    *,
    out: Paths = (),
    progress: Progress | None = None,
    **settings: Unpack[Settings],
) -> Pruned:
    """Carry out a plan on the model that it was made for.

    Args:
        model: as for `load`.
        plan: a plan, or the path of its file.
        example: as for `load`; the plan's own input is used where no other is given.
        out: as for `prune`.
        progress: as for `prune`.
        settings: the fields of `peelcli.config.Source`, Calibration and GraphForm.

    Raises:
        PlanError: the plan can't be read, or it was made for another architecture or other weights.
        CheckFailed: a proof did not hold; nothing is written.
    """
    clock = Clock(progress)
    paths = request.check_applied(model, plan, settings, out)
    if not isinstance(plan, Plan):
        plan = plans.read(Path(plan))
    if example is None and not isinstance(model, Subject) and not settings.get("input") and not settings.get("inputs"):
        settings["input"] = _remade(plan)
    with clock.stage("load"):
        subject = load(model, example, **settings)
        students.check_owner(plan, subject)
        form = _form(subject, settings)
    subject, evidence = _evidence(subject, config.pick(Calibration, settings), plans.seed(plan), clock)
    pruned = _finish(subject, mend(carry_out(subject, plan, clock), clock, evidence), paths, form, clock)
    return _by_layer(subject, pruned, clock)


@undisturbed
def finetune(
    model: Model,
    example: Any = None,
    *,
    teacher: Model | None = None,
    out: Paths = (),
    progress: Progress | None = None,
    **settings: Unpack[Settings],
) -> Pruned:
    """Train a slim model: on the original's answers, on labels, or on a loss of one's own; then write it.

    Args:
        model: the slim model, as for `load`, or a .safetensors file that peel wrote.
        example: as for `load`.
        teacher: the original.
        out: as for `prune`. Checkpoints lie beside the first file unless `checkpoints` names a folder.
        progress: as for `prune`; its text holds the figures.
        settings: fields of `peelcli.regimen.Training`, and of Calibration, Source and GraphForm.

    Returns:
        The best state of the model, and the record; `run.tunings` says what training did.

    Raises:
        CheckFailed: a proof did not hold; nothing is written.
        PeelError: anything else that the user can mend.
    """
    clock = Clock(progress)
    wanted = request.check_lessons(model, settings, out, teacher)
    with clock.stage("load"):
        student = students.load(model, teacher, example, config.pick(Source, settings))
        form = _form(student.slim, settings)
    return _trained(retrain.train(student, wanted, clock), wanted, form, clock)


@undisturbed
def inspect(
    model: Model, example: Any = None, *, progress: Progress | None = None, **settings: Unpack[Settings]
) -> Inspection:
    """Find every group of coupled channels, what it costs, and whether it can be pruned.

    Args are those of `prune`, of which only align, min_keep, ignore and the fields of Source matter.
    """
    clock = Clock(progress)
    config.check_names(settings)
    options = config.pick(Options, settings)
    with clock.stage("load"):
        subject = load(model, example, **settings)
    with clock.stage("trace"):
        graph = find_groups(subject, options)
    whole = cost.evaluate(graph.cost.macs, graph.full)
    parts = cost.parts_of_groups(graph.cost.macs, graph.full)
    return Inspection(
        model=subject.name,
        inputs=inputs.texts(subject),
        groups=graph.groups,
        shares=tuple(part / whole if whole else 0.0 for part in parts),
        full=cost.costs(graph.cost, graph.full),
        least=cost.costs(graph.cost, graph.least),
        uncounted=graph.uncounted,
        notes=(*subject.notes, *graph.notes),
    )


def footprint(model: Model, example: Any = None, **settings: Unpack[Settings]) -> Footprint:
    """What a model costs, layer by layer: the source of `peel report`.

    Args are those of `load`.
    """
    subject = load(model, example, **settings)
    costs = proving.counted(subject, subject.module)
    found = footprints.of_module(subject, subject.module, costs, subject.name, "module")
    return replace(found, inputs=inputs.texts(subject), notes=(*subject.notes, *found.notes))


# --- what the functions above share


def _evidence(subject: Subject, wanted: Calibration, seed: int, clock: Clock) -> tuple[Subject, Evidence | None]:
    with clock.stage("samples") as tell:
        return gather(subject, wanted, seed, tell)


def _remade(plan: Plan) -> tuple[str, ...]:
    """A plan's inputs as settings; what a function of the user's gave can't be made again from text."""
    function = inputs.function_in(plan.inputs)
    if function is not None:
        raise PlanError(
            f"the plan was made with the example of {function}, which can't be made again from its shapes",
            hint=f"give the same example: --inputs {function}",
        )
    return plan.inputs


def _form(subject: Subject, settings: Settings) -> GraphForm:
    """How .onnx files are written; sizes that the model does not have are refused before any work."""
    form = config.pick(GraphForm, settings)
    asked_sizes(subject.module, Example.of(subject.inputs), form.dynamic)
    return form


def _trained(found: Trained, wanted: Lessons, form: GraphForm, clock: Clock) -> Pruned:
    """Write what was trained, in the first process; then its checkpoint is of no more use."""
    try:
        done = _finish(found.original, found.settled, wanted.paths if ranks.is_main() else (), form, clock)
    except PeelError as error:
        if wanted.training.checkpoints is not None and ranks.is_main():
            _tell_where(wanted.training.checkpoints, error)
        raise
    if wanted.training.checkpoints is not None and ranks.is_main():
        checkpoint.remove(wanted.training.checkpoints)
    done = Pruned(done.model, replace(done.run, tunings=found.tunings))
    return _by_layer(found.original, done, clock)


def _tell_where(folder: Path, error: PeelError) -> None:
    """Hours of training are not lost because a file can't be written."""
    if files.checkpoints_in(folder):
        error.add(f"the training is done and kept in {folder}")
        other = f"save it with the same command and --checkpoints '{folder}' --resume --out OTHER.pt"
        error.hint = f"{other}; {error.hint}" if error.hint else other


def _finish(subject: Subject, settled: Settled, paths: Sequence[Path], form: GraphForm, clock: Clock) -> Pruned:
    """Write what was asked for, and put the record together."""
    if settled.failed or settled.after is None:
        raise failure(settled)
    artifacts: tuple[Artifact, ...] = ()
    checks = settled.checks
    if paths:
        slim = replace(subject, module=settled.slim)
        with clock.stage("export"):
            artifacts, more = targets.write(slim, settled.plan, settled.after, paths, form)
        checks = (*checks, *more)
    run = Run(
        version=peelcli.__version__,
        plan=settled.plan,
        after=settled.after,
        checks=checks,
        artifacts=artifacts,
        seconds=clock.seconds,
        uncounted=settled.uncounted,
        notes=settled.plan.notes,
        fidelity=settled.fidelity,
        candidates=settled.candidates,
        pace=settled.pace,
        backbone=settled.backbone,
    )
    return Pruned(settled.slim, run)


def _by_layer(subject: Subject, pruned: Pruned, clock: Clock) -> Pruned:
    """The same, with the original and the slim model told layer by layer in the record; that is no reason to fail."""
    run = pruned.run
    name = run.plan.model.name
    try:
        with clock.stage("count"):
            before = footprints.of_module(subject, subject.module, run.plan.before, name, "original")
            after = footprints.of_module(subject, pruned.model, run.after, name, "slim")
    except Exception as error:  # whatever a user's forward raises when each op is looked at
        note = f"costs are not told layer by layer: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return Pruned(pruned.model, replace(run, notes=(*run.notes, note)))
    return Pruned(pruned.model, replace(run, sides=(before, after), seconds=clock.seconds))
