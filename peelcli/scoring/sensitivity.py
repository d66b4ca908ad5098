"""How much the outputs of a model's products matter: the gradient of what the model puts out, over samples."""

from __future__ import annotations

from typing import Any

import torch

from peelcli.outputs import Kind, kind, main_output

_SAME = 1e-12  # of the mean square: a variance below this is round-off


class Objective:
    """Backward passes whose squared gradients say how far an error of a product moves the model's output.

    For class scores, labels are drawn from the model's own distribution and log p(label) is differentiated: the mean
    of the squared gradient is the diagonal of Fisher's matrix, and half of it times a small squared error is the
    KL divergence that the error makes. For other outputs the inner product with a standard normal direction is
    differentiated: the mean over directions is the squared change of the output.

    Attributes:
        scale: for other outputs than class scores, the summed variance of the output over the samples seen, so that
            what is measured is relative; the mean sum of squares where outputs don't differ or have several shapes;
            2 for class scores.
    """

    def __init__(self, source: torch.Generator) -> None:
        self._source = source
        self._kind: Kind | None = None
        self._count = 0
        self._sum: torch.Tensor | float = 0.0
        self._squares = 0.0
        self._alike = True  # all outputs have one shape, so that they have a mean

    def differentiate(self, outputs: Any) -> None:
        """One backward pass for a batch of outputs; the samples of a batch don't mix."""
        output = main_output(outputs)
        self._kind = self._kind or kind(outputs)
        if output.requires_grad:
            self._loss(output.float()).backward()

    def _loss(self, output: torch.Tensor) -> torch.Tensor:
        if self._kind == "values":
            self._note(output.detach().double().reshape(output.shape or (1,)))
            direction = torch.randn(output.shape, generator=self._source).to(output.device)
            return (output * direction).sum()
        rows = output.reshape(-1, output.shape[-1])
        rows = rows[~rows.detach().isnan().any(1)]
        logs = rows.log_softmax(1) if self._kind == "logits" else rows.clamp(min=1e-12).log()
        drawn = torch.multinomial(logs.detach().exp().cpu(), 1, generator=self._source).to(output.device)
        return logs.gather(1, drawn).sum()

    def _note(self, output: torch.Tensor) -> None:
        self._count += len(output)
        self._squares += float(output.square().sum())
        total = output.sum(0)
        self._alike = self._alike and total.shape == getattr(self._sum, "shape", total.shape)
        self._sum = self._sum + total if self._alike else 0.0

    @property
    def scale(self) -> float:
        """See the class."""
        if self._kind != "values":
            return 2.0
        mean = torch.as_tensor(self._sum) / max(self._count, 1)
        power = self._squares / max(self._count, 1)
        variance = power - float(mean.square().sum())
        return max(variance if variance > _SAME * power else power, 1e-30)
