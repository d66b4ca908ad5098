"""A user's mistakes, through the real command: one clear line, a hint, exit code 2, and nothing written."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.cli.conftest import files_in, small_cnn

GOOD = ["--flops", "50%", "--out", "slim.onnx"]


class Stranger(nn.Module):
    """A class that the command's process can't find."""


class Bomb:
    """A pickle that touches a file when it is loaded."""

    def __reduce__(self):
        return (os.system, ("touch exploded",))


def nan_model() -> nn.Module:
    model = small_cnn()
    with torch.no_grad():
        model[3].weight[0, 0, 0, 0] = float("nan")
    return model


def prepare(folder: Path) -> None:
    """The broken files that the cases name."""
    (folder / "empty.pt").touch()
    (folder / "words.pt").write_text("this is no model\n" * 20)
    whole = (folder / "model.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "bomb.pt").write_bytes(pickle.dumps(Bomb()))
    torch.save({"model": Bomb()}, folder / "zipbomb.pt")
    Stranger.__module__ = "their_training_code"
    module = type(sys)("their_training_code")
    module.Stranger = Stranger
    sys.modules["their_training_code"] = module
    torch.save(Stranger(), folder / "stranger.pt")
    torch.save(nan_model(), folder / "nan.pt")


CASES = {
    "no such file": (["nowhere.pt", *GOOD], ["nowhere.pt", "no such file"]),
    "empty file": (["empty.pt", *GOOD], ["empty.pt", "empty"]),
    "text file": (["words.pt", *GOOD], ["words.pt", "text"]),
    "truncated": (["cut.pt", *GOOD], ["cut.pt", "hint:"]),
    "runs code": (["bomb.pt", *GOOD], ["system", "--trust"]),
    "runs code inside a zip": (["zipbomb.pt", *GOOD], ["system", "--trust"]),
    "class is missing": (["stranger.pt", *GOOD], ["their_training_code", "--code"]),
    "state dict alone": (["state.pt", *GOOD], ["--factory"]),
    "factory raises": (["state.pt", "--factory", "net.py:broken", *GOOD], ["RuntimeError", "no licence", "net.py"]),
    "factory returns no module": (["state.pt", "--factory", "net.py:nothing", *GOOD], ["net.py:nothing", "int"]),
    "factory does not match": (["state.pt", "--factory", "net.py:wide", *GOOD], ["a.weight", "16", "24"]),
    "no such factory": (["state.pt", "--factory", "net.py:mkae", *GOOD], ["mkae", "make"]),
    "no budget": (["model.pt", "--out", "slim.onnx"], ["no budget", "--flops"]),
    "budget zero": (["model.pt", "--flops", "0", "--out", "slim.onnx"], ["--flops 0", "above zero"]),
    "budget negative": (["model.pt", "--flops", "-1", "--out", "slim.onnx"], ["-1"]),
    "budget abc": (["model.pt", "--flops", "abc", "--out", "slim.onnx"], ["--flops abc", "1G"]),
    "budget 101%": (["model.pt", "--flops", "101%", "--out", "slim.onnx"], ["101%", "more than the whole"]),
    "budget nan": (["model.pt", "--flops", "nan", "--out", "slim.onnx"], ["--flops nan"]),
    "params 0.5": (["model.pt", "--params", "0.5", "--out", "slim.onnx"], ["50%"]),
    "wrong input": (["model.pt", "--input", "1,4,32,32", *GOOD], ["1x4x32x32", "--input"]),
    "input of another name": (
        ["net.py:two", "--input", "imag=1,3,8,8", *GOOD],
        ["forward(image, vector)", "vector=1x8"],
    ),
    "no input shape": (["model.pt", "--input", "1;3", *GOOD], ["1;3", "--input"]),
    "nothing to prune": (["net.py:fixed", "--input", "1,3,8,8", *GOOD], ["no layer's width", "peel inspect"]),
    "nan weights": (["nan.pt", *GOOD], ["3.weight", "finite"]),
    "missing folder": (["model.pt", "--flops", "50%", "--out", "no/slim.onnx"], ["no/slim.onnx", "mkdir"]),
    "read-only folder": (["model.pt", "--flops", "50%", "--out", "/proc/slim.onnx"], ["/proc"]),
    "output is the input": (["model.pt", "--flops", "50%", "--out", "./model.pt"], ["is the input"]),
    "the same output twice": (["model.pt", *GOOD, "--out", "./slim.onnx"], ["slim.onnx", "twice"]),
    "unknown suffix": (["model.pt", "--flops", "50%", "--out", "slim.tflite"], [".tflite", ".onnx"]),
    "unknown score": (["model.pt", "--score", "l3", *GOOD], ["l3", "l2"]),
    "unknown flag": (["model.pt", "--flop", "50%"], ["--flop"]),
    "unknown allocator": (["model.pt", "--allocate", "magic", *GOOD], ["magic", "uniform"]),
    "align of zero": (["model.pt", "--align", "0", *GOOD], ["--align 0", "whole number"]),
    "min-keep above one": (["model.pt", "--min-keep", "1.5", *GOOD], ["--min-keep 1.5"]),
    "ignore matches nothing": (["model.pt", "--ignore", "layer9.*", *GOOD], ["layer9.*", "peel inspect"]),
    "metric without samples": (["model.pt", "--metric", "net.py:make", *GOOD], ["--metric", "--data"]),
    "score that needs samples": (["model.pt", "--score", "taylor", *GOOD], ["taylor", "--data", "l2"]),
    "device that is not here": (["model.pt", "--device", "cuda:99", *GOOD], ["CUDA device", "--device"]),
    "unknown name": (["torchvision:resnet51", *GOOD], ["resnet51", "resnet50"]),
    "unknown setting": (["model.pt", "--config", "odd.toml", *GOOD], ["flpos", "flops"]),
    "no such settings": (["model.pt", "--config", "none.toml", *GOOD], ["none.toml"]),
}


@pytest.mark.parametrize("case", CASES, ids=[name.replace(" ", "-") for name in CASES])
def test_one_clear_line_and_nothing_written(models, run_peel, case):
    arguments, words = CASES[case]
    prepare(models)
    (models / "odd.toml").write_text('flpos = "50%"\n')
    before = files_in(models)
    done = run_peel("prune", *arguments, cwd=models)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert files_in(models) == before
    lines = done.stderr.strip().splitlines()
    assert lines[0].startswith("peel: ")
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_budget_out_of_reach_is_refused_with_the_least_figure(models, run_peel):
    before = files_in(models)
    done = run_peel("prune", "model.pt", "--flops", "1k", "--out", "slim.onnx", cwd=models)
    assert done.returncode == 1
    assert "the least MACs that this model can reach is" in done.stderr
    assert "1.000 kMACs (1000)" in done.stderr or "1.00 kMACs (1000)" in done.stderr
    assert files_in(models) == before


def test_a_disk_that_fills_up_leaves_no_file(models, peel_environment):
    before = files_in(models)

    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    # `make coverage` would write a larger file
    uncounted = {name: value for name, value in peel_environment.items() if name != "COVERAGE_PROCESS_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-B", "-m", "peelcli", "prune", "model.pt", *GOOD],
        cwd=models,
        env=uncounted,
        capture_output=True,
        text=True,
        preexec_fn=small_files_only,
    )
    assert done.returncode == 2
    assert "nothing was written" in done.stderr
    assert "Traceback" not in done.stderr
    assert files_in(models) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_file(models, peel_environment, number):
    """Stopped while the export is at work: as soon as a temporary is there, or at the latest after it."""
    before = files_in(models)
    slow = ["prune", "net.py:make", "--input", "1,3,64,64", "--flops", "50%", "--out", "slim.onnx", "--out", "slim.pt"]
    process = subprocess.Popen(
        [sys.executable, "-m", "peelcli", *slow],
        cwd=models,
        env=peel_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and files_in(models) == before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert files_in(models) == before


def test_a_mistake_of_ours_is_one_line_and_keeps_the_traceback(models, peel_environment):
    code = (
        "import sys; from peelcli import pipeline; from peelcli.cli import main\n"
        "def fail(*a, **k): raise ZeroDivisionError('made up')\n"
        "pipeline.prune = fail\n"
        "sys.argv = ['peel', 'prune', 'model.pt', '--flops', '50%']\n"
        "main.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=models, env=peel_environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    first, second = done.stderr.strip().splitlines()
    assert first == "peel: internal error: ZeroDivisionError: made up"
    saved = Path(second.split(" is in ")[1].split(";")[0])
    assert "ZeroDivisionError" in saved.read_text()
    saved.unlink()


@pytest.mark.parametrize("text", ["", "{}", '{"peel_plan": 99}', "[1, 2", '{"peel_plan": 1, "groups": "x"}'])
def test_a_file_that_is_no_plan(models, run_peel, text):
    (models / "plan.json").write_text(text)
    before = files_in(models)
    done = run_peel("apply", "model.pt", "plan.json", "--out", "slim.onnx", cwd=models)
    assert done.returncode == 2
    assert "plan.json" in done.stderr
    assert "hint: " in done.stderr
    assert files_in(models) == before
