"""What the benchmarks share: models that are not trained but alive, tables, and medians."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn


def tiny() -> nn.Module:
    """A network of a few thousand parameters for a quick look, of torch's own classes: any process loads it."""
    widths = (3, 32, 64, 64)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


def build(name: str, seed: int = 0) -> nn.Module:
    """A model by its torchvision name, or "tiny", in eval mode.

    A fresh network has equal BatchNorm scales and statistics that fit no signal, so that a data-free score has nothing
    to see and the signal dies on its way. Here the scales are drawn at random and the statistics are those of noise.
    """
    torch.manual_seed(seed)
    if name == "tiny":
        module = tiny()
    else:
        import torchvision

        module = torchvision.models.get_model(name, weights=None)
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.1, 1.9)
        norm.momentum = 1.0
    with torch.no_grad():
        module.train()(example(name, batch=4))
    for norm in norms:
        norm.momentum = 0.1
    return module.eval()


def example(name: str, batch: int = 1) -> torch.Tensor:
    """Noise, shape (batch, 3, side, side)."""
    side = 32 if name == "tiny" else 224
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table with columns of even width, which a terminal shows well too."""
    texts = [list(map(str, row)) for row in (header, *rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in texts
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def median(values: Sequence[float]) -> float:
    """The middle value: one run that was disturbed does not move it."""
    return statistics.median(values)


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a results file; none where it does not exist."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def append(path: Path, row: Mapping[str, Any]) -> None:
    """One more row of a results file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def apart(work: Callable[[], dict[str, Any]], failed: dict[str, Any], limit: float) -> dict[str, Any]:
    """Do something in a process of its own, where its peak memory is its own and a crash ends nothing else.

    A fork starts with all packages imported; this process has done no arithmetic that a fork could trip over.

    Args:
        work: makes a row.
        failed: the row where that takes too long, with an "error" that says so.
        limit: in seconds.
    """
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, work))
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(limit) else failed
    except EOFError:
        process.join()
        return {**failed, "error": f"the process ended with {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _send(sender: Connection, work: Callable[[], dict[str, Any]]) -> None:
    sender.send(work())


class Child(NamedTuple):
    """A command that ran in a process of its own.

    Attributes:
        cpu: seconds of processor time, of all its threads.
        peak: its largest resident memory in bytes.
    """

    code: int
    stdout: str
    stderr: str
    cpu: float
    peak: int


def child(command: Sequence[str]) -> Child:
    """Run a command on one thread, and what it took; its peak is right where it is larger than this process's own."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        alone = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=out, stderr=error, env=os.environ | alone)
        _, status, took = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = [file.seek(0) or file.read() for file in (out, error)]
    memory = took.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Child(process.returncode, texts[0], texts[1], took.ru_utime + took.ru_stime, memory)


def say(text: str) -> None:
    """Progress, on stderr; stdout carries the table."""
    print(text, file=sys.stderr, flush=True)


def peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def between_markers(page: Path, name: str, text: str) -> None:
    """Put text between the markers of this name in a page; at its end where it has none."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    part = f"{begin}\n{text}\n{end}"
    before = page.read_text("utf-8") if page.exists() else "# Results\n"
    after, found = re.subn(f"{begin}.*?{end}", lambda _: part, before, flags=re.DOTALL)
    page.write_text(after if found else f"{before.rstrip()}\n\n{part}\n", encoding="utf-8")


def versions(rows: Iterable[Mapping[str, Any]]) -> str:
    """Packages that measured rows were made with, each with every version that occurs."""
    found: dict[str, set[str]] = {}
    for row in rows:
        for package, number in row.get("versions", {}).items():
            found.setdefault(package, set()).add(number)
    return ", ".join(f"{package} {' and '.join(sorted(numbers))}" for package, numbers in found.items())
