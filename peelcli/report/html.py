"""A report as one HTML page that needs nothing else: no network, and no script for what it shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib import resources

from peelcli import units
from peelcli.footprint import Footprint
from peelcli.records import Check, Cut, Run
from peelcli.report import comparison, follows
from peelcli.report.comparison import LayerRow
from peelcli.report.document import counts, used
from peelcli.report.escaping import html as escape
from peelcli.report.layout import percent, short
from peelcli.report.markdown import verdict
from peelcli.report.overview import Report, gaps
from peelcli.report.text import LABELS, RESULTS, headline

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_LENGTH = 1000  # of a bar, in units of its own


def render(report: Report) -> str:
    """The whole page; every word that comes from a model or a file is escaped."""
    run = report.run
    own = run is not None and len(report.models) == 2
    told = headline(run) if run and own else comparison.headline(report.models[-1])
    title = run.plan.model.name if run and own else report.models[-1].name
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="quiet">{escape(told)}</p>',
        *_verdict(report),
        *_cards(report.models),
        *_bounds(report),
        *_models(report),
        *_layers(report.models),
    ]
    if run:
        body += [*_pool(run), *_budget(run), *_fidelity(run), *_checks(run.checks), *_command(run)]
    return _page(f"peel: {title}", [*body, *_notes(report)])


def _page(title: str, body: Iterable[str]) -> str:
    folder = resources.files("peelcli.report")
    style, script = (folder.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    inside = "\n".join(body)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
{inside}
<script>
{script}</script>
</body>
</html>
"""


# --- words and figures ------------------------------------------------------------------------------------------------


def _verdict(report: Report) -> Iterator[str]:
    if report.verdicts or report.failed:
        yield f'<p><span class="verdict {"good" if report.ok else "bad"}">{escape(verdict(report))}</span></p>'


def _cards(models: Sequence[Footprint]) -> Iterator[str]:
    """The last model's figures, and what they were."""
    yield '<div class="cards">'
    for label, values, share in comparison.rows(models):
        if not values[-1]:
            continue
        was = f"{short(share)} of {values[0]}" if share is not None else ""
        yield f'<div class="card">{escape(label)}<b>{escape(values[-1])}</b><span>{escape(was)}</span></div>'
    yield "</div>"


def _models(report: Report) -> Iterator[str]:
    if len(report.models) < 3:
        return  # the cards say it all
    heads = [model.name for model in report.models]
    rows = [[label, *values] for label, values, _ in comparison.rows(report.models)]
    yield from _section("Figures", "For one sample.", _table(["", *heads], rows))


def _bounds(report: Report) -> Iterator[str]:
    rows = [[verdict.bound, "ok" if verdict.ok else "violated", verdict.told] for verdict in report.verdicts]
    if rows:
        yield from _section("Bounds", "", _table(["bound", "result", "measured"], rows, words=3))


def _budget(run: Run) -> Iterator[str]:
    shares, after = used(run), counts(run.after)
    rows = [
        [LABELS[limit.count], f"{limit.bound:,}", f"{after[limit.count]:,}", percent(shares[limit.count] or 0.0)]
        for limit in run.plan.budget
    ]
    if rows:
        yield from _section("Budget", "", _table(["", "at most", "after", "used"], rows))


def _fidelity(run: Run) -> Iterator[str]:
    found = follows.figures(run)
    if found is not None and run.fidelity is not None:
        heads, rows = found
        told = "; ".join([follows.samples(run.fidelity), *run.fidelity.notes])
        yield from _section("Against the original", told, _table(["", *heads], rows))


def _checks(checks: Sequence[Check]) -> Iterator[str]:
    rows = [
        [check.name, RESULTS[check.ok], *(_measured(value) for value in (check.value, check.tolerance)), check.note]
        for check in checks
    ]
    if rows:
        table = _table(["check", "result", "measured", "allowed", "note"], rows, words=2, last_is_words=True)
        yield from _section("Checks", "", table)


def _measured(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _command(run: Run) -> Iterator[str]:
    if run.command:
        yield from _section("To do it again", "", [f"<pre>{escape(run.command)}</pre>"])


def _notes(report: Report) -> Iterator[str]:
    notes = dict.fromkeys(note for model in report.models for note in model.notes)
    told = [*notes, *gaps(report.models)]
    if report.run:
        told += follows.missing(report.run)
    if told:
        yield from _section("Notes", "", ["<ul>", *(f"<li>{escape(note)}</li>" for note in told), "</ul>"])
    version = f"peel {escape(report.run.version)}. " if report.run else ""
    yield f"<footer>{version}A multiply-add counts 1. Figures are for one sample.</footer>"


def _section(title: str, told: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"<section><h2>{escape(title)}</h2>"
    if told:
        yield f'<p class="quiet">{escape(told)}</p>'
    yield from lines
    yield "</section>"


def _table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1, last_is_words: bool = False
) -> Iterator[str]:
    """A table; behind the first `words` columns stand figures, flush right."""

    def kind(column: int) -> str:
        is_words = column < words or (last_is_words and column == len(heads) - 1)
        return "" if is_words else ' class="n"'

    yield '<div class="scroll"><table><thead><tr>'
    yield from (f"<th{kind(column)}>{escape(head)}</th>" for column, head in enumerate(heads))
    yield "</tr></thead><tbody>"
    for row in rows:
        cells = (f"<td{_mark(cell)}{kind(column)}>{escape(cell)}</td>" for column, cell in enumerate(row))
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


def _mark(cell: str) -> str:
    """Results are coloured beside saying so."""
    return {"ok": ' class="good"', "violated": ' class="bad"', RESULTS[False]: ' class="bad"'}.get(cell, "")


# --- bars -------------------------------------------------------------------------------------------------------------


def _layers(models: Sequence[Footprint]) -> Iterator[str]:
    """Where the multiply-adds were and are, in the order of the data flow."""
    first, last = models[0], models[-1]
    order = {layer.name: place for place, layer in enumerate((*last.layers, *first.layers))}
    found = sorted(comparison.layer_rows(first, last), key=lambda row: order[row.name])
    if not found:
        return
    several = len(models) > 1
    largest = max(max(row.macs) for row in found)
    told = "In the order of the model."
    legend = _legend([("b", first.name), ("a", last.name)] if several else [("a", first.name)])
    heads = ["MACs", "after", "kept", "width", "after"] if several else ["MACs", "share", "parameters", "width"]
    hidden = {"width", "parameters"}
    lines = [legend, '<div class="scroll"><table class="sortable"><thead><tr><th>layer</th><th></th>']
    wide = False
    for head in heads:
        wide = wide or head in hidden
        lines.append(f'<th class="n{" wide" if wide else ""}">{head}</th>')
    lines.append("</tr></thead><tbody>")
    for row in found:
        lines.append(_layer(row, largest, several))
    yield from _section("Where the multiply-adds are", told, [*lines, "</tbody></table></div>"])


def _layer(row: LayerRow, largest: int, several: bool) -> str:
    before, after = (value / largest for value in row.macs)
    bars = _svg(row.name, [("b", 0, before, 0, 7), ("a", 0, after, 7, 7)] if several else [("a", 0, before, 2, 10)])
    cells = [_figure(value, units.si(value).strip()) for value in row.macs[: 1 + several]]
    if several:
        kept = row.macs[1] / row.macs[0] if row.macs[0] else None
        cells.append(_figure(kept, "" if kept is None else short(kept)))
    else:
        cells += [_figure(row.share, short(row.share)), _figure(row.params[0], f"{row.params[0]:,}", wide=True)]
    cells += [_figure(width, "" if width is None else str(width), wide=True) for width in row.width[: 1 + several]]
    return f'<tr><td class="name">{_name(row.name)}</td><td class="bars">{bars}</td>{"".join(cells)}</tr>'


def _pool(run: Run) -> Iterator[str]:
    """Widths, and where the run had a pool what each group got of it against its score."""
    cuts = [cut for cut in run.plan.cuts if not cut.group.locked]
    if not cuts:
        return
    base = dict(zip((cut.group.name for cut in run.plan.cuts), run.backbone, strict=False))
    best = max((cut.score for cut in cuts if cut.score == cut.score), default=0.0)
    told = "Every group started from the backbone; the pool went to the groups by their score." if base else ""
    parts = [("a", "backbone"), ("p", "from the pool")] if base else [("a", "kept")]
    parts += [("b", "removed"), ("s", "score, as a share of the largest")]
    heads = ["score", "backbone", "kept", "of"] if base else ["score", "kept", "of"]
    lines = [_legend(parts), '<div class="scroll"><table class="sortable"><thead><tr><th>group</th><th></th>']
    lines += [f'<th class="n{" wide" if head == "backbone" else ""}">{head}</th>' for head in heads]
    lines += ["</tr></thead><tbody>", *(_group(cut, base.get(cut.group.name), best) for cut in cuts)]
    locked = len(run.plan.cuts) - len(cuts)
    told_locked = f"{locked} more {'is' if locked == 1 else 'are'} locked at full width."
    end = f'<p class="quiet">{told_locked}</p>' if locked else ""
    yield from _section("How the pool was shared" if base else "Widths", told, [*lines, "</tbody></table></div>", end])


def _group(cut: Cut, base: float | None, best: float) -> str:
    full = cut.group.full
    start = min(cut.width, base if base is not None else cut.width) / full
    kept = cut.width / full
    widths = [("b", 0.0, 1.0, 0, 9), ("p", 0.0, kept, 0, 9), ("a", 0.0, start, 0, 9)]
    score = [("s", 0.0, max(0.0, cut.score) / best, 11, 3)] if best > 0 and cut.score == cut.score else []
    others = f' <span class="quiet">+{len(cut.group.layers) - 1}</span>' if len(cut.group.layers) > 1 else ""
    figures = [_figure(cut.score, f"{cut.score:.3g}" if cut.score == cut.score else "")]
    figures += [] if base is None else [_figure(base, f"{base:.0f}", wide=True)]
    figures += [_figure(cut.width, str(cut.width)), _figure(full, str(full))]
    name = f'<td class="name">{_name(cut.group.name)}{others}</td>'
    return f'<tr>{name}<td class="bars">{_svg(cut.group.name, widths + score)}</td>{"".join(figures)}</tr>'


def _figure(value: float | None, text: str, wide: bool = False) -> str:
    sorts = "" if value is None or value != value else f' data-v="{value:.9g}"'
    return f'<td class="n{" wide" if wide else ""}"{sorts}>{escape(text)}</td>'


def _svg(name: str, bars: Sequence[tuple[str, float, float, int, int]]) -> str:
    """Bars as (class, start, end, top, height); start and end are shares of the length."""
    drawn = "".join(
        f'<rect class="{kind}" x="{_at(start)}" y="{top}" width="{_at(end - start)}" height="{height}"/>'
        for kind, start, end, top, height in bars
    )
    label = f'role="img" aria-label="{escape(name)}"'
    return f'<svg viewBox="0 0 {_LENGTH} 14" height="14" preserveAspectRatio="none" {label}>{drawn}</svg>'


def _name(path: str) -> str:
    """A layer's name that may be broken behind its dots."""
    return escape(path).replace(".", ".<wbr>")


def _at(share: float) -> str:
    return f"{share * _LENGTH:.1f}"


def _legend(parts: Sequence[tuple[str, str]]) -> str:
    key = '<svg viewBox="0 0 1 1" aria-hidden="true"><rect class="{}" width="1" height="1"/></svg>'
    return f'<p class="legend">{"".join(key.format(kind) + escape(word) for kind, word in parts)}</p>'
