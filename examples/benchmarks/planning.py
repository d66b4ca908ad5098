"""Planning a pruned model: peel's one solve against torch-pruning's usual loop, side by side in one run.

Both get the same networks and the same target, half of the multiply-adds.

- peel: load, trace, digest, score, allocate; then the plan is decided and its cost is known.
- loop: torch-pruning with global pruning by group magnitude, 100 steps to a ratio of 0.9, a recount after each, until
  at or below the target, as its examples do it.

Every measurement is a fresh process, so that its peak memory is its own; the sides alternate. Seconds run from the
model in memory to the decision, after a try on a tiny network that imports all packages; CPU seconds hold up better on
a busy machine. Peak memory is the process's, and in brackets what it grew by over packages and model. Landing is the
share of the target that the finished model takes, counted for both by torch's own counter: above 100 % the target is
missed.

By default both sides aim at multiply-adds alone. With --both-counts peel also holds what the thop package counts, as
`peel prune --flops` does.

    python examples/benchmarks/planning.py
    python examples/benchmarks/planning.py --quick
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import build, example, markdown, median, say
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

NETWORKS = ("resnet50", "mobilenet_v2", "efficientnet_b0", "densenet121")
SIDES = ("peel", "loop")
SHARE = 0.5
STEPS, RATIO = 100, 0.9
CLOCKS = ("seconds", "cpu")
HEADER = ("network", "side", "seconds", "CPU seconds", "peak MiB", "landing", "stages (s)")


def macs_of(module: nn.Module, inputs: torch.Tensor) -> int:
    """Multiply-adds by torch's counter, which says 2 for each."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(inputs)
    return counter.get_total_flops() // 2


def peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def by_peel(
    module: nn.Module, inputs: torch.Tensor, both: bool, _limit: float
) -> tuple[Callable[[], nn.Module], dict[str, float]]:
    """Decide the widths; what carries them out is returned and not timed."""
    from peelcli import config, pipeline
    from peelcli.allocation.allocate import allocate
    from peelcli.allocation.select import keep_best
    from peelcli.graph import cost
    from peelcli.planning import Clock, find_groups
    from peelcli.records import Cut, Limit
    from peelcli.scoring import table
    from peelcli.sources import digest
    from peelcli.surgery.prune import apply_cuts

    options, clock = config.Options(), Clock(None)
    with clock.stage("load"):
        subject = pipeline.load(module, inputs)
    with clock.stage("trace"):
        graph = find_groups(subject, options)
        full = cost.costs(graph.cost, graph.full)
    with clock.stage("digest"):
        digest.model_id(subject)
    with clock.stage("score"):
        scores = table.score(subject, graph, options.score, options.seed)
    with clock.stage("allocate"):
        limits = [Limit("macs", int(SHARE * full.macs))]
        limits += [Limit("thop_macs", int(SHARE * full.thop_macs))] if both else []
        widths = allocate(graph, scores, tuple(limits), "peel", options.pool, options.tau)
        triples = list(zip(graph.groups, scores.groups, widths, strict=True))
        cuts = [
            Cut(group, width, keep_best(group, score.channels, width), score.layer) for group, score, width in triples
        ]
    return (lambda: apply_cuts(module, cuts)), clock.seconds


def by_loop(
    module: nn.Module, inputs: torch.Tensor, _both: bool, limit: float
) -> tuple[Callable[[], nn.Module], dict[str, float]]:
    """Prune a little, count again, until it is enough or the time is up."""
    import torch_pruning as tp

    start = time.perf_counter()
    head = [m for m in module.modules() if isinstance(m, nn.Linear)][-1]
    target = SHARE * tp.utils.count_ops_and_params(module, inputs)[0]
    pruner = tp.pruner.BasePruner(
        module,
        inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=RATIO,
        iterative_steps=STEPS,
        ignored_layers=[head],
    )
    stages = {"build": time.perf_counter() - start}
    for step in range(1, STEPS + 1):
        pruner.step()
        stages["steps"] = float(step)
        if tp.utils.count_ops_and_params(module, inputs)[0] <= target:
            break
        if time.perf_counter() - start > limit:
            stages["gave_up"] = time.perf_counter() - start
            break
    return (lambda: module), stages


def measure(side: str, model: str, options: argparse.Namespace) -> dict:
    """One side on one network, in this process."""
    torch.set_num_threads(options.threads)
    plan = {"peel": by_peel, "loop": by_loop}[side]
    plan(build("tiny"), example("tiny"), options.both_counts, options.limit)  # imports what it needs
    torch.manual_seed(0)
    module, inputs = torch.load(model, weights_only=False), example(options.only[0])
    before, cpu, start = peak(), time.process_time(), time.perf_counter()
    finish, stages = plan(module, inputs, options.both_counts, options.limit)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    after = peak()
    target = SHARE * macs_of(torch.load(model, weights_only=False), inputs)
    landing = macs_of(finish(), inputs) / target
    memory = {"peak": after, "grown": after - before}
    return {"seconds": seconds, "cpu": cpu, **memory, "landing": landing, "stages": stages}


def in_fresh_process(side: str, model: str, network: str, options: argparse.Namespace) -> dict:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--measure", side, model, "--only", network, "--limit", str(options.limit)]
    command += ["--threads", str(options.threads)]
    command += ["--both-counts"] if options.both_counts else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side} failed on {network}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(network: str, options: argparse.Namespace) -> list[tuple[str, ...]]:
    """The rows of one network."""
    found: dict[str, list[dict]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder, "model.pt"))
        torch.save(build(network), model)
        for turn in range(options.repeats):
            for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
                found[side].append(in_fresh_process(side, model, network, options))
                say(f"{network} {side}: {found[side][-1]['seconds']:.2f} s")
    ours = {clock: median([run[clock] for run in found["peel"]]) for clock in CLOCKS}
    return [_row(network, side, found[side], ours) for side in SIDES]


def _row(network: str, side: str, runs: list[dict], ours: dict[str, float]) -> tuple[str, ...]:
    last = runs[-1]
    times = [median([run[clock] for run in runs]) for clock in CLOCKS]
    shown = [f"{time:.2f} ({time / ours[clock]:.1f}x)" for clock, time in zip(CLOCKS, times, strict=True)]
    stages = ", ".join(f"{name} {median([run['stages'][name] for run in runs]):.2f}" for name in last["stages"])
    if side == "loop":
        stages = f"{last['stages']['steps']:.0f} steps"
    if any("gave_up" in run["stages"] for run in runs):
        stages = f"not there after {last['stages']['gave_up']:.0f} s and {stages}"
    memory = [median([run[key] for run in runs]) / 2**20 for key in ("peak", "grown")]
    landing = f"{math.floor(last['landing'] * 1e4) / 100:.2f} %"  # rounded down: 100 % means all of it
    return network, side, *shown, f"{memory[0]:.0f} ({memory[1]:+.0f})", landing, stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="a torchvision name, or tiny; repeatable")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each side; the median is shown")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds after which the loop gives up")
    parser.add_argument("--threads", type=int, default=1, help="of torch; one, so that a busy machine disturbs less")
    parser.add_argument("--both-counts", action="store_true", help="peel holds thop's count as well")
    parser.add_argument("--quick", action="store_true", help="one repeat of a tiny network")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure, options)))
        return
    if options.quick:
        options.only, options.repeats = ["tiny"], 1
    rows = [row for network in options.only or NETWORKS for row in compare(network, options)]
    print(markdown(HEADER, rows))


if __name__ == "__main__":
    main()
