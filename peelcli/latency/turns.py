"""Times of ONNX files that take turns, so that a busy machine disturbs all of them alike."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from peelcli.errors import UsageError
from peelcli.garbage import no_collection
from peelcli.latency import inputs, statistics
from peelcli.latency.session import Session
from peelcli.timings import Conditions, Latency, Ratio

Source = str | os.PathLike[str]
Progress = Callable[[int, int], None]
Load = Callable[[], Session]

SECONDS = 5.0  # for all files together, without warming up
_LOADS = 3
_ROUNDS = (statistics.LEAST_ROUNDS // _LOADS, 66)  # the fewest and the most after each load
_SLICE = 0.01  # seconds of a turn: short, so that what disturbs one file disturbs the next one too
_MOST_CALLS = 50  # of one file in one turn
_WARM_SECONDS, _WARM_CALLS = 0.3, 3
CONFIDENCE = 0.95


def measure(
    path: Source, conditions: Conditions | None = None, given: Sequence[str] = (), seconds: float = SECONDS
) -> Latency:
    """How long one call of an ONNX file takes in onnxruntime.

    Args:
        path: the file.
        conditions: provider, threads and batch size; one CPU thread where nothing is said.
        given: shapes that the file leaves open, as `--input` takes them.
        seconds: how long to measure.

    Raises:
        PeelError: the file can't be loaded or run; the message says why.
    """
    shapes = inputs.read(given)
    return take_turns([lambda: Session(Path(path), conditions or Conditions(), shapes)], seconds)[0][0]


def compare(
    before: Source,
    after: Source,
    conditions: Conditions | None = None,
    given: Sequence[str] = (),
    seconds: float = SECONDS,
) -> tuple[Latency, Latency, Ratio]:
    """How long two ONNX files take, and the time of the second over that of the first.

    Args and errors are those of `measure`.
    """
    where, shapes = conditions or Conditions(), inputs.read(given)
    loads = [partial(Session, Path(path), where, shapes) for path in (before, after)]
    (first, second), (_, ratio) = take_turns(loads, seconds)
    assert ratio is not None, "only the first has none"
    return first, second, ratio


def take_turns(
    loads: Sequence[Load],
    seconds: float = SECONDS,
    confidence: float = CONFIDENCE,
    progress: Progress | None = None,
) -> tuple[tuple[Latency, ...], tuple[Ratio | None, ...]]:
    """Time several models, interleaved.

    In each round every model has one turn of some calls, in an order that changes. A round's figure of a model is its
    fastest call in it, so that a call that was disturbed does not count; ratios are taken within rounds. All models
    are loaded anew some times, because where their weights happen to lie moves a time by a few percent.

    Args:
        loads: the models; the first is the one that others are compared with.
        seconds: for all together; there are 9 rounds at least, and 200 at most.
        confidence: of the intervals.
        progress: told (seconds gone, seconds in all).

    Returns:
        A Latency for each model over all its calls, and its Ratio to the first, None for that itself.
    """
    rounds: list[list[list[float]]] = []
    for number in range(_LOADS):
        told = partial(_tell, progress, number * seconds / _LOADS, seconds)
        rounds += _turns([load() for load in loads], seconds / _LOADS, told)
    least = _seen(rounds)
    latencies = tuple(statistics.latency([call for turns in rounds for call in turns[k]]) for k in range(len(loads)))
    ratios = tuple(
        statistics.ratio([(turns[0], turns[k]) for turns in least], confidence) if k else None
        for k in range(len(loads))
    )
    return latencies, ratios


def _seen(rounds: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """The fastest call of each turn; a clock that moves in steps shows some calls as none, which say nothing.

    Raises:
        UsageError: it shows too few.
    """
    least = [[min((call for call in turn if call > 0), default=0.0) for turn in turns] for turns in rounds]
    seen = [turns for turns in least if all(turns)]
    if 2 * len(seen) < len(least):
        raise UsageError("a call takes less time than the clock of this machine shows", hint="time a larger input")
    return seen


def _tell(progress: Progress | None, before: float, whole: float, gone: float) -> None:
    if progress:
        progress(round(min(before + gone, whole)), max(1, round(whole)))


def _turns(sessions: Sequence[Session], seconds: float, tell: Callable[[float], None]) -> Iterator[list[list[float]]]:
    """For each round, for each model the seconds of its calls."""
    calls = [_warmed(session) for session in sessions]
    start, number = time.perf_counter(), 0
    with no_collection():
        while number < _ROUNDS[0] or (number < _ROUNDS[1] and time.perf_counter() - start < seconds):
            turns: list[list[float]] = [[] for _ in sessions]
            for k in _order(len(sessions), number):
                turns[k] = [sessions[k].call() for _ in range(calls[k])]
            number += 1
            tell(time.perf_counter() - start)
            yield turns


def _order(count: int, number: int) -> list[int]:
    """Who goes when in a round: each model is first, second, ... equally often, and after each other one."""
    start = (number // 2) % count
    order = [(start + k) % count for k in range(count)]
    return order if number % 2 == 0 else order[::-1]


def _warmed(session: Session) -> int:
    """Call a model until it is warm; returns how many calls a turn has."""
    start, least, done = time.perf_counter(), float("inf"), 0
    while done < _WARM_CALLS or (done < _MOST_CALLS and time.perf_counter() - start < _WARM_SECONDS):
        least = min(least, session.call())
        done += 1
    return max(2, min(_MOST_CALLS, round(_SLICE / max(least, 1e-9))))
