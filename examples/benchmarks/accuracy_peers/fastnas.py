"""FastNAS of NVIDIA Model Optimizer: a search for the widths that hurt least one by one.

Its score is the slim network's agreement with the unpruned one on the calibration samples, no label is used. Widths
are multiples of 2 in steps of 5 %; BatchNorm's statistics are made anew for each candidate and for the result. What the
search measured before it chose (its sensitivity map, which no budget enters) is kept between budgets: the first budget
of a seed pays for it. On a large network candidates are scored on the first samples alone, or a seed takes hours; the
result gets its statistics from all of them. It finds no layer whose class is not torch's own, so it is given a network
of such classes.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from typing import Any

import torch
from accuracy_tasks.base import CACHE, agreement, forward
from torch import nn

from accuracy_peers.base import Job, Method, OutOfReach, batches, costs, reestimate_norms

DIVISOR = 2
TRIES = 4  # its counter adds norms and the like, so the bound is moved until torch's counter is content
LARGE = 100_000_000  # multiply-adds
SCORED = 128  # samples that candidates of a large network are scored on


def methods() -> dict[str, Method]:
    """One of them."""
    return {"modelopt fastnas": prune}


def prune(job: Job) -> nn.Module:
    """The best network that the search finds below the budget."""
    dense = costs(job.module, job.example)[0]
    bound = job.share
    for _ in range(TRIES):
        slim = _searched(job, bound)
        left = costs(slim, job.example)[0] / dense
        if left <= job.share:
            return slim
        bound *= 0.995 * job.share / left
    raise OutOfReach(f"the least that was found is {left:.1%}")


def _searched(job: Job, bound: float) -> nn.Module:
    scored = _scored(job)
    dense = forward(job.module, scored, job.batch)

    def score(module: nn.Module) -> float:
        module.eval()  # this makes BatchNorm's statistics anew
        return agreement(forward(module, scored, job.batch), dense)

    def passes(module: nn.Module) -> None:
        for batch in batches(scored):
            module(batch)

    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import modelopt.torch.prune as mtp  # says what it thinks of other packages' versions

        try:
            slim, _ = mtp.prune(
                model=job.plain(job.module),
                mode=[("fastnas", _config())],
                constraints={"flops": f"{100 * bound}%"},
                dummy_input=job.example,
                config={
                    "score_func": score,
                    "forward_loop": passes,
                    "checkpoint": str(CACHE / f"fastnas-{job.name}.pth"),
                },
            )
        except ValueError as error:
            if "constraints can be satisfied" not in str(error):
                raise
            raise OutOfReach("no network of its search space is so small") from None
    return reestimate_norms(slim.eval(), job.calibration)


def _scored(job: Job) -> torch.Tensor:
    """The samples that candidates are scored on, shape (samples, ...)."""
    return job.calibration[:SCORED] if costs(job.module, job.example)[0] > LARGE else job.calibration


def _config() -> dict[str, Any]:
    config = importlib.import_module("modelopt.torch.prune.fastnas").FastNASConfig().model_dump()
    for rules in config.values():
        for rule in rules.values():
            for name in ("channel_divisor", "feature_divisor"):
                if rule and name in rule:
                    rule[name] = DIVISOR
    return config
