"""Readable names for layers, taken from what exporters write; each a legal path of module names, each only once."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

from torch import fx

from peelcli.onnxnames import LONGEST, of_weight, says_something

_DEEPEST = 20  # parts of a path
_TAKEN = frozenset(dir(fx.GraphModule))


class Names:
    """Paths given so far."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        """Nothing is put where one of these paths, the names of a model's tensors, needs a container."""
        self._used: set[str] = set()  # leaves, and everything above them
        self._leaves: set[str] = set()
        for path in paths:
            stem = _legal(of_weight(path) or path) if says_something(path) else ""
            parts = stem.split(".")
            self._used.update(".".join(parts[:end]) for end in range(1, len(parts)))

    def free(self, wishes: Iterable[str], otherwise: str) -> str:
        """The first wish that is still free, else the first with a number behind it."""
        paths = [path for wish in (*wishes, otherwise) if (path := _legal(wish))]
        for path in paths:
            if self._fits(path):
                return self._take(path)
        stem, number = paths[0], 1
        if any(stem.startswith(f"{leaf}.") for leaf in self._leaves):
            stem = stem.replace(".", "_")
        path = stem
        while not self._fits(path):
            path, number = f"{stem}_{number}", number + 1
        return self._take(path)

    def _fits(self, path: str) -> bool:
        """Neither used, nor below something that is a layer itself."""
        parts = path.split(".")
        above = {".".join(parts[:end]) for end in range(1, len(parts))}
        return path not in self._used and not above & self._leaves

    def _take(self, path: str) -> str:
        parts = path.split(".")
        self._used.update(".".join(parts[:end]) for end in range(1, len(parts) + 1))
        self._leaves.add(path)
        return path


def _legal(name: str) -> str:
    parts = [re.sub(r"\W+", "_", part, flags=re.ASCII).strip("_") for part in re.split(r"[./:]+", name[:LONGEST])]
    return ".".join(_legal_part(part) for part in parts[:_DEEPEST] if part)


def _legal_part(part: str) -> str:
    if part.isdigit():
        return part
    if part[0].isdigit():
        return f"n{part}"
    return f"{part}_" if keyword.iskeyword(part) or part in _TAKEN else part
