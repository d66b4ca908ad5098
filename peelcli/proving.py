"""The proofs that every run makes of a slim model, and the search for the groups that break one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from peelcli.graph import count
from peelcli.graph.rehearsal import rehearse
from peelcli.records import Check, Costs, Cut, Limit, Subject
from peelcli.surgery import verify
from peelcli.surgery.faulty_groups import faulty_groups
from peelcli.surgery.prune import apply_cuts

COUNTS = ("macs", "params", "thop_macs")
SEARCH_SECONDS = 20.0  # for finding the groups that break one proof


def counted(subject: Subject, slim: nn.Module) -> Costs:
    """What the slim model costs by independent counters, for one sample of the subject's input."""
    return rehearse(slim, subject.inputs, count.count_all, whole=subject.module)[1]


def prediction_checks(predicted: Costs, after: Costs) -> tuple[Check, ...]:
    """Predicted equals counted, to the last unit.

    thop's count may hold parts that no formula here has; where it differs it is reported, not passed, and the budget
    is checked against what thop really counts.
    """
    checks = []
    for name in COUNTS:
        gap = abs(getattr(after, name) - getattr(predicted, name))
        exact = gap == 0
        ok = None if name == "thop_macs" and not exact else exact
        note = "" if exact else f"predicted {getattr(predicted, name)}, counted {getattr(after, name)}"
        checks.append(Check(f"predicted_{name}", ok, float(gap), 0.0, note))
    return tuple(checks)


def budget_checks(after: Costs, limits: Sequence[Limit]) -> tuple[Check, ...]:
    """Each limit against the counted cost; the value is the share of the limit that is used."""
    uses = [(limit.count, getattr(after, limit.count) / limit.bound) for limit in limits]
    return tuple(Check(f"budget_{name}", used <= 1.0, used, 1.0) for name, used in uses)


def broken_groups(
    subject: Subject, cuts: Sequence[Cut], predict: Callable[[Sequence[Cut]], Costs], seed: int
) -> tuple[str, ...]:
    """Names of the groups that make the slim model fail to run, cost something else, or compute something else.

    First on shapes alone, which is quick, then by computing. Where only the whole fails, all groups are named.

    Args:
        subject: the original.
        cuts: a set that fails.
        predict: what the model must cost when just some of the cuts are made.
        seed: of the random inputs.
    """

    def runs(some: Sequence[Cut]) -> bool:
        try:
            after = counted(subject, apply_cuts(subject.module, some))
        except Exception:  # whatever a forward raises when its shapes don't fit
            return False
        wanted = predict(some)
        return (after.macs, after.params) == (wanted.macs, wanted.params)

    def equal(some: Sequence[Cut]) -> bool:
        return verify.equivalence(subject, apply_cuts(subject.module, some), some, seed).ok is not False

    return faulty_groups(cuts, runs, SEARCH_SECONDS) or faulty_groups(cuts, equal, SEARCH_SECONDS)
