"""Rules for ops that work element by element, and for tensors made from nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peelcli.graph.labels import factors as fac
from peelcli.graph.labels.call import Call, is_weight, outputs, rule, tensors_of
from peelcli.graph.labels.factors import COMPUTED, PLAIN, Factor, Labels
from peelcli.graph.labels.run import LabelRun


@dataclass
class Operand:
    """One side of a pointwise op, in the rank of the result."""

    factors: list[Factor]
    present: set[int]  # dimensions along which it has more than one entry


_COPIES = (
    "_to_copy",
    "copy",
    "alias",
    "detach",
    "lift_fresh",
    "lift",
    "clone",
    "contiguous",
    "dropout",
    "native_dropout",
)


@rule("pointwise", "_to_copy", "hardswish", "hardswish_", "native_dropout", "dropout", "tril", "triu", "masked_fill",
      "copy", "lerp", "alias", "detach", "lift_fresh", "lift", "clone", "contiguous", "hardsigmoid", "hardtanh", "elu",
      "leaky_relu", "rrelu_with_noise", "mish", "log_sigmoid_forward", "prelu", "_prelu_kernel", "threshold",
      "bernoulli", "normal", "uniform", "random", "exponential", "where", "clamp", "relu6", "celu", "selu", "softplus",
      "_fake_quantize_learnable_per_tensor_affine", "fake_quantize_per_tensor_affine", "nan_to_num", "logit",
      "addcmul", "addcdiv", "requires_grad", "set_data", "_cast_Float", "copysign", "fmod", "remainder")  # fmt: skip
def pointwise(run: LabelRun, call: Call) -> None:
    """Labels of equal elements fall into one class; what meets a tensor without labels is locked."""
    outs = outputs(call)
    if not outs:
        return
    rank, shape = outs[0].dim(), outs[0].shape
    operands = [_operand(labels, size, shape) for _, _, labels, size in tensors_of(call) if len(size) <= rank]
    agree(run, operands)
    kind = is_weight(call)
    labels = Labels(merged(operands), COMPUTED if kind and call.op not in _COPIES else kind)
    for out in outs:
        if out.shape == shape:
            run.put(out, labels)


def _operand(labels: Labels, shape: Sequence[int], result: Sequence[int]) -> Operand:
    rank = len(result)
    lead = rank - len(shape)
    present = {d + lead for d, size in enumerate(shape) if size > 1}
    return Operand([fac.aligned(f, rank) for f in labels.factors], present)


def merged(operands: Sequence[Operand]) -> tuple[Factor, ...]:
    """What the result carries: of operands that agree, one factor for every set of dimensions."""
    found: dict[tuple[int, ...], Factor] = {}
    for operand in operands:
        for factor in operand.factors:
            if fac.varying(factor):
                found.setdefault(fac.varying(factor), factor)
    return tuple(found.values())


def agree(run: LabelRun, operands: Sequence[Operand]) -> None:
    """Unite what meets until nothing changes: tying a joint factor may make it meet another one."""
    changed = True
    while changed:
        changed = False
        for one in operands:
            for k, factor in enumerate(one.factors):
                for other in operands:
                    if other is not one and fac.varying(factor):
                        met = _meet(run, factor, other)
                        if met is not None:
                            one.factors[k] = factor = met
                            changed = True


def _meet(run: LabelRun, factor: Factor, other: Operand) -> Factor | None:
    """Let a factor meet another operand; the narrower factor that is left of it, or None where it is as before."""
    dims = set(fac.varying(factor))
    facing = dims & other.present
    if not facing:
        return None
    theirs = [g for g in other.factors if dims & set(fac.varying(g))]
    if not theirs:
        return _meet_bare(run, factor, dims, facing)
    for g in theirs:
        own = set(fac.varying(g))
        if own == dims:
            run.classes.unite(factor, g, run.obstacle("it meets what can't go"))
        elif own < dims and facing == dims:
            return run.collapse(factor, sorted(own), "it meets a tensor of heads or groups")
        elif own < dims:
            run.lock([g], "one tensor serves all heads or groups")
            return run.collapse(factor, sorted(dims - own), "one tensor serves all its heads or groups")
        elif not dims < own:
            run.lock([factor, g], "two sets of channels cross")
    return None


def _meet_bare(run: LabelRun, factor: Factor, dims: set[int], facing: set[int]) -> Factor:
    if facing < dims:
        return run.collapse(factor, sorted(dims - facing), "a fixed tensor serves all its heads or groups")
    reason = "it meets a tensor of fixed size"
    run.lock([factor], reason, "keep that tensor as a parameter or buffer of its module, so that it can be cut too")
    return factor[tuple(slice(0, 1) for _ in factor.shape)]  # fixed from here on, as what it met


@rule("zeros", "ones", "full", "empty", "rand", "randn", "new_zeros", "new_ones", "new_full", "new_empty",
      "empty_strided", "new_empty_strided", "scalar_tensor", "arange", "linspace", "eye", "randint",
      "_efficientzerotensor", "tril_indices", "triu_indices", "randperm", "hann_window", "logspace")  # fmt: skip
def _made(run: LabelRun, call: Call) -> None:
    """A tensor of one value is uniform; of others every entry counts."""
    uniform = call.op in ("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty",
                          "empty_strided", "new_empty_strided", "rand", "randn", "randint")  # fmt: skip
    for out in outputs(call):
        run.put(out, Labels(run.uniform(out) if uniform else (), weight=PLAIN))


@rule("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "fill", "zero", "randint_like")
def _like(run: LabelRun, call: Call) -> None:
    """A tensor of one value in the shape of another loses what that one loses."""
    labels = call.before[call.first]
    run.put(call.out, Labels(labels.factors, call.op not in ("fill", "zero") or labels.weight))


@rule("_assert_async", "_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range", "sym_size", "is_same_size",
      "_local_scalar_dense", "item", "equal", "is_nonzero", "set_", "resize")  # fmt: skip
def _nothing(run: LabelRun, call: Call) -> None:
    """No labels come out."""


def unknown(run: LabelRun, call: Call) -> None:
    """An op without a rule: what goes in stays as it is."""
    for _, _, labels, _ in tensors_of(call):
        run.lock(labels.factors, f"it goes through {call.op}, which is not followed", "ignore the layer, or report it")
    for out in outputs(call):
        run.put(out, Labels((), is_weight(call)))
