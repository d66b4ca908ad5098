"""The zoo: peel on many architectures, and torch-pruning as its readme shows it on the same ones.

Every model runs in a process of its own under a limit of CPU time, which a busy machine does not eat up. Rows go to a
results file as they come, so that an interrupted run goes on where it stopped; of two rows of one model the later one
counts.

    python examples/benchmarks/zoo.py --jobs 2                      # all that is not in the results yet
    python examples/benchmarks/zoo.py --only '*resnet18' --again    # a quick look
    python examples/benchmarks/zoo.py --check --family timm         # does each model build and run?
    python examples/benchmarks/zoo.py --table docs/coverage.md      # write the page from the results
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PATIENCE = 5  # wall time is bounded by so many times the CPU time
HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "zoo.jsonl"
SIDES = ("peel", "plain")
PACKAGES = ("peelcli", "torch", "torchvision", "timm", "transformers", "pytorchcv", "torch-pruning")
Key = tuple[str, str]
Rows = dict[Key, dict[str, Any]]


def measure(side: str, name: str) -> None:
    """One side on one model, in this process; facts are printed as they come."""
    import torch
    import zoo_judge
    import zoo_models

    torch.set_num_threads(1)
    entry = zoo_models.ZOO[name]
    row = zoo_judge.Row(name=name, side=side, kind=entry.kind)
    row.tell(guessed=entry.inputs is None)
    if side == "peel":
        import zoo_peel

        zoo_peel.measure(row, entry)
    elif side == "depgraph":
        import zoo_peel

        zoo_peel.measure(row, entry, export=False, tracer="depgraph")
    elif side == "samples":
        import zoo_samples

        zoo_samples.measure(row, entry)
    elif side == "plain":
        import zoo_plain

        zoo_plain.measure(row, entry)
    else:
        look(row, entry)


def look(row: Any, entry: Any) -> None:
    """Does the model build and run on its input?"""
    from zoo_judge import macs_of, one_line, params_of
    from zoo_models.entry import inputs_of, liven

    try:
        with row.stage("build"):
            module = liven(entry)
        with row.stage("inputs"):
            inputs = inputs_of(entry, module)
        with row.stage("forward"):
            macs = macs_of(module, inputs)
        shapes = " ".join("x".join(map(str, value.shape)) for value in inputs if hasattr(value, "shape"))
        row.tell(outcome="runs", reason=f"{shapes}, {params_of(module) / 1e6:.1f} M parameters, {macs / 1e9:.2f} GMACs")
    except Exception as error:  # whatever a package raises
        row.tell(outcome="broken", reason=f"{row['stage']}: {one_line(error)}")


def in_own_process(side: str, name: str, limit: float) -> dict[str, Any]:
    """Measure in a fresh process; one that is killed, or dies, leaves what it had said until then."""
    start = time.perf_counter()

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit)))

    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "zoo.py"), "--measure", side, name],
            stdout=out, stderr=err, text=True, start_new_session=True, preexec_fn=bound,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
        try:
            process.wait(PATIENCE * limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        err.seek(0)
        said = [line.removeprefix("@row ") for line in out if line.startswith("@row ")]
        complaint = err.read().strip().splitlines()[-1:]
    row = {"name": name, "side": side, **(json.loads(said[-1]) if said else {})}
    if "outcome" not in row:
        at = row.get("stage", "start")
        killed = process.returncode in (-signal.SIGKILL, -signal.SIGXCPU)
        row["outcome"] = "hang" if killed else "traceback"
        row["reason"] = f"over {limit:.0f} s, in {at}" if killed else f"{at}: {' '.join(complaint)[:300]}"
    return {**row, "wall": round(time.perf_counter() - start, 1), "versions": versions()}


def versions() -> dict[str, str]:
    """Of the packages that matter, where they are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            continue
    return found


def read(path: Path) -> Rows:
    """Rows by model and side, the last one of each."""
    if not path.exists():
        return {}
    rows = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return {(row["name"], row["side"]): row for row in rows}


def work(keys: Iterable[Key], options: argparse.Namespace) -> Rows:
    """Measure, `--jobs` at a time, and append each row as it comes."""
    rows: Rows = {}

    def one(key: Key) -> None:
        name, side = key
        row = rows[key] = in_own_process(side, name, options.limit)
        ratio = f" {row['ratio']:.1%}" if "ratio" in row else ""
        print(f"{row['wall']:6.1f} s  {side:5}  {name}: {row['outcome']}{ratio}  {row['reason']}", file=sys.stderr)
        if side != "check":
            options.results.parent.mkdir(parents=True, exist_ok=True)
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one, keys))
    return rows


def wanted(options: argparse.Namespace) -> list[Key]:
    """What is to be measured: each model with the sides one after the other."""
    import zoo_models

    names = zoo_models.chosen(options.only or (), options.family or ())
    if options.check:
        return [(name, "check") for name in names]
    sides = SIDES if options.side == "both" else (options.side,)
    done = {} if options.again else read(options.results)
    return [(name, side) for name in names for side in sides if (name, side) not in done]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", metavar="GLOB", help="models by name; repeatable")
    parser.add_argument("--family", action="append", help="torchvision, timm, transformers, pytorchcv, own; repeatable")
    parser.add_argument("--side", choices=(*SIDES, "depgraph", "samples", "both"), default="both")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time, one thread each")
    parser.add_argument("--limit", type=float, default=180.0, help="CPU seconds for a model, all stages together")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines")
    parser.add_argument("--again", action="store_true", help="measure even what is in the results")
    parser.add_argument("--check", action="store_true", help="only build each model and run it once")
    parser.add_argument("--list", action="store_true", help="only print the names")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the page from the results; measure nothing")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.measure:
        measure(*options.measure)
    elif options.table:
        import zoo_table

        options.table.write_text(zoo_table.page(read(options.results)), "utf-8")
    elif options.list:
        print(*dict.fromkeys(name for name, _ in wanted(options)), sep="\n")
    else:
        rows = work(wanted(options), options)
        sys.exit(options.check and any(row["outcome"] != "runs" for row in rows.values()))


if __name__ == "__main__":
    main()
