"""`peel sweep`: one model, one trace, many budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from peelcli.cli import console, settings
from peelcli.cli.flags import Group, flag, takes
from peelcli.cli.options import (
    CHOICE,
    FORM,
    OUTPUT,
    REPAIR,
    SAMPLES,
    SEED,
    SOURCE,
    WIDTHS,
    ConfigOpt,
    FormatOpt,
    ModelArg,
)

_WORK = "Work"

POINTS: Group = {
    "flops": flag(str, "most multiply-adds at each point, e.g. 75%,50%,35%,25% or 2G,1G", "Budget", metavar="LIST"),
    "params": flag(str, "most parameters at each point, instead of --flops", "Budget", metavar="LIST"),
}
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
    typer.Option("--bench", help="write every point as .onnx too, and time it in onnxruntime", rich_help_panel=_WORK),
]
JobsOpt = Annotated[
    int, typer.Option(metavar="N", min=1, help="points at a time, each in a process of its own", rich_help_panel=_WORK)
]
RayOpt = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="work on the machines of this Ray cluster: auto, ray://HOST:PORT, or local; needs peelcli\\[sweep]",
        rich_help_panel=_WORK,
        show_default=False,
    ),
]


@takes(POINTS, SOURCE, CHOICE, WIDTHS, SEED, SAMPLES, REPAIR, FORM)
def sweep(
    model: ModelArg,
    *,
    bench: BenchOpt = False,
    jobs: JobsOpt = 1,
    ray: RayOpt = None,
    out: FolderOpt = Path("sweep"),
    plot: PlotOpt = None,
    output_format: FormatOpt = "text",
    config: ConfigOpt = None,
    **flags: Any,
) -> int:
    """Prune MODEL to many budgets after one trace: the curve of cost against what is left, and its knee.

    Example: peel sweep model.pt --flops 75%,50%,35%,25% --data photos --bench --plot curve.svg
    """
    given = settings.merged(flags, config)
    if not bench:  # then no .onnx is written, and the file speaks of other runs
        given |= {name: flags[name] or None for name in FORM}
    if flags["flops"] or flags["params"]:  # a flag's curve replaces that of the settings file
        given |= {name: flags[name] for name in POINTS}
    from peelcli import files
    from peelcli.report import canvas, curve

    files.check_targets(plot or (), (), curve.SUFFIXES)
    for path in plot or ():
        canvas.require(path.suffix)
    from peelcli.report import sweep as report
    from peelcli.sweeps import run  # torch loads here

    with console.working() as progress:
        ways = run.Ways(out, jobs, ray, bench)
        found = run.sweep(model, ways=ways, progress=progress, **given)
    for path in plot or ():
        with files.staged([path]) as (temporary,):
            files.write_bytes(temporary, curve.picture(found, path.suffix))
    if output_format == "json":
        console.show_json(report.document(found))
    else:
        console.show(report.text(found, str(out)))
    return 1 if any(point.failed for point in found.points) else 0
