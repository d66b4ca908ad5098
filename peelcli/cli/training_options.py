"""The flags of training."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from peelcli.cli.flags import Group, flag

_LEARNED = "What is learned"
_HOW = "How it is trained"
_RUN = "The training run"

Optimizer = Literal["auto", "sgd", "adamw"]
Match = Literal["outputs", "features"]
Precision = Literal["no", "bf16", "fp16"]
Norms = Literal["batch", "sync", "frozen"]
Board = Literal["none", "tensorboard"]

TRAINING: Group = {
    "distill": flag(
        float,
        "weight of the original's answers in the loss, 0 to 1; the rest is that of labels or of --loss",
        _LEARNED,
        "1; 0.5 with --loss",
        "SHARE",
    ),
    "loss": flag(
        str,
        "is learned beside the original's answers: given outputs and targets, it returns one number, less is better",
        _LEARNED,
        "cross entropy, where labels are class numbers",
        "FILE.py:FUNCTION",
    ),
    "temperature": flag(float, "by which class scores are divided before they are compared", _LEARNED, "4", "NUMBER"),
    "match": flag(Match, "features: the layers inside are compared with the original's too", _LEARNED, "outputs"),
    "label_smoothing": flag(float, "share of a label that is spread over all classes", _LEARNED, "0.1", "SHARE"),
    "augment": flag(str, "change images each time: flip, shift, crop, joined by commas", _LEARNED, "none", "WAYS"),
    "mixup": flag(float, "blend samples in pairs, by shares from Beta(N, N)", _LEARNED, "0: not", "N"),
    "batch": flag(int, "samples a step, over all processes and parts", _HOW, "64", "N"),
    "optimizer": flag(Optimizer, "auto: sgd for networks with BatchNorm, else adamw", _HOW, "auto"),
    "rate": flag(float, "learning rate after warm-up", _HOW, "by optimizer and batch", "NUMBER"),
    "warmup": flag(
        float, "share of the steps in which the rate rises; then it falls as a cosine", _HOW, "0.1", "SHARE"
    ),
    "weight_decay": flag(float, "of matrices and kernels", _HOW, "by optimizer", "NUMBER"),
    "clip": flag(float, "most that the norm of the gradients may be", _HOW, "no bound", "NUMBER"),
    "ema": flag(
        float, "decay of the running average of weights, which is what is kept; 0: no average", _HOW, "0.98", "SHARE"
    ),
    "batchnorm": flag(
        Norms, "statistics in training: of each process's batch, of all together, or as they are", _HOW, "batch"
    ),
    "precision": flag(Precision, "mixed precision of the arithmetic", _HOW, "no"),
    "accumulate": flag(int, "parts that a batch is computed in, for less memory", _HOW, "1", "N"),
    "compile": flag(bool, "run the slim model through torch.compile", _HOW, "--no-compile"),
    "workers": flag(int, "processes that read samples ahead", _HOW, "by the data", "N"),
    "evaluate_every": flag(int, "steps between looks at held-out samples", _RUN, "an epoch", "N"),
    "save_every": flag(int, "steps between checkpoints", _RUN, "100", "N"),
    "checkpoints": flag(
        Path, "folder for the checkpoint and metrics.jsonl", _RUN, "beside the first --out: slim.finetune", "FOLDER"
    ),
    "resume": flag(bool, "go on from the folder's checkpoint; from the start where there is none", _RUN, "--no-resume"),
    "log": flag(Board, "figures for TensorBoard too, in the same folder", _RUN, "none"),
}
