"""What a model puts out: which tensor of it counts, what its numbers are, and which class a label names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch

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


def beside(outputs: Any) -> int:
    """How many floating tensors there are beside the main output; none where that one is called logits."""
    if _named_logits(outputs) is not None:
        return 0
    return sum(tensor.is_floating_point() and tensor.numel() > 0 for tensor in tensors_in(outputs)) - 1


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


def class_label(target: Any, output: torch.Tensor) -> int | None:
    """The class number that a target holds, or None where it is none: a mask, a box, several labels.

    Args:
        target: what the data set says of the sample.
        output: the sample's main output. Only shape (samples, classes) has a class for the whole sample.

    Raises:
        UsageError: the number is no class of the model.
    """
    number = class_id(target)
    if output.dim() != 2 or number is None:
        return None
    if not 0 <= number < output.shape[1]:
        raise UsageError(
            f"the label {number} is no class of this model, which has {output.shape[1]}",
            hint="classes count from 0; give samples with the labels that the model was trained on, or without labels",
        )
    return number


def class_id(target: Any) -> int | None:
    """A target as a whole number: an int, or an integer tensor or array of one element; None for all else."""
    elements = target.numel() if isinstance(target, torch.Tensor) else getattr(target, "size", 1)
    if elements == 1 and hasattr(target, "item"):
        target = target.item()
    return target if isinstance(target, int) and not isinstance(target, bool) else None


def _named_logits(outputs: Any) -> torch.Tensor | None:
    found = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    return found if isinstance(found, torch.Tensor) and found.is_floating_point() else None
