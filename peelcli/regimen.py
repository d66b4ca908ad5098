"""How a slim model is trained, as settings: one spelling for flag, TOML key and Python argument."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator


def _read_ways(value: Any) -> Any:
    """Accept "flip,shift" or a list of names."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _as_text(function: Any) -> Any:
    """A function by its name, which is the same in every process; text as it is."""
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}:{kind.__qualname__}" if callable(function) else function


MOST_WORKERS = 256  # processes; more would only bring the machine to its knees
MOST_STEPS = 1_000_000_000  # and samples a step: what is larger overflows in the arithmetic on it
Amount = Annotated[float, Field(le=1e6, allow_inf_nan=False)]  # far above all that is of use, and far from overflow
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Ways = Annotated[tuple[Literal["flip", "shift", "crop"], ...], BeforeValidator(_read_ways)]

Function = Annotated[str | Callable[..., Any], PlainSerializer(_as_text)]  # file.py:function, or in Python itself


class Training(BaseModel):
    """How a slim model is trained. The seed and these settings decide a run on the CPU bit for bit."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    epochs: Amount | None = Field(None, gt=0, description="how often all samples are seen")
    steps: int | None = Field(
        None, ge=1, le=MOST_STEPS, description="how many batches are learned from, instead of --epochs"
    )
    batch: int = Field(64, ge=1, le=MOST_STEPS, description="samples a step, over all processes")
    optimizer: Literal["auto", "sgd", "adamw"] = Field("auto", description="auto: sgd with BatchNorm, else adamw")
    rate: Amount | None = Field(None, gt=0, description="learning rate after warm-up; by optimizer and batch")
    warmup: Share = Field(0.1, description="share of the steps in which the rate rises; then it falls as a cosine")
    weight_decay: Amount | None = Field(None, ge=0, description="of matrices and kernels; by optimizer")
    clip: Amount | None = Field(None, gt=0, description="most that the norm of the gradients may be")
    ema: Share = Field(0.98, lt=1, description="decay of the running average of weights, which is kept")
    temperature: Amount = Field(4.0, gt=0, description="by which class scores are divided before they are compared")
    distill: Share | None = Field(None, description="weight of the original's answers; the rest is that of labels")
    loss: Function | None = Field(None, description="in place of cross entropy on labels: file.py:function")
    label_smoothing: Share = Field(0.1, lt=1, description="share of a label spread over all classes")
    match: Literal["outputs", "features"] = Field("outputs", description="features: layers inside are matched too")
    mixup: Amount = Field(0.0, ge=0, description="samples are blended in pairs, by shares from Beta(N, N)")
    augment: Ways = Field((), description="images are changed each time: flip, shift, crop")
    precision: Literal["no", "bf16", "fp16"] = Field("no", description="of the arithmetic; no: as the weights are")
    accumulate: int = Field(1, ge=1, description="parts that a batch is computed in, for less memory")
    compile: bool = Field(False, description="run the slim model through torch.compile")
    batchnorm: Literal["batch", "sync", "frozen"] = Field(
        "batch", description="statistics in training: of each process's batch, of all together, or as they are"
    )
    workers: int | None = Field(
        None, ge=0, le=MOST_WORKERS, description="processes that read samples; none for samples in memory"
    )
    evaluate_every: int | None = Field(None, ge=1, description="steps between looks at held-out samples; an epoch")
    save_every: int = Field(100, ge=1, description="steps between checkpoints")
    checkpoints: Path | None = Field(None, description="folder for checkpoints and metrics.jsonl")
    resume: bool = Field(False, description="go on from the folder's checkpoint")
    log: Literal["none", "tensorboard"] = Field("none", description="where figures go beside metrics.jsonl")

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("say how long to train: --epochs or --steps, one of them")
        return self


class Length(BaseModel):
    """How long to train."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    epochs: float | None = None
    steps: int | None = None


def _read_length(value: Any) -> Any:
    """Accept "5epochs", "0.5epochs", "2000steps", or a number of epochs."""
    if value is None or isinstance(value, Length):
        return value
    written = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(epochs?|steps?)?", str(value).strip())
    amount = float(written[1]) if written else 0.0
    in_steps = written is not None and (written[2] or "").startswith("step")
    if amount <= 0 or (in_steps and not amount.is_integer()):
        raise ValueError(f"{value!r} is no length of training such as 5epochs or 2000steps")
    return Length(steps=int(amount)) if in_steps else Length(epochs=amount)


class Rounds(BaseModel):
    """Whether pruning is followed by training, and in how many rounds of both the budget is reached."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    finetune: Annotated[Length | None, BeforeValidator(_read_length)] = Field(
        None, description="train the slim model afterwards, e.g. 5epochs or 2000steps"
    )
    rounds: int = Field(1, ge=1, description="prune and train in so many rounds; the training is shared among them")

    @model_validator(mode="after")
    def _of_training(self) -> Rounds:
        if self.rounds > 1 and self.finetune is None:
            raise ValueError(f"--rounds {self.rounds} trains between the cuts, and --finetune says for how long")
        return self
