"""Accuracy against steps of training: slim networks of several methods, all taught alike by the unpruned one.

Every method cuts the same trained network to the same budget; then `peel finetune` trains each result for the same
numbers of steps, on the same samples without labels, with the same settings. Network, samples and judge are those of
accuracy.py. "from scratch" is the architecture that peel found, with fresh weights. A row (one method, all numbers of
steps) is measured in a process of its own with one thread and appended to the results file: an interrupted run goes on
where it stopped.

    pip install -c constraints.txt -c examples/benchmarks/constraints.txt -e '.[dev,bench]'

    python examples/benchmarks/finetune.py                                   # hours
    python examples/benchmarks/finetune.py --task digits-resnet --seeds 1 --method peel
    python examples/benchmarks/finetune.py --quick                           # a minute, nothing is kept
    python examples/benchmarks/finetune.py --overhead                        # the loop against a bare one, paired
    python examples/benchmarks/finetune.py --device cuda                     # on a GPU; the table names it
    python examples/benchmarks/finetune.py --table docs/results-finetune.md  # the page's part, from the results
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import accuracy
import finetune_overhead
import finetune_table
import torch
from accuracy_peers import methods
from accuracy_peers.base import Job, costs
from accuracy_tasks import QUICK, TASKS, digits
from accuracy_tasks.base import Task, forward
from common import apart, append, lines, peak, say
from torch import nn

import peelcli as peel

RESULTS = Path(__file__).parent / "results" / "finetune.jsonl"
FINETUNED = "peel"
SCRATCH = "from scratch"
CUTS = {
    FINETUNED: "peel reconstruction/auto/auto",
    "peel, no repair": "peel reconstruction/auto/none",
    "uniform, repaired": "peel reconstruction/uniform/auto",
    "uniform, no repair": "peel l2/uniform/none",
    "torch-pruning l2": "torch-pruning l2/local",
    "torch-pruning taylor": "torch-pruning taylor/global",
    SCRATCH: "peel reconstruction/auto/none",
}


@dataclass(frozen=True)
class Course:
    """How a task's networks are trained.

    Attributes:
        task: of accuracy.py.
        share: of the multiply-adds that is left.
        steps: numbers of steps; 0 is the network as it was cut.
        batch: samples a step.
        pool: unlabelled samples of a seed, shape (samples, ...); None for the task's own calibration samples.
    """

    task: Task
    share: float
    steps: tuple[int, ...]
    batch: int = 64
    pool: Callable[[int], torch.Tensor] | None = None


def undrawn(seed: int) -> torch.Tensor:
    """All digits that are not test samples, without their labels."""
    images, labels = digits.load()
    _, calibration, ours = digits.split(labels, seed, (digits.TEST, digits.CALIBRATION))
    return images[torch.cat([calibration, ours])]


# 250 steps are five epochs of the 3,200 digits that are not held out, 30 are five of 410, 25 of 16 photos are one.
COURSES = {
    "digits-resnet": Course(TASKS["digits-resnet"], 0.1, (0, 10, 50, 100, 250), pool=undrawn),
    "digits-resnet-512": Course(TASKS["digits-resnet"], 0.1, (0, 6, 30, 60)),
    "digits-vgg": Course(TASKS["digits-vgg"], 0.1, (0, 10, 50, 100, 250), pool=undrawn),
    "digits-mobile": Course(TASKS["digits-mobile"], 0.2, (0, 10, 50, 100, 250), pool=undrawn),
    "digits-dense": Course(TASKS["digits-dense"], 0.1, (0, 10, 50, 100, 250), pool=undrawn),
    "efficientnet": Course(TASKS["efficientnet"], 0.5, (0, 12, 25), batch=16),
}
SHORT = Course(QUICK, 0.3, (0, 5, 20))


class Key(NamedTuple):
    """What a row is the answer to."""

    course: str
    seed: int
    method: str
    hardware: str


def keys(courses: list[str], seeds: int, chosen: list[str], hardware: str) -> Iterator[Key]:
    """All rows in the order in which they are measured."""
    for course in courses:
        for seed in range(seeds):
            for method in chosen:
                yield Key(course, seed, method, hardware)


def read(path: Path) -> dict[Key, dict[str, Any]]:
    """The latest row of each key."""
    return {Key(row["course"], row["seed"], row["method"], row["hardware"]): row for row in lines(path)}


def measure(key: Key, course: Course, device: str) -> dict[str, Any]:
    """One row, in this process."""
    torch.set_num_threads(1)
    row = {**key._asdict(), "share": course.share, "batch": course.batch, "versions": accuracy.versions()}
    try:
        return {**row, **_judged(key, course, device)}
    except Exception as error:
        say("".join(traceback.format_exception(error)[-3:]))
        return {**row, "error": f"{type(error).__name__}: {error}"[:500]}


def _judged(key: Key, course: Course, device: str) -> dict[str, Any]:
    task = course.task
    dense, data = task.build(key.seed), task.data(key.seed)
    before = forward(dense, data.test, task.batch)
    slim = cut(key, course, dense, data.calibration)
    pool = course.pool(key.seed) if course.pool is not None else data.calibration
    figures, rates, seconds = {}, [], {}
    for steps in course.steps:
        start = time.perf_counter()
        tuned = slim
        if steps:
            tuned, run = peel.finetune(
                slim, data.calibration[:1], teacher=dense, data=pool, steps=steps, batch=course.batch,
                seed=key.seed, device=device,
            )  # fmt: skip
            rates.append(run.tunings[0].rate)
        seconds[steps] = round(time.perf_counter() - start, 1)
        found = task.judge(forward(tuned.eval(), data.test, task.batch), before, data.truth)
        figures[steps] = {name: round(value, 6) for name, value in found.items()}
        say(f"{' '.join(map(str, key))}: {steps} steps, {figures[steps]}")
    unpruned = task.judge(before, before, data.truth)
    return {
        "left": costs(slim, data.calibration[:1])[0] / costs(dense, data.calibration[:1])[0],
        "figures": figures,
        "unpruned": {name: round(value, 6) for name, value in unpruned.items()},
        "seconds": seconds,
        "samples_per_second": round(max(rates), 1) if rates else None,
        "peak_mib": round(peak() / 2**20),
        "gpu_mib": round(torch.cuda.max_memory_allocated() / 2**20) if device != "cpu" else None,
    }


def cut(key: Key, course: Course, dense: nn.Module, calibration: torch.Tensor) -> nn.Module:
    """The slim network of a method, before training."""
    torch.manual_seed(key.seed)
    task = course.task
    job = Job(
        dense, calibration[:1], calibration, course.share, key.seed, task.loss, task.outputs, key.course, task.batch,
        task.plain,
    )  # fmt: skip
    slim = methods("small")[CUTS[key.method]](job).eval()
    if key.method == SCRATCH:
        torch.manual_seed(key.seed)
        for module in slim.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return slim


def hardware(device: str) -> str:
    """What the training runs on, as the table calls it."""
    if device != "cpu":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()} CPU, 1 thread"


def run(wanted: Iterator[Key], courses: dict[str, Course], options: argparse.Namespace) -> dict[Key, dict[str, Any]]:
    """Measure what is not there yet; every row of the file, old and new."""
    rows = read(options.results)
    for key in wanted:
        if key in rows and "error" not in rows[key]:
            continue
        failed = {**key._asdict(), "error": f"more than {options.limit:.0f} s"}
        row = rows[key] = apart(
            lambda key=key: measure(key, courses[key.course], options.device), failed, options.limit
        )
        append(options.results, row)
        say(f"{' '.join(map(str, key))}: {row.get('error') or 'done'}")
    return rows


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", action="append", choices=tuple(COURSES), help="this task; repeatable")
    parser.add_argument("--method", action="append", help="pattern of names, e.g. 'peel*'; repeatable")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ...")
    parser.add_argument("--device", default="cpu", help="where networks are trained, e.g. cuda")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines; rows in it are not measured again")
    parser.add_argument("--limit", type=float, default=7200.0, help="seconds for one row")
    parser.add_argument("--table", type=Path, help="measure nothing; write the results into this page")
    parser.add_argument("--overhead", action="store_true", help="the training loop against a bare one")
    parser.add_argument("--quick", action="store_true", help="a tiny network, few steps, nothing is kept")
    return parser.parse_args()


def main() -> None:
    options = parse()
    titles = {name: course.task.title for name, course in {**COURSES, "quick": SHORT}.items()}
    if options.table:
        finetune_table.write(options.table, read(options.results).values(), titles)
        return
    if options.overhead:
        print(finetune_overhead.table())
        return
    chosen = [n for n in CUTS if any(fnmatch.fnmatchcase(n, p) for p in options.method or ["*"])]
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            options.results = Path(folder, "rows.jsonl")
            rows = run(keys(["quick"], 1, chosen, hardware(options.device)), {"quick": SHORT}, options)
        print(finetune_table.section(rows.values(), titles))
        sys.exit(any("error" in row for row in rows.values()))
    run(keys(options.task or list(COURSES), options.seeds, chosen, hardware(options.device)), COURSES, options)


if __name__ == "__main__":
    main()
