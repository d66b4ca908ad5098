"""What a run leaves to go on from: whole, or the last one that was."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from peelcli.errors import ExportError, SourceError, UsageError
from peelcli.training import checkpoint
from peelcli.training.checkpoint import Checkpoint
from peelcli.training.log import Log, require


def at(step):
    weights = {"w": torch.full((3,), float(step))}
    return Checkpoint({"--batch": "64"}, step, weights, weights, {"state": {}}, None, [{"step": 0}], [0.5], None)


def test_what_is_written_is_read(tmp_path):
    assert checkpoint.read(tmp_path) is None
    checkpoint.write(tmp_path, at(7))
    found = checkpoint.read(tmp_path)
    assert (found.step, found.curve, found.best) == (7, [{"step": 0}], None)
    assert torch.equal(found.weights["w"], torch.full((3,), 7.0))
    checkpoint.remove(tmp_path)
    assert checkpoint.read(tmp_path) is None


def test_a_full_disk_keeps_the_one_before(tmp_path, monkeypatch):
    checkpoint.write(tmp_path, at(1))

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match="the disk is full"):
        checkpoint.write(tmp_path, at(2))
    assert checkpoint.read(tmp_path).step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_damaged_one_is_said(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(SourceError, match=r"checkpoint\.pt can't be read"):
        checkpoint.read(tmp_path)


def test_another_run_s_is_refused_with_all_that_differs(tmp_path):
    with pytest.raises(UsageError, match=r"--batch was 64 and is 32, the samples differ$"):
        checkpoint.check_same({"--batch": "32", "the samples": "f" * 64}, at(1), tmp_path)
    there = replace(at(1), identity={"steps": "30", "the original": "a"})
    with pytest.raises(UsageError, match="steps were 30 and are 40, the original was a and is b"):
        checkpoint.check_same({"steps": "40", "the original": "b"}, there, tmp_path)
    checkpoint.check_same({"--batch": "64"}, at(1), tmp_path)


def test_a_log_goes_on_where_the_checkpoint_is(tmp_path):
    log = Log(tmp_path, "none", 0)
    for step in (1, 2, 3):
        log.add(step, {"loss": float(step), "kl": None})
    log.close(3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed in the middle of a line
    log = Log(tmp_path, "none", 2)
    log.add(3, {"loss": 9.0})
    log.close(3)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert lines == ['{"step": 1, "loss": 1.0}', '{"step": 2, "loss": 2.0}', '{"step": 3, "loss": 9.0}']


def test_figures_go_to_tensorboard_too(tmp_path, monkeypatch):
    """The package is no dependency: a writer of the same form takes what it would be given."""
    told = []
    writer = SimpleNamespace(add_scalar=lambda *values: told.append(values), close=lambda: told.append("closed"))
    module = SimpleNamespace(SummaryWriter=lambda folder, purge_step: told.append((folder, purge_step)) or writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    log = Log(tmp_path, "tensorboard", 4)
    log.add(5, {"loss": 1.0, "kl": None})
    log.close(5)
    assert told == [(str(tmp_path / "tensorboard"), 5), ("loss", 1.0, 5), "closed"]


def test_without_tensorboard_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="needs TensorBoard"):
        require("tensorboard")
    require("none")


def test_a_log_that_can_t_be_written_ends_and_training_goes_on(tmp_path):
    log = Log(tmp_path, "none", 0)
    log._file.close()
    log._file = open("/dev/full", "w")  # noqa: PTH123, SIM115
    log.add(1, {"loss": 1.0})
    log.flush(1)
    log.add(2, {"loss": 1.0})
    log.close(2)
    assert log.notes == ["metrics.jsonl ends before step 1: no space left on device"]
