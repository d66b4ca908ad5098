"""Samples of one's own, read and parted: what models are fitted on, and what they are judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from peelcli import synthetic
from peelcli.config import Calibration
from peelcli.fidelity import Judge, takes_batches
from peelcli.patches import generator
from peelcli.records import Subject
from peelcli.samples import Inputs, Samples, shapes
from peelcli.sources.data import load_metric, load_samples, name_of
from peelcli.surgery.basis import Basis
from peelcli.surgery.repair import Repaired
from peelcli.tensors import full_copy, tensors_in

Progress = Callable[[int, int], None]
Kept = tuple[tuple[int, ...], ...]
_HELD = 5  # one of so many samples is held out


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
    judge = Judge(subject.module, held, metric, name_of(wanted.metric) if wanted.metric else "", device)
    told = (*samples.notes, *held.notes, *_other_shape(subject, samples), *judge.notes)
    notes = tuple(dict.fromkeys((*told, *judge.look_at_targets(held), *judge.look_at_targets(samples))))
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
