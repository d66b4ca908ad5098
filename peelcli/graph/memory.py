"""The most memory that a module's activations take at one time, seen in one forward pass on shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from peelcli.tensors import named_tensors, tensors_in


class _Storages(TorchDispatchMode):
    """Keeps the books on memory that ops make, until nothing holds it any more."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = known  # the model's own
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.see(tensors_in(out))
        return out

    def see(self, tensors: list[torch.Tensor]) -> None:
        """Some tensors are there now; a view takes nothing of its own."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.known:
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.alive = {key: held for key, held in self.alive.items() if not held[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))


def peak_bytes(module: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Run once; the largest sum of what inputs and activations take, as torch frees them.

    Args:
        module: in eval mode, usually on device "meta".
        inputs: one sample; they are held by the caller, and so are there all the time.
    """
    known = {tensor.untyped_storage()._cdata for _, tensor in named_tensors(module)}
    mode = _Storages(known)
    mode.see(tensors_in(inputs))
    with torch.no_grad(), mode:
        module(*inputs)
    return mode.peak
