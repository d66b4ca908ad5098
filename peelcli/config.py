"""Settings: one spelling for flag, TOML key and Python argument; values that make no sense can't be built."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from typing_extensions import TypedDict

from peelcli import freesizes, units
from peelcli.errors import UsageError
from peelcli.regimen import Function, Rounds, Training

Allocator = Literal["auto", "peel", "uniform", "greedy"]
Tracer = Literal["auto", "labels", "depgraph"]
Repair = Literal["auto", "none"]


class Quantity(BaseModel):
    """An upper bound: a count, or a share of the original's own count.

    Attributes:
        amount: the count, or the share in percent.
        percent: which of the two.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    amount: Fraction
    percent: bool = False

    def of(self, original: int) -> int:
        """The bound as a count, rounded down, for a model whose own count is `original`."""
        return int(self.amount * original / 100) if self.percent else int(self.amount)

    def __str__(self) -> str:
        if self.percent:
            return f"{float(self.amount):g}%"
        return str(int(self.amount))


def _read_quantity(value: Any) -> Any:
    """Accept "1G", "50%", 4_000_000 or a Quantity; refuse what is no positive bound."""
    if value is None or isinstance(value, Quantity):
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or value in (math.inf, -math.inf):
        raise ValueError(f"{value!r} is not a number such as 1G, 250M or 50%")
    text = str(value).strip() if isinstance(value, str) else str(Fraction(value).limit_denominator())
    percent = text.endswith("%")
    if isinstance(value, str):
        amount = units.parse_count(text.removesuffix("%"))
    else:
        amount = Fraction(value)
    if amount <= 0:
        raise ValueError(f"a budget must be above zero, not {value}")
    if percent and amount > 100:
        raise ValueError(f"a budget of {value} is more than the whole model")
    if not percent and amount < 1:
        raise ValueError(f"a budget of {value} is less than one; for half of the original write 50%")
    return Quantity(amount=amount, percent=percent)


Bound = Annotated[
    Quantity | None,
    BeforeValidator(_read_quantity),
    PlainSerializer(lambda value: None if value is None else str(value)),
]


class Span(BaseModel):
    """An upper bound on a time: seconds, or a share of what the original takes.

    Attributes:
        amount: seconds, or the share in percent.
        percent: which of the two.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    amount: Fraction
    percent: bool = False

    def share_of(self, seconds: float) -> float:
        """The bound as a share of a time."""
        return float(self.amount) / 100 if self.percent else float(self.amount) / seconds

    def __str__(self) -> str:
        if self.percent:
            return f"{float(self.amount):g}%"
        return f"{float(self.amount):g}s" if self.amount >= 1 else f"{float(1000 * self.amount):g}ms"


def _read_span(value: Any) -> Any:
    """Accept "5ms", "0.2s", "50%" or a Span; refuse what is no positive bound."""
    if value is None or isinstance(value, Span):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no time such as 5ms, and no share such as 50%")
    percent = value.strip().endswith("%")
    amount = units.parse_count(value.strip().removesuffix("%")) if percent else units.parse_duration(value)
    if amount <= 0:
        raise ValueError(f"a budget must be above zero, not {value}")
    if percent and amount > 100:
        raise ValueError(f"a budget of {value} is more than the whole model")
    return Span(amount=amount, percent=percent)


TimeBound = Annotated[
    Span | None,
    BeforeValidator(_read_span),
    PlainSerializer(lambda value: None if value is None else str(value)),
]


class Budget(BaseModel):
    """Upper bounds that hold together."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    flops: Bound = Field(None, description="multiply-adds for one sample, e.g. 1G or 50%")
    params: Bound = Field(None, description="parameters, e.g. 5M or 50%")
    latency: TimeBound = Field(None, description="time in this machine's onnxruntime, e.g. 5ms or 50%")
    threads: int | None = Field(None, ge=1, description="CPU threads that latency is measured with; 1 by default")

    @model_validator(mode="after")
    def _at_least_one(self) -> Budget:
        if self.flops is None and self.params is None and self.latency is None:
            raise ValueError("no budget was given")
        return self


def _read_align(value: Any) -> Any:
    """TOML and Python give ints, the command line gives text; both mean the same."""
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if number != "auto" and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
        raise ValueError("widths can be aligned to auto, or to a whole number from 1 on")
    return number


Align = Annotated[int | Literal["auto"], BeforeValidator(_read_align)]


def _read_texts(value: Any) -> Any:
    """One text is a list of one, in TOML and Python as on the command line."""
    return (value,) if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_read_texts)]


class Options(BaseModel):
    """How a plan is made. The seed and these settings decide the plan byte for byte."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    score: str = Field("auto", description="how informative channels and layers are: see `peel plan --help`")
    allocate: Allocator = Field(
        "auto", description="auto: several are tried where samples are given, else peel; or peel, uniform, greedy"
    )
    align: Align = Field("auto", description="widths in multiples of N; auto: 16, less in narrow groups")
    min_keep: float = Field(0.1, gt=0, le=1, description="least share of a group's channels that stays")
    ignore: Texts = Field((), description="glob patterns of layers whose width must not change")
    pool: float = Field(0.5, gt=0, lt=1, description="share of the budget that is reallocated by score")
    tau: float = Field(1.0, ge=0, description="how strongly the score decides: share = score^tau / sum")
    seed: int = Field(0, ge=0, description="seed of everything random")
    tracer: Tracer = Field("auto", description="labels, depgraph, or auto: the second where the first fails")


class Source(BaseModel):
    """Where a model comes from, and which input it takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    input: Texts = Field((), description="an input, e.g. 1,3,224,224 or ids=1x77:int64:<30522; repeatable")
    inputs: str | None = Field(None, description="function that returns example inputs: file.py:function")
    weights: str | None = Field(None, description="checkpoint for a model that was given by name or by factory")
    factory: str | None = Field(None, description="what builds the module: file.py:function or pkg.module:function")
    code: str | None = Field(None, description="Python file with the classes of a pickled module")
    trust: bool = Field(False, description="unpickle even what would run code; only for files of your own")


def _check_sizes(texts: tuple[str, ...]) -> tuple[str, ...]:
    names = [freesizes.parse(text).name for text in texts]
    if len(set(names)) < len(names) or (None in names and len(names) > 1):
        raise ValueError("each input is named once, and by its name where there are several")
    return texts


class GraphForm(BaseModel):
    """How files that hold a graph are written: .onnx, and .pt2 but for the opset."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    opset: int | None = Field(
        None,
        ge=11,
        le=999,
        description="version of operators in .onnx files, from 11 on; what torch takes by default",
    )
    dynamic: Annotated[Texts, AfterValidator(_check_sizes)] = Field(
        (), description="sizes of an input that stay open beside the batch, e.g. 2,3 or ids=1:length; repeatable"
    )


def _read_numbers(value: Any) -> Any:
    """Accept "0.485,0.456,0.406", one number, or a list of them."""
    if isinstance(value, str):
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            raise ValueError(f"{value!r} is not a list of numbers such as 0.485,0.456,0.406") from None
    return (value,) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Means = Annotated[
    tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(min_length=1), BeforeValidator(_read_numbers)
]
Deviations = Annotated[
    tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=1), BeforeValidator(_read_numbers)
]


def _read_device(value: Any) -> Any:
    """Accept a torch.device as well; this room knows no torch."""
    return str(value) if type(value).__module__ == "torch" else value


SYNTHETIC = "synthetic"
"""What stands in place of data where there is none."""


class Calibration(BaseModel):
    """What the model sees in use, how it is read, and what is done with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    data: Any | None = Field(
        None,
        description="calibration samples: a folder of images, tensor files, file.py:function, or synthetic for none",
    )
    samples: int = Field(256, ge=2, description="how many samples are used at most")
    validation: Any | None = Field(
        None, description="other samples, of the kinds of data, to judge by in place of a part of those"
    )
    image_size: int | None = Field(None, ge=1, le=16_384, description="height and width that images are brought to")
    mean: Means | None = Field(None, description="mean of each channel, taken off images in 0..1")
    std: Deviations | None = Field(None, description="deviation of each channel, by which images are divided then")
    metric: Function | None = Field(
        None, description="what judges outputs by targets, more is better: file.py:function"
    )
    repair: Repair = Field("auto", description="auto: make up for what was cut, from the samples")
    device: Annotated[str, BeforeValidator(_read_device)] = Field(
        "cpu", description="where scores and repair are computed, e.g. cuda"
    )

    @property
    def synthetic(self) -> bool:
        """Whether the user has no data."""
        return isinstance(self.data, str) and self.data == SYNTHETIC


class Settings(TypedDict, total=False):
    """The keyword arguments of the Python API; fields of Budget, Options, Source and Calibration."""

    flops: str | float | Quantity | None
    params: str | float | Quantity | None
    latency: str | Span | None
    threads: int
    score: str
    allocate: Allocator
    align: int | Literal["auto"]
    min_keep: float
    ignore: Sequence[str]
    pool: float
    tau: float
    seed: int
    tracer: Tracer
    input: Sequence[str]
    inputs: str | None
    weights: str | None
    factory: str | None
    code: str | None
    trust: bool
    opset: int | None
    dynamic: str | Sequence[str]
    data: Any
    samples: int
    validation: Any
    image_size: int | None
    mean: str | float | Sequence[float] | None
    std: str | float | Sequence[float] | None
    metric: str | Callable[[Any, Any], float] | None
    repair: Repair
    device: Any
    finetune: str | None
    rounds: int
    epochs: float | None
    steps: int | None
    batch: int
    optimizer: Literal["auto", "sgd", "adamw"]
    rate: float | None
    warmup: float
    weight_decay: float | None
    clip: float | None
    ema: float
    temperature: float
    distill: float | None
    loss: str | Callable[[Any, Any], Any] | None
    label_smoothing: float
    match: Literal["outputs", "features"]
    mixup: float
    augment: str | Sequence[str]
    precision: Literal["no", "bf16", "fp16"]
    accumulate: int
    compile: bool
    batchnorm: Literal["batch", "sync", "frozen"]
    workers: int | None
    evaluate_every: int | None
    save_every: int
    checkpoints: str | os.PathLike[str] | None
    resume: bool
    log: Literal["none", "tensorboard"]


M = TypeVar("M", bound=BaseModel)


def pick(kind: type[M], settings: Mapping[str, Any]) -> M:
    """Build one of the models above from the settings that are its fields.

    Raises:
        UsageError: a value that can't be used, in one line with the flag's name.
    """
    own = {name: value for name, value in settings.items() if name in kind.model_fields and value is not None}
    try:
        return kind.model_validate(own)
    except ValidationError as error:
        raise _usage_error(error, kind) from None


def check_names(settings: Mapping[str, Any], more: Collection[str] = ()) -> None:
    """Refuse a setting that nothing reads.

    Args:
        settings: by name.
        more: names that are known beside the fields of the models.

    Raises:
        UsageError: with the nearest name.
    """
    kinds = (Budget, Options, Source, GraphForm, Calibration, Training, Rounds)
    known = [*(name for kind in kinds for name in kind.model_fields), *more]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1) or [", ".join(known)]
            raise UsageError(f"there is no setting {name!r}", hint=f"did you mean {near[0]}?")


def _usage_error(error: ValidationError, kind: type[BaseModel]) -> UsageError:
    first = error.errors()[0]
    reason = str(first["msg"]).removeprefix("Value error, ")
    if not first["loc"]:
        return UsageError(reason, hint=_WHOLE.get(kind, "see the command's --help"))
    flag = "--" + str(first["loc"][0]).replace("_", "-")
    given = first["input"]
    texts = isinstance(given, (list, tuple)) and given and all(isinstance(text, str) for text in given)
    shown = " ".join(given) if texts else given
    return UsageError(f"{flag} {shown}: {reason}", hint=_HINTS.get(flag, "see the command's --help"))


_WHOLE: dict[type[BaseModel], str] = {
    Budget: "give --flops, e.g. --flops 50%, or --params, or --latency",
    Rounds: "write e.g. --finetune 5epochs",
    Training: "write e.g. --epochs 5, or --steps 2000",
}
_HINTS = {
    "--finetune": "write e.g. --finetune 5epochs, or --finetune 2000steps",
    "--flops": "write a count or a share of the original, e.g. --flops 1G or --flops 50%",
    "--params": "write a count or a share of the original, e.g. --params 5M or --params 50%",
    "--latency": "write a time or a share of the original's, e.g. --latency 5ms or --latency 50%",
    "--align": "write --align auto, or a whole number of channels such as --align 8",
    "--dynamic": "write dimensions, e.g. --dynamic 2,3 or --dynamic ids=1:length --dynamic mask=1:length",
    "--opset": "write a version from 11 on, e.g. --opset 17",
    "--mean": "write a number for each channel, e.g. --mean 0.485,0.456,0.406",
    "--std": "write a number above zero for each channel, e.g. --std 0.229,0.224,0.225",
}
