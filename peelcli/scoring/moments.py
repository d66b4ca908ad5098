"""What samples show of the products of a model: how their inputs vary together, how much their outputs matter."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch

from peelcli.patches import generator, inputs_at
from peelcli.products import Product, Run, watching
from peelcli.records import Subject
from peelcli.samples import Samples
from peelcli.scoring.sensitivity import Objective
from peelcli.tensors import differentiated, wide_copy, wide_inputs

WIDE = 4096  # inputs of a product up to which their second moments are kept; above, the rows are
GRADED = 64  # samples that are differentiated: sensitivities are means over positions too, so few are enough
_ROWS = 8  # rows an input, over all samples
_FEWEST_ROWS = 8192
_BATCH = 8
_CONSTANT = 1e-12  # of the mean square: a variance below this is round-off


@dataclass
class Moments:
    """Of one weight, over the samples.

    Attributes:
        matrix: the weight, shape (groups, outputs of a group, inputs of a group, kernel positions).
        count: rows seen so far.
        total: their sum, shape (groups, inputs), float64.
        square: sum of their outer products, shape (groups, inputs, inputs), float64.
        rows: of a product with more than WIDE inputs the rows themselves, each of shape (some, inputs).
        sensitivity: for each output the mean over samples of the sum over positions of (dL/dy)^2, divided by what
            makes it a part of the whole output; shape (outputs,), float64. None where the output does not depend on it.
    """

    matrix: torch.Tensor
    count: int = 0
    total: torch.Tensor | float = 0.0
    square: torch.Tensor | float = 0.0
    rows: list[torch.Tensor] = field(default_factory=list)
    sensitivity: torch.Tensor | None = None

    def add(self, rows: torch.Tensor) -> None:
        """Take rows of shape (groups, rows, inputs) into account."""
        self.count += rows.shape[1]
        if rows.shape[2] > WIDE:
            self.rows.append(rows[0].float().cpu())
            return
        rows = rows.double()
        self.total = self.total + rows.sum(1)
        self.square = self.square + rows.transpose(1, 2) @ rows

    def covariance(self) -> torch.Tensor:
        """Of the inputs, shape (groups, inputs, inputs), float64; 0 for an input that is constant up to round-off."""
        mean = torch.as_tensor(self.total) / self.count
        second = self.square / self.count
        found = second - mean[:, :, None] * mean[:, None, :]
        power = torch.as_tensor(second).diagonal(dim1=1, dim2=2)
        moves = found.diagonal(dim1=1, dim2=2) > _CONSTANT * power
        return (found * (moves[:, :, None] & moves[:, None, :])).cpu()

    def weighted(self) -> torch.Tensor:
        """The matrix with its outputs scaled by the root of their sensitivities, float64, on the CPU."""
        assert self.sensitivity is not None
        matrix = self.matrix.double().cpu()
        return matrix * self.sensitivity.cpu().reshape(matrix.shape[:2])[:, :, None, None].sqrt()


def measure(
    subject: Subject,
    samples: Samples,
    weights: Collection[str],
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Moments]:
    """Moments of the original's products on the samples.

    Args:
        subject: the original; it is not changed.
        samples: what it is shown, in small batches.
        weights: paths of the weights that matter; those that no product uses are not in the result.
        seed: of the rows that are looked at and of the directions in which the output is differentiated.
        progress: told (samples done, samples in all).
    """
    double = wide_copy(subject.module)
    for parameter in double.parameters():
        parameter.requires_grad_(False)
    found: dict[str, Moments] = {}
    objective = Objective(generator(seed, "objective"))
    done = graded = 0
    for inputs, size in samples.counted_batches(_BATCH):
        look = _Look(found, weights, generator(seed, "rows", done), size / len(samples), graded < GRADED)
        inputs = wide_inputs(double, inputs)
        with differentiated(double), torch.set_grad_enabled(look.graded), watching(double, look):
            outputs = double(*inputs)
            if look.graded:
                objective.differentiate(outputs)
                graded += size
        done += size
        if progress:
            progress(done, len(samples))
    for moments in found.values():
        if moments.sensitivity is not None:
            moments.sensitivity = moments.sensitivity / (graded * objective.scale)
    return found


class _Look:
    """What is done at each product of one batch."""

    def __init__(
        self, found: dict[str, Moments], weights: Collection[str], source: torch.Generator, share: float, graded: bool
    ) -> None:
        self.found = found
        self.weights = weights
        self.source = source
        self.share = share
        self.graded = graded

    def __call__(self, product: Product, run: Run) -> torch.Tensor:
        out = run()
        if product.name not in self.weights:
            return out
        matrix = product.matrix()
        moments = self.found.setdefault(product.name, Moments(matrix))
        rows = max(_FEWEST_ROWS, _ROWS * matrix.shape[2] if matrix.shape[2] <= WIDE else 0)  # wide ones are kept
        moments.add(inputs_at(product, max(1, round(rows * self.share)), self.source))
        if not self.graded:
            return out
        if not out.requires_grad:  # the first product that matters: gradients begin here
            out = out + torch.zeros((), dtype=out.dtype, device=out.device, requires_grad=True)
        if not out.requires_grad:  # the model itself switches gradients off
            return out
        dims = [d for d in range(out.dim()) if d != product.channel_dim % out.dim()]

        def note(gradient: torch.Tensor) -> None:
            squared = gradient.double().square().sum(dims)
            moments.sensitivity = squared if moments.sensitivity is None else moments.sensitivity + squared

        out.register_hook(note)
        return out
