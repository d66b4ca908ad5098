"""Reaching a budget in several rounds of cutting and training: what each round may cost, and the cuts as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from peelcli.errors import PlanError
from peelcli.records import ChannelGraph, Costs, Cut, Limit
from peelcli.regimen import Training


def limits_of(number: int, rounds: int, final: Sequence[Limit], before: Costs) -> tuple[Limit, ...]:
    """The bounds of one round: the share that is left falls by the same factor in each; the last one's are the final.

    Args:
        number: of the round, from 1.
        rounds: how many there are.
        final: the budget.
        before: what the original costs.
    """
    if number == rounds:
        return tuple(final)
    wholes = [getattr(before, limit.count) for limit in final]
    return tuple(
        replace(limit, bound=max(limit.bound, int(whole * (limit.bound / whole) ** (number / rounds))))
        for limit, whole in zip(final, wholes, strict=True)
    )


def training_of(number: int, rounds: int, whole: Training) -> Training:
    """The training of one round: its part of the whole, in a folder of its own."""
    if rounds == 1:
        return whole
    parts: dict[str, object] = {}
    if whole.epochs is not None:
        parts["epochs"] = whole.epochs / rounds
    if whole.steps is not None:
        parts["steps"] = max(1, whole.steps // rounds)
    if whole.checkpoints is not None:
        parts["checkpoints"] = whole.checkpoints / f"round-{number}"
    return whole.model_copy(update=parts)


def legal_as(graph: ChannelGraph, earlier: Sequence[Cut]) -> ChannelGraph:
    """The graph of a slim model, its groups with the legal widths that they had in the original: aligned as planned.

    Args:
        graph: of the slim model.
        earlier: what was cut from the original so far.
    """
    known = {cut.group.name: cut.group for cut in earlier}
    groups = (
        replace(group, step=known[group.name].step, floor=min(known[group.name].floor, group.full))
        if group.name in known
        else group
        for group in graph.groups
    )
    return replace(graph, groups=tuple(groups))


def joined(first: Sequence[Cut], second: Sequence[Cut]) -> tuple[Cut, ...]:
    """Two cuts, one after the other, as one of the original.

    Args:
        first: of the original.
        second: of what the first left; its channels are numbered anew.

    Raises:
        PlanError: the groups of the slim model are not those of the original.
    """
    later = {cut.group.name: cut for cut in second}
    wrong = [c.group.name for c in first if c.group.name not in later or later[c.group.name].group.full != c.width]
    if wrong or len(later) != len(first):
        raise PlanError(
            f"the groups change once the model is cut ({', '.join(wrong[:3]) or 'there are more'}), so that "
            "rounds can't be written as one plan",
            hint="leave --rounds away",
        )
    found = []
    for cut in first:
        then = later[cut.group.name]
        kept = tuple(cut.kept[position] for position in then.kept)
        found.append(Cut(cut.group, len(kept), kept, then.score))
    return tuple(found)
