"""Compress a trained PyTorch model to a stated budget in one round.

The functions come from `peelcli.pipeline` on first use, so that `import peelcli` and `peel --help` load no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from peelcli.errors import (
    BudgetOutOfReach,
    CheckFailed,
    ExportError,
    InputError,
    NothingToPrune,
    PeelError,
    PlanError,
    SourceError,
    TraceError,
    UntrustedPickle,
    UsageError,
)

if TYPE_CHECKING:
    from peelcli.pipeline import apply, finetune, inspect, load, plan, prune

__version__ = "0.1.0"
_FROM_PIPELINE = ("apply", "finetune", "inspect", "load", "plan", "prune")
__all__ = [
    "BudgetOutOfReach", "CheckFailed", "ExportError", "InputError", "NothingToPrune", "PeelError", "PlanError",
    "SourceError", "TraceError", "UntrustedPickle", "UsageError", "__version__",
    "apply", "finetune", "inspect", "load", "plan", "prune",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Take a public name from the pipeline, which loads torch."""
    if name not in _FROM_PIPELINE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module("peelcli.pipeline"), name)
    globals()[name] = value  # the next look-up finds it here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
