"""What must hold of every command, whatever it was given."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.faults import whole
from tests.support.station import Ran

_PROGRESS = re.compile(r"[\w ]+ \d+/\d+: ")  # a line about a stage that takes long
_VIOLATED = "peel: violated: "  # `peel report` tells each bound that does not hold


@dataclass(frozen=True)
class Seen:
    """One entry of a folder: its kind and mode, when it was changed, and its bytes or where it leads."""

    mode: int
    changed: int
    content: bytes


def seen(folder: Path) -> dict[str, Seen]:
    """Everything below a folder; of folders themselves only that they are there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        if stat.S_ISLNK(about.st_mode):
            content = os.fsencode(path.readlink())
        else:
            content = path.read_bytes() if stat.S_ISREG(about.st_mode) else b""
        changed = 0 if stat.S_ISDIR(about.st_mode) else about.st_mtime_ns
        found[str(path.relative_to(folder))] = Seen(about.st_mode, changed, content)
    return found


def faults(ran: Ran, folder: Path, before: Mapping[str, Seen], outputs: tuple[str, ...] = ()) -> list[str]:
    """Everything that is wrong with a run, in words; empty where it behaved.

    Args:
        ran: what the command did.
        folder: that it ran in.
        before: what was there, see `seen`.
        outputs: names that it may write or replace, and folders that it may fill; each file there must be whole.
    """
    after = seen(folder)
    return [*_told(ran), *_left(ran, after, before, outputs), *_parts(folder, after, before)]


def _told(ran: Ran) -> Iterator[str]:
    """Exit code and messages."""
    if ran.code is None:
        yield f"it hung for {ran.seconds:.0f} s"
        return
    if ran.code not in (0, 1, 2):
        yield f"exit code {ran.code}"
    for word in ("Traceback", "internal error"):
        if word in ran.stderr or word in ran.stdout:
            yield f"{word}: {ran.stderr.strip()[-300:]}"
    if ran.temporary:
        yield f"it left temporary files: {ran.temporary}"
    lines = [line for line in ran.stderr.splitlines() if not _PROGRESS.match(line) and not line.startswith(_VIOLATED)]
    messages = [line for line in lines if line.startswith("peel: ")]
    if ran.code == 2:
        if len(messages) != 1:
            yield f"{len(messages)} messages: {ran.stderr[-300:]!r}"
        if ran.stdout:
            yield f"a result in spite of exit code 2: {ran.stdout[:200]!r}"
    odd = [line for line in lines if not line.startswith(("peel: ", "hint: "))]
    if odd:
        yield f"lines that are no message: {odd[:3]}"
    if any(not character.isprintable() for line in lines for character in line):
        yield f"a control character reaches the terminal: {lines}"


def _left(ran: Ran, after: Mapping[str, Seen], before: Mapping[str, Seen], outputs: tuple[str, ...]) -> Iterator[str]:
    """Files that were changed, or came, without a right to."""

    def may(name: str) -> bool:
        return any(name == own or name.startswith(f"{own}/") for own in outputs)

    for name, old in before.items():
        if after.get(name) != old and not (may(name) and ran.code != 2):
            yield f"{name} was {'changed' if name in after else 'removed'}"
    new = [name for name in after if name not in before]
    if any(Path(name).name.startswith(".peel-") for name in new):
        yield f"temporary files are left: {new}"
    allowed = [name for name in new if may(name) and (ran.code != 2 or stat.S_ISDIR(after[name].mode) or "/" in name)]
    if len(allowed) < len(new):
        yield f"it wrote {sorted(set(new) - set(allowed))} and ended with {ran.code}"


def _parts(folder: Path, after: Mapping[str, Seen], before: Mapping[str, Seen]) -> Iterator[str]:
    """Files under a final name that are not whole."""
    for name, content in after.items():
        if before.get(name) == content or not stat.S_ISREG(content.mode):
            continue
        problem = whole.problem(folder / name)
        if problem:
            yield f"{name} is not whole: {problem}"
