"""Pickled modules and slim weights: what is read is what was written, or nothing was."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from peelcli import files, plans
from peelcli.errors import CheckFailed, ExportError, PlanError, SourceError
from peelcli.export import safetensors, targets
from tests.export.conftest import subject_of


def write(subject, plan, costs, path):
    artifacts, checks = targets.write(subject, plan, costs, [path])
    return artifacts, {check.name: check for check in checks}


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


# --- .pt --------------------------------------------------------------------------------------------------------------


def test_the_whole_module_comes_back(plan, costs, tmp_path):
    subject = subject_of(small().train())
    (artifact,), checks = write(subject, plan, costs, tmp_path / "slim.pt")
    assert (artifact.kind, artifact.bytes) == ("pt", (tmp_path / "slim.pt").stat().st_size)
    check = checks["pt_reload"]
    assert (check.ok, check.value, check.tolerance, check.note) == (True, 0.0, 0.0, "")
    again = torch.load(tmp_path / "slim.pt", weights_only=False)
    assert again.training
    inputs = torch.randn(2, 3, 8, 8)
    assert torch.equal(again.eval()(inputs), subject.module.eval()(inputs))


def test_a_fresh_process_loads_it(plan, costs, tmp_path, peel_environment):
    write(subject_of(small()), plan, costs, tmp_path / "slim.pt")
    code = "import sys, torch; print(torch.load(sys.argv[1], weights_only=False)[0].out_channels)"
    command = [sys.executable, "-c", code, str(tmp_path / "slim.pt")]
    assert subprocess.run(command, env=peel_environment, capture_output=True, text=True, timeout=60).stdout == "4\n"


def test_classes_that_no_package_brings_are_named(conv_net, plan, costs, tmp_path):
    _, checks = write(conv_net, plan, costs, tmp_path / "slim.pt")
    kind = type(conv_net.module)
    assert checks["pt_reload"].ok
    assert checks["pt_reload"].note == f"to load it, {kind.__module__}.ConvNet must be importable"


def test_a_module_that_draws_random_numbers_reloads_as_the_same(plan, costs, tmp_path):
    module = nn.Sequential(nn.Linear(4, 4), nn.RReLU())
    _, checks = write(subject_of(module, torch.randn(2, 4)), plan, costs, tmp_path / "slim.pt")
    assert checks["pt_reload"].ok


def test_what_can_not_be_pickled_is_one_line(plan, costs, tmp_path):
    module = small()
    module.act = lambda x: x
    with pytest.raises(ExportError, match=r"^the module can't be pickled: .*lambda") as caught:
        write(subject_of(module), plan, costs, tmp_path / "slim.pt")
    assert ".safetensors" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def zeroed(module):
    nn.init.zeros_(module[0].weight)
    return module


@pytest.mark.parametrize("change", [zeroed, lambda module: nn.Sequential(*module, nn.BatchNorm2d(4))])
def test_a_file_that_loads_as_another_model_is_not_kept(plan, costs, tmp_path, monkeypatch, change):
    real = torch.load
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: change(real(*arguments, **options)))
    with pytest.raises(CheckFailed, match=r"slim.pt loads again as another model \(difference .*, nothing was written"):
        write(subject_of(small()), plan, costs, tmp_path / "slim.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_load_is_not_kept(plan, costs, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise ModuleNotFoundError("No module named 'train'")

    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(CheckFailed, match=r"slim.pt does not load again: No module named 'train', nothing was written"):
        write(subject_of(small()), plan, costs, tmp_path / "slim.pt")
    assert list(tmp_path.iterdir()) == []


# --- .safetensors -----------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    """One matrix under two names, and one that is a view of a larger tensor."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4, bias=False)
        self.outer = nn.Linear(4, 4, bias=False)
        self.outer.weight = self.inner.weight
        self.register_buffer("view", torch.arange(12.0).reshape(3, 4)[:, 1:3])
        self.register_buffer("empty", torch.zeros(0))
        self.register_buffer("empty_too", torch.zeros(0))

    def forward(self, x):
        return self.outer(self.inner(x))


def test_weights_and_plan_come_back_and_tied_ones_are_stored_once(plan, costs, tmp_path):
    subject = subject_of(Tied(), torch.randn(2, 4))
    artifacts, checks = write(subject, plan, costs, tmp_path / "slim.safetensors")
    assert [(a.path, a.kind) for a in artifacts] == [
        (str(tmp_path / "slim.safetensors"), "safetensors"),
        (str(tmp_path / "slim.plan.json"), "plan"),
    ]
    assert [a.bytes for a in artifacts] == [(tmp_path / a.path).stat().st_size for a in artifacts]
    assert (checks["safetensors_reload"].ok, checks["safetensors_reload"].value) == (True, 0.0)
    assert sorted(load_file(tmp_path / "slim.safetensors")) == ["empty", "empty_too", "inner.weight", "view"]

    found, tensors = safetensors.read_slim(tmp_path / "slim.safetensors")
    assert found == plan == plans.read(tmp_path / "slim.plan.json")
    fresh = Tied()
    fresh.load_state_dict(tensors)
    for name, value in subject.module.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value)


def test_the_figures_are_in_the_header(conv_net, plan, costs, tmp_path):
    write(conv_net, plan, costs, tmp_path / "slim.safetensors")
    content = (tmp_path / "slim.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    assert header["format"] == "pt"
    assert header["peel.macs"] == "990"
    assert json.loads(header["peel.budget"]) == {"macs": 1000, "thop_macs": 1100}


def test_others_may_read_the_file_as_they_may_read_any(conv_net, plan, costs, tmp_path):
    write(conv_net, plan, costs, tmp_path / "slim.safetensors")
    (tmp_path / "other").touch()
    assert (tmp_path / "slim.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_same_weights_give_the_same_bytes(conv_net, plan, costs, tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        write(conv_net, plan, costs, tmp_path / name)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert (tmp_path / "a.plan.json").read_bytes() == (tmp_path / "b.plan.json").read_bytes()


def test_a_state_that_is_no_tensor_is_refused(plan, costs, tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"scale": 3}

        def set_extra_state(self, state):
            pass

    with pytest.raises(ExportError, match="the state dict's _extra_state is no tensor but dict"):
        write(subject_of(Extra(2, 2), torch.randn(1, 2)), plan, costs, tmp_path / "slim.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_read_back_otherwise_are_not_kept(conv_net, plan, costs, tmp_path, monkeypatch):
    real = files.overwrite

    def changed(path, offset, piece):
        real(path, offset, piece)
        last = path.stat().st_size - 4
        real(path, last, struct.pack("<f", struct.unpack("<f", path.read_bytes()[last:])[0] + 1e-7))

    monkeypatch.setattr(files, "overwrite", changed)
    with pytest.raises(CheckFailed, match=r"slim.safetensors does not read back"):
        write(conv_net, plan, costs, tmp_path / "slim.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_slim_checkpoint_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(SourceError, match="can't be read as safetensors"):
        safetensors.read_slim(path)
    path.write_bytes(b"no weights at all")
    with pytest.raises(SourceError, match="can't be read as safetensors"):
        safetensors.read_slim(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(SourceError, match="holds no plan: peel did not write it"):
        safetensors.read_slim(path)
    save_file({"a": torch.zeros(1)}, path, {"peel.plan": "{}"})
    with pytest.raises(PlanError, match=r"the plan in .*a.safetensors is JSON, but no plan"):
        safetensors.read_slim(path)
    for tied in ("{", "[1]", '{"b": "missing"}', '{"b": []}', "[" * 100_000):
        save_file({"a": torch.zeros(1)}, path, {"peel.plan": "{}", "peel.tied": tied})
        with pytest.raises(SourceError, match="table of tied tensors"):
            safetensors.read_slim(path)


# --- several targets --------------------------------------------------------------------------------------------------


def test_all_targets_or_none(conv_net, plan, costs, tmp_path):
    paths = [tmp_path / name for name in ("slim.pt", "slim.safetensors")]
    artifacts, checks = targets.write(conv_net, plan, costs, paths)
    assert [artifact.kind for artifact in artifacts] == ["pt", "safetensors", "plan"]
    assert [check.name for check in checks] == ["pt_reload", "safetensors_reload"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["slim.plan.json", "slim.pt", "slim.safetensors"]


def test_a_disk_that_fills_up_at_the_last_file_leaves_none(conv_net, plan, costs, tmp_path, monkeypatch):
    (tmp_path / "slim.pt").write_text("old")
    written = []

    def fsync(_):
        written.append(1)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ExportError, match="the disk is full"):
        targets.write(conv_net, plan, costs, [tmp_path / "slim.pt", tmp_path / "slim.safetensors"])
    assert [file.name for file in tmp_path.iterdir()] == ["slim.pt"]
    assert (tmp_path / "slim.pt").read_text() == "old"


def test_no_target_is_no_work(conv_net, plan, costs):
    assert targets.write(conv_net, plan, costs, []) == ((), ())
