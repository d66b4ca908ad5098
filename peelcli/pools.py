"""Samples to train on: read whole, some of them held out to judge by."""

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
from peelcli.training.feed import InMemory, Part, Readable

_HELD = 5  # one of so many samples is held out,
_MOST_HELD = 1000  # but not more than this
_ALL = 2**31


@dataclass(frozen=True)
class Pool:
    """What is learned from, and what it is judged by.

    Attributes:
        fit: samples that are learned from.
        held: others.
        single: whether a forward call takes one sample only.
        classes: whether targets are class numbers.
        digest: of the samples.
        notes: one sentence each.
    """

    fit: Readable
    held: Samples
    single: bool
    classes: bool
    digest: str
    notes: tuple[str, ...] = ()

    def some(self, count: int) -> Samples:
        """At most so many of the samples that are learned from, spread over all."""
        rows = [self.fit.read(position) for position in spread(len(self.fit), count)]
        targets = tuple(target for _, target in rows) if self.fit.labelled else None
        return Samples(tuple(inputs for inputs, _ in rows), self.held.name, targets, self.notes, self.single)


def read(subject: Subject, wanted: Calibration, most: int | None, tell: Callable[[int, int], None]) -> Pool:
    """All samples of the user's data, or as many as were asked for.

    Args:
        subject: the model that they are for.
        wanted: where they are, and how they are read.
        most: how many at most; None for all.
        tell: given (samples read, samples in all).

    Raises:
        InputError: they can't be used.
    """
    flowing = stream(wanted.data, subject, wanted)
    if flowing is not None and len(flowing) >= LEAST:
        return _flowing(flowing, subject, most, tell)
    samples = load_samples(wanted.data, subject, wanted.model_copy(update={"samples": most or _ALL}), tell)
    fit, held = _parted(len(samples))
    return _pool(InMemory(samples.some(fit)), samples.some(held), subject, _digest(samples))


def _flowing(found: Stream, subject: Subject, most: int | None, tell: Callable[[int, int], None]) -> Pool:
    chosen = spread(len(found), most or _ALL)
    fit, held = _parted(len(chosen))
    judged_by = found.samples([chosen[at] for at in held], tell)
    return _pool(Part(found, [chosen[at] for at in fit]), judged_by, subject, f"{found.digest}-{len(chosen)}")


def _parted(count: int) -> tuple[list[int], list[int]]:
    """Positions that are learned from, and those that are held out."""
    held = spread(count, max(1, min(count // _HELD, _MOST_HELD)))
    out = set(held)
    return [at for at in range(count) if at not in out], held


def _pool(fit: Readable, held: Samples, subject: Subject, told: str) -> Pool:
    single = not takes_batches(subject.module, held)
    return Pool(fit, replace(held, single=single), single, class_ids(held) is not None, told, held.notes)


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
