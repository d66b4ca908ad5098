"""Slim weights without pickle: a .safetensors file that carries its plan, and the plan beside it as text."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from peelcli import files, plans
from peelcli.errors import CheckFailed, ExportError, SourceError
from peelcli.export.modules import largest_difference
from peelcli.records import Check, Plan, Subject

PLAN_KEY = "peel.plan"
TIED_KEY = "peel.tied"
_AT_ONCE = 2**28


def write(slim: Subject, plan: Plan, metadata: Mapping[str, str], path: Path, beside: Path, name: str) -> tuple[Check]:
    """Write the state dict and the plan, read both again and compare bit by bit.

    Args:
        slim: not changed.
        plan: how the weights came about; without it they fit no module.
        metadata: text for the file's header; the plan is added to it.
        path: the staged .safetensors file.
        beside: the staged .plan.json file.
        name: how the file is called in messages.

    Raises:
        ExportError: the state dict holds something that is no tensor.
        CheckFailed: what was read is not what was written.
    """
    state = slim.module.state_dict()
    stored, tied = _untied(state)
    text = plans.to_json(plan)
    header = {**metadata, "format": "pt", PLAN_KEY: text}
    if tied:
        header[TIED_KEY] = json.dumps(tied, sort_keys=True)
    _store(stored, header, path)
    files.write_bytes(beside, text.encode())

    with opened(path) as found:
        places, same = found.places, plans.to_json(found.plan) == text
    difference = float("inf")
    if places.keys() == state.keys():
        difference = max((_reread(path, places, some) for some in _parts(state)), default=0.0)
    if difference > 0 or not same:
        raise CheckFailed(f"{name} does not read back as it was written, nothing was written")
    return (Check("safetensors_reload", True, difference, 0.0),)


def _parts(state: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    """The entries in parts of some MiB: what is read of a file stays in memory until the file is closed."""
    part: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in state.items():
        part[name] = tensor
        size += tensor.numel() * tensor.element_size()
        if size > _AT_ONCE:
            yield part
            part, size = {}, 0
    yield part


def _reread(path: Path, places: Mapping[str, str], state: Mapping[str, torch.Tensor]) -> float:
    """The largest difference between tensors and what a file holds of them."""
    with opened(path) as found:
        pairs = (([found.tensor(places[name])], [tensor]) for name, tensor in state.items())
        return max(itertools.starmap(largest_difference, pairs), default=0.0)


def holds_plan(path: Path) -> bool:
    """Whether a file is a slim checkpoint of peel's."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return PLAN_KEY in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


@dataclass(frozen=True, slots=True)
class Opened:
    """A slim checkpoint whose tensors are read one at a time.

    Attributes:
        plan: what makes a fresh module fit.
        places: for every entry of the state dict the name that its tensor is stored under; tied ones share it.
        tensor: reads a stored tensor.
    """

    plan: Plan
    places: Mapping[str, str]
    tensor: Callable[[str], torch.Tensor]


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open a slim checkpoint.

    Raises:
        SourceError: no safetensors file, or none that peel wrote.
        PlanError: the plan in it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata, stored = file.metadata() or {}, set(file.keys())
            if PLAN_KEY not in metadata:
                raise SourceError(
                    f"{path} holds no plan: peel did not write it",
                    hint="give it as --weights, or with --factory, instead",
                )
            places = {**{name: name for name in stored}, **_tied_in(metadata, stored, path)}
            plan = plans.from_json(metadata[PLAN_KEY], f"the plan in {path}")
            yield Opened(plan, places, file.get_tensor)
    except (OSError, SafetensorError) as error:
        raise SourceError(f"{path} can't be read as safetensors: {error}") from error


def read_slim(path: Path) -> tuple[Plan, dict[str, torch.Tensor]]:
    """The plan of a slim checkpoint and its whole state dict, tied entries as one tensor. Raises as `opened`."""
    with opened(path) as found:
        once = {place: found.tensor(place) for place in set(found.places.values())}
        return found.plan, {name: once[place] for name, place in found.places.items()}


def _tied_in(metadata: Mapping[str, str], stored: Set[str], path: Path) -> dict[str, str]:
    """For every name that has no tensor of its own the one that it is stored under."""
    try:
        tied = json.loads(metadata.get(TIED_KEY, "{}"))
        if stored >= set(tied.values()):
            return dict(tied)
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass
    raise SourceError(f"{path} is damaged: its table of tied tensors can't be read")


def _store(tensors: dict[str, torch.Tensor], metadata: dict[str, str], path: Path) -> None:
    """Write a file without a copy of the tensors, with its metadata in order: safetensors takes another each time.

    The format: the header's length in 8 bytes, the header as JSON padded with spaces to a multiple of 8, the tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        path.touch()
        mode = path.stat().st_mode  # what the umask gives to a new file; safetensors lets its owner alone read it
        save_file(tensors, path, metadata)
        path.chmod(mode)
    except OSError as error:
        raise files.write_error(error, path) from error
    except SafetensorError as error:
        code = int((re.search(r"os error (\d+)", str(error)) or ["", "0"])[1])
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        raise files.write_error(OSError(code, os.strerror(code) if code else str(error)), path, size) from error
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length)
    files.overwrite(path, 8, sorted_header(header))


def sorted_header(header: bytes) -> bytes:
    """A file's header with its metadata in order, of the same length."""
    content = json.loads(header)
    content["__metadata__"] = dict(sorted(content["__metadata__"].items()))
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= len(header), "the same JSON in another order"
    return text.ljust(len(header))


def _untied(state: Mapping[str, object]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors by name, each memory once, and the other names of those that appear twice.

    Raises:
        ExportError: an entry is no tensor.
    """
    stored: dict[str, torch.Tensor] = {}
    tied: dict[str, str] = {}
    seen: dict[object, str] = {}
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise ExportError(
                f"the state dict's {name} is no tensor but {type(value).__name__}, .safetensors can't hold it",
                hint="write .pt or .onnx with --out",
            )
        key = (value.data_ptr(), value.shape, value.stride(), value.dtype) if value.numel() else name
        if key in seen:
            tied[name] = seen[key]
        else:
            seen[key] = name
            stored[name] = _own(value)
    return stored, tied


def _own(value: torch.Tensor) -> torch.Tensor:
    """The tensor alone in its memory: no view of a larger one."""
    tensor = (value.data if isinstance(value, nn.Parameter) else value).detach()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole and tensor.is_contiguous() else tensor.contiguous().clone()
