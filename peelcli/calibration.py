"""What samples are good for beside scores: the choice among several plans, repair, and the evidence of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

from peelcli import synthetic
from peelcli.allocation.allocate import TRIED, allocate
from peelcli.config import Calibration, Options
from peelcli.fidelity import Judge, takes_batches
from peelcli.patches import generator
from peelcli.records import ChannelGraph, Cut, Limit, Scores, Subject, Widths
from peelcli.results import Candidate, Distance, Fidelity
from peelcli.samples import Inputs, Samples, shapes, spread
from peelcli.scoring import moments
from peelcli.scoring.surgeon import shrunk
from peelcli.sources.data import load_metric, load_samples
from peelcli.surgery.basis import Basis, Sight
from peelcli.surgery.batchnorm import has_statistics, reestimated
from peelcli.surgery.prune import apply_cuts
from peelcli.surgery.repair import Repaired, repair
from peelcli.tensors import full_copy, tensors_in

Progress = Callable[[int, int], None]
Kept = tuple[tuple[int, ...], ...]
_HELD = 5  # one of so many samples is held out
_TRIAL_MACS = 80_000_000_000  # multiply-adds of the samples that one candidate is repaired on; the chosen one gets all
_TRIAL_SAMPLES = 48  # at least
_SIGHT_SAMPLES = 128  # on which linear streams are looked at


@dataclass(frozen=True)
class Evidence:
    """Samples, and the original's outputs on those of them that nothing is fitted on.

    Attributes:
        subject: the original on the device where all of this is computed.
        fit: samples that scores and repair see.
        judge: compares a model with the original on the others.
        repairs: whether the user wants repair.
        seed: of everything random.
        notes: on the samples.
        synthetic: whether the samples are patterns, and the subject's BatchNorm statistics those of the patterns.
        bases: of the subject's linear streams, by the names of all groups: found once, for whichever cuts are tried.
        spare: the chosen candidate as it was repaired, by the channels that it kept, where it saw all samples.
    """

    subject: Subject
    fit: Samples
    judge: Judge
    repairs: bool
    seed: int
    notes: tuple[str, ...]
    synthetic: bool = False
    bases: dict[tuple[str, ...], Basis] = field(default_factory=dict, compare=False)
    spare: dict[Kept, tuple[nn.Module, Repaired]] = field(default_factory=dict, compare=False)

    @property
    def turns(self) -> bool:
        """Whether repair turns linear streams; not those of a stand-in, whose weights are not those that come home."""
        return self.repairs and not self.synthetic


def gather(
    subject: Subject, wanted: Calibration, seed: int, progress: Progress | None = None
) -> tuple[Subject, Evidence | None]:
    """Read the samples and run the original on those to judge by: the user's own, or some that are held out.

    Returns:
        The subject, its inputs those of the first sample where they were a guess before; and the evidence, None where
        the user gave no samples.

    Raises:
        InputError: the samples can't be used, or the metric fails on the original.
    """
    if wanted.data is None:
        return subject, None
    metric = load_metric(wanted.metric) if wanted.metric else None
    if made := wanted.synthetic:
        samples = synthetic.samples(subject, wanted.samples, seed)
    else:
        samples = load_samples(wanted.data, subject, wanted, progress)
    subject = original = with_known_input(subject, samples)
    if made:
        subject = replace(subject, module=synthetic.stand_in(subject.module, samples))
    fit, held = _parted(samples, subject, wanted, progress)
    fit = _mixed(fit, seed)
    device = torch.device(wanted.device)
    if device.type != "cpu":
        subject = replace(subject, module=full_copy(subject.module).to(device))
    if not takes_batches(subject.module, samples, device):
        fit = replace(fit, single=True)
    judge = Judge(subject.module, held, metric, wanted.metric.rpartition(":")[2] if wanted.metric else "", device)
    notes = tuple(dict.fromkeys((*samples.notes, *held.notes, *_other_shape(subject, samples), *judge.notes)))
    return original, Evidence(subject, fit, judge, wanted.repair != "none", seed, notes, made)


def _parted(
    samples: Samples, subject: Subject, wanted: Calibration, progress: Progress | None
) -> tuple[Samples, Samples]:
    """Those to fit on, and those to judge by: the user's own, or one of every five."""
    if wanted.validation is None:
        return samples.split(min(_HELD, len(samples)))
    return samples, load_samples(wanted.validation, subject, wanted, progress)


def with_known_input(subject: Subject, samples: Samples) -> Subject:
    """Samples say what the model is given; a guess does not."""
    told = _told(samples.inputs[0])
    if not subject.guessed or told == _told(subject.inputs):
        return subject
    notes = (*(note for note in subject.notes if note != subject.guessed), f"input of {told} taken from the samples")
    return replace(subject, inputs=samples.inputs[0], notes=notes, guessed="")


def _mixed(samples: Samples, seed: int) -> Samples:
    """In random order, because the first batches count most, and folders go class by class; not if shapes differ."""
    if len({repr(shapes(inputs)) for inputs in samples.inputs}) > 1:
        return samples
    return samples.some(torch.randperm(len(samples), generator=generator(seed, "order")).tolist())


def _other_shape(subject: Subject, samples: Samples) -> tuple[str, ...]:
    """A word where all samples have one shape and costs are counted at another, as where the input was guessed."""
    told = {_told(inputs) for inputs in samples.inputs}
    here = _told(subject.inputs)
    if len(told) > 1 or told == {here}:
        return ()
    return (f"the samples are {told.pop()}; costs are counted, and files written, for {here}: see --input",)


def _told(inputs: Inputs) -> str:
    """Shapes of one sample: "3x32x32"."""
    return " and ".join("x".join(map(str, tensor.shape[1:])) or "a number" for tensor in tensors_in(inputs))


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
