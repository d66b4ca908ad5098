"""Runs that are killed, interrupted, or that meet each other: what is there is whole, and the next run works."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import mutate, whole
from tests.faults.goods import LESSON, SHAPE, take
from tests.faults.judge import faults, seen

pytestmark = pytest.mark.faults

CUT = ("--flops", "50%", "--input", SHAPE)
SAMPLES = ("--data", "x.npy")
NEEDS = ("model.pt", "slim.pt", "x.npy", "model.onnx", "plan.json", "net.py", "run.json")
LONG = {
    "prune": ("prune", "model.pt", *CUT, "--data", "x.npy", "--out", "new.onnx", "--out", "new.safetensors"),
    "program": ("prune", "model.pt", *CUT, "--out", "new.pt2", "--out", "new.pt", "--out", "new.py"),
    "plan": ("plan", "model.pt", *CUT, "--data", "x.npy", "--score", "taylor", "--out", "new.json"),
    "apply": ("apply", "model.pt", "plan.json", "--data", "x.npy", "--out", "new.pt", "--out", "new.safetensors"),
    "latency": ("prune", "model.pt", "--input", SHAPE, "--latency", "90%", "--out", "new.onnx"),
    "finetune": ("finetune", "slim.pt", *LESSON, "--save-every", "1", "--resume", "--out", "new.pt"),
    "rounds": (
        "prune",
        "model.pt",
        *CUT,
        "--data",
        "x.npy",
        "--finetune",
        "8steps",
        "--batch",
        "8",
        "--resume",
        "--out",
        "new.pt",
    ),
    "sweep": (
        "sweep",
        "model.pt",
        "--input",
        SHAPE,
        "--flops",
        "90%,80%,70%,60%,50%",
        "--data",
        "x.npy",
        "--out",
        "new",
    ),
    "sweep with files": ("sweep", "model.pt", "--input", SHAPE, "--flops", "80%,60%", "--bench", "--out", "new"),
    "bench": ("bench", "model.onnx", "--seconds", "0.2"),
    "report": ("report", "run.json", "--out", "new.html", "--out", "new.json"),
}
OUTPUTS = (
    *("new", "new.finetune", "new.onnx", "new.pt", "new.pt2", "new.py", "new.safetensors", "new.json", "new.html"),
    "new.plan.json",
)
KILLS, STOPS = 4, 2


@pytest.fixture(scope="module")
def lengths(goods, station, tmp_path_factory):
    """Seconds that each command takes when nothing happens."""
    found = {}
    for name, argv in LONG.items():
        folder = tmp_path_factory.mktemp("length")
        take(NEEDS, goods, folder)
        ran = station.run(argv, folder)
        assert ran.code in (0, 1), ran  # a budget of latency may be out of reach
        found[name] = ran.seconds
    return found


def _moments(count):
    return [(name, number) for name in LONG for number in range(count)]


def _ids(part):
    return str(part).replace(" ", "_")


@pytest.mark.parametrize(("name", "number"), _moments(KILLS), ids=_ids)
def test_killed_at_any_moment(name, number, goods, tmp_path, station, lengths):
    """Kill -9: no file under a final name is half there, inputs are as they were, and the same command works then."""
    take(NEEDS, goods, tmp_path)
    before = seen(tmp_path)
    moment = mutate.chance("kill", name, number).uniform(0.02, lengths[name])
    ran = station.run(LONG[name], tmp_path, signal=(signal.SIGKILL, moment))
    assert ran.code in (-signal.SIGKILL, 0, 1)
    after = seen(tmp_path)
    assert {file: after.get(file) for file in before} == before
    assert _halves(tmp_path, before) == {}
    again = station.run(LONG[name], tmp_path)
    assert again.code in (0, 1), again
    assert _halves(tmp_path, before) == {}


def _halves(folder, before):
    """Files under a final name that are not whole; a log's last line may be cut, which reading it forgives."""
    new = [Path(file) for file in seen(folder) if file not in before and (folder / file).is_file()]
    final = [file for file in new if not file.name.startswith(".peel-") and file.name != "metrics.jsonl"]
    return {file: problem for file in final if (problem := whole.problem(folder / file))}


@pytest.mark.parametrize(("name", "number"), _moments(STOPS), ids=_ids)
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_at_any_moment(kind, name, number, goods, tmp_path, station, lengths):
    """Ctrl-C and SIGTERM: one line, and not even a temporary file is left."""
    take(NEEDS, goods, tmp_path)
    before = seen(tmp_path)
    moment = mutate.chance(kind, name, number).uniform(0.05, lengths[name])
    ran = station.run(LONG[name], tmp_path, signal=(kind, moment))
    assert ran.code in (0, 1) or "interrupted; " in ran.stderr or "interrupted after step " in ran.stderr
    if "interrupted; written before: " in ran.stderr:  # then the outputs are a finished run's
        ran = replace(ran, code=1)
    found = faults(ran, tmp_path, before, OUTPUTS)
    assert not found, f"{found}\n{ran}"


TWINS = {
    **LONG,
    "two budgets": (
        "prune",
        "model.pt",
        "--flops",
        "70%",
        "--input",
        SHAPE,
        "--out",
        "new.onnx",
        "--out",
        "new.safetensors",
    ),
}
RIVALS = [
    *((name, name) for name in LONG),
    *(("prune", "two budgets"), ("prune", "apply"), ("program", "apply"), ("sweep", "sweep with files")),
]


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("pair", RIVALS, ids=_ids)
def test_two_runs_with_the_same_output(pair, number, goods, tmp_path, station):
    """At the same time, with the same cache: each output is one run's, whole."""
    take(NEEDS, goods, tmp_path)
    before = seen(tmp_path)
    rans = station.together([TWINS[name] for name in pair], tmp_path)
    for ran in rans:
        found = faults(ran, tmp_path, before, OUTPUTS)
        assert not [told for told in found if "and ended with 2" not in told], f"{found}\n{ran}"
    assert any(ran.code in (0, 1) for ran in rans), rans
    for file in seen(tmp_path):
        if file not in before and (tmp_path / file).is_file():
            assert whole.problem(tmp_path / file) == "", file


@pytest.mark.parametrize("number", range(2))
def test_a_cache_that_many_use(number, goods, tmp_path, station):
    take(NEEDS, goods, tmp_path)
    cache = tmp_path / "cache"
    argv = ["plan", "model.pt", "--input", SHAPE, "--latency", "95%", "--out"]
    rans = station.together([[*argv, f"new{n}.json"] for n in range(4)], tmp_path, env={"XDG_CACHE_HOME": str(cache)})
    assert all(ran.code in (0, 1) for ran in rans), rans
    (kept,) = (cache / "peel" / "latency").iterdir()
    assert whole.problem(kept) == ""


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"machine": 3}', b"\xff" * 100, b"[" * 100_000])
def test_a_cache_that_is_damaged(content, goods, tmp_path, behaves):
    take(NEEDS, goods, tmp_path)
    folder = tmp_path / "cache" / "peel" / "latency"
    argv, env = (
        ["plan", "model.pt", "--input", SHAPE, "--latency", "95%", "--out", "new.json"],
        {"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert behaves(argv, ("new.json", "cache"), env=env).code in (0, 1)
    (kept,) = folder.iterdir()
    kept.write_bytes(content)
    assert behaves(argv, ("new.json", "cache"), env=env).code in (0, 1)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
@pytest.mark.parametrize("argv", ["inspect model.onnx", "inspect nowhere.pt", "report run.json"])
def test_streams_that_are_closed(argv, closed, goods, tmp_path, peel_environment):
    take(NEEDS, goods, tmp_path)
    before = seen(tmp_path)
    done = subprocess.run(
        ["bash", "-c", f"{shlex.quote(sys.executable)} -B -m peelcli {argv} {closed}"],
        cwd=tmp_path,
        env=peel_environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == (2 if "nowhere" in argv else 0)
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert seen(tmp_path) == before
