"""Rules for convolutions, plain, depthwise, grouped and transposed."""

from __future__ import annotations

import math

import numpy as np

from peelcli.graph.labels import factors as fac
from peelcli.graph.labels.call import Call, is_weight, rule
from peelcli.graph.labels.classes import Ids
from peelcli.graph.labels.factors import COMPUTED, Factor, Labels
from peelcli.graph.labels.run import Extent, LabelRun


def alone(run: LabelRun, factor: Factor, dim: int) -> Factor:
    """The factor along one dimension, for an op that mixes what else it varies along."""
    return run.collapse(factor, [dim], "its op mixes what else it varies along")


@rule("convolution", "_convolution", "cudnn_convolution", "mkldnn_convolution")
def _convolution(run: LabelRun, call: Call) -> None:
    x, w = call.before["input"], call.before["weight"]
    shape, size, groups = call.shapes["input"], call.shapes["weight"], call["groups"]
    transposed = call["transposed"]
    over = range(2, len(shape))
    fx = [g for f in x.factors if (g := run.off(f, over, "it varies over the image of a convolution")) is not None]
    channels = next((alone(run, f, 1) for f in fx if f.shape[1] > 1), None)
    rows, columns = (_weight_line(run, w, dim) for dim in ((1, 0) if transposed else (0, 1)))
    out_channels = size[1] * groups if transposed else size[0]
    made = _Convolved(run, channels, rows, columns, groups, (shape[1], out_channels), w.weight).made(transposed)
    factors = [f for f in fx if f.shape[1] == 1 and f.shape[0] > 1]
    rank = call.out.dim()
    if made is not None:
        factors.append(made.reshape((1, -1) + (1,) * (rank - 2)))
    bias = call.before.get("bias")
    if isinstance(bias, Labels) and bias.factors:
        _bias_of_conv(run, bias.factors[0], made)
    run.put(call.out, Labels(tuple(factors), is_weight(call)))
    if w.weight == COMPUTED and groups == 1 and channels is not None and columns is not None:
        operands = [(call.order["input"], 1), (call.order["weight"], 0 if transposed else 1)]
        run.blend(call.op, operands, -1, channels, 1)  # zeros in what it was computed from need not be zeros in it
    _count_convolution(run, call)


def _weight_line(run: LabelRun, labels: Labels, dim: int) -> Factor | None:
    factor = labels.along(dim)
    return None if factor is None else alone(run, factor, dim).reshape(-1)


def _bias_of_conv(run: LabelRun, bias: Factor, made: Factor | None) -> None:
    if made is None:
        run.lock([bias], "it is added to what has a fixed size")
    else:
        run.classes.unite(fac.line(bias), fac.line(made), run.obstacle("its channels can't go"))


class _Convolved:
    """What one convolution ties: rows make its outputs, columns read its inputs."""

    def __init__(
        self,
        run: LabelRun,
        channels: Factor | None,
        rows: Factor | None,
        columns: Factor | None,
        groups: int,
        widths: tuple[int, int],
        weight: int,
    ) -> None:
        self.run, self.channels, self.rows, self.columns = run, channels, rows, columns
        self.groups, self.widths, self.weight = groups, widths, weight

    def made(self, transposed: bool) -> Factor | None:
        """The labels of the output channels, shape (out,)."""
        if self.groups == 1:
            self._read(self.channels, self.columns)
            return self._make(self.rows)
        wide_in, wide_out = (width // self.groups for width in self.widths)
        if transposed:  # the weight is (in, out / groups): its rows serve every group
            self.rows = None if self.rows is None else np.tile(self.rows, self.groups)
        elif self.columns is not None:
            self.columns = np.tile(self.columns, self.groups)
        whole = (wide_in == wide_out == 1) or (self.groups > wide_in and not transposed)
        if whole and self.channels is not None:
            return self._whole_groups(wide_in, wide_out)
        return self._shares(wide_in, wide_out)

    def _read(self, channels: Factor | None, columns: Factor | None) -> None:
        if channels is None or columns is None:
            self.run.lock([f for f in (channels, columns) if f is not None], "a convolution reads it at a fixed size")
            return
        self.run.classes.unite(
            fac.line(channels), fac.line(columns), self.run.obstacle("a convolution reads what can't go")
        )
        if self.weight:
            self.run.reads(columns)

    def _make(self, rows: Factor | None) -> Factor | None:
        if rows is not None and self.weight:
            self.run.makes(rows)
        return rows

    def _whole_groups(self, wide_in: int, wide_out: int) -> Factor | None:
        """Depthwise, or many narrow groups: a group goes with its inputs and outputs."""
        ins, outs = self._by_group(self.channels, wide_in), self._by_group(self.rows, wide_out)
        if wide_in == 1 and outs is None:  # a transposed depthwise one keeps its channels in the other dimension
            outs = self._by_group(self.columns, wide_in)
        own = self._by_group(self.columns, wide_in) if self.columns is not None and wide_in == wide_out == 1 else None
        for tied in (ins, outs):
            if tied is not None:
                self.run.classes.unite(tied, tied[:, :1], self.run.obstacle("its conv group can't go"))
        if ins is None or outs is None:
            self.run.lock([f for f in (self.channels, self.rows) if f is not None], "a conv group has a fixed input")
            return self.rows
        self.run.classes.unite(ins[:, 0], outs[:, 0], self.run.obstacle("its conv group can't go"))
        if own is not None:
            self.run.classes.unite(own[:, 0], outs[:, 0], self.run.obstacle("its conv group can't go"))
        elif self.columns is not None and wide_in > 1:
            self.run.lock([self.columns], "its conv groups go as a whole")
        self.run.groups_of_conv = Extent(self.groups, ins[:, 0], 0)
        return self._make(self.rows if self.rows is not None else outs.ravel())

    def _by_group(self, factor: Factor | None, wide: int) -> Ids | None:
        if factor is None:
            return None
        line = fac.line(factor)
        return line.reshape(self.groups, -1) if line.size == self.groups * wide else None

    def _shares(self, wide_in: int, wide_out: int) -> Factor | None:
        """Few wide groups: the same positions go in each of them, so that the weight stays rectangular."""
        obstacle = self.run.obstacle("its conv groups can't go")
        for factor, wide in ((self.channels, wide_in), (self.rows, wide_out)):
            if factor is not None:
                by_group = fac.line(factor).reshape(self.groups, wide)
                self.run.classes.unite(by_group, by_group[:1], obstacle)
        if wide_in > 1:
            self._read(self.channels, self.columns)
        elif self.channels is not None:
            self.run.lock([self.channels], "a conv group has one input")
        if wide_out == 1 and self.rows is not None:
            self.run.lock([self.rows], "a conv group has one output")
        return self._make(self.rows)


def _count_convolution(run: LabelRun, call: Call) -> None:
    """Multiply-adds: positions * kernel * out channels * in channels of one group."""
    size, shape, out = call.shapes["weight"], call.shapes["input"], call.out.shape
    transposed = call["transposed"]
    kernel = math.prod(size[2:])
    places = math.prod(shape[2:]) if transposed else math.prod(out[2:])
    w = run.of(call["weight"])
    rows, cols = w.along(0), w.along(1)
    extents = [Extent(size[0], rows, 0), Extent(size[1], cols, 1)]
    run.product("convolution", shape[0] * kernel * places, extents, call.before["weight"].weight)
