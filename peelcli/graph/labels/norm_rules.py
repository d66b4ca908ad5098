"""Rules for norms."""

from __future__ import annotations

from collections.abc import Sequence

from peelcli.graph.labels import factors as fac
from peelcli.graph.labels.call import Call, outputs, rule
from peelcli.graph.labels.convolution_rules import alone
from peelcli.graph.labels.factors import Factor, Labels
from peelcli.graph.labels.mixing_rules import mixed_and_kept
from peelcli.graph.labels.run import Extent, LabelRun


@rule("native_layer_norm", "_fused_rms_norm", "rms_norm", "layer_norm")
def _layer_norm(run: LabelRun, call: Call) -> None:
    name = call.first
    labels, shape = call.before[name], call.shapes[name]
    count = len(call["normalized_shape"])
    dims = list(range(len(shape) - count, len(shape)))
    kept, mixed = mixed_and_kept(run, call, labels.factors, dims, plain=True)
    operands = [(call.order[name], dim) for dim in (-1,)]
    for side in ("weight", "bias"):
        own = call.before.get(side)
        if isinstance(own, Labels):
            operands.append((call.order[side], -1))
            _beside(run, own, mixed, len(shape))
    for factor in mixed:
        if fac.varying(factor) == (len(shape) - 1,) and count == 1:
            run.blend(call.op, operands, -1 % len(shape), factor, len(shape) - 1)
        else:
            run.lock([factor], "a norm goes over several dimensions")
    run.put(outputs(call)[0], Labels((*kept, *mixed), labels.weight))


def _beside(run: LabelRun, own: Labels, factors: Sequence[Factor], rank: int) -> None:
    """A norm's scale or bias goes with the channels that it is applied to."""
    for g in own.factors:
        wide = fac.aligned(g, rank)
        partner = next((f for f in factors if fac.varying(f) == fac.varying(wide)), None)
        if partner is None:
            run.lock([g], "a norm applies it to what has a fixed size")
        else:
            run.classes.unite(wide, partner, run.obstacle("a norm's scale can't go"))
    varied = {fac.varying(fac.aligned(g, rank)) for g in own.factors}
    run.lock([f for f in factors if fac.varying(f) not in varied], "a norm applies a scale of fixed size to it")


@rule("native_group_norm", "group_norm")
def _group_norm(run: LabelRun, call: Call) -> None:
    labels, shape, groups = call.before["input"], call.shapes["input"], call["group"]
    kept = []
    for f in labels.factors:
        g = run.off(f, range(2, len(shape)), "it varies over the image of a norm")
        if g is not None:
            kept.append(alone(run, g, 1) if g.shape[1] > 1 else g)
    channels = next((f for f in kept if f.shape[1] > 1), None)
    operands = [(call.order["input"], 1)]
    if channels is not None and 1 < groups < shape[1]:
        by_group = fac.line(channels).reshape(groups, -1)
        run.classes.unite(by_group, by_group[:1], run.obstacle("its norm group can't go"))
    for side in ("weight", "bias"):
        own = call.before.get(side)
        if isinstance(own, Labels) and own.factors:
            operands.append((call.order[side], 0))
            _scale_of_norm(run, own.factors[0], channels)
    if channels is not None and groups == shape[1]:
        run.groups_of_conv = Extent(groups, channels.reshape(-1), 0)
    if channels is not None:
        run.blend(call.op, operands, 1, channels, 1)
    run.put(outputs(call)[0], Labels(tuple(kept), labels.weight))


def _scale_of_norm(run: LabelRun, own: Factor, channels: Factor | None) -> None:
    if channels is None:
        run.lock([own], "a norm applies it to what has a fixed size")
    else:
        run.classes.unite(fac.line(own), fac.line(channels), run.obstacle("a norm's scale can't go"))


@rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
      "_native_batch_norm_legit_functional", "batch_norm", "_batch_norm_no_update", "_batch_norm_with_update",
      "instance_norm", "miopen_batch_norm")  # fmt: skip
def _batch_norm(run: LabelRun, call: Call) -> None:
    """One scale a channel; with statistics of the batch (weight standardisation) the rest is mixed."""
    labels = call.before["input"]
    training = bool(call.get("training", False)) and call.op != "_native_batch_norm_legit_no_training"
    kept: list[Factor] = []
    for f in labels.factors:
        others = [d for d in fac.varying(f) if d != 1]
        if training and others and f.shape[1] == 1:
            if len(others) == 1:
                run.blend(call.op, [(call.order["input"], others[0])], others[0], f, others[0])
                kept.append(f)
            else:
                run.lock([f], "a norm goes over several dimensions")
        elif training and others:
            kept.append(run.collapse(f, [1], "a norm goes over each of its groups"))
        elif others and f.shape[1] > 1:
            kept.append(alone(run, f, 1))
        else:
            kept.append(f)
    channels = next((f for f in kept if f.shape[1] > 1), None)
    for side in ("weight", "bias", "running_mean", "running_var"):
        own = call.before.get(side)
        if isinstance(own, Labels) and own.factors:
            _scale_of_norm(run, own.factors[0], channels)
        elif isinstance(own, Labels) and channels is not None and call.shapes[side][0] > 1:
            run.lock([channels], "a norm applies a scale of fixed size to it")
    run.put(outputs(call)[0], Labels(tuple(kept), labels.weight))
