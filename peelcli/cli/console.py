"""What the user sees: results on stdout, everything else on stderr; and how a run ends."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from peelcli import files
from peelcli.cli import memory
from peelcli.errors import BAD_INPUT, DONE, PeelError
from peelcli.report import escaping

if TYPE_CHECKING:
    from rich.console import RenderableType

    from peelcli.planning import Progress

_STAGES = {
    "load": "loading the model",
    "trace": "tracing which channels belong together",
    "samples": "reading samples",
    "score": "scoring layers",
    "allocate": "allocating channels",
    "choose": "trying several allocations",
    "surgery": "cutting a copy",
    "repair": "making up for what was cut",
    "judge": "comparing with the original",
    "verify": "proving the slim model",
    "tune": "training",
    "export": "writing and checking",
    "latency": "timing layers alone",
    "bench": "timing in turns",
    "sweep": "working on points",
}
_NO_TERMINAL_WIDTH = 100
_LEAST_WIDTH = 60  # tables lose figures below: a narrow terminal breaks lines instead
_TYPER_SAW_CTRL_C = 130
_BAR_CELLS = 30
_LOG_SECONDS = 10.0
_AGAIN_SECONDS = 0.01
_NAMED = 3  # files in a message
_SHOWN = 120  # characters of a path in a message


def show(renderable: RenderableType) -> None:
    """Print a result on stdout, as plain text where that is no terminal."""
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names may hold what the terminal does not have
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _NO_TERMINAL_WIDTH
    console = Console(width=width, highlight=False, soft_wrap=False)
    console.width = max(console.width, _LEAST_WIDTH)
    console.print(renderable)


def show_json(document: dict[str, Any]) -> None:
    """Print one JSON document on stdout."""
    show_utf8(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def show_utf8(text: str) -> None:
    """Print what programs read: UTF-8, whatever the terminal speaks."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode(errors="replace"))


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Go on where the reader of stdout goes away, e.g. `| head`: what is printed from then on is lost."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _deafen()


def _deafen() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(line: str) -> None:
    """Print one line on stderr."""
    sys.stderr.write(f"peel: {_in_one_line(line)}\n")


@contextlib.contextmanager
def working() -> Iterator[Progress]:
    """Keep stdout clean while libraries and user code run, and show the stage on a terminal.

    Yields:
        A function that is told the name of each stage, and (stage, done, total) as it goes on.
    """
    from rich.console import Console

    memory.check()
    stderr = Console(stderr=True)
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")  # libraries warn about themselves; what concerns the user is in the notes
        if not stderr.is_terminal:
            yield _PlainLog()
            return
        with stderr.status("starting") as status:

            def tell(stage: str, done: int = 0, total: int = 0, text: str = "") -> None:
                status.update(_line(stage, done, total, text))

            yield tell


class _PlainLog:
    """Without a terminal: a line for what has figures, the first and the last, and in between one every few seconds."""

    def __init__(self) -> None:
        self._last = -math.inf

    def __call__(self, stage: str, done: int = 0, total: int = 0, text: str = "") -> None:
        """Figures of a stage that takes long."""
        now = time.monotonic()
        if text and is_main() and (done == total or now - self._last >= _LOG_SECONDS):
            self._last = now
            sys.stderr.write(f"{_STAGES.get(stage, stage)} {done}/{total}: {text}\n")
            sys.stderr.flush()


def is_main() -> bool:
    """Whether this is the only process, or the first of those that a launcher started together: only it reports."""
    return os.environ.get("RANK", "0") == "0"


def _line(stage: str, done: int, total: int, text: str = "") -> RenderableType:
    """The stage in words; with a bar where it is known how much there is."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    words = _STAGES.get(stage, stage)
    if not total:
        return words
    line = Table.grid(padding=(0, 1))
    for _ in range(4):
        line.add_column(no_wrap=True)
    line.add_row(
        words, ProgressBar(total, done, width=_BAR_CELLS // 3 if text else _BAR_CELLS), f"{done}/{total}", text
    )
    return line


def run(command: Callable[[], int | None]) -> NoReturn:
    """Run a command and end the process with the right exit code: one line and a hint, never a traceback."""
    _open_streams()
    interrupts: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, partial(_interrupt, interrupts))
    sys.unraisablehook = _unraisable
    try:
        code = command() or DONE
        sys.stdout.flush()
        if code == _TYPER_SAW_CTRL_C:
            code = _interrupted()
    except BrokenPipeError:  # the reader of stdout went away, e.g. `| head`
        _deafen()
        code = DONE
    except (Exception, KeyboardInterrupt) as error:
        # A C extension that is interrupted while it loads raises an ImportError of its own.
        code = _explain(KeyboardInterrupt() if interrupts else error)
    sys.exit(code)


def _open_streams() -> None:
    """Streams that the caller closed lead nowhere, so that no file that is opened later takes their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))


def _explain(error: BaseException) -> int:
    """Say what went wrong and return the exit code."""
    if memory.is_wanting(error):
        return _complain("the memory is not enough for this", memory.LESS)
    if isinstance(error, PeelError):
        _complain(error.message, error.hint)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return _interrupted()
    if hasattr(error, "format_message"):  # the command line itself is wrong: typer's own kinds of error
        context = getattr(error, "ctx", None)
        told = error.format_message().replace(": Value error, ", ": ")  # pydantic's words, from inside typer
        return _complain(told, f"see `{context.command_path if context else 'peel'} --help`")
    if isinstance(error, OSError):  # the machine's: a name that is too long, a disk that is full, a link in a circle
        _deafen()  # what is left to print would fail again
        return _complain(_of_system(error), "check the path, the free space and the permissions")
    where = _save_traceback()
    summary = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return _complain(f"internal error: {summary}", f"the traceback is in {where}; please report it")


def _of_system(error: OSError) -> str:
    name = str(error.filename or "")
    shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
    return f"{shown or 'the result'} can't be {'used' if name else 'written'}: {(error.strerror or str(error)).lower()}"


def _complain(message: str, hint: str) -> int:
    """Every process says all of it: the launcher ends the others, the first one too, as soon as one has ended."""
    speaker = "peel" if is_main() else f"peel, process {os.environ['RANK']}"
    lines = [f"{speaker}: {_in_one_line(message)}\n", f"hint: {_in_one_line(hint)}\n" if hint else ""]
    sys.stderr.write("".join(lines))  # at once, so that lines of several processes stay together
    sys.stderr.flush()
    return BAD_INPUT


def _in_one_line(text: str) -> str:
    """Text that may hold names out of files, without what a terminal would obey."""
    return escaping.visible(" ".join(text.split()))


def _interrupt(interrupts: list[int], number: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM ends a run as Ctrl-C does, so that temporaries are removed."""
    interrupts.append(number)
    raise KeyboardInterrupt


def _unraisable(failure: sys.UnraisableHookArgs) -> None:
    """An interrupt that fell into a finaliser, where Python drops what is raised, comes again a little later."""
    if failure.exc_type is KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    else:
        sys.__unraisablehook__(failure)


def _interrupted() -> int:
    """Say what there is of the outputs: each is whole or absent."""
    done = [path.name for path in files.written()]
    if not done:
        return _complain("interrupted; nothing was written", "")
    more = f" and {len(done) - _NAMED} more" if len(done) > _NAMED else ""
    return _complain(f"interrupted; written before: {', '.join(done[:_NAMED])}{more}", "")


def _save_traceback() -> Path:
    with tempfile.NamedTemporaryFile("w", prefix="peel-", suffix=".traceback", delete=False, encoding="utf-8") as file:
        traceback.print_exc(file=file)
    return Path(file.name)
