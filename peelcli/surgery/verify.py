"""The proof after surgery: the slim model computes what the original computes without the removed channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from peelcli.records import Check, Cut, Subject
from peelcli.surgery.masked import masked_copy, mixing
from peelcli.surgery.prune import cut_tensors, entries_of
from peelcli.surgery.widened import widened
from peelcli.tensors import brief_copy, byte_size, default_float64, float64_copy, named_tensors, one_sample, tensors_in

TOLERANCE = 1e-9  # float64; right cuts differ by about 1e-15 to 1e-12, wrong ones by 1e-5 and more
SENSITIVE = 1e-5  # least change of an output between two inputs, relative to its size, for a proof to mean anything
NAME = "masked_equivalence"
NUDGE = 2.0**-47  # a relative change of an input that is of the size of a few roundings in float64
ROUNDED = 10.0  # times as far as such a change moves an output, round-off in every layer may
AMPLIFIED = "the network amplifies round-off until it hides what a wrong cut would change"
LARGE = 2**28  # bytes of weights from which on the proof first tries to do without copies in float64
Inputs = tuple[Any, ...]
Outputs = Sequence[torch.Tensor]
Silenced = Callable[[nn.Module, Sequence[Cut]], AbstractContextManager[nn.Module]]
"""(original, cuts) -> what computes the masked original while the context is open."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the masked original puts out.

    Attributes:
        outputs: of the first of two inputs.
        moves: how far the second input moves each of them; 0 where not visibly, or where it holds no floats.
        note: what was done so that the two sides can be compared.
    """

    outputs: Outputs
    moves: tuple[float, ...]
    note: str


def equivalence(subject: Subject, slim: nn.Module, cuts: Sequence[Cut], seed: int = 0) -> Check:
    """Compare the slim model with the masked original, in float64 on random inputs.

    Each output's difference is measured against how much that output moves from one input to another. Where weights
    are all zero (a head before training), both sides get the same noise for them; where a bias hides the input (as in
    networks with random weights, whose signal dies out), both get BatchNorm statistics that bring the signal back, and
    where that does not help new weights: what is compared is where they lie. New weights are also tried where the
    model's own blow up round-off until no comparison means anything.

    Args:
        subject: the original.
        slim: what surgery made of it.
        cuts: what was removed.
        seed: of the random inputs, which have the shapes of the example; integers are drawn from the example's.

    Returns:
        The largest max |slim - masked| / max |masked(input 1) - masked(input 2)| of the outputs. ok is None where the
        two can't be compared.
    """
    with default_float64(), _one_thread():
        shown = _layer_by_layer(subject, slim, cuts, seed) if byte_size(subject.module) >= LARGE else None
        if shown is not None:
            return shown
        original = float64_copy(subject.module)
        slim = float64_copy(slim)
        awoken = _fill_zeros(original, seed)
        try:
            inputs, wanted = _first_that_runs(original, cuts, subject.inputs, seed)
        except Exception as error:  # whatever the user's forward raises in float64
            return Check(NAME, None, note=f"the original does not run in float64: {_one_line(error)}")
        if not all(wanted.moves):
            awoken |= _wake(original, inputs)
            wanted = _masked_outputs(original, cuts, inputs)
        sides = _Sides(original, slim, cuts, inputs)
        if not any(wanted.moves):
            return _with_new_weights(sides, awoken, seed)
        check = _checked(sides, wanted, awoken)
        return _with_new_weights(sides, awoken, seed) if check.note == AMPLIFIED else check


@dataclass(frozen=True, slots=True)
class _Sides:
    """What is compared: copies in float64, the cuts between them, and two inputs."""

    original: nn.Module
    slim: nn.Module
    cuts: Sequence[Cut]
    inputs: Sequence[Inputs]


def _with_new_weights(sides: _Sides, awoken: set[str], seed: int) -> Check:
    """The comparison where the model's own weights let no signal through, or blow up round-off."""
    awoken = awoken | _redraw(sides.original, seed) | _wake(sides.original, sides.inputs)
    return _checked(sides, _masked_outputs(sides.original, sides.cuts, sides.inputs), awoken)


def _checked(sides: _Sides, wanted: _Wanted, awoken: set[str]) -> Check:
    """The comparison with the original's tensors of these names in both."""
    try:
        with torch.no_grad():
            _take(sides.slim, sides.original, sides.cuts, awoken)
            got = tensors_in(sides.slim(*sides.inputs[0]))
    except Exception as error:  # whatever a forward raises when its shapes don't fit
        return Check(NAME, False, math.inf, TOLERANCE, f"the slim model does not run: {_one_line(error)}")
    check = _compare(got, wanted)
    return _excused(sides, wanted, check) if check.ok is False else check


def _excused(sides: _Sides, wanted: _Wanted, check: Check) -> Check:
    """A difference that failed, or a comparison that says nothing where the original is as far from itself."""
    original, cuts, inputs = sides.original, sides.cuts, sides.inputs
    if _compare(_masked_outputs(original, cuts, inputs).outputs, wanted).ok is False:
        return Check(NAME, None, note="forward is random: the same input gives other outputs each time")
    nudged = [pytree.tree_map_only(torch.Tensor, _nudged, sample) for sample in inputs]
    moved = _compare(_masked_outputs(original, cuts, nudged).outputs, wanted).value or 0.0
    if check.value is not None and check.value <= ROUNDED * moved:
        return Check(NAME, None, note=AMPLIFIED)
    return check


def _nudged(tensor: torch.Tensor) -> torch.Tensor:
    """The same in the 14 leading digits of 16; no mere factor, which a norm would take out."""
    return tensor + NUDGE * tensor.abs() if tensor.is_floating_point() else tensor


def _layer_by_layer(subject: Subject, slim: nn.Module, cuts: Sequence[Cut], seed: int) -> Check | None:
    """The same comparison with one layer in float64 at a time; None where it does not pass, which decides nothing.

    It asks for layers that are called as such, for a trace that noted what mixes channels if anything does, and for a
    signal that needs no waking.
    """
    original, slim = brief_copy(subject.module).eval(), brief_copy(slim).eval()
    awoken = _fill_zeros(original, seed)
    try:
        inputs, wanted = _first_that_runs(original, cuts, subject.inputs, seed, _silenced_by_layer)
        with torch.no_grad():
            _take(slim, original, cuts, awoken)
            with widened(slim):
                got = tensors_in(slim(*inputs[0]))
    except Exception:  # whatever the user's forward raises, on mixed types for example
        return None
    check = _compare(got, wanted)
    return check if check.ok and all(wanted.moves) else None


@contextmanager
def _silenced_by_layer(original: nn.Module, cuts: Sequence[Cut]) -> Iterator[nn.Module]:
    with widened(original, entries_of(cuts, removed=True, role="in")):
        yield original


@contextmanager
def _silenced(original: nn.Module, cuts: Sequence[Cut]) -> Iterator[nn.Module]:
    yield masked_copy(original, cuts)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch's float64 convolutions gain little from a second thread, and stall for seconds where cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _first_that_runs(
    original: nn.Module, cuts: Sequence[Cut], example: Inputs, seed: int, silenced: Silenced = _silenced
) -> tuple[list[Inputs], _Wanted]:
    """Two random inputs of one sample, or like the whole example where forward does not run on one, and the outputs."""
    single = one_sample(example)
    try:
        inputs = [_random_like(single, seed + k) for k in range(2)]
        return inputs, _masked_outputs(original, cuts, inputs, silenced)
    except Exception:  # whatever the user's forward raises
        if single is example:
            raise
    inputs = [_random_like(example, seed + k) for k in range(2)]
    return inputs, _masked_outputs(original, cuts, inputs, silenced)


def _masked_outputs(
    original: nn.Module, cuts: Sequence[Cut], inputs: Sequence[Inputs], silenced: Silenced = _silenced
) -> _Wanted:
    outputs = []
    with silenced(original, cuts) as masked:
        for sample in inputs:
            with mixing(masked, cuts) as kept:
                outputs.append(tensors_in(masked(*sample)))
    first, second = outputs
    note = f"{len(kept.used)} ops that mix channels compared over the kept ones" if kept.used else ""
    return _Wanted(first, tuple(_move(a, b) for a, b in zip(first, second, strict=True)), note)


def _move(a: torch.Tensor, b: torch.Tensor) -> float:
    """How far two outputs lie apart, 0 where that is hardly visible beside their size."""
    if not a.is_floating_point() or a.shape != b.shape:
        return 0.0
    finite = a.isfinite() & b.isfinite()
    if not finite.any():
        return 0.0
    moved = float((a - b)[finite].abs().max())
    return moved if moved > SENSITIVE * float(a[finite].abs().max()) else 0.0


def _fill_zeros(module: nn.Module, seed: int) -> set[str]:
    """Put noise into parameters that are all zero; their names. Behind such weights a wrong cut could hide."""
    generator = torch.Generator().manual_seed(seed)
    zeros = {n: p for n, p in module.named_parameters() if p.is_floating_point() and p.numel() and not p.any()}
    for parameter in zeros.values():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.detach().copy_(noise.mul_(0.1))
    return set(zeros)


def _redraw(module: nn.Module, seed: int) -> set[str]:
    """Draw all weights anew, at a scale that keeps a signal's size; the names. What is compared is where they lie."""
    generator = torch.Generator().manual_seed(seed)
    weights = {n: p for n, p in module.named_parameters() if p.is_floating_point() and p.dim() > 1}
    for parameter in weights.values():
        fan_in = parameter[0].numel()
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.detach().copy_(noise.mul_(math.sqrt(2 / fan_in)))
    return set(weights)


def _wake(module: nn.Module, inputs: Sequence[Inputs]) -> set[str]:
    """Give every BatchNorm the statistics of these inputs, so that the signal reaches the output; the buffers' names.

    A module that does not run on two samples at once stays as it is.
    """
    norms = {n: m for n, m in module.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    for norm in norms.values():
        norm.train()
        norm.momentum = 1.0
    try:
        with torch.no_grad():
            module(*_side_by_side(inputs))
    except Exception:  # whatever the user's forward raises
        for name, buffer in module.named_buffers():
            buffer.copy_(before[name])
        return set()
    finally:
        module.eval()
    return {name for name in before if name.endswith(("running_mean", "running_var"))}


def _side_by_side(inputs: Sequence[Inputs]) -> Inputs:
    """Two inputs as one of twice the batch."""
    pairs = zip(*(pytree.tree_leaves(sample) for sample in inputs), strict=True)
    leaves = [torch.cat(pair) if isinstance(pair[0], torch.Tensor) and pair[0].dim() else pair[0] for pair in pairs]
    return tuple(pytree.tree_unflatten(leaves, pytree.tree_structure(inputs[0])))


def _take(slim: nn.Module, original: nn.Module, cuts: Sequence[Cut], names: set[str]) -> None:
    """Bring some of the original's tensors into the slim model, without what was cut."""
    tensors = {**dict(named_tensors(original)), **cut_tensors(original, cuts, names)}
    for name, tensor in named_tensors(slim):
        if name in names:
            tensor.copy_(tensors[name])


def _compare(got: Outputs, wanted: _Wanted) -> Check:
    if [t.shape for t in got] != [t.shape for t in wanted.outputs]:
        return Check(NAME, False, math.inf, TOLERANCE, "the outputs changed shape")
    pairs = zip(got, wanted.outputs, wanted.moves, strict=True)
    gaps = [_gap(a, b) / (move or _size(b)) for a, b, move in pairs if b.is_floating_point() and b.numel()]
    value = max(gaps, default=0.0)
    if value <= TOLERANCE and not any(wanted.moves):
        return Check(NAME, None, note="the output does not depend on the input, so that nothing can be compared")
    return Check(NAME, value <= TOLERANCE, value, TOLERANCE, wanted.note)


def _gap(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference; infinite where only one side is no number."""
    same = (a == b) | (a.isnan() & b.isnan())
    return float((a - b).abs().nan_to_num(nan=math.inf).masked_fill(same, 0.0).max())


def _size(t: torch.Tensor) -> float:
    """Largest finite entry, or 1 where all are zero."""
    return float(t.nan_to_num(0.0, 0.0, 0.0).abs().max()) or 1.0


def _random_like(inputs: Inputs, seed: int) -> Inputs:
    """Float64 noise where the example has floats; integers are indices or masks, and stay among the example's own."""
    generator = torch.Generator().manual_seed(seed)

    def noise(t: torch.Tensor) -> torch.Tensor:
        if t.is_floating_point():
            return torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.device)
        if not t.numel() or not t.dim():
            return t
        if t.unique().numel() <= 2:  # a mask keeps as many ones as it has
            return t.roll(seed % t.shape[-1], -1)
        drawn = torch.randint(t.numel(), t.shape, generator=generator)
        return t.flatten()[drawn.to(t.device)]

    return tuple(pytree.tree_map_only(torch.Tensor, noise, inputs))


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
