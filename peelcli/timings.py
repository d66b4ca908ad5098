"""How long models take, as the reports tell it; times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["faster", "slower", "no difference"]

SAME = 0.03  # where a file's memory lies moves its time from load to load; seen on x86: 2 %


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a time holds for.

    Attributes:
        provider: of onnxruntime, by its short name: cpu, cuda, ...
        threads: of one operator on the CPU.
        batch: samples in one call; None for the size that the files have, or 1 where they leave it open.
    """

    provider: str = "cpu"
    threads: int = 1
    batch: int | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    """How long one call of a model takes.

    Attributes:
        median: over all calls.
        low, high: the quartiles; half of the calls lie between them.
        least: the fastest call, which was disturbed least.
        calls: how many were timed.
    """

    median: float
    low: float
    high: float
    least: float
    calls: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """The time of one model over that of another, from turns that both took right after one another.

    Attributes:
        value: the median over the rounds; below 1 is faster.
        low, high: confidence interval of that median.
        confidence: of the interval, 0 to 1.
        rounds: how many pairs there were.
    """

    value: float
    low: float
    high: float
    confidence: float
    rounds: int

    @property
    def verdict(self) -> Verdict:
        """What the interval allows to say: two loads of one file may differ by SAME."""
        if self.high < 1 - SAME:
            return "faster"
        return "slower" if self.low > 1 + SAME else "no difference"


@dataclass(frozen=True, slots=True)
class Timed:
    """One file under some conditions.

    Attributes:
        ratio: to the first file; None for that one itself.
        macs: multiply-adds of one call: of its convolutions and matrix products, as they stand in the file.
        reasons: why it is not faster, or by less than its multiply-adds say; one sentence each.
    """

    path: str
    latency: Latency
    ratio: Ratio | None = None
    macs: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bench:
    """Files that took turns under the same conditions."""

    conditions: Conditions
    inputs: tuple[str, ...]
    files: tuple[Timed, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Try:
    """One plan for a budget of latency, as shares of the original's time.

    Attributes:
        predicted: from the tables of layers.
        measured: in turns with the original.
    """

    predicted: float
    measured: Ratio


@dataclass(frozen=True, slots=True)
class Pace:
    """A budget of latency, and how it was met.

    Attributes:
        asked: the budget, e.g. "50%" or "5ms".
        allowed: the share of the original's time that it is.
        before, after: of the original and of the slim model, which took turns.
        tries: plans that were made and measured, in order.
        kept: which of them is the result.
        layers: times of single layers that were measured for it; the others were known on this machine.
    """

    asked: str
    conditions: Conditions
    allowed: float
    before: Latency
    after: Latency
    tries: tuple[Try, ...]
    kept: int
    layers: int

    @property
    def ratio(self) -> Ratio:
        """Of the result."""
        return self.tries[self.kept].measured
