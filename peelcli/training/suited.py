"""Whether samples can be changed in the ways that were asked for: what would do nothing, or harm, is refused."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from torch.utils import _pytree as pytree

from peelcli.errors import UsageError
from peelcli.regimen import Training
from peelcli.tensors import tensors_in
from peelcli.training.augment import can_be_blended, is_image
from peelcli.training.feed import Chunk


def check(first: Chunk, single: bool, own: bool, training: Training) -> None:
    """Refuse `--mixup` and `--augment` where the samples don't suit them.

    Args:
        first: some samples.
        single: whether a forward call takes one sample only.
        own: whether the targets go to a loss of the user's.
        training: the settings.

    Raises:
        UsageError: nothing could be changed, or inputs would be changed and their targets not.
    """
    if training.mixup > 0:
        _check_mixup(first, single)
    if training.augment:
        _check_augment(first, own, ",".join(training.augment))


def _check_mixup(first: Chunk, single: bool) -> None:
    if single:
        raise UsageError(
            "--mixup blends the samples of a batch, and the model takes one sample at a time",
            hint="leave --mixup away",
        )
    if not any(can_be_blended(leaf, len(first.positions)) for leaf in pytree.tree_leaves(first.inputs)):
        raise UsageError(
            "--mixup blends floating-point numbers, and the samples hold none that lie in a batch",
            hint="leave --mixup away; token ids and lists of images can't be blended",
        )


def _check_augment(first: Chunk, own: bool, ways: str) -> None:
    sides = {tuple(leaf.shape[2:]) for leaf in pytree.tree_leaves(first.inputs) if is_image(leaf)}
    if not sides:
        raise UsageError(
            f"--augment {ways} changes images, and the samples hold none: no floating-point tensor of 4 dimensions",
            hint="leave --augment away",
        )
    found = _map_in(first.targets or (), sides) if own else None
    if found is not None:
        raise UsageError(
            f"--augment {ways} changes images, and not the targets of --loss that have their height and width: {found}",
            hint="leave --augment away, and change images and targets together in a data set of your own",
        )


def _map_in(targets: Iterable[Any], sides: set[tuple[int, ...]]) -> str | None:
    """The shape of the first target with an image's height and width, one behind the other."""
    for target in targets:
        for tensor in tensors_in(target):
            if sides.intersection(pairwise(tensor.shape)):
                return "x".join(map(str, tensor.shape))
    return None
