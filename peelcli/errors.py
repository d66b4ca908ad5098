"""Every failure that a user can act on: what happened, and a hint with the next command.

A PeelError reaches the user as one line, a hint and an exit code. What nobody can act on is an assert.
"""

from __future__ import annotations

from collections.abc import Sequence

DONE = 0
CHECK_FAILED = 1
BAD_INPUT = 2


class PeelError(Exception):
    """A failure with a message in one line, a hint that names the next step, and an exit code."""

    exit_code = BAD_INPUT

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def add(self, more: str) -> None:
        """Say what came before the failure, in the same line."""
        self.message = f"{self.message}; {more}"
        self.args = (self.message,)


class UsageError(PeelError):
    """A flag, a setting or an argument that can't be used."""


class SourceError(PeelError):
    """A model file or name that can't be turned into a module."""


class UntrustedPickle(SourceError):
    """A pickle that would import or call more than plain tensors and modules."""

    def __init__(self, path: str, imports: Sequence[str]) -> None:
        super().__init__(
            f"{path} would import code on loading, nothing was executed: {', '.join(imports)}",
            hint="if you made this file yourself, add --trust (or --code FILE.py to bring its classes)",
        )
        self.imports = tuple(imports)


class InputError(PeelError):
    """An example input that is missing, can't be parsed, or does not fit the model."""


class TraceError(PeelError):
    """A model whose channels can't be followed."""


class NothingToPrune(PeelError):
    """A model in which no group of channels may shrink."""


class PlanError(PeelError):
    """A plan file that can't be read, or that was made for another model."""


class ExportError(PeelError):
    """A model that can't be written in the format asked for."""


class CheckFailed(PeelError):
    """A proof that did not hold: the result is not written."""

    exit_code = CHECK_FAILED


class BudgetOutOfReach(PeelError):
    """A budget below the least that the legal widths can cost."""

    exit_code = CHECK_FAILED

    def __init__(self, count: str, least: str, asked: str) -> None:
        super().__init__(
            f"the least {count} that this model can reach is {least}; the budget is {asked}",
            hint="see what is locked with `peel inspect`, lower --min-keep or --align, or raise the budget",
        )
