"""Make the kept channels carry what the removed ones did: least squares, layer by layer, along the data's way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from peelcli.patches import channels_at, generator, output_grid, outputs_at, patches_at, positions
from peelcli.products import Product, python_functions_open
from peelcli.records import Cut
from peelcli.samples import Samples
from peelcli.surgery import ridge
from peelcli.surgery.prune import entries_of
from peelcli.surgery.surroundings import Around, Counted, look
from peelcli.surgery.walk import Walk
from peelcli.tensors import beside, full_copy, named_tensors

Progress = Callable[[int, int], None]
_BYTES_AT_ONCE = 800_000_000  # of activations in one wave of samples
_SAMPLES = 64  # every layer sees at least so many samples, where there are so many
_ROWS = 6  # rows an input
_FEWEST = {True: 4096, False: 1024}  # rows of a dense product, and of a grouped one
_ELEMENTS = 48_000_000  # numbers in one matrix of rows
_LIVE = 8  # tensors as large as a layer's input and output that live at once in both models


@dataclass
class Repaired:
    """What was done.

    Attributes:
        fitted: weights that were changed.
        kept: weights for which no change was better on samples held out.
        skipped: reason -> weights that could not be looked at.
    """

    fitted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, reason: str, name: str) -> None:
        """Note a weight that stays as it was cut."""
        self.skipped.setdefault(reason, []).append(name)

    def notes(self) -> tuple[str, ...]:
        """For the report."""
        done = f"repair: {len(self.fitted)} of {len(self.fitted) + len(self.kept)} layers fitted again"
        left = tuple(f"repair: {len(names)} layers left as cut, {why}" for why, names in self.skipped.items())
        return (done, *left)


def repair(
    original: nn.Module,
    slim: nn.Module,
    cuts: Sequence[Cut],
    samples: Samples,
    seed: int,
    progress: Progress | None = None,
) -> Repaired:
    """Change the slim model's weights in place, so that each layer gives what it gave in the original.

    Both models go through their forward side by side. At every convolution and linear layer W x + b the change of W and
    b is taken that brings the slim model's output, from its own inputs, nearest to the original's at the kept outputs
    (`ridge.fit`); then the pass goes on with what the changed layer gives. So later layers make up for what earlier
    ones could not. A layer whose output is added to something earlier, as in a residual block, aims at the sum.
    Grouped and depthwise layers are fitted group by group; the shift goes into the bias, or into the running mean of
    the BatchNorm behind.

    Source: layer-wise least squares on the pruned model's own inputs with the original's outputs as targets, as in
    channel pruning by He et al., arXiv:1707.06168, section 3.2 (there multi-branch enhancement aims at the sum as
    well). One pass side by side, the damping by held-out rows, and all kinds of layers are ours.

    Args:
        original: it is not changed.
        slim: the same forward with fewer channels; in eval mode for the pass, its mode comes back.
        cuts: what was removed.
        samples: unlabelled.
        seed: of the positions that are looked at.
        progress: told (layers done, layers in all).
    """
    teacher = full_copy(original).eval()
    with _evaluated(slim):
        around = look(slim, samples.inputs[0])
        fitter = _Fitter(teacher, slim, cuts, around, seed)
        with python_functions_open(), torch.no_grad():
            _side_by_side(_waves(teacher, slim, samples, around, fitter.wanted), fitter, len(samples), progress)
    return fitter.result


@contextmanager
def _evaluated(module: nn.Module) -> Iterator[None]:
    before = [(child, child.training) for child in module.modules()]
    nn.Module.eval(module)
    try:
        yield
    finally:
        for child, training in before:
            child.training = training


# --- two passes, in waves of samples


class _Wave:
    """Some samples on their way through both models, up to the same product."""

    def __init__(
        self, teacher: nn.Module, slim: nn.Module, inputs: tuple[Any, ...], size: int, wanted: frozenset[int]
    ) -> None:
        self.size = size
        self.kept = (Counted(wanted), Counted(wanted))
        self.first = Walk(teacher, beside(teacher, inputs), self.kept[0])
        self.second = Walk(slim, beside(slim, inputs), self.kept[1])
        self.at = -1
        self.pair: tuple[Product, Product] | None = None

    def go_to(self, number: int) -> tuple[Product, Product] | None:
        """Both products with this number; None at the end, or where the models call different ones."""
        while self.at < number:
            one, two = self.first.advance(), self.second.advance()
            self.pair = (one, two) if one is not None and two is not None and one.name == two.name else None
            self.at += 1
        return self.pair

    def close(self) -> None:
        """End both passes."""
        self.first.close()
        self.second.close()


def _waves(
    teacher: nn.Module, slim: nn.Module, samples: Samples, around: Mapping[str, Around], wanted: frozenset[int]
) -> list[_Wave]:
    largest = max((found.elements for found in around.values()), default=1)
    size = max(2, _BYTES_AT_ONCE // (4 * _LIVE * largest))
    return [_Wave(teacher, slim, inputs, count, wanted) for inputs, count in samples.counted_batches(size)]


def _side_by_side(waves: Sequence[_Wave], fitter: _Fitter, samples: int, progress: Progress | None) -> None:
    """Fit product after product; a wave starts only when the ones before it don't give rows enough."""
    number, total = 0, sum(around.calls for around in fitter.around.values())
    try:
        while (pair := waves[0].go_to(number)) is not None:
            fitter.start(pair[1])
            seen = 0
            for wave in waves if fitter.can_fit() else ():
                pair = wave.go_to(number)
                if pair is None:
                    break
                seen += wave.size
                fitter.add(wave, *pair, wave.size / min(samples, _SAMPLES))
                if seen >= min(samples, _SAMPLES) and fitter.enough:
                    break
            fitter.finish()
            number += 1
            if progress:
                progress(number, total)
    finally:
        for wave in waves:
            wave.close()


# --- one product


class _Fitter:
    """The rows of one product after the other, and the changes that they lead to."""

    def __init__(
        self,
        teacher: nn.Module,
        slim: nn.Module,
        cuts: Sequence[Cut],
        around: Mapping[str, Around],
        seed: int,
    ) -> None:
        self.result = Repaired()
        self.around = around
        self.wanted = frozenset(found.other for found in around.values() if found.other >= 0)
        self._removed = entries_of(cuts, removed=True)
        self._teacher = dict(named_tensors(teacher))
        self._slim = dict(named_tensors(slim))
        self._names = {id(tensor): name for name, tensor in self._slim.items()}
        self._tied = _tied(slim)
        self._seed = seed

    def start(self, mine: Product) -> None:
        """Turn to the next product."""
        self.product = mine
        self.x: list[torch.Tensor] = []
        self.error: list[torch.Tensor] = []
        groups, _, inputs, kernel = mine.matrix().shape
        columns = inputs * kernel
        self.needed = min(max(_FEWEST[groups == 1], _ROWS * columns), max(64, _ELEMENTS // (groups * columns)))
        self.bias = self._names.get(id(mine.bias)) if mine.bias is not None else None
        self.bias = None if self.bias in self._tied else self.bias

    def can_fit(self) -> bool:
        """Whether this product's weight may be changed; else the reason is noted."""
        name, kind = self.product.name, self.product.kind
        reason = None
        if name in self._tied:
            reason = "their weights are tied to others"
        elif self.around[name].calls > 1 if name in self.around else True:
            reason = "their weights are used several times in a pass"
        elif kind == "transposed" and self.product.groups > 1:
            reason = "grouped transposed convolutions can't be fitted"
        elif not isinstance(self.product.weight, nn.Parameter):
            reason = "their weights are no parameters"
        if reason is not None and self.product.call == 0:
            self.result.skip(reason, name)
        return reason is None

    @property
    def enough(self) -> bool:
        """Whether there are as many rows as a good fit needs."""
        return sum(rows.shape[1] for rows in self.x) >= self.needed

    def add(self, wave: _Wave, product: Product, mine: Product, share: float) -> None:
        """Take the rows of one wave."""
        source = generator(self._seed, mine.name, len(self.x))
        count = max(1, round(self.needed * min(1.0, share)))
        if mine.kind == "transposed":
            at = positions((mine.x.shape[0], *mine.x.shape[2:]), count, source)
            kept = self._kept(mine.name, 0)
            x, full = (channels_at(p.x, at).float() for p in (mine, product))
            now = torch.zeros_like(full)
            now[:, kept] = x
            self.x.append(x[None])
            self.error.append((full - now)[None])
            return
        out = wave.first.compute()
        at = positions(output_grid(product, out), count, source)
        kept = self._kept(mine.name, 1 if mine.flipped else 0)
        x = patches_at(mine, at).float()
        groups, outputs = mine.matrix().shape[:2]
        now = x @ mine.matrix().flatten(2).float().transpose(1, 2)
        if mine.bias is not None:
            now = now + mine.bias.detach().float().reshape(-1, 1, outputs) if mine.bias.dim() == 1 else now
        error = outputs_at(product, out, at)[:, kept].float() + self._drift(wave, mine, at, kept)
        self.x.append(x)
        self.error.append(error.unflatten(1, (groups, outputs)).transpose(0, 1) - now)

    def _drift(
        self, wave: _Wave, mine: Product, at: tuple[torch.Tensor, ...], kept: torch.Tensor
    ) -> torch.Tensor | float:
        """What the product must give on top, for a sum to come out right whose other part is off."""
        around = self.around[mine.name]
        theirs, ours = (counted.kept.get(around.other) for counted in wave.kept)
        if theirs is None or ours is None:
            return 0.0
        drift = outputs_at(mine, theirs, at)[:, kept].float() - outputs_at(mine, ours, at).float()
        if around.scale is None:
            return drift
        scale = around.scale.float()
        safe = scale.abs() > 1e-3 * scale.abs().max()
        return torch.where(safe, drift / torch.where(safe, scale, 1.0), 0.0)

    def _kept(self, name: str, dim: int) -> torch.Tensor:
        gone = self._removed.get(name, {}).get(dim, set())
        weight = self._teacher[name]
        return torch.tensor([e for e in range(weight.shape[dim]) if e not in gone], device=weight.device)

    def finish(self) -> None:
        """Fit what was collected, and change the weight."""
        if not self.x:
            return
        x, error = torch.cat(self.x, 1), torch.cat(self.error, 1)
        self.x, self.error = [], []
        around = self.around[self.product.name]
        outputs = error.shape[::2]
        weights = None
        if around.scale is not None and self.product.kind != "transposed":
            weights = around.scale.float().square().reshape(outputs)
        centred = self.product.kind != "transposed" and (self.bias is not None or around.norm is not None)
        found = ridge.fit(x, error, centred, weights)
        if found is None or not bool(torch.isfinite(found.weight).all()):
            self.result.kept.append(self.product.name)
            return
        self._change(found)
        self.result.fitted.append(self.product.name)

    def _change(self, found: ridge.Fit) -> None:
        weight = self.product.weight.detach()
        if self.product.kind == "transposed":
            theirs = self._teacher[self.product.name]
            kept = self._kept(self.product.name, 1)
            change = torch.einsum("ij,i...->j...", found.weight[0], theirs.index_select(1, kept).float())
        elif self.product.kind == "linear":
            change = found.weight[0].t() if self.product.flipped else found.weight[0]
        else:
            change = found.weight.reshape(weight.shape)
        weight += change.to(weight.dtype)
        norm = self.around[self.product.name].norm
        if self.bias is not None:
            bias = self._slim[self.bias]
            bias.detach().add_(found.shift.flatten().to(bias.dtype))
        elif norm is not None:
            mean = self._slim[norm]
            mean.detach().sub_(found.shift.flatten().to(mean.dtype))


def _tied(module: nn.Module) -> set[str]:
    """Parameters that stand at several places: changing one use would change another."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name for several in names.values() if len(several) > 1 for name in several}
