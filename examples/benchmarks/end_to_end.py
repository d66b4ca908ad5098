"""The whole command against what must be done anyway: loading the unpruned model and exporting it.

    peel prune resnet50.pt --flops 50% --out slim.onnx

against a script that loads resnet50.pt and calls torch.onnx.export on it, each in a fresh process, alternating. The
ratio says what pruning and all its proofs cost on top of an export that proves nothing.

    python examples/benchmarks/end_to_end.py
    python examples/benchmarks/end_to_end.py --quick
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import build, example, markdown, median, say

EXPORT_ALONE = """
import sys, torch
module = torch.load(sys.argv[1], weights_only=False).eval()
inputs = torch.randn(*map(int, sys.argv[2].split(",")))
torch.onnx.export(module, (inputs,), sys.argv[3], dynamo=True, external_data=False)
"""
SIDES = ("peel", "export alone")


def timed(command: list[str]) -> tuple[float, str]:
    """Seconds of a process from start to end, and its stdout."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return time.perf_counter() - start, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet50", help="a torchvision name, or tiny")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side; the median is shown")
    parser.add_argument("--quick", action="store_true", help="one run of a tiny network")
    options = parser.parse_args()
    if options.quick:
        options.network, options.repeats = "tiny", 1
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    stages: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model, slim, plain = (str(Path(folder, name)) for name in ("model.pt", "slim.onnx", "plain.onnx"))
        torch.save(build(options.network), model)
        shape = ",".join(map(str, example(options.network).shape))
        how = ["--flops", "50%", "--input", shape, "--out", slim, "--output-format", "json"]
        commands = {
            "peel": [sys.executable, "-m", "peelcli", "prune", model, *how],
            "export alone": [sys.executable, "-c", EXPORT_ALONE, model, shape, plain],
        }
        for turn in range(options.repeats):
            for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
                took, printed = timed(commands[side])
                seconds[side].append(took)
                say(f"{side}: {took:.1f} s")
                for stage, spent in (json.loads(printed)["seconds"] if side == "peel" else {}).items():
                    stages.setdefault(stage, []).append(spent)
    medians = {side: median(values) for side, values in seconds.items()}
    rows = [
        (side, f"{medians[side]:.1f}", f"{medians[side] / medians['export alone']:.2f}", _all(seconds[side]))
        for side in SIDES
    ]
    print(markdown(("side", "seconds", "ratio", "all runs"), rows))
    inside = {stage: median(values) for stage, values in stages.items()}
    outside = medians["peel"] - sum(inside.values())
    print(
        "\n"
        + markdown(("peel's stages", "seconds"), [(s, f"{t:.2f}") for s, t in (*inside.items(), ("start", outside))])
    )


def _all(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


if __name__ == "__main__":
    main()
