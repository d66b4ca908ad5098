"""The gate of `peel report`: bounds on a model's figures, and which of them hold. Names and numbers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from peelcli import config, units
from peelcli.errors import UsageError
from peelcli.footprint import Footprint

_SHARES = ("accuracy",)  # metrics that are shares; their drop is told in percentage points
_COUNTS = (("macs", "multiply-adds"), ("params", "parameters"), ("bytes", "the file's size"),
           ("peak_bytes", "the memory of activations"))  # fmt: skip
_ANY = "metric"  # a name under which --max-drop means whatever metric there is


class Ceiling(BaseModel):
    """The most that a figure may be: an amount, or a share of the first model's own figure."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    amount: Fraction
    percent: bool
    text: str = Field(description="as it was given")

    def __str__(self) -> str:
        return self.text


def _ceiling(parse: Callable[[str], Fraction]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if value is None or isinstance(value, Ceiling):
            return value
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError(f"{value!r} is no bound")
        text = str(value).strip()
        percent = text.endswith("%")
        amount = units.parse_count(text.removesuffix("%")) if percent else parse(text)
        if amount <= 0:
            raise ValueError(f"a bound must be above zero, not {text}")
        return Ceiling(amount=amount, percent=percent, text=text)

    return read


def _share(value: Any) -> Any:
    """A share as 0.95 or 95%."""
    if isinstance(value, str):
        text = value.strip()
        try:
            value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            raise ValueError(f"{text!r} is not a share such as 0.95 or 95%") from None
    return value


def _percent(value: Any) -> Any:
    """A percentage as "1%"."""
    text = str(value).strip()
    try:
        return float(text.removesuffix("%")) / 100 if text.endswith("%") else _no_percentage(text)
    except ValueError:
        return _no_percentage(text)


def _no_percentage(text: str) -> float:
    raise ValueError(f"{text!r} is not a percentage such as 1%")


def _drops(value: Any) -> Any:
    """["accuracy=0.5"], "accuracy=0.5" or {"accuracy": 0.5}."""
    if isinstance(value, Mapping):
        return {str(name): amount for name, amount in value.items()}
    drops: dict[str, float] = {}
    for entry in value if isinstance(value, (list, tuple)) else [value]:
        name, sign, amount = str(entry).partition("=")
        try:
            number = float(amount)
        except ValueError:
            number = math.nan
        if not sign or not name.strip() or not math.isfinite(number):
            raise ValueError(f"{entry!r} is not a metric with a number, such as accuracy=0.5")
        if drops.setdefault(name.strip(), number) != number:
            raise ValueError(f"{name.strip()} is bounded twice: by {drops[name.strip()]:g} and by {number:g}")
    return drops


Count = Annotated[Ceiling | None, BeforeValidator(_ceiling(units.parse_count))]
Size = Annotated[Ceiling | None, BeforeValidator(_ceiling(units.parse_size))]
Time = Annotated[Ceiling | None, BeforeValidator(_ceiling(units.parse_milliseconds))]
Share = Annotated[float, Field(ge=0, le=1), BeforeValidator(_share)]
Percent = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_percent)]
Drop = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Bounds(BaseModel):
    """What must hold; every field is a flag of `peel report` and a key of [tool.peel.report]."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_flops: Count = Field(None, description="multiply-adds for one sample, e.g. 1G, or 50% of the first model's")
    max_params: Count = Field(None, description="parameters, e.g. 5M or 50%")
    max_size: Size = Field(None, description="the file's size, e.g. 10MB or 50%")
    max_latency: Time = Field(None, description="median time of one inference, e.g. 5ms or 50%")
    min_agreement: Share | None = Field(None, description="share of samples with the original's top class")
    max_drop: Annotated[dict[str, Drop], BeforeValidator(_drops)] = Field({}, description="metric=amount")
    against: str | None = Field(None, description="a report, a run's record or a model to be no worse than")
    max_regress: Percent | None = Field(None, description="how much worse, e.g. 1%")

    def __bool__(self) -> bool:
        return any(value not in (None, {}) for value in self.model_dump().values())


@dataclass(frozen=True, slots=True)
class Verdict:
    """One bound, and what was measured.

    Attributes:
        bound: as it was given, e.g. "--max-flops 1G".
        figure: which figure of the model it bounds.
        value: what was measured.
        limit: the most, or for shares and metrics the least, that it may be.
        ok: whether it holds.
        told: both in one line, for people.
    """

    bound: str
    figure: str
    value: float
    limit: float
    ok: bool
    told: str


def check_settings(settings: Mapping[str, Any]) -> Bounds:
    """The bounds among settings.

    Raises:
        UsageError: a bound that can't be used, or that needs another one.
    """
    unknown = sorted(set(settings) - set(Bounds.model_fields))
    if unknown:
        raise UsageError(f"there is no bound {unknown[0]!r}", hint=f"known are {', '.join(Bounds.model_fields)}")
    bounds = config.pick(Bounds, settings)
    if bounds.max_regress is not None and bounds.against is None:
        raise UsageError("--max-regress needs something to compare with", hint="add --against baseline.json")
    return bounds


def judge(bounds: Bounds, models: Sequence[Footprint], baseline: Footprint | None) -> tuple[Verdict, ...]:
    """Every bound against the last model's figures.

    Args:
        bounds: what must hold.
        models: the first is what shares are of.
        baseline: what `against` names.

    Raises:
        UsageError: a figure is not known that a bound is on; a gate never passes because nobody looked.
    """
    found = [*_ceilings(bounds, models[0], models[-1]), *_fidelity(bounds, models)]
    if baseline is not None:
        found += _regressions(baseline, models[-1], bounds.max_regress or 0.0)
    missing = [verdict for verdict in found if isinstance(verdict, str)]
    if missing:
        raise UsageError("; ".join(missing), hint="bound what is known, or give the record of a run that holds it")
    return tuple(verdict for verdict in found if isinstance(verdict, Verdict))


Found = Iterator["Verdict | str"]  # a string: what is missing


def _ceilings(bounds: Bounds, first: Footprint, model: Footprint) -> Found:
    figures = (
        ("max_flops", "macs", "multiply-adds", _si),
        ("max_params", "params", "parameters", _si),
        ("max_size", "bytes", "file size", units.file_size),
        ("max_latency", "latency_ms", "latency", units.milliseconds),
    )
    for setting, figure, label, written in figures:
        ceiling: Ceiling | None = getattr(bounds, setting)
        if ceiling is None:
            continue
        flag = f"--{setting.replace('_', '-')}"
        value, whole = getattr(model, figure), getattr(first, figure)
        if value is None:
            yield f"{flag}: the {label} of {model.name} is not known"
        elif ceiling.percent and (model is first or whole is None):
            yield f"{flag} {ceiling}: there is no original with a known {label} that this could be a share of"
        else:
            limit = float(ceiling.amount * Fraction(whole) / 100 if ceiling.percent else ceiling.amount)
            told = f"{label} {_exact(value, limit, written)}"
            if figure == "macs" and model.unknown and value <= limit:
                yield _in_part(flag, model)
                continue
            yield Verdict(f"{flag} {ceiling}", figure, value, limit, value <= limit, told)


def _in_part(flag: str, model: Footprint) -> str:
    return f"{flag}: the multiply-adds of {', '.join(model.unknown)} in {model.name} are not known"


def _si(value: float) -> str:
    return units.si(value).strip()


def _exact(value: float, limit: float, written: Callable[[Any], str]) -> str:
    """Both figures; in full where rounding would make them look equal."""
    short = written(value), written(round(limit))
    if short[0] == short[1] and value != limit:
        short = f"{value:,}", f"{limit:,.0f}" if limit == int(limit) else f"{limit:,}"
    return f"{short[0]}, at most {short[1]}"


def _fidelity(bounds: Bounds, models: Sequence[Footprint]) -> Found:
    model = models[-1]
    if bounds.min_agreement is not None:
        if model.agreement is None:
            yield f"--min-agreement: {model.name} was not compared with its original on samples"
        else:
            value, least = model.agreement, bounds.min_agreement
            told = f"top-1 agreement {value:.2%}, at least {least:.2%}"
            yield Verdict(f"--min-agreement {least:g}", "agreement", value, least, value >= least, told)
    original = next((one for one in models[:-1] if one.metric and one.metric == model.metric), None)
    for name, most in bounds.max_drop.items():
        known = original is not None and name in (model.metric, _ANY)
        if not known or original is None or original.metric_value is None or model.metric_value is None:
            held = f"holds {model.metric}" if model.metric else "holds no metric"
            yield f"--max-drop {name}={most:g}: {model.name} {held}"
            continue
        scale = 100 if _is_share(model.metric, original.metric_value, model.metric_value) else 1
        drop = (original.metric_value - model.metric_value) * scale
        points = " percentage points" if scale == 100 else ""
        told = f"{model.metric} fell by {drop:.4g}{points}, at most {most:g}"
        least = original.metric_value - most / scale
        yield Verdict(
            f"--max-drop {name}={most:g}", "metric_value", model.metric_value, least, drop <= most + 1e-9, told
        )


def _is_share(metric: str, *values: float) -> bool:
    return metric in _SHARES and all(0 <= value <= 1 for value in values)


def _regressions(baseline: Footprint, model: Footprint, most: float) -> Found:
    """Costs may rise by a share of the baseline's, shares and metrics fall by one."""
    flag = f"--max-regress {100 * most:g}%"
    for figure, label in _COUNTS:
        value, before = getattr(model, figure), getattr(baseline, figure)
        if value is None or before is None or (figure == "peak_bytes" and model.kind != baseline.kind):
            continue  # a file's memory follows another order than a module's
        if figure == "macs" and (model.unknown or baseline.unknown):
            yield _in_part(flag, model if model.unknown else baseline)
            continue
        limit = before * (1 + most)
        change = f"{(value - before) / before:+.2%}" if before else "of 0"
        told = f"{label} {value:,} against {before:,} ({change}), at most {100 * most:+g} %"
        yield Verdict(flag, figure, value, limit, value <= limit, told)
    for figure, label in (("agreement", "top-1 agreement"), ("metric_value", model.metric)):
        value, before = getattr(model, figure), getattr(baseline, figure)
        if value is None or before is None or (figure == "metric_value" and baseline.metric != model.metric):
            continue
        limit = before - abs(before) * most
        told = f"{label} {value:.4g} against {before:.4g}, at least {limit:.4g}"
        yield Verdict(flag, figure, value, limit, value >= limit, told)
