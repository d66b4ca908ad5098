"""What peel's training loop takes beside a bare PyTorch loop that does the same arithmetic: paired, in one process.

In CPU seconds of this process, which other work on the machine disturbs least. Of peel, what more steps take: a long
run less a short one, so that everything around the loop cancels out.
"""

from __future__ import annotations

import time
from copy import deepcopy

import torch
from accuracy_tasks import digits
from accuracy_tasks.digit_nets import ResNet
from common import markdown, median, say
from torch import nn
from torch.nn import functional

import peelcli as peel
from peelcli.regimen import Training
from peelcli.training import recipe

SHORT, STEPS, BATCH, PAIRS, SAMPLES = 10, 100, 64, 7, 1000


def table() -> str:
    """CPU milliseconds a step of both, and the ratio, medians over pairs that alternate."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = digits.load()[0][:SAMPLES]
    rows = []
    for title, widths in (("digits ResNet", (24, 48, 96)), ("digits ResNet, a third of its widths", (8, 16, 32))):
        teacher, student = ResNet().eval(), ResNet(widths).eval()
        pairs = []
        for number in range(PAIRS):
            order = (bare, ours) if number % 2 else (ours, bare)
            found = {side: side(student, teacher, images) for side in order}
            pairs.append((found[ours], found[bare]))
            say(f"{title}: peel {found[ours]:.2f}, bare {found[bare]:.2f} ms a step")
        costs = [median(column) for column in zip(*pairs, strict=True)]
        ratio = median([mine / theirs for mine, theirs in pairs])
        rows.append((title, *(f"{cost:.2f}" for cost in costs), f"{ratio - 1:+.1%}"))
    return markdown(("network", "peel, ms a step", "bare loop, ms a step", "overhead"), rows)


def ours(student: nn.Module, teacher: nn.Module, images: torch.Tensor) -> float:
    """Milliseconds a step of peel's loop; the teacher's answers are known before it starts."""

    def seconds(steps: int) -> float:
        start = time.process_time()
        peel.finetune(student, images[:1], teacher=teacher, data=images, steps=steps, batch=BATCH, evaluate_every=10**6)
        return time.process_time() - start

    short = seconds(SHORT)
    return 1000 * (seconds(SHORT + STEPS) - short) / STEPS


def bare(student: nn.Module, teacher: nn.Module, images: torch.Tensor) -> float:
    """The same loss, optimizer and rates, and nothing else: no average of weights, no look at losses."""
    training = Training(steps=STEPS, batch=BATCH)
    module = deepcopy(student).train()
    optimizer = recipe.make_optimizer(module, "sgd", training)
    peak = recipe.peak_rate("sgd", training)
    with torch.no_grad():
        answers = torch.cat([teacher(part) for part in images.split(256)])
    order = torch.randperm(len(images)).split(BATCH)
    start = time.process_time()
    for step in range(STEPS):
        chosen = order[step % (len(order) - 1)]
        for group in optimizer.param_groups:
            group["lr"] = peak * recipe.rate_factor(step, STEPS, training.warmup)
        tau = training.temperature
        wanted, outputs = (answers[chosen] / tau).log_softmax(1), (module(images[chosen]) / tau).log_softmax(1)
        loss = tau**2 * functional.kl_div(outputs, wanted, reduction="batchmean", log_target=True)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return 1000 * (time.process_time() - start) / STEPS
