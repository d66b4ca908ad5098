"""How much memory the commands take on large models, beside the weights themselves.

A decoder of transformers' Llama form, built from a configuration with random weights in float32. Each command is a
process of its own, and its peak is its largest resident memory. "loaded" is a process that imports the same packages
and holds the weights, and does nothing else. The ratio is what a command takes beyond the packages, divided by the size
of the weights: 1 is the model alone, below 2 no second copy of it was ever whole.

    python examples/benchmarks/memory.py --results memory.jsonl      # goes on where it stopped; needs 9 GiB
    python examples/benchmarks/memory.py --results memory.jsonl --table docs/performance.md
    python examples/benchmarks/memory.py --quick
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import append, between_markers, child, lines, markdown, median, say, versions

MODELS: Mapping[str, Mapping[str, int]] = {
    "0.2 G": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12, "num_attention_heads": 16},
    "1.1 G": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32},
    "quick": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
}
FACTORY = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM

def build():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{sizes!r}, num_key_value_heads=4, vocab_size=32000, use_cache=False))
"""
ALONE = """
import sys; sys.path.insert(0, sys.argv[1])
import json, peelcli, peelcli.pipeline, torch, decoder, transformers
torch.zeros(1) @ torch.zeros(1)
weights = 0
if sys.argv[2] == "loaded":
    model = decoder.build()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
found = {"peel": peelcli.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
print(json.dumps({"weights": weights, "versions": found}))
"""
COMMANDS = ("packages", "loaded", "plan", "prune")


def measure(command: str, folder: Path) -> dict[str, Any]:
    """One command in a process of its own: peak in bytes, CPU seconds, and what it said of itself."""
    if command in ("packages", "loaded"):
        done = child([sys.executable, "-c", ALONE, str(folder), command])
    else:
        out = {"plan": "plan.json", "prune": "slim.safetensors"}[command]
        model = f"{folder / 'decoder.py'}:build"
        how = ["--params", "70%", "--input", "input_ids:1,16:int64", "--out", str(folder / out)]
        done = child([sys.executable, "-m", "peelcli", command, model, *how, "--output-format", "json"])
    if done.code:
        sys.exit(f"{command}:\n{done.stderr}")
    row = {"peak": done.peak, "cpu": done.cpu}
    told = json.loads(done.stdout)
    if "seconds" in told:
        checks = {check["name"]: check["ok"] for check in told["checks"]}
        return {**row, "checks": checks, "seconds": told["seconds"]}
    return {**row, **told}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row a command and model."""
    found = []
    for model in MODELS:
        own = {c: [r for r in rows if (r["model"], r["command"]) == (model, c)] for c in COMMANDS}
        if not all(own.values()):
            continue
        weights = own["loaded"][0]["weights"]
        packages = median([row["peak"] for row in own["packages"]])
        for command in COMMANDS[1:]:
            peak, cpu = (median([row[key] for row in own[command]]) for key in ("peak", "cpu"))
            mib = f"{weights / 2**20:,.0f}", f"{packages / 2**20:,.0f}", f"{peak / 2**20:,.0f}"
            found.append((model, command, *mib, f"{(peak - packages) / weights:.2f}", f"{cpu:.0f}"))
    header = ("parameters", "command", "weights MiB", "packages MiB", "peak MiB", "ratio", "CPU s")
    return markdown(header, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("memory.jsonl"), help="rows, added to as they come")
    parser.add_argument("--only", action="append", choices=MODELS, help="a model; repeatable")
    parser.add_argument("--table", type=Path, help="measure nothing; put the table into this page")
    parser.add_argument("--quick", action="store_true", help="a tiny decoder, no file")
    options = parser.parse_args()
    rows = [] if options.quick else lines(options.results)
    if options.table:
        between_markers(options.table, "memory", f"{table(rows)}\n\nVersions: {versions(rows)}.")
        return
    wanted = ["quick"] if options.quick else options.only or [name for name in MODELS if name != "quick"]
    for model in wanted:
        for command in COMMANDS:
            if any((row["model"], row["command"]) == (model, command) for row in rows):
                continue
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "decoder.py").write_text(FACTORY.format(sizes=dict(MODELS[model])), encoding="utf-8")
                row = {"model": model, "command": command, **measure(command, Path(folder))}
            say(f"{model} {command}: {row['peak'] / 2**20:,.0f} MiB, {row['cpu']:.0f} s")
            rows.append(row)
            if not options.quick:
                append(options.results, row)
    print(table(rows))


if __name__ == "__main__":
    main()
