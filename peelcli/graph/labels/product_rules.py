"""Rules for matrix products: they end the labels of what they contract."""

from __future__ import annotations

from collections.abc import Sequence

from peelcli.graph.labels import factors as fac
from peelcli.graph.labels.call import Call, is_weight, rule
from peelcli.graph.labels.factors import COMPUTED, Factor, Labels
from peelcli.graph.labels.run import Extent, LabelRun

_OPERANDS = {
    "mm": ("self", "mat2"), "addmm": ("mat1", "mat2"), "bmm": ("self", "mat2"), "baddbmm": ("batch1", "batch2"),
}  # fmt: skip


@rule(*_OPERANDS)
def _matrix_product(run: LabelRun, call: Call) -> None:
    left, right = _OPERANDS[call.op]
    a, b = call[left], call[right]
    k_of_a, k_of_b = a.dim() - 1, b.dim() - 2
    fa, fb = _contract(run, call, (left, k_of_a), (right, k_of_b))
    batched = a.dim() == 3
    if batched:  # what varies over heads and inside of them goes by whole heads
        fa, fb = (
            [run.collapse(f, [0], "it is multiplied by heads") if f.shape[0] > 1 else f for f in fs] for fs in (fa, fb)
        )
    batch = _batch(run, fa, fb) if batched else []
    rows = [f for f in fa if set(fac.varying(f)) == {a.dim() - 2}]
    columns = [f for f in fb if set(fac.varying(f)) == {b.dim() - 1}]
    _refuse_the_rest(run, fa, fb, [*batch, *rows, *columns])
    for column in columns if call.before[right].weight and not call.before[left].weight else ():
        run.makes(column)
    for row in rows if call.before[left].weight and not call.before[right].weight else ():
        run.makes(row)
    factors = [*(f.reshape(-1, 1, 1) for f in batch)] if batched else []
    factors += [f.reshape((1,) * (a.dim() - 2) + (-1, 1)) for f in rows]
    factors += [f.reshape((1,) * (a.dim() - 2) + (1, -1)) for f in columns]
    factors = _with_bias(run, call, factors)
    run.put(call.out, Labels(tuple(factors), COMPUTED if is_weight(call) else 0))
    extents = [*run.extents(call.out), Extent(a.shape[k_of_a], _line_on(call.before[left], run, k_of_a), k_of_a)]
    run.product(call.op, 1, extents, call.before[left].weight or call.before[right].weight)


def _line_on(labels: Labels, run: LabelRun, dim: int) -> Factor | None:
    return next((f for f in (fac.settled(f, run.classes) for f in labels.factors) if f.shape[dim] > 1), None)


def _contract(
    run: LabelRun, call: Call, one: tuple[str, int], other: tuple[str, int]
) -> tuple[list[Factor], list[Factor]]:
    """Tie the contracted sides to each other; what is left of both operands' factors."""
    (left, da), (right, db) = one, other
    la, lb = call.before[left], call.before[right]
    fa = [_only(run, f, da) for f in la.factors]
    fb = [_only(run, f, db) for f in lb.factors]
    ka = next((f for f in fa if f.shape[da] > 1), None)
    kb = next((f for f in fb if f.shape[db] > 1), None)
    if ka is not None and kb is not None:
        run.classes.unite(fac.line(ka), fac.line(kb), run.obstacle("it is read by what can't go"))
        _note_reading(run, call, one, other, (ka, kb))
    else:
        run.lock([f for f in (ka, kb) if f is not None], "it is multiplied with a tensor of fixed size")
    return [f for f in fa if f is not ka], [f for f in fb if f is not kb]


def _only(run: LabelRun, factor: Factor, dim: int) -> Factor:
    """A joint factor that is contracted along one of its dimensions goes by whole heads."""
    if factor.shape[dim] > 1 and len(fac.varying(factor)) > 1:
        return run.collapse(factor, [d for d in fac.varying(factor) if d != dim], "it is multiplied within heads")
    return factor


def _note_reading(
    run: LabelRun, call: Call, one: tuple[str, int], other: tuple[str, int], pair: tuple[Factor, Factor]
) -> None:
    weights = [call.before[name].weight for name, _ in (one, other)]
    operands = [(call.order[name], dim) for name, dim in (one, other)]
    if not any(weights):
        run.blend(call.op, operands, -1, pair[0], one[1])
        return
    for factor, weight in zip(pair, weights, strict=True):
        if weight:
            run.reads(factor)
    if COMPUTED in weights:  # zeros in what it was computed from need not be zeros in it
        run.blend(call.op, operands, -1, pair[0], one[1])


def _batch(run: LabelRun, fa: Sequence[Factor], fb: Sequence[Factor]) -> list[Factor]:
    one = next((f for f in fa if set(fac.varying(f)) == {0}), None)
    other = next((f for f in fb if set(fac.varying(f)) == {0}), None)
    if one is not None and other is not None:
        run.classes.unite(fac.line(one), fac.line(other), run.obstacle("its heads meet heads that can't go"))
        return [one]
    run.lock([f for f in (one, other) if f is not None], "its heads meet a tensor of a fixed number of heads")
    return [f for f in (one, other) if f is not None]


def _refuse_the_rest(run: LabelRun, fa: Sequence[Factor], fb: Sequence[Factor], used: Sequence[Factor]) -> None:
    left = [f for f in (*fa, *fb) if not any(f is u for u in used) and set(fac.varying(f)) != {0}]
    run.lock(left, "its heads are multiplied in a way that is not followed")


def _with_bias(run: LabelRun, call: Call, factors: list[Factor]) -> list[Factor]:
    """The bias of addmm and baddbmm meets the result element by element."""
    if call.op not in ("addmm", "baddbmm"):
        return factors
    bias, shape = call.before["self"], call.shapes["self"]
    rank = call.out.dim()
    present = {d + rank - len(shape) for d, size in enumerate(shape) if size > 1}
    own = {fac.varying(g): g for g in (fac.aligned(f, rank) for f in bias.factors)}
    for factor in factors:
        dims = fac.varying(factor)
        if not set(dims) & present:
            continue
        if dims in own:
            run.classes.unite(factor, own.pop(dims), run.obstacle("its bias can't go"))
        else:
            run.lock([factor], "it meets a bias of fixed size")
    run.lock(list(own.values()), "it is added to what has a fixed size")
    return factors
