"""What is differentiated: one loss for each sample.

Nothing here needs labels; where there are some, and they are class numbers, they are used.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from peelcli.outputs import Kind


def loss(
    output: torch.Tensor, kind: Kind, target: int | None, generator: torch.Generator, scale: float = 1.0
) -> torch.Tensor:
    """One number of one sample to differentiate; a scalar in the output's dtype.

    logits z: cross entropy, mean over rows and positions of logsumexp(z) - z[t], in nats; t is the target where there
    is one, else the model's own most probable class (pseudo label).
    probabilities p: the same with z = log p, which is -log p[t] where p adds up to 1.
    values y: v . y / scale with v drawn from the standard normal. For a change d of the output, E[(v . d)^2] = |d|^2
    and E|v . d| = sqrt(2 / pi) |d|: squared derivatives average to the squared sensitivity of the whole output,
    although each sample costs one backward pass only.

    Source: the empirical Fisher information for labels (arXiv:2108.00708 uses the training loss). Pseudo labels, and
    random directions for values, are ours; the latter is the usual estimate of a squared norm by projections.

    Args:
        output: the main output of one sample.
        kind: decided once for a model, see `kind`.
        target: class number, or None.
        generator: on the CPU; read for values only.
        scale: root mean square of the output over the samples; makes values free of their unit.
    """
    if kind == "values":
        direction = torch.randn(output.shape, generator=generator, dtype=torch.float32)
        return (output * direction.to(output.device, output.dtype)).sum() / scale
    rows = output.flatten(0, -2)
    if kind == "probabilities":
        rows = rows.clamp(min=torch.finfo(rows.dtype).tiny).log()
    wanted = rows.detach().argmax(1) if target is None else torch.full_like(rows[:, 0], target, dtype=torch.long)
    return functional.cross_entropy(rows, wanted)
