"""`peel bench`: measured latency of ONNX files in onnxruntime. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from peelcli.cli import console
from peelcli.cli.flags import Group, flag, takes
from peelcli.cli.options import FormatOpt

_MEASUREMENT = "Measurement"

FilesArg = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE.onnx...",
        help="ONNX files that take the same inputs; the others are compared with the first",
        show_default=False,
    ),
]
WHERE: Group = {
    "provider": flag(
        list[str],
        "where onnxruntime computes: cpu, cuda, ...; repeatable",
        _MEASUREMENT,
        "cpu, and cuda where onnxruntime has it",
        "NAME",
    ),
    "threads": flag(list[int], "threads of an operator on the CPU; repeatable", _MEASUREMENT, "1", "N"),
    "batch": flag(list[int], "samples in one call; repeatable", _MEASUREMENT, "what the files say, else 1", "N"),
    "input_": flag(
        list[str],
        "the shape of an input that the files leave open, e.g. 1,3,224,224 or 'ids=1x77:<30522'; repeatable",
        _MEASUREMENT,
        metavar="[NAME=]SHAPE",
        name="--input",
    ),
}
SecondsOpt = Annotated[
    float,
    typer.Option(
        metavar="S",
        min=0.1,
        max=3600,
        help="how long each file is timed, without loading",
        rich_help_panel=_MEASUREMENT,
    ),
]
ConfidenceOpt = Annotated[
    float,
    typer.Option(metavar="SHARE", min=0.5, max=0.99, help="of the interval of the ratio", rich_help_panel=_MEASUREMENT),
]


@takes(WHERE)
def bench(
    files: FilesArg,
    *,
    seconds: SecondsOpt = 5.0,
    confidence: ConfidenceOpt = 0.95,
    output_format: FormatOpt = "text",
    **flags: Any,
) -> None:
    """Time ONNX files in onnxruntime: in turns, warm, with an interval for the ratio, and why there is no speed-up.

    Example: peel bench before.onnx after.onnx --threads 1 --threads 4 --batch 1
    """
    from peelcli.latency import bench as benches  # onnxruntime loads here
    from peelcli.report import bench as report

    with console.working() as progress:

        def tell(done: int, total: int) -> None:
            progress("bench", done, total)

        where = benches.conditions(*(flags[name] or () for name in ("provider", "threads", "batch")))
        found = list(benches.bench(files, where, flags["input_"] or (), seconds, confidence, tell))
    if output_format == "json":
        console.show_json(report.document(found))
    else:
        console.show(report.text(found))
