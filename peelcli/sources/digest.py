"""Which model this is: one digest of its architecture, one of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from peelcli.records import ModelId, Subject


def model_id(subject: Subject) -> ModelId:
    """Name and digests of a model, each digest a hex SHA-256.

    Returns:
        `architecture` covers names, shapes and types of all tensors in the state dict and the class name of every
        submodule; `weights` covers the names and raw bytes of all parameters and buffers. Neither covers the
        modules that define the classes, the mode, or the flags, so a model keeps its id when its script is renamed.
    """
    return ModelId(subject.name, _architecture(subject.module), _weights(subject.module))


def _architecture(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        described = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        digest.update(f"{name} {described}\n".encode())
    for name, child in sorted(module.named_modules(remove_duplicate=False)):
        digest.update(f"{name} {type(child).__name__}\n".encode())
    return digest.hexdigest()


def _weights(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors(module), key=lambda pair: pair[0]):
        digest.update(f"{name}\n".encode())
        digest.update(content(tensor))
    return digest.hexdigest()


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def content(tensor: Tensor) -> memoryview:
    """The elements' bytes in row-major order; a view of any type as bytes, for numpy knows no bfloat16."""
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    array: Any = flat.view(torch.uint8).numpy()
    return memoryview(array)
