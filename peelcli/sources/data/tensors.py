"""Tensor files: .npy, .npz, .pt and .safetensors, read row by row, so that a file may be larger than memory."""

from __future__ import annotations

import pickle
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from peelcli.errors import InputError
from peelcli.records import Subject
from peelcli.samples import Inputs, Samples, spread, together
from peelcli.sources.data import items, labels
from peelcli.sources.data.batches import rows_are_samples
from peelcli.sources.data.collect import Collector, Progress
from peelcli.sources.data.items import Item, looks_like
from peelcli.tensors import tensors_in

SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".safetensors")
_SAVE = "save plain numbers: numpy.savez('data.npz', x=inputs, labels=labels)"

# numpy reads a header as Python source, and a .npz through zipfile and zlib.
_DAMAGE = (
    *(ValueError, EOFError, AttributeError, TypeError, SyntaxError, TokenError, OverflowError, RuntimeError, KeyError),
    *(zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True, slots=True)
class Column:
    """One array whose first dimension counts the samples.

    Attributes:
        length: how many there are.
        row: the sample at a position, of shape (1, ...).
    """

    length: int
    row: Callable[[int], Tensor]


Columns = Mapping[str, Column] | Sequence[Column]


def read(path: Path) -> Any:
    """Open a tensor file; nothing in it is run.

    Returns:
        A Column; several by name, or in order; or, of a .pt file that holds a list of something else, that list.

    Raises:
        InputError: it is damaged, or holds something else than tensors.
    """
    readers: dict[str, Callable[[Path], Any]] = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}
    try:
        return readers.get(path.suffix.lower(), _torch)(path)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}", hint="check the file") from None
    except RecursionError:
        raise InputError(f"{path} is nested too deeply", hint=_SAVE) from None


def _npy(path: Path) -> Column:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _DAMAGE as error:
        raise _unreadable(path, error) from None
    if not isinstance(array, np.ndarray):  # a .npz or a pickle under another name
        raise InputError(f"{path} is no .npy file", hint=_SAVE)
    return column(array, path.name)


def _npz(path: Path) -> Columns:
    found: dict[str, Column] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                found[key] = column(file[key], f"{path.name}, {key}")
    except _DAMAGE as error:
        raise _unreadable(path, error) from None
    if list(found) == [f"arr_{number}" for number in range(len(found))]:  # numpy.savez's names for arrays without
        return list(found.values())
    return found


def _safetensors(path: Path) -> Columns:
    from safetensors import SafetensorError, safe_open

    def sliced(key: str) -> Column:
        part = file.get_slice(key)
        shape = part.get_shape()
        if not shape:
            raise _no_samples(f"{path.name}, {key}")
        return Column(shape[0], lambda at: part[at : at + 1])

    try:
        file = safe_open(path, framework="pt")
        return {key: sliced(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
    except SafetensorError as error:
        raise _unreadable(path, error) from None


def _torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} holds more than tensors, and nothing in it was run", hint=f"{_SAVE}, or torch.save a dict of them"
        ) from None
    except OSError:
        raise
    except Exception as error:  # on a damaged file the unpickler raises anything
        raise _unreadable(path, error) from None
    if isinstance(value, (Tensor, Mapping)):
        return columns(value, path.name)
    if isinstance(value, (list, tuple)) and tensors_in(value):
        return value
    raise InputError(f"{path} holds {type(value).__name__}, not tensors", hint=_SAVE)


def _unreadable(path: Path, error: Exception) -> InputError:
    with path.open("rb") as file:
        pickled = file.read(1) == b"\x80"  # numpy.load says so of any file that it does not know
    if pickled or any(word in str(error) for word in ("Object arrays", "Python objects")):
        return InputError(f"{path} holds pickled objects, which may run code, and none was loaded", hint=_SAVE)
    return InputError(f"{path} can't be read as {path.suffix}: it is damaged or of another kind", hint=_SAVE)


def _no_samples(name: str) -> InputError:
    return InputError(f"{name} holds a single number", hint="the first dimension counts the samples")


def columns(value: Tensor | np.ndarray[Any, Any] | Mapping[str, Any], name: str) -> Column | Columns:
    """An array, or a dict of arrays, whose first dimensions count the samples.

    Raises:
        InputError: a part of it is no array of numbers.
    """
    if not isinstance(value, Mapping):
        return column(value, name)
    return {str(key): column(inner, f"{name}, {key}") for key, inner in value.items()}


def column(value: Any, name: str) -> Column:
    """One array.

    Raises:
        InputError: it is none, or holds no numbers, or only one.
    """
    if isinstance(value, (list, tuple)) and value and not tensors_in(value):
        value = np.asarray(value)
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biufc":
        raise InputError(f"{name} holds {value.dtype}, not numbers", hint=_SAVE)
    if not isinstance(value, (Tensor, np.ndarray)):
        raise InputError(f"{name} is {type(value).__name__}, not a tensor", hint=_SAVE)
    if isinstance(value, Tensor) and value.layout != torch.strided:
        raise InputError(f"{name} holds sparse tensors", hint=items.DENSE)
    if not value.ndim:
        raise _no_samples(name)
    if isinstance(value, np.ndarray):
        array = value
        return Column(len(array), lambda at: items.tensor(array[at : at + 1]))
    rows = value
    return Column(len(rows), lambda at: rows[at : at + 1])


def in_order(value: Any, subject: Subject) -> list[Column] | None:
    """A list of tensors as columns, where it is one for each argument, and perhaps the targets; None for samples.

    They are columns if they are as long as each other and look like what the example has in their places; one more
    that looks unlike the first holds the targets.

    Raises:
        InputError: there are targets, and not as many as inputs.
    """
    value, count = items.plain(value), len(subject.inputs)
    if not isinstance(value, (list, tuple)) or len(value) not in (count, count + 1):
        return None
    if not all(isinstance(part, Tensor) and part.dim() for part in value):
        return None
    if not all(looks_like(part, example) for part, example in zip(value, subject.inputs, strict=False)):
        return None
    if len(value) == count + 1 and looks_like(value[-1], subject.inputs[0]):
        return None
    if len({len(part) for part in value}) > 1:
        _check_lengths(value, count)
        return None
    return [column(part, "") for part in value]


def _check_lengths(value: Sequence[Tensor], count: int) -> None:
    """Inputs as long as each other and targets that are not: these are no samples of different sizes."""
    inputs, targets = {len(part) for part in value[:count]}, value[count:]
    if targets and len(inputs) == 1:
        raise InputError(
            f"the data has {inputs.pop()} inputs, and {len(targets[0])} targets", hint="give as many targets as inputs"
        )


def from_columns(
    found: Column | Columns, subject: Subject, name: str, most: int, progress: Progress | None = None
) -> Samples:
    """Take samples, spread over all, from arrays.

    Args:
        found: a single array goes to forward's first argument. Several go by name, those called like labels being
            the targets; or in order, targets last.
        subject: the model.
        name: where they come from, for messages.
        most: how many are taken.
        progress: told after each.

    Raises:
        InputError: their lengths differ, their names are not forward's, or they do not fit the model.
    """
    every, arranged = _arrangement(found, subject, name)
    lengths = {key: part.length for key, part in every.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{length} of {key}" for key, length in lengths.items())
        raise InputError(f"{name}: the numbers of samples differ: {told}", hint="give each sample all of its parts")
    count = next(iter(lengths.values()), 0)
    positions = spread(count, most)
    collector = Collector(subject, name, len(positions), progress)
    _check_rows(lambda at: arranged({key: part.row(at) for key, part in every.items()}).inputs, count, subject, name)
    for at in positions:
        item = _unwrapped(arranged({key: part.row(at) for key, part in every.items()}), subject)
        if item.labelled:
            item = Item(item.inputs, labels.rows(item.target, 1, name)[0], labelled=True)
        collector.add(item)
        if not collector.wants():
            break
    return collector.finished()


def _check_rows(row: Callable[[int], Inputs], count: int, subject: Subject, name: str) -> None:
    """Rows must be samples; where a model takes time first, those of an array in its own layout are steps.

    Raises:
        InputError: they are not.
    """
    if count < 2:
        return
    two, example = together([row(0), row(1)]), tensors_in(subject.inputs)
    alike = [t.dim() for t in tensors_in(two)] == [t.dim() for t in example]
    if alike and not rows_are_samples(subject, two):
        told = "x".join(map(str, example[0].shape))
        raise InputError(
            f"{name}: this model's first dimension counts no samples, so the rows of an array are none",
            hint=f"give a list of samples, each as the model takes it ({told}), or one array of samples x {told}",
        )


def _unwrapped(item: Item, subject: Subject) -> Item:
    """A row as it is, without the dimension that counts the rows where the model takes a sample whole."""
    own, example = tensors_in(item.inputs), tensors_in(subject.inputs)
    if [t.dim() - 1 for t in own] != [t.dim() for t in example]:
        return item
    inner = pytree.tree_map_only(Tensor, lambda t: t[0], item.inputs)
    return item if rows_are_samples(subject, inner) else Item(inner, item.target, item.labelled)


Arrange = Callable[[dict[str, Tensor]], Item]


def _arrangement(found: Column | Columns, subject: Subject, name: str) -> tuple[dict[str, Column], Arrange]:
    """The columns by name, and what makes an item of one row of each."""
    if isinstance(found, Column):
        return {"samples": found}, lambda row: items.read(row["samples"], subject, name)
    if not isinstance(found, Mapping):
        parts = {f"array {number}": part for number, part in enumerate(found)}
        return parts, lambda row: items.read(row["array 0"] if len(row) == 1 else tuple(row.values()), subject, name)
    return dict(found), lambda row: items.named(row, subject, name)
