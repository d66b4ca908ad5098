"""Where the time of `peel prune` goes on the nine networks, beside what must be done anyway.

Each network is pruned to half of its multiply-adds and written to .onnx, and, in another process, the unpruned one is
loaded, run once and exported with torch.onnx.export, which proves nothing; both files take any batch size. Figures are
CPU seconds on one thread: what a busy machine changes least. A stage lasts until the next one starts. "start" is Python
and its imports before the model is touched, "end" what Python does after the last stage.

    python examples/benchmarks/stages.py --results stages.jsonl      # goes on where it stopped
    python examples/benchmarks/stages.py --results stages.jsonl --table docs/performance.md
    python examples/benchmarks/stages.py --quick
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import append, between_markers, child, example, lines, markdown, median, say, versions
from nine import NETWORKS

SIDES = {
    "peel": """
import sys, time
marks = [("start", 0.0)]
import contextlib, json, torch, peelcli
from peelcli.cli import console, main
model, shape, out = sys.argv[1:]
working = console.working

@contextlib.contextmanager
def marking():
    with working() as progress:
        def tell(stage, *how):
            marks.append((stage, time.process_time()))
            progress(stage, *how)
        yield tell
        marks.append(("", time.process_time()))

console.working = marking
how = ["--flops", "50%", "--input", shape, "--trust", "--out", out, "--output-format", "json"]
sys.argv = ["peel", "prune", model, *how]
try:
    main.main()
except SystemExit as end:
    assert not end.code, end.code
""",
    "alone": """
import sys, time
marks = [("start", 0.0)]
import json, torch, peelcli
model, shape, out = sys.argv[1:]
marks.append(("load", time.process_time()))
module = torch.load(model, weights_only=False).eval()
marks.append(("forward", time.process_time()))
inputs = torch.randn(2, *map(int, shape.split(",")[1:]))
with torch.no_grad():
    module(inputs[:1])
marks.append(("export", time.process_time()))
sizes = ({0: torch.export.Dim("batch")},)
torch.onnx.export(module, (inputs,), out, dynamo=True, dynamic_shapes=sizes, external_data=False, verbose=False)
marks.append(("", time.process_time()))
""",
}
REPORT = """
seconds = {}
for (stage, begin), (_, end) in zip(marks, marks[1:]):
    seconds[stage] = seconds.get(stage, 0.0) + end - begin
print(json.dumps({"seconds": seconds, "versions": {"peel": peelcli.__version__, "torch": torch.__version__}}))
"""
STAGES = {
    "peel": ("start", "load", "trace", "digest", "score", "allocate", "surgery", "verify", "export", "count", "end"),
    "alone": ("start", "load", "forward", "export", "end"),
}


def save(network: str, path: Path) -> None:
    """Build a network in a process of its own: peaks of processes that this one starts are never below its own."""
    code = "import sys, torch; sys.path.insert(0, sys.argv[1]); from common import build; "
    code += "torch.save(build(sys.argv[2]), sys.argv[3])"
    done = child([sys.executable, "-c", code, str(Path(__file__).parent), network, str(path)])
    if done.code:
        sys.exit(done.stderr)


def measure(side: str, network: str, folder: Path) -> dict[str, Any]:
    """One side on one network whose file is in the folder."""
    shape = ",".join(map(str, example(network).shape))
    paths = str(folder / "model.pt"), shape, str(folder / f"{side}.onnx")
    done = child([sys.executable, "-c", SIDES[side] + REPORT, *paths])
    if done.code:
        sys.exit(f"{side} failed on {network}:\n{done.stderr}")
    row = {"network": network, "side": side, "cpu": done.cpu, "peak": done.peak}
    told = json.loads(done.stdout.splitlines()[-1])
    told["seconds"]["end"] = done.cpu - sum(told["seconds"].values())
    return {**row, **told}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Two tables: peel's stages, and the whole of it beside load, forward and export alone."""
    names = [name for name in NETWORKS if {r["side"] for r in rows if r["network"] == name} == set(SIDES)]
    parts, whole = [], []
    for name in names:
        sides = {side: [r for r in rows if (r["network"], r["side"]) == (name, side)] for side in SIDES}
        spent = {
            side: {stage: median([r["seconds"].get(stage, 0.0) for r in own]) for stage in STAGES[side]}
            for side, own in sides.items()
        }
        parts.append((NETWORKS[name], *(f"{spent['peel'][stage]:.2f}" for stage in STAGES["peel"])))
        cpu, peak = ({side: median([r[key] for r in own]) for side, own in sides.items()} for key in ("cpu", "peak"))
        anyway = [f"{spent['alone'][stage]:.2f}" for stage in STAGES["alone"]]
        ratio = f"{cpu['peel'] / cpu['alone']:.2f}"
        mib = (f"{peak[side] / 2**20:.0f}" if peak[side] else "-" for side in SIDES)
        whole.append((NETWORKS[name], f"{cpu['peel']:.1f}", f"{cpu['alone']:.1f}", ratio, *anyway, *mib))
    header = ("network", "peel", "alone", "ratio", *STAGES["alone"], "peel MiB", "alone MiB")
    return "\n\n".join(
        (
            "`peel prune`, CPU seconds by stage:",
            markdown(("network", *STAGES["peel"]), parts),
            "All of it, and load, forward and export alone:",
            markdown(header, whole),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("stages.jsonl"), help="rows, added to as they come")
    parser.add_argument("--only", action="append", choices=NETWORKS, help="a network; repeatable")
    parser.add_argument("--repeats", type=int, default=1, help="measurements of each side; the median is shown")
    parser.add_argument("--table", type=Path, help="measure nothing; put the tables into this page")
    parser.add_argument("--quick", action="store_true", help="a tiny network, no file")
    options = parser.parse_args()
    rows = [] if options.quick else lines(options.results)
    if options.table:
        between_markers(options.table, "stages", f"{table(rows)}\n\nVersions: {versions(rows)}.")
        return
    wanted = ["tiny"] if options.quick else options.only or [name for name in NETWORKS if name != "tiny"]
    for turn in range(options.repeats):
        for network in wanted:
            sides = [s for s in SIDES if sum((r["network"], r["side"]) == (network, s) for r in rows) <= turn]
            with tempfile.TemporaryDirectory() as folder:
                if sides:
                    save(network, Path(folder, "model.pt"))
                for side in sides if turn % 2 == 0 else sides[::-1]:
                    rows.append(measure(side, network, Path(folder)))
                    say(f"{network} {side}: {rows[-1]['cpu']:.1f} s, {rows[-1]['peak'] / 2**20:.0f} MiB")
                    if not options.quick:
                        append(options.results, rows[-1])
    print(table(rows))


if __name__ == "__main__":
    main()
