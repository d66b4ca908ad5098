"""Training through the real command: alone, killed and resumed, on two processes, and what goes wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import onnxruntime
import pytest
import torch

import peelcli as peel
from peelcli.training import checkpoint
from tests.cli.conftest import files_in
from tests.support.lessons import images, lay_out

RUN = ["slim.safetensors", "--teacher", "model.pt", "--data", "x.npy", "--batch", "16", "--evaluate-every", "8"]
# A metric that ends its process for good at one of its calls: that many looks at held-out samples, the first two
# before training.
KILLER = """
import os, signal
calls = []
def killer(outputs, targets):
    calls.append(1)
    if len(calls) == {call} and os.environ.get("RANK", "0") == "{rank}":
        os.kill(os.getpid(), signal.SIGKILL)
    return 0.0  # every state is as good: nearness decides
"""


@pytest.fixture(scope="module")
def _school(tmp_path_factory):
    folder = tmp_path_factory.mktemp("school")
    lay_out(folder)
    return folder


@pytest.fixture
def school(_school, tmp_path):
    for path in _school.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def losses(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def kills_itself(folder, call, rank=0):
    (folder / "killer.py").write_text(KILLER.format(call=call, rank=rank))


def test_a_slim_model_is_trained_killed_resumed_and_written(school, run_peel):
    """Killed while a step's figures are made, then the same command with --resume: the same bytes."""
    kills_itself(school, call=0)
    command = ["finetune", *RUN, "--steps", "30", "--save-every", "3", "--metric", "killer.py:killer"]
    outputs = ["--out", "tuned.safetensors", "--out", "tuned.onnx", "--output-format", "json"]
    done = run_peel(*command, *outputs, cwd=school)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (found,) = document["training"]
    assert found["after"]["kl"] < found["before"]["kl"] * 0.6
    assert [point["step"] for point in found["curve"]] == [0, 8, 16, 24, 30]
    assert {check["name"]: check["ok"] for check in document["checks"]}["onnx_parity"] is True
    assert "training 30/30: loss " in done.stderr
    x = images(30, seed=7)
    session = onnxruntime.InferenceSession(school / "tuned.onnx", providers=["CPUExecutionProvider"])
    (tuned,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        wanted = torch.load(school / "model.pt", weights_only=False)(x)
        slim = torch.load(school / "slim.pt", weights_only=False)(x)
    assert (torch.from_numpy(tuned) - wanted).norm() < (slim - wanted).norm()
    assert sorted(files_in(school / "tuned.finetune")) == ["metrics.jsonl"]
    assert [line["step"] for line in losses(school / "tuned.finetune") if "loss" in line] == list(range(1, 31))

    kills_itself(school, call=5)  # at step 16, after two looks at the start; the last checkpoint is of step 15
    dead = run_peel(*command, "--out", "parts.safetensors", cwd=school)
    assert dead.returncode == -signal.SIGKILL
    assert checkpoint.read(school / "parts.finetune").step == 15
    assert not (school / "parts.safetensors").exists()
    kills_itself(school, call=0)
    done = run_peel(*command, "--out", "parts.safetensors", "--resume", cwd=school)
    assert done.returncode == 0, done.stderr
    assert "resumed after step 15" in done.stdout
    assert (school / "parts.safetensors").read_bytes() == (school / "tuned.safetensors").read_bytes()
    assert losses(school / "parts.finetune") == losses(school / "tuned.finetune")


def on_two(folder, environment, *arguments):
    """The command on two processes, as torchrun starts them, one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, "-m", "peelcli", *map(str, arguments)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_two_processes_learn_what_one_learns_and_can_be_killed_too(school, peel_environment):
    kills_itself(school, call=0)
    settings = ["--steps", "20", "--batchnorm", "sync", "--metric", "killer.py:killer", "--save-every", "5"]
    peel.finetune(
        school / "slim.safetensors", teacher=school / "model.pt", data=school / "x.npy", batch=16, evaluate_every=8,
        steps=20, metric=f"{school}/killer.py:killer", checkpoints=school / "alone.finetune",
    )  # fmt: skip
    two = on_two(school, peel_environment, "finetune", *RUN, *settings, "--out", "two.pt")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("written") == 1  # only the first of them reports
    assert "2 x cpu (gloo)" in two.stdout
    one, both = losses(school / "alone.finetune"), losses(school / "two.finetune")
    assert [line["step"] for line in both] == [line["step"] for line in one]
    for name in ("loss", "held_kl"):
        assert [line[name] for line in both if name in line] == pytest.approx(
            [line[name] for line in one if name in line], rel=1e-3
        )

    kills_itself(school, call=5, rank=1)
    dead = on_two(school, peel_environment, "finetune", *RUN, *settings, "--out", "parts.pt")
    assert dead.returncode != 0
    assert not (school / "parts.pt").exists()
    assert checkpoint.read(school / "parts.finetune").step == 15
    kills_itself(school, call=0)
    done = on_two(school, peel_environment, "finetune", *RUN, *settings, "--out", "parts.pt", "--resume")
    assert done.returncode == 0, done.stderr
    assert losses(school / "parts.finetune") == both
    states = [torch.load(school / name, weights_only=False).state_dict() for name in ("two.pt", "parts.pt")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_rounds_on_two_processes_are_those_of_one(school, peel_environment):
    settings = {"flops": "40%", "data": "x.npy", "finetune": "16steps", "rounds": 2, "batch": 16, "batchnorm": "sync"}
    flags = [text for name, value in settings.items() for text in (f"--{name}", value)]
    two = on_two(school, peel_environment, "prune", "model.pt", *flags, "--out", "two.pt", "--output-format", "json")
    assert two.returncode == 0, two.stderr
    document = json.loads(two.stdout)  # one document: the second process is silent
    assert all(check["ok"] for check in document["checks"])
    _, run = peel.prune(school / "model.pt", **settings | {"data": school / "x.npy"})
    assert len(run.tunings) == len(document["training"]) == 2
    for ours, theirs in zip(run.tunings, document["training"], strict=True):
        last = ours.curve[-1]
        assert last.step == theirs["curve"][-1]["step"] == 8
        assert theirs["curve"][-1]["loss"] == pytest.approx(last.loss, rel=1e-3)
    assert not list((school / "two.finetune").rglob("checkpoint.pt"))


BAD = {
    "no original": (["slim.safetensors", "--data", "x.npy", "--epochs", "1"], "give the original: --teacher MODEL"),
    "no samples": (["slim.pt", "--teacher", "model.pt", "--epochs", "1"], "training needs samples"),
    "no length": (["slim.pt", "--teacher", "model.pt", "--data", "x.npy"], "--epochs or --steps"),
}


def test_the_original_is_not_written_over(school, run_peel):
    before = files_in(school)
    done = run_peel("finetune", *RUN, "--steps", "2", "--out", "model.pt", cwd=school)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "peel: the output model.pt is the input\nhint: write to another name with --out\n"
    assert files_in(school) == before


@pytest.mark.parametrize("case", BAD, ids=[name.replace(" ", "-") for name in BAD])
def test_what_can_t_be_trained(school, run_peel, case):
    arguments, words = BAD[case]
    before = files_in(school)
    done = run_peel("finetune", *arguments, "--out", "tuned.onnx", cwd=school)
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.strip().splitlines()
    assert first.startswith("peel: ")
    assert second.startswith("hint: ")
    assert words in done.stderr
    assert files_in(school) == before


def test_settings_of_training_may_stand_in_the_file_but_flags_must_be_read(school, run_peel):
    (school / "peel.toml").write_text('batch = 8\nepochs = 3\nfinetune = "1epochs"\n')
    done = run_peel("plan", "model.pt", "--flops", "50%", "--input", "1,1,8,8", cwd=school)
    assert done.returncode == 0, done.stderr
    (school / "peel.toml").write_text("batch = 8\nepochs = 3\n")
    command = ["prune", "model.pt", "--flops", "50%", "--input", "1,1,8,8"]
    assert run_peel(*command, cwd=school).returncode == 0
    done = run_peel(*command, "--temperature", "2", cwd=school)
    assert done.returncode == 2
    assert done.stderr.startswith("peel: --temperature goes with training, and there is none\nhint: ")


def test_the_settings_file_says_how_to_train_and_nothing_that_is_not_read(school, run_peel):
    file = school / "peel.toml"
    file.write_text('teacher = "model.pt"\ndata = "x.npy"\nsteps = 400000\nbatch = 96\nflops = "50%"\n')
    command = ["finetune", "slim.safetensors", "--epochs", "1", "--out", "tuned.pt", "--output-format", "json"]
    done = run_peel(*command, cwd=school)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [point["step"] for point in document["training"][0]["curve"]] == [0, 1]
    assert "--teacher model.pt" in document["command"]
    for line, words in (
        ("distil = 0.5", "there is no setting 'distil'\nhint: did you mean distill?"),
        ('out = "tuned.onnx"', "hint: take it out, and give --out on the command line"),
        ("teacher = 5", "teacher = 5 in the settings file is no text"),
        ('teacher = "other.pt"', "the output other.pt is the input"),
    ):
        file.write_text(f'data = "x.npy"\n{line}\n')
        done = run_peel("finetune", "slim.safetensors", "--steps", "2", "--out", "other.pt", cwd=school)
        assert done.returncode == 2
        assert words in done.stderr
        assert not (school / "other.pt").exists()
