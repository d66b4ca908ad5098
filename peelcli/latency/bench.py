"""`peel bench`: files that take turns under several conditions, and the reasons where one is not faster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from peelcli.errors import InputError, UsageError
from peelcli.inputtext import InputSpec
from peelcli.latency import inputs, providers
from peelcli.latency.reasons import reasons, work_of
from peelcli.latency.session import Session
from peelcli.latency.turns import CONFIDENCE, SECONDS, Progress, take_turns
from peelcli.timings import Bench, Conditions, Timed


def conditions(names: Sequence[str], threads: Sequence[int], batches: Sequence[int]) -> tuple[Conditions, ...]:
    """All combinations of what was asked for.

    Args:
        names: providers; the CPU, and CUDA where onnxruntime has it, where none is given.
        threads: of an operator; 1 where none is given. Only the CPU is run with several.
        batches: batch sizes; what the files say where none is given.

    Raises:
        UsageError: a provider that is not here, or a number below 1.
    """
    for flag, numbers in (("--threads", threads), ("--batch", batches)):
        if any(number < 1 for number in numbers):
            raise UsageError(f"{flag} {min(numbers)}: at least 1 is needed")
    found = []
    for name in dict.fromkeys(providers.short(providers.full(name)) for name in names or providers.default()):
        for count in dict.fromkeys(threads if threads and name == "cpu" else (1,)):
            found += [Conditions(name, count, batch) for batch in dict.fromkeys(batches or (None,))]
    return tuple(found)


def bench(
    paths: Sequence[Path],
    where: Sequence[Conditions],
    given: Sequence[str] = (),
    seconds: float = SECONDS,
    confidence: float = CONFIDENCE,
    progress: Progress | None = None,
) -> Iterator[Bench]:
    """Time files against the first one, under one set of conditions after the other.

    Args:
        paths: ONNX files with the same inputs.
        where: conditions, each for itself.
        given: shapes that the files leave open, as `--input` takes them.
        seconds: for each file under each conditions.
        confidence: of the intervals, 0 to 1.
        progress: told (seconds gone, seconds in all).

    Raises:
        PeelError: a file can't be loaded or run, or the files do not take the same inputs.
    """
    if not paths:
        raise UsageError("there is nothing to time", hint="peel bench before.onnx after.onnx")
    shapes = inputs.read(given)
    for each in where:
        yield _under(paths, each, shapes, seconds, confidence, progress)


def _under(
    paths: Sequence[Path],
    where: Conditions,
    given: Sequence[InputSpec],
    seconds: float,
    confidence: float,
    progress: Progress | None,
) -> Bench:
    shapes = _alike([Session(path, where, given) for path in paths])
    loads = [partial(Session, path, where, given) for path in paths]
    latencies, ratios = take_turns(loads, seconds * len(paths), confidence, progress)
    told = tuple(f"{name}={'x'.join(map(str, shape))}" for name, shape in shapes.items())
    works = [work_of(path, where, given) for path in paths]
    files = tuple(
        Timed(str(path), latency, ratio, work.macs, reasons(works[0], work, ratio) if ratio else ())
        for path, latency, ratio, work in zip(paths, latencies, ratios, works, strict=True)
    )
    return Bench(where, told, files)


def _alike(sessions: Sequence[Session]) -> Mapping[str, tuple[int, ...]]:
    """The shapes of the inputs, by name; times at different ones say nothing of one another."""
    first = sessions[0]
    for other in sessions[1:]:
        if list(other.shapes.values()) != list(first.shapes.values()):
            raise InputError(
                f"{other.name} takes {_told(other)}, {first.name} takes {_told(first)}: their times can't be compared",
                hint="give one shape for both with --input, or time each alone",
            )
    return first.shapes


def _told(session: Session) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in session.shapes.items())
