"""The processes that train together, one or many: Accelerate places, sums and scales; here it is decided who does what.

Source of the services used: Hugging Face Accelerate, https://huggingface.co/docs/accelerate.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from peelcli.devices import check_device
from peelcli.errors import UsageError
from peelcli.regimen import Training

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")


def require() -> None:
    """Refuse, before any work, to train without Accelerate.

    Raises:
        UsageError: with the command that installs it.
    """
    try:
        import accelerate  # noqa: F401
    except ImportError:
        raise UsageError("training needs Accelerate", hint="pip install 'peelcli[finetune]'") from None


class Ranks:
    """One process among those that train together.

    Attributes:
        device: of this process.
        count: how many there are.
        rank: which one this is, from 0.
        on_this_machine: how many of them are here.
    """

    def __init__(self, training: Training, device: str | None, unused: bool = False) -> None:
        """Join the other processes, if `torchrun` or `accelerate launch` started several.

        Args:
            training: of which precision matters.
            device: as the user wrote it; None for a GPU where there is one.
            unused: whether some parameters take no part in the loss.

        Raises:
            UsageError: the device is not here, or it can't compute in this precision.
        """
        require()
        self._accelerator = _accelerator(training, device, unused)
        self.device: torch.device = self._accelerator.device
        self.count: int = self._accelerator.num_processes
        self.rank: int = self._accelerator.process_index
        self.on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

    @property
    def main(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def name(self) -> str:
        """The hardware in words: "2 x cpu (gloo)"."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        backend = f" ({torch.distributed.get_backend()})" if self.count > 1 else ""
        return f"{self.count} x {name}{backend}" if self.count > 1 else name

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """The module as it is called in training, and the optimizer that steps it."""
        wrapped, stepper = self._accelerator.prepare(module, optimizer)
        return wrapped, stepper

    def autocast(self) -> Any:
        """What computes in the precision that was asked for."""
        return self._accelerator.autocast()

    def alone(self, module: nn.Module, more: bool) -> Any:
        """What keeps gradients to this process, as long as more are to be added."""
        return self._accelerator.no_sync(module) if more else nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Differentiate, scaled where the precision wants it."""
        self._accelerator.backward(loss)

    def clip(self, parameters: Sequence[nn.Parameter], most: float) -> None:
        """Bound the norm of all gradients together."""
        self._accelerator.clip_grad_norm_(parameters, most)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes, the same on all."""
        if self.count == 1:
            return values
        values = values.clone()
        torch.distributed.all_reduce(values)
        return values / self.count

    def any(self, flag: bool) -> bool:
        """Whether it is true for one of the processes."""
        return flag if self.count == 1 else bool(self.mean(torch.tensor([float(flag)], device=self.device)) > 0)

    def from_main(self, value: Any) -> Any:
        """What the first process has, on all."""
        if self.count == 1:
            return value
        box = [value if self.main else None]
        torch.distributed.broadcast_object_list(box, src=0, device=self.device if self.device.type == "cuda" else None)
        return box[0]

    def tensors_from_main(self, tensors: Sequence[Tensor]) -> None:
        """Fill tensors with those of the first process."""
        for tensor in tensors if self.count > 1 else ():
            torch.distributed.broadcast(tensor, src=0)

    def shared(self, count: int, work: Callable[[list[int]], list[T]]) -> list[T]:
        """Do something for each of `count` things, every process a part of it; the results in order, on all.

        Args:
            count: positions are 0, 1, ...
            work: given positions, returns a result for each.
        """
        mine = list(range(self.rank, count, self.count))
        found = work(mine) if mine else []
        if self.count == 1:
            return found
        boxes: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(boxes, found)
        return [boxes[at % self.count][at // self.count] for at in range(count)]

    def scaler_state(self) -> dict[str, Any] | None:
        """What half precision keeps between steps."""
        scaler = self._accelerator.scaler
        return None if scaler is None else dict(scaler.state_dict())

    def load_scaler(self, state: dict[str, Any] | None) -> None:
        """Take what was kept."""
        if state is not None and self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(state)


def is_main() -> bool:
    """Whether this process is the only one or the first of those that a launcher started; no torch is asked."""
    return int(os.environ.get("RANK", "0")) == 0


def launched() -> int:
    """How many processes a launcher started together with this one; no torch is asked."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _accelerator(training: Training, device: str | None, unused: bool) -> Accelerator:
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    chosen = check_device(device) if device is not None else None
    if chosen is not None and chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    on_cpu = chosen.type == "cpu" if chosen is not None else not (torch.cuda.is_available() or _has_mps())
    if training.precision == "fp16" and on_cpu:
        raise UsageError("--precision fp16 needs a GPU", hint="write --precision bf16, or leave it away")
    AcceleratorState._reset_state(reset_partial_state=launched() == 1)  # settings of an earlier run in this process
    return Accelerator(
        cpu=on_cpu,
        mixed_precision=training.precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused)],
    )


def _has_mps() -> bool:
    return bool(torch.backends.mps.is_available())
