"""Where the points of a sweep are worked on: in this process, in several, or on several machines through Ray."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from peelcli.config import Budget
from peelcli.errors import PeelError, UsageError
from peelcli.points import Point
from peelcli.sweeps.work import Files, Task, Workplace, workplace

Wanted = tuple[Budget, str]  # a budget, and how its files are called
Made = tuple[str, Point, Files]  # label, point, its files
LOCAL = "local"

_places: dict[str, Workplace] = {}  # of this worker process, by task


def in_this_process(place: Workplace, wanted: Sequence[Wanted]) -> Iterator[Made]:
    """One after the other."""
    for budget, label in wanted:
        yield (label, *place.make(budget, label))


def in_processes(task: Task, wanted: Sequence[Wanted], jobs: int) -> Iterator[Made]:
    """Several at a time, each process with its own copy of the model; in the order in which they get done.

    Raises:
        PeelError: a worker died, or its model can't be loaded again.
    """
    before = set(multiprocessing.active_children())
    with tempfile.TemporaryDirectory(prefix="peel-") as folder:
        path = Path(folder, "task")
        path.write_bytes(pickle.dumps(task))
        threads = max(1, (os.cpu_count() or 1) // jobs)
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(jobs, context, _start, (threads,))
        try:
            futures = [pool.submit(_make, str(path), *one) for one in wanted]
            for future in as_completed(futures):
                yield future.result()
            pool.shutdown()
        except BrokenProcessPool as error:
            raise PeelError(
                "a worker process was ended from outside, perhaps for lack of memory; what was done is kept",
                hint="run the same command again with fewer --jobs",
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()


def through_ray(task: Task, wanted: Sequence[Wanted], address: str) -> Iterator[Made]:
    """On the machines of a Ray cluster; each must see the model and the samples under the same paths.

    Args:
        task: the shared part.
        wanted: the points.
        address: of a running cluster, e.g. "auto" or "ray://head:10001"; "local" starts one here.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
    """
    ray = _ray()
    try:
        ray.init(
            None if address == LOCAL else address, log_to_driver=False, logging_level="ERROR", configure_logging=False
        )
    except Exception as error:  # ConnectionError, RuntimeError and what its client raises
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(
            f"there is no Ray cluster at {address}: {lines[0][:200]}",
            hint="start one with `ray start --head`, or use --ray local, or --jobs without Ray",
        ) from error
    try:
        shared = ray.put(pickle.dumps(task))
        remote = ray.remote(_make_remote)
        waiting = [remote.remote(shared, *one) for one in wanted]
        while waiting:
            done, waiting = ray.wait(waiting)
            yield _fetched(ray, done[0])
    finally:
        ray.shutdown()


def _fetched(ray: Any, reference: Any) -> Made:
    try:
        made: Made = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, PeelError):
            raise PeelError(cause.message, hint=cause.hint or "every machine must see the same files") from error
        raise
    except ray.exceptions.RayError as error:
        raise PeelError(
            f"a Ray worker was lost: {str(error).strip().splitlines()[0][:200]}",
            hint="run the same command again: what was done is kept",
        ) from error
    return made


def _ray() -> Any:
    if importlib.util.find_spec("ray") is None:
        raise UsageError("--ray needs the package ray", hint="pip install 'peelcli[sweep]', or use --jobs")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    import ray

    return ray


# --- inside a worker


def _start(threads: int) -> None:
    """Set a worker up: few threads, no words on stdout, and no life without its parent."""
    import torch

    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells
    sys.stdout = sys.stderr
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)


def _make(path: str, budget: Budget, label: str) -> Made:
    if path not in _places:
        _places[path] = _plainly(pickle.loads(Path(path).read_bytes()))
    return (label, *_places[path].make(budget, label))


def _make_remote(pickled: bytes, budget: Budget, label: str) -> Made:
    """The same on a machine that has no file of the task."""
    key = str(hash(pickled))
    with contextlib.redirect_stdout(sys.stderr):
        if key not in _places:
            _places[key] = _plainly(pickle.loads(pickled))
        return (label, *_places[key].make(budget, label))


def _plainly(task: Task) -> Workplace:
    """Load the model; errors as plain ones, which other processes can read."""
    try:
        return workplace(task)
    except PeelError as error:
        raise PeelError(error.message, hint=error.hint) from None
