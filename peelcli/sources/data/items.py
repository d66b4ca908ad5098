"""One item of the user's: forward's arguments, and perhaps targets; cut into single samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from peelcli.errors import InputError
from peelcli.records import Subject
from peelcli.samples import Inputs
from peelcli.sources import inputs, signature
from peelcli.sources.data import labels
from peelcli.sources.data.batches import rows_are_samples
from peelcli.tensors import is_list_of_samples, tensors_in

DENSE = "give dense ones: x.to_dense()"
_SHOWN = 8  # names that a message shows


@dataclass(frozen=True, slots=True)
class Item:
    """Arguments of one forward call, of one sample or of a batch.

    Attributes:
        inputs: positional arguments.
        target: what the user's data says of it.
        labelled: whether it says anything.
    """

    inputs: Inputs
    target: Any = None
    labelled: bool = False


def singles(value: Any, subject: Subject, name: str) -> Iterator[Item]:
    """Read an item as data sets and loaders give them.

    Args:
        value: a tensor; a tuple or list of arguments; a dict of named ones; or one of these and targets. With or
            without a batch dimension.
        subject: whose example says how many arguments there are, and how many dimensions they have.
        name: where it comes from, for messages.

    Yields:
        The single samples in it; tensors of shape (1, ...).

    Raises:
        InputError: it holds no arguments of forward, or the targets of a batch are not as many as its inputs.
    """
    yield from split(read(value, subject, name), subject, name)


def read(value: Any, subject: Subject, name: str) -> Item:
    """Tell arguments and targets apart; see `singles`.

    What follows the arguments that the example has is a target: `(x, y)` for a model that is given one. So is the
    second part of a pair whose first holds the arguments, `((a, b), y)`.
    """
    value, first, count = plain(value), subject.inputs[0], len(subject.inputs)
    if isinstance(value, Mapping) and not isinstance(first, Mapping):
        return named(value, subject, name)
    if not isinstance(value, (list, tuple)) or (count == 1 and _alike(value, first)):
        return Item(_complete((value,), subject, name))
    if len(value) == 2 and _is_nest_of_arguments(value[0], first):
        inside = read(value[0], subject, name) if isinstance(value[0], Mapping) else Item(tuple(value[0]))
        return Item(_complete(inside.inputs, subject, name), value[1], labelled=True)
    if len(value) == count + 1:
        return Item(_complete(tuple(value[:-1]), subject, name), value[-1], labelled=True)
    needed = len(signature.required(subject.module))
    if len(value) == 2 and needed <= 1 and not looks_like(value[1], subject.inputs[1] if count > 1 else None):
        return Item(_complete((value[0],), subject, name), value[1], labelled=True)
    return Item(_complete(tuple(value), subject, name))


def plain(value: Any) -> Any:
    """The same with numpy's arrays and numbers as torch's and Python's, and every mapping as a dict."""
    if isinstance(value, np.ndarray):
        return tensor(value) if value.dtype.kind in "biufc" else value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(inner) for inner in value)
    return value


def tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """A copy of an array of numbers; unsigned integers above 8 bits, of which torch can't do much, become int64."""
    kind = array.dtype
    wanted = np.dtype(np.int64) if kind.kind == "u" and kind.itemsize > 1 else kind.newbyteorder("=")
    return torch.from_numpy(np.array(array, dtype=wanted, order="C"))


def _alike(value: Any, first: Any) -> bool:
    """Whether a list or tuple may be the first argument itself, and no list of arguments."""
    if is_list_of_samples(first):
        return is_list_of_samples(value)
    return isinstance(first, (list, tuple)) and bool(value) and not isinstance(value[0], (list, tuple))


def _is_nest_of_arguments(value: Any, first: Any) -> bool:
    if isinstance(value, Mapping):
        return not isinstance(first, Mapping)
    return isinstance(value, (list, tuple)) and bool(tensors_in(value)) and not _alike(value, first)


def looks_like(value: Any, example: Any) -> bool:
    """Whether a value has the dimensions and the kind of number of an argument of the example."""
    if isinstance(value, Tensor) and isinstance(example, Tensor):
        return value.dim() == example.dim() and value.is_floating_point() == example.is_floating_point()
    return type(value) is type(example)


def named(value: Mapping[str, Any], subject: Subject, name: str) -> Item:
    """Arguments by name; what is called like targets, and is no argument that the example has, is one.

    A single input goes to the first argument, whatever its name.

    Raises:
        InputError: a name that forward does not have, or one is missing.
    """
    module = subject.module
    taken = signature.positional(module) or []
    needed = [p.name for p in signature.required(module)]
    given = {p.name for p, used in zip(taken, subject.inputs, strict=False) if used is not None}
    target = next((key for key in labels.NAMES if key in value and key not in {*given, *needed}), None)
    arguments = {key: inner for key, inner in value.items() if key != target}
    labelled = target is not None
    said = value[target] if target is not None else None
    if len(arguments) == 1 and len(needed) <= 1 and not {p.name for p in taken} & {*arguments}:
        return Item(_complete(tuple(arguments.values()), subject, name), said, labelled)
    missing = [key for key in needed if key not in arguments]
    if missing:
        raise InputError(
            f"{name} holds {_first(value)}, but no {missing[0]}: {signature.text(module)}",
            hint="name what is given as forward's arguments are named",
        )
    return Item(_complete(inputs.arrange(module, arguments, name), subject, name), said, labelled)


def _first(names: Mapping[str, Any]) -> str:
    shown = ", ".join(map(str, list(names)[:_SHOWN]))
    return f"{shown}, ..." if len(names) > _SHOWN else shown or "nothing"


def _complete(arguments: Inputs, subject: Subject, name: str) -> Inputs:
    """The arguments, and those of the example that are no tensors (flags such as use_cache) where nothing was given.

    Raises:
        InputError: they are too few or too many, or none is a tensor.
    """
    if not tensors_in(arguments):
        kinds = ", ".join(type(value).__name__ for value in arguments) or "nothing"
        raise InputError(
            f"{name} gave {kinds} as a sample, not a tensor or a tuple of forward's arguments",
            hint="give tensors or arrays, tuples of forward's arguments, or pairs of these and targets",
        )
    if any(t.layout != torch.strided for t in tensors_in(arguments)):
        raise InputError(f"{name} holds sparse tensors", hint=DENSE)
    parameters = signature.positional(subject.module)
    if parameters is None:
        return arguments
    if len(arguments) > len(parameters) or len(arguments) < len(signature.required(subject.module)):
        raise InputError(
            f"{name} gave {len(arguments)} inputs for {signature.text(subject.module)}",
            hint="give a tuple of forward's arguments, or a pair of such a tuple and the targets",
        )
    filled = list(arguments)
    for place, parameter in enumerate(parameters[: len(subject.inputs)]):
        example = subject.inputs[place]
        if place >= len(filled):
            filled.append(parameter.default)
        if filled[place] is parameter.default and not tensors_in(example):
            filled[place] = example
    while len(filled) > len(arguments) and filled[-1] is parameters[len(filled) - 1].default:
        filled.pop()
    return tuple(filled)


def split(item: Item, subject: Subject, name: str) -> Iterator[Item]:
    """The samples of a batch, one by one; an item without a batch dimension gets one of size 1.

    Tensors that do not share a leading dimension, such as a graph's nodes and edges, are one sample together. So is all
    that goes to a model whose first dimension is no batch.
    """
    first = subject.inputs[0]
    if is_list_of_samples(first) and isinstance(item.inputs[0], Tensor) and item.inputs[0].dim() == 3:
        yield Item(([item.inputs[0]], *item.inputs[1:]), item.target, item.labelled)
        return
    listed = next((value for value in item.inputs if is_list_of_samples(value)), None)
    own, example = tensors_in(item.inputs), tensors_in(subject.inputs)
    if listed is None and own[0].dim() == example[0].dim() - 1:
        yield Item(_with_batch(item.inputs, example), item.target, item.labelled)
        return
    count = len(listed) if listed is not None else len(own[0]) if own[0].dim() else 1
    kept = {id(t) for t, e in zip(own, example, strict=False) if t.shape == e.shape and t.shape[:1] != own[0].shape[:1]}
    shared = all(id(t) in kept or t.dim() == 0 or len(t) == count for t in own)
    if listed is None and (not shared or not _are_samples(item, subject)):
        yield item
        return
    targets = labels.rows(item.target, count, name) if item.labelled else [None] * count
    for at in range(count):
        yield Item(tuple(_row(value, at, kept) for value in item.inputs), targets[at], item.labelled)


def _are_samples(item: Item, subject: Subject) -> bool:
    return rows_are_samples(subject, item.inputs)


def _with_batch(arguments: Inputs, example: list[Tensor]) -> Inputs:
    dims = iter([t.dim() for t in example])
    return tuple(
        pytree.tree_map_only(
            Tensor, lambda t: t.unsqueeze(0) if t.dim() == next(dims, t.dim() + 1) - 1 else t, arguments
        )
    )


def _row(value: Any, at: int, kept: set[int]) -> Any:
    if is_list_of_samples(value):
        return [value[at]]
    return pytree.tree_map_only(Tensor, lambda t: t if t.dim() == 0 or id(t) in kept else t[at : at + 1], value)
