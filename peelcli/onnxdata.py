"""ONNX files as they lie on the disk: one protobuf, and data files beside it, in its own folder and nowhere else."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from peelcli.errors import SourceError

if TYPE_CHECKING:
    import onnx

COPY_AGAIN = "copy the model again, with the data files that belong to it"
LARGEST = 2**31 - 1  # bytes of one protobuf message


def parse(path: Path) -> onnx.ModelProto:
    """The protobuf of a file, its tensors where they are.

    Raises:
        SourceError: it is too large for a protobuf, or is none.
    """
    import onnx

    size = path.stat().st_size
    if size > LARGEST:
        raise SourceError(f"{path} is larger than a protobuf can be ({size} bytes)", hint="is it a weights file?")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, and what its back ends raise instead
        raise SourceError(f"{path} is truncated or damaged", hint="copy, download or export the file again") from error
    return model


def place(proto: onnx.TensorProto, path: Path, needed: int) -> tuple[Path, int]:
    """The data file of a tensor, and where in it the tensor starts.

    Args:
        proto: a tensor with external data.
        path: the ONNX file.
        needed: bytes that the tensor's sizes and type ask for.

    Raises:
        SourceError: the data lies outside of the folder, is not there, or is not as long as it should be.
    """
    said = {entry.key: entry.value for entry in proto.external_data}
    source = _inside(said.get("location", ""), path)
    damaged = SourceError(f"{path} is damaged: {proto.name!r} does not fit into {source.name}", hint=COPY_AGAIN)
    try:
        offset, length = int(said.get("offset", "0") or 0), int(said.get("length", "") or needed)
    except ValueError:
        raise damaged from None
    if offset < 0 or length != needed or offset + length > source.stat().st_size:
        raise damaged
    return source, offset


def _inside(location: str, path: Path) -> Path:
    """The data file, which must lie in the folder of the ONNX file; links that lead out of it do not count.

    Raises:
        SourceError: it lies elsewhere, or is not there.
    """
    parts = {*PurePosixPath(location).parts, *PureWindowsPath(location).parts}
    outside = not location or "\0" in location or ".." in parts or PureWindowsPath(location).anchor
    folder = path.resolve().parent
    source = folder if outside else (folder / location).resolve()
    if outside or PurePosixPath(location).is_absolute() or not source.is_relative_to(folder):
        raise SourceError(
            f"{path} wants data from outside of its folder: {location[:200]!r}",
            hint="put the data file beside the model and save it again with onnx.save",
        )
    if not source.is_file():
        raise SourceError(f"{path} needs its data file {location[:200]}, which is not there", hint=COPY_AGAIN)
    return source
