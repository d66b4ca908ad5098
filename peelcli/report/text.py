"""A run as text for people: what it was, what it is, whether the budget holds, what was proven."""

from __future__ import annotations

from collections import defaultdict

from rich.console import RenderableType
from rich.table import Table

from peelcli import units
from peelcli.records import Check, Cut, Run
from peelcli.report import follows, pace, tuning
from peelcli.report.document import counts, used
from peelcli.report.layout import Bar, indented, listed, percent, plain, short, spaced, table

LABELS = {"macs": "MACs", "thop_macs": "MACs as thop counts", "params": "parameters"}
RESULTS = {True: "ok", False: "FAILED", None: "not comparable"}


def summary(run: Run) -> RenderableType:
    """All of a run, for any width and with or without colour."""
    tables = (
        [_counts(run)],
        _budget(run),
        pace.text(run.pace),
        _widths(run),
        follows.candidates(run),
        follows.fidelity(run),
        tuning.tables(run),
        _checks(run),
    )
    return spaced(([plain(headline(run))], *tables, _rest(run)))


def headline(run: Run) -> str:
    """The result in one sentence."""
    kept = run.after.macs / run.plan.before.macs if run.plan.before.macs else 1.0
    return f"{run.plan.model.name}: {both_counts(run.after.macs)}, {short(kept)} of the original"


def both_counts(macs: int) -> str:
    """Multiply-adds in both habits: "1.00 GMACs (2.00 GFLOPs if a multiply-add counts twice)"."""
    return f"{units.macs(macs)} ({units.si(2 * macs)}FLOPs if a multiply-add counts twice)"


def _counts(run: Run) -> Table:
    made = table("per sample", ">before", ">after", ">kept")
    before, after = counts(run.plan.before), counts(run.after)
    rows = [("macs", 1, LABELS["macs"], "MACs"), ("macs", 2, "FLOPs, a multiply-add counted twice", "FLOPs")]
    rows += [("thop_macs", 1, LABELS["thop_macs"], "MACs"), ("params", 1, LABELS["params"], "")]
    for count, factor, label, unit in rows:
        figures = [(units.si(factor * value[count]) + unit).strip() for value in (before, after)]
        made.add_row(label, *figures, short(after[count] / before[count]) if before[count] else "")
    for artifact in run.artifacts:
        if artifact.kind == "onnx" and artifact.bytes:
            made.add_row("ONNX file", "", units.file_size(artifact.bytes), "")
    return made


def _budget(run: Run) -> list[RenderableType]:
    shares, after = used(run), counts(run.after)
    made = table("budget", ">at most", ">after", ">used")
    for limit in run.plan.budget:
        share = shares[limit.count] or 0.0
        made.add_row(LABELS[limit.count], f"{limit.bound:,}", f"{after[limit.count]:,}", percent(share))
    return [made] if run.plan.budget else []


def _widths(run: Run) -> list[RenderableType]:
    made = table("widths", "|", ">kept", ">of", ">")
    locked: dict[str, list[str]] = defaultdict(list)
    for cut in run.plan.cuts:
        group = cut.group
        if group.locked:
            locked[group.locked.reason].append(group.name)
        share = cut.width / group.full
        mark = "locked" if group.locked else short(share)
        made.add_row(plain(_named(cut)), Bar(share), str(cut.width), str(group.full), mark)
    reasons = [f"{', '.join(names)}: {reason}" for reason, names in locked.items()]
    return [made, *listed("locked", reasons)] if run.plan.cuts else []


def _named(cut: Cut) -> str:
    """The group's name, and how many more layers have its width."""
    others = len(cut.group.layers) - 1
    return f"{cut.group.name} (+{others})" if others > 0 else cut.group.name


def _checks(run: Run) -> list[RenderableType]:
    made = table("|checks", "|result", ">measured", ">allowed")
    for check in run.checks:
        made.add_row(check.name, RESULTS[check.ok], *_figures(check))
    notes = [f"{check.name}: {check.note}" for check in run.checks if check.note]
    return [made, *indented(notes)] if run.checks else []


def _figures(check: Check) -> tuple[str, str]:
    value = "" if check.value is None else f"{check.value:.6g}"
    return value, "" if check.tolerance is None else f"{check.tolerance:.6g}"


def _rest(run: Run) -> list[RenderableType]:
    outputs = [f"{a.path} ({units.file_size(a.bytes)})" if a.bytes else a.path for a in run.artifacts]
    uncounted = [", ".join(run.uncounted)] if run.uncounted else []
    stages = [f"{stage} {seconds:.1f} s" for stage, seconds in run.seconds.items()]
    stages = [", ".join([*stages, f"in all {sum(run.seconds.values()):.1f} s"])] if stages else []
    return [
        *listed("notes", [*run.notes, *follows.missing(run)]),
        *listed("not counted, no formula is known for", uncounted),
        *listed("time", stages),
        *listed("written", outputs),
    ]
