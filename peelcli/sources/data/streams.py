"""Data that is read each time it is wanted: folders that are larger than memory, and data sets of the user's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peelcli.config import Calibration
from peelcli.errors import InputError
from peelcli.records import Subject
from peelcli.samples import Inputs
from peelcli.sources import usercode
from peelcli.sources.data import functions, items
from peelcli.sources.data.collect import MOST_BYTES, Collector
from peelcli.sources.data.images import Folder
from peelcli.sources.data.items import Item
from peelcli.tensors import tensors_in

_PROVED = 8  # samples that are tried on the model before anything else


class Stream:
    """Samples by position.

    Attributes:
        name: where they come from, for messages.
        labelled: whether they have targets.
        steady: whether a sample is the same each time that it is read.
        digest: of what is known of them without reading all.
        notes: what was assumed, one sentence each.
    """

    def __init__(
        self, name: str, length: int, item: Callable[[int], Item | None], subject: Subject, steady: bool, digest: str
    ) -> None:
        """Read a few, and see that the model takes them.

        Args:
            name: for messages.
            length: how many there are.
            item: the sample at a position; None where it can't be read.
            subject: the model.
            steady: see above.
            digest: see above.

        Raises:
            InputError: there are too few, or they do not fit.
        """
        self.name, self.steady, self.digest, self._length, self._item = name, steady, digest, length, item
        self._collector = Collector(subject, name, length)
        tried = [self._readable(position) for position in range(min(_PROVED, length))]
        for found in tried:
            self._collector.add(found)
        self._collector.finished()
        self.labelled = tried[0].labelled
        self.notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self._length

    def read(self, position: int) -> tuple[Inputs, Any]:
        """Forward's arguments for one sample, tensors of shape (1, ...), and its target.

        Raises:
            InputError: it can't be read, or what is there has another form than the first ones.
        """
        found = self._readable(position)
        return self._collector.suited(found.inputs), found.target

    def _readable(self, position: int) -> Item:
        """The sample, or the next one that can be read: one damaged file must not end a long run."""
        for at in range(position, position + self._length):
            found = self._item(at % self._length)
            if found is not None:
                return found
        raise InputError(f"{self.name}: nothing can be read", hint="look whether the files open elsewhere")


def stream(data: Any, subject: Subject, options: Calibration) -> Stream | None:
    """Data that had better be read as it is wanted; None for what is read whole.

    Args:
        data: as for `load_samples`.
        subject: the model.
        options: how images are read.

    Raises:
        InputError: there is nothing, or it does not fit the model.
        SourceError: the user's function can't be found.
    """
    if isinstance(data, (str, Path)) and Path(data).is_dir():
        return _folder(Path(data), subject, options)
    if isinstance(data, str) and not Path(data).exists() and usercode.is_factory(data) and usercode.is_there(data):
        value = functions.called(data)
        place, _, name = data.rpartition(":")
        return _data_set(value, f"{Path(place).name}:{name}", subject) if functions.is_data_set(value) else None
    return _data_set(data, "the data", subject) if functions.is_data_set(data) else None


def _folder(path: Path, subject: Subject, options: Calibration) -> Stream | None:
    found = Folder(path, subject, options)
    if len(found.paths) * found.look.channels * found.look.height * found.look.width * 4 <= MOST_BYTES:
        return None
    told = hashlib.sha256()
    for file in found.paths:
        told.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
    length = len(found.paths)
    made = Stream(found.name, length, lambda at: found.item(found.paths[at]), subject, True, told.hexdigest())
    made.notes = tuple(found.notes())
    return made


def _data_set(value: Any, name: str, subject: Subject) -> Stream:
    def item(position: int) -> Item:
        try:
            raw = value[position]
        except (Exception, SystemExit) as error:
            raise InputError(f"{name} raised {usercode.told(error)}", hint="see that it runs on its own") from error
        singles = list(items.singles(raw, subject, name))
        if len(singles) != 1 or not tensors_in(singles[0].inputs):
            raise InputError(f"{name} gave {len(singles)} samples at position {position}", hint="give one at a time")
        return singles[0]

    digest = hashlib.sha256(f"{name} {len(value)}".encode()).hexdigest()
    return Stream(name, len(value), item, subject, False, digest)
