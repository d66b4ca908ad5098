"""Samples where there is no data: random patterns, and the model as it would have seen them in training."""

from __future__ import annotations

import torch
from torch import nn

from peelcli.config import SYNTHETIC
from peelcli.errors import InputError
from peelcli.patches import generator
from peelcli.records import Subject
from peelcli.samples import Samples
from peelcli.surgery.batchnorm import has_statistics, reestimated

_SHAPES = 40  # laid over each other in one pattern
_BYTES = 1_000_000_000  # of all patterns
_FEWEST = 32  # patterns, however large they are
_INSTEAD = "give real samples: a folder of images, tensors, or file.py:function"


def samples(subject: Subject, count: int, seed: int) -> Samples:
    """Patterns of the shape that the model takes.

    Raises:
        InputError: the model keeps no statistics of BatchNorm, or takes something else than one floating-point tensor.
    """
    if not has_statistics(subject.module):
        raise InputError(
            "synthetic samples need the statistics that BatchNorm keeps, and this model keeps none", hint=_INSTEAD
        )
    first = subject.inputs[0] if len(subject.inputs) == 1 else None
    if not isinstance(first, torch.Tensor) or not first.is_floating_point() or first.dim() < 2:
        raise InputError("synthetic samples are one floating-point tensor, and this model takes more", hint=_INSTEAD)
    most = max(_FEWEST, _BYTES // (first[0].numel() * 4))
    made = patterns(first.shape[1:], min(count, most), generator(seed, SYNTHETIC)).to(first.dtype)
    notes = ("synthetic samples: what the slim model does on real ones is not known",)
    return Samples(tuple((pattern[None],) for pattern in made), SYNTHETIC, notes=notes)


def patterns(shape: tuple[int, ...], count: int, source: torch.Generator) -> torch.Tensor:
    """Boxes and ellipsoids of random place, size and colour, one over the other; plain noise where there is no space.

    Source: dead leaves, whose statistics come near those of photos (Lee, Mumford and Huang, 2001,
    doi:10.1023/A:1011109015675); as training images, Baradad et al., arXiv:2106.05963. Here in any number of
    dimensions, with axes that are drawn alone.

    Args:
        shape: (channels, sizes...).
        count: patterns.
        source: of all that is random.

    Returns:
        Of shape (count, channels, sizes...), mean about 0 and deviation about 1.
    """
    channels, sizes = shape[0], shape[1:]
    if not sizes:
        return torch.randn(count, channels, generator=source)
    made = torch.empty(count, *shape)
    axes = [
        torch.arange(size, dtype=torch.float32).reshape([-1 if d == k else 1 for d in range(len(sizes))])
        for k, size in enumerate(sizes)
    ]
    for pattern in made:
        pattern[:] = torch.randn(channels, *([1] * len(sizes)), generator=source)
        for _ in range(_SHAPES):
            pattern[:, _inside(axes, source)] = torch.randn(channels, 1, generator=source)
    return made


def _inside(axes: list[torch.Tensor], source: torch.Generator) -> torch.Tensor:
    """Where one shape is; small ones are frequent."""
    size = torch.rand((), generator=source).square() / 2
    distances = []
    for axis in axes:
        centre, radius = torch.rand(2, generator=source) * torch.tensor([1.0, 0.8]) + torch.tensor([0.0, 0.2])
        distances.append((axis - centre * axis.numel()) / (radius * size * axis.numel() + 1.0))
    if torch.rand((), generator=source) < 0.5:
        return torch.stack(torch.broadcast_tensors(*(distance.abs() for distance in distances))).amax(0) < 1
    return torch.stack(torch.broadcast_tensors(*(distance.square() for distance in distances))).sum(0) < 1


def stand_in(module: nn.Module, shown: Samples) -> nn.Module:
    """A copy whose BatchNorm statistics are those of the patterns.

    Behind each BatchNorm every channel then has the mean and the deviation that real data gave it in training, which is
    what makes patterns do for data: what is fitted between two norms holds for both.
    """
    return reestimated(module, shown)


def carried_over(slim: nn.Module, before: nn.Module, after: nn.Module) -> None:
    """Give the slim model, in place, the changes of weights and running means that its stand-in got.

    A change of a running mean is one of the mean of a layer's output, the same for patterns and real data as long as
    the inputs have the same means. Running variances stay: the outputs are to be those of the original.
    """
    own, old, new = (dict(part.state_dict(keep_vars=True)) for part in (slim, before, after))
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.is_floating_point() and not torch.equal(old[name], new[name]):
                tensor.add_((new[name] - old[name]).to(tensor.device))
