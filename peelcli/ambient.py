"""What a caller has set around a call: we work under the usual settings, and theirs are as before afterwards."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np
import torch

P = ParamSpec("P")
R = TypeVar("R")


def undisturbed(work: Callable[P, R]) -> Callable[P, R]:
    """Let a function train under torch.no_grad and torch.inference_mode, and leave no trace in random states."""

    @functools.wraps(work)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        states = random.getstate(), np.random.get_state()
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        try:
            with torch.random.fork_rng(list(devices)), torch.inference_mode(False), torch.enable_grad():
                return work(*args, **kwargs)
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])

    return wrapped
