"""Rules for ops that move elements: the same is done with the labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from peelcli.graph.labels import factors as fac
from peelcli.graph.labels.call import Call, is_weight, rule, tensors_of
from peelcli.graph.labels.factors import Factor, Labels
from peelcli.graph.labels.run import LabelRun

MOST_LABELS = 1 << 26  # elements of a label tensor that is written out in full


def _move(run: LabelRun, call: Call, move: Callable[[Factor], Factor]) -> None:
    """Put the first tensor's factors, moved, on the output."""
    labels = call.before[call.first]
    run.put(call.out, Labels(tuple(move(f) for f in labels.factors), labels.weight))


@rule("view", "_unsafe_view", "_reshape_alias", "reshape", "_reshape_copy", "view_copy")
def _view(run: LabelRun, call: Call) -> None:
    old, new = call.shapes["self"], call.out.shape
    if call.get("dtype") is not None or math.prod(old) != math.prod(new):
        run.lock(call.before["self"].factors, "its elements are read as another type")
        run.put(call.out, Labels((), is_weight(call)))
        return

    def seen(f: Factor) -> Factor:
        if fac.written_out(f, old, new) > MOST_LABELS:
            run.lock([f], "a view of so large a tensor is not followed")
            return np.zeros((1,) * len(new), dtype=np.int64)
        return fac.reshaped(f, old, new)

    _move(run, call, seen)


@rule("permute", "permute_copy")
def _permute(run: LabelRun, call: Call) -> None:
    _move(run, call, lambda f: f.transpose([d % f.ndim for d in call["dims"]]))


@rule("transpose", "t", "swapaxes", "numpy_T")
def _transpose(run: LabelRun, call: Call) -> None:
    if call.op == "t":
        _move(run, call, lambda f: f.T)
    else:
        _move(run, call, lambda f: f.swapaxes(call["dim0"], call["dim1"]))


@rule("unsqueeze")
def _unsqueeze(run: LabelRun, call: Call) -> None:
    _move(run, call, lambda f: np.expand_dims(f, call["dim"]))


@rule("squeeze")
def _squeeze(run: LabelRun, call: Call) -> None:
    shape = call.shapes["self"]
    asked = call.get("dim")
    dims = range(len(shape)) if asked is None else [asked] if isinstance(asked, int) else asked
    gone = [d % max(len(shape), 1) for d in dims if len(shape) and shape[d] == 1]
    _move(run, call, lambda f: f.reshape([s for d, s in enumerate(f.shape) if d not in gone]))


@rule("expand", "expand_copy")
def _expand(run: LabelRun, call: Call) -> None:
    """Along what is repeated the tensor is uniform, so that any of it may go."""
    labels, out = call.before["self"], call.out
    shape = (1,) * (out.dim() - len(call.shapes["self"])) + tuple(call.shapes["self"])
    repeated = [d for d in range(out.dim()) if shape[d] == 1 and out.shape[d] > 1]
    kept = tuple(fac.aligned(f, out.dim()) for f in labels.factors)
    run.put(out, Labels((*kept, *run.uniform(out, repeated)), labels.weight))


@rule("slice", "slice_copy")
def _slice(run: LabelRun, call: Call) -> None:
    dim = call["dim"] % len(call.shapes["self"])

    def cut(f: Factor) -> Factor:
        if f.shape[dim] == 1 or call.out.shape == torch.Size(call.shapes["self"]):
            return f
        if len(fac.varying(f)) > 1:
            return run.collapse(f, [d for d in fac.varying(f) if d != dim], "a slice goes across its heads or groups")
        if (call["step"] or 1) != 1:
            run.lock([f], "every second channel, or the like, is picked by its position")
        part: Factor = f[(slice(None),) * dim + (slice(call["start"], call["end"], call["step"]),)]
        return part

    _move(run, call, cut)


@rule("select", "select_copy")
def _select(run: LabelRun, call: Call) -> None:
    dim = call["dim"] % len(call.shapes["self"])

    def pick(f: Factor) -> Factor:
        if f.shape[dim] > 1:
            rest = run.off(f, [dim], "a channel is picked by its position")
            f = fac.narrow(f, dim, 0, 1) if rest is None else rest
        return f.squeeze(dim)

    _move(run, call, pick)


@rule("unbind", "unbind_copy")
def _unbind(run: LabelRun, call: Call) -> None:
    labels, dim = call.before["self"], call["dim"] % len(call.shapes["self"])
    kept = [rest for f in labels.factors if (rest := run.off(f, [dim], "its channels are taken apart")) is not None]
    for out in call.out:
        run.put(out, Labels(tuple(f.squeeze(dim) for f in kept), labels.weight))


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk", "tensor_split")
def _split(run: LabelRun, call: Call) -> None:
    """Parts of one dimension; where the code asked for one size, or a number of parts, all must stay alike."""
    labels, dim = call.before["self"], call["dim"] % len(call.shapes["self"])
    by_sizes = "with_sizes" in call.op  # else one size, or number, serves all parts
    factors = []
    for f in labels.factors:
        if f.shape[dim] > 1 and len(fac.varying(f)) > 1:
            f = run.collapse(f, [d for d in fac.varying(f) if d != dim], "a split goes across its heads or groups")
        if f.shape[dim] > 1 and not by_sizes:
            _tie_parts(run, f, dim, [out.shape[dim] for out in call.out])
        factors.append(f)
    start = 0
    for out in call.out:
        size = out.shape[dim]
        parts = tuple(f if f.shape[dim] == 1 else fac.compact(fac.narrow(f, dim, start, size)) for f in factors)
        run.put(out, Labels(parts, labels.weight))
        start += size


def _tie_parts(run: LabelRun, factor: Factor, dim: int, sizes: Sequence[int]) -> None:
    if len(set(sizes)) > 1:
        run.lock([factor], "it is cut into parts of unequal size")
        return
    first, start = fac.narrow(factor, dim, 0, sizes[0]), sizes[0]
    for size in sizes[1:]:
        part = fac.narrow(factor, dim, start, size)
        run.classes.unite(first, part, run.obstacle("a part of it can't go"))
        start += size


@rule("cat", "concatenate", "concat")
def _cat(run: LabelRun, call: Call) -> None:
    _join(run, call, call["dim"] % call.out.dim(), stacked=False)


@rule("stack")
def _stack(run: LabelRun, call: Call) -> None:
    _join(run, call, call["dim"] % call.out.dim(), stacked=True)


def _join(run: LabelRun, call: Call, dim: int, stacked: bool) -> None:
    """Side by side along `dim`; along all other dimensions the parts must lose the same."""
    parts = [(labels, shape) for _, _, labels, shape in tensors_of(call) if math.prod(shape) or len(shape) > 1]
    out = call.out
    moved = []
    for labels, shape in parts:
        factors = tuple(np.expand_dims(f, dim) for f in labels.factors) if stacked else labels.factors
        size = 1 if stacked else shape[dim]
        moved.append((factors, size))
    sets = {_beside(f, dim) for factors, _ in moved for f in factors}
    result = []
    for others in sorted(sets):
        own = [next((f for f in fs if _beside(f, dim) == others), None) for fs, _ in moved]
        result.append(_joined(run, own, [size for _, size in moved], dim, others))
    run.put(out, Labels(tuple(fac.compact(f) for f in result if f is not None), is_weight(call)))


def _beside(factor: Factor, dim: int) -> tuple[int, ...]:
    return tuple(d for d in fac.varying(factor) if d != dim)


def _joined(
    run: LabelRun, own: Sequence[Factor | None], sizes: Sequence[int], dim: int, others: tuple[int, ...]
) -> Factor | None:
    present = [f for f in own if f is not None]
    if others and all(f.shape[dim] == 1 for f in present):  # each part has the same channels
        for f in present[1:]:
            run.classes.unite(present[0], f, run.obstacle("it is joined with what can't go"))
        if len(present) < len(own):
            run.lock(present[:1], "it is joined with what can't go")
        return present[0]
    if others and len(present) < len(own):
        run.lock(present, "it is joined with what can't go")
        return None
    shape = list(np.broadcast_shapes(*(tuple(s if d != dim else 1 for d, s in enumerate(f.shape)) for f in present)))
    pieces = []
    for part, size in zip(own, sizes, strict=True):
        shape[dim] = size
        pieces.append(np.zeros(shape, dtype=np.int64) if part is None else np.broadcast_to(part, shape))
    return np.concatenate(pieces, dim)


@rule("as_strided")
def _as_strided(run: LabelRun, call: Call) -> None:
    """Only other strides for the same elements, as pooling in channels_last makes them."""
    labels = call.before["self"]
    if tuple(call.out.shape) == tuple(call.shapes["self"]) and not call["storage_offset"]:
        run.put(call.out, labels)
    else:
        run.lock(labels.factors, "its memory is read in strides of its own")
        run.put(call.out, Labels((), labels.weight))


@rule("flip", "roll")
def _flip(run: LabelRun, call: Call) -> None:
    dims = call["dims"] or range(len(call.shapes["self"]))
    dims = [dims] if isinstance(dims, int) else [d % len(call.shapes["self"]) for d in dims]
    labels = call.before["self"]
    kept = [g for f in labels.factors if (g := run.off(f, dims, "its channels change their order")) is not None]
    run.put(call.out, Labels(tuple(kept), labels.weight))


@rule("repeat", "unfold", "pixel_shuffle", "pixel_unshuffle", "diagonal")
def _literally(run: LabelRun, call: Call) -> None:
    """Run the op itself on the labels, written out in full."""
    if math.prod(call.shapes["self"]) > MOST_LABELS:
        run.lock(call.before["self"].factors, f"{call.op} of so large a tensor is not followed")
        run.put(call.out, Labels((), is_weight(call)))
        return
    op = getattr(torch.ops.aten, call.op)
    others = [value for name, value in call.values.items() if name != "self"]

    def literally(f: Factor) -> Factor:
        full = np.array(np.broadcast_to(f, call.shapes["self"]))
        return fac.compact(op(torch.from_numpy(full), *others).contiguous().numpy())

    _move(run, call, literally)


@rule("native_channel_shuffle", "channel_shuffle")
def _shuffle(run: LabelRun, call: Call) -> None:
    """A view as (groups, rest), the two exchanged: each conv group has to lose the same positions, or go whole."""
    groups = call["groups"]

    def shuffled(f: Factor) -> Factor:
        if f.shape[1] == 1:
            return f
        f = run.collapse(f, [1], "its channels are shuffled")
        joint = f.reshape(groups, -1)
        run.joint(joint)
        return joint.T.reshape(f.shape)

    _move(run, call, shuffled)


@rule("view_as_real", "view_as_complex", "_conj", "resolve_conj", "real", "imag")
def _complex(run: LabelRun, call: Call) -> None:
    """The last dimension of two is there on one side only."""
    labels = call.before["self"]
    if call.op == "view_as_real":
        kept = tuple(np.expand_dims(f, -1) for f in labels.factors)
    elif call.op == "view_as_complex":
        last = len(call.shapes["self"]) - 1
        whole = (run.off(f, [last], "it is read as the parts of complex numbers") for f in labels.factors)
        kept = tuple(f.squeeze(-1) for f in whole if f is not None)
    else:
        kept = labels.factors
    run.put(call.out, Labels(kept, labels.weight))


@rule("constant_pad_nd")
def _pad(run: LabelRun, call: Call) -> None:
    """Padding can't go, its neighbours can."""
    rank, pad = len(call.shapes["self"]), call["pad"]

    def padded(f: Factor) -> Factor:
        for k in range(len(pad) // 2):
            dim, (low, high) = rank - 1 - k, pad[2 * k : 2 * k + 2]
            if f.shape[dim] > 1:
                wide = [(max(low, 0), max(high, 0)) if d == dim else (0, 0) for d in range(rank)]
                size = f.shape[dim]
                f = np.pad(fac.narrow(f, dim, max(-low, 0), size - max(-low, 0) - max(-high, 0)), wide)
        return f

    _move(run, call, padded)


@rule("im2col")
def _im2col(run: LabelRun, call: Call) -> None:
    """Every channel becomes as many as the kernel has places."""
    places = math.prod(call["kernel_size"])
    labels = call.before["self"]
    channel = len(call.shapes["self"]) - 3
    kept = []
    for f in labels.factors:
        f = run.off(f, [channel + 1, channel + 2], "it varies over the image")
        if f is not None:
            kept.append(f.squeeze(-1).repeat(places if f.shape[channel] > 1 else 1, channel))
    run.put(call.out, Labels(tuple(kept), labels.weight))


@rule("col2im")
def _col2im(run: LabelRun, call: Call) -> None:
    places = math.prod(call["kernel_size"])
    labels = call.before["self"]
    channel = len(call.shapes["self"]) - 2
    kept = []
    for f in labels.factors:
        f = run.off(f, [channel + 1], "it varies over the image")
        if f is not None and f.shape[channel] > 1:
            split = f.reshape(*f.shape[:channel], -1, places)
            f = run.collapse(split, range(channel + 1), "an image is put together from it")
            kept.append(f.reshape(*f.shape[:channel], -1, 1, 1))
    run.put(call.out, Labels(tuple(kept), labels.weight))
