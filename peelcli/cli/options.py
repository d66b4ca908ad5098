"""The flags, each once. Their defaults are None, so that a settings file can speak where a flag is silent."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from peelcli.scoring.table import SCORERS

MODEL = "Model"
BUDGET = "Budget"
HOW = "How to prune"
CALIBRATION = "Calibration"
OUTPUT = "Output"


_SCORES = "; ".join(f"{name}: {info.summary.rstrip('.')}" for name, info in SCORERS.items())


class Format(str, Enum):
    """What is printed on stdout."""

    text = "text"
    json = "json"


class Tracer(str, Enum):
    """What finds the groups."""

    auto = "auto"
    labels = "labels"
    depgraph = "depgraph"


class Repair(str, Enum):
    """Whether what is left makes up for what was cut."""

    auto = "auto"
    none = "none"


class Allocate(str, Enum):
    """How widths are chosen."""

    auto = "auto"
    peel = "peel"
    uniform = "uniform"
    greedy = "greedy"


ModelArg = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="a pickled module, a checkpoint with --factory, or a name such as timm:resnet50, torchvision:..., hf:...",
        show_default=False,
    ),
]
PlanArg = Annotated[Path, typer.Argument(metavar="PLAN", help="a file that `peel plan` wrote", show_default=False)]

InputOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="[NAME=]SHAPE",
        help="an input, e.g. 1,3,224,224, 'ids=1x77:int64:<30522', scale=0.5 or batch.image=1x3x64x64; repeatable; "
        "guessed where none is given",
        rich_help_panel=MODEL,
        show_default=False,
    ),
]
InputsOpt = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:FUNCTION",
        help="returns example inputs: a tensor, a tuple, or a dict of named arguments",
        rich_help_panel=MODEL,
    ),
]
FactoryOpt = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:FUNCTION", help="builds the module that a checkpoint belongs to", rich_help_panel=MODEL
    ),
]
WeightsOpt = Annotated[
    str | None, typer.Option(metavar="FILE", help="checkpoint for a model given by name", rich_help_panel=MODEL)
]
CodeOpt = Annotated[
    str | None,
    typer.Option(metavar="FILE.py", help="Python file with the classes of a pickled module", rich_help_panel=MODEL),
]
TrustOpt = Annotated[
    bool | None,
    typer.Option(
        "--trust/--no-trust",
        help="unpickle even what would run code: only for files of your own",
        rich_help_panel=MODEL,
        show_default="--no-trust",
    ),
]

FlopsOpt = Annotated[
    str | None,
    typer.Option(
        metavar="N|P%",
        help="most multiply-adds for one sample, e.g. 1G or 50%; a multiply-add is 1",
        rich_help_panel=BUDGET,
        show_default=False,
    ),
]
ParamsOpt = Annotated[
    str | None,
    typer.Option(metavar="N|P%", help="most parameters, e.g. 5M or 50%", rich_help_panel=BUDGET, show_default=False),
]
LatencyOpt = Annotated[
    str | None,
    typer.Option(
        metavar="TIME|P%",
        help="most time of one call in this machine's onnxruntime, e.g. 5ms or 50%; measured on the result",
        rich_help_panel=BUDGET,
        show_default=False,
    ),
]
ThreadsOpt = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="CPU threads that --latency is measured with", rich_help_panel=BUDGET, show_default="1"
    ),
]

ScoreOpt = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="how informative channels and layers are. " + _SCORES,
        rich_help_panel=HOW,
        show_default="auto",
    ),
]
AllocateOpt = Annotated[
    Allocate | None,
    typer.Option(
        help="auto: several are tried where samples are given, else peel; uniform and greedy are controls",
        rich_help_panel=HOW,
        show_default="auto",
    ),
]
AlignOpt = Annotated[
    str | None,
    typer.Option(
        metavar="auto|N",
        help="widths in multiples of N; auto: 16, less in narrow groups",
        rich_help_panel=HOW,
        show_default="auto",
    ),
]
MinKeepOpt = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE", help="least share of a group's channels that stays", rich_help_panel=HOW, show_default="0.1"
    ),
]
IgnoreOpt = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB",
        help="layers whose width must not change, e.g. 'layer4.*'; repeatable",
        rich_help_panel=HOW,
        show_default=False,
    ),
]
PoolOpt = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="share of the budget that is handed out by score; the rest is the even backbone",
        rich_help_panel=HOW,
        show_default="0.5",
    ),
]
TauOpt = Annotated[
    float | None,
    typer.Option(
        metavar="POWER",
        help="how strongly the score decides; 0 hands the pool out evenly",
        rich_help_panel=HOW,
        show_default="1",
    ),
]
SeedOpt = Annotated[
    int | None,
    typer.Option(metavar="N", help="seed of everything random", rich_help_panel=HOW, show_default="0"),
]

TracerOpt = Annotated[
    Tracer | None,
    typer.Option(
        help="what finds the groups: peel's own pass on labels, or torch-pruning's dependency graph",
        rich_help_panel=HOW,
        show_default="auto: labels, or depgraph where that fails",
    ),
]

DataOpt = Annotated[
    str | None,
    typer.Option(
        metavar="PATH|FILE.py:FUNCTION|synthetic",
        help="calibration samples: a folder of images, .npy/.npz/.pt/.safetensors, or a function that yields them; "
        '"synthetic" for none: random patterns, for models with BatchNorm',
        rich_help_panel=CALIBRATION,
        show_default=False,
    ),
]
SamplesOpt = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="how many samples are used at most", rich_help_panel=CALIBRATION, show_default="256"
    ),
]
AllSamplesOpt = Annotated[
    int | None,
    typer.Option(
        "--samples",
        metavar="N",
        help="how many samples are used at most",
        rich_help_panel=CALIBRATION,
        show_default="all",
    ),
]
ImageSizeOpt = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="height and width that images are brought to",
        rich_help_panel=CALIBRATION,
        show_default="what the model takes",
    ),
]
MeanOpt = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,N",
        help="mean of each channel, taken off images in 0..1, e.g. 0.485,0.456,0.406",
        rich_help_panel=CALIBRATION,
        show_default="what the model's config says, or ImageNet's",
    ),
]
StdOpt = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,N",
        help="deviation of each channel, by which images are divided then, e.g. 0.229,0.224,0.225",
        rich_help_panel=CALIBRATION,
        show_default="what the model's config says, or ImageNet's",
    ),
]
MetricOpt = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:FUNCTION",
        help="judges the model on the samples: given outputs and targets, it returns a number, more is better",
        rich_help_panel=CALIBRATION,
        show_default=False,
    ),
]
RepairOpt = Annotated[
    Repair | None,
    typer.Option(
        help="auto: make up for what was cut, from the samples", rich_help_panel=CALIBRATION, show_default="auto"
    ),
]
DeviceOpt = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="where scores and repair are computed, e.g. cuda",
        rich_help_panel=CALIBRATION,
        show_default="cpu",
    ),
]

TeacherOpt = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        metavar="MODEL",
        help="the original, whose answers are learned: a file or a name, as for peel prune",
        rich_help_panel=MODEL,
        show_default=False,
    ),
]
EpochsOpt = Annotated[
    float | None,
    typer.Option(metavar="N", help="train until all samples were seen so often", show_default=False),
]
StepsOpt = Annotated[
    int | None,
    typer.Option(metavar="N", help="train on so many batches, instead of --epochs", show_default=False),
]
FinetuneOpt = Annotated[
    str | None,
    typer.Option(
        metavar="Nepochs|Nsteps",
        help="train the slim model on the original's answers afterwards, e.g. 5epochs",
        rich_help_panel=CALIBRATION,
        show_default=False,
    ),
]
RoundsOpt = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="reach the budget in N rounds of pruning and training, which share the training among them",
        rich_help_panel=CALIBRATION,
        show_default="1",
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
