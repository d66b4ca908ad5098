"""The proof after surgery: the slim model computes what the original computes without the removed channels."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from peelcli.records import Check, Cut, Subject
from peelcli.surgery.masked import masked_copy
from peelcli.surgery.prune import apply_cuts
from peelcli.tensors import one_sample, tensors_in

TOLERANCE = 1e-9  # float64; right cuts differ by about 1e-15 to 1e-12, wrong ones by 1e-5 and more
SENSITIVE = 1e-5  # least change of the output between two inputs, relative to its size, for a proof to mean anything
NAME = "masked_equivalence"
Outputs = Sequence[torch.Tensor]


def equivalence(subject: Subject, slim: nn.Module, cuts: Sequence[Cut], seed: int = 0) -> Check:
    """Compare the slim model with the masked original, in float64 on random inputs.

    The difference is measured against how much the output moves from one input to another: where a bias hides the
    input (as in networks with random weights, whose signal dies out), both sides first get BatchNorm statistics that
    bring the signal back.

    Args:
        subject: the original.
        slim: what surgery made of it.
        cuts: what was removed.
        seed: of the random inputs, which have the shapes of the example; integers are taken from the example.

    Returns:
        max |slim - masked| / max |masked(input 1) - masked(input 2)|. ok is None where the two can't be compared.
    """
    original = copy.deepcopy(subject.module).double().eval()
    inputs = [_random_like(one_sample(subject.inputs), seed + k) for k in range(2)]
    slim = copy.deepcopy(slim).double().eval()
    try:
        wanted, scale, note = _masked_outputs(original, cuts, inputs)
        if scale == 0:
            _wake(original, inputs)
            _take_statistics(slim, apply_cuts(original, cuts))
            wanted, scale, note = _masked_outputs(original, cuts, inputs)
    except Exception as error:  # whatever the user's forward raises in float64
        return Check(NAME, None, note=f"the original does not run in float64: {_one_line(error)}")
    try:
        with torch.no_grad():
            got = tensors_in(slim(*inputs[0]))
    except Exception as error:
        return Check(NAME, False, math.inf, TOLERANCE, f"the slim model does not run: {_one_line(error)}")
    return _compare(got, wanted, scale, note)


def _masked_outputs(
    original: nn.Module, cuts: Sequence[Cut], inputs: Sequence[tuple[Any, ...]]
) -> tuple[Outputs, float, str]:
    """Outputs of the masked original for the first input, and how far the second moves them (0: not visibly)."""
    masked, statistics = masked_copy(original, cuts)
    with torch.no_grad(), statistics:
        first, second = (tensors_in(masked(*sample)) for sample in inputs)
    note = f"{len(statistics.used)} norms with statistics over kept channels" if statistics.used else ""
    pairs = [(a, b) for a, b in zip(first, second, strict=False) if a.shape == b.shape and _comparable(a)]
    moved = max((float((a - b).abs().max()) for a, b in pairs), default=0.0)
    size = max((float(a.abs().max()) for a, _ in pairs), default=0.0)
    return first, moved if moved > SENSITIVE * size else 0.0, note


def _wake(module: nn.Module, inputs: Sequence[tuple[Any, ...]]) -> None:
    """Give every BatchNorm the statistics of these inputs, so that the signal reaches the output."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    pairs = zip(*(pytree.tree_leaves(sample) for sample in inputs), strict=True)
    leaves = [torch.cat(pair) if isinstance(pair[0], torch.Tensor) and pair[0].dim() else pair[0] for pair in pairs]
    both = pytree.tree_unflatten(leaves, pytree.tree_structure(inputs[0]))
    with torch.no_grad():
        module(*both)
    module.eval()


def _take_statistics(target: nn.Module, source: nn.Module) -> None:
    """Copy BatchNorm statistics between two models of the same shapes."""
    buffers = dict(source.named_buffers())
    for name, buffer in target.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(buffers[name])


def _compare(got: Outputs, wanted: Outputs, scale: float, note: str) -> Check:
    if [t.shape for t in got] != [t.shape for t in wanted]:
        return Check(NAME, False, math.inf, TOLERANCE, "the outputs changed shape")
    if scale == 0:
        return Check(NAME, None, note="the output does not depend on the input, so that nothing can be compared")
    floats = [(a, b) for a, b in zip(got, wanted, strict=True) if b.is_floating_point() and b.numel()]
    value = max(float((a - b).abs().max()) for a, b in floats) / scale
    return Check(NAME, value <= TOLERANCE, value, TOLERANCE, note)


def _comparable(t: torch.Tensor) -> bool:
    return t.is_floating_point() and t.numel() > 0 and bool(torch.isfinite(t).all())


def faulty_groups(cuts: Sequence[Cut], holds: Callable[[Sequence[Cut]], bool]) -> tuple[str, ...]:
    """Names of the groups whose cuts break a proof, found by halving; all of them where only the whole fails.

    Args:
        cuts: a set that fails; groups at full width are left out of the search.
        holds: whether a proof holds when just these cuts are made.
    """
    active = [cut for cut in cuts if cut.width < cut.group.full]
    return tuple(cut.group.name for cut in _search(active, holds))


def _search(cuts: list[Cut], holds: Callable[[Sequence[Cut]], bool]) -> list[Cut]:
    if not cuts or holds(cuts):
        return []
    if len(cuts) == 1:
        return cuts
    half = len(cuts) // 2
    return (_search(cuts[:half], holds) + _search(cuts[half:], holds)) or cuts


def _random_like(inputs: tuple[Any, ...], seed: int) -> tuple[Any, ...]:
    """Float64 noise where the example has floats; other values only move along, as they may be indices or masks."""
    generator = torch.Generator().manual_seed(seed)

    def noise(t: torch.Tensor) -> torch.Tensor:
        if not t.is_floating_point():
            return t.roll(seed % t.shape[-1], -1) if t.dim() else t
        return torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.device)

    return tuple(pytree.tree_map_only(torch.Tensor, noise, inputs))


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
