"""What calibration samples show of the products of a model: how their inputs vary together, how much outputs matter."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch

from peelcli.patches import generator, inputs_at
from peelcli.products import Product, Run, watching
from peelcli.records import Subject
from peelcli.samples import Samples
from peelcli.scoring.sensitivity import Objective
from peelcli.tensors import tracing_copy

_ROWS = 8  # rows a column of the second moments, over all samples
_FEWEST_ROWS = 8192
_BATCH = 8
GRADED = 64  # samples that are differentiated: sensitivities are means over positions too, so few are enough
WIDE = 4096  # inputs of a product from which on its rows are kept instead of its moments


@dataclass
class Moments:
    """Of one weight, over the samples.

    Attributes:
        product: the first call, with the weight.
        count: rows seen.
        mean: sum of the rows until `finished`, shape (groups, inputs).
        square: sum of products of two inputs, shape (groups, inputs, inputs), float64; after `finished` the covariance.
        rows: the rows themselves of a product with more than WIDE inputs, where no matrix of that size is made.
        graded: samples that were differentiated.
        sensitivity: sum over samples and positions of (dL/dy)^2 for each output, shape (outputs,), then its mean over
            the samples.
    """

    groups: int
    matrix: torch.Tensor
    count: int = 0
    mean: torch.Tensor | float = 0.0
    square: torch.Tensor | float = 0.0
    rows: list[torch.Tensor] = field(default_factory=list)
    sensitivity: torch.Tensor | float = 0.0

    def add(self, rows: torch.Tensor) -> None:
        """Take rows of shape (groups, rows, inputs) into account."""
        self.count += rows.shape[1]
        if rows.shape[2] > WIDE:
            self.rows.append(rows[0].float())
            return
        rows = rows.double()
        self.mean = self.mean + rows.sum(1)
        self.square = self.square + rows.transpose(1, 2) @ rows

    def covariance(self) -> torch.Tensor:
        """Shape (groups, inputs, inputs)."""
        assert isinstance(self.mean, torch.Tensor)
        mean = self.mean / self.count
        return self.square / self.count - mean[:, :, None] * mean[:, None, :]


def measure(subject: Subject, samples: Samples, weights: Collection[str], seed: int) -> dict[str, Moments]:
    """Moments of the products with the given weights, of the original on the samples.

    Args:
        subject: the original; it is not changed.
        samples: what it is shown, in batches.
        weights: paths of weights; those that no product uses are not in the result.
        seed: of the rows that are looked at and of the directions in which the output is differentiated.
    """
    double = tracing_copy(subject.module, weightless=False)
    for parameter in double.parameters():
        parameter.requires_grad_(False)
    found: dict[str, Moments] = {}
    objective = Objective(generator(seed, "objective"))
    graded = 0
    for number, inputs in enumerate(samples.batches(_BATCH)):
        share = _BATCH / len(samples)
        wanted = graded < GRADED
        pass_ = _Pass(found, weights, generator(seed, "rows", number), share, wanted)
        with torch.set_grad_enabled(wanted), watching(double, pass_):
            output = double(*inputs)
        if wanted:
            graded += _BATCH
            objective.gradient(output)
    for moments in found.values():
        moments.sensitivity = moments.sensitivity / graded
    return found


class _Pass:
    """One batch."""

    def __init__(
        self, found: dict[str, Moments], weights: Collection[str], source: torch.Generator, share: float, graded: bool
    ) -> None:
        self.found = found
        self.weights = weights
        self.source = source
        self.share = share
        self.graded = graded

    def __call__(self, product: Product, run: Run) -> torch.Tensor:
        """Look at the inputs, and have the gradient of the output looked at later."""
        out = run()
        if product.name not in self.weights:
            return out
        moments = self.found.setdefault(product.name, Moments(product.groups, product.matrix()))
        inputs = product.matrix().shape[2]
        rows = max(_FEWEST_ROWS, _ROWS * inputs)
        moments.add(inputs_at(product, max(1, round(rows * self.share)), self.source))
        if self.graded:
            if not out.requires_grad:
                out = out + torch.zeros((), dtype=out.dtype, requires_grad=True)

            def look(gradient: torch.Tensor) -> None:
                dims = [d for d in range(gradient.dim()) if d != product.channel_dim % gradient.dim()]
                moments.sensitivity = moments.sensitivity + gradient.double().square().sum(dims)

            out.register_hook(look)
        return out
