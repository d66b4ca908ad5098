"""What onnxruntime can run a model on here, under short names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import onnxruntime

from peelcli.errors import UsageError

_SUFFIX = "ExecutionProvider"
_REMOTE = "azure"  # sends the model away: nothing that a machine can be measured by


def available() -> tuple[str, ...]:
    """Short names of the providers of this onnxruntime: cpu, cuda, coreml, ..."""
    names = (short(name) for name in onnxruntime.get_available_providers())
    return tuple(sorted(name for name in names if name != _REMOTE))


def short(name: str) -> str:
    """CPUExecutionProvider becomes cpu."""
    return name.removesuffix(_SUFFIX).lower()


def full(name: str) -> str:
    """The name that onnxruntime knows a provider by.

    Raises:
        UsageError: this onnxruntime does not have it.
    """
    for known in onnxruntime.get_available_providers():
        if name.lower() in (short(known), known.lower()) and short(known) != _REMOTE:
            return str(known)
    raise UsageError(f"this onnxruntime has no provider {name!r}", hint=_hint(name))


def _hint(name: str) -> str:
    known = available()
    near = difflib.get_close_matches(name.lower(), known, n=1)
    more = "; for a GPU install onnxruntime-gpu" if "cuda" in name.lower() else ""
    return (f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}") + more


def default() -> Sequence[str]:
    """The CPU, and the GPU where onnxruntime has one."""
    return [name for name in ("cpu", "cuda") if name in available()]
