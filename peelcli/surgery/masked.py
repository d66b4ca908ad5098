"""The original with the removed channels silenced: what a right slim model must compute, by other means.

Zero in every consumer what it reads from the removed channels. Norms that average over channels would still see them,
so their statistics are taken over the kept channels only; that is part of what is compared, and it is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Union

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from peelcli.records import Cut
from peelcli.surgery.blends import KeptBlends
from peelcli.surgery.prune import entries_of
from peelcli.tensors import float64_copy, named_tensors, parent_of


def masked_copy(module: nn.Module, cuts: Sequence[Cut]) -> nn.Module:
    """A full-size copy in float64 and eval mode whose consumers read zeros from the removed channels.

    It has to run under `mixing` with the same cuts.
    """
    silent = float64_copy(module)
    tensors = dict(named_tensors(silent))
    with torch.no_grad():
        for name, by_dim in entries_of(cuts, removed=True, role="in").items():
            for dim, gone in by_dim.items():
                tensors[name].index_fill_(dim, torch.tensor(sorted(gone), device=tensors[name].device), 0)
    return silent


Mixing = Union[KeptBlends, "KeptStatistics"]


@contextmanager
def mixing(silent: nn.Module, cuts: Sequence[Cut]) -> Iterator[Mixing]:
    """One forward pass of a masked copy, in which ops that mix channels use the kept ones only.

    Where the trace noted every such op, those are the ones; else norms are known by their weights.
    """
    modes: Mixing = KeptBlends(cuts) if any(cut.group.blends for cut in cuts) else KeptStatistics(silent, cuts)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), modes:
            yield modes
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class KeptStatistics(TorchFunctionMode):
    """Computes layer_norm, rms_norm and group_norm over kept channels; removed ones come out as zero.

    Attributes:
        used: norms for which this made a difference, by parameter path.
    """

    def __init__(self, module: nn.Module, cuts: Sequence[Cut]) -> None:
        super().__init__()
        tensors = dict(named_tensors(module))
        self.used: set[Any] = set()
        self._names: dict[int, str] = {}
        self._kept: dict[int, torch.Tensor] = {}
        for name, by_dim in entries_of(cuts, removed=True, role="out").items():
            owner, _ = parent_of(module, name)
            tensor = tensors[name]
            if tensor.dim() == 1 and not isinstance(owner, nn.modules.batchnorm._NormBase):
                kept = [entry for entry in range(tensor.shape[0]) if entry not in by_dim[0]]
                self._kept[id(tensor)] = torch.tensor(kept, device=tensor.device)
                self._names[id(tensor)] = name

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        handler = _NORMS.get(func)
        if handler is None:
            return func(*args, **(kwargs or {}))
        values = dict(zip(handler[0], args, strict=False)) | (kwargs or {})
        kept = self._kept.get(id(values.get("weight")))
        if kept is None:
            return func(*args, **(kwargs or {}))
        self.used.add(self._names[id(values["weight"])])
        return handler[1](values, kept)


def _over_last_dim(norm: Callable[..., torch.Tensor]) -> Callable[[dict[str, Any], torch.Tensor], torch.Tensor]:
    def run(values: dict[str, Any], kept: torch.Tensor) -> torch.Tensor:
        x = values["input"]
        affine = {n: values[n][kept] for n in ("weight", "bias") if values.get(n) is not None}
        eps = {"eps": values["eps"]} if "eps" in values else {}
        out = torch.zeros_like(x)
        out[..., kept] = norm(x[..., kept], (len(kept),), **affine, **eps)
        return out

    return run


def _group_norm(values: dict[str, Any], kept: torch.Tensor) -> torch.Tensor:
    x = values["input"]
    affine = {n: values[n][kept] for n in ("weight", "bias") if values.get(n) is not None}
    out = torch.zeros_like(x)
    out[:, kept] = F.group_norm(x[:, kept], values["num_groups"], **affine, eps=values.get("eps", 1e-5))
    return out


_LAYER = ("input", "normalized_shape", "weight", "bias", "eps")
_GROUP = ("input", "num_groups", "weight", "bias", "eps")
_RMS = ("input", "normalized_shape", "weight", "eps")
_NORMS: dict[Any, tuple[tuple[str, ...], Callable[[dict[str, Any], torch.Tensor], torch.Tensor]]] = {
    F.layer_norm: (_LAYER, _over_last_dim(F.layer_norm)),
    torch.layer_norm: (_LAYER, _over_last_dim(F.layer_norm)),
    F.rms_norm: (_RMS, _over_last_dim(F.rms_norm)),
    torch.rms_norm: (_RMS, _over_last_dim(F.rms_norm)),
    F.group_norm: (_GROUP, _group_norm),
    torch.group_norm: (_GROUP, _group_norm),
}
