"""Cutting small networks at several widths, each cut proven and its cost counted."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import nn

from peelcli import proving
from peelcli.graph import cost
from peelcli.records import ChannelGraph, Costs, Group, Subject, Widths
from peelcli.surgery import verify
from peelcli.surgery.prune import apply_cuts
from tests.support import zoo
from tests.support.parts import Lambda

SEEDS = (1, 2)


def seeded(function: Any, *inputs: torch.Tensor, **children: nn.Module) -> Subject:
    """A network from a function of itself and its inputs."""
    return Subject(Lambda(function, **children).eval(), inputs, "net")


def widths_above_the_least(graph: ChannelGraph, seed: int) -> Widths:
    """A legal width for each group; a norm over one channel would hide what comes in."""
    rng = random.Random(seed)
    return tuple(rng.choice(legal[1:] or legal) for legal in (group.legal_widths() for group in graph.groups))


def graph_proven(subject: Subject, counts: tuple[str, ...] = ("macs", "params", "thop_macs")) -> ChannelGraph:
    """The graph of a network, after cuts at random widths: all right at round-off, and their costs as predicted."""
    graph = zoo.graph_of(subject)

    def some(costs: Costs) -> dict[str, int]:
        return {count: getattr(costs, count) for count in counts}

    assert some(cost.costs(graph.cost, graph.full)) == some(proving.counted(subject, subject.module))
    for seed in SEEDS:
        widths = widths_above_the_least(graph, seed)
        cuts = zoo.cuts_at(graph, widths, seed)
        slim = apply_cuts(subject.module, cuts)
        check = verify.equivalence(subject, slim, cuts)
        assert check.ok is True, f"widths {widths}: {check}"
        assert some(cost.costs(graph.cost, widths)) == some(proving.counted(subject, slim)), f"widths {widths}"
    return graph


def groups_proven(subject: Subject, **which: tuple[str, ...]) -> dict[str, Group]:
    """Its groups by name, after the same proofs."""
    return {group.name: group for group in graph_proven(subject, **which).groups}


def reason_of(subject: Subject, group: str) -> str:
    """Why a group is locked; the rest of the network is proven."""
    locked = groups_proven(subject)[group].locked
    assert locked is not None
    return locked.reason
