"""Rules for pooling, resizing, padding and other ops over an image."""

from __future__ import annotations

from peelcli.graph.labels import factors as fac
from peelcli.graph.labels.call import Call, is_weight, outputs, rule
from peelcli.graph.labels.factors import Labels
from peelcli.graph.labels.run import LabelRun

_OVER_ONE = {"max_pool1d": 1, "avg_pool1d": 1, "adaptive_avg_pool1d": 1, "adaptive_max_pool1d": 1,
             "upsample_nearest1d": 1, "upsample_linear1d": 1, "_upsample_nearest_exact1d": 1,
             "reflection_pad1d": 1, "replication_pad1d": 1}  # fmt: skip
_OVER_TWO = ("max_pool2d", "max_pool2d_with_indices", "avg_pool2d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d",
             "adaptive_max_pool2d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d",
             "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "reflection_pad2d",
             "replication_pad2d", "fractional_max_pool2d", "max_unpool2d", "grid_sampler_2d",
             "grid_sampler")  # fmt: skip
_OVER_THREE = ("max_pool3d", "max_pool3d_with_indices", "avg_pool3d", "adaptive_avg_pool3d", "_adaptive_avg_pool3d",
               "adaptive_max_pool3d", "upsample_nearest3d", "upsample_trilinear3d", "_upsample_nearest_exact3d",
               "reflection_pad3d", "replication_pad3d", "grid_sampler_3d")  # fmt: skip
_SPATIAL = {**_OVER_ONE, **dict.fromkeys(_OVER_TWO, 2), **dict.fromkeys(_OVER_THREE, 3)}


@rule(*_SPATIAL)
def _over_image(run: LabelRun, call: Call) -> None:
    name = call.first
    labels, rank = call.before[name], len(call.shapes[name])
    over = range(rank - _SPATIAL[call.op], rank)
    kept = [g for f in labels.factors if (g := run.off(f, over, "it varies over the image")) is not None]
    for side, other in call.before.items():
        if side != name and isinstance(other, Labels):
            run.lock(other.factors, "it says where to look in an image")
    for out in outputs(call):
        if out.dim() == rank:
            run.put(out, Labels(tuple(kept), is_weight(call)))


@rule("_fft_r2c", "_fft_c2c", "_fft_c2r")
def _fourier(run: LabelRun, call: Call) -> None:
    labels = call.before["self"]
    dims = [d % len(call.shapes["self"]) for d in call["dim"]]
    kept = [g for f in labels.factors if (g := run.off(f, dims, "a Fourier transform goes over it")) is not None]
    run.put(call.out, Labels(tuple(kept), labels.weight))


@rule("glu")
def _glu(run: LabelRun, call: Call) -> None:
    """One half of the channels gates the other: both lose the same."""
    labels, dim = call.before["self"], call["dim"] % len(call.shapes["self"])
    kept = []
    for f in labels.factors:
        if f.shape[dim] > 1:
            half = f.shape[dim] // 2
            first = fac.narrow(f, dim, 0, half)
            run.classes.unite(first, fac.narrow(f, dim, half, half), run.obstacle("it can't go"))
            f = first
        kept.append(f)
    run.put(call.out, Labels(tuple(kept), labels.weight))
