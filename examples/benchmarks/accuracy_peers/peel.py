"""peel itself: every score with every allocator, with and without repair."""

from __future__ import annotations

from itertools import product
from typing import Any

from torch import nn

from accuracy_peers.base import Job, Method, OutOfReach, reestimate_norms
from peelcli import pipeline
from peelcli.errors import BudgetOutOfReach

SCORES = ("bn", "l1", "l2", "fpgm", "random", "taylor", "fisher", "reconstruction")
ALLOCATORS = ("peel", "uniform", "greedy")
SMALL = (("bn", "l2", "reconstruction"), ("peel", "uniform"))
REPAIRS = ("none", "bn", "auto")  # bn: no repair, but BatchNorm's statistics made anew, as the peers get them
SYNTHETIC = "synthetic"  # scores, allocation and repair without any data


def methods(grid: str) -> dict[str, Method]:
    """Names such as "peel reconstruction/auto/none"; the grid is "small" or "full"."""
    scores, allocators = SMALL if grid == "small" else (SCORES, ALLOCATORS)
    plans = [*product(scores, allocators), ("reconstruction", "auto")]
    named = [(score, allocate, repair) for (score, allocate), repair in product(plans, REPAIRS)]
    named.append(("reconstruction", "auto", SYNTHETIC))
    return {f"peel {score}/{allocate}/{repair}": _method(score, allocate, repair) for score, allocate, repair in named}


def _method(score: str, allocate: str, repair: str) -> Method:
    def prune(job: Job) -> nn.Module:
        how: dict[str, Any] = {"score": score, "allocate": allocate, "repair": "none" if repair == "bn" else repair}
        if repair == SYNTHETIC:
            how |= {"data": SYNTHETIC, "repair": "auto"}
        else:
            how |= {"data": job.calibration, "samples": len(job.calibration)}
        budget = f"{100 * job.share:g}%"
        try:
            # Aligned to nothing: the peers choose their widths freely too.
            slim, _run = pipeline.prune(
                job.module,
                job.example,
                flops=budget,
                align=1,
                seed=job.seed,
                **how,
            )
        except BudgetOutOfReach as error:
            raise OutOfReach(str(error)) from None
        return reestimate_norms(slim, job.calibration) if repair == "bn" else slim

    return prune
