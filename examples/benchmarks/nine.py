"""The acceptance table: nine networks, their budgets, two alignments, everything that has to hold for each.

Each row is one run of the real command, `peel prune model.pt --flops 50% --align 1 --out slim.onnx --out slim.pt`, in a
process of its own, and one training step of the slim model. Rows go to a results file as they come, so that an
interrupted run goes on where it stopped.

    python examples/benchmarks/nine.py --results nine.jsonl > docs/results-nine.md
    python examples/benchmarks/nine.py --only resnet18 --no-export     # a quick look
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from common import append, build, example, markdown, say

import peelcli

NETWORKS = {
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_small": "MobileNetV3-small",
    "efficientnet_b0": "EfficientNet-B0",
    "vgg16_bn": "VGG-16-BN",
    "densenet121": "DenseNet-121",
    "regnet_y_400mf": "RegNetY-400MF",
    "convnext_tiny": "ConvNeXt-T",
    "tiny": "tiny",
}
BUDGETS = ("--flops 75%", "--flops 50%", "--flops 25%", "--params 50%")
MORE_BUDGETS = {"resnet50": ("--flops 2G", "--flops 1G")}
ALIGNS = ("1", "auto")
LEAST_USED = {"1": 0.995, "auto": 0.985}
HEADER = (
    "network", "budget", "align", "exit", "MACs after", "used", "predicted = counted", "masked", "parity", "batch",
    "trains", "seconds", "holds",
)  # fmt: skip
INTRODUCTION = """\
# Nine networks

Made by `python examples/benchmarks/nine.py` with peel {peel} and torch {torch}; do not edit. Each row is one run of the
real command on a torchvision network with random weights, whose BatchNorm layers have random scales and the statistics
of noise, so that scores differ and the signal lives. What must hold in every row:

- **exit** is 0, or 1 with the least reachable figure where the budget is out of reach;
- **used**, the share of the tightest limit that the slim model takes, rounded down: at least 99.5 % at alignment 1 and
  98.5 % at `auto`, and never above 100 %. `--flops` limits torch's count and thop's; the tighter one is shown;
- **predicted = counted**, to the last multiply-add and parameter, by torch's counter and by thop;
- **masked**, the largest difference to the masked original in float64, is round-off, at most 1e-09;
- **parity**, the largest relative difference of onnxruntime from torch, is at most 1e-4, and the **batch** is dynamic;
- the slim model **trains**: a step of SGD leaves finite gradients in every weight, and finite weights.

Seconds are those of the whole command on a small shared machine: they say little more than the order.
"""


class Case(NamedTuple):
    """One row."""

    network: str
    budget: str
    align: str


def cases(networks: list[str]) -> list[Case]:
    """All rows, in the order of the table."""
    return [
        Case(network, budget, align)
        for network in networks
        for budget in (*BUDGETS, *MORE_BUDGETS.get(network, ()))
        for align in ALIGNS
    ]


def run(case: Case, folder: Path, export: bool) -> dict:
    """Run the command and train the result a step."""
    model, slim = folder / "model.pt", folder / "slim.pt"
    slim.unlink(missing_ok=True)
    outs = ["--out", str(slim), *(["--out", str(folder / "slim.onnx")] if export else [])]
    shape = ",".join(map(str, example(case.network).shape))
    how = [*case.budget.split(), "--align", case.align, "--input", shape]
    command = ["prune", str(model), *how, *outs, "--output-format", "json"]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "peelcli", *command], capture_output=True, text=True)
    row = {**case._asdict(), "export": export, "exit": done.returncode, "seconds": time.perf_counter() - start}
    if done.returncode:
        return {**row, "message": done.stderr.strip().splitlines()[0] if done.stderr.strip() else ""}
    report = json.loads(done.stdout)
    return {
        **row,
        "before": report["before"],
        "after": report["after"],
        "used": max(share for share in report["used"].values() if share is not None),
        "checks": {check["name"]: [check["ok"], check["value"]] for check in report["checks"]},
        "locked": sum(group["locked"] is not None for group in report["groups"]),
        "trains": trains(slim, case.network),
    }


def trains(path: Path, network: str) -> bool:
    """Whether a step of SGD moves the slim model: finite gradients in every weight, and finite weights after it."""
    module = torch.load(path, weights_only=False).train()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    torch.manual_seed(0)
    output = module(example(network, batch=4))
    torch.nn.functional.cross_entropy(output, torch.arange(4)).backward()
    optimizer.step()
    after = list(module.parameters())
    moved = any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    finite = all(p.grad is not None and bool(p.grad.isfinite().all() and p.isfinite().all()) for p in after)
    return moved and finite


def holds(row: dict) -> bool:
    """Everything that the row has to show."""
    if row["exit"]:
        return row["exit"] == 1 and "can reach is" in row["message"]
    checks = row["checks"]
    needed = ["predicted_macs", "predicted_params", "predicted_thop_macs", "masked_equivalence"]
    needed += ["onnx_checker", "onnx_parity", "dynamic_batch"] if row["export"] else []
    right = all(checks.get(name, [None])[0] is True for name in needed) and all(
        ok is not False for ok, _ in checks.values()
    )
    return right and row["trains"] and LEAST_USED[row["align"]] <= row["used"] <= 1


def cells(row: dict) -> tuple[str, ...]:
    """A row as the table shows it."""
    first = NETWORKS[row["network"]], row["budget"], row["align"], str(row["exit"])
    last = f"{row['seconds']:.0f}", "yes" if holds(row) else "**no**"
    if row["exit"]:
        return (*first, row["message"].removeprefix("peel: "), *[""] * 6, *last)
    checks = row["checks"]
    exact = all(checks[f"predicted_{name}"][1] == 0 for name in ("macs", "params", "thop_macs"))
    ok, worst = checks["masked_equivalence"]
    parity = checks.get("onnx_parity", [None, None])[1]
    batch = {True: "dynamic", None: "fixed"}[checks["dynamic_batch"][0]] if row["export"] else "-"
    return (
        *first,
        f"{row['after']['macs'] / 1e6:,.1f} M",
        f"{math.floor(row['used'] * 1e4) / 100:.2f} %",  # rounded down: 100 % means all of it
        "exact" if exact else "**no**",
        f"{worst:.0e}" if ok is not None else "not comparable",
        "-" if parity is None else f"{parity:.0e}",
        batch,
        "yes" if row["trains"] else "**no**",
        *last,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, help="JSON lines; rows that are in it are not run again")
    parser.add_argument("--only", action="append", choices=NETWORKS, help="this network; repeatable")
    parser.add_argument("--no-export", action="store_true", help="leave ONNX out")
    parser.add_argument("--budget", action="append", help="this budget only, e.g. '--flops 50%%'; repeatable")
    parser.add_argument("--align", action="append", choices=ALIGNS, help="this alignment only; repeatable")
    options = parser.parse_args()
    export = not options.no_export
    rows = {}
    if options.results and options.results.exists():
        for line in options.results.read_text("utf-8").splitlines():
            row = json.loads(line)
            rows[Case(row["network"], row["budget"], row["align"]), row["export"]] = row
    wanted = [
        case
        for case in cases(options.only or [name for name in NETWORKS if name != "tiny"])
        if case.budget in (options.budget or [case.budget]) and case.align in (options.align or ALIGNS)
    ]
    made = None
    with tempfile.TemporaryDirectory() as folder:
        for case in wanted:
            if (case, export) in rows:
                continue
            if made != case.network:
                torch.save(build(case.network), Path(folder, "model.pt"))
                made = case.network
            row = rows[case, export] = run(case, Path(folder), export)
            say(" ".join(cells(row)))
            if options.results:
                append(options.results, row)
    shown = [rows[case, export] for case in wanted]
    good = sum(map(holds, shown))
    print(INTRODUCTION.format(peel=peelcli.__version__, torch=torch.__version__))
    print(markdown(HEADER, [cells(row) for row in shown]))
    print(f"\n{good} of {len(shown)} rows hold.")
    sys.exit(good != len(shown))


if __name__ == "__main__":
    main()
