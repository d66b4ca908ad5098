"""Where tensors are computed: which devices peel knows, and whether they are here."""

from __future__ import annotations

import re

import torch

from peelcli.errors import UsageError

_CPU_INSTEAD = "leave --device away to work on the CPU"


def check_device(text: str) -> torch.device:
    """Turn `cpu`, `cuda`, `cuda:N` or `mps` into a device of this machine; nothing is put on it.

    Raises:
        UsageError: it is written otherwise, or there is none here.
    """
    written = re.fullmatch(r"cpu|mps|cuda(?::([0-9]+))?", text)
    if written is None:
        raise UsageError(f"--device {text} is no device that peel knows", hint="write cpu, cuda, cuda:1 or mps")
    if text == "mps" and not torch.backends.mps.is_available():
        raise UsageError("torch sees no MPS device here", hint=_CPU_INSTEAD)
    if text.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise UsageError("torch sees no CUDA device here", hint=_CPU_INSTEAD)
        if int(written[1] or 0) >= count:
            raise UsageError(f"--device {text}: the last CUDA device here is cuda:{count - 1}", hint=_CPU_INSTEAD)
    return torch.device(text)
