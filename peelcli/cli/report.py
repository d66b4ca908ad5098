"""`peel report`: figures of models side by side, in many formats, and a gate for CI. torch loads for models only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from peelcli.cli import console, settings
from peelcli.cli.flags import Group, flag, takes
from peelcli.cli.options import OUTPUT, SOURCE, ConfigOpt
from peelcli.errors import CHECK_FAILED, DONE, UsageError

if TYPE_CHECKING:
    from peelcli.report.overview import Report


ReportFormat = Literal["text", "json", "markdown", "html", "junit", "github", "gitlab"]

ModelsArg = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help="ONNX files, records of runs (`peel prune --output-format json > run.json`), reports, or models that "
        "`peel prune` takes; bounds are on the last, shares are of the first",
        show_default=False,
    ),
]


def _bound(metavar: str, help_: str) -> Any:
    return flag(list[str], help_, "Gate: exit code 1 where one does not hold", metavar=metavar)


BOUNDS: Group = {
    "max_flops": _bound("N|P%", "most multiply-adds for one sample, e.g. 1G; a multiply-add is 1"),
    "max_params": _bound("N|P%", "most parameters, e.g. 5M"),
    "max_size": _bound("BYTES|P%", "largest file, e.g. 10MB or 9.5MiB, data files included"),
    "max_latency": _bound("TIME|P%", "longest inference, e.g. 5ms; measured in onnxruntime, on one thread of this CPU"),
    "min_agreement": _bound("SHARE", "least top-1 agreement with the original, e.g. 0.95 or 95%"),
    "max_drop": _bound(
        "METRIC=N", "how far a metric may fall, e.g. accuracy=0.5 (percentage points) or miou=1.5; repeatable"
    ),
    "against": _bound("FILE", "report, record or model that the last must not fall behind"),
    "max_regress": _bound("P%", "how much worse it may be than --against, e.g. 1%; 0% if not given"),
}
LayersOpt = Annotated[
    int,
    typer.Option(metavar="N", min=0, help="layers in the table; 0 for all", rich_help_panel=OUTPUT),
]
DiffOpt = Annotated[
    bool,
    typer.Option("--diff", help="list every layer that differs between the first and the last", rich_help_panel=OUTPUT),
]
ReportFormatOpt = Annotated[
    ReportFormat | None,
    typer.Option(
        "--output-format",
        help="what is printed on stdout; github: annotations, and the summary of the step",
        rich_help_panel=OUTPUT,
        show_default="text",
    ),
]
ReportOutOpt = Annotated[
    list[Path] | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="write the report: .html, .json, .md, .xml (JUnit) or .txt; in the format of --output-format where that "
        "has this suffix, and then stdout stays empty; repeatable",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]


@takes(BOUNDS, SOURCE)
def report(
    models: ModelsArg,
    *,
    layers: LayersOpt = 12,
    diff: DiffOpt = False,
    out: ReportOutOpt = None,
    output_format: ReportFormatOpt = None,
    config: ConfigOpt = None,
    **flags: Any,
) -> int:
    """Tell what models cost, compare them, and pass or fail by stated bounds.

    Example: peel report before.onnx after.onnx --max-flops 1G
    """
    from peelcli import files, gate, reporting
    from peelcli.report.formats import SUFFIXES
    from peelcli.report.hosts import problems

    read = [*models, *(flags["against"] or ())]
    files.check_targets(out or (), [Path(name) for name in read], SUFFIXES)
    bounds = gate.check_settings(_bounds(flags, config))
    source = {name: flags[name] for name in SOURCE}
    with console.working():
        found = replace(reporting.report(models, bounds, settings.only(source, config)), rows=layers)
    taken = _write(found, out or (), output_format)
    with console.listening():  # the exit code is the gate's, also where nobody reads to the end
        if output_format not in taken:
            _show(found, output_format or "text", diff)
    for bound, told in problems(found):
        console.tell(f"violated: {bound}: {told}")
    return DONE if found.ok else CHECK_FAILED


def _write(found: Report, out: Sequence[Path], wanted: str | None) -> set[str]:
    """Write all files or none; returns their formats."""
    from peelcli import files
    from peelcli.report.formats import FORMATS, of_file

    formats = [of_file(path.suffix, wanted) for path in out]
    texts = [FORMATS[name].render(found) for name in formats]
    with files.staged(out) as temporaries:
        for temporary, text in zip(temporaries, texts, strict=True):
            files.write_bytes(temporary, text.encode(errors="replace"))
    return set(formats)


def _show(found: Report, output_format: str, diff: bool) -> None:
    from peelcli.report.comparison import text
    from peelcli.report.formats import FORMATS

    if output_format == "text":
        console.show(text(found, diff))
        return
    console.show_utf8(FORMATS[output_format].render(found))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if output_format == "github" and summary:
        _append(Path(summary), FORMATS["markdown"].render(found))


def _append(path: Path, text: str) -> None:
    """Add to a file that others write to as well."""
    from peelcli import files

    try:
        with path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError as error:
        raise files.write_error(error, path) from error


def _bounds(flags: dict[str, Any], config: Path | None) -> dict[str, Any]:
    """The flags over the settings file's table."""
    given = {name: _once(name, flags[name]) for name in BOUNDS if flags[name]}
    return {**settings.table("report", config), **given}


def _once(name: str, values: list[str]) -> str | list[str]:
    """A bound that is given twice must be the same both times; drops of several metrics are several bounds."""
    if name == "max_drop":
        return values
    if len(set(values)) > 1:
        flag = f"--{name.replace('_', '-')}"
        raise UsageError(f"{flag} is given as {' and as '.join(values)}", hint=f"give {flag} once")
    return values[0]
