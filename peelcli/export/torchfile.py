"""The whole slim module in a pickle: the user's own class, loaded again with torch.load(weights_only=False)."""

from __future__ import annotations

import io
import sys
import sysconfig
from pathlib import Path

import torch
from torch import nn

from peelcli import files
from peelcli.errors import CheckFailed, ExportError
from peelcli.export.inputs import Example, run
from peelcli.export.modules import evaluated, largest_difference
from peelcli.records import Check, Subject


def write(slim: Subject, path: Path, name: str) -> tuple[Check, ...]:
    """Pickle the module as it is, load it again and compare every tensor and an output bit by bit.

    Args:
        slim: not changed.
        path: the staged file.
        name: how the file is called in messages.

    Raises:
        ExportError: the module can't be pickled.
        CheckFailed: what was loaded is not what was written.
    """
    buffer = io.BytesIO()  # in memory first: torch turns a full disk into an error of its own
    try:
        torch.save(slim.module, buffer)
    except Exception as error:  # pickle raises AttributeError, TypeError, PicklingError, ...
        raise ExportError(
            f"the module can't be pickled: {_line(error)}",
            hint="write .safetensors or .onnx with --out, or move what can't be pickled out of the module",
        ) from error
    files.write_bytes(path, buffer.getbuffer())
    del buffer
    try:
        again = torch.load(path, weights_only=False)
    except Exception as error:  # the user's classes run here
        raise CheckFailed(f"{name} does not load again: {_line(error)}, nothing was written") from error
    difference = _compare(slim, again)
    if difference > 0:
        raise CheckFailed(f"{name} loads again as another model (difference {difference:.1e}), nothing was written")
    return (Check("pt_reload", True, difference, 0.0, _needs(slim.module)),)


def _compare(slim: Subject, again: nn.Module) -> float:
    ours, theirs = slim.module.state_dict(), again.state_dict()
    if ours.keys() != theirs.keys():
        return float("inf")
    tensors = [key for key, value in ours.items() if isinstance(value, torch.Tensor)]
    example = Example.of(slim.inputs)
    return max(
        largest_difference([theirs[key] for key in tensors], [ours[key] for key in tensors]),
        largest_difference(run(evaluated(again), example), run(evaluated(slim.module), example)),
    )


def _needs(module: nn.Module) -> str:
    """A word on classes that no installed package brings: they must be importable where the file is loaded."""
    installed = tuple(sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib"))
    own = set()
    for part in module.modules():
        kind = type(part)
        source = getattr(sys.modules.get(kind.__module__), "__file__", None)
        if source is None or not str(Path(source).resolve()).startswith(tuple(map(str, map(_resolved, installed)))):
            own.add(f"{kind.__module__}.{kind.__qualname__}")
    return f"to load it, {', '.join(sorted(own))} must be importable" if own else ""


def _resolved(folder: str) -> Path:
    return Path(folder).resolve()


def _line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
