"""Want of memory, told apart from mistakes: libraries have many words for it, and some of them end the process."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from peelcli import units
from peelcli.errors import PeelError

LESS = "give a smaller --input, fewer --samples, a smaller --batch, or a larger machine"
_SIGNS = (
    *("can't allocate memory", "Cannot allocate memory", "bad_alloc", "out of memory", "bad allocation"),
    *("could not create a primitive", "failed to map segment"),  # oneDNN, and the loader of libraries
)
_LEAST = 64 * 2**20  # bytes; with less, libraries in C++ crash instead of raising


def is_wanting(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is for want of memory."""
    while error is not None:
        told = str(error)
        if isinstance(error, MemoryError) or any(sign in told for sign in _SIGNS):
            return True
        if isinstance(error, SystemError) and _left() is not None:  # an extension that did not notice
            return True
        error = error.__cause__ or error.__context__
    return False


def check() -> None:
    """Refuse to start work that a limit on the address space would end without a word.

    Raises:
        PeelError: `ulimit -v` leaves too little.
    """
    left = _left()
    if left is not None and left < _LEAST:
        told = units.file_size(max(0, left))
        raise PeelError(
            f"`ulimit -v` leaves {told} of memory, and {units.file_size(_LEAST)} are the least",
            hint="raise the limit, e.g. ulimit -v unlimited",
        )


def _left() -> int | None:
    """Bytes of address space that this process may still take; None where nothing limits it."""
    with suppress(ImportError, OSError, ValueError):  # other systems have neither
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        return None if limit == resource.RLIM_INFINITY else limit - pages * resource.getpagesize()
    return None
