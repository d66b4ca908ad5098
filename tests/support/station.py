"""Runs commands in the fork server, and keeps what a run did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.forkserver import Order

SERVER = Path(__file__).with_name("forkserver.py")
PATIENCE = 120.0  # seconds; the slowest command takes less than ten on an idle machine


@dataclass(frozen=True)
class Ran:
    """A command that is over.

    Attributes:
        code: exit code; None where it hung, or minus the signal that ended it.
        temporary: what it left in the folder for temporary files.
    """

    argv: tuple[str, ...]
    code: int | None
    stdout: str
    stderr: str
    seconds: float
    temporary: tuple[str, ...] = field(default=())


class Station:
    """A fork server of its own, and an empty cache; use it in a with statement."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = {**environment, "PYTHONDONTWRITEBYTECODE": "1", "XDG_CACHE_HOME": str(folder / "cache")}
        self._count = 0

    def __enter__(self) -> Station:
        self._server = subprocess.Popen(
            [sys.executable, str(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
            start_new_session=True,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "warm\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()

    def run(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None, **how: Any) -> Ran:
        """Run `peel ARGV` in a folder; see `_order` for what else can be said."""
        return self.together([argv], cwd, env=env, **how)[0]

    def together(self, commands: Sequence[Sequence[str]], cwd: Path, **how: Any) -> list[Ran]:
        """Run several commands at the same time."""
        orders = [self._order(argv, cwd, **how) for argv in commands]
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(orders) + "\n")
        self._server.stdin.flush()
        answers = json.loads(self._server.stdout.readline())
        return [_ran(order, **answer) for order, answer in zip(orders, answers, strict=True)]

    def _order(
        self,
        argv: Sequence[str],
        cwd: Path,
        env: Mapping[str, str] | None = None,
        limits: Mapping[str, int] | None = None,
        seconds: float = PATIENCE,
        signal: tuple[int, float] = (0, 0.0),
    ) -> Order:
        self._count += 1
        own = self._folder / str(self._count)
        (own / "tmp").mkdir(parents=True)
        return {
            "argv": list(argv),
            "cwd": os.fspath(cwd),
            "env": {"TMPDIR": str(own / "tmp"), **(env or {})},
            "stdout": str(own / "stdout"),
            "stderr": str(own / "stderr"),
            "seconds": seconds,
            "signal": signal,
            "limits": dict(limits or {}),
        }


def _ran(order: Order, code: int | None, seconds: float) -> Ran:
    stdout, stderr = _text(order["stdout"]), _text(order["stderr"])
    left = tuple(sorted(path.name for path in Path(order["env"]["TMPDIR"]).rglob("*")))
    return Ran(tuple(order["argv"]), code, stdout, stderr, seconds, left)


def _text(path: str) -> str:
    """What a command wrote; nothing where it was killed before it opened the file."""
    return Path(path).read_text("utf-8", errors="replace") if Path(path).exists() else ""
