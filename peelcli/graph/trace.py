"""From a model to its ChannelGraph: groups of coupled channels with their slices, and the cost polynomials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from peelcli.errors import PeelError, TraceError
from peelcli.graph.count import Charges, record_ops, thop_by_layer
from peelcli.graph.labels.costs import CostMaker
from peelcli.graph.labels.groups import GroupMaker
from peelcli.graph.labels.trace import SECONDS, find_units
from peelcli.graph.legal import Legality
from peelcli.graph.rehearsal import Rehearsal, rehearse
from peelcli.records import ChannelGraph, CostModel, Group, Locked, Subject

Found = tuple[tuple[Group, ...], CostModel, tuple[str, ...]]


def trace(subject: Subject, legality: Legality, ignore: Sequence[str] = (), tracer: str = "auto") -> ChannelGraph:
    """Find the groups of coupled channels of a model and its closed-form cost.

    Args:
        subject: the model; it is not changed, nor run: a copy without memory is.
        legality: the user's wishes on widths.
        ignore: glob patterns of layers whose output width must not change.
        tracer: "labels" for the exact pass, "depgraph" for torch-pruning's graph, "auto" for the first and, where it
            fails, the second.

    Raises:
        TraceError: the model can't be followed.
        UsageError: a pattern in `ignore` that matches no layer.
    """
    try:
        rehearsal, log = rehearse(subject.module, subject.inputs, record_ops)
    except Exception as error:  # whatever a user's forward raises
        raise TraceError(f"the model does not run on its example: {type(error).__name__}: {error}") from error
    charges = rehearsal.perform(subject.module, thop_by_layer)
    fallback = ""
    groups: tuple[Group, ...]
    if tracer != "depgraph":
        try:
            groups, model, notes = _by_labels(subject, rehearsal, legality, ignore, charges)
        except PeelError:
            raise
        except TimeoutError as error:
            raise TraceError(
                f"the model could not be traced within {SECONDS:.0f} s",
                hint="give a smaller input with --input, e.g. fewer tokens or a smaller image",
            ) from error
        except Exception as error:  # a rule that meets what it was not made for
            if tracer == "labels":
                raise TraceError(f"the label pass failed: {type(error).__name__}: {error}") from error
            fallback = f"traced by torch-pruning: the label pass failed ({type(error).__name__}: {error})"[:300]
    if tracer == "depgraph" or fallback:
        from peelcli.graph import components, depgraph  # torch-pruning takes seconds to load, and is seldom wanted

        found = rehearsal.perform(subject.module, depgraph.find_components)
        layers = rehearsal.copy(subject.module)
        groups, model, notes = components.groups_and_cost(found, layers, legality, ignore, log, charges)
    more = tuple(note for note in (fallback, rehearsal.note) if note)
    return ChannelGraph(groups, model, uncounted=tuple(sorted(log.uncounted)), notes=(*notes, *more))


def _by_labels(
    subject: Subject, rehearsal: Rehearsal, legality: Legality, ignore: Sequence[str], charges: Charges
) -> Found:
    """Groups and cost from the exact pass."""
    resolved = rehearsal.perform(subject.module, find_units)
    layers = rehearsal.copy(subject.module)
    groups = GroupMaker(resolved, layers, legality).groups(ignore)
    model, notes = CostMaker(resolved, groups).model(layers, charges)
    return groups, model, notes


def lock(graph: ChannelGraph, names: Sequence[str], reason: Locked) -> ChannelGraph:
    """The same graph with some groups locked at their full width."""
    groups = tuple(replace(g, locked=g.locked or reason) if g.name in names else g for g in graph.groups)
    return replace(graph, groups=groups)
