"""How well the slim model follows the original, and which ways to choose the widths were tried, as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import RenderableType

from peelcli.records import Run
from peelcli.report.layout import figure, indented, short, table
from peelcli.results import Distance, Fidelity

NO_SAMPLES = "no samples: nothing was repaired, accuracy is not known; give --data, or --data synthetic"
_ACCURACY = "accuracy"
Row = tuple[str, str, Callable[[float | None], str]]  # a field of Distance, its label, how it is written


def fidelity(run: Run) -> list[RenderableType]:
    """The original, the model right after surgery and the repaired one, side by side."""
    found = figures(run)
    if found is None or run.fidelity is None:
        return []
    heads, rows = found
    made = table(
        "against the original" + ", synthetic samples" * run.fidelity.synthetic, *(f">{head}" for head in heads)
    )
    for row in rows:
        made.add_row(*row)
    return [made, *indented([samples(run.fidelity), *run.fidelity.notes])]


def figures(run: Run) -> tuple[list[str], list[list[str]]] | None:
    """The same as headings and rows of text; None where there were no samples."""
    found = run.fidelity
    if found is None:
        return None
    columns = [found.cut] if found.repaired is None else [found.cut, found.repaired]
    rows = []
    for name, label, written in rows_of(found.metric, found.original, columns):
        original = found.original if name == "metric" else None
        rows.append([label, written(original), *(written(getattr(column, name)) for column in columns)])
    return ["original", "cut", *(["repaired"] if found.repaired else [])], rows


def samples(found: Fidelity) -> str:
    """What the figures are of."""
    return f"on {said(found.held)} that nothing was fitted on; {said(found.fitted)} for scores and repair"


def candidates(run: Run) -> list[RenderableType]:
    """What each way to choose the widths came to, and which was taken."""
    found = run.fidelity
    distances = [candidate.distance for candidate in run.candidates]
    rows = rows_of(found.metric if found else "", found.original if found else None, distances)
    made = table("widths tried", *(f">{label}" for _, label, _ in rows), "|")
    for candidate in run.candidates:
        figures = (written(getattr(candidate.distance, name)) for name, _, written in rows)
        made.add_row(candidate.name, *figures, "chosen" if candidate.chosen else "")
    return [made] if run.candidates else []


def missing(run: Run) -> list[str]:
    """A word to who gave no samples, where something was cut."""
    cut = any(cut.width < cut.group.full for cut in run.plan.cuts)
    seen = run.fidelity is not None or run.candidates or run.tunings
    return [NO_SAMPLES] if cut and not seen else []


def rows_of(metric: str, original: float | None, columns: Sequence[Distance]) -> list[Row]:
    """The figures that are known of at least one model, each with its label and how it is written."""
    figures = [column.metric for column in columns] + [original]
    name = metric or "metric"
    shares = metric == _ACCURACY and all(value is None or 0 <= value <= 1 for value in figures)
    rows: list[Row] = [
        ("relative", "relative L2", figure),
        ("kl", "KL, nats", figure),
        ("agreement", "top-1 agreement", _percent),
        ("metric", name, _percent if shares else figure),
    ]
    return [row for row in rows if any(getattr(column, row[0]) is not None for column in columns)]


def _percent(share: float | None) -> str:
    return "" if share is None else short(share)


def said(number: int) -> str:
    """A number of samples in words."""
    return f"{number} sample{'' if number == 1 else 's'}"
