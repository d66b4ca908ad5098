"""What commands share: arguments, groups of flags that are settings, and flags of the output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from peelcli.cli.flags import Group, flag
from peelcli.scoring.table import SCORERS

_MODEL = "Model"
_BUDGET = "Budget"
_HOW = "How to prune"
_CALIBRATION = "Calibration"
OUTPUT = "Output"

_SCORES = "; ".join(f"{name}: {info.summary.rstrip('.')}" for name, info in SCORERS.items())


Format = Literal["text", "json"]
Tracer = Literal["auto", "labels", "depgraph"]
Repair = Literal["auto", "none"]
Allocate = Literal["auto", "peel", "uniform", "greedy"]

ModelArg = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="a file: a pickled module, .pt2, TorchScript or .onnx, or a checkpoint with --factory; or a name such as "
        "timm:resnet50, torchvision:..., hf:...",
        show_default=False,
    ),
]
PlanArg = Annotated[Path, typer.Argument(metavar="PLAN", help="a file that `peel plan` wrote", show_default=False)]

SOURCE: Group = {
    "input_": flag(
        list[str],
        "an input, e.g. 1,3,224,224, 'ids=1x77:int64:<30522', scale=0.5 or batch.image=1x3x64x64; repeatable; "
        "guessed where none is given",
        _MODEL,
        metavar="[NAME=]SHAPE",
        name="--input",
    ),
    "inputs": flag(
        str,
        "returns example inputs: a tensor, a tuple, or a dict of named arguments",
        _MODEL,
        metavar="FILE.py:FUNCTION",
    ),
    "factory": flag(str, "builds the module that a checkpoint belongs to", _MODEL, metavar="FILE.py:FUNCTION"),
    "weights": flag(str, "checkpoint for a model given by name", _MODEL, metavar="FILE"),
    "code": flag(str, "Python file with the classes of a pickled module", _MODEL, metavar="FILE.py"),
    "trust": flag(
        bool,
        "unpickle even what would run code: only for files of your own",
        _MODEL,
        "--no-trust",
        name="--trust/--no-trust",
    ),
}

BUDGETS: Group = {
    "flops": flag(
        str, "most multiply-adds for one sample, e.g. 1G or 50%; a multiply-add is 1", _BUDGET, metavar="N|P%"
    ),
    "params": flag(str, "most parameters, e.g. 5M or 50%", _BUDGET, metavar="N|P%"),
    "latency": flag(
        str,
        "most time of one call in this machine's onnxruntime, e.g. 5ms or 50%; measured on the result",
        _BUDGET,
        metavar="TIME|P%",
    ),
    "threads": flag(int, "CPU threads that --latency is measured with", _BUDGET, "1", "N"),
}

CHOICE: Group = {
    "score": flag(str, "how informative channels and layers are. " + _SCORES, _HOW, "auto", "NAME"),
    "allocate": flag(
        Allocate,
        "auto: several are tried where samples are given, else peel; uniform and greedy are controls",
        _HOW,
        "auto",
    ),
    "pool": flag(
        float,
        "share of the budget that is handed out by score; the rest is the even backbone",
        _HOW,
        "0.5",
        "SHARE",
    ),
    "tau": flag(float, "how strongly the score decides; 0 hands the pool out evenly", _HOW, "1", "POWER"),
}

FORM: Group = {
    "opset": flag(
        int, "version of operators in .onnx files, from 11 on", OUTPUT, "torch's, none newer than an ONNX model's", "N"
    ),
    "dynamic": flag(
        list[str],
        "sizes of an input that stay open in .onnx and .pt2 files beside the batch, by dimension, with a name: 2,3 or "
        "2:height,3:width or ids=1:length; repeatable",
        OUTPUT,
        metavar="[NAME=]DIM[:LABEL],...",
    ),
}

SEED: Group = {"seed": flag(int, "seed of everything random", _HOW, "0", "N")}

WIDTHS: Group = {
    "align": flag(str, "widths in multiples of N; auto: 16, less in narrow groups", _HOW, "auto", "auto|N"),
    "min_keep": flag(float, "least share of a group's channels that stays", _HOW, "0.1", "SHARE"),
    "ignore": flag(list[str], "layers whose width must not change, e.g. 'layer4.*'; repeatable", _HOW, metavar="GLOB"),
    "tracer": flag(
        Tracer,
        "what finds the groups: peel's own pass on labels, or torch-pruning's dependency graph",
        _HOW,
        "auto: labels, or depgraph where that fails",
    ),
}

SAMPLES: Group = {
    "data": flag(
        str,
        "calibration samples: a folder of images, .npy/.npz/.pt/.safetensors, or a function that yields them; "
        '"synthetic" for none: random patterns, for models with BatchNorm',
        _CALIBRATION,
        metavar="PATH|FILE.py:FUNCTION|synthetic",
    ),
    "samples": flag(int, "how many samples are used at most", _CALIBRATION, "256", "N"),
    "validation": flag(
        str,
        "other samples to judge by, kept from scores, repair and training, e.g. photos of their own where --data holds "
        "near copies; read as --data is",
        _CALIBRATION,
        "a fifth of --data",
        "PATH|FILE.py:FUNCTION",
    ),
    "image_size": flag(int, "height and width that images are brought to", _CALIBRATION, "what the model takes", "N"),
    "mean": flag(
        str,
        "mean of each channel, taken off images in 0..1, e.g. 0.485,0.456,0.406",
        _CALIBRATION,
        "what the model's config says, or ImageNet's",
        "N,N,N",
    ),
    "std": flag(
        str,
        "deviation of each channel, by which images are divided then, e.g. 0.229,0.224,0.225",
        _CALIBRATION,
        "what the model's config says, or ImageNet's",
        "N,N,N",
    ),
    "metric": flag(
        str,
        "judges the model on the samples: given outputs and targets, it returns a number, more is better",
        _CALIBRATION,
        metavar="FILE.py:FUNCTION",
    ),
    "device": flag(str, "where scores and repair are computed, e.g. cuda", _CALIBRATION, "cpu", "NAME"),
}

REPAIR: Group = {
    "repair": flag(Repair, "auto: make up for what was cut, from the samples", _CALIBRATION, "auto"),
}

AFTERWARDS: Group = {
    "finetune": flag(
        str,
        "train the slim model on the original's answers afterwards, e.g. 5epochs",
        _CALIBRATION,
        metavar="Nepochs|Nsteps",
    ),
    "rounds": flag(
        int,
        "reach the budget in N rounds of pruning and training, which share the training among them",
        _CALIBRATION,
        "1",
        "N",
    ),
}

LESSONS: Group = {
    "epochs": flag(float, "train until all samples were seen so often", metavar="N"),
    "steps": flag(int, "train on so many batches, instead of --epochs", metavar="N"),
    **SAMPLES,
    "samples": flag(int, "how many samples are used at most", _CALIBRATION, "all", "N"),
}

TeacherOpt = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        metavar="MODEL",
        help="the original, whose answers are learned: a file or a name, as for peel prune",
        rich_help_panel=_MODEL,
        show_default=False,
    ),
]
OutOpt = Annotated[
    list[Path] | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="write the slim model: .onnx, .pt (whole module), .pt2 (exported program), "
        ".py (code, with its weights beside it) or .safetensors (with its plan); repeatable",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
PlotOpt = Annotated[
    list[Path] | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="draw the widths: .svg, or .png (with matplotlib: pip install 'peelcli\\[plot]'); repeatable",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
PlanOutOpt = Annotated[
    Path, typer.Option("--out", metavar="FILE.json", help="where the plan goes", rich_help_panel=OUTPUT)
]
FormatOpt = Annotated[Format, typer.Option("--output-format", help="what is printed on stdout", rich_help_panel=OUTPUT)]
ConfigOpt = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        help="settings file; else peel.toml, or \\[tool.peel] in pyproject.toml, of this folder; flags win",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
