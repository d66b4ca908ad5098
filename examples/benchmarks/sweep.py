"""What a sweep of six budgets costs, in units of one run that prunes and writes no model.

Both sides are the real command in fresh processes, which alternate; the run is `peel prune` without `--out`. CPU
seconds hold up better on a busy machine than seconds.

    python examples/benchmarks/sweep.py
    python examples/benchmarks/sweep.py --quick
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import build, example, markdown, median, say

NETWORKS = ("mobilenet_v2", "resnet50")
BUDGETS = "85%,75%,65%,50%,35%,25%"
HEADER = ("network", "samples", "one run, s", "sweep, s", "times", "one run, CPU s", "sweep, CPU s", "times")


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds and CPU seconds of one process with its children."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu


def compare(network: str, samples: int, repeats: int) -> tuple[str, ...]:
    """The row of one network."""
    shape = example(network).shape
    found: dict[str, list[tuple[float, float]]] = {"prune": [], "sweep": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(build(network), folder / "model.pt")
        if samples:
            torch.save(torch.randn(samples, *shape[1:]), folder / "samples.pt")
        common = ["model.pt", "--input", ",".join(map(str, shape)), *(["--data", "samples.pt"] if samples else [])]
        for turn in range(repeats):
            sides = {
                "prune": [*common, "--flops", "50%"],
                "sweep": [*common, "--flops", BUDGETS, "--out", f"sweep{turn}"],
            }
            for side in sides if turn % 2 == 0 else reversed(sides):
                found[side].append(timed([sys.executable, "-m", "peelcli", side, *sides[side]], folder))
                say(f"{network} {side}: {found[side][-1][0]:.1f} s")
    cells = []
    for clock in (0, 1):
        one, all_six = (median([run[clock] for run in found[side]]) for side in ("prune", "sweep"))
        cells += [f"{one:.1f}", f"{all_six:.1f}", f"{all_six / one:.2f}"]
    return network, str(samples or "none"), *cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="a torchvision name, or tiny; repeatable")
    parser.add_argument("--samples", type=int, action="append", help="how many samples are given; repeatable")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side; the median is shown")
    parser.add_argument("--quick", action="store_true", help="one repeat of a tiny network")
    options = parser.parse_args()
    if options.quick:
        options.only, options.samples, options.repeats = ["tiny"], [0], 1
    samples = options.samples or [0]
    networks = options.only or NETWORKS
    print(markdown(HEADER, [compare(network, count, options.repeats) for network in networks for count in samples]))


if __name__ == "__main__":
    main()
