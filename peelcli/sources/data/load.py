"""Whatever the user gives as calibration data -> Samples."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from peelcli.config import Calibration
from peelcli.errors import InputError
from peelcli.records import Subject
from peelcli.samples import Samples, spread
from peelcli.sources import usercode
from peelcli.sources.data import functions, images, tensors
from peelcli.sources.data.collect import LEAST, Progress, counted

_KINDS = f"give a folder of images, {', '.join(tensors.SUFFIXES)}, or file.py:function"


def load_samples(data: Any, subject: Subject, options: Calibration, progress: Progress | None = None) -> Samples:
    """Read calibration samples, and check that the model takes them.

    Args:
        data: a path or `file.py:function`, or from Python tensors, a data set, a DataLoader, or any other iterable;
            `Samples` are not read again, only cut to as many as are wanted.
        subject: the model, which is not changed, with an example of its input.
        options: how many samples, and how images are brought to the model.
        progress: told after each sample how many were read, and how many there will be.

    Returns:
        At least two samples, finite, in the types that the model takes; what was guessed or skipped is in the notes.

    Raises:
        InputError: they are missing, can't be read, or do not fit.
        SourceError: the function can't be found.
        UsageError: --mean or --std do not go with the images.
    """
    if isinstance(data, (str, Path)):
        samples = _from_text(str(data), subject, options, progress)
    else:
        samples = data if isinstance(data, Samples) else functions.from_python(data, subject, options.samples, progress)
    if len(samples) < LEAST:
        raise InputError(
            f"{samples.name} holds {counted(len(samples))}, and at least {LEAST} are needed", hint="give more"
        )
    return samples if len(samples) <= options.samples else samples.some(spread(len(samples), options.samples))


def _from_text(text: str, subject: Subject, options: Calibration, progress: Progress | None) -> Samples:
    path = Path(text)
    if path.is_dir():
        return images.from_folder(path, subject, options, progress)
    if not path.exists():
        if usercode.is_factory(text) and usercode.is_there(text):
            return functions.from_function(text, subject, options.samples, progress)
        raise _no_such_file(path)
    if not path.is_file():  # a pipe would be waited for
        raise InputError(f"{text} is a pipe or a device, not a file", hint=_KINDS)
    suffix = path.suffix.lower()
    if suffix == ".py":
        raise InputError(f"{text} is a Python file, and which function gives samples is not said", f"write {text}:NAME")
    if suffix in images.SUFFIXES:
        raise InputError(f"{text} is one image", hint=f"give the folder with the images: {path.parent}")
    if suffix not in tensors.SUFFIXES:
        raise InputError(f"{text} is of no kind that samples are read from", hint=_KINDS)
    found = tensors.read(path)
    if isinstance(found, (list, tuple)) and not all(isinstance(part, tensors.Column) for part in found):
        return functions.from_python(found, subject, options.samples, progress, path.name)
    return tensors.from_columns(found, subject, path.name, options.samples, progress)


def _no_such_file(path: Path) -> InputError:
    try:
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], n=1)
    except OSError:
        near = []
    return InputError(
        f"{path}: no such file or folder", hint=f"did you mean {path.parent / near[0]}?" if near else _KINDS
    )
