"""Slim weights without pickle: a .safetensors file that carries its plan, and the plan beside it as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from peelcli import files, plans
from peelcli.errors import CheckFailed, ExportError, SourceError
from peelcli.export.modules import largest_difference
from peelcli.records import Check, Plan, Subject

PLAN_KEY = "peel.plan"
TIED_KEY = "peel.tied"


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
    from safetensors.torch import save

    state = slim.module.state_dict()
    stored, tied = _untied(state)
    text = plans.to_json(plan)
    header = {**metadata, "format": "pt", PLAN_KEY: text}
    if tied:
        header[TIED_KEY] = json.dumps(tied, sort_keys=True)
    files.write_bytes(path, *_sorted_header(save(stored, header)))
    files.write_bytes(beside, text.encode())

    found, tensors = read_slim(path)
    difference = float("inf")
    if tensors.keys() == state.keys():
        difference = largest_difference([tensors[key] for key in state], list(state.values()))
    if difference > 0 or plans.to_json(found) != text:
        raise CheckFailed(f"{name} does not read back as it was written, nothing was written")
    return (Check("safetensors_reload", True, difference, 0.0),)


def holds_plan(path: Path) -> bool:
    """Whether a file is a slim checkpoint of peel's."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return PLAN_KEY in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def read_slim(path: Path) -> tuple[Plan, dict[str, torch.Tensor]]:
    """Read a slim checkpoint: the plan that makes a fresh module fit, and its state dict, tied entries included.

    Raises:
        SourceError: no safetensors file, or none that peel wrote.
        PlanError: the plan in it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is no dict)
    except (OSError, SafetensorError) as error:
        raise SourceError(f"{path} can't be read as safetensors: {error}") from error
    if PLAN_KEY not in metadata:
        raise SourceError(
            f"{path} holds no plan: peel did not write it", hint="give it as --weights, or with --factory, instead"
        )
    try:
        tied = json.loads(metadata.get(TIED_KEY, "{}"))
        tensors.update({name: tensors[kept] for name, kept in tied.items()})
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise SourceError(f"{path} is damaged: its table of tied tensors can't be read") from error
    return plans.from_json(metadata[PLAN_KEY], f"the plan in {path}"), tensors


def _sorted_header(content: bytes) -> tuple[bytes, memoryview]:
    """The same file with its metadata in order; safetensors writes it in another order each time.

    The format: the header's length in 8 bytes, the header as JSON padded with spaces to a multiple of 8, the tensors.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, memoryview(content)[start:]


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
