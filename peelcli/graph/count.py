"""Counting what a module costs by running it on shapes alone. Independent of the closed form that it is checked with.

MACs come from torch.utils.flop_counter's formulas, halved: there a multiply-add is two.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from thop.profile import profile, register_hooks, zero_ops
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from peelcli.records import Costs
from peelcli.tensors import tensors_in

_BLIND_SPOTS = ("fft", "grid_sampler", "_cdist", "linalg_", "deform", "roi_align", "lstm", "gru", "rnn_")
_KNOWN_NAMESPACES = ("aten", "prim", "prims")


@dataclass
class OpLog:
    """Multiply-adds of one forward pass by what they multiply.

    Attributes:
        weights: MACs by path of the parameter that the op applies.
        convolved: those of them that convolutions apply.
        products: MACs of products of two activations, by op name.
        uncounted: ops that do arithmetic for which there is no formula.
    """

    weights: dict[str, int] = field(default_factory=dict)
    convolved: set[str] = field(default_factory=set)
    products: dict[str, int] = field(default_factory=dict)
    uncounted: set[str] = field(default_factory=set)


class _Recorder(TorchDispatchMode):
    """Sees every op below autograd and knows parameters by their storage, through any view of them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.log = OpLog()
        self.names = {p.untyped_storage()._cdata: name for name, p in module.named_parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry and func is not torch.ops.prim.device.default:
            with self:
                out = func.decompose(*args, **kwargs)
                if out is not NotImplemented:
                    return out
        out = func(*args, **kwargs)
        if packet in flop_registry:
            self._add(str(packet), args, flop_registry[packet](*args, **kwargs, out_val=out) // 2)
        elif func.namespace not in _KNOWN_NAMESPACES or any(word in str(packet) for word in _BLIND_SPOTS):
            self.log.uncounted.add(str(packet).removeprefix("aten."))
        return out

    def _add(self, op: str, args: Any, macs: int) -> None:
        operands = [t for t in tensors_in(args) if t.dim() >= 2]
        weights = [w for t in operands if (w := self.names.get(t.untyped_storage()._cdata))]
        table, key = (self.log.weights, weights[-1]) if weights else (self.log.products, op)
        table[key] = table.get(key, 0) + int(macs)
        if weights and "conv" in op:
            self.log.convolved.add(key)


def record_ops(module: nn.Module, inputs: tuple[Any, ...]) -> OpLog:
    """Run once and attribute every multiply-add to the parameter it applies, or to a product of activations.

    Args:
        module: in eval mode, usually on device "meta".
        inputs: one sample.
    """
    recorder = _Recorder(module)
    with recorder:
        module(*inputs)
    return recorder.log


def count_macs(module: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Multiply-adds of one forward pass by torch's own counter (a multiply-add is 1; FlopCounterMode says 2)."""
    with FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops()) // 2


def count_params(module: nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(p.numel() for p in module.parameters())


def count_all(module: nn.Module, inputs: tuple[Any, ...]) -> Costs:
    """All three counts of a module for its inputs; `module` and `inputs` as for record_ops."""
    thop, _ = thop_by_layer(module, inputs)
    return Costs(macs=count_macs(module, inputs), params=count_params(module), thop_macs=thop)


@dataclass(frozen=True, slots=True)
class LayerOps:
    """What thop charged to one call of a module, and the shape that came in."""

    ops: int
    shape: tuple[int, ...]


Charges = tuple[int, dict[str, list[LayerOps]]]
"""thop's count: in total, and of each call of the layers that it charges."""


def thop_by_layer(module: nn.Module, inputs: tuple[Any, ...]) -> Charges:
    """The thop package's count: in total, and call by call for the modules that it has a rule for."""
    names = {m: name for name, m in module.named_modules()}
    charged: dict[str, list[LayerOps]] = {}

    def recording(rule: Callable[..., None]) -> Callable[..., None]:
        def count(m: nn.Module, x: Any, y: Any) -> None:
            before = m.total_ops
            with contextlib.suppress(AttributeError, TypeError, IndexError):  # a layer of that kind, but not its call
                rule(m, x, y)
            added = int(m.total_ops - before)  # type: ignore[operator]
            charged.setdefault(names[m], []).append(LayerOps(added, tuple(getattr(x[0], "shape", ())) if x else ()))

        return count

    rules = {kind: recording(rule) for kind, rule in register_hooks.items() if rule is not zero_ops}
    logging.getLogger("thop").setLevel(logging.ERROR)
    total, _params = profile(module, inputs, custom_ops=rules, verbose=False)
    return int(total), charged
