"""`peel sweep`: one model, one trace, many budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peelcli.cli import console, settings
from peelcli.cli.options import (
    BUDGET,
    OUTPUT,
    AlignOpt,
    AllocateOpt,
    CodeOpt,
    ConfigOpt,
    DataOpt,
    DeviceOpt,
    FactoryOpt,
    Format,
    FormatOpt,
    IgnoreOpt,
    ImageSizeOpt,
    InputOpt,
    InputsOpt,
    MeanOpt,
    MetricOpt,
    MinKeepOpt,
    ModelArg,
    PoolOpt,
    RepairOpt,
    SamplesOpt,
    ScoreOpt,
    SeedOpt,
    StdOpt,
    TauOpt,
    TracerOpt,
    TrustOpt,
    WeightsOpt,
)

WORK = "Work"

FlopsListOpt = Annotated[
    str | None,
    typer.Option(
        "--flops",
        metavar="LIST",
        help="most multiply-adds at each point, e.g. 75%,50%,35%,25% or 2G,1G",
        rich_help_panel=BUDGET,
        show_default=False,
    ),
]
ParamsListOpt = Annotated[
    str | None,
    typer.Option(
        "--params",
        metavar="LIST",
        help="most parameters at each point, instead of --flops",
        rich_help_panel=BUDGET,
        show_default=False,
    ),
]
FolderOpt = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="FOLDER",
        help="where each point's plan goes; a run that was killed goes on with what is there",
        rich_help_panel=OUTPUT,
    ),
]
PlotOpt = Annotated[
    list[Path] | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="draw the curve: .svg or .png; needs peelcli\\[plot]; repeatable",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
BenchOpt = Annotated[
    bool,
    typer.Option("--bench", help="write every point as .onnx too, and time it in onnxruntime", rich_help_panel=WORK),
]
JobsOpt = Annotated[
    int, typer.Option(metavar="N", min=1, help="points at a time, each in a process of its own", rich_help_panel=WORK)
]
RayOpt = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="work on the machines of this Ray cluster: auto, ray://HOST:PORT, or local; needs peelcli\\[sweep]",
        rich_help_panel=WORK,
        show_default=False,
    ),
]


def sweep(
    model: ModelArg,
    flops: FlopsListOpt = None,
    params: ParamsListOpt = None,
    out: FolderOpt = Path("sweep"),
    plot: PlotOpt = None,
    bench: BenchOpt = False,
    jobs: JobsOpt = 1,
    ray: RayOpt = None,
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
) -> int:
    """Prune MODEL to many budgets after one trace: the curve of cost against what is left, and its knee.

    Example: peel sweep model.pt --flops 75%,50%,35%,25% --data photos --bench --plot curve.svg
    """
    own = {"model", "flops", "params", "out", "plot", "bench", "jobs", "ray", "output_format", "config"}
    flags = {name.rstrip("_"): value for name, value in locals().items() if name not in {*own, "own"}}
    given = settings.merged(flags, config)
    bounds = {"flops": given.pop("flops", None), "params": given.pop("params", None)}
    bounds = {"flops": flops, "params": params} if flops or params else bounds
    from peelcli import files
    from peelcli.report import curve

    files.check_targets(plot or (), None, curve.SUFFIXES)
    if plot:
        curve.require()
    from peelcli.report import sweep as report
    from peelcli.sweeps import run  # torch loads here

    with console.working() as progress:
        ways = run.Ways(out, jobs, ray, bench)
        found = run.sweep(model, ways=ways, **bounds, progress=progress, **given)
    for path in plot or ():
        with files.staged([path]) as (temporary,):
            files.write_bytes(temporary, curve.draw(found, path.suffix.lower().removeprefix(".")))
    if output_format is Format.json:
        console.show_json(report.document(found))
    else:
        console.show(report.text(found, str(out)))
    return 1 if any(point.failed for point in found.points) else 0
