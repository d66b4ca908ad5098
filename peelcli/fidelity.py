"""How well a model follows the original, on samples that nothing was fitted on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from peelcli.errors import InputError, UsageError
from peelcli.outputs import Kind, beside, class_id, class_label, common_kind, kind, main_output
from peelcli.results import Distance
from peelcli.samples import Inputs, Samples, shapes, spread, together
from peelcli.sources import usercode
from peelcli.sources.data import class_ids, evaluate_metric
from peelcli.sources.data.metric import Metric
from peelcli.tensors import full_copy, named_tensors, tensors_in

Shared = Callable[[int, Callable[[list[int]], list[Any]]], list[Any]]
"""(how many, what gives a result for each of some positions) -> the results for all positions, in order."""

ACCURACY = "accuracy"
MOST_NUMBERS = 64_000_000  # of outputs that are kept of one model: 256 MB in float32
_BATCH = 16
_LEAST = 2  # samples that are compared, however large the outputs are
_LOOKED_AT = 16  # samples that tell what the output is
_CHUNK = 4_000_000  # numbers of which distributions are made at a time
# Outputs whose deviation from their mean is less than this share of their size, squared, are the same in float32.
_SAME = 1e-12


def outputs_of(module: nn.Module, samples: Samples, device: str | torch.device = "cpu") -> list[Tensor]:
    """The main output for each sample.

    Args:
        module: left as it is, its mode too; a copy runs in eval mode, without gradients and with the seed set.
        samples: run in batches where the model's first dimension is the batch, else one by one.
        device: where the copy runs.

    Returns:
        float32 on the CPU, each of shape (1, ...), or as the model puts it out for one sample.

    Raises:
        UsageError: the output holds no floating-point tensor.
    """
    forward = _Forward(module, torch.device(device))
    return [output.float() for output in forward.each(samples, main_output)]


def takes_batches(module: nn.Module, samples: Samples, device: str | torch.device = "cpu") -> bool:
    """Whether the rows of an output are samples: seen on the first two of one shape, True where there are none."""
    kinds: dict[str, list[Inputs]] = {}
    for inputs in samples.inputs:
        alike = kinds.setdefault(repr(shapes(inputs)), [])
        alike.append(inputs)
        if len(alike) == 2:
            return _Forward(module, torch.device(device)).rows(alike, main_output) is not None
    return True


class Judge:
    """The original's outputs on held-out samples, and how far other models are from them.

    What the numbers are is decided once, from the original's outputs: for logits distributions are their softmax over
    the last dimension, each position of a sequence one; probabilities are distributions; values have none.

    Attributes:
        metric_name: as given, "accuracy" where targets are class numbers and nothing was given, else "".
        original: the original's own figure by that metric, or None.
        held: samples that the figures are of.
        notes: what was left out, one sentence each.
    """

    def __init__(
        self,
        original: nn.Module,
        held: Samples,
        metric: Metric | None = None,
        metric_name: str = "",
        device: str | torch.device = "cpu",
        shared: Shared | None = None,
    ) -> None:
        """Run the original once.

        Args:
            original: left as it is.
            held: at least one sample.
            metric: given outputs and targets, it returns a number; more is better.
            metric_name: how it is called in reports.
            device: where models run.
            shared: does the work on samples together with other processes, given how many there are.

        Raises:
            InputError: the metric raises or returns no finite number, or no output of the original is finite.
            UsageError: the output holds no floating-point tensor, or a label is no class of the model.
        """
        self._device, self._metric = torch.device(device), metric
        self._shared: Shared = shared or (lambda count, work: work(list(range(count))))
        forward = _Forward(original, self._device)
        first = [forward(inputs) for inputs in held.inputs[:_LOOKED_AT]]
        self._kind: Kind = common_kind(kind(outputs) for outputs in first)
        self._samples = _as_many_as_fit(held, first, whole=metric is not None)
        self.held = len(self._samples)
        self.notes: tuple[str, ...] = ()
        if self.held < len(held):
            self.notes = (f"compared on {self.held} of {len(held)} held-out samples: their outputs are large",)
        if metric is None and (others := beside(first[0])) > 0:
            told = f"compared by the first of the model's {others + 1} outputs: --metric can judge by others"
            self.notes += (told,)
        wholes, self._outputs = self._run(original)
        if not any(bool(output.isfinite().any()) for output in self._outputs):
            raise InputError(
                f"the model's outputs on {held.name} hold no finite number", hint="look at the samples and the weights"
            )
        self._deviation = _deviation(self._outputs)
        self._labels = self._class_labels()
        self.metric_name = metric_name if metric else ACCURACY if self._labels else ""
        self.original = self._figure(wholes, self._outputs)

    def distance(self, module: nn.Module) -> Distance:
        """How far a model is from the original.

        Args:
            module: left as it is.

        Returns:
            Infinite distances where an output is NaN or infinite and the original's is not, or where it has another
            shape. NaN agrees with no class; by the user's metric what is not finite is -inf.
        """
        wholes, found = self._run(module)
        pairs = list(zip(self._outputs, found, strict=True))
        broken = any(bool(a.isfinite().all()) and not bool(b.isfinite().all()) for a, b in pairs)
        figure = -math.inf if broken and self._metric else self._figure(wholes, found)
        relative = relative_distance(self._outputs, found, self._deviation)
        if self._kind == "values":
            return Distance(relative, metric=figure)
        kl, agreement = compare_distributions(self._outputs, found, self._kind)
        return Distance(relative, kl, agreement, figure)

    def look_at_targets(self, samples: Samples) -> tuple[str, ...]:
        """A word where targets give no accuracy, although the model's outputs have classes and there is no metric.

        Raises:
            UsageError: some targets are class numbers of the model, and others are not.
        """
        if self._metric is not None or self._kind == "values" or not samples.targets:
            return ()
        classes = [class_id(target) for target in samples.targets]
        if not self._outputs or self._outputs[0].dim() != 2 or not any(one is not None and one >= 0 for one in classes):
            return ("the targets are no class numbers, so no accuracy is told: --metric can judge by them",)
        for number, target in zip(classes, samples.targets, strict=True):
            if number is None:
                raise UsageError(
                    f"{samples.name}: some targets are class numbers, and one is {type(target).__name__}",
                    hint="give all samples a class number, or none",
                )
            class_label(number, self._outputs[0])
        return ()

    def _run(self, module: nn.Module) -> tuple[list[Any], list[Tensor]]:
        """What forward returned for each sample, where a metric wants that, and the main outputs."""
        if self._metric is None:
            return [], self._shared(self.held, lambda at: outputs_of(module, self._samples.some(at), self._device))

        def work(at: list[int]) -> list[Any]:
            return list(_Forward(module, self._device).each(self._samples.some(at), lambda outputs: outputs))

        wholes = self._shared(self.held, work)
        return wholes, [main_output(whole).float() for whole in wholes]

    def _figure(self, wholes: list[Any], outputs: list[Tensor]) -> float | None:
        if self._metric is not None:
            return evaluate_metric(self._metric, wholes, self._samples.targets)
        return accuracy(outputs, self._labels) if self._labels else None

    def _class_labels(self) -> list[int]:
        """One class number for each sample, or none at all."""
        ids = None if self._kind == "values" else class_ids(self._samples)
        labels = [class_label(one, output) for one, output in zip(ids or [], self._outputs, strict=False)]
        return [label for label in labels if label is not None] if None not in labels else []


# --- running a model


class _Forward:
    """A model's forward call: on a copy in eval mode, on some device, with results on the CPU."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._device = device
        if all(tensor.device == device for _, tensor in named_tensors(module)):
            shared = {id(parameter): parameter for parameter in module.parameters()}
            self._module = nn.Module.eval(full_copy(module, shared))
        else:
            self._module = nn.Module.eval(full_copy(module)).to(device)

    def __call__(self, inputs: Inputs) -> Any:
        """One call with a copy of the inputs."""
        moved = pytree.tree_map_only(Tensor, lambda t: t.to(self._device, copy=True), inputs)
        with usercode.seeded(), torch.no_grad():
            outputs = self._module(*moved)
        return pytree.tree_map_only(Tensor, lambda t: t.detach().cpu(), outputs)

    def each(self, samples: Samples, keep: Callable[[Any], Any]) -> Iterator[Any]:
        """What `keep` takes of the output, for each sample; batches where the first sample shows that rows are samples.

        A batch that the model does not take, or that comes back with other than one row for each sample (a detector,
        a program of fixed shapes), is run one by one, and so is all that follows.
        """
        size = 0  # of a batch; 0 as long as it is not known
        for _, same in groupby(samples.inputs, lambda inputs: repr(shapes(inputs))):
            rest = list(same)
            while rest:
                rows = self.rows(rest[:size], keep) if size > 1 else None
                if rows is None:
                    rows = [keep(self(rest[0]))]
                    size = _BATCH if size == 0 and _split(rows[0], 1) else 1
                rest = rest[len(rows) :]
                yield from rows

    def rows(self, batch: Sequence[Inputs], keep: Callable[[Any], Any]) -> list[Any] | None:
        """What `keep` takes of the output of a batch, for each sample; None where the rows are no samples."""
        try:
            return _split(keep(self(together(batch))), len(batch))
        except Exception:  # whatever a forward raises on a batch; one sample raises it again
            return None


def _split(outputs: Any, count: int) -> list[Any] | None:
    """The outputs for each sample of a batch, or None where their first dimension is not the batch."""
    leaves, spec = pytree.tree_flatten(outputs)
    rows = [leaf.split(1) if isinstance(leaf, Tensor) and leaf.dim() else [leaf] * count for leaf in leaves]
    plain = all(
        leaf.dim() > 0 if isinstance(leaf, Tensor) else leaf is None or isinstance(leaf, (int, float, str))
        for leaf in leaves
    )
    if not leaves or not plain or any(len(row) != count for row in rows):
        return None
    return [pytree.tree_unflatten(list(parts), spec) for parts in zip(*rows, strict=True)]


def _as_many_as_fit(held: Samples, first: Sequence[Any], whole: bool) -> Samples:
    """The samples, or as many of them as have outputs of at most MOST_NUMBERS numbers."""
    kept = (tensors_in(one) if whole else [main_output(one)] for one in first)
    numbers = max(sum(t.numel() for t in tensors) for tensors in kept)
    most = max(_LEAST, MOST_NUMBERS // max(1, numbers))
    return held if len(held) <= most else held.some(spread(len(held), most))


# --- figures, from outputs


def relative_distance(wanted: Sequence[Tensor], found: Sequence[Tensor], deviation: float | None = None) -> float:
    """Root of the summed squared differences over the deviation of what is wanted from its mean over the samples.

    Where samples have outputs of different shapes, the mean is one of rows along the last dimension, or if that differs
    too a single number. Where outputs do not differ from their mean (one sample), their own root sum of squares stands
    in. Numbers that are not finite in what is wanted are left out.

    Args:
        wanted: one output for each sample.
        found: the same of the other model.
        deviation: known from before.

    Returns:
        0 where all is equal; inf where what is found has another shape, or is not finite.
    """
    if any(a.shape != b.shape for a, b in zip(wanted, found, strict=True)):
        return math.inf
    error = sum(
        float((b.double() - a.double())[a.isfinite()].square().sum()) for a, b in zip(wanted, found, strict=True)
    )
    if error == 0.0:
        return 0.0
    scale = _deviation(wanted) if deviation is None else deviation
    return math.sqrt(error) / scale if math.isfinite(error) and scale > 0 else math.inf


def _deviation(outputs: Sequence[Tensor]) -> float:
    """Root of the summed squares of outputs less their mean over the samples; see `relative_distance`."""
    outputs = [output for output in outputs if output.numel()]
    widths = {output.shape[-1:].numel() for output in outputs}
    if len({output.shape for output in outputs}) == 1:
        widths = {outputs[0].numel()}
    width = widths.pop() if len(widths) == 1 else 1

    def rows() -> Iterator[Tensor]:
        for output in outputs:
            yield output.double().masked_fill(~output.isfinite(), math.nan).reshape(-1, width)

    total, count = torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    size = 0.0
    for row in rows():
        total += row.nansum(0)
        count += row.isfinite().sum(0)
        size += float(row.square().nansum())
    mean = total / count.clamp(min=1)
    squares = sum(float((row - mean).square().nansum()) for row in rows())
    return math.sqrt(squares if squares > _SAME * size else size)


def compare_distributions(wanted: Sequence[Tensor], found: Sequence[Tensor], kind: Kind) -> tuple[float, float]:
    """Mean Kullback-Leibler divergence, and how often the most probable class is the same.

    KL(p, q) = sum_c p_c log(p_c / q_c) in nats, p of what is wanted and q of what is found, for every row along the
    last dimension. Probabilities of 0 count as the least number of float32. Rows that are NaN in what is wanted are
    left out.

    Args:
        wanted: one output for each sample, of shape (rows, classes) or (rows, positions, classes).
        found: the same of the other model.
        kind: "logits" or "probabilities".

    Returns:
        The mean, >= 0, and a share of the rows; inf and 0 where what is found has another shape or is not finite.
    """
    if any(a.shape != b.shape for a, b in zip(wanted, found, strict=True)):
        return math.inf, 0.0
    divergence, same, count = 0.0, 0, 0
    for a, b in zip(wanted, found, strict=True):
        step = max(1, _CHUNK // max(1, a.shape[-1]))
        chunks = (output.reshape(-1, output.shape[-1]).split(step) for output in (a, b))
        for rows, others in zip(*chunks, strict=True):
            p, q = _logarithms(rows, kind), _logarithms(others, kind)
            known = ~p.isnan().any(1)
            p, q = p[known], q[known]
            terms = torch.where(p.isneginf(), 0.0, p.exp() * (p - q))
            divergence += float(terms.sum())
            same += int(((p.argmax(1) == q.argmax(1)) & ~q.isnan().any(1)).sum())
            count += len(p)
    if not math.isfinite(divergence):
        return math.inf, same / max(1, count)
    return max(0.0, divergence / max(1, count)), same / max(1, count)


def _logarithms(rows: Tensor, kind: Kind) -> Tensor:
    if kind == "logits":
        return rows.double().log_softmax(1)
    return rows.double().clamp(min=torch.finfo(torch.float32).tiny).log()


def accuracy(outputs: Sequence[Tensor], labels: Sequence[int]) -> float:
    """Share of the samples whose most probable class is their label; NaN is no class.

    Args:
        outputs: one for each sample, of shape (rows, classes).
        labels: one for each sample.
    """
    right = sum(
        float(((output.argmax(1) == label) & ~output.isnan().any(1)).double().mean())
        for output, label in zip(outputs, labels, strict=True)
    )
    return right / len(labels)
