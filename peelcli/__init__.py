"""Compress a trained PyTorch model to a stated budget in one round.

The names below come from `peelcli.pipeline` on first use, so that `import peelcli` and `peel --help` load no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peelcli.pipeline import apply, finetune, inspect, load, plan, prune

__version__ = "0.1.0"
__all__ = ["__version__", "apply", "finetune", "inspect", "load", "plan", "prune"]


def __getattr__(name: str) -> Any:
    """Take a public name from the pipeline, which loads torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module("peelcli.pipeline"), name)
    globals()[name] = value  # the next look-up finds it here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
