"""A folder with a good file of every kind that peel reads; the faults are made from these."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.support.lessons import CLASSES, SIDE, images, network
from tests.support.station import Station

SHAPE = f"1,1,{SIDE},{SIDE}"
FACTORY = f"""
import os, signal
import torch
from torch import nn

calls = []

def make():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Tanh(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, {CLASSES}),
    ).eval()

def inputs():
    return torch.zeros(1, 1, {SIDE}, {SIDE})

def samples():
    return [(torch.full((1, {SIDE}, {SIDE}), float(n)), n % {CLASSES}) for n in range(8)]

def killer(outputs, targets):
    '''A metric that ends its process, where that is wanted, at its fourth look.'''
    calls.append(1)
    if len(calls) == 4 and "KILL" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0.0
"""
SETTINGS = """
flops = "60%"
score = "l2"
align = 4
min_keep = 0.2
ignore = []
input = ["1,1,8,8"]
seed = 3

[report]
max_flops = "1G"
"""
LESSON = ("--teacher", "model.pt", "--data", "x.npy", "--batch", "16", "--steps", "8", "--seed", "1")
OFTEN = ("--save-every", "1", "--evaluate-every", "2", "--metric", "net.py:killer", "--checkpoints", "stopped")
TRAINING = ("slim.pt", *LESSON, *OFTEN, "--out", "tuned.pt")


def lay_out(folder: Path, station: Station) -> None:
    """Make all files: by torch, onnx and numpy, and by peel's own commands."""
    _models(folder)
    _samples(folder)
    (folder / "net.py").write_text(FACTORY, "utf-8")
    (folder / "own.toml").write_text(SETTINGS, "utf-8")
    (folder / "pyproject").mkdir()
    table = SETTINGS.replace("[report]", "[tool.peel.report]")
    (folder / "pyproject" / "pyproject.toml").write_text(f"[tool.peel]{table}", "utf-8")
    budget = ("--flops", "50%", "--align", "4", "--input", SHAPE)
    outputs = [part for name in ("slim.pt", "slim.safetensors", "generated.py") for part in ("--out", name)]
    _run(station, folder, "plan", "model.pt", *budget, "--out", "plan.json")
    record = _run(station, folder, "prune", "model.pt", *budget, *outputs, "--output-format", "json")
    (folder / "run.json").write_text(record, "utf-8")
    _run(station, folder, "report", "model.onnx", "--out", "report.json")
    _run(station, folder, "sweep", "model.pt", "--input", SHAPE, "--flops", "80%,60%", "--out", "swept")
    killed = station.run(["finetune", *TRAINING], folder, env={"KILL": "1"})
    assert killed.code == -9, killed
    assert (folder / "stopped" / "checkpoint.pt").exists()


def _models(folder: Path) -> None:
    model, example = network(), torch.zeros(1, 1, SIDE, SIDE)
    torch.save(model, folder / "model.pt")
    torch.save(model.state_dict(), folder / "state.pt")
    torch.save(model.state_dict(), folder / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file(model.state_dict(), folder / "weights.safetensors")
    torch.jit.save(torch.jit.trace(model, example), folder / "script.pt")
    torch.export.save(torch.export.export(model, (example,)), folder / "program.pt2")
    torch.onnx.export(model, (example,), folder / "model.onnx", dynamo=True, external_data=False, verbose=False)
    proto = onnx.load(folder / "model.onnx")
    onnx.save(proto, folder / "outside.onnx", save_as_external_data=True, location="outside.bin", size_threshold=64)


def _samples(folder: Path) -> None:
    x, y = images(24), torch.arange(24) % CLASSES
    np.save(folder / "x.npy", x.numpy())
    np.savez(folder / "xy.npz", x=x.numpy(), labels=y.numpy())
    torch.save({"x": x, "labels": y}, folder / "xy.pt")
    save_file({"x": x, "labels": y}, folder / "xy.safetensors")
    for label in ("cat", "dog"):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(2):
            picture = np.full((SIDE, SIDE), 40 * number + len(label), np.uint8)
            Image.fromarray(picture).save(folder / "photos" / label / f"{number}.png")


def _run(station: Station, folder: Path, *argv: str) -> str:
    ran = station.run(argv, folder)
    assert ran.code == 0, ran
    return ran.stdout


def take(names: tuple[str, ...], goods: Path, folder: Path) -> None:
    """Copy files and folders for one case."""
    for name in names:
        source, target = goods / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=shutil.copyfile, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)
