"""What could be done to a model: every group of coupled channels, and the least that can be reached."""

from __future__ import annotations

from typing import Any

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table

from peelcli import units
from peelcli.records import Group
from peelcli.report import layout
from peelcli.report.document import counts
from peelcli.report.layout import gathered, indented, listed, plain, short, spaced
from peelcli.report.text import LABELS, both_counts
from peelcli.results import Inspection


def document(inspection: Inspection) -> dict[str, Any]:
    """An inspection as plain dicts, lists, strings and numbers.

    `share` is the share of the model's MACs in terms that the group's width changes, 0 to 1.
    """
    return {
        "model": {"name": inspection.model, "inputs": list(inspection.inputs)},
        "full": counts(inspection.full),
        "least": counts(inspection.least),
        "groups": [_group(group, share) for group, share in zip(inspection.groups, inspection.shares, strict=True)],
        "uncounted": list(inspection.uncounted),
        "notes": list(inspection.notes),
    }


def _group(group: Group, share: float) -> dict[str, Any]:
    return {
        "name": group.name,
        "layers": list(group.layers),
        "full": group.full,
        "step": group.step,
        "floor": group.floor,
        "share": round(share, 6),
        "prunable": group.locked is None,
        "locked": None if group.locked is None else group.locked.reason,
        "remedy": group.locked.remedy if group.locked and group.locked.remedy else None,
    }


def table(inspection: Inspection) -> RenderableType:
    """An inspection as text, for any width and with or without colour."""
    prunable = sum(group.locked is None for group in inspection.groups)
    head = f"{inspection.model}: {both_counts(inspection.full.macs)}, {prunable} of {len(inspection.groups)} groups"
    inputs = f" with input {'; '.join(inspection.inputs)}" if inspection.inputs else ""
    uncounted = [", ".join(inspection.uncounted)] if inspection.uncounted else []
    rest = [*listed("not counted, no formula is known for", uncounted), *listed("notes", inspection.notes)]
    return spaced(([plain(f"{head} can be pruned{inputs}")], [_groups(inspection)], [_least(inspection)], rest))


def _groups(inspection: Inspection) -> Table:
    made = layout.table("groups", ">width", ">step", ">floor", ">MACs")
    for group, share in zip(inspection.groups, inspection.shares, strict=True):
        numbers = (str(group.full), str(group.step), str(group.floor))
        if group.locked:
            numbers = (str(group.full), "", "locked")
        made.add_row(_described(group), *numbers, short(share))
    return made


def _described(group: Group) -> RenderableType:
    """The group's name; indented below it the other layers, and why it is locked."""
    lines: list[RenderableType] = [plain(group.name)]
    others = [layer for layer in group.layers if layer != group.name]
    if others:
        lines += indented([gathered(others)])
    if group.locked:
        remedy = f"; {group.locked.remedy}" if group.locked.remedy else ""
        lines += indented([f"locked: {group.locked.reason}{remedy}"])
    return Stack(*lines)


def _least(inspection: Inspection) -> Table:
    made = layout.table("per sample", ">original", ">least", ">kept")
    full, least = counts(inspection.full), counts(inspection.least)
    for count, label in LABELS.items():
        share = short(least[count] / full[count]) if full[count] else ""
        made.add_row(label, units.si(full[count]).strip(), units.si(least[count]).strip(), share)
    return made
