"""A warm process that forks for every command: `peel` without the seconds that its imports take.

Each line on stdin is a JSON object, see `Order`; each answer is a line on stdout: {"code": exit code, None where it
hung, or minus the signal that ended it, "seconds": how long it took}. Nothing is computed before a fork, only imported,
so that a child is what a fresh process is after its imports.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, TypedDict

WARM = (
    "peelcli.cli.main",
    "peelcli.pipeline",
    "peelcli.reporting",
    "peelcli.request",
    "peelcli.latency.bench",
    "peelcli.onnxcost.count",
    "peelcli.sweeps.run",
    "peelcli.sources.onnxfile.load",
    "peelcli.sources.exported",
    "peelcli.sources.script",
    "peelcli.training.loop",
    "peelcli.export.onnx",
    "peelcli.report.formats",
    "torch._dynamo",
    "torch.onnx._internal.exporter._core",
    "torch._export.converter",
    "onnxscript.optimizer",
    "accelerate",
    "PIL.Image",
)
LIMITS = {"memory": resource.RLIMIT_AS, "file": resource.RLIMIT_FSIZE}


class Order(TypedDict):
    """One command.

    Attributes:
        argv: behind `peel`.
        cwd: the folder that it runs in.
        env: on top of the server's own.
        stdout: the file that takes it; stderr the same.
        seconds: after which it counts as hanging.
        limits: bytes by a name of LIMITS; memory is counted on top of what the imports took.
    """

    argv: list[str]
    cwd: str
    env: dict[str, str]
    stdout: str
    stderr: str
    seconds: float
    limits: dict[str, int]


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print on import is no answer
    for name in WARM:
        importlib.import_module(name)
    answers.write("warm\n")
    answers.flush()
    for line in sys.stdin:
        order: Order = json.loads(line)
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            answers.close()
            obey(order)
        code = waited(child, began + order["seconds"])
        answers.write(json.dumps({"code": code, "seconds": time.monotonic() - began}) + "\n")
        answers.flush()


def waited(child: int, deadline: float) -> int | None:
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.01)


def obey(order: Order) -> None:
    """In the child: become the command; never returns."""
    code: Any = 70
    try:
        os.setpgid(0, 0)
        os.chdir(order["cwd"])
        os.environ.update(order["env"])
        tempfile.tempdir = None
        for number, path in ((0, os.devnull), (1, order["stdout"]), (2, order["stderr"])):
            file = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
            os.close(file)
        for name, most in order["limits"].items():
            most += used_memory() if name == "memory" else 0
            resource.setrlimit(LIMITS[name], (most, most))
        sys.argv = ["peel", *order["argv"]]
        from peelcli.cli.main import main

        main()
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 71)


def used_memory() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
