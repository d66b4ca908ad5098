"""A report as text: models side by side, the run behind them, where the cost is, and whether the bounds hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType

from peelcli import units
from peelcli.footprint import Footprint
from peelcli.report.layout import Bar, figure, indented, listed, plain, short, spaced, table
from peelcli.report.overview import Difference, Report, differences, gaps
from peelcli.report.text import both_counts, summary

_LONGEST = 20  # characters of a name that heads a column
_Written = Callable[[Any], str]
_ROWS: tuple[tuple[str, str, _Written], ...] = (
    ("macs", "MACs", units.macs),
    ("thop_macs", "MACs as thop counts", units.macs),
    ("params", "parameters", lambda value: units.si(value).strip()),
    ("bytes", "file", units.file_size),
    ("peak_bytes", "activations at most", units.file_size),
    ("latency_ms", "latency", units.milliseconds),
    ("agreement", "top-1 agreement", short),
)


def text(report: Report, diff: bool = False) -> RenderableType:
    """All of a report, for any width and with or without colour.

    Args:
        report: what is told.
        diff: whether to list every layer that differs between the first model and the last one.
    """
    models = report.models
    run = [summary(report.run)] if report.run else []
    alone = report.run is not None and len(models) == 2  # then the run's summary says it all
    figures: list[RenderableType] = [] if alone else _figures(models)
    head = [] if alone else [plain(headline(models[-1]))]
    differing = _differing(report) if diff else []
    return spaced((head, figures, run, _layers(models, report.rows), differing, _bounds(report), _notes(report)))


def headline(model: Footprint) -> str:
    """The last model in one sentence."""
    return f"{model.name}: {both_counts(model.macs)}, {units.si(model.params).strip()} parameters"


def rows(models: Sequence[Footprint]) -> Iterator[tuple[str, list[str], float | None]]:
    """Each figure that is known of some model: label, what to write for each, and the last's share of the first."""
    for name, label, written in _ROWS:
        values = [getattr(model, name) for model in models]
        if any(value is not None for value in values):
            share = values[-1] / values[0] if len(models) > 1 and values[0] and values[-1] is not None else None
            yield label, ["" if value is None else written(value) for value in values], share
    metrics = dict.fromkeys(model.metric for model in models if model.metric)
    for metric in metrics:
        values = [model.metric_value if model.metric == metric else None for model in models]
        yield metric, [figure(value) for value in values], None


def labels(models: Sequence[Footprint]) -> tuple[list[str], list[str]]:
    """What stands above the models' columns, and lines that explain it where the names are too long for that."""
    names = [model.name for model in models]
    if len(set(names)) == len(names) and all(len(name) <= _LONGEST for name in names):
        return names, []
    short_names = [f"#{number}" for number in range(1, len(names) + 1)]
    return short_names, [f"{number}  {name}" for number, name in zip(short_names, names, strict=True)]


def _figures(models: Sequence[Footprint]) -> list[RenderableType]:
    several = len(models) > 1
    heads, legend = labels(models) if several else (["model"], [])
    made = table("|per sample", *(f">{head}" for head in heads), *([">last / first"] if several else []))
    for label, values, share in rows(models):
        made.add_row(label, *values, *([short(share) if share is not None else ""] if several else []))
    return [*map(plain, legend), made]


def _layers(models: Sequence[Footprint], most: int) -> list[RenderableType]:
    """The layers with the most multiply-adds."""
    found = layer_rows(models[0], models[-1])
    shown = found[:most] if most else found
    several = len(models) > 1
    heads = (">MACs", ">last", ">width", ">last") if several else (">MACs", ">width")
    made = table("layers", "|", ">share", *heads)
    for row in shown:
        made.add_row(plain(row.name), Bar(row.share), short(row.share), *cells(row, several))
    rest = len(found) - len(shown)
    more = f"and {rest} more with {short(1 - sum(row.share for row in shown))} of the MACs; --layers 0 shows all"
    return [made, *indented([more] if rest else [])] if found else []


def cells(row: LayerRow, several: bool) -> list[str]:
    """MACs and widths of one layer, of both models where there are several."""
    macs = [units.si(value).strip() for value in row.macs]
    widths = ["" if width is None else str(width) for width in row.width]
    return [*macs, *widths] if several else [macs[0], widths[0]]


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer in the first model and the last one; `share` is of the first model's multiply-adds, 0 to 1."""

    name: str
    share: float
    macs: tuple[int, int]
    params: tuple[int, int]
    width: tuple[int | None, int | None]


def layer_rows(first: Footprint, last: Footprint) -> list[LayerRow]:
    """Layers by their share of the first model's multiply-adds, the largest first; those without any are left out."""
    before, after = ({layer.name: layer for layer in model.layers} for model in (first, last))
    found = []
    for name in dict.fromkeys((*before, *after)):
        a, b = before.get(name), after.get(name)
        macs = (a.macs if a else 0, b.macs if b else 0)
        params = (a.params if a else 0, b.params if b else 0)
        width = (a.width if a else None, b.width if b else None)
        found.append(LayerRow(name, macs[0] / first.macs if first.macs else 0.0, macs, params, width))
    found = [row for row in found if any(row.macs)]
    return sorted(found, key=lambda row: -max(row.macs))


def _differing(report: Report) -> list[RenderableType]:
    found = list(differences(report.models[0], report.models[-1]))
    made = table("layers that differ", ">MACs first", ">last", ">parameters first", ">last")
    for one in found:
        made.add_row(plain(one.name), *_told(one))
    return [made] if found else [plain("every layer has the same MACs and parameters in the first model and the last")]


def _told(one: Difference) -> list[str]:
    return [f"{value:,}" for value in (*one.macs, *one.params)]


def _bounds(report: Report) -> list[RenderableType]:
    made = table("|bounds", "|result", "measured")
    for verdict in report.verdicts:
        made.add_row(verdict.bound, "ok" if verdict.ok else "VIOLATED", plain(verdict.told))
    return [made] if report.verdicts else []


def _notes(report: Report) -> list[RenderableType]:
    models = [model for model in report.models if model.kind in ("onnx", "module")]
    notes = [f"{model.name}: {note}" for model in models for note in model.notes]
    return [*listed("notes", [*notes, *gaps(models)])]
