"""Images made a little different each time, and samples blended in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree

from peelcli.patches import generator
from peelcli.samples import Inputs

_SHIFT = 0.125  # most that an image is moved by, as a share of its side
_CROP = 0.5  # least share of an image's area that a crop keeps


class Augment:
    """Changes batches of images; what is drawn depends on seed, step and sample, not on how a batch is shared out."""

    def __init__(self, ways: Sequence[str], seed: int) -> None:
        """Take in which ways: "flip" left to right, "shift" by up to an eighth of a side, "crop" to half the area."""
        self._ways, self._seed = frozenset(ways), seed

    def __call__(self, inputs: Inputs, step: int, places: Sequence[int]) -> Inputs:
        """The same arguments with every image tensor, shape (samples, channels, height, width), changed.

        Args:
            inputs: on any device; not changed.
            step: of the run.
            places: of these samples within the step's whole batch.
        """
        if not self._ways:
            return inputs
        numbers = torch.rand(max(places) + 1, 5, generator=generator(self._seed, "augment", step))[list(places)]

        def change(value: Any) -> Any:
            return _warped(value, numbers, self._ways) if is_image(value) else value

        return tuple(pytree.tree_map(change, value) for value in inputs)


def is_image(value: Any) -> bool:
    """Whether a value looks like a batch of images or maps."""
    return isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point()


def _warped(images: Tensor, numbers: Tensor, ways: frozenset[str]) -> Tensor:
    """Resample each image under a map of its own; beyond the border the border's pixels go on.

    Args:
        images: shape (samples, channels, height, width).
        numbers: in 0..1, shape (samples, 5).
        ways: see `Augment`.
    """
    mirror = torch.where(
        (numbers[:, 0] < 0.5) if "flip" in ways else torch.zeros(len(numbers), dtype=torch.bool), -1, 1
    )
    size = (_CROP + (1 - _CROP) * numbers[:, 1]).sqrt() if "crop" in ways else torch.ones(len(numbers))
    moves = (2 * numbers[:, 3:5] - 1) * (1 - size)[:, None]  # a crop lies anywhere inside
    if "shift" in ways:
        moves = moves + (2 * numbers[:, [2, 3]] - 1) * 2 * _SHIFT
    maps = torch.zeros(len(numbers), 2, 3)
    maps[:, 0, 0], maps[:, 1, 1] = size * mirror, size
    maps[:, :, 2] = moves
    if ways == {"flip"}:  # exact, and quicker than resampling
        return torch.where((mirror < 0).to(images.device)[:, None, None, None], images.flip(3), images)
    grid = functional.affine_grid(maps.to(images.device), list(images.shape), align_corners=False)
    wide = images.float()
    return functional.grid_sample(wide, grid, padding_mode="border", align_corners=False).to(images.dtype)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Samples that were blended in pairs: share * sample + (1 - share) * the sample at `partners`."""

    share: float
    partners: Tensor


def can_be_blended(value: Any, count: int) -> bool:
    """Whether a value is a batch of numbers between which there are others, shape (samples, ...)."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0 and len(value) == count


def mixed(inputs: Inputs, count: int, alpha: float, seed: int, step: int) -> tuple[Inputs, Pairs | None]:
    """Blend every floating tensor of a batch with another sample's, one share for the batch.

    Source: mixup, Zhang et al., arXiv:1710.09412: the share is drawn from Beta(alpha, alpha).

    Args:
        inputs: tensors of shape (samples, ...).
        count: how many samples these are.
        alpha: above 0.
        seed: of the run.
        step: of the run.

    Returns:
        The inputs and who was blended with whom; None where nothing could be blended.
    """
    if not any(can_be_blended(leaf, count) for leaf in pytree.tree_leaves(inputs)):
        return inputs, None
    source = generator(seed, "mixup", step)
    share = float(np.random.default_rng((seed, step)).beta(alpha, alpha))
    partners = torch.randperm(count, generator=source)

    def blend(value: Any) -> Any:
        if not can_be_blended(value, count):
            return value
        return share * value + (1 - share) * value[partners.to(value.device)]

    return tuple(pytree.tree_map(blend, value) for value in inputs), Pairs(share, partners)
