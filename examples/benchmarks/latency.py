"""Latency in onnxruntime on one thread: what budgets of time and aligned widths bring, measured in turns.

budget: `--latency 50%` against a plain budget of multiply-adds. peel plans for half of the original's time. Then the
budget of multiply-adds is sought whose plan takes as long, and what both plans keep is compared.

aligned: peel's plan against torch-pruning's uniform pruning by group magnitude, at the same multiply-adds; one
ratio for all layers, found by bisection, widths as they come. Both are exported alike.

The networks have random weights: time does not depend on them. Ratios are medians over rounds in which both sides take
turns, with their 95 % intervals.

    python examples/benchmarks/latency.py
    python examples/benchmarks/latency.py --quick
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from common import build, example, markdown, say
from torch import nn

from peelcli import pipeline
from peelcli.deadlines import meet
from peelcli.errors import PeelError
from peelcli.export import onnx
from peelcli.graph.count import count_macs
from peelcli.latency import compare
from peelcli.timings import Ratio

NETWORKS = ("mobilenet_v2", "resnet50")
SHARE = 0.5
SEARCHES = 4  # plans of multiply-adds on the way to one that takes as long
EQUAL = 0.01
BUDGET = ("network", "time kept", "MACs kept", "plans: predicted > measured", "MACs kept, plain", "its time over ours")
ALIGNED = (
    "network",
    "MACs kept: peel",
    "torch-pruning",
    "time kept: peel",
    "torch-pruning",
    "time per MAC, peel's over",
)


def told(ratio: Ratio, factor: float = 1.0) -> str:
    return f"{factor * ratio.value:.3f} [{factor * ratio.low:.3f}, {factor * ratio.high:.3f}]"


def by_time(network: str, folder: Path, seconds: float) -> tuple[str, ...]:
    """A row: the plan for half of the time, and the plan of multiply-adds that takes as long."""
    module, inputs = build(network), example(network)
    ours, plain = folder / "ours.onnx", folder / "plain.onnx"
    run = pipeline.prune(module, inputs, latency=f"{100 * SHARE:g}%", out=ours).run
    kept = run.after.macs / run.plan.before.macs
    plans = ", ".join(f"{each.predicted:.3f} > {told(each.measured)}" for each in run.pace.tries)
    share, best = kept, None
    for _ in range(SEARCHES):
        other = pipeline.prune(module, inputs, flops=f"{100 * share}%", out=plain).run
        ratio = compare(ours, plain, seconds=seconds)[2]
        found = (abs(ratio.value - 1), other.after.macs / other.plan.before.macs, ratio)
        say(f"{network}: {found[1]:.3f} of the MACs take {told(ratio)} of the time of {kept:.3f}")
        best = found if best is None else min(best, found, key=lambda each: each[0])
        if found[0] <= EQUAL:
            break
        share = min(1.0, share / ratio.value)
    return network, told(run.pace.ratio), f"{kept:.1%}", plans, f"{best[1]:.1%}", told(best[2])


def by_torch_pruning(module: nn.Module, inputs: torch.Tensor, share: float) -> nn.Module:
    """The widest uniform ratio within a share of the multiply-adds."""
    import torch_pruning as tp

    whole = count_macs(module, (inputs,))

    def pruned(ratio: float) -> nn.Module:
        slim = copy.deepcopy(module)
        head = [m for m in slim.modules() if isinstance(m, nn.Linear)][-1]
        importance = tp.importance.GroupMagnitudeImportance(p=2)
        tp.pruner.BasePruner(slim, inputs, importance=importance, pruning_ratio=ratio, ignored_layers=[head]).step()
        return slim

    low, high = 0.0, 0.95
    for _ in range(8):
        middle = (low + high) / 2
        if count_macs(pruned(middle), (inputs,)) <= share * whole:
            high = middle
        else:
            low = middle
    return pruned(high)


def by_alignment(network: str, folder: Path, seconds: float) -> tuple[str, ...]:
    """A row: both sides at the same multiply-adds."""
    module, inputs = build(network), example(network)
    subject = pipeline.load(module, inputs)
    paths = {side: folder / f"{side}.onnx" for side in ("original", "peel", "other")}
    theirs = by_torch_pruning(module, inputs, SHARE).eval()
    macs = count_macs(theirs, (inputs,))
    onnx.write(subject, {}, paths["original"], "original")
    onnx.write(replace(subject, module=theirs), {}, paths["other"], "other")
    whole = count_macs(module, (inputs,))
    run = pipeline.prune(module, inputs, flops=f"{100 * macs / whole}%", out=paths["peel"]).run
    times = [compare(paths["original"], paths[side], seconds=seconds)[2] for side in ("peel", "other")]
    ratio = compare(paths["other"], paths["peel"], seconds=seconds)[2]
    return (
        network,
        f"{run.after.macs / whole:.1%}",
        f"{macs / whole:.1%}",
        *(told(each) for each in times),
        told(ratio, macs / run.after.macs),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="a torchvision name, or tiny; repeatable")
    parser.add_argument(
        "--part", choices=("budget", "aligned"), action="append", help="one of the two tables; repeatable"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--quick", action="store_true", help="a tiny network, measured shortly")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        options.only, options.seconds, meet.SECONDS = ["tiny"], 0.2, 0.2
    parts = {"budget": (BUDGET, by_time), "aligned": (ALIGNED, by_alignment)}
    for part in options.part or parts:
        header, measure = parts[part]
        rows = []
        for network in options.only or NETWORKS:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    rows.append(measure(network, Path(folder), options.seconds))
                except PeelError as error:
                    rows.append((network, error.message, *[""] * (len(header) - 2)))
        print(f"\n{part}\n\n{markdown(header, rows)}", flush=True)


if __name__ == "__main__":
    main()
