"""A report as Markdown: for a pull request, or the summary page of a CI job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peelcli.records import Run
from peelcli.report import comparison, follows
from peelcli.report.document import counts, used
from peelcli.report.escaping import markdown as escape
from peelcli.report.escaping import visible
from peelcli.report.layout import percent, short
from peelcli.report.overview import Report, gaps
from peelcli.report.text import LABELS, RESULTS, headline


def render(report: Report) -> str:
    """All of a report; figures first, long tables folded."""
    parts = [*_head(report), *_bounds(report), *_figures(report), *_layers(report)]
    if report.run:
        parts += [*_widths(report.run), *_fidelity(report.run), *_checks(report.run), *_command(report.run)]
    return "\n".join([*parts, *_notes(report)]) + "\n"


def _head(report: Report) -> Iterator[str]:
    told = headline(report.run) if report.run and len(report.models) == 2 else comparison.headline(report.models[-1])
    yield f"### peel: {verdict(report)}"
    yield ""
    yield escape(told)


def verdict(report: Report) -> str:
    """Whether everything holds, in a few words."""
    broken = len(report.violated)
    if report.failed:
        return f"{len(report.failed)} check{'s' if len(report.failed) > 1 else ''} did not hold"
    if broken:
        return f"{broken} of {len(report.verdicts)} bounds violated"
    if not report.verdicts:
        return "report"
    return "the bound holds" if len(report.verdicts) == 1 else f"all {len(report.verdicts)} bounds hold"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> Iterator[str]:
    """A table; behind the first `words` columns stand figures, flush right."""
    yield ""
    yield f"| {' | '.join(map(escape, heads))} |"
    yield f"|{'|'.join('---' if column < words else '---:' for column in range(len(heads)))}|"
    for row in rows:
        yield f"| {' | '.join(map(escape, row))} |"


def _folded(summary: str, lines: Iterator[str]) -> Iterator[str]:
    yield from ("", f"<details><summary>{summary}</summary>", *lines, "", "</details>")


def _bounds(report: Report) -> Iterator[str]:
    rows = [["✅" if one.ok else "❌", one.bound, one.told] for one in report.verdicts]
    if rows:
        yield from _table(["", "bound", "measured"], rows, words=3)


def _figures(report: Report) -> Iterator[str]:
    several = len(report.models) > 1
    heads = [model.name for model in report.models] if several else [report.models[0].name]
    rows = [
        [label, *values, *([short(share) if share is not None else ""] if several else [])]
        for label, values, share in comparison.rows(report.models)
    ]
    yield from _table(["per sample", *heads, *(["last / first"] if several else [])], rows)


def _layers(report: Report) -> Iterator[str]:
    found = comparison.layer_rows(report.models[0], report.models[-1])
    shown = found[: report.rows] if report.rows else found
    if not shown:
        return
    several = len(report.models) > 1
    heads = ["MACs", "last", "width", "last"] if several else ["MACs", "width"]
    rows = [[row.name, short(row.share), *comparison.cells(row, several)] for row in shown]
    title = f"Layers ({len(shown)} of {len(found)} with the most multiply-adds)"
    yield from _folded(title, _table(["layer", "share", *heads], rows))


def _widths(run: Run) -> Iterator[str]:
    rows = [
        [
            cut.group.name,
            str(cut.group.full),
            str(cut.width),
            "locked" if cut.group.locked else short(cut.width / cut.group.full),
        ]
        for cut in run.plan.cuts
    ]
    if rows:
        yield from _folded("Widths before and after", _table(["group", "before", "after", "kept"], rows))
    shares, after = used(run), counts(run.after)
    limits = [
        [LABELS[limit.count], f"{limit.bound:,}", f"{after[limit.count]:,}", percent(shares[limit.count] or 0.0)]
        for limit in run.plan.budget
    ]
    if limits:
        yield from _table(["budget", "at most", "after", "used"], limits)


def _fidelity(run: Run) -> Iterator[str]:
    found = follows.figures(run)
    if found is None:
        return
    heads, rows = found
    yield from _table(["against the original", *heads], rows)


def _checks(run: Run) -> Iterator[str]:
    rows = [
        [check.name, RESULTS[check.ok], *_measured(check.value, check.tolerance), check.note] for check in run.checks
    ]
    if rows:
        yield from _folded("Checks", _table(["check", "result", "measured", "allowed", "note"], rows, words=2))


def _measured(*values: float | None) -> list[str]:
    return ["" if value is None else f"{value:.3g}" for value in values]


def _command(run: Run) -> Iterator[str]:
    if run.command:
        fence = "`" * (3 + run.command.count("```"))
        yield from ("", fence, *visible(run.command).splitlines(), fence)


def _notes(report: Report) -> Iterator[str]:
    notes = dict.fromkeys(note for model in report.models for note in model.notes)
    told = [*notes, *gaps(report.models)]
    if told:
        yield ""
    yield from (f"- {escape(note)}" for note in told)
