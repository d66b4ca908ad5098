"""What samples are good for beside scores: the choice among several plans, repair, and what both come to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from peelcli import synthetic
from peelcli.allocation.allocate import TRIED, allocate
from peelcli.config import Options
from peelcli.evidence import Evidence, Kept
from peelcli.records import ChannelGraph, Cut, Limit, Scores, Widths
from peelcli.results import Candidate, Distance, Fidelity
from peelcli.samples import Samples, spread
from peelcli.scoring import moments
from peelcli.scoring.surgeon import shrunk
from peelcli.surgery.basis import Basis, Sight
from peelcli.surgery.batchnorm import has_statistics, reestimated
from peelcli.surgery.prune import apply_cuts
from peelcli.surgery.repair import Repaired, repair
from peelcli.tensors import full_copy

Progress = Callable[[int, int], None]
_TRIAL_MACS = 80_000_000_000  # multiply-adds of the samples that one candidate is repaired on; the chosen one gets all
_TRIAL_SAMPLES = 48  # at least
_SIGHT_SAMPLES = 128  # on which linear streams are looked at


@dataclass(frozen=True)
class Choice:
    """One way to set the widths.

    Attributes:
        name: for the table.
        options: as the plan will hold them: what allocates these widths again.
    """

    name: str
    options: Options
    widths: Widths


def choices(graph: ChannelGraph, scores: Scores, limits: Sequence[Limit], options: Options) -> list[Choice]:
    """What `--allocate auto` tries, equal widths once; the first of them is peel."""
    found: dict[Widths, Choice] = {}
    for name, method, part in TRIED:
        its = options.model_copy(update={"allocate": method, "tau": part * options.tau})
        widths = allocate(graph, scores, limits, method, its.pool, its.tau)
        found.setdefault(widths, Choice(name, its, widths))
    return list(found.values())


def choose(
    evidence: Evidence,
    tried: Sequence[Choice],
    cuts_of: Callable[[Widths], tuple[Cut, ...]],
    macs: int,
    progress: Progress | None = None,
) -> tuple[Choice, tuple[Candidate, ...]]:
    """Cut and repair each candidate, and take the one that is nearest to the original on held-out samples.

    Args:
        evidence: samples and judge.
        tried: the candidates; of equal ones the first is taken.
        cuts_of: which channels go at given widths.
        macs: of the original for one sample: large models are tried on fewer samples.
        progress: told (candidates done, candidates in all).
    """
    few = min(len(evidence.fit), max(_TRIAL_SAMPLES, _TRIAL_MACS // max(macs, 1)))
    fit = evidence.fit.some(spread(len(evidence.fit), few))
    distances: list[Distance] = []
    for number, choice in enumerate(tried):
        cuts = cuts_of(choice.widths)
        slim, done = _repaired(evidence, cuts, fit)
        distance = evidence.judge.distance(slim)
        if few == len(evidence.fit) and all(figure(distance) < figure(other) for other in distances):
            evidence.spare.clear()
            evidence.spare[_kept(cuts)] = slim, done
        distances.append(distance)
        if progress:
            progress(number + 1, len(tried))
    best = min(range(len(tried)), key=lambda k: (figure(distances[k]), k))
    table = tuple(Candidate(c.name, d, k == best) for k, (c, d) in enumerate(zip(tried, distances, strict=True)))
    return tried[best], table


def figure(distance: Distance) -> float:
    """What decides between models: KL divergence where there is one, else the relative distance; less is better."""
    value = distance.relative if distance.kl is None else distance.kl
    return math.inf if math.isnan(value) else value


def mended(
    evidence: Evidence, slim: nn.Module, cuts: Sequence[Cut], progress: Progress | None = None
) -> tuple[nn.Module, Fidelity]:
    """The slim model repaired, as far as that helps on held-out samples, and how it compares with the original.

    Args:
        evidence: samples and judge.
        slim: as it was cut; it is not changed.
        cuts: what was removed.
        progress: told (layers done, layers in all).

    Returns:
        The best of three, and the record: the model as it was cut, repaired, and that with BatchNorm statistics anew.
        Of equally near ones the one that was changed less.
    """
    judge = evidence.judge
    work = apply_cuts(evidence.subject.module, cuts) if evidence.synthetic else slim
    cut = judge.distance(work)
    fidelity = Fidelity(
        len(evidence.fit), judge.held, cut, None, judge.metric_name, judge.original, evidence.notes, evidence.synthetic
    )
    if not evidence.repairs or all(cut.width == cut.group.full for cut in cuts):
        return slim, fidelity
    if _kept(cuts) in evidence.spare:
        copy, done = evidence.spare.pop(_kept(cuts))
    else:
        copy, done = _repaired(evidence, cuts, evidence.fit, progress)
    tried = [(cut, work, "none, because what was tried was no nearer to the original on held-out samples")]
    tried.append((judge.distance(copy), copy, ""))
    if has_statistics(copy) and not evidence.synthetic:
        anew = reestimated(copy, evidence.fit)
        tried.append((judge.distance(anew), anew, "BatchNorm statistics taken anew"))
    distance, best, what = min(tried, key=lambda row: figure(row[0]))
    changes = (*_turned(evidence, cuts), *done.notes()) if best is not work else ()
    notes = (*evidence.notes, *changes, *([f"repair: {what}"] if what else []))
    if best is work:
        return slim, replace(fidelity, notes=notes)
    home = next((p.device for p in slim.parameters()), torch.device("cpu"))
    return _brought_home(slim, work, best, evidence.synthetic).to(home), replace(
        fidelity, repaired=distance, notes=notes
    )


def _repaired(
    evidence: Evidence, cuts: Sequence[Cut], fit: Samples, progress: Progress | None = None
) -> tuple[nn.Module, Repaired]:
    """The subject cut, repaired on some samples if that is wanted, and what was done."""
    original = _original(evidence, cuts)
    slim = apply_cuts(original, cuts)
    return slim, repair(original, slim, cuts, fit, evidence.seed, progress) if evidence.repairs else Repaired()


def _kept(cuts: Sequence[Cut]) -> Kept:
    return tuple(cut.kept for cut in cuts)


def _basis(evidence: Evidence, cuts: Sequence[Cut]) -> Basis | None:
    """Of the linear streams, looked for once; None where they stay as they are."""
    if not evidence.turns:
        return None
    groups = tuple(cut.group.name for cut in cuts)
    if groups not in evidence.bases:
        evidence.bases[groups] = Basis(evidence.subject.module, cuts, evidence.fit, partial(_sights, evidence))
    return evidence.bases[groups]


def _sights(evidence: Evidence, weights: set[str]) -> dict[str, Sight]:
    """What samples show of weights that read streams; not of those with so many inputs that only rows are kept."""
    some = evidence.fit.some(range(min(len(evidence.fit), _SIGHT_SAMPLES)))
    found = moments.measure(evidence.subject, some, weights, evidence.seed)
    return {
        name: Sight(shrunk(its.covariance(), len(some))[0], its.weighted()[0])
        for name, its in found.items()
        if its.sensitivity is not None and not its.rows
    }


def _original(evidence: Evidence, cuts: Sequence[Cut]) -> nn.Module:
    """What repair cuts and aims at: the subject, its linear streams turned for these cuts."""
    basis = _basis(evidence, cuts)
    return basis.turned(cuts) if basis else evidence.subject.module


def _turned(evidence: Evidence, cuts: Sequence[Cut]) -> tuple[str, ...]:
    """For the report."""
    basis = _basis(evidence, cuts)
    narrower = {cut.group.name for cut in cuts if cut.width < cut.group.full}
    count = len(narrower.intersection(basis.streams)) if basis else 0
    what = "linear stream" if count == 1 else "linear streams"
    return (f"repair: {count} {what} turned, so that the kept channels carry the most",) if count else ()


def _brought_home(slim: nn.Module, work: nn.Module, best: nn.Module, synthetic_ones: bool) -> nn.Module:
    """The repaired model; of a stand-in only what was changed."""
    if not synthetic_ones:
        return best
    copy = full_copy(slim)
    synthetic.carried_over(copy, work, best)
    return copy
