"""What a file is, decided by its content; nothing in it is executed."""

from __future__ import annotations

import stat
import zipfile
from enum import Enum
from pathlib import Path

from peelcli.errors import SourceError

_HEAD = 4096  # bytes looked at in files that are no zip archives
_SAFETENSORS_HEADER_MAX = 100_000_000  # bytes; the format's own bound
_ONNX_FIELDS = b"\x12\x1a\x22\x28\x32\x3a\x42"  # tags of the other fields of ModelProto
_UNUSABLE = (  # (first bytes, what it is, what to do)
    (b"\x89HDF\r\n", "an HDF5 file (Keras?)", "peel reads PyTorch models; export the weights to a state dict first"),
    (b"\x93NUMPY", "a NumPy array", "peel needs a model; see `peel prune --help`"),
    (b"GGUF", "a GGUF file", "peel needs the PyTorch checkpoint that it was made from"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first: gunzip FILE"),
    (b"BZh", "a bzip2 archive", "unpack it first: bunzip2 FILE"),
    (b"\xfd7zXZ\x00", "an xz archive", "unpack it first: unxz FILE"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch the file: git lfs pull"),
)


class Kind(Enum):
    """The containers that a model can come in."""

    TORCH_ZIP = "torch checkpoint"
    TORCH_LEGACY = "torch checkpoint in the format before torch 1.6, or a bare pickle"
    TORCHSCRIPT = "TorchScript archive"
    EXPORTED = "torch.export archive"
    SAFETENSORS = "safetensors file"
    ONNX = "ONNX file"


def sniff(path: Path) -> Kind:
    """Tell what a model file is.

    Raises:
        SourceError: there is no such file, or it is nothing that a model comes in.
    """
    size = _size(path)
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(b"PK"):
        return _inside_zip(path)
    if _is_safetensors(head, path, size):
        return Kind.SAFETENSORS
    for magic, what, hint in _UNUSABLE:
        if head.startswith(magic):
            raise SourceError(f"{path} is {what}", hint=hint)
    if head[0] == 0x80 or _is_text_pickle(path, head):
        return Kind.TORCH_LEGACY
    if _is_onnx(head):
        return Kind.ONNX
    if _is_text(head):
        raise SourceError(f"{path} is a text file, not a model", hint=_text_hint(path))
    raise SourceError(
        f"{path} is no model file that peel knows ({size} bytes)",
        hint="save the model with torch.save(model, 'model.pt') and give that file",
    )


def _size(path: Path) -> int:
    if path.is_dir():
        hint = f"for a transformers folder write hf:{path}" if (path / "config.json").is_file() else "give a file"
        raise SourceError(f"{path} is a directory, not a model file", hint=hint)
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for, a device has no end
            raise SourceError(f"{path} is a pipe or a device, not a file", hint="copy it into a file first")
        size = about.st_size
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file", hint="check the path; names look like timm:resnet50") from None
    except OSError as error:
        raise SourceError(f"{path} can't be read: {error.strerror}", hint="check the file's permissions") from None
    if size == 0:
        raise SourceError(f"{path} is empty", hint="copy or save the model file again")
    return size


def cut_short(path: Path) -> SourceError:
    """The error for a file whose end is missing or damaged."""
    return SourceError(f"{path} is truncated or damaged", hint="copy, download or save the file again")


def _inside_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, OSError):
        raise cut_short(path) from None  # a zip's directory stands at its end
    inner = {name.partition("/")[2] for name in names}
    if any(name.startswith("models/") and name.endswith(".json") for name in inner):
        return Kind.EXPORTED
    if "serialized_exported_program.json" in inner | set(names):
        return Kind.EXPORTED
    if "constants.pkl" in inner:
        return Kind.TORCHSCRIPT
    if "data.pkl" in inner:
        return Kind.TORCH_ZIP
    raise SourceError(
        f"{path} is a zip archive with no model in it", hint="save the model with torch.save(model, 'model.pt')"
    )


def _is_safetensors(head: bytes, path: Path, size: int) -> bool:
    """Eight bytes of length, then a JSON object of that length."""
    if len(head) < 9 or head[8:9] != b"{":
        return False
    length = int.from_bytes(head[:8], "little")
    if length > _SAFETENSORS_HEADER_MAX:
        return False
    if 8 + length > size:
        raise cut_short(path)
    return True


def _is_text_pickle(path: Path, head: bytes) -> bool:
    """Whether a file without the mark of protocols 2 and above is a whole pickle of an older one that imports."""
    from peelcli.sources import scan

    if not head.startswith((b"c", b"(", b"i", b"]", b"}", b"g")):  # what such a pickle can open with
        return False
    try:
        with path.open("rb") as file:
            return bool(scan.scan(file).imports)
    except scan.Malformed:
        return False


def _is_onnx(head: bytes) -> bool:
    """A protobuf that opens with field 1, ir_version, a small number, and goes on with another field of ModelProto."""
    return len(head) > 2 and head[0] == 0x08 and 0 < head[1] < 32 and head[2] in _ONNX_FIELDS


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # a character may be cut at the end of the head
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character.isspace() for character in text)


def _text_hint(path: Path) -> str:
    if path.suffix == ".py":
        return f"for a function that builds the model write {path}:FUNCTION"
    return "give a file saved with torch.save, or a name such as timm:resnet50"
