"""Times of layers that were measured on this machine before, in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import onnxruntime

from peelcli import files
from peelcli.errors import PeelError
from peelcli.timings import Conditions

_FOLDER = Path("peel", "latency")


def folder() -> Path:
    """Where the XDG base directory specification puts it."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if Path(given).is_absolute() else Path.home() / ".cache") / _FOLDER


def machine() -> str:
    """What times depend on beside the layer: the processor, its cores, and onnxruntime."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.machine()}, onnxruntime {onnxruntime.__version__}"


def _processor() -> str:
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        kinds = [
            line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "flags", "Features"))
        ]
        if kinds:
            return f"{kinds[0]} {hashlib.sha256(' '.join(sorted(set(kinds))).encode()).hexdigest()[:8]}"
    return platform.processor() or "unknown processor"


class Cache:
    """Seconds by the key of a layer, for this machine and some conditions."""

    def __init__(self, conditions: Conditions) -> None:
        self._owner = f"{machine()}, {conditions.provider}, {conditions.threads} threads"
        self.path = folder() / f"{hashlib.sha256(self._owner.encode()).hexdigest()[:16]}.json"
        self._known = dict(self._read())
        self._before = len(self._known)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> float:
        return self._known[key]

    def __setitem__(self, key: str, seconds: float) -> None:
        self._known[key] = seconds

    def _read(self) -> Iterator[tuple[str, float]]:
        """What is there; nothing where it can't be read, or is of another machine."""
        with suppress(OSError, ValueError, AttributeError, LookupError, RecursionError):
            data = json.loads(self.path.read_text("utf-8"))
            if data.get("machine") == self._owner:
                for key, seconds in data["seconds"].items():
                    if isinstance(seconds, float) and seconds > 0:
                        yield key, seconds

    def save(self) -> None:
        """Write what is new beside what others wrote meanwhile; a cache that can't be written is no failure."""
        if len(self._known) == self._before:
            return
        self._known = {**dict(self._read()), **self._known}
        text = json.dumps({"machine": self._owner, "seconds": dict(sorted(self._known.items()))}, indent=1)
        with suppress(OSError, PeelError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            files.write_text_atomically(self.path, text + "\n")
