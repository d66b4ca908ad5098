"""What `peel report` looks at: models, ONNX files and records become figures; torch loads only for some of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from peelcli import gate, inputtext
from peelcli.config import Source, check_names, pick
from peelcli.errors import SourceError, UsageError
from peelcli.footprint import Footprint
from peelcli.gate import Bounds
from peelcli.records import Run
from peelcli.report import overview, record
from peelcli.report.overview import Report
from peelcli.sources.sniff import Kind, sniff


def report(models: Sequence[str], bounds: Bounds | None = None, settings: Mapping[str, Any] | None = None) -> Report:
    """Look at models and judge the last one.

    Args:
        models: paths of ONNX files, of records of runs, of reports, of model files, or names of models.
        bounds: what must hold for the last.
        settings: the fields of `peelcli.config.Source`, for models that are loaded and for sizes that files leave open.

    Raises:
        PeelError: a model can't be read, or a bound is on a figure that is not known.
    """
    settings = settings or {}
    bounds = bounds or gate.check_settings({})
    check_names(settings)
    if not models:
        raise UsageError("there is nothing to report on", hint="peel report slim.onnx")
    found: list[Footprint] = []
    run = None
    for model in models:
        its, of_run = look(model, settings)
        found += its
        run = of_run or run
    if bounds.max_latency is not None:
        _time(found, models, bounds.max_latency.percent, settings)
    baseline = None if bounds.against is None else look(bounds.against, settings)[0][-1]
    return Report(tuple(found), run, baseline, gate.judge(bounds, found, baseline), models[-1])


def look(model: str, settings: Mapping[str, Any]) -> tuple[tuple[Footprint, ...], Run | None]:
    """What is known of one argument: one model, or the sides of a run, or the models of a report.

    Raises:
        PeelError: it can't be read.
    """
    path = Path(model)
    if _is_json(path):
        return _from_json(path)
    if (path.is_file() or path.suffix.lower() == ".onnx") and sniff(path) is Kind.ONNX:
        from peelcli.onnxcost.count import count  # onnx loads here

        given = [inputtext.parse(text) for text in pick(Source, settings).input]
        return (count(path, given),), None
    return (_loaded(model, settings),), None


def _time(found: list[Footprint], models: Sequence[str], first_too: bool, settings: Mapping[str, Any]) -> None:
    """Measure the latency of the last model, and of the first where it is compared with that; ONNX files only."""
    from peelcli.latency import measure  # onnxruntime loads here

    given = pick(Source, settings).input
    for place in {-1, *((0,) if first_too else ())}:
        if found[place].kind == "onnx" and found[place].latency_ms is None:
            latency = measure(models[place], given=given)
            note = f"latency is the median of {latency.calls} calls in onnxruntime, on one CPU thread of this machine"
            found[place] = replace(found[place], latency_ms=1000 * latency.median, notes=(*found[place].notes, note))


def _is_json(path: Path) -> bool:
    """By its suffix, or by how it opens."""
    if path.suffix.lower() == ".json":
        return True
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                return file.read(64).lstrip().startswith(b"{")
    return False


def _from_json(path: Path) -> tuple[tuple[Footprint, ...], Run | None]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file", hint="check the path") from None
    except OSError as error:
        raise SourceError(f"{path} can't be read: {error.strerror}", hint="check the file's permissions") from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise SourceError(f"{path} is damaged: it is no JSON ({error})", hint="write the file again") from None
    if not isinstance(data, dict):
        raise SourceError(f"{path} is neither a record of a run nor a report", hint="see `peel report --help`")
    if "peel_report" in data:
        return overview.parse(data, path.name), None
    if "peel_plan" in data:
        raise SourceError(f"{path} is a plan, not a record of a run", hint=f"carry it out: peel apply MODEL {path}")
    run = record.parse(data, path.name)
    return overview.sides(run), run


def _loaded(model: str, settings: Mapping[str, Any]) -> Footprint:
    """A model that torch has to load."""
    from peelcli import pipeline

    found = pipeline.footprint(model, **settings)
    path = Path(model)
    return replace(found, bytes=path.stat().st_size) if path.is_file() else found
