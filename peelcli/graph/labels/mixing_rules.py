"""Rules for ops that mix channels without weights: means, softmaxes and their kin."""

from __future__ import annotations

from collections.abc import Sequence

from peelcli.graph.labels import factors as fac
from peelcli.graph.labels.call import Call, outputs, rule
from peelcli.graph.labels.factors import PLAIN, Factor, Labels
from peelcli.graph.labels.run import LabelRun


@rule("mean", "sum", "var", "std", "var_mean", "std_mean", "amax", "amin", "max", "min", "linalg_vector_norm", "norm",
      "logsumexp", "prod", "argmax", "argmin", "any", "all", "nansum", "median", "mode", "count_nonzero",
      "aminmax")  # fmt: skip
def _reduce(run: LabelRun, call: Call) -> None:
    name = call.first
    labels, shape = call.before[name], call.shapes[name]
    if call.op in ("max", "min") and "other" in call.before:
        from peelcli.graph.labels.pointwise_rules import pointwise

        pointwise(run, call)
        return
    dims = _dims(call, len(shape))
    kept, mixed = mixed_and_kept(run, call, labels.factors, dims, call.op not in ("argmax", "argmin", "median", "mode"))
    for factor in mixed:
        run.blend(call.op, [(call.order[name], fac.varying(factor)[0])], -1, factor, fac.varying(factor)[0])
    for out in outputs(call):
        keeps = out.dim() == len(shape)
        moved = (f if keeps else f.reshape([s for d, s in enumerate(f.shape) if d not in dims]) for f in kept)
        run.put(out, Labels(tuple(moved), labels.weight))


def _dims(call: Call, rank: int) -> list[int]:
    asked = call.get("dim")
    if asked is None or (isinstance(asked, (list, tuple)) and not asked):
        return list(range(rank))
    dims = [asked] if isinstance(asked, int) else list(asked)
    return [d % max(rank, 1) for d in dims]


def mixed_and_kept(
    run: LabelRun, call: Call, factors: Sequence[Factor], dims: Sequence[int], plain: bool
) -> tuple[list[Factor], list[Factor]]:
    """What `dims` leaves alone, and the factors that lie wholly inside them; joint ones go by what is outside."""
    kept, mixed = [], []
    for f in factors:
        here = set(fac.varying(f))
        if not here & set(dims):
            kept.append(f)
        elif here <= set(dims):
            if len(here) > 1 or not plain:
                run.lock([f], f"{call.op} goes over all its channels")
            else:
                mixed.append(f)
        else:
            kept.append(run.collapse(f, sorted(here - set(dims)), f"{call.op} goes over each of its heads or groups"))
    return kept, mixed


@rule("_softmax", "_safe_softmax", "_log_softmax", "softmax", "log_softmax", "cumsum", "cumprod", "sort", "topk",
      "logcumsumexp", "cummax", "_weight_norm_interface")  # fmt: skip
def _along(run: LabelRun, call: Call) -> None:
    """Ops along one dimension that keep it."""
    if call.op == "_weight_norm_interface":
        _weight_norm(run, call)
        return
    name = call.first
    labels, shape = call.before[name], call.shapes[name]
    dim = (-1 if call.get("dim") is None else call["dim"]) % max(len(shape), 1)
    kept, mixed = mixed_and_kept(run, call, labels.factors, [dim], "softmax" in call.op)
    for factor in mixed:
        run.blend(call.op, [(call.order[name], dim)], dim, factor, dim)
    for out in outputs(call):
        fits = [f for f in (*kept, *mixed) if all(s in (1, t) for s, t in zip(f.shape, out.shape, strict=True))]
        run.put(out, Labels(tuple(fits), labels.weight))


def _weight_norm(run: LabelRun, call: Call) -> None:
    v, g = call.before["v"], call.before["g"]
    for f in v.factors:
        own = g.along(fac.varying(f)[0])
        if own is not None:
            run.classes.unite(f, own, run.obstacle("its scale can't go"))
        else:
            run.lock([f], "a weight's norm goes over it", "fold weight_norm into the weight")
    run.put(outputs(call)[0], Labels(v.factors, weight=PLAIN))
