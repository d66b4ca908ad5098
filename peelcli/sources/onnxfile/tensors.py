"""Tensors of an ONNX file: their data must be there, be as long as the sizes say, and lie in the file's own folder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from peelcli import onnxdata
from peelcli.errors import SourceError
from peelcli.onnxdata import COPY_AGAIN
from peelcli.sources.onnxfile.fold import from_array
from peelcli.sources.onnxfile.ops.base import DTYPES

_WIDTHS = {  # types whose numbers lie in a typed list, where they are not raw: how many entries make one number
    1: "float_data", 11: "double_data", 7: "int64_data", 12: "uint64_data", 13: "uint64_data",
}  # fmt: skip


def dtype_of(code: int, path: Path) -> torch.dtype:
    """Torch's type for one of ONNX's.

    Raises:
        SourceError: it has none: text, complex numbers, or numbers of few bits.
    """
    if code not in DTYPES:
        name = onnx.TensorProto.DataType.Name(code) if code in onnx.TensorProto.DataType.values() else str(code)
        raise SourceError(
            f"{path} holds tensors of type {name}, which peel can't prune",
            hint="export the model in float32 or float16, not quantised",
        )
    return DTYPES[code]


def read(proto: onnx.TensorProto, path: Path) -> Tensor:
    """One tensor, from the file itself or from a data file beside it.

    Args:
        proto: an initializer, or a constant in a node.
        path: the ONNX file.

    Raises:
        SourceError: sizes and data contradict each other, or the data lies elsewhere.
    """
    dtype = dtype_of(proto.data_type, path)
    if any(size < 0 for size in proto.dims) or len(proto.dims) > 64:
        raise SourceError(f"{path} is damaged: {proto.name!r} has the sizes {list(proto.dims)[:8]}", COPY_AGAIN)
    entries = math.prod(proto.dims)
    needed = entries * dtype.itemsize
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        return _decoded(_external(proto, path, needed), proto)
    if proto.HasField("raw_data"):
        if len(proto.raw_data) != needed:
            raise _contradiction(proto, path, needed, len(proto.raw_data))
        return _decoded(proto.raw_data, proto)
    held = len(getattr(proto, _WIDTHS.get(proto.data_type, "int32_data")))
    if held != entries:
        raise _contradiction(proto, path, entries, held)
    try:
        return from_array(np.asarray(numpy_helper.to_array(proto)))
    except (ValueError, TypeError, OverflowError):
        raise _contradiction(proto, path, entries, held) from None


def _decoded(data: bytes, proto: onnx.TensorProto) -> Tensor:
    dtype = DTYPES[proto.data_type]
    if not data:
        return torch.empty(tuple(proto.dims), dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(tuple(proto.dims))  # both are little-endian


def _contradiction(proto: onnx.TensorProto, path: Path, needed: int, held: int) -> SourceError:
    sizes = "x".join(map(str, list(proto.dims)[:8])) or "a scalar"
    return SourceError(
        f"{path} is damaged: {proto.name or 'a constant'!r} is {sizes}, which needs {needed}, and holds {held}",
        hint=COPY_AGAIN,
    )


def _external(proto: onnx.TensorProto, path: Path, needed: int) -> bytes:
    """The bytes of one tensor in a data file."""
    source, offset = onnxdata.place(proto, path, needed)
    with source.open("rb") as file:
        file.seek(offset)
        return file.read(needed)
