"""The flags of training, each once, given to every command that trains."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

LEARNED = "What is learned"
HOW = "How it is trained"
RUN = "The training run"


class Optimizer(str, Enum):
    """What moves the weights."""

    auto = "auto"
    sgd = "sgd"
    adamw = "adamw"


class Match(str, Enum):
    """What is compared with the original."""

    outputs = "outputs"
    features = "features"


class Precision(str, Enum):
    """Of the arithmetic."""

    no = "no"
    bf16 = "bf16"
    fp16 = "fp16"


class Norms(str, Enum):
    """BatchNorm's statistics in training."""

    batch = "batch"
    sync = "sync"
    frozen = "frozen"


class Board(str, Enum):
    """Where figures go beside metrics.jsonl."""

    none = "none"
    tensorboard = "tensorboard"


def _flag(kind: Any, help_: str, panel: str, default: str | bool = False, metavar: str | None = None) -> Any:
    """An option that is None where it is not given."""
    option = typer.Option(help=help_, rich_help_panel=panel, show_default=default, metavar=metavar)
    return Annotated[kind | None, option]


FLAGS: dict[str, Any] = {
    "distill": _flag(
        float,
        "weight of the original's answers in the loss, 0 to 1; the rest is that of labels or of --loss",
        LEARNED,
        "1; 0.5 with --loss",
        "SHARE",
    ),
    "loss": _flag(
        str,
        "is learned beside the original's answers: given outputs and targets, it returns one number, less is better",
        LEARNED,
        "cross entropy, where labels are class numbers",
        "FILE.py:FUNCTION",
    ),
    "temperature": _flag(float, "by which class scores are divided before they are compared", LEARNED, "4", "NUMBER"),
    "match": _flag(Match, "features: the layers inside are compared with the original's too", LEARNED, "outputs"),
    "label_smoothing": _flag(float, "share of a label that is spread over all classes", LEARNED, "0.1", "SHARE"),
    "augment": _flag(str, "change images each time: flip, shift, crop, joined by commas", LEARNED, "none", "WAYS"),
    "mixup": _flag(float, "blend samples in pairs, by shares from Beta(N, N)", LEARNED, "0: not", "N"),
    "batch": _flag(int, "samples a step, over all processes and parts", HOW, "64", "N"),
    "optimizer": _flag(Optimizer, "auto: sgd for networks with BatchNorm, else adamw", HOW, "auto"),
    "rate": _flag(float, "learning rate after warm-up", HOW, "by optimizer and batch", "NUMBER"),
    "warmup": _flag(
        float, "share of the steps in which the rate rises; then it falls as a cosine", HOW, "0.1", "SHARE"
    ),
    "weight_decay": _flag(float, "of matrices and kernels", HOW, "by optimizer", "NUMBER"),
    "clip": _flag(float, "most that the norm of the gradients may be", HOW, "no bound", "NUMBER"),
    "ema": _flag(
        float, "decay of the running average of weights, which is what is kept; 0: no average", HOW, "0.98", "SHARE"
    ),
    "batchnorm": _flag(
        Norms, "statistics in training: of each process's batch, of all together, or as they are", HOW, "batch"
    ),
    "precision": _flag(Precision, "mixed precision of the arithmetic", HOW, "no"),
    "accumulate": _flag(int, "parts that a batch is computed in, for less memory", HOW, "1", "N"),
    "compile": _flag(bool, "run the slim model through torch.compile", HOW, "--no-compile"),
    "workers": _flag(int, "processes that read samples ahead", HOW, "by the data", "N"),
    "evaluate_every": _flag(int, "steps between looks at held-out samples", RUN, "an epoch", "N"),
    "save_every": _flag(int, "steps between checkpoints", RUN, "100", "N"),
    "checkpoints": _flag(
        Path, "folder for the checkpoint and metrics.jsonl", RUN, "beside the first --out: slim.finetune", "FOLDER"
    ),
    "resume": _flag(bool, "go on from the folder's checkpoint; from the start where there is none", RUN, "--no-resume"),
    "log": _flag(Board, "figures for TensorBoard too, in the same folder", RUN, "none"),
}


def trains(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags above, behind its own; it gets them as keyword arguments."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        command(*args, **kwargs)

    hints = get_type_hints(command, include_extras=True)
    own = inspect.signature(command)
    kept = [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in own.parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in FLAGS.items()
    ]
    run.__signature__ = own.replace(parameters=[*kept, *more])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*kept, *more)}
    del run.__wrapped__
    return run
