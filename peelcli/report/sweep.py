"""A sweep as text and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType

from peelcli import units
from peelcli.points import Point, Sweep
from peelcli.report import bench
from peelcli.report.document import check_document, counts, fidelity_document
from peelcli.report.layout import figure, listed, plain, short, spaced, table
from peelcli.report.numbers import distance_document
from peelcli.report.text import both_counts
from peelcli.results import Distance
from peelcli.timings import Bench, Ratio

NO_CURVE = "no samples: how much is left at each point is not known; give --data"


def document(sweep: Sweep) -> dict[str, Any]:
    """A sweep as plain dicts, lists, strings and numbers.

    `knee` is the budget of the knee, null where none stands out. A point that can't be had has `failed` and no counts.
    """
    return {
        "peel": sweep.version,
        "model": {**asdict(sweep.model), "inputs": list(sweep.inputs)},
        "before": counts(sweep.before),
        "varied": sweep.budget,
        "knee": None if sweep.knee is None else sweep.points[sweep.knee].budget,
        "points": [_point(sweep, point) for point in sweep.points],
        "candidates": [
            {"name": each.name, "chosen": each.chosen, "distance": distance_document(each.distance)}
            for each in sweep.candidates
        ],
        "proof": None if sweep.proof is None else check_document(sweep.proof),
        "benches": bench.document(sweep.bench)["benches"],
        "found": sweep.found,
        "notes": list(sweep.notes),
        "seconds": round(sweep.seconds, 3),
    }


def _point(sweep: Sweep, point: Point) -> dict[str, Any]:
    ratio = ratio_of(sweep.bench, point)
    return {
        "budget": point.budget,
        "failed": point.failed or None,
        "after": None if point.after is None else counts(point.after),
        "plan": point.plan or None,
        "onnx": point.onnx or None,
        "checks": [check_document(check) for check in point.checks],
        "fidelity": None if point.fidelity is None else fidelity_document(point.fidelity),
        "latency": None if ratio is None else bench.ratio_document(ratio),
        "notes": list(point.notes),
        "seconds": round(point.seconds, 3),
    }


def ratio_of(benches: tuple[Bench, ...], point: Point) -> Ratio | None:
    """The time of a point over that of the original; None where it was not measured."""
    files = (timed for each in benches for timed in each.files)
    return next((t.ratio for t in files if point.onnx and t.path.replace("\\", "/").endswith("/" + point.onnx)), None)


def text(sweep: Sweep, folder: str) -> RenderableType:
    """A sweep for people.

    Args:
        sweep: what was found.
        folder: where its files are.
    """
    head = plain(f"{sweep.model.name}: {both_counts(sweep.before.macs)}, {len(sweep.points)} budgets")
    failed = [f"{point.budget}: {point.failed}" for point in sweep.points if point.failed]
    reasons = [
        line for each in sweep.bench for timed in each.files[1:] for line in bench.sentences(timed, each.files[0])
    ]
    rest = [
        *listed("not reached", failed),
        *listed("latency", reasons),
        *listed("notes", [*_knee(sweep), *_chosen(sweep), *sweep.notes, *_found(sweep)]),
        *listed(
            "written", [f"{folder}: a plan for each point; carry one out with `peel apply MODEL PLAN --out slim.onnx`"]
        ),
    ]
    return spaced(([head], [_table(sweep)], rest))


def _table(sweep: Sweep) -> RenderableType:
    figures = _figures(sweep)
    timed = bool(sweep.bench)
    columns = [f">{sweep.budget}", ">MACs", ">", ">parameters", ">", *(f">{label}" for label, _, _ in figures)]
    made = table(*columns, *([">time", ">interval"] if timed else []), "|")
    for position, point in enumerate(sweep.points):
        if point.after is None:
            made.add_row(point.budget, "not reached")
            continue
        cells = [point.budget, units.si(point.after.macs).strip(), _share(point.after.macs, sweep.before.macs)]
        cells += [units.si(point.after.params).strip(), _share(point.after.params, sweep.before.params)]
        cells += [written(getattr(_kept(point), name, None)) for _, name, written in figures]
        ratio = ratio_of(sweep.bench, point)
        cells += ([short(ratio.value), bench.interval(ratio)] if ratio else ["", ""]) if timed else []
        made.add_row(*cells, "knee" if position == sweep.knee else "")
    return made


def _figures(sweep: Sweep) -> list[tuple[str, str, Callable[[float | None], str]]]:
    """What is known of how much is left: heading, field of Distance, how it is written."""
    metric = next((point.fidelity.metric for point in sweep.points if point.fidelity), "")
    figures: list[tuple[str, str, Callable[[float | None], str]]] = [
        ("top-1", "agreement", lambda value: "" if value is None else short(value)),
        ("L2", "relative", figure),
        (metric or "metric", "metric", figure),
    ]
    kept = [_kept(point) for point in sweep.points]
    return [row for row in figures if any(getattr(distance, row[1], None) is not None for distance in kept)]


def _kept(point: Point) -> Distance | None:
    """The slim model as it is kept: repaired, where that helped."""
    return None if point.fidelity is None else point.fidelity.repaired or point.fidelity.cut


def _share(after: int, before: int) -> str:
    return short(after / before) if before else ""


def _knee(sweep: Sweep) -> list[str]:
    if sweep.knee is not None:
        return [f"the knee is at {sweep.points[sweep.knee].budget}: below it the model loses more for each saving"]
    if not any(point.fidelity for point in sweep.points):
        return [NO_CURVE]
    return ["no knee stands out"]


def _chosen(sweep: Sweep) -> list[str]:
    chosen = [each.name for each in sweep.candidates if each.chosen]
    return [f"allocation: {chosen[0]}, chosen on samples at the middle budget for the whole curve"] if chosen else []


def _found(sweep: Sweep) -> list[str]:
    return [f"{sweep.found} of {len(sweep.points)} points were there from a run before"] if sweep.found else []
