"""A rebuilt module against onnxruntime, which runs the file itself."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from peelcli.errors import SourceError
from peelcli.sources.onnxfile.fold import from_array, to_array
from peelcli.sources.onnxfile.read import OnnxFile

TOLERANCE = 1e-4  # of the largest output; as for the files that peel writes
_HALF_TOLERANCE = 2e-2


class Runtime:
    """onnxruntime with one file, on the CPU, without libraries of custom ops."""

    def __init__(self, file: OnnxFile) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise SourceError(f"{file.path} can't be checked without onnxruntime", "pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors come back as exceptions
        self._file = file
        try:
            providers = ["CPUExecutionProvider"]
            with contextlib.redirect_stdout(io.StringIO()):  # it prints what it also raises
                self._session = onnxruntime.InferenceSession(str(file.path), options, providers=providers)
        except Exception as error:  # onnxruntime's own types, one for each status code
            raise _does_not_run(file, error) from error

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The graph's outputs.

        Raises:
            SourceError: onnxruntime does not run the file on these inputs.
        """
        feed: dict[str, Any] = {
            value.name: to_array(tensor.contiguous()) for value, tensor in zip(self._file.inputs, inputs, strict=True)
        }
        try:
            return [from_array(array) for array in self._session.run(None, feed)]
        except Exception as error:  # as above
            raise _does_not_run(self._file, error) from error


def _does_not_run(file: OnnxFile, error: Exception) -> SourceError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return SourceError(
        f"onnxruntime does not run {file.path}: {(lines[0] if lines else type(error).__name__)[:200]}",
        hint="check the file with onnx.checker, or export the model again",
    )


def run(module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The module's outputs as a list."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            made = module(*inputs)
    except Exception as error:  # torch, on sizes or positions that do not fit
        lines = str(error).splitlines()
        raise SourceError(
            f"the module made from the file does not run: {(lines[0] if lines else type(error).__name__)[:200]}",
            hint="give the PyTorch model that it was made from",
        ) from error
    return [made] if isinstance(made, Tensor) else list(made)


def difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest difference relative to the largest entry, over all outputs; infinite where they can't be compared."""
    if len(ours) != len(theirs):
        return float("inf")
    return max((_of_one(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def _of_one(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return float("inf")
    a, b = ours.detach().double().flatten(), theirs.double().flatten()
    finite = b.isfinite()
    if not torch.equal(a.isfinite(), finite) or not torch.equal(
        a[~finite].nan_to_num(nan=0.5), b[~finite].nan_to_num(nan=0.5)
    ):
        return float("inf")
    if not bool(finite.any()):
        return 0.0
    return float((a - b)[finite].abs().max()) / (float(b[finite].abs().max()) or 1.0)


def tolerance(file: OnnxFile) -> float:
    """Looser for files in half precision."""
    half = {torch.float16, torch.bfloat16}
    return _HALF_TOLERANCE if half & {tensor.dtype for tensor in file.weights.values()} else TOLERANCE
