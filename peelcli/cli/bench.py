"""`peel bench`: measured latency of ONNX files in onnxruntime. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peelcli.cli import console
from peelcli.cli.options import Format, FormatOpt

MEASUREMENT = "Measurement"

FilesArg = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE.onnx...",
        help="ONNX files that take the same inputs; the others are compared with the first",
        show_default=False,
    ),
]
ProviderOpt = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="where onnxruntime computes: cpu, cuda, ...; repeatable",
        rich_help_panel=MEASUREMENT,
        show_default="cpu, and cuda where onnxruntime has it",
    ),
]
ThreadsOpt = Annotated[
    list[int] | None,
    typer.Option(
        metavar="N", help="threads of an operator on the CPU; repeatable", rich_help_panel=MEASUREMENT, show_default="1"
    ),
]
BatchOpt = Annotated[
    list[int] | None,
    typer.Option(
        metavar="N",
        help="samples in one call; repeatable",
        rich_help_panel=MEASUREMENT,
        show_default="what the files say, else 1",
    ),
]
ShapeOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="[NAME=]SHAPE",
        help="the shape of an input that the files leave open, e.g. 1,3,224,224 or ids=1x77; repeatable",
        rich_help_panel=MEASUREMENT,
        show_default=False,
    ),
]
SecondsOpt = Annotated[
    float,
    typer.Option(
        metavar="S", min=0.1, max=3600, help="how long each file is timed, without loading", rich_help_panel=MEASUREMENT
    ),
]
ConfidenceOpt = Annotated[
    float,
    typer.Option(metavar="SHARE", min=0.5, max=0.99, help="of the interval of the ratio", rich_help_panel=MEASUREMENT),
]


def bench(
    files: FilesArg,
    provider: ProviderOpt = None,
    threads: ThreadsOpt = None,
    batch: BatchOpt = None,
    input_: ShapeOpt = None,
    seconds: SecondsOpt = 5.0,
    confidence: ConfidenceOpt = 0.95,
    output_format: FormatOpt = Format.text,
) -> None:
    """Time ONNX files in onnxruntime: in turns, warm, with an interval for the ratio, and why there is no speed-up.

    Example: peel bench before.onnx after.onnx --threads 1 --threads 4 --batch 1
    """
    from peelcli.latency import bench as benches  # onnxruntime loads here
    from peelcli.report import bench as report

    with console.working() as progress:

        def tell(done: int, total: int) -> None:
            progress("bench", done, total)

        where = benches.conditions(provider or (), threads or (), batch or ())
        found = list(benches.bench(files, where, input_ or (), seconds, confidence, tell))
    if output_format is Format.json:
        console.show_json(report.document(found))
    else:
        console.show(report.text(found))
