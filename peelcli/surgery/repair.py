"""Make the kept channels carry what the removed ones did: least squares, layer by layer, along the data's way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from peelcli.patches import channels_at, generator, output_grid, outputs_at, patches_at, positions
from peelcli.products import Product, python_functions_open
from peelcli.records import Cut
from peelcli.samples import Samples
from peelcli.surgery import ridge
from peelcli.surgery.aims import Aim, flat_beyond, joined, undone
from peelcli.surgery.prune import entries_of
from peelcli.surgery.surroundings import Around, Counted, look
from peelcli.surgery.walk import Walk
from peelcli.tensors import evaluated, full_copy, named_tensors, own

Progress = Callable[[int, int], None]
_BYTES_AT_ONCE = 800_000_000  # of activations in one wave of samples
_SAMPLES = 64  # every layer sees at least so many samples, where there are so many
_ROWS = 24  # rows an input
_FEWEST = {True: 8192, False: 4096}  # rows of a dense product, and of a grouped one
_ELEMENTS = 48_000_000  # numbers in one matrix of rows
_ROUND_OFF = 8.0  # steps of the floating-point type: what is no further off is right
_LIVE = 8  # tensors as large as a layer's input and output that live at once in both models


@dataclass
class Repaired:
    """What was done.

    Attributes:
        fitted: weights that were changed.
        kept: weights for which no change was better on samples held out.
        short: weights for which fewer rows were seen than they have inputs.
        skipped: reason -> weights that could not be looked at.
    """

    fitted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    short: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, reason: str, name: str) -> None:
        """Note a weight that stays as it was cut."""
        names = self.skipped.setdefault(reason, [])
        if name not in names:
            names.append(name)

    def knows(self, name: str) -> bool:
        """Whether it is noted what became of a weight."""
        return any(name in names for names in (self.fitted, self.kept, *self.skipped.values()))

    def notes(self) -> tuple[str, ...]:
        """For the report."""
        done = f"repair: {len(self.fitted)} of {len(self.fitted) + len(self.kept)} layers fitted again"
        few = f"{_layers(self.short)} with more inputs than rows were seen"
        short = f"repair: {few}: regularised; more samples help"
        left = tuple(f"repair: {_layers(names)} left as cut, {why}" for why, names in self.skipped.items())
        return (done, *([short] if self.short else []), *left)


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
    teacher = nn.Module.eval(full_copy(original))
    with evaluated(slim), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        around, size = _looked_at(slim, samples)
        fitter = _Fitter(teacher, slim, cuts, around, seed)
        batches = samples.counted_batches(size)
        with python_functions_open():
            waves = [_Wave(teacher, slim, inputs, count, fitter.wanted) for inputs, count in batches]
            _side_by_side(waves, fitter, len(samples), progress)
    return fitter.result


def _layers(names: Sequence[str]) -> str:
    return f"{len(names)} layer{'' if len(names) == 1 else 's'}"


# --- two passes, in waves of samples


class _Wave:
    """Some samples on their way through both models, up to the same product."""

    def __init__(
        self, teacher: nn.Module, slim: nn.Module, inputs: tuple[Any, ...], size: int, wanted: Set[int]
    ) -> None:
        self.size = size
        self.calls = (Counted(wanted), Counted(wanted))
        self.first = Walk(teacher, own(teacher, inputs), self.calls[0])
        self.second = Walk(slim, own(slim, inputs), self.calls[1])
        self.at = -1
        self.pair: tuple[Product, Product] | None = None

    def go_to(self, number: int) -> tuple[Product, Product] | None:
        """Both products with this number; None at the end, and once the models have called different ones."""
        while self.at < number and (self.pair is not None or self.at < 0):
            one, two = self.first.advance(), self.second.advance()
            self.pair = (one, two) if one is not None and two is not None and one.name == two.name else None
            self.at += 1
        return self.pair

    def keep_only(self, wanted: Set[int]) -> None:
        """Let go of outputs that nobody will ask for again."""
        for counted in self.calls:
            counted.keep_only(wanted)

    def close(self) -> None:
        """End both passes."""
        self.first.close()
        self.second.close()


def _looked_at(slim: nn.Module, samples: Samples) -> tuple[dict[str, Around], int]:
    """What is around the products, and how many samples go in one wave."""
    inputs, count = next(samples.counted_batches(2))
    around = look(slim, inputs)
    largest = max((found.elements for found in around.values()), default=1) / count
    return around, max(2, int(_BYTES_AT_ONCE // (4 * _LIVE * max(largest, 1))))


def _side_by_side(waves: Sequence[_Wave], fitter: _Fitter, samples: int, progress: Progress | None) -> None:
    """Fit product after product; a wave starts only when the ones before it don't give rows enough."""
    number, total = 0, sum(around.calls for around in fitter.around.values())
    try:
        while (pair := waves[0].go_to(number)) is not None:
            fitter.start(*pair)
            seen = 0
            for wave in waves if fitter.can_fit() else ():
                pair = wave.go_to(number)
                if pair is None or not fitter.takes(*pair):
                    continue
                seen += wave.size
                fitter.add(wave, *pair, wave.size / min(samples, _SAMPLES))
                if seen >= min(samples, _SAMPLES) and fitter.enough:
                    break
            fitter.finish()
            for wave in waves:
                wave.keep_only(fitter.wanted)
            number += 1
            if progress:
                progress(number, total)
    finally:
        for wave in waves:
            wave.close()
    for name in fitter.around:
        if not fitter.result.knows(name):
            fitter.result.skip("which the two models do not reach side by side", name)


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
        self._last = {found.other: name for name, found in around.items() if found.other >= 0}
        self.wanted = set(self._last)
        self._removed = entries_of(cuts, removed=True)
        self._teacher = dict(named_tensors(teacher))
        self._slim = dict(named_tensors(slim))
        self._names = {id(tensor): name for name, tensor in self._slim.items()}
        self._tied = _tied(slim)
        self._seed = seed

    def start(self, product: Product, mine: Product) -> None:
        """Turn to the next product, as it stands in both models."""
        self.product = mine
        self._alike = _grid(product) == _grid(mine)
        self.x: list[torch.Tensor] = []
        self.aims: list[Aim] = []
        self.size = 0.0  # mean square of what is aimed at
        groups, _, inputs, kernel = mine.matrix().shape
        columns = inputs * kernel
        self.needed = min(max(_FEWEST[groups == 1], _ROWS * columns), max(64, _ELEMENTS // (groups * columns)))
        around = self.around.get(mine.name, Around())
        bias = self._names.get(id(mine.bias)) if isinstance(mine.bias, nn.Parameter) else None
        self.shifted = bias if bias is not None and bias not in self._tied else around.norm
        self.falls = -1.0 if self.shifted is not None and self.shifted == around.norm else 1.0
        if mine.kind == "transposed":  # what is fitted there is the input
            self.shifted = None

    def can_fit(self) -> bool:
        """Whether this product's weight may be changed; else the reason is noted."""
        name, kind = self.product.name, self.product.kind
        reason = None
        around = self.around.get(name, Around())
        if name in self._tied or around.elsewhere:
            reason = "their weights are tied to others"
        elif around.calls != 1 or self.product.call:
            reason = "their weights are used several times in a pass"
        elif kind == "transposed" and self.product.groups > 1:
            reason = "grouped transposed convolutions can't be fitted"
        elif not isinstance(self.product.weight, nn.Parameter) or not self.product.weight.is_floating_point():
            reason = "their weights are no parameters of real numbers"
        elif not self._alike:
            reason = "which see the samples at other positions in the slim model"
        if reason is not None and not self.result.knows(name):
            self.result.skip(reason, name)
        return reason is None

    def takes(self, product: Product, mine: Product) -> bool:
        """Whether what stands in a wave is what all turned to, and the same in both models."""
        return mine.name == self.product.name and mine.call == 0 and _grid(product) == _grid(mine)

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
            self.aims.append(Aim((full - now)[None]))
            self._measure(full)
            return
        out = wave.first.compute()
        at = positions(output_grid(product, out), count, source)
        kept = self._kept(mine.name, 1 if mine.flipped else 0)
        x = patches_at(mine, at).float()
        groups, outputs = mine.matrix().shape[:2]
        now = x @ mine.matrix().flatten(2).float().transpose(1, 2)
        if mine.bias is not None:
            now = now + mine.bias.detach().float().reshape(groups, 1, outputs)
        wanted = outputs_at(product, out, at)[:, kept].float()
        self._measure(wanted)
        around, drift = self.around[mine.name], self._drift(wave, product, out, at, kept)
        change, value = wanted - now.transpose(0, 1).flatten(1), around.normed(wanted)
        if drift is not None:
            change, value = change + undone(drift[0] - drift[1], around.scale), value + drift[0]
        aim = Aim(change)
        if around.ends is not None and (drift is not None or around.other < 0):
            aim = flat_beyond(around.ends, value, change, around.scale)
        self.x.append(x)
        self.aims.append(aim.grouped(groups))

    def _measure(self, wanted: torch.Tensor) -> None:
        self.size = max(self.size, float(wanted.square().mean()))

    def _drift(
        self, wave: _Wave, product: Product, out: torch.Tensor, at: tuple[torch.Tensor, ...], kept: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """What the output is added to in the original and in the slim model; None where it is no sum."""
        around = self.around[product.name]
        theirs, ours = (counted.kept.get(around.other) for counted in wave.calls)
        if theirs is None or ours is None or any(counted.count != around.number for counted in wave.calls):
            return None  # no sum, or other calls than those that were looked at
        rows = math.prod(out.shape[:-1])
        if product.kind == "linear" and theirs.numel() % rows == ours.numel() % rows == 0:
            theirs, ours = (t.reshape(*out.shape[:-1], -1) for t in (theirs, ours))  # what is added may be a view
        if theirs.shape != out.shape or output_grid(product, ours) != output_grid(product, out):
            return None
        return outputs_at(product, theirs, at)[:, kept].float(), outputs_at(product, ours, at).float()

    def _kept(self, name: str, dim: int) -> torch.Tensor:
        gone = self._removed.get(name, {}).get(dim, set())
        weight = self._teacher[name]
        return torch.tensor([e for e in range(weight.shape[dim]) if e not in gone], device=weight.device)

    def finish(self) -> None:
        """Fit what was collected, and change the weight."""
        name = self.product.name
        self.wanted -= {other for other, last in self._last.items() if last == name}
        if not self.x:
            return
        x, aim = torch.cat(self.x, 1), joined(self.aims)
        self.x, self.aims = [], []
        around, outputs, weights = self.around[name], aim.change.shape[::2], None
        if around.scale is not None and self.product.kind != "transposed":
            weights = around.scale.float().square().reshape(outputs)
        noise = (_ROUND_OFF * torch.finfo(self.product.weight.dtype).eps) ** 2 * self.size
        off = not aim.distance() <= noise
        if off and x.shape[1] < x.shape[2]:
            self.result.short.append(name)
        found = ridge.fit(x, aim, self.shifted is not None, weights) if off else None
        changed = found is not None and self._change(found)
        (self.result.fitted if changed else self.result.kept).append(name)

    def _change(self, found: ridge.Fit) -> bool:
        """Add the change, unless numbers of this type can't hold the sum."""
        weight = self.product.weight.detach()
        if self.product.kind == "transposed":
            theirs = self._teacher[self.product.name]
            kept = self._kept(self.product.name, 1)
            change = torch.einsum("ij,i...->j...", found.weight[0], theirs.index_select(1, kept).float())
        elif self.product.kind == "linear":
            change = found.weight[0].t() if self.product.flipped else found.weight[0]
        else:
            change = found.weight.reshape(weight.shape)
        sums = [(weight, weight + change.to(weight.dtype))]
        if self.shifted is not None:
            old = self._slim[self.shifted].detach()
            sums.append((old, old + self.falls * found.shift.flatten().to(old.dtype)))
        if not all(bool(new.isfinite().all()) for _, new in sums):
            return False
        for old, new in sums:
            old.copy_(new)
        return True


def _grid(product: Product) -> tuple[int, ...]:
    """Sizes of the input without its channels."""
    return output_grid(product, product.x)


def _tied(module: nn.Module) -> set[str]:
    """Parameters that stand at several places: changing one use would change another."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name for several in names.values() if len(several) > 1 for name in several}
