"""What happened at each step, as JSON lines, and for TensorBoard where that is wanted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from peelcli import files
from peelcli.errors import UsageError

NAME = "metrics.jsonl"
BOARD = "tensorboard"


def require(kind: str) -> None:
    """Refuse, before any work, a log for which a package is missing.

    Raises:
        UsageError: with the command that installs it.
    """
    if kind != BOARD:
        return
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UsageError("--log tensorboard needs TensorBoard", hint="pip install tensorboard") from None


class Log:
    """Lines of one run; on resuming, those after the checkpoint are written again."""

    def __init__(self, folder: Path | None, kind: str, step: int) -> None:
        """Open the log.

        Args:
            folder: where it goes; None keeps no log.
            kind: "none" or "tensorboard".
            step: steps that are done; later lines of the file are dropped, and damaged ones.
        """
        self.notes: list[str] = []
        self._file: TextIO | None = None
        self._board: Any = None
        if folder is None:
            return
        path = folder / NAME
        kept = [line for line in _lines(path) if _step(line) <= step]
        files.write_text_atomically(path, "".join(f"{line}\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")
        if kind == BOARD:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / BOARD), purge_step=step + 1)

    def add(self, step: int, values: Mapping[str, float | None]) -> None:
        """One line: the step and its figures, those that are there."""
        known = {name: value for name, value in values.items() if value is not None}
        if self._file is not None:
            with self._unless_full(step):
                self._file.write(json.dumps({"step": step, **known}) + "\n")
        for name, value in known.items() if self._board is not None else ():
            self._board.add_scalar(name, value, step)

    def flush(self, step: int) -> None:
        """Put on the disk what was said so far."""
        if self._file is not None:
            with self._unless_full(step):
                self._file.flush()

    def close(self, step: int) -> None:
        """The run is over."""
        self.flush(step)
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    @contextmanager
    def _unless_full(self, step: int) -> Iterator[None]:
        """A log that can't be written ends; training goes on without it."""
        try:
            yield
        except OSError as error:
            self.notes.append(f"{NAME} ends before step {step}: {(error.strerror or str(error)).lower()}")
            with suppress(OSError):
                if self._file is not None:
                    self._file.close()
            self._file = None


def _lines(path: Path) -> list[str]:
    """Whole lines of an earlier run; a last one that was cut short is no line."""
    if not path.exists():
        return []
    text = path.read_text("utf-8", errors="replace")
    return text[: text.rfind("\n") + 1].splitlines()


def _step(line: str) -> float:
    """The step that a line is of; beyond all steps where it is damaged."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return math.inf
    return step if isinstance(step, int) else math.inf
