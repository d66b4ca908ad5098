"""What both sides of the zoo are measured with: a clock that can stop one, counts, memory, and a step of training."""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from peelcli.tensors import tensors_in

MARK = "@row "
ROUND_OFF = 1e-9  # float64; right cuts differ by about 1e-15 to 1e-12, wrong ones by 1e-5 and more


class Stalled(BaseException):
    """A side took longer than it may. No Exception, so that nothing that tries several ways swallows it."""


class Row(dict[str, Any]):
    """What is known of a model so far; told line by line, so that a killed process leaves what it had."""

    def tell(self, **facts: Any) -> None:
        """Add facts and print all of them."""
        self.update(facts, peak_mib=peak_mib())
        print(MARK + json.dumps(self), flush=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """CPU time of what runs inside; and say that it began."""
        self.tell(stage=name)
        start = time.process_time()
        try:
            yield
        finally:
            self.setdefault("seconds", {})[name] = round(time.process_time() - start, 3)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise Stalled in what runs inside after so many seconds of CPU: a busy machine makes nobody stall."""

    def stop(_number: int, _frame: Any) -> None:
        raise Stalled

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def peak_mib() -> int:
    """Largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def macs_of(module: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Multiply-adds by torch's counter; attention as products that it sees."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        module(*inputs)
    return int(counter.get_total_flops()) // 2


def params_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def twice(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same sample twice as one batch, with noise on floats, so that BatchNorm can train."""
    return tuple(torch.cat([v, v + torch.randn_like(v) if v.is_floating_point() else v])
                 if torch.is_tensor(v) and v.dim() else v for v in inputs)  # fmt: skip


def trains(module: nn.Module, inputs: tuple[Any, ...], original: nn.Module) -> tuple[bool, str]:
    """Whether a step of SGD on the outputs' mean square moves the model and leaves it finite, and what was in the way.

    In train mode on two samples; in eval mode where the original too can't be trained like that, since it wants targets
    (detectors) or takes one sample only.

    Args:
        module: is changed.
        inputs: one sample.
        original: what `module` was before it was pruned; is changed.
    """
    torch.manual_seed(0)
    module.zero_grad(set_to_none=True)
    try:
        return _steps(module, _loss(module.train(), twice(inputs)))
    except Exception as error:  # whatever a forward or backward raises
        heard = one_line(error)
    try:
        _loss(original.train(), twice(inputs))
    except Exception:  # the same for the original
        module.zero_grad(set_to_none=True)
    else:
        return False, heard
    try:
        return _steps(module, _loss(module.eval(), inputs))
    except Exception as error:  # the same
        return False, one_line(error)


def _loss(module: nn.Module, inputs: tuple[Any, ...]) -> torch.Tensor:
    """Mean square of all outputs, its gradients computed."""
    with torch.enable_grad():
        floats = [t for t in tensors_in(module(*inputs)) if t.is_floating_point() and t.requires_grad]
        loss = torch.stack([t.square().mean() for t in floats]).sum()
        loss.backward()
    return loss


def _steps(module: nn.Module, loss: torch.Tensor) -> tuple[bool, str]:
    moving = [p for p in module.parameters() if p.grad is not None]
    before = [p.detach().clone() for p in moving]
    if not bool(loss.isfinite()) or not all(bool(p.grad.isfinite().all()) for p in moving):
        return False, "loss or gradients are not finite"
    torch.optim.SGD(module.parameters(), lr=0.01).step()
    if not any(not torch.equal(old, new) for old, new in zip(before, moving, strict=True)):
        return False, "no parameter moved"
    return all(bool(p.isfinite().all()) for p in moving), ""
