"""Planning a pruned model: peel's one solve against torch-pruning's usual loop, side by side in one run.

Both get the same networks and the same target, half of the multiply-adds.

- peel: load, trace, digest, score, allocate; then the plan is decided and its cost is known.
- loop: torch-pruning with global pruning by group magnitude, 100 steps to a ratio of 0.9, a recount after each, until
  at or below the target, as its examples do it.

Every measurement is a fresh process, so that its peak memory is its own; the sides alternate. CPU seconds, which a busy
machine changes least, run from the model in memory to the decision, after a try on a tiny network that imports all
packages. Peak memory is the process's, and in brackets what it grew by over packages and model. Landing is the share of
the target that the finished model takes, counted for both by torch's own counter: above 100 % the target is missed.

By default both sides aim at multiply-adds alone. With --both-counts peel also holds what the thop package counts, as
`peel prune --flops` does.

    python examples/benchmarks/planning.py --results planning.jsonl      # goes on where it stopped
    python examples/benchmarks/planning.py --results planning.jsonl --table docs/performance.md
    python examples/benchmarks/planning.py --quick
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

import torch
from common import append, between_markers, build, example, lines, markdown, median, peak, say, versions
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

NETWORKS = ("resnet50", "mobilenet_v2", "efficientnet_b0", "densenet121")
SIDES = ("peel", "loop")
SHARE = 0.5
STEPS, RATIO = 100, 0.9
HEADER = ("network", "side", "CPU seconds", "ratio", "peak MiB", "landing", "how")


def macs_of(module: nn.Module, inputs: torch.Tensor) -> int:
    """Multiply-adds by torch's counter, which says 2 for each."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(inputs)
    return counter.get_total_flops() // 2


def by_peel(module: nn.Module, inputs: torch.Tensor, both: bool, _limit: float) -> tuple[Callable[[], nn.Module], str]:
    """Decide the widths; what carries them out is returned and not timed."""
    from peelcli import config, pipeline
    from peelcli.allocation.allocate import allocate
    from peelcli.allocation.select import keep_best
    from peelcli.graph import cost
    from peelcli.planning import find_groups
    from peelcli.records import Cut, Limit
    from peelcli.scoring import table
    from peelcli.sources import digest
    from peelcli.surgery.prune import apply_cuts

    options = config.Options()
    subject = pipeline.load(module, inputs)
    graph = find_groups(subject, options)
    full = cost.costs(graph.cost, graph.full)
    digest.model_id(subject)
    scores = table.score(subject, graph, options.score, options.seed)
    limits = [Limit("macs", int(SHARE * full.macs))]
    limits += [Limit("thop_macs", int(SHARE * full.thop_macs))] if both else []
    widths = allocate(graph, scores, tuple(limits), "peel", options.pool, options.tau)
    triples = list(zip(graph.groups, scores.groups, widths, strict=True))
    cuts = [Cut(group, width, keep_best(group, score.channels, width), score.layer) for group, score, width in triples]
    return (lambda: apply_cuts(module, cuts)), "one solve"


def by_loop(module: nn.Module, inputs: torch.Tensor, _both: bool, limit: float) -> tuple[Callable[[], nn.Module], str]:
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
    for step in range(1, STEPS + 1):
        pruner.step()
        if tp.utils.count_ops_and_params(module, inputs)[0] <= target:
            return (lambda: module), f"{step} steps"
        if time.perf_counter() - start > limit:
            return (lambda: module), f"not there after {limit:.0f} s and {step} steps"
    return (lambda: module), f"not there after {STEPS} steps"


def measure(side: str, model: str, options: argparse.Namespace) -> dict:
    """One side on one network, in this process."""
    torch.set_num_threads(options.threads)
    plan = {"peel": by_peel, "loop": by_loop}[side]
    plan(build("tiny"), example("tiny"), options.both_counts, options.limit)  # imports what it needs
    torch.manual_seed(0)
    module, inputs = torch.load(model, weights_only=False), example(options.only[0])
    before, cpu = peak(), time.process_time()
    finish, how = plan(module, inputs, options.both_counts, options.limit)
    cpu = time.process_time() - cpu
    after = peak()
    target = SHARE * macs_of(torch.load(model, weights_only=False), inputs)
    landing = macs_of(finish(), inputs) / target
    found = {name: metadata.version(name) for name in ("peelcli", "torch", "torch_pruning")}
    return {
        "network": options.only[0],
        "side": side,
        "cpu": cpu,
        "peak": after,
        "grown": after - before,
        "landing": landing,
        "how": how,
        "versions": found,
    }


def in_fresh_process(side: str, model: str, network: str, options: argparse.Namespace) -> dict:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--measure", side, model, "--only", network, "--limit", str(options.limit)]
    command += ["--threads", str(options.threads)]
    command += ["--both-counts"] if options.both_counts else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side} failed on {network}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(network: str, rows: Sequence[dict], options: argparse.Namespace) -> Iterator[dict]:
    """The rows of one network that are not there yet."""
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder, "model.pt"))
        torch.save(build(network), model)
        for turn in range(options.repeats):
            for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
                if sum((row["network"], row["side"]) == (network, side) for row in rows) <= turn:
                    row = in_fresh_process(side, model, network, options)
                    say(f"{network} {side}: {row['cpu']:.2f} s, {row['how']}")
                    yield row


def table(rows: Sequence[dict]) -> str:
    """Two rows a network, medians over the runs."""
    found = []
    for network in dict.fromkeys(row["network"] for row in rows):
        sides = {side: [row for row in rows if (row["network"], row["side"]) == (network, side)] for side in SIDES}
        cpu = {side: median([row["cpu"] for row in own]) for side, own in sides.items()}
        for side, own in sides.items():
            memory = [median([row[key] for row in own]) / 2**20 for key in ("peak", "grown")]
            landing = f"{math.floor(own[-1]['landing'] * 1e4) / 100:.2f} %"  # rounded down: 100 % means all of it
            times = f"{cpu[side]:.2f}", f"{cpu[side] / cpu['peel']:.1f}"
            found.append((network, side, *times, f"{memory[0]:.0f} ({memory[1]:+.0f})", landing, own[-1]["how"]))
    return markdown(HEADER, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("planning.jsonl"), help="rows, added to as they come")
    parser.add_argument("--only", action="append", help="a torchvision name, or tiny; repeatable")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each side; the median is shown")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds after which the loop gives up")
    parser.add_argument("--threads", type=int, default=1, help="of torch; one, so that a busy machine disturbs less")
    parser.add_argument("--both-counts", action="store_true", help="peel holds thop's count as well")
    parser.add_argument("--table", type=Path, help="measure nothing; put the table into this page")
    parser.add_argument("--quick", action="store_true", help="one repeat of a tiny network, no file")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure, options)))
        return
    rows = [] if options.quick else lines(options.results)
    if options.table:
        runs = min(sum((r["network"], r["side"]) == (row["network"], row["side"]) for r in rows) for row in rows)
        text = f"{table(rows)}\n\nRuns of each side: {runs}. Versions: {versions(rows)}."
        between_markers(options.table, "peers", text)
        return
    if options.quick:
        options.only, options.repeats = ["tiny"], 1
    for network in options.only or NETWORKS:
        for row in compare(network, rows, options):
            rows.append(row)
            if not options.quick:
                append(options.results, row)
    print(table(rows))


if __name__ == "__main__":
    main()
