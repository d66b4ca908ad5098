"""Samples to train on, and others to judge by: the user's own, or some that are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from peelcli.config import Calibration
from peelcli.fidelity import takes_batches
from peelcli.records import Subject
from peelcli.samples import Samples, spread
from peelcli.sources import digest
from peelcli.sources.data import Stream, class_ids, load_samples, stream
from peelcli.sources.data.collect import LEAST
from peelcli.tensors import tensors_in
from peelcli.training.feed import InMemory, Part, Readable, Still

_HELD = 5  # one of so many samples is held out,
_MOST_HELD = 1000  # but not more than this
_ALL = 2**31


@dataclass(frozen=True)
class Pool:
    """What is learned from, and what it is judged by.

    Attributes:
        fit: samples that are learned from.
        held: others.
        name: where those that are learned from come from, for messages.
        single: whether a forward call takes one sample only.
        classes: whether the targets of both are class numbers.
        digest: of the samples.
        notes: one sentence each.
        seed: of what is drawn where samples are read outside of the steps.
    """

    fit: Readable
    held: Samples
    name: str
    single: bool
    classes: bool
    digest: str
    notes: tuple[str, ...] = ()
    seed: int = 0

    @property
    def still(self) -> Still:
        """What is learned from, as it is looked at outside of the steps: the same samples each time."""
        return Still(self.fit, self.seed)

    def some(self, count: int) -> Samples:
        """At most so many of the samples that are learned from, spread over all."""
        found = self.still.samples(spread(len(self.fit), count), self.name, lambda _done, _all: None)
        return replace(found, notes=self.notes, single=self.single)


def read(subject: Subject, wanted: Calibration, most: int | None, seed: int, tell: Callable[[int, int], None]) -> Pool:
    """All samples of the user's data, or as many as were asked for.

    A part is held out where the user gave none to judge by.

    Args:
        subject: the model that they are for.
        wanted: where they are, and how they are read.
        most: how many at most; None for all.
        seed: of the run: a data set may draw something for each sample.
        tell: given (samples read, samples in all).

    Raises:
        InputError: they can't be used.
    """
    own = _own(subject, wanted, tell)
    flowing = stream(wanted.data, subject, wanted)
    if flowing is not None and len(flowing) >= LEAST:
        pool = _flowing(flowing, subject, most, own, seed, tell)
    else:
        samples = load_samples(wanted.data, subject, wanted.model_copy(update={"samples": most or _ALL}), tell)
        fit, held = _parted(len(samples), own)
        learned = InMemory(samples.some(fit))
        pool = _pool(learned, own or samples.some(held), subject, samples.name, _digest(samples), samples.notes)
    return replace(pool, seed=seed, digest=pool.digest if own is None else f"{pool.digest}-{_digest(own)}")


def _own(subject: Subject, wanted: Calibration, tell: Callable[[int, int], None]) -> Samples | None:
    """What the user gave to judge by."""
    if wanted.validation is None:
        return None
    return load_samples(wanted.validation, subject, wanted.model_copy(update={"samples": _MOST_HELD}), tell)


def _flowing(
    found: Stream, subject: Subject, most: int | None, own: Samples | None, seed: int, tell: Callable[[int, int], None]
) -> Pool:
    chosen = spread(len(found), most or _ALL)
    fit, held = _parted(len(chosen), own)
    judged_by = own or Still(found, seed).samples([chosen[at] for at in held], found.name, tell)
    learned = Part(found, [chosen[at] for at in fit])
    return _pool(learned, judged_by, subject, found.name, f"{found.digest}-{len(chosen)}", found.notes)


def _parted(count: int, own: Samples | None) -> tuple[list[int], list[int]]:
    """Positions that are learned from, and those that are held out: none where the user gave samples to judge by."""
    if own is not None:
        return list(range(count)), []
    held = spread(count, max(1, min(count // _HELD, _MOST_HELD)))
    out = set(held)
    return [at for at in range(count) if at not in out], held


def _pool(fit: Readable, held: Samples, subject: Subject, name: str, told: str, notes: tuple[str, ...]) -> Pool:
    single = not takes_batches(subject.module, held)
    classes = fit.labelled and class_ids(held) is not None
    notes = tuple(dict.fromkeys((*notes, *held.notes)))
    return Pool(fit, replace(held, single=single), name, single, classes, told, notes)


def _digest(samples: Samples) -> str:
    """Hex SHA-256 of inputs and targets."""
    found = hashlib.sha256(str(len(samples)).encode())
    for inputs, target in zip(samples.inputs, samples.targets or (None,) * len(samples), strict=True):
        _add(found, inputs)
        _add(found, target)
    return found.hexdigest()


def _add(found: Any, value: Any) -> None:
    tensors: Sequence[torch.Tensor] = tensors_in(value)
    for tensor in tensors:
        found.update(digest.content(tensor))
    if not tensors:
        found.update(repr(value).encode())
