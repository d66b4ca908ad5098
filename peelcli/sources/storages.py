"""Tensors of a TorchScript archive against the bytes that are there.

torch's own reader takes a pickle's word for how long a record is, and for sizes and strides: a tensor that claims more
than its record holds is read from whatever lies behind it in memory, or ends the process.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from peelcli.sources.scan import Malformed, Storage, scan
from peelcli.sources.sniff import cut_short

_PICKLES = ("data.pkl", "constants.pkl")  # those that loading reads; each has a folder of records of its own name
_BYTES = {  # of an entry, by torch's classes of storages
    **dict.fromkeys(("BoolStorage", "ByteStorage", "CharStorage", "QInt8Storage", "QUInt8Storage"), 1),
    **dict.fromkeys(("ShortStorage", "HalfStorage", "BFloat16Storage"), 2),
    **dict.fromkeys(("IntStorage", "FloatStorage", "QInt32Storage"), 4),
    **dict.fromkeys(("LongStorage", "DoubleStorage", "ComplexFloatStorage"), 8),
    "ComplexDoubleStorage": 16,
}


def check(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse an archive in which a tensor reaches beyond its record.

    Raises:
        SourceError: one does, or a pickle breaks off.
    """
    for entry in archive.infolist():
        inner = PurePosixPath(entry.filename.partition("/")[2])
        if str(inner) in _PICKLES:
            try:
                found = scan(io.BytesIO(archive.read(entry)))
            except (Malformed, zipfile.BadZipFile, EOFError):
                raise cut_short(path) from None
            folder = entry.filename.removesuffix(".pkl")
            whole = all(_holds(archive, folder, storage) for storage in found.storages)
            if not whole or not all(_fits(view) for view in found.views):
                raise cut_short(path)


def _holds(archive: zipfile.ZipFile, folder: str, storage: Storage) -> bool:
    """Whether the record of a storage is as long as it claims."""
    try:
        held = archive.getinfo(f"{folder}/{storage.record}").file_size
        return 0 <= storage.entries * _BYTES[storage.kind] <= held
    except KeyError:
        return False


def _fits(view: tuple[Any, ...]) -> bool:
    """Whether the last entry of a tensor lies in its storage."""
    match view:
        case (Storage(entries=entries), int(offset), tuple(sizes), tuple(strides)):
            numbers: tuple[Any, ...] = (offset, *sizes, *strides)
            if len(sizes) != len(strides) or not all(isinstance(number, int) and number >= 0 for number in numbers):
                return False
            last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
            return 0 in sizes or bool(last < entries)
        case _:
            return False
