"""The commands: flags to settings, settings to the pipeline, results to stdout. torch loads inside the commands."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peelcli import __version__
from peelcli.cli import console, repeat, settings
from peelcli.cli.bench import bench
from peelcli.cli.flags import takes
from peelcli.cli.options import (
    AFTERWARDS,
    BUDGETS,
    CHOICE,
    FORM,
    LESSONS,
    REPAIR,
    SAMPLES,
    SEED,
    SOURCE,
    WIDTHS,
    ConfigOpt,
    Format,
    FormatOpt,
    ModelArg,
    OutOpt,
    PlanArg,
    PlanOutOpt,
    PlotOpt,
    TeacherOpt,
)
from peelcli.cli.report import report
from peelcli.cli.sweep import sweep
from peelcli.cli.training_options import TRAINING

if TYPE_CHECKING:
    from peelcli.records import Run

app = typer.Typer(
    name="peel",
    help="Compress a trained PyTorch model to a stated budget, prove the result, and write a slim ONNX file.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"peel {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="print the version and stop")
    ] = False,
) -> None:
    del version


@app.command()
@takes(BUDGETS, SOURCE, CHOICE, WIDTHS, SEED, SAMPLES, REPAIR, AFTERWARDS, TRAINING, FORM)
def prune(
    model: ModelArg,
    *,
    out: OutOpt = None,
    plot: PlotOpt = None,
    output_format: FormatOpt = "text",
    config: ConfigOpt = None,
    **flags: Any,
) -> None:
    """Prune MODEL to a budget, train it where that is wanted, prove the result, and write it.

    Example: peel prune model.pt --flops 1G --out slim.onnx
    """
    given = _untrained(settings.merged(flags, config), flags)
    from peelcli import request  # pydantic loads here

    request.check(model, given, out or ())
    _check_plots(plot or (), out or ())
    from peelcli import pipeline  # torch loads here, after a typo was told

    with console.working() as progress:
        pruned = pipeline.prune(model, out=out or (), progress=progress, **given)
    run = replace(pruned.run, command=repeat.command("prune", [model], given, out or ()))
    if console.is_main():
        _draw(run, plot or ())
    _show_run(run, output_format)


@app.command()
@takes(BUDGETS, SOURCE, CHOICE, WIDTHS, SEED, SAMPLES, REPAIR)
def plan(
    model: ModelArg,
    *,
    out: PlanOutOpt = Path("plan.json"),
    output_format: FormatOpt = "text",
    config: ConfigOpt = None,
    **flags: Any,
) -> None:
    """Decide the widths for a budget and write them as a plan; change no weights.

    Example: peel plan model.pt --flops 50% --out plan.json
    """
    unread = dict.fromkeys(("finetune", "rounds", *FORM))  # of runs that write models
    given = _untrained({**settings.merged(flags, config), **unread}, {})
    from peelcli import files, request

    request.check(model, given, out, files.PLAN_SUFFIXES)
    from peelcli import pipeline

    with console.working() as progress:
        run = pipeline.plan_run(model, out=out, progress=progress, **given)
    _show_run(replace(run, command=repeat.command("plan", [model], given, [out])), output_format)


@app.command()
@takes(SOURCE, SAMPLES, REPAIR, FORM)
def apply(
    model: ModelArg,
    plan: PlanArg,
    *,
    out: OutOpt = None,
    output_format: FormatOpt = "text",
    config: ConfigOpt = None,
    **flags: Any,
) -> None:
    """Carry out PLAN on the MODEL that it was made for, repair it from samples, prove the result, and write it.

    Example: peel apply model.pt plan.json --out slim.onnx
    """
    given = settings.only(flags, config)  # how to prune, a plan has decided already
    from peelcli import plans, request

    request.check_applied(model, plan, given, out or ())
    decided = plans.read(plan)
    from peelcli import pipeline

    with console.working() as progress:
        pruned = pipeline.apply(model, decided, out=out or (), progress=progress, **given)
    run = replace(pruned.run, command=repeat.command("apply", [model, plan], given, out or ()))
    _show_run(run, output_format)


@app.command()
@takes(LESSONS, SOURCE, TRAINING, SEED, FORM)
def finetune(
    model: ModelArg,
    teacher: TeacherOpt = None,
    *,
    out: OutOpt = None,
    output_format: FormatOpt = "text",
    config: ConfigOpt = None,
    **flags: Any,
) -> None:
    """Train the slim MODEL on the answers of the original, on labels, or on a loss of your own, and write it.

    On several GPUs or machines: torchrun --nproc-per-node 4 -m peelcli finetune slim.safetensors ...

    Example: peel finetune slim.safetensors --teacher model.pt --data crops/ --epochs 5 --out tuned.onnx
    """
    given = settings.only({"teacher": teacher, **flags}, config)  # the file may say how to prune: this model is pruned
    teacher = settings.text("teacher", given)
    given.pop("teacher", None)
    from peelcli import request

    request.check_lessons(model, given, out or (), teacher)
    from peelcli import pipeline

    with console.working() as progress:
        tuned = pipeline.finetune(model, teacher=teacher, out=out or (), progress=progress, **given)
    told = {"teacher": teacher, **given}
    _show_run(replace(tuned.run, command=repeat.command("finetune", [model], told, out or ())), output_format)


@app.command()
@takes(SOURCE, WIDTHS)
def inspect(
    model: ModelArg,
    *,
    output_format: FormatOpt = "text",
    config: ConfigOpt = None,
    **flags: Any,
) -> None:
    """List the groups of coupled channels: what they cost, what is locked and why, the least that can be reached.

    Example: peel inspect torchvision:resnet50 --align 8
    """
    given = settings.merged(flags, config)
    from peelcli import pipeline
    from peelcli.report import inspection

    with console.working() as progress:
        found = pipeline.inspect(model, progress=progress, **given)
    if output_format == "json":
        console.show_json(inspection.document(found))
    else:
        console.show(inspection.table(found))


app.command()(report)
app.command()(bench)
app.command()(sweep)


def _untrained(given: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """A settings file may say how to train; that matters where pruning is followed by training, or flags ask for it."""
    from peelcli.regimen import Training

    if given.get("finetune") is not None:
        return given
    unread = [name for name in Training.model_fields if flags.get(name) is None]
    return {name: value for name, value in given.items() if name not in unread}


def _check_plots(plots: Sequence[Path], out: Sequence[Path]) -> None:
    """Refuse, before any work, pictures that could not be drawn at the end."""
    from peelcli import files
    from peelcli.report import plot

    files.check_targets([*out, *plots], suffixes=(*files.MODEL_SUFFIXES, *plot.SUFFIXES) if out else plot.SUFFIXES)
    for path in plots:
        files.check_targets([path], suffixes=plot.SUFFIXES)
        plot.require(path.suffix)


def _draw(run: Run, plots: Sequence[Path]) -> None:
    from peelcli import files
    from peelcli.report import plot

    with files.staged(plots) as temporaries:
        for temporary, path in zip(temporaries, plots, strict=True):
            files.write_bytes(temporary, plot.picture(run, path.suffix))


def _show_run(run: Run, output_format: Format) -> None:
    if not console.is_main():
        return
    if output_format == "json":
        from peelcli.report.document import document

        console.show_json(document(run))
    else:
        from peelcli.report.text import summary

        console.show(summary(run))


def main() -> None:
    """Run the command line; ends the process."""
    atexit.register(gc.freeze)  # Python ends by collecting garbage: a second for the millions of objects of an export
    console.run(lambda: app(standalone_mode=False))
