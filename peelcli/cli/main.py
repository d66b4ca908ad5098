"""The commands: flags to settings, settings to the pipeline, results to stdout. torch loads inside the commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peelcli import __version__
from peelcli.cli import console, repeat, settings
from peelcli.cli.bench import bench
from peelcli.cli.options import (
    AlignOpt,
    AllocateOpt,
    AllSamplesOpt,
    CodeOpt,
    ConfigOpt,
    DataOpt,
    DeviceOpt,
    EpochsOpt,
    FactoryOpt,
    FinetuneOpt,
    FlopsOpt,
    Format,
    FormatOpt,
    IgnoreOpt,
    ImageSizeOpt,
    InputOpt,
    InputsOpt,
    LatencyOpt,
    MeanOpt,
    MetricOpt,
    MinKeepOpt,
    ModelArg,
    OutOpt,
    ParamsOpt,
    PlanArg,
    PlanOutOpt,
    PlotOpt,
    PoolOpt,
    RepairOpt,
    RoundsOpt,
    SamplesOpt,
    ScoreOpt,
    SeedOpt,
    StdOpt,
    StepsOpt,
    TauOpt,
    TeacherOpt,
    ThreadsOpt,
    TracerOpt,
    TrustOpt,
    WeightsOpt,
)
from peelcli.cli.report import report
from peelcli.cli.sweep import sweep
from peelcli.cli.training_options import trains

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
@trains
def prune(
    model: ModelArg,
    flops: FlopsOpt = None,
    params: ParamsOpt = None,
    latency: LatencyOpt = None,
    threads: ThreadsOpt = None,
    out: OutOpt = None,
    plot: PlotOpt = None,
    input_: InputOpt = None,
    inputs: InputsOpt = None,
    factory: FactoryOpt = None,
    weights: WeightsOpt = None,
    code: CodeOpt = None,
    trust: TrustOpt = None,
    score: ScoreOpt = None,
    allocate: AllocateOpt = None,
    align: AlignOpt = None,
    min_keep: MinKeepOpt = None,
    ignore: IgnoreOpt = None,
    pool: PoolOpt = None,
    tau: TauOpt = None,
    seed: SeedOpt = None,
    tracer: TracerOpt = None,
    data: DataOpt = None,
    samples: SamplesOpt = None,
    image_size: ImageSizeOpt = None,
    mean: MeanOpt = None,
    std: StdOpt = None,
    metric: MetricOpt = None,
    repair: RepairOpt = None,
    device: DeviceOpt = None,
    finetune: FinetuneOpt = None,
    rounds: RoundsOpt = None,
    output_format: FormatOpt = Format.text,
    config: ConfigOpt = None,
    **training: Any,
) -> None:
    """Prune MODEL to a budget, train it where that is wanted, prove the result, and write it.

    Example: peel prune model.pt --flops 1G --out slim.onnx
    """
    given = _untrained(_settings(locals()), training)
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
def plan(
    model: ModelArg,
    flops: FlopsOpt = None,
    params: ParamsOpt = None,
    latency: LatencyOpt = None,
    threads: ThreadsOpt = None,
    out: PlanOutOpt = Path("plan.json"),
    input_: InputOpt = None,
    inputs: InputsOpt = None,
    factory: FactoryOpt = None,
    weights: WeightsOpt = None,
    code: CodeOpt = None,
    trust: TrustOpt = None,
    score: ScoreOpt = None,
    allocate: AllocateOpt = None,
    align: AlignOpt = None,
    min_keep: MinKeepOpt = None,
    ignore: IgnoreOpt = None,
    pool: PoolOpt = None,
    tau: TauOpt = None,
    seed: SeedOpt = None,
    tracer: TracerOpt = None,
    data: DataOpt = None,
    samples: SamplesOpt = None,
    image_size: ImageSizeOpt = None,
    mean: MeanOpt = None,
    std: StdOpt = None,
    metric: MetricOpt = None,
    repair: RepairOpt = None,
    device: DeviceOpt = None,
    output_format: FormatOpt = Format.text,
    config: ConfigOpt = None,
) -> None:
    """Decide the widths for a budget and write them as a plan; change no weights.

    Example: peel plan model.pt --flops 50% --out plan.json
    """
    given = _untrained({**_settings(locals()), "finetune": None, "rounds": None}, {})
    from peelcli import files, request

    request.check(model, given, out, files.PLAN_SUFFIXES)
    from peelcli import pipeline

    with console.working() as progress:
        run = pipeline.plan_run(model, out=out, progress=progress, **given)
    _show_run(replace(run, command=repeat.command("plan", [model], given, [out])), output_format)


@app.command()
def apply(
    model: ModelArg,
    plan: PlanArg,
    out: OutOpt = None,
    input_: InputOpt = None,
    inputs: InputsOpt = None,
    factory: FactoryOpt = None,
    weights: WeightsOpt = None,
    code: CodeOpt = None,
    trust: TrustOpt = None,
    data: DataOpt = None,
    samples: SamplesOpt = None,
    image_size: ImageSizeOpt = None,
    mean: MeanOpt = None,
    std: StdOpt = None,
    metric: MetricOpt = None,
    repair: RepairOpt = None,
    device: DeviceOpt = None,
    output_format: FormatOpt = Format.text,
    config: ConfigOpt = None,
) -> None:
    """Carry out PLAN on the MODEL that it was made for, repair it from samples, prove the result, and write it.

    Example: peel apply model.pt plan.json --out slim.onnx
    """
    given = _undecided(_settings(locals()))
    from peelcli import plans, request

    request.check_outputs(model, given, out or ())
    decided = plans.read(plan)
    from peelcli import pipeline

    with console.working() as progress:
        pruned = pipeline.apply(model, decided, out=out or (), progress=progress, **given)
    run = replace(pruned.run, command=repeat.command("apply", [model, plan], given, out or ()))
    _show_run(run, output_format)


@app.command()
@trains
def finetune(
    model: ModelArg,
    teacher: TeacherOpt = None,
    data: DataOpt = None,
    epochs: EpochsOpt = None,
    steps: StepsOpt = None,
    out: OutOpt = None,
    input_: InputOpt = None,
    inputs: InputsOpt = None,
    factory: FactoryOpt = None,
    weights: WeightsOpt = None,
    code: CodeOpt = None,
    trust: TrustOpt = None,
    samples: AllSamplesOpt = None,
    image_size: ImageSizeOpt = None,
    mean: MeanOpt = None,
    std: StdOpt = None,
    metric: MetricOpt = None,
    device: DeviceOpt = None,
    seed: SeedOpt = None,
    output_format: FormatOpt = Format.text,
    config: ConfigOpt = None,
    **training: Any,
) -> None:
    """Train the slim MODEL on the answers of the original, on labels, or on a loss of your own, and write it.

    On several GPUs or machines: torchrun --nproc-per-node 4 -m peelcli finetune slim.safetensors ...

    Example: peel finetune slim.safetensors --teacher model.pt --data crops/ --epochs 5 --out tuned.onnx
    """
    given = _trainable(_settings(locals()))
    from peelcli import request

    request.check_lessons(model, given, out or ())
    from peelcli import pipeline

    with console.working() as progress:
        tuned = pipeline.finetune(model, teacher=teacher, out=out or (), progress=progress, **given)
    told = {"teacher": teacher, **given}
    _show_run(replace(tuned.run, command=repeat.command("finetune", [model], told, out or ())), output_format)


@app.command()
def inspect(
    model: ModelArg,
    input_: InputOpt = None,
    inputs: InputsOpt = None,
    factory: FactoryOpt = None,
    weights: WeightsOpt = None,
    code: CodeOpt = None,
    trust: TrustOpt = None,
    align: AlignOpt = None,
    min_keep: MinKeepOpt = None,
    ignore: IgnoreOpt = None,
    tracer: TracerOpt = None,
    output_format: FormatOpt = Format.text,
    config: ConfigOpt = None,
) -> None:
    """List the groups of coupled channels: what they cost, what is locked and why, the least that can be reached.

    Example: peel inspect torchvision:resnet50 --align 8
    """
    given = _settings(locals())
    from peelcli import pipeline
    from peelcli.report import inspection

    with console.working() as progress:
        found = pipeline.inspect(model, progress=progress, **given)
    if output_format is Format.json:
        console.show_json(inspection.document(found))
    else:
        console.show(inspection.table(found))


app.command()(report)
app.command()(bench)
app.command()(sweep)


_NO_SETTINGS = {"model", "plan", "teacher", "out", "plot", "output_format", "config", "training"}


def _settings(flags: dict[str, Any]) -> dict[str, Any]:
    """The settings among a command's arguments, over those of the settings file."""
    flags = {**flags, **flags.get("training", {})}
    named = {name.rstrip("_"): value for name, value in flags.items() if name not in _NO_SETTINGS}
    return settings.merged(named, flags["config"])


def _untrained(given: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """A settings file may say how to train; that matters where pruning is followed by training, or flags ask for it."""
    from peelcli.regimen import Training

    if given.get("finetune") is not None:
        return given
    unread = [name for name in Training.model_fields if flags.get(name) is None]
    return {name: value for name, value in given.items() if name not in unread}


def _undecided(given: dict[str, Any]) -> dict[str, Any]:
    """A settings file may say how to prune; a plan has decided that already."""
    from peelcli.config import Calibration, Source

    left = {*Source.model_fields, *Calibration.model_fields}
    return {name: value for name, value in given.items() if name in left}


def _trainable(given: dict[str, Any]) -> dict[str, Any]:
    """A settings file may say how to prune; a slim model is pruned."""
    from peelcli.config import Calibration, Source
    from peelcli.regimen import Training

    left = {*Source.model_fields, *Calibration.model_fields, *Training.model_fields, "seed"} - {"repair"}
    return {name: value for name, value in given.items() if name in left}


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
    if output_format is Format.json:
        from peelcli.report.document import document

        console.show_json(document(run))
    else:
        from peelcli.report.text import summary

        console.show(summary(run))


def main() -> None:
    """Run the command line; ends the process."""
    console.run(lambda: app(standalone_mode=False))
