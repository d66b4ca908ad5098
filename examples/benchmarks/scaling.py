"""How planning grows with the depth of a network: synthetic networks of 50 to 2,000 layers, stage by stage.

Three families of 3x3 and 1x1 layers on images of 8x8: plain (each layer a group of its own), residual (half of the
layers write one stream, whose group touches all of them) and inverted (1x1, depthwise 3x3, 1x1 onto a stream). Every
measurement is a process of its own, and the figures are its CPU seconds, which a busy machine hardly changes. The
exponent is the slope of a line through the logarithms of layers and seconds, from 200 layers on: 1 is linear.

    python examples/benchmarks/scaling.py --results scaling.jsonl      # goes on where it stopped
    python examples/benchmarks/scaling.py --results scaling.jsonl --table docs/performance.md
    python examples/benchmarks/scaling.py --quick
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from common import apart, append, between_markers, lines, markdown, median, peak, say, versions
from torch import nn

DEPTHS = (50, 100, 200, 500, 1000, 2000)
WIDTH, IMAGE = 32, 8
STAGES = ("load", "trace", "digest", "score", "allocate", "surgery", "verify")
FROM = 200  # layers; below, what does not depend on the depth weighs too much
LIMIT = 1200.0


class Stack(nn.Module):
    """A first convolution, a number of blocks that add to it or not, and a classifier."""

    def __init__(self, blocks: Sequence[nn.Module], adds: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.blocks = nn.ModuleList(blocks)
        self.adds = adds
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = torch.relu(x + block(x)) if self.adds else block(x)
        return self.head(x.mean((2, 3)))


def layer(c_in: int, c_out: int, kernel: int, groups: int = 1) -> list[nn.Module]:
    """A convolution with its norm; the norms' random scales give a score something to see."""
    conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    norm = nn.BatchNorm2d(c_out)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    return [conv, norm]


def plain(depth: int) -> nn.Module:
    return Stack([nn.Sequential(*layer(WIDTH, WIDTH, 3), nn.ReLU()) for _ in range(depth - 2)], adds=False)


def residual(depth: int) -> nn.Module:
    def block() -> nn.Module:
        return nn.Sequential(*layer(WIDTH, WIDTH, 3), nn.ReLU(), *layer(WIDTH, WIDTH, 3))

    return Stack([block() for _ in range((depth - 2) // 2)], adds=True)


def inverted(depth: int) -> nn.Module:
    def block() -> nn.Module:
        wide = 2 * WIDTH
        into, within = layer(WIDTH, wide, 1), layer(wide, wide, 3, groups=wide)
        return nn.Sequential(*into, nn.ReLU6(), *within, nn.ReLU6(), *layer(wide, WIDTH, 1))

    return Stack([block() for _ in range((depth - 2) // 3)], adds=True)


FAMILIES = {"plain": plain, "residual": residual, "inverted": inverted}


def measure(family: str, depth: int) -> dict:
    """CPU seconds of every stage of `peel plan` on one network, and what the process grew by, in bytes."""
    import peelcli
    from peelcli import pipeline

    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = FAMILIES[family](depth).eval()
    example = torch.randn(1, 3, IMAGE, IMAGE)
    pipeline.plan(FAMILIES[family](8).eval(), example, flops="50%")  # imports what it needs
    marks: list[tuple[str, float]] = []

    def tell(stage: str, *_args: object) -> None:
        marks.append((stage, time.process_time()))

    before = peak()
    run = pipeline.plan_run(module, example, flops="50%", progress=tell)
    marks.append(("", time.process_time()))
    seconds: dict[str, float] = {}
    for (stage, start), (_, end) in pairwise(marks):
        seconds[stage] = seconds.get(stage, 0.0) + end - start
    return {
        "family": family,
        "depth": depth,
        "groups": len(run.plan.cuts),
        "seconds": seconds,
        "grown": peak() - before,
        "used": max(check.value or 0.0 for check in run.checks if check.name.startswith("budget")),
        "versions": {"peel": peelcli.__version__, "torch": torch.__version__},
    }


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the least-squares line through (log x, log y)."""
    xs, ys = ([math.log(point[k]) for point in points] for k in (0, 1))
    x0, y0 = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - x0) * (y - y0) for x, y in zip(xs, ys, strict=True)) / sum((x - x0) ** 2 for x in xs)


def table(rows: Sequence[dict]) -> str:
    """One row a network, seconds by stage, and the exponents below each family."""
    header = ("network", "layers", "groups", *STAGES, "all", "ms a layer", "MiB")
    found = []
    for family in FAMILIES:
        curves: dict[str, list[tuple[float, float]]] = {stage: [] for stage in (*STAGES, "all")}
        for depth in sorted({row["depth"] for row in rows if row["family"] == family}):
            same = [row for row in rows if (row["family"], row["depth"]) == (family, depth)]
            seconds = {stage: median([row["seconds"].get(stage, 0.0) for row in same]) for stage in STAGES}
            seconds["all"] = sum(seconds.values())
            each = 1000 * seconds["all"] / depth
            grown = median([row["grown"] for row in same]) / 2**20
            shown = [f"{seconds[stage]:.2f}" for stage in curves]
            found.append((family, depth, same[0]["groups"], *shown, f"{each:.1f}", f"{grown:.0f}"))
            if depth >= FROM:
                for stage, points in curves.items():
                    points.append((depth, max(seconds[stage], 1e-3)))
        if len(curves["all"]) > 1:
            found.append((family, "exponent", "", *(f"{slope(points):.2f}" for points in curves.values()), "", ""))
    return markdown(header, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("scaling.jsonl"), help="rows, added to as they come")
    parser.add_argument("--only", action="append", choices=FAMILIES, help="a family; repeatable")
    parser.add_argument("--depth", action="append", type=int, help="layers; repeatable")
    parser.add_argument("--repeats", type=int, default=1, help="measurements of each network; the median is shown")
    parser.add_argument("--table", type=Path, help="measure nothing; put the table into this page")
    parser.add_argument("--quick", action="store_true", help="two small networks, no file")
    options = parser.parse_args()
    if options.table:
        rows = lines(options.results)
        between_markers(options.table, "scaling", f"{table(rows)}\n\nVersions: {versions(rows)}.")
        return
    depths = (20, 40) if options.quick else tuple(options.depth or DEPTHS)
    rows = [] if options.quick else lines(options.results)
    for turn in range(options.repeats):
        for depth in depths:
            for family in options.only or FAMILIES:
                done = [row for row in rows if (row["family"], row["depth"]) == (family, depth)]
                if len(done) > turn:
                    continue
                row = apart(lambda f=family, d=depth: measure(f, d), {"error": f"more than {LIMIT:.0f} s"}, LIMIT)
                if "error" in row:
                    sys.exit(f"{family} {depth}: {row['error']}")
                say(f"{family} {depth}: {sum(row['seconds'].values()):.1f} s")
                rows.append(row)
                if not options.quick:
                    append(options.results, row)
    print(table(rows))


if __name__ == "__main__":
    main()
