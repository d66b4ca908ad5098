"""What is differentiated: which tensor of a model's output counts, what its numbers are, and one loss for each sample.

Nothing here needs labels; where there are some, and they are class numbers, they are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch.nn import functional

from peelcli.errors import UsageError
from peelcli.tensors import tensors_in

Kind = Literal["logits", "probabilities", "values"]

# How far a row's sum, or its length, may be from 1: half precision is about this exact.
_NEAR_ONE = 1e-3


def main_output(outputs: Any) -> torch.Tensor:
    """The tensor that a model's output is judged by.

    Args:
        outputs: whatever the forward call returned.

    Returns:
        `.logits` or ["logits"] where the output has a floating tensor there, else the first floating tensor of the
        nest, empty ones last.

    Raises:
        UsageError: there is none.
    """
    named = _named_logits(outputs)
    if named is not None:
        return named
    floating = [tensor for tensor in tensors_in(outputs) if tensor.is_floating_point()]
    if not floating:
        raise UsageError(
            "the model's output holds no floating-point tensor, so no change of it can be measured",
            hint="wrap the model so that its forward returns its logits or values",
        )
    return next((tensor for tensor in floating if tensor.numel()), floating[0])


def kind(outputs: Any) -> Kind:
    """What the numbers in a model's main output are.

    Args:
        outputs: whatever the forward call returned, a plain tensor too.

    Returns:
        "logits" for an output called logits of shape (samples, classes) or (samples, positions, vocabulary), and for
        any other of shape (samples, classes >= 2) that is none of the following; log-probabilities are logits as well.
        "probabilities" for shape (samples, classes >= 2) where every entry is in [0, 1] and every row adds up to 1,
        within 1e-3.
        "values" for shape (samples, columns >= 2) with every entry in [0, 1] (sigmoids) or every row of length 1
        within 1e-3 (embeddings), and for every other shape: a regression, a map, a single score.
    """
    output = main_output(outputs).detach()
    named = _named_logits(outputs) is not None
    if output.dim() not in (2, 3) or output.shape[-1] < 2 or not output.numel():
        return "values"
    if output.dim() == 3:
        return "logits" if named else "values"
    wide = output.double()
    bounded = bool(((wide >= -1e-6) & (wide <= 1 + _NEAR_ONE)).all())
    if bounded and bool(((wide.sum(1) - 1).abs() <= _NEAR_ONE).all()):
        return "probabilities"
    if named:
        return "logits"
    unit = bool(((torch.linalg.vector_norm(wide, dim=1) - 1).abs() <= _NEAR_ONE).all())
    return "values" if bounded or unit else "logits"


def common_kind(kinds: Iterable[Kind]) -> Kind:
    """The kind of a model whose outputs look like these: a few may look bounded by chance, so the loosest holds."""
    seen = set(kinds)
    order: tuple[Kind, ...] = ("logits", "values")
    return next((one for one in order if one in seen), "probabilities")


def label(target: Any, output: torch.Tensor) -> int | None:
    """The class number that a target holds, or None where it is none: a mask, a box, several labels.

    Args:
        target: what the data set says of the sample: an int, or an integer tensor or array of one element, is a label.
        output: the sample's main output. Only shape (samples, classes) has a class for the whole sample.

    Raises:
        UsageError: the number is no class of the model.
    """
    elements = target.numel() if isinstance(target, torch.Tensor) else getattr(target, "size", 1)
    if elements == 1 and hasattr(target, "item"):
        target = target.item()
    if output.dim() != 2 or not isinstance(target, int) or isinstance(target, bool):
        return None
    if not 0 <= target < output.shape[1]:
        raise UsageError(
            f"the label {target} is no class of this model, which has {output.shape[1]}",
            hint="classes count from 0; give samples with the labels that the model was trained on, or without labels",
        )
    return target


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


def _named_logits(outputs: Any) -> torch.Tensor | None:
    found = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    return found if isinstance(found, torch.Tensor) and found.is_floating_point() else None
