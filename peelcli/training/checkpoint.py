"""All that a run needs to go on: one file, whole or absent, written beside the last one and renamed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from peelcli import files
from peelcli.errors import SourceError, UsageError

VERSION = 2
Tensors = dict[str, torch.Tensor]


@dataclass
class Checkpoint:
    """Where a run is.

    Attributes:
        identity: what makes it this run and no other, by name.
        step: steps that are done.
        weights: the model's state dict.
        average: the running average of it.
        optimizer: the optimizer's state dict.
        scaler: what half precision keeps, or None.
        curve: points so far, as plain dicts.
        recent: losses since the last of these points.
        best: the best state so far; None while that is the start.
    """

    identity: dict[str, str]
    step: int
    weights: Tensors
    average: Tensors
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None
    curve: list[dict[str, Any]]
    recent: list[float]
    best: Tensors | None


def make_folder(folder: Path) -> None:
    """Make the folder that checkpoints go to.

    Raises:
        ExportError: it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.write_error(error, folder) from error


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint; the old one stays until the new one is on the disk.

    Raises:
        ExportError: the disk is full, or the file can't be written.
    """
    buffer = io.BytesIO()  # in memory first: torch turns a full disk into an error of its own
    torch.save({"peel_finetune": VERSION, **vars(checkpoint)}, buffer)
    with files.staged([folder / files.CHECKPOINT]) as (temporary,):
        files.write_bytes(temporary, buffer.getbuffer())


def read(folder: Path) -> Checkpoint | None:
    """The folder's checkpoint, None where there is none.

    Raises:
        SourceError: it can't be read.
    """
    path = folder / files.CHECKPOINT
    if not path.exists():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        if found.pop("peel_finetune") != VERSION:
            raise ValueError("it was written by another version of peel")
        return Checkpoint(**found)
    except Exception as error:  # whatever a damaged file makes torch raise
        raise SourceError(
            f"{path} can't be read: {' '.join(str(error).split())[:120]}", hint=f"remove {folder} and start again"
        ) from error


def remove(folder: Path) -> None:
    """Forget a run that has ended, with all its rounds."""
    for path in files.checkpoints_in(folder):
        path.unlink(missing_ok=True)


def check_same(here: Mapping[str, str], found: Checkpoint, folder: Path) -> None:
    """Refuse to go on with what another run has left.

    Raises:
        UsageError: naming everything that differs.
    """
    names = [name for name in {**here, **found.identity} if here.get(name) != found.identity.get(name)]
    if not names:
        return
    told = ", ".join(_told(name, found.identity.get(name), here.get(name)) for name in names)
    raise UsageError(
        f"the checkpoint in {folder} is of another run: {told}",
        hint="give the settings of that run again, or start anew with another --checkpoints",
    )


def _told(name: str, there: str | None, here: str | None) -> str:
    longest = 24
    several = name.endswith("s") and not name.startswith("--")
    if there is None or here is None or max(len(there), len(here)) > longest:
        return f"{name} {'differ' if several else 'differs'}"
    was, now = ("were", "are") if several else ("was", "is")
    return f"{name} {was} {there} and {now} {here}"
