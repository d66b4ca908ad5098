"""A warm process that forks for every command: `peel` without the seconds that its imports take.

Each line on stdin is a JSON list of commands that run at the same time, see `Order`. Each answer is a line on stdout, a
list of {"code": ..., "seconds": ...}: the code is None where it hung, or minus the signal that ended it. Nothing is
computed before a fork, only imported, so that a child is what a fresh process is after its imports.
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
from typing import Any, TextIO, TypedDict

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
        signal: a number and the seconds after which it is sent; [0, 0] for none.
        limits: bytes by a name of LIMITS; memory is counted on top of what the imports took.
    """

    argv: list[str]
    cwd: str
    env: dict[str, str]
    stdout: str
    stderr: str
    seconds: float
    signal: tuple[int, float]
    limits: dict[str, int]


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print on import is no answer
    for name in WARM:
        importlib.import_module(name)
    answers.write("warm\n")
    answers.flush()
    for line in sys.stdin:
        orders: list[Order] = json.loads(line)
        answers.write(json.dumps(carried_out(orders, answers)) + "\n")
        answers.flush()


def carried_out(orders: list[Order], answers: TextIO) -> list[dict[str, Any]]:
    """Fork for each, then wait for all."""
    began, running, done = time.monotonic(), {}, {}
    for number, order in enumerate(orders):
        child = os.fork()
        if child == 0:
            answers.close()
            obey(order)
        running[child] = (number, order)
    due = {child: order["signal"] for child, (_, order) in running.items() if order["signal"][0]}
    while running:
        passed = time.monotonic() - began
        for child, (number, order) in list(running.items()):
            if child in due and passed >= due[child][1]:
                os.kill(child, due.pop(child)[0])
            hangs = passed > order["seconds"]
            if hangs:
                os.killpg(child, signal.SIGKILL)
            ended, status = os.waitpid(child, 0 if hangs else os.WNOHANG)
            if ended:
                done[number] = {"code": None if hangs else os.waitstatus_to_exitcode(status), "seconds": passed}
                del running[child]
        time.sleep(0.005)
    return [done[number] for number in range(len(orders))]


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
