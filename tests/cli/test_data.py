"""Samples through the real command: what is printed, what is written, and what goes wrong."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch

import peelcli as peel
from peelcli import plans
from tests.cli.conftest import files_in

DATA = """
import torch
def crops():
    return torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
def broken():
    raise OSError("the disk is away")
"""
HALF = ["--input", "1,3,32,32", "--flops", "50%", "--align", "4"]


@pytest.fixture
def crops(models):
    """A folder with model.pt, crops.npy, and what is wrong in several ways."""
    numbers = np.random.default_rng(0).standard_normal((30, 3, 32, 32), dtype=np.float32)
    np.save(models / "crops.npy", numbers)
    np.save(models / "gray.npy", numbers[:, :2])
    np.save(models / "nan.npy", numbers * np.nan)
    (models / "nothing").mkdir()
    (models / "data.py").write_text(DATA)
    return models


def test_prune_with_samples_writes_the_repaired_model(crops, run_peel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    command = ["prune", crops / "model.pt", *HALF, "--data", crops / "crops.npy", "--out", "slim.onnx"]
    done = run_peel(*command, "--output-format", "json", cwd=folder)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["fidelity"]["fitted"] == 24
    assert document["fidelity"]["held"] == 6
    assert document["fidelity"]["repaired"]["kl"] < document["fidelity"]["cut"]["kl"]
    assert [candidate["chosen"] for candidate in document["candidates"]].count(True) == 1
    assert sorted(files_in(folder)) == ["slim.onnx"]

    numbers = torch.from_numpy(np.load(crops / "crops.npy"))
    model = torch.load(crops / "model.pt", weights_only=False)
    slim, run = peel.prune(crops / "model.pt", input=["1,3,32,32"], flops="50%", align=4, data=crops / "crops.npy")
    assert document["fidelity"]["repaired"]["kl"] == pytest.approx(run.fidelity.repaired.kl, rel=1e-3)
    session = onnxruntime.InferenceSession(folder / "slim.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: numbers.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(found), slim.eval()(numbers), atol=1e-4)
        cut = peel.apply(crops / "model.pt", run.plan).model.eval()(numbers)
        wanted = model.eval()(numbers)
    held = slice(4, None, 5)
    assert float((torch.from_numpy(found) - wanted)[held].norm()) < float((cut - wanted)[held].norm())


def test_one_s_own_samples_to_judge_by(crops, run_peel):
    np.save(crops / "others.npy", np.random.default_rng(1).standard_normal((9, 3, 32, 32), dtype=np.float32))
    command = ["prune", "model.pt", *HALF, "--data", "crops.npy"]
    done = run_peel(*command, "--validation", "others.npy", "--output-format", "json", "--out", "slim.onnx", cwd=crops)
    assert done.returncode == 0, done.stderr
    fidelity = json.loads(done.stdout)["fidelity"]
    assert (fidelity["fitted"], fidelity["held"]) == (30, 9)
    before = files_in(crops)
    done = run_peel(*command, "--validation", "gray.npy", "--out", "other.onnx", cwd=crops)
    assert done.returncode == 2
    assert "gray.npy" in done.stderr
    assert files_in(crops) == before


def test_plan_with_samples_then_apply_with_samples(crops, run_peel):
    samples = ["--data", "data.py:crops", "--repair", "auto"]
    made = run_peel("plan", "model.pt", *HALF, *samples, "--out", "plan.json", cwd=crops)
    assert made.returncode == 0, made.stderr
    assert "widths tried" in made.stdout
    applied = run_peel("apply", "model.pt", "plan.json", *samples, "--out", "slim.pt", cwd=crops)
    assert applied.returncode == 0, applied.stderr
    assert "repaired" in applied.stdout
    plan = plans.read(crops / "plan.json")
    slim = torch.load(crops / "slim.pt", weights_only=False)
    assert [slim[0].out_channels, slim[3].out_channels] == [cut.width for cut in plan.cuts[:2]]
    again = peel.apply(crops / "model.pt", plan, data=f"{crops}/data.py:crops").model
    assert all(torch.equal(value, slim.state_dict()[name]) for name, value in again.state_dict().items())


BAD = {
    "another shape": ("gray.npy", ["gray.npy", "1x2x32x32", "takes 1x3x32x32"]),
    "an empty folder": ("nothing", ["nothing", "no images"]),
    "not a number": ("nan.npy", ["nan.npy", "NaN"]),
    "a function that raises": ("data.py:broken", ["OSError", "the disk is away", "data.py:broken"]),
}


@pytest.mark.parametrize("case", BAD, ids=[name.replace(" ", "-") for name in BAD])
def test_samples_that_can_t_be_used(crops, run_peel, case):
    data, words = BAD[case]
    before = files_in(crops)
    done = run_peel("prune", "model.pt", *HALF, "--data", data, "--out", "slim.onnx", cwd=crops)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert files_in(crops) == before
    first, second = done.stderr.strip().splitlines()
    assert first.startswith("peel: ")
    assert second.startswith("hint: ")
    for word in words:
        assert word in done.stderr


def test_repair_without_any_data(crops, run_peel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    command = ["prune", crops / "model.pt", *HALF, "--data", "synthetic", "--samples", 16]
    done = run_peel(*command, "--out", "slim.onnx", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "against the original, synthetic samples" in done.stdout
    assert "what the slim model does on real ones is not known" in " ".join(done.stdout.split())
    assert sorted(files_in(folder)) == ["slim.onnx"]
    document = json.loads(run_peel(*command, "--output-format", "json", cwd=folder).stdout)
    assert document["fidelity"]["synthetic"] is True
    assert document["fidelity"]["held"] == 3


def test_real_samples_only(crops, run_peel):
    done = run_peel("prune", crops / "model.pt", *HALF, "--data", "synthetic", "--mean", "0.5", "--out", "x.onnx")
    assert done.returncode == 2
    assert "--mean goes with real samples" in done.stderr
    assert not (crops / "x.onnx").exists()
