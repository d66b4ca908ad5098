"""Samples from Python: a function of the user's, a DataLoader, a data set, a list, a generator."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from peelcli.errors import InputError, SourceError
from peelcli.records import Subject
from peelcli.samples import Samples, spread
from peelcli.sources import usercode
from peelcli.sources.data import items, tensors
from peelcli.sources.data.collect import Collector, Progress
from peelcli.tensors import is_list_of_samples, tensors_in

_PATIENCE = 1000  # items in a row that hold no sample, after which nothing more is read
_GIVE = "it is called without arguments, and returns or yields inputs, or pairs of inputs and targets"
_SAMPLES = "give tensors, a DataLoader, or a list of inputs or of pairs of inputs and targets"


def from_function(where: str, subject: Subject, most: int, progress: Progress | None = None) -> Samples:
    """Call a function of the user's, `file.py:function`, and read what it returns or yields.

    Args:
        where: the function; called once, without arguments, with the same random values in every run.
        subject: the model.
        most: a generator is read no further than this.
        progress: told after each sample.

    Raises:
        SourceError: the function can't be found.
        InputError: it raises, or gives nothing that the model takes.
    """
    place, _, function = where.rpartition(":")
    name = f"{Path(place).name}:{function}"
    with _seeded():
        value = called(where)
        file = _file_of(place)
        with usercode.importable(file.parent if file else Path.cwd()):
            if value is None:
                raise InputError(f"{name} returned None, not samples", hint=_GIVE)
            return _read(value, subject, name, most, progress, file)


def called(where: str) -> Any:
    """What a function of the user's returns.

    Raises:
        SourceError: it can't be found.
        InputError: it raises.
    """
    try:
        return usercode.call(where)
    except SourceError as error:
        if error.message.startswith(f"{where} raised "):
            raise InputError(error.message, hint=_GIVE) from error.__cause__
        raise


def is_data_set(value: Any) -> bool:
    """Whether a value is a data set that gives samples by position, and no plain container that holds them already."""
    plain = (list, tuple, str, bytes, Mapping, Tensor, np.ndarray, Samples)
    return not isinstance(value, plain) and hasattr(value, "__getitem__") and hasattr(value, "__len__")


def from_python(
    value: Any, subject: Subject, most: int, progress: Progress | None = None, name: str = "the calibration data"
) -> Samples:
    """Read what Python code gives: see `from_function` for what else may be said of it.

    Args:
        value: a tensor or array, whose first dimension counts the samples; a dict of such by argument name; a tuple
            of such, one for each argument and one for the targets; a data set, of which samples are taken spread
            evenly; or anything else that gives items one by one, such as a DataLoader.
        subject: the model.
        most: how many samples are taken.
        progress: told after each.
        name: how the data is called in messages.

    Raises:
        InputError: it is nothing of this, raises, or does not fit the model.
    """
    with _seeded():
        return _read(value, subject, name, most, progress, None)


def _read(value: Any, subject: Subject, name: str, most: int, progress: Progress | None, file: Path | None) -> Samples:
    if isinstance(value, Samples):
        return value
    if isinstance(value, (Tensor, np.ndarray, Mapping)):
        return tensors.from_columns(tensors.columns(value, name), subject, name, most, progress)
    if isinstance(value, (str, bytes)) or not (hasattr(value, "__iter__") or hasattr(value, "__getitem__")):
        raise InputError(f"{name} is {type(value).__name__}, which gives no samples", hint=_SAMPLES)
    in_order = tensors.in_order(value, subject) if isinstance(value, (tuple, list)) else None
    if in_order is not None:
        return tensors.from_columns(in_order, subject, name, most, progress)
    collector, idle = Collector(subject, name, most, progress), 0
    for item in _items(_zipped(value, subject), name, most, file):
        idle += 1
        for single in items.singles(item, subject, name):
            idle = 0
            if collector.wants():
                collector.add(single)
        if not collector.wants() or idle > max(most, _PATIENCE):
            break
    return collector.finished()


def _zipped(value: Any, subject: Subject) -> Any:
    """A list of inputs and one of targets as pairs; anything else as it is."""
    if not isinstance(value, (tuple, list)) or len(value) != 2 or is_list_of_samples(subject.inputs[0]):
        return value
    inputs, targets = value
    lists = isinstance(inputs, (list, tuple)) and isinstance(targets, (list, tuple))
    if not lists or len(inputs) != len(targets) or len(inputs) <= len(subject.inputs) or tensors_in(targets):
        return value
    return list(zip(inputs, targets, strict=True))


def _items(value: Any, name: str, most: int, file: Path | None) -> Iterator[Any]:
    """What a collection gives, one by one; what it raises becomes one line."""
    try:
        if (
            hasattr(value, "__getitem__")
            and hasattr(value, "__len__")
            and (isinstance(value, (list, tuple)) or not hasattr(value, "__iter__"))
        ):
            yield from (value[at] for at in spread(len(value), most))
        else:
            yield from value
    except (Exception, SystemExit) as error:
        raise InputError(f"{name} raised {usercode.told(error, file)}", hint="see that it runs on its own") from error


def _file_of(place: str) -> Path | None:
    """The file of `file.py` or of a module that was imported."""
    if place.endswith(".py"):
        return Path(place).resolve()
    file = getattr(sys.modules.get(place), "__file__", None)
    return Path(file).resolve() if file else None


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Random values of Python, torch and numpy that are the same in every run, and as before afterwards."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        with usercode.seeded():
            yield
    finally:
        np.random.set_state(state)
