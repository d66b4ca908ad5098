"""Being asked to end: the step at hand is finished and saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from peelcli.errors import PeelError

_ASKS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(PeelError):
    """A run that was asked to end, and that can go on later."""


@contextmanager
def stopping() -> Iterator[list[int]]:
    """A list that is empty until the process is asked to end; a second time ends it at once.

    Outside the main thread, where Python delivers no signals, it stays empty.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in _ASKS}

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    for number in _ASKS:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
