"""The one place where samples are checked: types, shapes, values, how many, and how much memory they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from peelcli.errors import InputError
from peelcli.records import Subject
from peelcli.samples import Inputs, Samples, shapes
from peelcli.sources import inputs, signature, trial
from peelcli.sources.data.items import Item
from peelcli.tensors import tensors_in

Progress = Callable[[int, int], None]

LEAST = 2  # samples: one to fit on, one to judge by
MOST_BYTES = 2 * 2**30  # that samples may take in memory


def counted(number: int) -> str:
    """A number of samples in words."""
    return f"{number} sample{'' if number == 1 else 's'}"


class Collector:
    """Takes samples one by one, checks them against a model, and keeps the good ones."""

    def __init__(self, subject: Subject, name: str, most: int, progress: Progress | None = None) -> None:
        """Start with none.

        Args:
            subject: the model, which is not changed; its example input says which types are wanted.
            name: where the samples come from, for messages.
            most: how many are wanted.
            progress: told after each sample how many were seen, and how many there will be.
        """
        self._subject, self._name, self._most, self._progress = subject, name, most, progress
        self._inputs: list[Inputs] = []
        self._targets: list[Any] = []
        self._labelled: bool | None = None
        self._dropped = self._bytes = 0
        self._full = False
        self._notes: dict[str, None] = {}
        self._proved: set[str] = set()
        self._run: trial.Run | None = None
        self._own = inputs.own_dtype(subject.module)
        self._masks = {place for place, value in enumerate(subject.inputs) if not _is_finite((value,))}

    def wants(self) -> bool:
        """Whether there is room for another; no data set that is mostly NaN is read without end."""
        return not self._full and len(self._inputs) < self._most and self._dropped <= self._most

    def note(self, text: str) -> None:
        """Say once what was guessed, skipped or changed."""
        self._notes[text] = None

    def add(self, item: Item) -> None:
        """Take one sample.

        Args:
            item: its tensors have shape (1, ...); copied.

        Raises:
            InputError: it is not what the model takes, or has a target where others have none.
        """
        at = len(self._inputs) + self._dropped
        if self._labelled not in (None, item.labelled):
            raise InputError(f"{self._name}: some samples have targets, others have none", hint="give all of them one")
        self._labelled = item.labelled
        sample = self.suited(item.inputs)
        if not _is_finite(tuple(value for place, value in enumerate(sample) if place not in self._masks)):
            self._dropped += 1
        else:
            self._prove(sample, at)
            self._bytes += sum(t.numel() * t.element_size() for t in tensors_in(sample))
            self._full = self._bytes > MOST_BYTES
            if not self._full:
                self._inputs.append(sample)
                self._targets.append(item.target)
        if self._progress is not None:
            self._progress(at + 1, self._most)

    def suited(self, inputs: Inputs) -> Inputs:
        """One sample's arguments as copies on the CPU, in the types that the model's example has."""
        return tuple(self._suited(value, place) for place, value in enumerate(inputs))

    def finished(self) -> Samples:
        """What was kept, with a note on what was not.

        Raises:
            InputError: there are fewer than two, or most of them were not finite.
        """
        kept, seen = len(self._inputs), len(self._inputs) + self._dropped
        if self._dropped * 2 > seen:
            raise InputError(
                f"{self._name}: {self._dropped} of {seen} samples hold NaN or infinite values",
                hint="look at how they are computed, or saved",
            )
        if self._full:
            self.note(f"only {counted(kept)} could be kept: more take over {MOST_BYTES / 2**30:.2g} GiB of memory")
        if seen == 0 and not self._full:
            raise InputError(f"{self._name} gave no samples", hint=f"give at least {LEAST}, better some hundreds")
        if kept < LEAST:
            raise InputError(
                f"{self._name}: {counted(kept)} can be used, and at least {LEAST} are needed",
                hint="give smaller ones"
                if self._full
                else "give more, better some hundreds; the first dimension counts them",
            )
        if self._dropped:
            self.note(f"{self._dropped} of {seen} samples hold NaN or infinite values and were left out")
        targets = tuple(self._targets) if self._labelled else None
        return Samples(tuple(self._inputs), self._name, targets, tuple(self._notes))

    def _suited(self, value: Any, place: int) -> Any:
        """An argument as a copy on the CPU, in the types that the example has in its place."""
        known = self._subject.inputs[place] if place < len(self._subject.inputs) else None
        wanted = [t.dtype for t in tensors_in(known)]
        wanted = wanted if len(wanted) == len(tensors_in(value)) else [t for t in wanted[:1] if len(set(wanted)) == 1]
        every = iter(wanted)
        last = wanted[-1] if wanted else None
        return pytree.tree_map_only(Tensor, lambda t: self._cast(t.detach().cpu(), next(every, last)), value)

    def _cast(self, value: Tensor, dtype: torch.dtype | None) -> Tensor:
        if dtype is None:  # an argument that the example does not have
            dtype = self._own if value.is_floating_point() else value.dtype
        if value.dtype is torch.uint8 and dtype.is_floating_point:
            self.note("samples of type uint8 were divided by 255")
            return value.to(dtype) / 255
        if _kind(value.dtype) != _kind(dtype):
            raise InputError(
                f"{self._name} holds {_told(value.dtype)}, and the model takes {_told(dtype)}",
                hint=f"give them as {_told(dtype)}",
            )
        return value.to(dtype, copy=True)

    def _prove(self, sample: Inputs, at: int) -> None:
        """Run a sample of new shapes on a copy of the model, which shares its weights."""
        shape = repr(shapes(sample))
        if shape in self._proved:
            return
        own, example = tensors_in(sample), tensors_in(self._subject.inputs)
        parallel = len(own) == len(example)
        if parallel and any(t.dim() != e.dim() for t, e in zip(own, example, strict=True)):
            heard: str | None = "the number of dimensions differs"
        else:
            self._run = self._run or trial.on_real_copy(self._subject.module)
            heard = self._run(sample)
        if heard is not None:
            raise InputError(
                f"{self._name}: sample {at} does not fit the model, which takes {_shapes(example)} and was given "
                f"{_shapes(own)}: {heard}; it is called as {signature.text(self._subject.module)}",
                hint="give samples as the model takes them, or say with --input which shape that is",
            )
        self._proved.add(shape)


def _kind(dtype: torch.dtype) -> str:
    return "complex" if dtype.is_complex else "float" if dtype.is_floating_point else "integer"


def _told(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shapes(tensors: list[Tensor]) -> str:
    return " and ".join(f"{'x'.join(map(str, t.shape)) or 'a number'} ({_told(t.dtype)})" for t in tensors)


def _is_finite(sample: Inputs) -> bool:
    return all(
        bool(torch.isfinite(t.float() if t.element_size() == 1 else t).all())
        for t in tensors_in(sample)
        if t.is_floating_point() or t.is_complex()
    )
