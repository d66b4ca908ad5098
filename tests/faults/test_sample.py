"""A few faults of each kind, in every run of the tests; and that the fork server tells what the real command does."""

from __future__ import annotations

import pytest
import torch

from tests.faults.judge import faults, seen
from tests.support.lessons import network

SHAPE = ("--input", "1,1,8,8")
CASES = {
    "good": (b"", ("inspect", "model.pt", *SHAPE), 0),
    "plan": (b"", ("plan", "model.pt", *SHAPE, "--flops", "50%", "--out", "new.json"), 0),
    "cut": (b"PK\x03\x04", ("inspect", "bad.pt"), 2),
    "runs code": (b"cos\nsystem\n(S'touch exploded'\ntR.", ("inspect", "bad.pt"), 2),
    "deep JSON": (b"[" * 100_000, ("report", "bad.json"), 2),
    "deep TOML": (b"a = " + b"[" * 10_000, ("plan", "model.pt", "--config", "bad.toml"), 2),
    "escapes": (b"", ("inspect", "\x1b[31m\u202e.pt"), 2),
    "long name": (b"", ("inspect", "a" * 5000), 2),
    "huge input": (b"", ("inspect", "model.pt", "--input", "1,1,99999999,99999999"), 2),
    "negative": (b"", ("plan", "model.pt", "--flops", "50%", "--seed", "-1"), 2),
    "no budget": (b"", ("prune", "model.pt", "--out", "new.onnx"), 2),
    "array of code": (
        b"\x93NUMPY\x01\x00\x10\x00{'descr': '|O', ",
        ("plan", "model.pt", "--flops", "1", "--data", "bad.npy"),
        2,
    ),
}


@pytest.fixture
def folder(tmp_path):
    torch.save(network(), tmp_path / "model.pt")
    return tmp_path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.replace(" ", "_"))
def test_every_command_behaves(case, folder, station):
    content, argv, code = CASES[case]
    for suffix in ("pt", "json", "toml", "npy"):
        (folder / f"bad.{suffix}").write_bytes(content)
    before = seen(folder)
    ran = station.run(argv, folder)
    assert faults(ran, folder, before, ("new.json",)) == [], ran
    assert ran.code == code, ran


@pytest.mark.faults
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.replace(" ", "_"))
def test_the_fork_server_tells_what_the_real_command_does(case, folder, station, run_peel):
    content, argv, _ = CASES[case]
    (folder / "bad.pt").write_bytes(content)
    forked, plan = station.run(argv, folder), folder / "new.json"
    made = plan.read_bytes() if plan.exists() else b""
    plan.unlink(missing_ok=True)
    real = run_peel(*argv, cwd=folder)
    assert (forked.code, forked.stderr) == (real.returncode, real.stderr)
    assert made == (plan.read_bytes() if plan.exists() else b"")
